//! Several connections of one session: numbers, lost connections, allegiance, fence (RFC 7143 4.2.2, 7.2, 7.11).

use blockwire_wire::opcode::reject;

use super::*;

fn rig(connections: u16) -> Rig {
    let mut rig = Rig::new(SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() });
    for cid in 0..connections {
        rig.connect(connection(cid, 4096));
    }
    rig
}

fn on(rig: &mut Rig, conn: ConnIndex, pdu: &Pdu) {
    rig.feed(conn, &pdu.bytes((false, false)), 48).expect("goes on");
}

fn ack(exp_stat_sn: u32, ttt: u32) -> Pdu {
    Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, ttt).u32(24, 4).u32(28, exp_stat_sn)
}

#[test]
fn one_window_over_all_connections_with_a_stat_sn_each() {
    let mut rig = rig(3);
    // out of order over connections: delivered in order (4.2.2.1)
    for (conn, sn) in [(2, 3), (0, 1), (1, 2), (1, 5), (0, 4)] {
        on(&mut rig, conn, &command(0xc0, sn, sn, 0));
    }
    let slots = rig.delivered();
    let tags: Vec<u32> = slots.iter().map(|s| rig.session.task(*s).expect("there").initiator_task_tag).collect();
    assert_eq!(tags, [1, 2, 3, 4, 5]);
    for slot in slots {
        rig.session.finish(slot, Finish::default());
    }
    for conn in 0..3 {
        let numbers: Vec<(u32, u32)> = rig.sent(conn).iter().map(|(b, _)| (b.stat_sn(), b.exp_cmd_sn())).collect();
        let expected: &[(u32, u32)] = if conn == 2 { &[(100, 6)] } else { &[(100, 6), (101, 6)] };
        assert_eq!(numbers, expected, "each connection counts for itself (4.2.2.2)");
    }
}

#[test]
fn data_comes_on_the_connection_of_its_command() {
    let mut rig = rig(2);
    on(&mut rig, 0, &command(0xa0, 3, 1, 100));
    let slot = rig.delivered()[0];
    assert!(rig.session.solicit(slot, 0, 100));
    let ttt = rig.sent(0)[0].0.target_transfer_tag();
    on(&mut rig, 1, &data_out(true, 3, ttt, 0, 0, &[1; 100]));
    assert_eq!(rig.sent(1)[0].0.response(), reject::INVALID_PDU_FIELD, "4.2.2.1: connection allegiance");
    on(&mut rig, 1, &Pdu::new(0x10, 0x80).u32(16, 3).u32(20, NO_TAG).u32(28, 101));
    assert_eq!(rig.sent(1)[0].0.response(), reject::PROTOCOL_ERROR, "and so does a SNACK");
    on(&mut rig, 0, &data_out(true, 3, ttt, 0, 0, &[1; 100]));
    assert!(rig.session.task(slot).expect("there").out.received.contains(0, 100));
}

#[test]
fn a_gap_that_a_lost_connection_left_is_filled_by_a_retry() {
    let mut rig = rig(2);
    on(&mut rig, 0, &command(0xc0, 1, 1, 0));
    // number 2 is cut in its middle, number 4 waits for 3, which is lost on its way
    let half = command(0xa0, 2, 2, 100).with(&[1; 100]).bytes((false, false));
    on(&mut rig, 1, &command(0xc0, 5, 5, 0));
    on(&mut rig, 0, &command(0xc0, 4, 4, 0));
    rig.feed(0, &half[..100], 100).expect("goes on");
    assert_eq!(rig.delivered().len(), 1);
    assert_eq!(rig.session.freeze_connection(0), 1, "what is not acknowledged is discarded (7.11)");
    rig.drain();
    assert!(rig.session.find(2).is_none() && rig.session.find(4).is_none());
    assert_eq!(rig.session.numbers().exp_cmd_sn, 2);
    // retries with the original tags and numbers (7.2.1)
    let conn = rig.connect(connection(7, 4096));
    on(&mut rig, conn, &command(0xa0, 2, 2, 100).with(&[1; 100]));
    on(&mut rig, 1, &command(0xc0, 4, 4, 0));
    assert_eq!(rig.delivered().len(), 1);
    on(&mut rig, conn, &command(0xc0, 3, 3, 0));
    assert_eq!(rig.delivered().len(), 3);
    assert_eq!(rig.session.numbers(), SessionNumbers { exp_cmd_sn: 6, max_cmd_sn: 8 });
    // a retry of what is there already is ignored silently (7.2.1), frozen or not
    on(&mut rig, conn, &command(0xc0, 1, 1, 0));
    on(&mut rig, conn, &command(0xc0, 5, 5, 0));
    assert!(rig.delivered().is_empty() && rig.sent(conn).is_empty());
}

#[test]
fn a_gap_is_filled_by_abort_task_or_by_the_end_of_the_connection() {
    let mut rig = rig(2);
    on(&mut rig, 0, &command(0xc0, 1, 1, 0));
    on(&mut rig, 1, &command(0xc0, 3, 3, 0));
    on(&mut rig, 0, &command(0xc0, 4, 4, 0)); // waits, and goes with its connection
    rig.session.remove_connection(0);
    rig.drain();
    assert_eq!(rig.session.numbers().exp_cmd_sn, 2);
    assert!(rig.session.consume_cmd_sn(2), "11.6.1 b");
    rig.drain();
    assert_eq!(rig.session.numbers().exp_cmd_sn, 5, "3 is delivered, 4 ended and counts as received");
    assert_eq!(rig.delivered().len(), 2);
}

#[test]
fn requests_that_are_no_commands_are_not_reassigned() {
    let mut rig = rig(2);
    on(&mut rig, 0, &Pdu::new(0x04, 0x80).u32(16, 1).u32(20, NO_TAG).u32(24, 1).u32(28, 100).with(b"a=b"));
    on(&mut rig, 0, &Pdu::new(0x42, 0x81).u32(16, 2).u32(20, 77).u32(24, 2).u32(28, 100));
    assert_eq!(rig.session.freeze_connection(0), 0, "11.5.1: MUST NOT");
    rig.drain();
    assert_eq!(rig.session.tasks().count(), 0);
    assert_eq!(rig.session.numbers(), SessionNumbers { exp_cmd_sn: 2, max_cmd_sn: 9 });
}

#[test]
fn several_tasks_move_twice_and_their_numbers_go_on() {
    let mut rig = rig(2);
    for sn in 1..=3 {
        on(&mut rig, 0, &command(0xc0, sn, sn, 8000));
    }
    let slots = rig.delivered();
    for slot in &slots {
        rig.session.send_data(*slot, 0, 8000, true, Some(Finish::good(Residual::None)));
    }
    let first = rig.sent(0);
    assert_eq!(first.len(), 6);
    assert_eq!(rig.session.freeze_connection(0), 3);
    // the same CID again
    let conn = rig.connect(connection(0, 1000));
    for (slot, exp) in slots.iter().zip([0, 1, 2]) {
        assert_eq!(rig.session.rebind(*slot, conn, exp), Ok(Rebound::Answered));
    }
    let sent = rig.sent(conn);
    let count = |itt| sent.iter().filter(|(b, _)| b.initiator_task_tag() == itt && b.0[0] == 0x25).count();
    assert_eq!((count(1), count(2), count(3)), (8, 4, 0));
    let status: Vec<u32> = sent.iter().filter(|(b, _)| b.0[0] == 0x21).map(|(b, _)| b.stat_sn()).collect();
    assert_eq!(status, [100, 101, 102]);
    assert_eq!(rig.session.freeze_connection(conn), 3);
    for (slot, exp) in slots.iter().zip([3, 0, 2]) {
        assert_eq!(rig.session.rebind(*slot, 1, exp), Ok(Rebound::Answered));
    }
    let sent = rig.sent(1);
    let data: Vec<(u32, u32, u32)> = sent
        .iter()
        .filter(|(b, _)| b.0[0] == 0x25)
        .map(|(b, _)| (b.initiator_task_tag(), b.data_sn(), b.buffer_offset()))
        .collect();
    // task 1: three PDUs of 1000 are acknowledged; task 2: 0 leaves the reference number at 1 (11.5.6)
    assert_eq!(data, [(1, 3, 3000), (1, 4, 7096), (2, 1, 4096)]);
    on(&mut rig, 1, &ack(103, NO_TAG));
    assert_eq!(rig.session.tasks().count(), 0);
    assert_eq!(rig.session.numbers(), SessionNumbers { exp_cmd_sn: 4, max_cmd_sn: 11 }, "each counted once");
}

#[test]
fn a_bidirectional_command_moves_with_both_of_its_halves() {
    let mut rig = rig(2);
    let mut pdu = command(0xe0, 3, 1, 3000);
    pdu.ahs = vec![0, 5, 2, 0, 0, 0, 0x10, 0];
    on(&mut rig, 0, &pdu);
    let slot = rig.delivered()[0];
    assert!(rig.session.solicit(slot, 0, 3000));
    let ttt = rig.sent(0)[0].0.target_transfer_tag();
    on(&mut rig, 0, &data_out(false, 3, ttt, 0, 0, &[7; 1000]));
    rig.session.send_data(slot, 0, 4096, true, None);
    assert_eq!(rig.sent(0)[0].0.data_sn(), 1);
    assert_eq!(rig.session.freeze_connection(0), 1);
    assert_eq!(rig.session.rebind(slot, 1, 0), Ok(Rebound::GoesOn));
    assert_eq!(rig.session.next_to_solicit(slot, 3000), Some((1000, 2000)));
    assert!(rig.session.solicit(slot, 1000, 2000));
    let sent = rig.sent(1);
    assert_eq!(sent.iter().map(|(b, _)| (b.0[0], b.data_sn())).collect::<Vec<_>>(), [(0x25, 0), (0x31, 1)]);
    on(&mut rig, 1, &data_out(true, 3, sent[1].0.target_transfer_tag(), 0, 1000, &[8; 2000]));
    rig.session.finish(slot, Finish::default());
    let response = rig.sent(1)[0].0;
    assert_eq!((response.0[0], response.exp_data_sn()), (0x21, 1), "11.4.8 counts Data-In");
}

#[test]
fn dropped_data_ends_a_reassigned_task() {
    let mut rig = rig(2);
    on(&mut rig, 0, &command(0xc0, 3, 1, 8000));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 8000, true, Some(Finish::default()));
    rig.sent(0);
    rig.session.freeze_connection(0);
    rig.session.forget_data(slot);
    assert_eq!(rig.session.rebind(slot, 1, 1), Ok(Rebound::Lost));
    rig.session.finish(slot, Finish { status: 2, ..Finish::default() });
    let sent = rig.sent(1);
    assert_eq!((sent.len(), sent[0].0.status()), (1, 2));
    // with all data there only the status is lacking
    on(&mut rig, 1, &command(0xc0, 4, 2, 8000));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 8000, true, Some(Finish::default()));
    rig.sent(1);
    rig.session.freeze_connection(1);
    rig.session.forget_data(slot);
    let conn = rig.connect(connection(5, 4096));
    assert_eq!(rig.session.rebind(slot, conn, 2), Ok(Rebound::Answered));
    assert_eq!(rig.sent(conn)[0].0.0[..4], [0x21, 0x80, 0, 0]);
}

#[test]
fn the_fence_asks_again_when_its_question_was_too_early() {
    let mut rig = rig(2);
    for (conn, sn) in [(0, 1), (0, 2), (1, 3)] {
        on(&mut rig, conn, &command(0xc0, sn, sn, 0));
    }
    let slots = rig.delivered();
    rig.session.finish(slots[0], Finish::default());
    rig.session.solicit_status();
    let ping = rig.sent(0)[1].0;
    assert_eq!(ping.0[0], 0x20);
    rig.session.finish(slots[1], Finish::default());
    rig.session.set_effects(slots[2], true, false);
    rig.session.finish(slots[2], Finish::default());
    assert_eq!(rig.sent(0).len(), 1, "a question is out already");
    assert!(rig.sent(1).is_empty(), "4.2.2.3.3 b: MUST NOT be sent");
    on(&mut rig, 0, &ack(101, ping.target_transfer_tag()));
    let again = rig.sent(0);
    assert_eq!((again.len(), again[0].0.0[0], again[0].0.stat_sn()), (1, 0x20, 102));
    assert!(rig.sent(1).is_empty());
    on(&mut rig, 0, &ack(102, again[0].0.target_transfer_tag()));
    assert_eq!(rig.sent(1)[0].0.0[0], 0x21);
}

#[test]
fn the_answer_to_a_reassignment_waits_for_no_fence() {
    let mut rig = rig(3);
    on(&mut rig, 0, &command(0xc0, 1, 1, 100));
    on(&mut rig, 1, &command(0xc0, 2, 2, 0));
    let slots = rig.delivered();
    rig.session.freeze_connection(0);
    on(&mut rig, 2, &command(0xc0, 3, 3, 0));
    let other = rig.delivered()[0];
    rig.session.finish(other, Finish::default());
    rig.session.set_effects(slots[1], true, false);
    rig.session.finish(slots[1], Finish::default());
    rig.sent(2);
    // TASK REASSIGN (function 8), immediate
    on(&mut rig, 2, &Pdu::new(0x42, 0x88).u32(16, 9).u32(20, 1).u32(24, 4).u32(28, 100));
    let request = rig.session.find(9).expect("there");
    let mut header = Bhs::default();
    header.0[..2].copy_from_slice(&[0x22, 0x80]);
    assert!(rig.session.respond_control(request, header, Vec::new()));
    assert_eq!(rig.session.rebind(slots[0], 2, 0), Ok(Rebound::GoesOn));
    rig.session.send_data(slots[0], 0, 100, true, Some(Finish::default()));
    let sent: Vec<u8> = rig.sent(2).iter().map(|(b, _)| b.0[0]).collect();
    assert_eq!(sent, [0x22, 0x25], "11.5.1: response first; the task's status waits for the fence (4.2.2.3.3 d)");
}

#[test]
fn an_answer_that_waits_for_the_fence_is_not_taken_for_another_tasks() {
    let mut rig = rig(2);
    for (conn, sn) in [(0, 1), (1, 2), (1, 3)] {
        on(&mut rig, conn, &command(0xc0, sn, sn, 0));
    }
    let slots = rig.delivered();
    rig.session.finish(slots[0], Finish::default());
    rig.session.set_effects(slots[1], true, false);
    rig.session.finish(slots[1], Finish::default());
    rig.session.finish(slots[2], Finish::default()); // parked
    rig.sent(0);
    assert_eq!(rig.session.remove_connection(1), 2);
    rig.drain();
    // the places are used again
    for sn in 4..=5 {
        on(&mut rig, 0, &command(0xc0, sn, sn, 0));
    }
    on(&mut rig, 0, &ack(101, NO_TAG));
    assert!(rig.sent(0).iter().all(|(b, _)| b.0[0] == 0x20), "nobody answered these");
}

#[test]
fn a_silent_peer_is_found_although_acknowledgement_was_asked_for() {
    let mut rig = rig(1);
    rig.session.set_keep_alive(0, Some(100), Some(50));
    on(&mut rig, 0, &command(0xc0, 1, 1, 0));
    let slot = rig.delivered()[0];
    rig.session.finish(slot, Finish::default());
    rig.session.solicit_status();
    let deadline = rig.session.deadline(0).expect("one");
    assert!(deadline <= 150);
    assert!(rig.session.tick(0, deadline).is_err());
}

#[test]
fn answers_that_are_never_acknowledged_are_bounded() {
    let mut rig = rig(1);
    let mut count = 0;
    let ping = Pdu::new(0x40, 0x80).u32(16, 9).u32(20, NO_TAG).u32(28, 100).with(&[5; 4000]);
    while rig.send(&ping).is_ok() {
        rig.sent(0);
        count += 1;
        assert!(count < 1000);
    }
    assert!(count >= 100);
}

#[test]
fn a_window_of_unacknowledged_answers_closes_and_opens_again() {
    let mut rig = rig(1);
    let mut done = 0;
    for sn in 1..200 {
        on(&mut rig, 0, &command(0xc0, sn, sn, 0));
        for slot in rig.delivered() {
            rig.session.finish(slot, Finish::default());
            done += 1;
        }
        rig.sent(0);
    }
    assert!(done <= 8 * 5, "{done}: retained answers are bounded");
    on(&mut rig, 0, &ack(100 + done, NO_TAG));
    let widest = rig.sent(0).iter().map(|(b, _)| b.max_cmd_sn()).max().expect("word of the window");
    assert_eq!(widest, done + 8);
}
