//! What a target can do wrong: each is named, and none moves a byte.

use super::peer::*;
use crate::{FatalCode, SessionParams};

const TAG: u32 = 0x0001_0000;

fn refused(rig: &mut Rig, bytes: &[u8], code: FatalCode, what: &str) {
    let fatal = rig.deliver(0, bytes).expect_err(what);
    assert_eq!(fatal.code, code, "{}", fatal.what);
    assert!(fatal.what.contains(what), "{} does not say {what}", fatal.what);
}

fn reading(bytes: &[u8], what: &str) {
    let mut rig = Rig::plain();
    rig.read(1024);
    rig.sent(0);
    refused(&mut rig, bytes, FatalCode::ProtocolViolation, what);
    assert!(rig.memory.values().all(|m| m.iter().all(|b| *b == 0)), "{what}: bytes were written");
}

fn writing(bytes: &[u8], what: &str) {
    let mut rig = Rig::new(
        SessionParams { immediate_data: false, ..SessionParams::default() },
        crate::ConnectionParams::default(),
    );
    rig.write(&pattern(4096));
    rig.sent(0);
    refused(&mut rig, bytes, FatalCode::ProtocolViolation, what);
    assert!(rig.sent(0).is_empty());
}

#[test]
fn data_in() {
    let data = pattern(512);
    let pdu_at = |tag, flags, offset, data: &[u8]| super::peer::data_in(tag, flags, STAT_SN, 0, offset, 0, data);
    reading(&pdu_at(0x0002_0000, 0x80, 0, &data), "not in progress");
    reading(&pdu_at(0x0001_0001, 0x80, 0, &data), "not in progress");
    reading(&pdu_at(0xffff_ffff, 0x80, 0, &data), "not in progress");
    reading(&pdu_at(TAG, 0x80, 513, &data), "beyond the end");
    reading(&pdu_at(TAG, 0x80, 0xffff_ffff, &data), "beyond the end");
    reading(&pdu_at(TAG, 0x80, 512, &data), "out of order");
    reading(&pdu_at(TAG, 0x01, 0, &data), "without the F bit");
    reading(&pdu_at(TAG, 0x80, 0, &pattern(8196)), "MaxRecvDataSegmentLength");
    writing(&pdu_at(TAG, 0x80, 0, &data), "reads nothing");
    let mut rig = Rig::plain();
    rig.read(1024);
    refused(&mut rig, &super::peer::data_in(TAG, 0, 0, 1, 0, 0, &data), FatalCode::SequenceGap, "DataSN");
    let mut rig = Rig::plain();
    rig.read(1024);
    let check = pdu(0x25, 0x81, [0, 2], TAG, [0xffff_ffff, STAT_SN, EXP, MAX, 0, 0, 0], &data);
    refused(&mut rig, &check, FatalCode::ProtocolViolation, "CHECK CONDITION");
}

#[test]
fn data_twice_and_sequences_with_a_hole() {
    let session = SessionParams { data_pdu_in_order: false, max_burst_length: 1024, ..SessionParams::default() };
    let mut rig = Rig::new(session.clone(), crate::ConnectionParams::default());
    rig.read(4096);
    rig.deliver(0, &super::peer::data_in(TAG, 0, 0, 0, 512, 0, &pattern(512))).unwrap();
    let again = super::peer::data_in(TAG, 0, 0, 1, 1023, 0, &pattern(4));
    refused(&mut rig, &again, FatalCode::ProtocolViolation, "came already");
    let mut rig = Rig::new(session, crate::ConnectionParams::default());
    rig.read(4096);
    rig.deliver(0, &super::peer::data_in(TAG, 0, 0, 0, 0, 0, &pattern(100))).unwrap();
    let hole = super::peer::data_in(TAG, 0x80, 0, 1, 200, 0, &pattern(100));
    refused(&mut rig, &hole, FatalCode::ProtocolViolation, "hole");
}

#[test]
fn r2t() {
    let r2t = super::peer::r2t;
    writing(&r2t(0x0009_0000, 1, 0, 0, 512), "not in progress");
    writing(&r2t(TAG, 0xffff_ffff, 0, 0, 512), "reserved Target Transfer Tag");
    writing(&r2t(TAG, 1, 0, 0, 0), "no data");
    writing(&r2t(TAG, 1, 0, 0, 262_145), "MaxBurstLength");
    writing(&r2t(TAG, 1, 0, 4000, 97), "beyond the end");
    writing(&r2t(TAG, 1, 0, 0xffff_ff00, 0x200), "beyond the end");
    writing(&r2t(TAG, 1, 0, 512, 512), "out of order");
    reading(&r2t(TAG, 1, 0, 0, 512), "writes nothing");
    // a second one beside MaxOutstandingR2T=1, and bytes asked for twice
    let mut rig = Rig::new(
        SessionParams { immediate_data: false, ..SessionParams::default() },
        crate::ConnectionParams::default(),
    );
    rig.write(&pattern(4096));
    rig.deliver(0, &r2t(TAG, 1, 0, 0, 512)).unwrap();
    refused(&mut rig, &r2t(TAG, 2, 1, 512, 512), FatalCode::ProtocolViolation, "MaxOutstandingR2T");
    let mut rig = Rig::plain();
    rig.write(&pattern(4096));
    rig.sent(0);
    refused(&mut rig, &r2t(TAG, 2, 0, 4000, 96), FatalCode::ProtocolViolation, "sent already");
    let mut rig = Rig::new(
        SessionParams { immediate_data: false, ..SessionParams::default() },
        crate::ConnectionParams::default(),
    );
    rig.write(&pattern(4096));
    refused(&mut rig, &r2t(TAG, 2, 1, 0, 96), FatalCode::SequenceGap, "R2TSN");
}

#[test]
fn responses_and_numbers() {
    let status = |tag, stat_sn| response(tag, 0x80, 0, stat_sn, 0, 0, &[]);
    reading(&status(0x0002_0000, STAT_SN), "not in progress");
    reading(&response(TAG, 0x86, 0, STAT_SN, 0, 1, &[]), "overflow and underflow");
    reading(&response(TAG, 0x80, 2, STAT_SN, 0, 0, &[0, 9, 1, 2]), "SenseLength");
    reading(&response(TAG, 0x80, 2, STAT_SN, 0, 0, &[0]), "one byte");
    reading(&pdu(0x21, 0x80, [0, 0], TAG, [0, STAT_SN, 0x12, MAX, 0, 0, 0], &[]), "was not sent");
    for stat_sn in [STAT_SN + 1, STAT_SN - 1] {
        let mut rig = Rig::plain();
        rig.read(512);
        refused(&mut rig, &status(TAG, stat_sn), FatalCode::SequenceGap, "StatSN");
    }
    // a second response to the same task
    let mut rig = Rig::plain();
    rig.read(512);
    rig.deliver(0, &response(TAG, 0x82, 0, STAT_SN, 0, 512, &[])).unwrap();
    assert_eq!(rig.ended(), good(512));
    refused(&mut rig, &status(TAG, STAT_SN + 1), FatalCode::ProtocolViolation, "not in progress");
}

#[test]
fn pdus_out_of_place() {
    for (opcode, what) in
        [(0x23, "Login Response"), (0x01, "only an initiator"), (0x05, "only an initiator"), (0x1c, "does not exist")]
    {
        reading(&pdu(opcode, 0x80, [0, 0], TAG, [0, STAT_SN, EXP, MAX, 0, 0, 0], &[]), what);
    }
    for (opcode, what) in
        [(0x22, "to no request"), (0x24, "to no Text"), (0x26, "to no Logout"), (0x20, "was not sent")]
    {
        reading(&pdu(opcode, 0x80, [0, 0], TAG, [0xffff_ffff, STAT_SN, EXP, MAX, 0, 0, 0], &[]), what);
    }
    let mut ahs = pdu(0x21, 0x80, [0, 0], TAG, [0, STAT_SN, EXP, MAX, 0, 0, 0], &[]);
    ahs[4] = 1;
    ahs.extend([0; 4]);
    reading(&ahs, "AHS");
    reading(&pdu(0x31, 0x80, [0, 0], TAG, [1, STAT_SN, EXP, MAX, 0, 0, 4], &[1, 2, 3, 4]), "has none");
}

/// Feeds PDUs that want an answer and reads none; the queue must not grow for ever.
fn floods(mut rig: Rig, mut next: impl FnMut(u32) -> Vec<u8>) {
    rig.sent(0);
    for number in 0..10_000 {
        let refused = rig.deliver(0, &next(number)).is_err();
        while rig.session.poll_event().is_some() {}
        if refused {
            return;
        }
        assert!(crate::Endpoint::send_queue(&mut rig.session, 0).len() < 1000, "answers pile up");
    }
    panic!("never refused");
}

#[test]
fn requests_for_acknowledgement_are_bounded() {
    let params = SessionParams { error_recovery_level: 1, data_sequence_in_order: false, ..SessionParams::default() };
    let mut rig = Rig::new(params, crate::ConnectionParams::default());
    rig.read(1024);
    // Data-In of no bytes, each with the A bit (11.7.2)
    let lun = [0, 3, 0, 0, 0, 0, 0, 0];
    floods(rig, |number| {
        let mut bytes = pdu(0x25, 0xc0, [0, 0], TAG, [7, 0, EXP, MAX, number, 0, 0], &[]);
        bytes[8..16].copy_from_slice(&lun);
        bytes
    });
}

#[test]
fn messages_that_want_an_answer_are_bounded() {
    let params = SessionParams { fast_abort: true, ..SessionParams::default() };
    let rig = Rig::new(params, crate::ConnectionParams::default());
    // AsyncEvent 5 is in byte 36 (11.9)
    floods(rig, |number| {
        pdu(0x32, 0x80, [0, 0], 0xffff_ffff, [0xffff_ffff, STAT_SN + number, 0x10, MAX, 0x0500_0000, 0, 0], &[])
    });
}

#[test]
fn bytes_behind_a_hole_are_not_shown_for_the_first_ones() {
    let session = SessionParams { data_pdu_in_order: false, ..SessionParams::default() };
    let mut rig = Rig::new(session, crate::ConnectionParams::default());
    rig.read(1024);
    rig.sent(0);
    rig.deliver(0, &super::peer::data_in(TAG, 0, 0, 0, 512, 0, &pattern(512))).unwrap();
    // CHECK CONDITION with an underflow of 512: of the first 512 bytes none came
    rig.deliver(0, &response(TAG, 0x82, 2, STAT_SN, 0, 512, &[0, 2, 0x70, 0])).unwrap();
    let Some(crate::initiator::Outcome::Status { status: 2, residual: 1024, .. }) = rig.ended() else {
        panic!("what lies behind a hole is no prefix")
    };
}
