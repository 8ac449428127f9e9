//! What goes out and what comes in when both sides behave.

use super::super::{Command, Event, Outcome, SubmitError};
use super::peer::*;
use crate::{ConnectionParams, SessionParams};

/// First tag of a session: generation 1, slot 0.
const TAG: u32 = 0x0001_0000;

#[test]
fn a_read_command_is_these_bytes() {
    let mut rig = Rig::plain();
    rig.read(4096);
    #[rustfmt::skip]
    assert_eq!(rig.sent(0), [
        0x01, 0xc1, 0x00, 0x00,  // SCSI Command, F R, SIMPLE
        0x00, 0x00, 0x00, 0x00,  // no AHS, no data
        0x00, 0x03, 0, 0, 0, 0, 0, 0,
        0x00, 0x01, 0x00, 0x00,  // ITT
        0x00, 0x00, 0x10, 0x00,  // Expected Data Transfer Length 4096
        0x00, 0x00, 0x00, 0x10,  // CmdSN
        0x00, 0x00, 0x01, 0x00,  // ExpStatSN
        0x28, 0, 0, 0, 0, 9, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0,
    ]);
}

#[test]
fn data_and_status_in_one_pdu() {
    let mut rig = Rig::plain();
    let slot = rig.read(512);
    rig.sent(0);
    let data = pattern(512);
    // F and S
    let bytes = data_in(TAG, 0x81, STAT_SN, 0, 0, 0, &data);
    for byte in bytes {
        rig.deliver(0, &[byte]).unwrap();
    }
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.memory[&slot], data);
    assert_eq!(rig.session.numbers(), (0x11, 0x11, 0x20));
    assert_eq!(rig.session.exp_stat_sn(0), Some(STAT_SN + 1));
    assert_eq!(rig.session.unfinished(), 0);
}

/// tgt sends each read as one sequence, whatever MaxBurstLength says (13.13): the data is good.
#[test]
fn a_sequence_beyond_max_burst_length_is_taken_and_counted_once() {
    let session = SessionParams { max_burst_length: 1024, ..SessionParams::default() };
    let mut rig = Rig::new(session, ConnectionParams::default());
    let slot = rig.read(4096);
    rig.sent(0);
    let data = pattern(4096);
    rig.deliver(0, &data_in(TAG, 0, 0, 0, 0, 0, &data[..1024])).unwrap();
    assert_eq!(rig.session.long_sequences(), 0);
    rig.deliver(0, &data_in(TAG, 0, 0, 1, 1024, 0, &data[1024..2048])).unwrap();
    rig.deliver(0, &data_in(TAG, 0x80, 0, 2, 2048, 0, &data[2048..3072])).unwrap(); // F
    assert_eq!(rig.session.long_sequences(), 1);
    rig.deliver(0, &data_in(TAG, 0x81, STAT_SN, 3, 3072, 0, &data[3072..])).unwrap(); // F and S
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.memory[&slot], data);
    assert_eq!(rig.session.long_sequences(), 1);
}

#[test]
fn underflow_overflow_and_sense() {
    let mut rig = Rig::plain();
    rig.read(512);
    rig.deliver(0, &data_in(TAG, 0x83, STAT_SN, 0, 0, 412, &pattern(100))).unwrap(); // F U S
    assert_eq!(rig.ended(), good(412));
    rig.read(512);
    let mut data = data_in(0x0002_0000, 0x80, 0, 0, 0, 0, &pattern(512));
    data.extend(response(0x0002_0000, 0x84, 0, STAT_SN + 1, 0, 88, &[])); // O
    rig.deliver(0, &data).unwrap();
    assert_eq!(rig.ended(), good(-88));
    rig.read(512);
    let sense = [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0];
    let mut segment = vec![0, 18];
    segment.extend(sense);
    rig.deliver(0, &response(0x0003_0000, 0x82, 2, STAT_SN + 2, 0, 512, &segment)).unwrap();
    let expected = Outcome::Status { status: 2, residual: 512, read_residual: 0, sense: sense.to_vec() };
    assert_eq!(rig.ended(), Some(expected));
    // a short read that says nothing of it is counted all the same
    rig.read(512);
    rig.deliver(0, &response(0x0004_0000, 0x80, 0, STAT_SN + 3, 0, 0, &[])).unwrap();
    assert_eq!(rig.ended(), good(512));
    rig.read(512);
    rig.deliver(0, &pdu(0x21, 0x80, [1, 0], 0x0005_0000, [0, STAT_SN + 4, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.ended(), Some(Outcome::TargetFailure(1)));
}

#[test]
fn a_write_with_immediate_data_and_two_r2ts() {
    let session = SessionParams { max_outstanding_r2t: 2, first_burst_length: 1000, ..SessionParams::default() };
    let connection = ConnectionParams { max_send_data_segment_length: 514, ..ConnectionParams::default() };
    let mut rig = Rig::new(session, connection);
    let data = pattern(3000);
    rig.write(&data);
    let out = split(&rig.sent(0));
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].0[..2], [0x01, 0xa1], "F and W");
    assert_eq!(out[0].1, data[..512], "whole words, at most the segment");
    let mut bytes = r2t(TAG, 0xaaaa, 0, 512, 1200);
    bytes.extend(r2t(TAG, 0xbbbb, 1, 1712, 1288));
    rig.deliver(0, &bytes).unwrap();
    let out = split(&rig.sent(0));
    let seen: Vec<_> = out.iter().map(|(h, d)| (h[0], h[1], word(h, 20), word(h, 36), word(h, 40), d.len())).collect();
    assert_eq!(
        seen,
        [
            (0x05, 0, 0xaaaa, 0, 512, 512),
            (0x05, 0, 0xaaaa, 1, 1024, 512),
            (0x05, 0x80, 0xaaaa, 2, 1536, 176),
            (0x05, 0, 0xbbbb, 0, 1712, 512),
            (0x05, 0, 0xbbbb, 1, 2224, 512),
            (0x05, 0x80, 0xbbbb, 2, 2736, 264),
        ]
    );
    let sent: Vec<u8> = out.iter().flat_map(|(_, d)| d.clone()).collect();
    assert_eq!(sent, data[512..]);
    rig.deliver(0, &response(TAG, 0x80, 0, STAT_SN, 0, 0, &[])).unwrap();
    assert_eq!(rig.ended(), good(0));
}

/// InitialR2T x ImmediateData (RFC 7143 13.10, 13.11): (immediate, Data-Out without R2T, F in the command).
#[test]
fn unsolicited_data_by_the_keys() {
    let cases = [
        ((true, true), (800, vec![], true)),
        ((true, false), (0, vec![], true)),
        ((false, true), (800, vec![800, 400], false)),
        ((false, false), (0, vec![800, 800, 400], false)),
    ];
    for ((initial_r2t, immediate_data), (immediate, outs, last)) in cases {
        let session =
            SessionParams { initial_r2t, immediate_data, first_burst_length: 2000, ..SessionParams::default() };
        let connection = ConnectionParams { max_send_data_segment_length: 800, ..ConnectionParams::default() };
        let mut rig = Rig::new(session, connection);
        rig.write(&pattern(5000));
        let out = split(&rig.sent(0));
        assert_eq!(out[0].1.len(), immediate);
        assert_eq!(out[0].0[1] & 0x80 != 0, last);
        let lengths: Vec<usize> = out[1..].iter().map(|(_, d)| d.len()).collect();
        assert_eq!(lengths, outs);
        if let Some((header, _)) = out[1..].last() {
            assert_eq!((header[1], word(header, 20)), (0x80, 0xffff_ffff), "F, no Target Transfer Tag");
            assert_eq!(header[8..16], [0; 8], "the LUN is reserved without a tag");
        }
    }
}

#[test]
fn commands_wait_for_the_window_and_immediate_ones_do_not() {
    let mut rig = Rig::plain();
    for _ in 0..17 {
        rig.read(512);
    }
    assert_eq!(split(&rig.sent(0)).len(), 16, "MaxCmdSN is 0x1f");
    rig.immediate();
    let out = split(&rig.sent(0));
    assert_eq!((out[0].0[0], word(&out[0].0, 24)), (0x41, 0x20), "the current CmdSN, not advanced");
    // NOP-In that only tells numbers: TTT and ITT reserved
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], 0xffff_ffff, [0xffff_ffff, STAT_SN, 0x11, 0x20, 0, 0, 0], &[])).unwrap();
    let out = split(&rig.sent(0));
    assert_eq!((out.len(), word(&out[0].0, 24)), (1, 0x20));
    // MaxCmdSN below ExpCmdSN - 1 is ignored (4.2.2.1), and so is a lower one
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], 0xffff_ffff, [0xffff_ffff, STAT_SN, 0x18, 0x10, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.session.numbers(), (0x21, 0x11, 0x20));
}

#[test]
fn long_cdb_and_bidirectional_command() {
    let mut rig = Rig::plain();
    let mut cdb = vec![0x7f; 32];
    cdb[31] = 0xee;
    rig.memory.insert(crate::Slot(0), pattern(512));
    rig.command(&cdb, 512, 1024);
    let out = rig.sent(0);
    assert_eq!(out[1], 0xe1, "F R W SIMPLE");
    assert_eq!(out[4], 7, "5 words of CDB, 2 of read length");
    assert_eq!(out[20..24], [0, 0, 2, 0], "the write's length");
    assert_eq!(out[48..52], [0, 17, 1, 0], "AHSLength, extended CDB, reserved (11.2.2.3)");
    assert_eq!(out[52..68], cdb[16..]);
    assert_eq!(out[68..76], [0, 5, 2, 0, 0, 0, 4, 0], "bidirectional read length (11.2.2.4)");
    // Data-In and R2T share one numbering
    let mut bytes = data_in(TAG, 0x80, 0, 0, 0, 0, &pattern(1024));
    rig.memory.insert(crate::Slot(0), vec![0; 1024]);
    bytes.extend(response(TAG, 0x92, 0, STAT_SN, 24, 12, &[])); // o U
    rig.deliver(0, &bytes).unwrap();
    let expected = Outcome::Status { status: 0, residual: 12, read_residual: -24, sense: vec![] };
    assert_eq!(rig.ended(), Some(expected));
}

#[test]
fn nop_both_ways() {
    let connection =
        ConnectionParams { keep_alive_interval: 100, keep_alive_timeout: 50, ..ConnectionParams::default() };
    let mut rig = Rig::new(SessionParams::default(), connection);
    // the target's ping: TTT 0x1234, LUN copied, data returned
    let mut ping = pdu(0x20, 0x80, [0, 0], 0xffff_ffff, [0x1234, STAT_SN, 0x10, 0x1f, 0, 0, 0], b"hello");
    ping[9] = 7;
    rig.deliver(0, &ping).unwrap();
    let out = split(&rig.sent(0));
    let (header, data) = &out[0];
    assert_eq!(header[..2], [0x40, 0x80]);
    assert_eq!(
        (header[9], word(header, 16), word(header, 20), data.as_slice()),
        (7, 0xffff_ffff, 0x1234, &b"hello"[..])
    );
    assert_eq!(rig.session.exp_stat_sn(0), Some(STAT_SN), "a ping of the target takes no StatSN");
    // ours
    assert_eq!(rig.session.deadline(0), Some(105));
    rig.session.on_timer(0, 104).unwrap();
    assert!(rig.sent(0).is_empty());
    rig.session.on_timer(0, 105).unwrap();
    let out = split(&rig.sent(0));
    assert_eq!((out[0].0[0], word(&out[0].0, 16), word(&out[0].0, 20)), (0x40, TAG, 0xffff_ffff));
    assert_eq!(rig.session.deadline(0), Some(155));
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], TAG, [0xffff_ffff, STAT_SN, 0x10, 0x1f, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.session.deadline(0), Some(105));
    assert_eq!(rig.session.poll_event(), None);
    rig.session.on_timer(0, 105).unwrap();
    assert!(rig.session.on_timer(0, 155).is_err());
}

#[test]
fn text_goes_on_under_its_tag() {
    let mut rig = Rig::plain();
    let mut request = blockwire_wire::Bhs::new(blockwire_wire::Opcode::TextRequest, 0x80);
    request.set_target_transfer_tag(0xffff_ffff);
    rig.session.submit_control(None, &request, b"SendTargets=All\0", 5).unwrap();
    let out = split(&rig.sent(0));
    assert_eq!((word(&out[0].0, 16), word(&out[0].0, 24), out[0].1.as_slice()), (TAG, 0x10, &b"SendTargets=All\0"[..]));
    rig.deliver(0, &pdu(0x24, 0x40, [0, 0], TAG, [0x77, STAT_SN, EXP, MAX, 0, 0, 0], b"TargetName=a\0")).unwrap();
    let Some(Event::Control { context: 5, data, .. }) = rig.session.poll_event() else { panic!() };
    assert_eq!(data, b"TargetName=a\0");
    request.set_target_transfer_tag(0x77);
    rig.session.submit_control(None, &request, b"", 6).unwrap();
    let out = split(&rig.sent(0));
    assert_eq!((word(&out[0].0, 16), word(&out[0].0, 20), word(&out[0].0, 24)), (TAG, 0x77, 0x11));
    rig.deliver(0, &pdu(0x24, 0x80, [0, 0], TAG, [0xffff_ffff, STAT_SN + 1, EXP, MAX, 0, 0, 0], b"")).unwrap();
    assert!(matches!(rig.session.poll_event(), Some(Event::Control { context: 6, .. })));
    assert_eq!(rig.session.unfinished(), 0);
}

#[test]
fn abort_on_the_tasks_own_connection() {
    let mut rig = Rig::plain();
    let slot = rig.read(512);
    rig.sent(0);
    assert!(rig.session.abort(slot));
    let out = split(&rig.sent(0));
    let header = &out[0].0;
    assert_eq!(header[..2], [0x42, 0x81], "immediate, ABORT TASK");
    assert_eq!(header[8..16], [0, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!((word(header, 20), word(header, 24), word(header, 32)), (TAG, 0x11, 0x10), "tag, CmdSN, RefCmdSN");
    let request = word(header, 16);
    rig.deliver(0, &pdu(0x22, 0x80, [0, 0], request, [0, STAT_SN, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.ended(), Some(Outcome::Aborted));
    // a refusal leaves the task going
    let slot = rig.read(512);
    rig.session.abort(slot);
    let out = split(&rig.sent(0));
    let request = word(&out[1].0, 16);
    rig.deliver(0, &pdu(0x22, 0x80, [255, 0], request, [0, STAT_SN + 1, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.session.poll_event(), Some(Event::AbortRefused { context: 77, response: 255 }));
    assert_eq!(rig.session.unfinished(), 1);
}

#[test]
fn an_unsent_command_is_aborted_at_once_and_a_reset_ends_its_unit() {
    let mut rig = Rig::plain();
    for _ in 0..17 {
        rig.read(512);
    }
    let waiting = rig.read(512);
    assert!(rig.session.abort(waiting));
    assert_eq!(rig.ended(), Some(Outcome::Aborted));
    rig.sent(0);
    let mut reset = blockwire_wire::Bhs::new(blockwire_wire::Opcode::TaskManagementRequest, 0x85);
    reset.set_immediate();
    reset.set_lun(0x0003_0000_0000_0000);
    reset.set_referenced_task_tag(0xffff_ffff);
    rig.session.submit_control(None, &reset, &[], 9).unwrap();
    let out = split(&rig.sent(0));
    let request = word(&out[0].0, 16);
    rig.deliver(0, &pdu(0x22, 0x80, [0, 0], request, [0, STAT_SN, EXP, 0x1f, 0, 0, 0], &[])).unwrap();
    for _ in 0..16 {
        assert_eq!(rig.ended(), Some(Outcome::Aborted));
    }
    assert!(matches!(rig.session.poll_event(), Some(Event::Control { context: 9, .. })));
    assert_eq!(rig.session.unfinished(), 1, "the one that still waits for the window");
}

#[test]
fn reject_of_a_command_and_logout() {
    let mut rig = Rig::plain();
    rig.read(512);
    let command = rig.sent(0);
    rig.deliver(0, &pdu(0x3f, 0x80, [9, 0], 0xffff_ffff, [0, STAT_SN, EXP, MAX, 0, 0, 0], &command)).unwrap();
    assert_eq!(rig.ended(), Some(Outcome::Rejected(9)));
    assert!(matches!(rig.session.poll_event(), Some(Event::Control { context: 0, .. })));
    let logout = blockwire_wire::Bhs::new(blockwire_wire::Opcode::LogoutRequest, 0x80);
    rig.session.submit_control(Some(0), &logout, &[], 3).unwrap();
    let out = split(&rig.sent(0));
    let command = Command {
        lun: 0,
        cdb: &[0; 6],
        attribute: 0,
        immediate: false,
        write_len: 0,
        read_len: 0,
        conn: Some(0),
        context: 1,
    };
    assert_eq!(rig.session.submit(&command), Err(SubmitError::NoConnection));
    rig.deliver(0, &pdu(0x26, 0x80, [0, 0], word(&out[0].0, 16), [0, STAT_SN + 1, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert!(matches!(rig.session.poll_event(), Some(Event::Control { context: 3, .. })));
}

#[test]
fn tags_are_not_used_again_at_once() {
    let mut rig = Rig::plain();
    let mut seen = std::collections::HashSet::new();
    for i in 0..100u32 {
        rig.command(&[0; 6], 0, 0);
        let out = split(&rig.sent(0));
        let tag = word(&out[0].0, 16);
        assert!(tag != 0xffff_ffff && seen.insert(tag));
        let numbers = [0, STAT_SN + i, 0x11 + i, 0x30 + i, 0, 0, 0];
        rig.deliver(0, &pdu(0x21, 0x80, [0, 0], tag, numbers, &[])).unwrap();
        assert_eq!(rig.ended(), good(0));
    }
}

#[test]
fn an_abort_of_an_immediate_command_refers_to_its_own_number() {
    // 11.5.5: RefCmdSN of an immediate command is the CmdSN of the request itself
    let mut rig = Rig::plain();
    rig.command(&[0; 6], 0, 0);
    let slot = rig.immediate();
    rig.command(&[0; 6], 0, 0);
    rig.sent(0);
    assert!(rig.session.abort(slot));
    let out = split(&rig.sent(0));
    assert_eq!((out[0].0[0], out[0].0[1]), (0x42, 0x81));
    assert_eq!((word(&out[0].0, 24), word(&out[0].0, 32)), (0x12, 0x12), "CmdSN and RefCmdSN");
}

#[test]
fn a_task_that_does_not_exist_is_aborted() {
    // 11.6.1: response 1, in order behind everything of this connection: no status comes any more
    let mut rig = Rig::plain();
    let slot = rig.command(&[0; 6], 0, 0);
    rig.sent(0);
    assert!(rig.session.abort(slot));
    let request = word(&split(&rig.sent(0))[0].0, 16);
    rig.deliver(0, &pdu(0x22, 0x80, [1, 0], request, [0, STAT_SN, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.ended(), Some(Outcome::Aborted));
}
