//! Initiator Task Tags that are used again (RFC 7143 11.2.1.8): a tag is free for the initiator when it has the status, and
//! above error recovery level 0 the target keeps the answer until it is acknowledged.

use super::*;

fn rig() -> Rig {
    let level = SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() };
    let mut rig = Rig::new(level);
    rig.connect(connection(0, 4096));
    rig.connect(connection(1, 4096));
    rig
}

/// Answers the one command that was delivered.
fn answer(rig: &mut Rig) -> Slot {
    let slot = rig.delivered()[0];
    rig.session.finish(slot, Finish::default());
    slot
}

#[test]
fn a_tag_is_free_with_the_acknowledgement_in_its_next_request() {
    for opcode in [0x01, 0x04, 0x02, 0x40] {
        let mut rig = rig();
        rig.ok(&command(0x80, 3, 1, 0));
        let slot = answer(&mut rig);
        assert_eq!(rig.sent(0)[0].0.stat_sn(), 100);
        // the next request has the same tag, and acknowledges StatSN 100
        let mut next = command(0x80, 3, 2, 0).u32(28, 101);
        next.bhs[0] = opcode;
        if opcode != 0x01 {
            next = next.u32(20, NO_TAG);
        }
        rig.ok(&next);
        let events = rig.events();
        assert!(events.contains(&TargetEvent::Released(slot)), "{events:?}");
        let sent = rig.sent(0);
        assert!(sent.iter().all(|(bhs, _)| bhs.0[0] != 0x3f), "{opcode:#x}: no Reject");
        let expected = if opcode == 0x40 { 2 } else { 3 }; // an immediate one takes no number
        assert_eq!(rig.session.numbers().exp_cmd_sn, expected, "{opcode:#x}: it was taken");
    }
}

#[test]
fn a_tag_is_free_on_another_connection_before_its_answer_is_acknowledged() {
    let mut rig = rig();
    rig.ok(&command(0xa0, 3, 1, 4).with(b"once"));
    let first = answer(&mut rig);
    // not before the answer left
    rig.feed(1, &command(0x80, 3, 2, 0).bytes((false, false)), 48).expect("goes on");
    assert_eq!(rig.sent(1)[0].0.response(), 7, "11.17.1: task in progress");
    assert_eq!(rig.sent(0).len(), 1);
    rig.feed(1, &command(0xa0, 3, 2, 4).with(b"more").bytes((false, false)), 52).expect("goes on");
    let second = rig.delivered()[0];
    assert_eq!(rig.session.find(3), Some(second));
    assert_ne!(first, second);
    // the first answer can still be asked for: Status SNACK of StatSN 100, one
    rig.ok(&Pdu::new(0x10, 0x81).u32(16, NO_TAG).u32(20, NO_TAG).u32(28, 100).u32(40, 100).u32(44, 1));
    let again = rig.sent(0);
    assert_eq!((again[0].0.0[0], again[0].0.initiator_task_tag(), again[0].0.stat_sn()), (0x21, 3, 100));
    // and its acknowledgement leaves the second task alone
    rig.ok(&Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, NO_TAG).u32(24, 3).u32(28, 101));
    assert_eq!(rig.events(), [TargetEvent::Released(first)]);
    assert_eq!(rig.session.find(3), Some(second));
}

#[test]
fn only_a_new_request_takes_the_tag_of_an_answered_one() {
    let mut rig = rig();
    rig.ok(&command(0x80, 3, 1, 0));
    let slot = answer(&mut rig);
    rig.sent(0);
    // its own retry, one from below the window, and one from above it: no new request
    for cmd_sn in [1, 0, 1000] {
        rig.ok(&command(0x80, 3, cmd_sn, 0));
        assert_eq!(rig.session.find(3), Some(slot), "CmdSN {cmd_sn}");
    }
    assert!(rig.delivered().is_empty());
    // and what is lost with its connection is not there to be reassigned under a tag that is another's
    rig.feed(1, &command(0x80, 3, 2, 0).bytes((false, false)), 48).expect("goes on");
    let second = rig.delivered()[0];
    assert_eq!(rig.session.freeze_connection(0), 0);
    assert_eq!(rig.session.find(3), Some(second));
    assert_eq!(rig.session.rebind(slot, 1, 0), Err(RebindError::NoTask));
}
