//! Data of tasks that ended: discarded in silence, until the initiator has said that it stopped (RFC 7143 4.2.3.4, 10.7).

use blockwire_wire::opcode::reject;

use super::*;

/// A write of 1000 bytes that was asked for; gives the Target Transfer Tag.
fn asked(rig: &mut Rig, conn: ConnIndex, itt: u32, cmd_sn: u32, lun: [u8; 2]) -> (Slot, u32) {
    let mut pdu = command(0xa0, itt, cmd_sn, 1000);
    pdu.bhs[8..10].copy_from_slice(&lun);
    rig.feed(conn, &pdu.bytes((false, false)), 48).expect("goes on");
    let slot = rig.delivered()[0];
    assert!(rig.session.solicit(slot, 0, 1000));
    let ttt = rig.sent(conn)[0].0.target_transfer_tag();
    (slot, ttt)
}

fn at(lun: [u8; 2], mut pdu: Pdu) -> Vec<u8> {
    pdu.bhs[8..10].copy_from_slice(&lun);
    pdu.bytes((false, false))
}

/// Asynchronous Message (0x32) with AsyncEvent 5 in byte 36 (11.9).
fn event_5(lun: [u8; 2]) -> Bhs {
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x32, 0x80]);
    bhs[8..10].copy_from_slice(&lun);
    bhs[16..20].copy_from_slice(&[0xff; 4]);
    bhs[36] = 5;
    Bhs(bhs)
}

/// NOP-Out that is no ping: both tags reserved (11.9.1).
fn acknowledgement(lun: [u8; 2], exp_stat_sn: u32) -> Vec<u8> {
    at(lun, Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, NO_TAG).u32(24, 9).u32(28, exp_stat_sn))
}

#[test]
fn tags_are_free_when_the_message_is_acknowledged() {
    // 4.2.3.4 c: valid until then; g: freed with the NOP-Out that answers the message
    let mut rig = Rig::new(SessionParams { fast_abort: true, ..params() });
    rig.connect(connection(0, 4096));
    rig.connect(connection(1, 4096));
    let tasks = [(0, 1, [0, 3]), (0, 2, [0, 4]), (1, 3, [0, 3])];
    let asked: Vec<(Slot, u32)> = tasks.iter().map(|&(conn, tag, lun)| asked(&mut rig, conn, tag, tag, lun)).collect();
    for (slot, _) in &asked {
        assert!(rig.session.abort_task(*slot));
    }
    rig.drain();
    let late = |rig: &mut Rig, n: usize| {
        let (conn, tag, lun) = tasks[n];
        rig.feed(conn, &at(lun, data_out(false, tag, asked[n].1, 0, 0, &[1; 100])), 48).expect("goes on");
        let sent = rig.sent(conn);
        assert!(sent.iter().all(|(b, _)| b.response() == reject::INVALID_PDU_FIELD));
        sent.len()
    };
    for (conn, lun) in [(0, [0, 3]), (1, [0, 3])] {
        rig.session.send_unsolicited(conn, event_5(lun), Vec::new(), false);
        assert_eq!(rig.sent(conn)[0].0.stat_sn(), 100);
    }
    assert_eq!([late(&mut rig, 0), late(&mut rig, 1), late(&mut rig, 2)], [0, 0, 0], "c: still valid");
    // a NOP-Out of before, of another unit, or a ping, frees nothing
    rig.feed(0, &acknowledgement([0, 3], 100), 48).expect("goes on");
    rig.feed(0, &acknowledgement([0, 4], 101), 48).expect("goes on");
    assert_eq!(late(&mut rig, 0), 0);
    rig.feed(0, &acknowledgement([0, 3], 101), 48).expect("goes on");
    // what comes for them now breaks a rule: they stand for nothing any more
    assert_eq!([late(&mut rig, 0), late(&mut rig, 1), late(&mut rig, 2)], [1, 0, 0], "g: of this unit and connection");
}

#[test]
fn the_answer_to_the_function_follows_the_acknowledgement_of_the_message() {
    // 4.2.3.4 e: the response to the function MUST NOT be sent before the fence is over, which the message is part of
    let mut rig = Rig::new(SessionParams { fast_abort: true, ..params() });
    rig.connect(connection(0, 4096));
    rig.connect(connection(1, 4096));
    let (slot, ttt) = asked(&mut rig, 1, 3, 1, [0, 3]);
    // LOGICAL UNIT RESET (5), immediate, on connection 0
    let mut reset = Pdu::new(0x42, 0x85).u32(16, 9).u32(20, NO_TAG).u32(24, 2).u32(28, 100);
    reset.bhs[9] = 3;
    rig.ok(&reset);
    let request = rig.session.find(9).expect("there");
    assert!(rig.session.abort_task(slot));
    rig.session.send_unsolicited(1, event_5([0, 3]), Vec::new(), false);
    rig.session.set_effects(request, true, false);
    let mut header = Bhs::default();
    header.0[..2].copy_from_slice(&[0x22, 0x80]);
    assert!(rig.session.respond_control(request, header, Vec::new()));
    assert!(rig.sent(0).is_empty(), "the message is not acknowledged");
    assert_eq!(rig.sent(1)[0].0.0[0], 0x32);
    // data in flight does not hold it up, and does not let it go either
    rig.feed(1, &at([0, 3], data_out(true, 3, ttt, 0, 0, &[1; 1000])), 48).expect("goes on");
    assert!(rig.sent(0).is_empty());
    rig.feed(1, &acknowledgement([0, 3], 101), 48).expect("goes on");
    let sent = rig.sent(0);
    assert_eq!((sent.len(), sent[0].0.0[0], sent[0].0.initiator_task_tag()), (2, 0x22, 9), "and its own ping");
}

#[test]
fn data_of_any_number_of_ended_tasks_is_discarded() {
    // 10.7: silently, in all cases; here with more tasks than a small table would remember
    let limits = TargetLimits { command_window: 300, ..TargetLimits::default() };
    let mut rig = Rig::new(params());
    rig.session = TargetSession::new(params(), limits, 1);
    rig.connect(connection(0, 4096));
    let asked: Vec<(Slot, u32)> = (1..=300).map(|n| asked(&mut rig, 0, n, n, [0, 0])).collect();
    for (slot, _) in &asked {
        assert!(rig.session.abort_task(*slot));
    }
    rig.drain();
    rig.events();
    for (n, (_, ttt)) in asked.iter().enumerate() {
        rig.ok(&data_out(true, n as u32 + 1, *ttt, 0, 0, &[9; 1000]));
    }
    assert!(rig.sent(0).is_empty(), "no Reject");
    assert!(rig.events().is_empty() && rig.memory.is_empty(), "and nothing else came of it");
    // the next command is served as ever
    rig.ok(&command(0xa0, 900, 301, 100).with(&[5; 100]));
    let slot = rig.delivered()[0];
    assert!(rig.session.finish(slot, Finish::default()));
    assert_eq!(rig.sent(0)[0].0.0[0], 0x21);
}

#[test]
fn the_status_of_a_terminated_task_waits_and_its_data_is_discarded() {
    // 10.7 with TASK ABORTED status: the answer is there before the data is
    let mut rig = Rig::simple();
    let (slot, ttt) = asked(&mut rig, 0, 3, 1, [0, 0]);
    assert!(rig.session.finish(slot, Finish { status: 0x40, ..Finish::default() }));
    assert!(rig.sent(0).is_empty());
    rig.ok(&data_out(true, 3, ttt, 0, 0, &[9; 1000]));
    assert!(rig.memory.is_empty());
    let sent = rig.sent(0);
    assert_eq!((sent.len(), sent[0].0.0[0], sent[0].0.status()), (1, 0x21, 0x40));
}

#[test]
fn solicited_data_names_the_unit_of_its_command() {
    // 4.2.5.3, 11.7.4: MUST be consistent with the command where there is a Target Transfer Tag; reserved where there is none
    for (lun, agrees) in [([0, 3], true), ([0x40, 3], true), ([0, 0], false), ([1, 3], false)] {
        let mut rig = Rig::simple();
        let (slot, ttt) = asked(&mut rig, 0, 3, 1, [0, 3]);
        rig.events();
        rig.feed(0, &at(lun, data_out(true, 3, ttt, 0, 0, &[7; 1000])), 1048).expect("goes on");
        let sent = rig.sent(0);
        let out = &rig.session.task(slot).expect("there").out;
        if agrees {
            assert!(sent.is_empty() && out.received.contains(0, 1000));
            continue;
        }
        assert_eq!((sent.len(), sent[0].0.0[0], sent[0].0.response()), (1, 0x3f, reject::INVALID_PDU_FIELD));
        assert!(rig.memory.is_empty(), "nothing of it is placed");
        assert!(out.condition.is_some() && !out.is_open(), "and the task ends with CHECK CONDITION");
        assert!(rig.events().contains(&TargetEvent::DataOut(slot)));
    }
    let mut rig = Rig::simple();
    let mut write = command(0x20, 3, 1, 100);
    write.bhs[9] = 3;
    rig.ok(&write);
    rig.ok(&data_out(true, 3, NO_TAG, 0, 0, &[7; 100]));
    assert!(rig.sent(0).is_empty(), "unsolicited: the field is reserved");
}
