//! Command numbering, order, immediate commands, NOP, Reject (RFC 7143 4.2.2.1, 7.3, 11.17 to 11.19).

use blockwire_wire::opcode::reject;

use super::*;

#[test]
fn a_read_of_one_block_is_one_data_in_with_status() {
    let mut rig = Rig::simple();
    // figure of 11.3: READ(10), LUN 0, ITT 0x11223344, EDTL 512, CmdSN 1, ExpStatSN 100
    #[rustfmt::skip]
    let bytes = [
        0x01, 0xc1, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        0x11, 0x22, 0x33, 0x44, 0, 0, 2, 0,
        0, 0, 0, 1, 0, 0, 0, 100,
        0x28, 0, 0, 0, 0, 7, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    ];
    rig.feed(0, &bytes, 5).expect("fine");
    let slot = rig.delivered()[0];
    let task = rig.session.task(slot).expect("there");
    assert_eq!((task.lun, task.cmd_sn, task.expected, task.read, task.write), (0, 1, 512, true, false));
    assert_eq!(task.cdb.as_slice(), &bytes[32..48]);
    rig.session.send_data(slot, 0, 512, true, Some(Finish::good(Residual::None)));
    let sent = rig.sent(0);
    assert_eq!(sent.len(), 1);
    // figure of 11.7: Data-In, F and S, status 0, StatSN 100, ExpCmdSN 2, MaxCmdSN 1 + 8 (one ended), DataSN 0
    #[rustfmt::skip]
    let expect = [
        0x25, 0x81, 0, 0, 0, 0, 2, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        0x11, 0x22, 0x33, 0x44, 0xff, 0xff, 0xff, 0xff,
        0, 0, 0, 100, 0, 0, 0, 2,
        0, 0, 0, 9, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(sent[0].0.0, expect);
    assert_eq!(rig.events(), [TargetEvent::Released(slot)]);
    assert!(rig.session.task(slot).is_none());
}

#[test]
fn check_condition_is_a_response_with_sense_and_residual() {
    let mut rig = Rig::simple();
    rig.ok(&command(0xc0, 7, 1, 512));
    let slot = rig.delivered()[0];
    let finish =
        Finish { status: 2, sense: vec![0x70, 0, 5], residual: Residual::Underflow(512), ..Default::default() };
    assert!(rig.session.finish(slot, finish.clone()));
    assert!(!rig.session.finish(slot, finish), "one answer a task");
    let sent = rig.sent(0);
    let bhs = &sent[0].0.0;
    assert_eq!(bhs[..8], [0x21, 0x82, 0, 2, 0, 0, 0, 5]);
    assert_eq!(bhs[44..48], [0, 0, 2, 0]);
    assert_eq!(sent[0].1, Payload::Inline(vec![0, 3, 0x70, 0, 5]));
}

#[test]
fn commands_are_delivered_in_order_and_strays_are_ignored() {
    let mut rig = Rig::simple();
    for sn in [3, 2, 8] {
        rig.ok(&command(0xc0, 1000 + sn, sn, 512));
    }
    assert!(rig.delivered().is_empty());
    rig.ok(&command(0xc0, 5000, 9, 512)); // above MaxCmdSN = 8
    rig.ok(&command(0xc0, 5001, 0, 512)); // below ExpCmdSN
    rig.ok(&command(0xc0, 5002, 3, 512)); // the same number again
    rig.ok(&command(0xc0, 1003, 3, 512)); // a retry with its own tag
    assert!(rig.session.find(5000).is_none() && rig.session.find(5001).is_none() && rig.session.find(5002).is_none());
    rig.ok(&command(0xc0, 1001, 1, 512));
    let tags: Vec<u32> =
        rig.delivered().iter().map(|s| rig.session.task(*s).expect("there").initiator_task_tag).collect();
    assert_eq!(tags, [1001, 1002, 1003]);
    assert!(rig.sent(0).is_empty(), "silently (4.2.2.1)");
    assert_eq!(rig.session.numbers(), SessionNumbers { exp_cmd_sn: 4, max_cmd_sn: 8 });
}

#[test]
fn the_window_bounds_unfinished_tasks_and_opens_with_answers() {
    let mut rig = Rig::simple();
    for sn in 1..=8 {
        rig.ok(&command(0xc0, sn, sn, 0));
    }
    let slots = rig.delivered();
    assert_eq!(slots.len(), 8);
    rig.ok(&command(0xc0, 9, 9, 0));
    assert!(rig.delivered().is_empty());
    rig.session.finish(slots[3], Finish::default());
    assert_eq!(rig.sent(0)[0].0.max_cmd_sn(), 9);
    rig.ok(&command(0xc0, 9, 9, 0));
    assert_eq!(rig.delivered().len(), 1);
}

#[test]
fn a_tag_in_use_and_a_reserved_tag_are_rejected_with_the_header() {
    let mut rig = Rig::simple();
    rig.ok(&command(0xc0, 7, 1, 0));
    let bad = command(0xc0, 7, 2, 0);
    rig.ok(&bad);
    rig.ok(&command(0xc0, NO_TAG, 2, 0));
    let sent = rig.sent(0);
    assert_eq!(sent[0].0.0[..4], [0x3f, 0x80, reject::TASK_IN_PROGRESS, 0]);
    assert_eq!(sent[0].0.initiator_task_tag(), NO_TAG);
    assert_eq!(sent[0].1, Payload::Inline(bad.bytes((false, false))));
    assert_eq!(sent[1].0.response(), reject::INVALID_PDU_FIELD);
    assert_eq!((sent[0].0.stat_sn(), sent[1].0.stat_sn()), (100, 101), "StatSN advances after a Reject (11.17.3)");
    assert_eq!(rig.session.numbers().exp_cmd_sn, 2, "a rejected command leaves a gap (7.3)");
}

#[test]
fn immediate_commands_pass_the_queue_and_are_bounded() {
    let mut rig = Rig::simple();
    rig.ok(&command(0xc0, 2, 2, 0)); // waits for 1
    for itt in [10, 11, 12] {
        let mut pdu = command(0xc0, itt, 1, 0);
        pdu.bhs[0] |= 0x40;
        rig.ok(&pdu);
    }
    assert_eq!(rig.delivered().len(), 2);
    assert_eq!(rig.sent(0)[0].0.response(), reject::IMMEDIATE_COMMAND_REJECT);
    let slot = rig.session.find(10).expect("there");
    rig.session.finish(slot, Finish::default());
    let mut pdu = command(0xc0, 13, 1, 0);
    pdu.bhs[0] |= 0x40;
    rig.ok(&pdu);
    assert_eq!(rig.delivered().len(), 1);
}

#[test]
fn pings_are_echoed_now_or_in_command_order() {
    let mut rig = Rig::simple();
    // NOP-Out with I: answered at once; without: when its number comes
    rig.ok(&Pdu::new(0x40, 0x80).u32(16, 5).u32(20, NO_TAG).u32(24, 1).u32(28, 100).with(b"hello"));
    rig.ok(&Pdu::new(0x00, 0x80).u32(16, 6).u32(20, NO_TAG).u32(24, 2).u32(28, 100).with(b"later"));
    let sent = rig.sent(0);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0.0[0], 0x20);
    assert_eq!((sent[0].0.initiator_task_tag(), sent[0].0.target_transfer_tag()), (5, NO_TAG));
    assert_eq!(sent[0].1, Payload::Inline(b"hello".to_vec()));
    rig.ok(&command(0xc0, 1, 1, 0));
    let sent = rig.sent(0);
    assert_eq!(sent[0].1, Payload::Inline(b"later".to_vec()));
    assert_eq!(sent[0].0.exp_cmd_sn(), 3);
    assert!(rig.session.find(6).is_none());
}

#[test]
fn keep_alive_pings_and_gives_up() {
    let mut rig = Rig::new(params());
    rig.connect(ConnectionParams { keep_alive_interval: 100, keep_alive_timeout: 50, ..connection(0, 4096) });
    assert_eq!(rig.session.deadline(0), Some(100));
    assert!(rig.session.tick(0, 99).is_ok() && rig.sent(0).is_empty());
    assert!(rig.session.tick(0, 100).is_ok());
    let ping = rig.sent(0)[0].0;
    assert_eq!((ping.0[0], ping.initiator_task_tag(), ping.stat_sn()), (0x20, NO_TAG, 100));
    assert_ne!(ping.target_transfer_tag(), NO_TAG);
    rig.ok(&Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, ping.target_transfer_tag()).u32(24, 1).u32(28, 100));
    assert!(rig.session.tick(0, 100).is_ok(), "answered");
    assert!(rig.sent(0).len() == 1, "quiet since time 0, as far as this test's clock says");
    assert_eq!(rig.session.deadline(0), Some(150));
    let fatal = rig.session.tick(0, 150).expect_err("silent");
    assert_eq!(fatal.code, crate::FatalCode::KeepAliveTimeout);
}

#[test]
fn control_requests_go_up_in_order_and_are_answered_with_numbers() {
    let mut rig = Rig::simple();
    rig.ok(&Pdu::new(0x04, 0x80).u32(16, 9).u32(20, NO_TAG).u32(24, 2).u32(28, 100).with(b"SendTargets=All\0"));
    assert!(rig.events().is_empty());
    rig.ok(&command(0xc0, 1, 1, 0));
    let events = rig.events();
    let TargetEvent::Control(slot) = events[1] else { panic!("{events:?}") };
    assert_eq!(rig.session.task(slot).expect("there").control_data, b"SendTargets=All\0");
    let mut header = Bhs::default();
    header.0[..2].copy_from_slice(&[0x24, 0x80]);
    assert!(rig.session.respond_control(slot, header, b"TargetName=x\0".to_vec()));
    let sent = rig.sent(0);
    assert_eq!(sent[0].0.initiator_task_tag(), 9);
    assert_eq!((sent[0].0.stat_sn(), sent[0].0.exp_cmd_sn(), sent[0].0.max_cmd_sn()), (100, 3, 9));
    assert_eq!(sent[0].0.data_segment_length(), 13);
}

#[test]
fn snack_login_and_unknown_opcodes_are_rejected() {
    let mut rig = Rig::simple();
    rig.ok(&Pdu::new(0x10, 0x80).u32(16, 1).u32(20, NO_TAG));
    rig.ok(&Pdu::new(0x43, 0x80).u32(16, 1));
    rig.ok(&Pdu::new(0x1c, 0x80).u32(16, 1));
    let reasons: Vec<u8> = rig.sent(0).iter().map(|(bhs, _)| bhs.response()).collect();
    assert_eq!(reasons, [reject::COMMAND_NOT_SUPPORTED, reject::PROTOCOL_ERROR, reject::COMMAND_NOT_SUPPORTED]);
    assert!(rig.send(&Pdu::new(0x25, 0x80)).is_err(), "a target's opcode");
}
