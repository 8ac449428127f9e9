//! What an initiator can do wrong in the full feature phase (RFC 7143 section 7): what comes back, what the event says, and
//! that nothing of it gets a place.

use blockwire_wire::opcode::reject;

use super::*;
use crate::FatalCode;

/// What becomes of a bad PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A Reject with this reason; the connection goes on.
    Rejected(u8),
    /// Nothing is sent.
    Ignored,
    /// No Reject: the task ends with CHECK CONDITION.
    Ends(Condition),
    /// A Reject with this reason, and the task ends with CHECK CONDITION.
    RejectedAndEnds(u8, Condition),
    /// The connection is dropped.
    Dropped,
}
use Fate::{Dropped, Ends, Ignored, Rejected, RejectedAndEnds};

fn level(error_recovery_level: u8) -> Rig {
    let mut rig = Rig::new(SessionParams { error_recovery_level, data_sequence_in_order: false, ..params() });
    rig.connect(connection(0, 4096));
    rig
}

/// A write of 10,000 bytes with tag 3 and CmdSN 1, and an R2T for the first 5,000; gives its Target Transfer Tag.
fn writing(rig: &mut Rig) -> u32 {
    rig.ok(&command(0xa0, 3, 1, 10_000));
    let slot = rig.delivered()[0];
    assert!(rig.session.solicit(slot, 0, 5000));
    rig.sent(0)[0].0.target_transfer_tag()
}

/// Sends it and compares: what comes back, what is said (nothing: ""), and that no byte of it was placed.
fn bad(mut rig: Rig, pdu: &Pdu, fate: Fate, says: &str) {
    let placed = rig.memory.clone();
    let numbers = rig.session.numbers();
    rig.events();
    let result = rig.send(pdu);
    if fate == Dropped {
        let fatal = result.expect_err("dropped");
        assert_eq!(fatal.code, FatalCode::ProtocolViolation, "{says}");
        assert!(fatal.what.contains(says), "{} does not say {says}", fatal.what);
        assert!(rig.sent(0).is_empty());
        return;
    }
    result.expect("the connection goes on");
    let whats: Vec<&str> = rig
        .events()
        .iter()
        .filter_map(|e| if let TargetEvent::Violation { what, .. } = e { Some(*what) } else { None })
        .collect();
    if says.is_empty() {
        assert!(whats.is_empty(), "{whats:?}");
    } else {
        assert_eq!(whats.len(), 1, "{says}: {whats:?}");
        assert!(whats[0].contains(says), "{} does not say {says}", whats[0]);
        assert!(whats[0].contains("RFC 7143 "), "{}", whats[0]);
    }
    let sent = rig.sent(0);
    let (reason, condition) = match fate {
        Rejected(reason) => (Some(reason), None),
        RejectedAndEnds(reason, condition) => (Some(reason), Some(condition)),
        Ends(condition) => (None, Some(condition)),
        Ignored | Dropped => (None, None),
    };
    let reasons: Vec<u8> = sent.iter().filter(|(b, _)| b.0[0] == 0x3f).map(|(b, _)| b.response()).collect();
    assert_eq!(reasons, reason.into_iter().collect::<Vec<u8>>(), "{says}");
    if let Some(condition) = condition {
        let slot = rig.session.find(3).expect("there");
        assert_eq!(rig.session.task(slot).expect("there").out.condition, Some(condition), "{says}");
    } else {
        assert_eq!(rig.session.numbers(), numbers, "{says}: no number was taken");
    }
    assert!(rig.memory == placed, "{says}: bytes were placed");
    // and it goes on: a ping is answered
    rig.ok(&Pdu::new(0x40, 0x80).u32(16, 0x77).u32(20, NO_TAG).u32(24, 1).u32(28, 100));
    assert!(rig.sent(0).iter().any(|(b, _)| b.0[0] == 0x20), "{says}");
}

#[test]
fn data_out_for_what_does_not_wait_for_it() {
    let data = [7; 10];
    for erl in [0, 1] {
        bad(
            level(erl),
            &data_out(true, 3, NO_TAG, 0, 0, &data),
            Rejected(reject::INVALID_PDU_FIELD),
            "not in progress",
        );
        let mut rig = level(erl);
        let ttt = writing(&mut rig);
        bad(rig, &data_out(true, 4, ttt, 0, 0, &data), Rejected(reject::INVALID_PDU_FIELD), "not in progress");
        let mut rig = level(erl);
        let ttt = writing(&mut rig);
        let wrong = data_out(true, 3, ttt + 1, 0, 0, &data);
        bad(rig, &wrong, Rejected(reject::INVALID_PDU_FIELD), "waits for none");
        // a Target Transfer Tag that was used up by its F bit
        let mut rig = level(erl);
        let ttt = writing(&mut rig);
        rig.ok(&data_out(true, 3, ttt, 0, 0, &[7; 5000]));
        let again = data_out(true, 3, ttt, 1, 0, &data);
        bad(rig, &again, Rejected(reject::INVALID_PDU_FIELD), "waits for none");
        // a read takes none
        let mut rig = level(erl);
        rig.ok(&command(0xc0, 3, 1, 512));
        bad(rig, &data_out(true, 3, 9, 0, 0, &data), Rejected(reject::INVALID_PDU_FIELD), "waits for none");
        // no SCSI command at all
        let mut rig = level(erl);
        rig.ok(&Pdu::new(0x04, 0x80).u32(16, 3).u32(20, NO_TAG).u32(24, 1).u32(28, 100));
        bad(rig, &data_out(true, 3, NO_TAG, 0, 0, &data), Rejected(reject::INVALID_PDU_FIELD), "for no command");
    }
}

#[test]
fn data_out_on_a_connection_that_is_not_its_commands() {
    let mut rig = level(1);
    let ttt = writing(&mut rig);
    rig.connect(connection(1, 4096));
    rig.feed(1, &data_out(true, 3, ttt, 0, 0, &[7; 5000]).bytes((false, false)), 4096).expect("goes on");
    assert_eq!(rig.sent(1)[0].0.response(), reject::INVALID_PDU_FIELD);
    let events = rig.events();
    assert!(matches!(events[..], [TargetEvent::Violation { conn: 1, what, .. }] if what.contains("allegiant")));
    assert!(rig.memory.is_empty());
}

#[test]
fn data_out_outside_of_what_was_asked_for() {
    let outside = RejectedAndEnds(reject::PROTOCOL_ERROR, Condition::IncorrectAmountOfData);
    for erl in [0, 1] {
        for (offset, length) in [(4991, 10), (5000, 10), (9990, 10), (10_000, 1), (0xffff_ffff, 10), (0x7fff_ffff, 10)]
        {
            let mut rig = level(erl);
            let ttt = writing(&mut rig);
            bad(rig, &data_out(false, 3, ttt, 0, offset, &vec![7; length]), outside, "outside");
        }
        // unsolicited: beyond the transfer, beyond FirstBurstLength
        let mut rig = level(erl);
        rig.ok(&command(0x20, 3, 1, 1000));
        bad(rig, &data_out(true, 3, NO_TAG, 0, 0, &[7; 1001]), outside, "outside");
        let mut rig = Rig::new(SessionParams { error_recovery_level: erl, first_burst_length: 512, ..params() });
        rig.connect(connection(0, 4096));
        rig.ok(&command(0x20, 3, 1, 1000));
        bad(rig, &data_out(true, 3, NO_TAG, 0, 0, &[7; 513]), outside, "outside");
    }
}

#[test]
fn data_out_out_of_order_or_twice() {
    let order = RejectedAndEnds(reject::PROTOCOL_ERROR, Condition::ProtocolServiceCrcError);
    // DataSN 1 where 0 is due, offset 100 where 0 is due
    for (sn, offset) in [(1, 0), (0, 100)] {
        let mut rig = level(0);
        let ttt = writing(&mut rig);
        bad(rig, &data_out(false, 3, ttt, sn, offset, &[7; 10]), order, "out of order");
    }
    // bytes that came already, where any order is allowed
    let mut rig = Rig::new(SessionParams { data_pdu_in_order: false, ..params() });
    rig.connect(connection(0, 4096));
    let ttt = writing(&mut rig);
    rig.ok(&data_out(false, 3, ttt, 0, 1000, &[7; 1000]));
    bad(rig, &data_out(false, 3, ttt, 1, 1999, &[8; 10]), order, "came already");
}

#[test]
fn data_that_nobody_asked_for() {
    let unexpected = Condition::UnexpectedUnsolicitedData;
    // after its F bit; where InitialR2T=Yes; where ImmediateData=No; for a read; more than the transfer or FirstBurstLength
    let mut rig = level(0);
    rig.ok(&command(0xa0, 3, 1, 1000));
    let more = data_out(true, 3, NO_TAG, 0, 0, &[7; 10]);
    bad(rig, &more, RejectedAndEnds(reject::PROTOCOL_ERROR, unexpected), "after its F bit");
    let with = |params| {
        let mut rig = Rig::new(params);
        rig.connect(connection(0, 4096));
        rig
    };
    let rig = with(SessionParams { initial_r2t: true, ..params() });
    bad(rig, &command(0x20, 3, 1, 1000), Ends(unexpected), "InitialR2T");
    let rig = with(SessionParams { immediate_data: false, ..params() });
    bad(rig, &command(0xa0, 3, 1, 1000).with(&[7; 10]), Ends(unexpected), "immediate data where");
    bad(level(0), &command(0xc0, 3, 1, 1000).with(&[7; 10]), Ends(unexpected), "immediate data where");
    let incorrect = Ends(Condition::IncorrectAmountOfData);
    bad(level(0), &command(0xa0, 3, 1, 9).with(&[7; 10]), incorrect, "more immediate data");
    let rig = with(SessionParams { first_burst_length: 512, ..params() });
    bad(rig, &command(0xa0, 3, 1, 5000).with(&[7; 513]), incorrect, "more immediate data");
}

#[test]
fn numbers_and_tags_of_requests() {
    for (cmd_sn, says) in [(9, "CmdSN above the window"), (0x7fff_0000, "CmdSN above the window"), (0, "")] {
        bad(level(0), &command(0xc0, 3, cmd_sn, 512), Ignored, says);
    }
    let mut rig = level(0);
    rig.ok(&command(0xc0, 3, 1, 512));
    bad(rig, &command(0xc0, 3, 2, 512), Rejected(reject::TASK_IN_PROGRESS), "in use");
    bad(level(0), &command(0xc0, NO_TAG, 1, 512), Rejected(reject::INVALID_PDU_FIELD), "reserved Initiator Task Tag");
    let mut rig = level(0);
    for tag in [10, 11] {
        let mut pdu = command(0xc0, tag, 1, 0);
        pdu.bhs[0] |= 0x40;
        rig.ok(&pdu);
    }
    let mut third = command(0xc0, 12, 1, 0);
    third.bhs[0] |= 0x40;
    bad(rig, &third, Rejected(reject::IMMEDIATE_COMMAND_REJECT), "too many immediate");
    // ExpStatSN of what was never sent releases nothing
    let mut rig = level(1);
    rig.ok(&command(0xc0, 3, 1, 512));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 512, true, Some(Finish::good(Residual::None)));
    rig.sent(0);
    bad(rig, &Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, NO_TAG).u32(28, 150), Ignored, "");
}

#[test]
fn requests_that_contradict_themselves() {
    let invalid = Rejected(reject::INVALID_PDU_FIELD);
    bad(level(0), &command(0x40, 3, 1, 512), invalid, "neither the F nor the W bit");
    bad(level(0), &command(0x80, 3, 1, 512), invalid, "neither the R nor the W bit");
    for opcode in [0x02, 0x06] {
        let pdu = Pdu::new(opcode, 0x81).u32(16, 3).u32(20, NO_TAG).u32(24, 1).u32(28, 100).with(&[0; 4]);
        bad(level(0), &pdu, invalid, "data segment in a request that has none");
    }
    let pdu = Pdu::new(0x00, 0x80).u32(16, NO_TAG).u32(20, NO_TAG).u32(24, 1).u32(28, 100);
    bad(level(0), &pdu, invalid, "not immediate");
    // the answer to a ping that was never sent
    let pdu = Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, 0x1234).u32(24, 1).u32(28, 100);
    bad(level(0), &pdu, invalid, "answers no ping");
    let login = Pdu::new(0x43, 0x87).u32(16, 3).u32(28, 100);
    bad(level(0), &login, Rejected(reject::PROTOCOL_ERROR), "Login Request");
    let mut rig = level(0);
    for n in 0..8 {
        let text = Pdu::new(0x04, 0x80).u32(16, 20 + n).u32(20, NO_TAG).u32(24, 1 + n).u32(28, 100);
        rig.ok(&text.with(&[0x41; 8192]));
    }
    let text = Pdu::new(0x44, 0x80).u32(16, 40).u32(20, NO_TAG).u32(24, 1).u32(28, 100).with(&[0x41; 8192]);
    bad(rig, &text, Rejected(reject::LONG_OPERATION_REJECT), "more text and ping data");
}

#[test]
fn snacks_for_what_never_was() {
    let snack = |kind: u8, itt, tag, begin, length| {
        Pdu::new(0x10, 0x80 | kind).u32(16, itt).u32(20, tag).u32(28, 100).u32(40, begin).u32(44, length)
    };
    let reading = || {
        let mut rig = level(1);
        rig.ok(&command(0xc0, 3, 1, 8192));
        let slot = rig.delivered()[0];
        rig.session.send_data(slot, 0, 8192, true, None);
        assert_eq!(rig.sent(0).len(), 2);
        rig
    };
    let error = Rejected(reject::PROTOCOL_ERROR);
    bad(reading(), &snack(0, 3, NO_TAG, 2, 1), error, "never sent or acknowledged");
    bad(reading(), &snack(0, 3, NO_TAG, 0, 0xffff_ffff), error, "never sent or acknowledged");
    bad(reading(), &snack(0, 4, NO_TAG, 0, 0), error, "not here");
    bad(reading(), &snack(1, NO_TAG, NO_TAG, 100, 1), error, "never sent or acknowledged");
    bad(reading(), &snack(1, NO_TAG, NO_TAG, 99, 1), error, "never sent or acknowledged");
    bad(reading(), &snack(1, 3, NO_TAG, 100, 1), Rejected(reject::INVALID_PDU_FIELD), "with a tag");
    bad(reading(), &snack(2, NO_TAG, 77, 1, 0), Rejected(reject::INVALID_DATA_ACK), "not asked for");
    bad(reading(), &snack(2, NO_TAG, NO_TAG, 1, 0), Rejected(reject::INVALID_PDU_FIELD), "DataACK");
    bad(reading(), &snack(3, 4, 9, 0, 0), error, "does not read");
    bad(reading(), &snack(3, 3, 0, 0, 0), Rejected(reject::INVALID_PDU_FIELD), "without SNACK Tag");
    bad(reading(), &snack(0, 3, NO_TAG, 0, 0).with(&[0; 4]), Rejected(reject::INVALID_PDU_FIELD), "data segment");
    let mut rig = level(0);
    rig.ok(&command(0xc0, 3, 1, 512));
    bad(rig, &snack(0, 3, NO_TAG, 0, 0), Rejected(reject::COMMAND_NOT_SUPPORTED), "ErrorRecoveryLevel 0");
}

#[test]
fn what_ends_the_connection() {
    for opcode in [0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f] {
        bad(level(0), &Pdu::new(opcode, 0x80).u32(28, 100), Dropped, "target's opcode");
    }
    bad(level(0), &command(0xa0, 3, 1, 9000).with(&[7; 8193]), Dropped, "MaxRecvDataSegmentLength");
    for ahs in [vec![0, 9, 1, 0, 1, 2, 3, 4], vec![0, 0, 1, 0], vec![0, 5, 2, 0, 0, 0, 1, 0, 0, 5, 2, 0, 0, 0, 1, 0]] {
        let mut pdu = command(0xc0, 3, 1, 512);
        pdu.ahs = ahs;
        bad(level(0), &pdu, Dropped, "malformed additional header");
    }
    let mut pdu = Pdu::new(0x40, 0x80).u32(16, 3).u32(20, NO_TAG).u32(28, 100);
    pdu.ahs = vec![0, 1, 1, 0];
    bad(level(0), &pdu, Dropped, "AHS");
}
