//! Header fields by their figures (RFC 7143 section 11), as the initiator reads and sets them.

use blockwire_wire::{Bhs, Opcode};

use super::super::{Event, Outcome};
use super::peer::*;
use crate::{ConnectionParams, FatalCode, SessionParams};

const TAG: u32 = 0x0001_0000;
const NO_TAG: u32 = 0xffff_ffff;

/// Sets every bit that is reserved in the figure: whole bytes, and bits of bytes.
fn dirty(mut pdu: Vec<u8>, bytes: &[(usize, usize)], bits: &[(usize, u8)]) -> Vec<u8> {
    pdu[0] |= 0x80;
    for at in bytes.iter().flat_map(|(from, to)| *from..*to) {
        pdu[at] = 0xff;
    }
    for (at, mask) in bits {
        pdu[*at] |= mask;
    }
    pdu
}

fn numbers(rig: &mut Rig) -> String {
    format!("{:?} {:?} {}", rig.session.numbers(), rig.session.exp_stat_sn(0), rig.session.unfinished())
}

/// One of each PDU of a target, its reserved bits all 0 or all 1; everything that comes of it.
fn answers(with_dirt: bool) -> Vec<String> {
    let session = SessionParams { immediate_data: false, ..SessionParams::default() };
    let mut rig = Rig::new(session, ConnectionParams::default());
    let mut out = Vec::new();
    let mut give = |rig: &mut Rig, pdu: Vec<u8>, bytes: &[(usize, usize)], bits: &[(usize, u8)]| {
        let pdu = if with_dirt { dirty(pdu, bytes, bits) } else { pdu };
        rig.deliver(0, &pdu).unwrap();
        while let Some(event) = rig.session.poll_event() {
            out.push(match event {
                Event::Control { conn, context, bhs, data } => {
                    let coded = matches!(bhs.0[0] & 0x3f, 0x22 | 0x26 | 0x3f);
                    let code = coded.then(|| bhs.response());
                    format!("{conn} {context} {:?} {code:?} {data:?}", bhs.opcode())
                }
                other => format!("{other:?}"),
            });
        }
        out.push(format!("{:02x?}", rig.sent(0)));
        out.push(numbers(rig));
    };
    // Data-In (11.7) without S and A: no StatSN, status, LUN or residual
    let slot = rig.read(1024);
    rig.sent(0);
    let data = data_in(TAG, 0, 0, 0, 0, 0, &pattern(512));
    give(&mut rig, data, &[(2, 4), (8, 16), (24, 28), (44, 48)], &[(1, 0x38)]);
    // with S
    give(&mut rig, data_in(TAG, 0x81, STAT_SN, 1, 512, 0, &pattern(512)), &[(2, 3), (8, 16)], &[(1, 0x38)]);
    assert_eq!(rig.memory[&slot], [pattern(512), pattern(512)].concat());
    // R2T (11.8), SCSI Response (11.4)
    rig.write(&pattern(600));
    rig.sent(0);
    give(&mut rig, r2t(0x0002_0000, 0x77, 0, 0, 600), &[(2, 4)], &[(1, 0x7f)]);
    // bytes 8 and 9 are the status qualifier of RFC 7144 5.2.1, which is none before iSCSIProtocolLevel=2
    let busy = response(0x0002_0000, 0x80, 8, STAT_SN + 1, 0, 0, &[]);
    give(&mut rig, busy, &[(8, 16)], &[(1, 0x61)]);
    // NOP-In (11.19): a ping
    let ping = pdu(0x20, 0x80, [0, 0], NO_TAG, [0x1234, STAT_SN + 2, EXP, MAX, 0, 0, 0], b"hello");
    give(&mut rig, ping, &[(2, 4), (36, 48)], &[(1, 0x7f)]);
    // Text Response (11.11), final
    let mut request = Bhs::new(Opcode::TextRequest, 0x80);
    request.set_target_transfer_tag(NO_TAG);
    rig.session.submit_control(None, &request, b"SendTargets=\0", 5).unwrap();
    rig.sent(0);
    let text = pdu(0x24, 0x80, [0, 0], 0x0003_0000, [NO_TAG, STAT_SN + 2, EXP, MAX, 0, 0, 0], b"TargetName=a\0");
    give(&mut rig, text, &[(2, 4), (36, 48)], &[(1, 0x3f)]);
    // Task Management Function Response (11.6)
    let mut reset = Bhs::new(Opcode::TaskManagementRequest, 0x85);
    reset.set_immediate();
    reset.set_referenced_task_tag(NO_TAG);
    rig.session.submit_control(None, &reset, &[], 6).unwrap();
    rig.sent(0);
    let done = pdu(0x22, 0x80, [0, 0], 0x0004_0000, [0, STAT_SN + 3, EXP, MAX, 0, 0, 0], &[]);
    give(&mut rig, done, &[(3, 4), (8, 16), (20, 24), (36, 48)], &[(1, 0x7f)]);
    // Asynchronous Message (11.9), event 0 without sense
    let message = pdu(0x32, 0x80, [0, 0], NO_TAG, [0, STAT_SN + 4, EXP, MAX, 0, 0, 0], &[]);
    give(&mut rig, message, &[(2, 4), (20, 24), (44, 48)], &[(1, 0x7f)]);
    // Reject (11.17) of a PDU that is nobody's
    let bad = [0x41; 48];
    let reject = pdu(0x3f, 0x80, [4, 0], NO_TAG, [0, STAT_SN + 5, EXP, MAX, 0, 0, 0], &bad);
    give(&mut rig, reject, &[(3, 4), (8, 16), (20, 24), (36, 48)], &[(1, 0x7f)]);
    // Logout Response (11.15)
    rig.session.submit_control(Some(0), &Bhs::new(Opcode::LogoutRequest, 0x80), &[], 7).unwrap();
    rig.sent(0);
    let bye = pdu(0x26, 0x80, [0, 0], 0x0005_0000, [0, STAT_SN + 6, EXP, MAX, 0, 0, 0], &[]);
    give(&mut rig, bye, &[(3, 4), (8, 16), (20, 24), (36, 40), (44, 48)], &[(1, 0x7f)]);
    out
}

#[test]
fn reserved_bits_and_fields_are_ignored() {
    let clean = answers(false);
    assert_eq!(clean.iter().filter(|line| line.starts_with("0 ")).count(), 5, "{clean:#?}");
    assert_eq!(answers(true), clean);
}

/// RFC 7144 5.2.1: the status qualifier says nothing unless iSCSIProtocolLevel=2 was negotiated.
#[test]
fn a_status_qualifier_changes_nothing() {
    for qualifier in [0x0000_u16, 0x0001, 0xffff] {
        let mut rig = Rig::plain();
        rig.read(512);
        let mut busy = response(TAG, 0x82, 8, STAT_SN, 0, 512, &[]);
        busy[8..10].copy_from_slice(&qualifier.to_be_bytes());
        rig.deliver(0, &busy).unwrap();
        let expected = Outcome::Status { status: 8, residual: 512, read_residual: 0, sense: vec![] };
        assert_eq!(rig.ended(), Some(expected));
    }
}

fn refused(rig: &mut Rig, bytes: &[u8], what: &str) {
    let fatal = rig.deliver(0, bytes).expect_err(what);
    assert_eq!(fatal.code, FatalCode::ProtocolViolation);
    assert!(fatal.what.contains(what), "{} does not say {what}", fatal.what);
    assert_eq!(rig.session.poll_event(), None, "nothing came of it");
}

fn control(rig: &mut Rig, opcode: Opcode, flags: u8) -> u32 {
    let mut request = Bhs::new(opcode, flags);
    request.set_target_transfer_tag(NO_TAG);
    rig.session.submit_control(Some(0), &request, &[], 5).unwrap();
    let out = split(&rig.sent(0));
    word(&out[out.len() - 1].0, 16)
}

#[test]
fn codes_that_are_not_defined_are_protocol_errors() {
    let words = [0, STAT_SN, EXP, MAX, 0, 0, 0];
    for code in [2, 3, 0x7f] {
        let mut rig = Rig::plain();
        rig.read(512);
        refused(&mut rig, &pdu(0x21, 0x80, [code, 0], TAG, words, &[]), "reserved Response code");
    }
    // from 0x80 on they are vendor-specific (11.4.3): a failure, and the connection goes on
    let mut rig = Rig::plain();
    rig.read(512);
    rig.deliver(0, &pdu(0x21, 0x80, [0x80, 0], TAG, words, &[])).unwrap();
    assert_eq!(rig.ended(), Some(Outcome::TargetFailure(0x80)));
    for code in [8, 100, 254] {
        let mut rig = Rig::plain();
        let tag = control(&mut rig, Opcode::TaskManagementRequest, 0x85);
        refused(&mut rig, &pdu(0x22, 0x80, [code, 0], tag, words, &[]), "reserved Response in a Task");
    }
    for code in [4, 255] {
        let mut rig = Rig::plain();
        let tag = control(&mut rig, Opcode::LogoutRequest, 0x80);
        refused(&mut rig, &pdu(0x26, 0x80, [code, 0], tag, words, &[]), "reserved Response in a Logout");
    }
    for reason in [0, 1, 0x0d, 0xff] {
        let mut rig = Rig::plain();
        rig.read(512);
        let header = rig.sent(0);
        refused(&mut rig, &pdu(0x3f, 0x80, [reason, 0], NO_TAG, words, &header), "reason that is not defined");
    }
}

#[test]
fn the_deprecated_negotiation_reset_ends_the_connection() {
    // 11.17.1, note 3
    let mut rig = Rig::plain();
    control(&mut rig, Opcode::TextRequest, 0x80);
    let reset = pdu(0x3f, 0x80, [0x0b, 0], NO_TAG, [0, STAT_SN, EXP, MAX, 0, 0, 0], &[0x04; 48]);
    refused(&mut rig, &reset, "negotiation was reset");
}

#[test]
fn pdus_that_contradict_themselves() {
    // the examples of 7.7
    let mut rig = Rig::plain();
    let tag = control(&mut rig, Opcode::NopOut, 0x80);
    let both = pdu(0x20, 0x80, [0, 0], tag, [0x99, STAT_SN, EXP, MAX, 0, 0, 0], &[]);
    refused(&mut rig, &both, "a ping itself");
    let mut rig = Rig::plain();
    rig.read(512);
    refused(&mut rig, &response(TAG, 0x80, 2, STAT_SN, 0, 0, &[]), "without sense data");
}

#[test]
fn the_direction_bits_say_which_way_data_goes() {
    // 11.3.1: not both 0 when there is a length
    for (write_len, read_len, bits) in [(0, 0, 0x00), (0, 512, 0x40), (512, 0, 0x20), (512, 1, 0x60), (1, 512, 0x60)] {
        let mut rig = Rig::plain();
        rig.memory.insert(crate::Slot(0), pattern(1024));
        rig.command(&[0x53; 10], write_len, read_len);
        let out = rig.sent(0);
        assert_eq!(out[1] & 0x60, bits, "{write_len} {read_len}");
        let expected = if write_len > 0 { write_len } else { read_len };
        assert_eq!(out[20..24], expected.to_be_bytes());
    }
}

#[test]
fn the_tag_of_a_final_text_response_is_ignored() {
    // 11.10.4: the exchange is over, whatever stands there
    let mut rig = Rig::plain();
    let tag = control(&mut rig, Opcode::TextRequest, 0x80);
    rig.deliver(0, &pdu(0x24, 0x80, [0, 0], tag, [0x77, STAT_SN, EXP, MAX, 0, 0, 0], b"A=b\0")).unwrap();
    assert!(matches!(rig.session.poll_event(), Some(Event::Control { context: 5, .. })));
    assert_eq!(rig.session.unfinished(), 0, "nothing is kept for a continuation");
    // a new exchange has a new tag and the reserved Target Transfer Tag
    let mut request = Bhs::new(Opcode::TextRequest, 0x80);
    request.set_target_transfer_tag(NO_TAG);
    rig.session.submit_control(None, &request, b"", 6).unwrap();
    let out = split(&rig.sent(0));
    assert_ne!(word(&out[0].0, 16), tag);
    assert_eq!(word(&out[0].0, 20), NO_TAG);
}

#[test]
fn transfer_tags_are_answered_although_the_task_set_is_being_aborted() {
    // 11.5.1: ABORT TASK SET (2) and CLEAR TASK SET (4)
    for function in [2, 4] {
        let session = SessionParams {
            immediate_data: false,
            error_recovery_level: 1,
            max_outstanding_r2t: 2,
            ..SessionParams::default()
        };
        let mut rig = Rig::new(session, ConnectionParams::default());
        let data = pattern(1000);
        rig.write(&data);
        rig.read(512);
        let mut text = Bhs::new(Opcode::TextRequest, 0x80);
        text.set_target_transfer_tag(NO_TAG);
        rig.session.submit_control(None, &text, b"A=b\0", 8).unwrap();
        rig.sent(0);
        rig.deliver(0, &r2t(TAG, 0xaaaa, 0, 0, 400)).unwrap();
        let mut abort = Bhs::new(Opcode::TaskManagementRequest, 0x80 | function);
        abort.set_immediate();
        abort.set_lun(0x0003_0000_0000_0000);
        abort.set_referenced_task_tag(NO_TAG);
        rig.session.submit_control(Some(0), &abort, &[], 9).unwrap();
        let out = split(&rig.sent(0));
        assert!(out.iter().any(|(h, d)| h[0] == 0x05 && word(h, 20) == 0xaaaa && d == &data[..400]));
        // an R2T, a ping, a Data-In that wants an acknowledgement, a text that goes on, all after the request
        let mut bytes = r2t(TAG, 0xbbbb, 1, 400, 600);
        bytes.extend(pdu(0x20, 0x80, [0, 0], NO_TAG, [0xcccc, STAT_SN, EXP, MAX, 0, 0, 0], &[]));
        let data_in = pdu(0x25, 0xc0, [0, 0], 0x0001_0001, [0xdddd, 0, EXP, MAX, 0, 0, 0], &pattern(512));
        bytes.extend(at_unit(data_in));
        rig.deliver(0, &bytes).unwrap();
        rig.deliver(0, &pdu(0x24, 0x00, [0, 0], 0x0001_0002, [0xeeee, STAT_SN, EXP, MAX, 0, 0, 0], b"A=b\0")).unwrap();
        assert!(matches!(rig.session.poll_event(), Some(Event::Control { context: 8, .. })));
        text.set_target_transfer_tag(0xeeee);
        rig.session.submit_control(Some(0), &text, b"", 8).unwrap();
        let out = split(&rig.sent(0));
        let answered = |opcode, ttt| out.iter().any(|(h, _)| h[0] & 0x3f == opcode && word(h, 20) == ttt);
        assert!(out.iter().any(|(h, d)| h[..2] == [0x05, 0x80] && word(h, 20) == 0xbbbb && d == &data[400..]));
        assert!(answered(0x00, 0xcccc), "NOP-Out");
        assert!(answered(0x10, 0xdddd), "DataACK");
        assert!(answered(0x04, 0xeeee), "Text Request");
    }
}
