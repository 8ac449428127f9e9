//! Header fields by their figures (RFC 7143 section 11): what is reserved is ignored, what is a code that is not defined is
//! a protocol error, and what has to be 0 or a LUN is.

use blockwire_wire::opcode::reject;

use super::*;

/// Reserved bits of byte 0 in every PDU (11.2.1.1).
const TOP: (usize, u8) = (0, 0x80);

/// A request and its reserved bits, by the figure of its section: (byte, bits).
type Dirt = Vec<(usize, u8)>;

fn bytes(ranges: &[(usize, usize)], also: &[(usize, u8)]) -> Dirt {
    let whole = ranges.iter().flat_map(|(from, to)| *from..*to).map(|at| (at, 0xff));
    [TOP].into_iter().chain(whole).chain(also.iter().copied()).collect()
}

fn log(rig: &mut Rig, out: &mut Vec<String>) {
    for event in rig.events() {
        match event {
            TargetEvent::Control(slot) => {
                let t = rig.session.task(slot).expect("there");
                out.push(format!("Control {} {} {:?}", t.cmd_sn, t.immediate, t.control_data));
            }
            TargetEvent::Command(slot) => {
                let t = rig.session.task(slot).expect("there");
                out.push(format!(
                    "{:?} {:x} {} {} {} {} {} {:?} {} {}",
                    t.kind,
                    t.lun,
                    t.cmd_sn,
                    t.immediate,
                    t.attribute,
                    t.read,
                    t.write,
                    t.cdb,
                    t.expected,
                    t.bidirectional_read
                ));
            }
            other => out.push(format!("{other:?}")),
        }
    }
    for (bhs, payload) in rig.sent(0) {
        out.push(format!("{:02x?} {payload:?}", bhs.0));
    }
}

/// One of each request, with its reserved bits 0 or all of them 1; everything that comes of it.
fn requests(dirty: bool) -> Vec<String> {
    let mut rig = level_1();
    let mut out = Vec::new();
    let mut give = |rig: &mut Rig, mut pdu: Pdu, dirt: Dirt| {
        if dirty {
            for (at, bits) in dirt {
                pdu.bhs[at] |= bits;
            }
        }
        rig.ok(&pdu);
        log(rig, &mut out);
    };
    // SCSI Command (11.3): two bits between W and ATTR, bytes 2 and 3 (PRI of RFC 7144 is one of them)
    let in_command = bytes(&[(2, 4)], &[(1, 0x18)]);
    let mut pdu = command(0x60, 3, 1, 10_000);
    // AHS (11.2.2): two bits above the type, and the byte that a bidirectional read length has no use for
    let ahs = if dirty { [0, 5, 0xc2, 0xff] } else { [0, 5, 2, 0] };
    pdu.ahs = [ahs, [0, 0, 0x10, 0]].concat();
    give(&mut rig, pdu, in_command.clone());
    // Data-Out (11.7), unsolicited: no LUN without a Target Transfer Tag
    let in_data = bytes(&[(2, 4), (24, 28), (32, 36), (44, 48)], &[(1, 0x7f)]);
    let in_unsolicited = bytes(&[(2, 4), (8, 16), (24, 28), (32, 36), (44, 48)], &[(1, 0x7f)]);
    give(&mut rig, data_out(true, 3, NO_TAG, 0, 0, &[5; 500]), in_unsolicited);
    let slot = rig.session.find(3).expect("there");
    assert!(rig.session.solicit(slot, 500, 600));
    let ttt = rig.sent(0)[0].0.target_transfer_tag();
    give(&mut rig, data_out(true, 3, ttt, 0, 500, &[6; 600]), in_data);
    // NOP-Out (11.18)
    give(
        &mut rig,
        Pdu::new(0x40, 0x80).u32(16, 9).u32(20, NO_TAG).u32(28, 100).with(b"ping"),
        bytes(&[(2, 4), (32, 48)], &[(1, 0x7f)]),
    );
    // SNACK (11.16): the ping's answer, and the R2T
    let in_snack = bytes(&[(2, 4), (24, 28), (32, 40)], &[(1, 0x70)]);
    let ask = |kind: u8, itt, begin, length| {
        Pdu::new(0x10, 0x80 | kind).u32(16, itt).u32(20, NO_TAG).u32(28, 100).u32(40, begin).u32(44, length)
    };
    give(&mut rig, ask(1, NO_TAG, 100, 1), in_snack.clone());
    give(&mut rig, ask(0, 3, 0, 0), in_snack);
    // Text Request (11.10), Task Management Function Request (11.5), Logout Request (11.14)
    let text = Pdu::new(0x04, 0x80).u32(16, 11).u32(20, NO_TAG).u32(24, 2).u32(28, 100).with(b"SendTargets=\0");
    give(&mut rig, text, bytes(&[(2, 4), (32, 48)], &[(1, 0x3f)]));
    let abort_task_set = Pdu::new(0x42, 0x82).u32(16, 12).u32(20, NO_TAG).u32(24, 3).u32(28, 100);
    give(&mut rig, abort_task_set, bytes(&[(2, 4), (40, 48)], &[]));
    let logout = Pdu::new(0x06, 0x81).u32(16, 13).u32(20, 0).u32(24, 3).u32(28, 100);
    give(&mut rig, logout, bytes(&[(2, 4), (8, 16), (22, 24), (32, 48)], &[]));
    out
}

#[test]
fn reserved_bits_and_fields_are_ignored() {
    let clean = requests(false);
    assert_eq!(clean.iter().filter(|line| line.starts_with("Scsi") || line.starts_with("Control")).count(), 4);
    assert_eq!(requests(true), clean);
}

/// The command priority of RFC 7144 5.1.1 is none before iSCSIProtocolLevel=2 was negotiated.
#[test]
fn a_command_priority_changes_neither_order_nor_task() {
    let mut rig = Rig::simple();
    let mut urgent = command(0xc0, 4, 2, 512);
    urgent.bhs[2] = 0xf0;
    rig.ok(&urgent);
    rig.ok(&command(0xc0, 3, 1, 512));
    let slots = rig.delivered();
    let tags: Vec<u32> = slots.iter().map(|s| rig.session.task(*s).expect("there").initiator_task_tag).collect();
    assert_eq!(tags, [3, 4]);
    let task = rig.session.task(slots[1]).expect("there");
    assert_eq!((task.attribute, task.expected, task.lun), (1, 512, 0));
}

fn level_1() -> Rig {
    let mut rig = Rig::new(SessionParams { error_recovery_level: 1, ..params() });
    rig.connect(connection(0, 4096));
    rig
}

/// Sends it; gives the reason of the Reject and what the event says.
fn rejected(rig: &mut Rig, pdu: &Pdu) -> (u8, &'static str) {
    rig.ok(pdu);
    let sent = rig.sent(0);
    assert_eq!(sent.len(), 1, "a Reject and nothing else");
    let (bhs, payload) = &sent[0];
    assert_eq!(bhs.0[0], 0x3f);
    let Payload::Inline(header) = payload else { panic!("11.17.4: the header of the bad PDU") };
    assert_eq!(header[16..24], pdu.bhs[16..24]);
    let whats: Vec<_> = rig
        .events()
        .into_iter()
        .filter_map(|e| if let TargetEvent::Violation { what, .. } = e { Some(what) } else { None })
        .collect();
    assert_eq!(whats.len(), 1);
    (bhs.response(), whats[0])
}

#[test]
fn codes_that_are_not_defined_are_reported() {
    let mut rig = level_1();
    // task attribute (11.3.1): 5 to 7
    for attribute in 5..8 {
        let mut pdu = command(0xc0, 3, 1, 512);
        pdu.bhs[1] = 0xc0 | attribute;
        let (reason, what) = rejected(&mut rig, &pdu);
        assert_eq!(reason, reject::PROTOCOL_ERROR);
        assert!(what.contains("task attribute"), "{what}");
    }
    // AHSType (11.2.2.1): 0 and from 3 on
    for kind in [0, 3, 0x3f] {
        let mut pdu = command(0xc0, 3, 1, 512);
        pdu.ahs = vec![0, 1, kind, 0];
        rig.ok(&pdu);
        let sent = rig.sent(0);
        assert_eq!((sent[0].0.0[0], sent[0].0.response()), (0x3f, reject::PROTOCOL_ERROR), "AHSType {kind}");
        assert_eq!(rig.events().len(), 1);
    }
    // type of SNACK (11.16.1): 4 to 15
    for kind in 4..16 {
        let pdu = Pdu::new(0x10, 0x80 | kind).u32(16, NO_TAG).u32(20, NO_TAG).u32(28, 100);
        let (reason, what) = rejected(&mut level_1(), &pdu);
        assert_eq!(reason, reject::PROTOCOL_ERROR);
        assert!(what.contains("type of SNACK"), "{what}");
    }
    // opcodes (11.2.1.2): 0x05 of 11.17.1 is the code for those
    for opcode in [0x07, 0x0f, 0x11, 0x1b, 0x1c, 0x1f, 0x27, 0x30, 0x33, 0x3e] {
        let (reason, what) = rejected(&mut level_1(), &Pdu::new(opcode, 0x80).u32(28, 100));
        assert_eq!(reason, reject::COMMAND_NOT_SUPPORTED);
        assert!(what.contains("opcode"), "{what}");
    }
    // a rejected command was never here (7.3): its number is still to come
    assert_eq!(rig.session.numbers().exp_cmd_sn, 1);
    rig.ok(&command(0xc0, 3, 1, 512));
    assert_eq!(rig.delivered().len(), 1);
}

#[test]
fn only_a_completed_command_has_residual_bits() {
    // 11.4.1: for a response other than "command completed at target" bits 3 to 6 MUST be 0
    let mut rig = Rig::simple();
    let mut pdu = command(0xe0, 3, 1, 0);
    pdu.ahs = vec![0, 5, 2, 0, 0, 0, 0x10, 0];
    rig.ok(&pdu);
    let slot = rig.delivered()[0];
    let finish = Finish {
        response: 1,
        residual: Residual::Overflow(7),
        bidirectional_residual: Residual::Underflow(4096),
        ..Default::default()
    };
    rig.session.finish(slot, finish.clone());
    let bhs = rig.sent(0)[0].0;
    assert_eq!(bhs.0[..4], [0x21, 0x80, 1, 0]);
    assert_eq!(bhs.0[36..48], [0; 12], "ExpDataSN and both counts");
    // the same with the command completed
    let mut pdu = command(0xe0, 4, 2, 0);
    pdu.ahs = vec![0, 5, 2, 0, 0, 0, 0x10, 0];
    rig.ok(&pdu);
    let slot = rig.delivered()[0];
    rig.session.finish(slot, Finish { response: 0, ..finish });
    let bhs = rig.sent(0)[0].0;
    assert_eq!(bhs.0[..4], [0x21, 0x80 | 0x08 | 0x04, 0, 0]);
    assert_eq!(bhs.0[40..48], [0, 0, 0x10, 0, 0, 0, 0, 7]);
}

#[test]
fn our_ping_names_lun_0() {
    // 11.19.3: with a valid Target Transfer Tag the LUN MUST be a correct one; there is a LUN 0 at every target (SAM-5 4.7.4)
    let mut rig = Rig::new(params());
    rig.connect(ConnectionParams { keep_alive_interval: 50, keep_alive_timeout: 20, ..connection(0, 4096) });
    rig.session.tick(0, 50).expect("alive");
    let bhs = rig.sent(0)[0].0;
    assert_eq!(bhs.0[..2], [0x20, 0x80]);
    assert_ne!(bhs.target_transfer_tag(), NO_TAG);
    assert_eq!(bhs.0[8..16], [0; 8]);
}

#[test]
fn headers_that_no_pdu_has_end_the_connection_at_once() {
    // 48 bytes are enough: the 1,020 bytes of AHS that they announce need not come (7.7, 11.2.1.5)
    for bhs in [
        [0xff; BHS_LEN],
        Pdu::new(0x40, 0x80).u32(4, 0x0100_0000).bhs, // a NOP-Out with an AHS
        Pdu::new(0x01, 0x80).u32(4, 0x4100_0000).bhs, // a SCSI Command with 260 bytes of AHS, where 256 are the most
        Pdu::new(0x01, 0xc0).u32(4, 0x00ff_ffff).bhs, // 13.12: 2^24 - 1 bytes of data
        Pdu::new(0x40, 0x80).u32(4, 8193).bhs,
    ] {
        for digests in [(false, false), (true, true)] {
            let mut rig = Rig::new(params());
            rig.connect(ConnectionParams { header_digest: digests.0, data_digest: digests.1, ..connection(0, 4096) });
            let mut bytes = bhs.to_vec();
            if digests.0 && bhs[4] == 0 {
                bytes.extend(crc32c::append(0, &bhs).to_le_bytes());
            }
            for cut in [1, 48, 100] {
                let mut rig = Rig::new(params());
                rig.connect(ConnectionParams { header_digest: digests.0, ..connection(0, 4096) });
                let fatal = rig.feed(0, &bytes, cut).expect_err("dropped");
                assert_eq!(fatal.code, crate::FatalCode::ProtocolViolation);
                assert!(
                    fatal.what.contains("AHS") || fatal.what.contains("MaxRecvDataSegmentLength"),
                    "{}",
                    fatal.what
                );
                assert!(rig.sent(0).is_empty());
            }
        }
    }
    // the longest that is one: 244 bytes of CDB behind the 16, and a bidirectional read length
    let mut rig = Rig::simple();
    let mut pdu = command(0xe0, 3, 1, 0);
    pdu.ahs = [vec![0, 245, 1, 0], vec![9; 244], vec![0, 5, 2, 0, 0, 0, 2, 0]].concat();
    assert_eq!(pdu.ahs.len(), 256);
    rig.ok(&pdu);
    assert_eq!(rig.delivered().len(), 1);
}
