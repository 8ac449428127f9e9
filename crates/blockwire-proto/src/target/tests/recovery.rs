//! Abort, lost connections, reassignment, fence (RFC 7143 4.2.2.3, 4.2.3, 7.2.2, 11.5).

use super::*;
use crate::reassign::next_missing;

#[test]
fn an_aborted_task_drops_what_is_queued_and_ignores_late_data() {
    let mut rig = Rig::simple();
    rig.ok(&command(0xa0, 3, 1, 10_000));
    let slot = rig.delivered()[0];
    assert!(rig.session.solicit(slot, 0, 5000));
    let ttt = rig.session.task(slot).expect("there").out.r2ts[0].target_transfer_tag;
    assert!(rig.session.abort_task(slot));
    rig.drain();
    assert_eq!(rig.events(), [TargetEvent::Released(slot)]);
    assert!(rig.sent(0).is_empty());
    rig.ok(&data_out(true, 3, ttt, 0, 0, &[0; 100]));
    assert!(rig.sent(0).is_empty(), "no Reject for data that was on its way");
    assert_eq!(rig.session.numbers(), SessionNumbers { exp_cmd_sn: 2, max_cmd_sn: 9 });
}

#[test]
fn a_pdu_begun_is_finished_and_keeps_the_memory_until_then() {
    let mut rig = Rig::simple();
    rig.ok(&command(0xc0, 3, 1, 8192));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 8192, false, None);
    rig.session.send_queue(0).sent(10, |_| ());
    assert!(rig.session.abort_task(slot));
    rig.drain();
    assert!(rig.events().is_empty(), "not released yet");
    assert!(rig.session.find(3).is_none(), "the tag is free");
    let sent = rig.sent(0);
    assert_eq!(sent.len(), 1);
    assert_eq!(rig.events(), [TargetEvent::Released(slot)]);
}

#[test]
fn abort_in_the_middle_of_a_data_out_keeps_its_place_until_the_pdu_ends() {
    let mut rig = Rig::simple();
    rig.ok(&command(0xa0, 3, 1, 8192));
    let slot = rig.delivered()[0];
    assert!(rig.session.solicit(slot, 0, 8192));
    let ttt = rig.sent(0)[0].0.target_transfer_tag();
    let bytes = data_out(true, 3, ttt, 0, 0, &[9; 8192]).bytes((false, false));
    rig.feed(0, &bytes[..500], 500).expect("fine");
    assert!(rig.session.abort_task(slot));
    rig.drain();
    assert!(rig.events().is_empty());
    rig.feed(0, &bytes[500..], 500).expect("fine");
    assert_eq!(rig.events(), [TargetEvent::Released(slot)]);
}

#[test]
fn abort_of_a_command_that_never_came_fills_its_place() {
    let mut rig = Rig::simple();
    rig.ok(&command(0xc0, 2, 2, 0));
    assert!(rig.session.consume_cmd_sn(1));
    rig.drain();
    assert_eq!(rig.delivered().len(), 1);
    assert_eq!(rig.session.numbers(), SessionNumbers { exp_cmd_sn: 3, max_cmd_sn: 9 });
    assert!(!rig.session.consume_cmd_sn(1) && !rig.session.consume_cmd_sn(100));
}

fn two_connections() -> Rig {
    let mut rig = Rig::new(SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() });
    rig.connect(connection(0, 4096));
    rig.connect(connection(1, 1000));
    rig
}

#[test]
fn a_write_goes_on_on_another_connection_with_what_it_has() {
    let mut rig = two_connections();
    rig.ok(&command(0xa0, 3, 1, 10_000).with(&[1; 2000]));
    let slot = rig.delivered()[0];
    assert!(rig.session.solicit(slot, 2000, 4000));
    let ttt = rig.sent(0)[0].0.target_transfer_tag();
    rig.ok(&data_out(false, 3, ttt, 0, 2000, &[2; 1000]));
    // cut in the middle of the next PDU
    let bytes = data_out(true, 3, ttt, 1, 3000, &[3; 3000]).bytes((false, false));
    rig.feed(0, &bytes[..1500], 1500).expect("fine");
    assert_eq!(rig.session.freeze_connection(0), 1);
    assert!(!rig.session.solicit(slot, 3000, 10), "nothing is asked for while it is frozen");
    assert_eq!(rig.session.rebind(slot, 1, 0), Ok(Rebound::GoesOn));
    let task = rig.session.task(slot).expect("there");
    assert_eq!(task.cid, 1);
    assert_eq!(next_missing(&task.out.received, 0, 10_000, 262_144), Some((3000, 7000)));
    assert!(rig.session.solicit(slot, 3000, 7000));
    let r2t = rig.sent(1)[0].0;
    assert_eq!(r2t.data_sn(), 1);
    let rest = data_out(true, 3, r2t.target_transfer_tag(), 0, 3000, &[4; 7000]).bytes((false, false));
    rig.feed(1, &rest, 999).expect("fine");
    assert!(rig.session.task(slot).expect("there").out.received.contains(0, 10_000));
    assert_eq!(rig.memory[&slot.0], [vec![1; 2000], vec![2; 1000], vec![4; 7000]].concat());
    assert_eq!(rig.session.rebind(slot, 1, 0), Err(RebindError::StillAllegiant));
}

#[test]
fn a_read_is_sent_again_from_the_byte_that_is_missing() {
    let mut rig = two_connections();
    rig.ok(&command(0xc0, 3, 1, 10_000));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 10_000, true, Some(Finish::good(Residual::None)));
    let sent = rig.sent(0);
    assert_eq!(sent.len(), 3);
    assert!(rig.events().is_empty(), "kept until it is acknowledged");
    assert_eq!(rig.session.freeze_connection(0), 1);
    // the initiator has PDU 0 (4096 bytes); segments are 1000 bytes here
    assert_eq!(rig.session.rebind(slot, 1, 1), Ok(Rebound::Answered));
    rig.drain();
    assert_eq!(rig.events(), [TargetEvent::Acknowledged { slot, offset: 4096 }]);
    let sent = rig.sent(1);
    let seen: Vec<_> = sent.iter().map(|(b, _)| (b.data_sn(), b.buffer_offset(), b.data_segment_length())).collect();
    assert_eq!(seen[0], (1, 4096, 1000));
    assert_eq!(seen[5], (6, 9096, 904));
    assert_eq!(seen.len(), 7);
    assert_eq!(sent[5].0.flags(), 0x80);
    assert_eq!((sent[6].0.0[0], sent[6].0.stat_sn(), sent[6].0.exp_data_sn()), (0x21, 100, 7));
    let max = rig.session.numbers().max_cmd_sn;
    assert_eq!(max, 9, "one task, counted once");
    // acknowledged on the new connection: StatSN was 100 there
    rig.feed(
        1,
        &Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, NO_TAG).u32(24, 2).u32(28, 101).bytes((false, false)),
        48,
    )
    .expect("fine");
    assert_eq!(rig.events(), [TargetEvent::Released(slot)]);
}

#[test]
fn a_read_that_lacks_its_status_alone_gets_that_alone() {
    let mut rig = two_connections();
    rig.ok(&command(0xc0, 3, 1, 10_000));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 10_000, true, Some(Finish::good(Residual::None)));
    assert_eq!(rig.sent(0).len(), 3);
    rig.session.freeze_connection(0);
    // ExpDataSN is the number after the last one (11.5.7)
    assert_eq!(rig.session.rebind(slot, 1, 3), Ok(Rebound::Answered));
    rig.drain();
    assert_eq!(rig.events(), [TargetEvent::Acknowledged { slot, offset: 10_000 }]);
    let sent = rig.sent(1);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0.0[0], sent[0].0.status(), sent[0].0.exp_data_sn()), (0x21, 0, 3), "11.4.8: three Data-In");
}

#[test]
fn an_answer_lost_with_its_connection_is_sent_again() {
    let mut rig = two_connections();
    rig.ok(&command(0xa0, 3, 1, 100).with(&[1; 100]));
    let slot = rig.delivered()[0];
    rig.session.finish(slot, Finish { status: 2, sense: vec![0x70, 1], ..Default::default() });
    assert_eq!(rig.sent(0).len(), 1);
    rig.session.freeze_connection(0);
    assert_eq!(rig.session.rebind(slot, 1, 0), Ok(Rebound::Answered));
    let again = rig.sent(1);
    assert_eq!((again[0].0.status(), again[0].0.stat_sn()), (2, 100));
    assert_eq!(again[0].1, Payload::Inline(vec![0, 2, 0x70, 1]));
}

#[test]
fn a_lost_connection_ends_its_tasks_and_no_others() {
    let mut rig = two_connections();
    rig.ok(&command(0xc0, 3, 1, 512));
    rig.ok(&command(0xc0, 5, 3, 512)); // waits for 2
    rig.feed(1, &command(0xc0, 4, 2, 512).bytes((false, false)), 48).expect("fine");
    assert_eq!(rig.delivered().len(), 3);
    assert_eq!(rig.session.remove_connection(0), 2);
    rig.drain();
    assert!(rig.session.find(3).is_none() && rig.session.find(5).is_none() && rig.session.find(4).is_some());
    assert_eq!(rig.session.numbers(), SessionNumbers { exp_cmd_sn: 4, max_cmd_sn: 10 });
}

#[test]
fn a_fenced_response_waits_for_acknowledgements_and_holds_later_ones() {
    let mut rig = two_connections();
    for (conn, itt, sn) in [(0, 1, 1), (1, 2, 2), (1, 3, 3)] {
        rig.feed(conn, &command(0xc0, itt, sn, 0).bytes((false, false)), 48).expect("fine");
    }
    let slots = rig.delivered();
    rig.session.finish(slots[0], Finish::default());
    assert_eq!(rig.sent(0).len(), 1);
    rig.session.set_effects(slots[1], true, false);
    rig.session.finish(slots[1], Finish::default());
    rig.session.finish(slots[2], Finish::default());
    assert!(rig.sent(1).is_empty(), "4.2.2.3.3: connection 0 has an unacknowledged response");
    let nop = rig.sent(0);
    assert_eq!(nop[0].0.0[0], 0x20, "acknowledgement is solicited");
    let ack =
        |stat_sn| Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, 77).u32(24, 4).u32(28, stat_sn).bytes((false, false));
    rig.feed(0, &ack(101), 48).expect("fine");
    let sent = rig.sent(1);
    assert_eq!(sent[0].0.initiator_task_tag(), 2);
    assert!(sent.iter().all(|(b, _)| b.initiator_task_tag() != 3));
    rig.feed(1, &ack(101), 48).expect("fine");
    assert_eq!(rig.sent(1)[0].0.initiator_task_tag(), 3);
}

#[test]
fn a_status_does_not_pass_the_fence_in_a_data_in() {
    let mut rig = two_connections();
    for (conn, itt, sn) in [(0, 1, 1), (1, 2, 2), (1, 3, 3)] {
        rig.feed(conn, &command(0xc0, itt, sn, 512).bytes((false, false)), 48).expect("fine");
    }
    let slots = rig.delivered();
    rig.session.finish(slots[0], Finish::default());
    rig.sent(0);
    rig.session.set_effects(slots[1], true, false);
    rig.session.finish(slots[1], Finish::default());
    // data is no response: it may leave, its status may not (4.2.2.3.3 d)
    rig.session.send_data(slots[2], 0, 512, true, Some(Finish::good(Residual::None)));
    let sent = rig.sent(1);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0.0[0], sent[0].0.flags()), (0x25, 0x80), "no S bit");
    let ack = |stat_sn| {
        Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, NO_TAG).u32(24, 4).u32(28, stat_sn).bytes((false, false))
    };
    rig.feed(0, &ack(101), 48).expect("fine");
    rig.sent(1);
    rig.feed(1, &ack(101), 48).expect("fine");
    let status = rig.sent(1)[0].0;
    assert_eq!((status.0[0], status.initiator_task_tag(), status.exp_data_sn()), (0x21, 3, 1));
}

/// Logout "for recovery" (11.14) of CID 0 on connection 1, with the ExpStatSN of connection 0 (11.14.4).
fn recovery_logout(rig: &mut Rig, exp_stat_sn: u32) {
    let logout = Pdu::new(0x46, 0x82).u32(16, 0x9000 + exp_stat_sn).u32(24, 9).u32(28, exp_stat_sn);
    rig.feed(1, &logout.bytes((false, false)), 48).expect("fine");
}

#[test]
fn answers_that_a_recovery_logout_acknowledges_are_forgotten() {
    let mut rig = two_connections();
    for sn in 1..4 {
        rig.ok(&command(0xc0, sn, sn, 0));
        let slot = rig.delivered()[0];
        rig.session.finish(slot, Finish::default());
        if sn < 3 {
            assert_eq!(rig.sent(0).len(), 1);
        }
    }
    assert_eq!(rig.session.freeze_connection(0), 3);
    // numbers that were never sent are not believed: StatSN 102 did not leave
    for wrong in [0, 100, 103, 5000] {
        recovery_logout(&mut rig, wrong);
        rig.session.respond_control(rig.session.find(0x9000 + wrong).expect("there"), Bhs::default(), Vec::new());
        assert_eq!(rig.session.frozen_tasks().count(), 3, "{wrong}");
        rig.sent(1);
    }
    recovery_logout(&mut rig, 101);
    let left: Vec<u32> = rig.session.frozen_tasks().map(|(_, t)| t.initiator_task_tag).collect();
    assert_eq!(left, [2, 3]);
    // what is left is reassigned, and its answer sent again
    let slot = rig.session.find(2).expect("there");
    assert_eq!(rig.session.rebind(slot, 1, 0), Ok(Rebound::Answered));
    rig.session.acknowledged_frozen(0, 102);
    assert!(rig.session.find(2).is_some(), "it is another connection's now");
}
