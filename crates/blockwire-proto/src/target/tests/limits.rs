//! What a peer says about things that are still in use, or not there: nothing is freed too early, lost or counted wrongly.

use super::*;

fn level_1() -> Rig {
    let params =
        SessionParams { error_recovery_level: 1, max_burst_length: 8192, data_sequence_in_order: false, ..params() };
    let mut rig = Rig::new(params);
    rig.connect(connection(0, 4096));
    rig
}

/// SNACK (11.16): type, ITT, TTT, ExpStatSN 100, BegRun, RunLength.
fn snack(kind: u8, itt: u32, ttt: u32, begin: u32, length: u32) -> Pdu {
    Pdu::new(0x10, 0x80 | kind).u32(16, itt).u32(20, ttt).u32(28, 100).u32(40, begin).u32(44, length)
}

fn queued(rig: &mut Rig) -> Vec<(u8, u32)> {
    rig.session.send_queue(0).iter().map(|pdu| (pdu.bhs().0[0], pdu.bhs().data_sn())).collect()
}

/// A read of 40,000 bytes whose first burst (DataSN 0 and 1) is sent and asked to be acknowledged; gives the tag for that.
fn asked(rig: &mut Rig) -> (Slot, u32) {
    rig.session.set_soliciting(true);
    rig.ok(&command(0xc0, 3, 1, 40_000));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 8192, false, None);
    let sent = rig.sent(0);
    let ttt = sent.iter().find(|(b, _)| b.flags() & 0x40 != 0).expect("asked").0.target_transfer_tag();
    (slot, ttt)
}

#[test]
fn data_that_is_not_sent_cannot_be_acknowledged() {
    let mut rig = level_1();
    let (_, ttt) = asked(&mut rig);
    rig.session.send_data(rig.session.find(3).expect("there"), 8192, 8192, false, None);
    rig.session.send_queue(0).sent(10, |_| ()); // DataSN 2 is begun
    rig.events();
    rig.ok(&snack(2, NO_TAG, ttt, 3, 0));
    assert!(!rig.events().iter().any(|e| matches!(e, TargetEvent::Acknowledged { .. })), "its memory is in use");
    let reject = rig.sent(0).pop().expect("answered").0;
    assert_eq!((reject.0[0], reject.response()), (0x3f, 0x08), "invalid data ACK (11.17.1)");
}

#[test]
fn replicas_of_data_that_is_acknowledged_are_not_sent() {
    let mut rig = level_1();
    let (slot, ttt) = asked(&mut rig);
    rig.ok(&snack(0, 3, NO_TAG, 0, 2));
    assert_eq!(queued(&mut rig), [(0x25, 0), (0x25, 1)]);
    rig.events();
    rig.ok(&snack(2, NO_TAG, ttt, 2, 0));
    assert_eq!(rig.events(), [TargetEvent::Acknowledged { slot, offset: 8192 }]);
    assert!(queued(&mut rig).is_empty(), "what they carry is freed");
}

#[test]
fn a_replica_that_is_begun_keeps_its_memory() {
    let mut rig = level_1();
    let (slot, ttt) = asked(&mut rig);
    rig.ok(&snack(0, 3, NO_TAG, 0, 2));
    rig.session.send_queue(0).sent(10, |_| ());
    rig.events();
    rig.ok(&snack(2, NO_TAG, ttt, 2, 0));
    assert_eq!(rig.events(), [TargetEvent::Acknowledged { slot, offset: 0 }]);
    assert_eq!(queued(&mut rig), [(0x25, 0)]);
}

#[test]
fn a_retried_command_that_was_here_keeps_its_data() {
    let mut rig = level_1();
    let mut write = command(0x20, 3, 1, 4096);
    write.bhs[1] = 0x21; // F=0, W: unsolicited data follows
    rig.ok(&write);
    rig.ok(&data_out(true, 3, NO_TAG, 0, 0, &[1; 4096]));
    let slot = rig.delivered()[0];
    // the initiator did not see ExpCmdSN move: once more, with its data (7.2.1)
    rig.ok(&write);
    rig.ok(&data_out(true, 3, NO_TAG, 0, 0, &[1; 4096]));
    assert!(rig.sent(0).is_empty(), "silently ignored");
    assert_eq!(rig.session.task(slot).expect("there").out.condition, None);
    rig.session.finish(slot, Finish::default());
    assert_eq!(rig.sent(0)[0].0.status(), 0);
}

#[test]
fn the_window_that_a_lost_connection_owes_is_opened_on_the_others() {
    for freeze in [false, true] {
        let mut rig = Rig::new(SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() });
        rig.connect(connection(0, 512));
        rig.connect(connection(1, 512));
        // a reader that takes nothing: a queue of many PDUs, then the answers of a whole window
        let on = |rig: &mut Rig, conn, pdu: &Pdu| rig.feed(conn, &pdu.bytes((false, false)), 4096).expect("goes on");
        on(&mut rig, 0, &command(0xc0, 1, 1, 60_000));
        let first = rig.delivered()[0];
        rig.session.send_data(first, 0, 60_000, true, None);
        for sn in 2..=8 {
            on(&mut rig, 0, &command(0xc0, sn, sn, 0));
        }
        for slot in rig.delivered() {
            rig.session.finish(slot, Finish::default());
        }
        rig.session.finish(first, Finish::default());
        let closed = rig.session.numbers();
        assert_eq!((closed.exp_cmd_sn, closed.max_cmd_sn), (9, 8), "nothing of it was read");
        if freeze {
            rig.session.freeze_connection(0);
        } else {
            rig.session.remove_connection(0);
        }
        rig.drain();
        assert_eq!(rig.session.numbers().max_cmd_sn, 16, "the tasks are over at the target");
        let told = rig.sent(1).iter().any(|(b, _)| b.max_cmd_sn() == 16);
        assert!(told, "no command can come before somebody says so");
    }
}

#[test]
fn plugging_ends_at_the_window() {
    let mut rig = Rig::simple();
    // CmdSN of an immediate request is not checked against the window: it may be anything
    rig.session.consume_before(1000);
    assert_eq!(rig.session.numbers(), SessionNumbers { exp_cmd_sn: 9, max_cmd_sn: 16 });
    rig.session.consume_before(9);
    rig.session.consume_before(0x8000_0000);
    assert_eq!(rig.session.numbers(), SessionNumbers { exp_cmd_sn: 17, max_cmd_sn: 24 });
    rig.session.consume_before(3);
    assert_eq!(rig.session.numbers().exp_cmd_sn, 17, "what is behind is behind");
}

#[test]
fn a_task_whose_log_was_given_up_moves_when_the_initiator_has_all_of_it() {
    let mut rig = Rig::new(SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() });
    rig.connect(connection(0, 4096));
    rig.ok(&command(0xc0, 3, 1, 600_000));
    let slot = rig.delivered()[0];
    for i in 0..400 {
        // a segment length that changes all the time: more than 256 runs
        rig.session.set_segment_lengths(0, None, Some(512 + 4 * (i % 3)));
        rig.session.send_data(slot, i * 1500, 1500, i == 399, (i == 399).then(Finish::default));
    }
    let next = rig.sent(0).iter().filter(|(b, _)| b.0[0] == 0x25).map(|(b, _)| b.data_sn()).max().expect("some") + 1;
    rig.session.freeze_connection(0);
    let conn = rig.connect(connection(1, 4096));
    assert_eq!(rig.session.rebind(slot, conn, next), Ok(Rebound::Answered));
    let sent: Vec<(u8, u32)> = rig.sent(conn).iter().map(|(b, _)| (b.0[0], b.exp_data_sn())).collect();
    assert_eq!(sent, [(0x21, next)], "the status, and the number of the Data-In that there were (11.4.8)");
}

#[test]
fn what_did_not_leave_cannot_be_acknowledged() {
    let mut rig = level_1();
    rig.ok(&command(0x80, 3, 1, 0));
    let slot = rig.delivered()[0];
    rig.session.finish(slot, Finish::default());
    // StatSN 100 waits in the queue; whoever acknowledges it makes it up
    rig.ok(&Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, NO_TAG).u32(24, 2).u32(28, 101));
    assert!(rig.events().is_empty(), "its record is still needed");
    assert_eq!((rig.session.tasks().count(), rig.session.connection(0).expect("there").exp_stat_sn()), (1, 100));
    assert_eq!(rig.sent(0)[0].0.stat_sn(), 100);
    rig.ok(&Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, NO_TAG).u32(24, 2).u32(28, 101));
    assert_eq!(rig.events(), [TargetEvent::Released(slot)]);
}

#[test]
fn a_command_that_came_on_another_connection_meanwhile_is_the_duplicate() {
    let mut rig = level_1();
    rig.connect(connection(1, 4096));
    let late = command(0xa0, 3, 1, 512).with(&[1; 512]).bytes((false, false));
    rig.feed(0, &late[..300], 300).expect("goes on");
    rig.feed(1, &command(0xa0, 4, 1, 512).with(&[2; 512]).bytes((false, false)), 999).expect("goes on");
    let first = rig.delivered();
    assert_eq!((first.len(), rig.session.find(4)), (1, Some(first[0])));
    rig.feed(0, &late[300..], 999).expect("goes on");
    assert!(rig.delivered().is_empty(), "4.2.2.1: silently ignored");
    assert_eq!((rig.session.numbers().exp_cmd_sn, rig.session.find(3)), (2, None));
}

#[test]
fn ping_data_that_nobody_reads_back_is_bounded() {
    for immediate in [false, true] {
        let mut rig = level_1();
        rig.session.limits.side_answers = 1000;
        let most = rig.session.limits.control_bytes as usize;
        let mut refused = false;
        for n in 0..30 {
            let mut ping = Pdu::new(0x00, 0x80).u32(16, n).u32(20, NO_TAG).u32(24, n + 1).u32(28, 100);
            ping.bhs[0] |= if immediate { 0x40 } else { 0 };
            if !refused {
                rig.ok(&ping.with(&[7; 8192]));
            }
            let queue = rig.session.send_queue(0);
            refused |= queue.iter().any(|pdu| pdu.bhs().0[0] == 0x3f);
            assert!(queue.unsent_bytes() < most + 2 * 8300, "{} bytes", queue.unsent_bytes());
        }
        assert!(refused, "11.17.1: by a Reject");
    }
}
