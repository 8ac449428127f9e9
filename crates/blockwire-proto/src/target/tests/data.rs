//! Immediate, unsolicited and solicited data, Data-In, digests (RFC 7143 7.8, 11.7, 11.8, 13.10 to 13.19).

use blockwire_wire::opcode::reject;

use super::*;

#[test]
fn a_write_with_immediate_unsolicited_and_solicited_data() {
    for cut in [1, 7, 48, 1000] {
        let mut rig = Rig::simple();
        let data: Vec<u8> = (0..20_000_u32).map(|i| (i * 7) as u8).collect();
        let mut stream = command(0x20, 3, 1, 20_000).with(&data[..1000]).bytes((false, false));
        stream.extend(data_out(false, 3, NO_TAG, 0, 1000, &data[1000..3000]).bytes((false, false)));
        stream.extend(data_out(true, 3, NO_TAG, 1, 3000, &data[3000..4000]).bytes((false, false)));
        rig.feed(0, &stream, cut).expect("fine");
        let events = rig.events();
        let [TargetEvent::Command(slot), TargetEvent::DataOut(again)] = events[..] else { panic!("{events:?}") };
        assert_eq!(slot, again);
        assert!(rig.session.task(slot).expect("there").out.received.contains(0, 4000));
        assert!(rig.session.solicit(slot, 4000, 8000));
        assert!(rig.session.solicit(slot, 12_000, 8000));
        assert!(!rig.session.solicit(slot, 0, 1), "MaxOutstandingR2T is 2 (13.17)");
        let r2ts = rig.sent(0);
        let (a, b) = (r2ts[0].0, r2ts[1].0);
        // figure of 11.8: opcode, F, LUN, ITT, TTT, StatSN, ExpCmdSN, MaxCmdSN, R2TSN, offset, length
        assert_eq!(a.0[..2], [0x31, 0x80]);
        assert_eq!((a.data_sn(), a.buffer_offset(), a.desired_data_transfer_length()), (0, 4000, 8000));
        assert_eq!((b.data_sn(), b.buffer_offset(), b.desired_data_transfer_length()), (1, 12_000, 8000));
        assert_ne!(a.target_transfer_tag(), b.target_transfer_tag());
        assert_eq!((a.stat_sn(), b.stat_sn()), (100, 100));
        let mut stream = data_out(true, 3, b.target_transfer_tag(), 0, 12_000, &data[12_000..]).bytes((false, false));
        stream.extend(data_out(false, 3, a.target_transfer_tag(), 0, 4000, &data[4000..10_000]).bytes((false, false)));
        stream
            .extend(data_out(true, 3, a.target_transfer_tag(), 1, 10_000, &data[10_000..12_000]).bytes((false, false)));
        rig.feed(0, &stream, cut).expect("fine");
        assert_eq!(rig.memory[&slot.0], data);
        assert!(rig.session.task(slot).expect("there").out.received.contains(0, 20_000));
        assert_eq!(rig.events(), [TargetEvent::DataOut(slot); 2]);
        rig.session.finish(slot, Finish::default());
        assert_eq!(rig.sent(0)[0].0.0[..2], [0x21, 0x80]);
        assert!(rig.session.tasks().next().is_none());
    }
}

#[test]
fn data_in_is_cut_by_segment_and_burst() {
    let mut rig = Rig::new(SessionParams { max_burst_length: 10_000, ..params() });
    rig.connect(connection(0, 4096));
    rig.ok(&command(0xc0, 3, 1, 25_000));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 12_000, false, None);
    rig.session.send_data(slot, 12_000, 13_000, true, Some(Finish::good(Residual::Overflow(1))));
    let sent = rig.sent(0);
    let seen: Vec<(u32, u32, u32, bool)> = sent
        .iter()
        .map(|(b, p)| {
            assert_eq!(b.data_segment_length(), p.len());
            (b.data_sn(), b.buffer_offset(), b.data_segment_length(), b.is_final())
        })
        .collect();
    #[rustfmt::skip]
    assert_eq!(seen, [
        (0, 0, 4096, false), (1, 4096, 4096, false), (2, 8192, 1808, true),
        (3, 10_000, 2000, false), (4, 12_000, 4096, false), (5, 16_096, 3904, true),
        (6, 20_000, 4096, false), (7, 24_096, 904, true),
    ]);
    let last = sent[7].0;
    assert_eq!(last.flags(), 0x80 | 0x04 | 0x01, "F, O and S");
    assert_eq!(last.residual_count(), 1);
    assert!(sent[..7].iter().all(|(b, _)| b.flags() & 0x7f == 0 && b.stat_sn() == 0));
}

#[test]
fn an_error_after_data_is_a_response_of_its_own() {
    let mut rig = Rig::simple();
    rig.ok(&command(0xc0, 3, 1, 8192));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 4096, true, None);
    rig.session.finish(
        slot,
        Finish { status: 2, sense: vec![0x70], residual: Residual::Underflow(4096), ..Default::default() },
    );
    let sent = rig.sent(0);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].0.flags(), 0x80);
    assert_eq!(sent[1].0.exp_data_sn(), 1);
}

#[test]
fn a_bidirectional_command_shares_the_numbers_and_ends_in_a_response() {
    let mut rig = Rig::simple();
    let mut pdu = command(0xe0, 3, 1, 100);
    pdu.ahs = vec![0, 5, 2, 0, 0, 0, 0x10, 0]; // 11.2.2.4: expected read length 4096
    rig.ok(&pdu);
    let slot = rig.delivered()[0];
    assert_eq!(rig.session.task(slot).expect("there").expected_read(), 4096);
    assert!(rig.session.solicit(slot, 0, 100));
    let ttt = rig.sent(0)[0].0.target_transfer_tag();
    rig.ok(&data_out(true, 3, ttt, 0, 0, &[1; 100]));
    let finish = Finish { bidirectional_residual: Residual::Underflow(96), ..Default::default() };
    rig.session.send_data(slot, 0, 4000, true, Some(finish));
    let sent = rig.sent(0);
    assert_eq!((sent[0].0.0[0], sent[0].0.data_sn(), sent[0].0.flags()), (0x25, 1, 0x80));
    assert_eq!((sent[1].0.0[0], sent[1].0.flags()), (0x21, 0x80 | 0x08));
    assert_eq!((sent[1].0.bidirectional_residual_count(), sent[1].0.exp_data_sn()), (96, 1));
}

#[test]
fn a_response_waits_for_data_that_is_still_to_come() {
    let mut rig = Rig::simple();
    rig.ok(&command(0x20, 3, 1, 10_000));
    let slot = rig.delivered()[0];
    rig.session.finish(slot, Finish { status: 2, sense: vec![1], ..Default::default() });
    assert!(rig.sent(0).is_empty(), "11.17.1: until the F bit");
    rig.ok(&data_out(false, 3, NO_TAG, 0, 0, &[1; 100]));
    assert!(rig.sent(0).is_empty());
    rig.ok(&data_out(true, 3, NO_TAG, 1, 100, &[1; 100]));
    assert_eq!(rig.sent(0)[0].0.status(), 2);
    assert!(!rig.memory.contains_key(&slot.0), "its data is thrown away");
}

fn condition(rig: &mut Rig, pdus: &[Pdu]) -> (Option<Condition>, Vec<u8>) {
    for pdu in pdus {
        rig.ok(pdu);
    }
    let slot = rig.session.find(3).expect("there");
    let reasons = rig.sent(0).iter().map(|(bhs, _)| bhs.response()).collect();
    (rig.session.task(slot).expect("there").out.condition, reasons)
}

#[test]
fn wrong_unsolicited_data_becomes_a_condition() {
    let open = command(0x20, 3, 1, 100_000);
    // DataSN 1 where 0 is due
    let (got, reasons) = condition(&mut Rig::simple(), &[open.clone(), data_out(true, 3, NO_TAG, 1, 0, &[0; 10])]);
    assert_eq!((got, reasons), (Some(Condition::ProtocolServiceCrcError), vec![reject::PROTOCOL_ERROR]));
    // offset 10 where 0 is due
    let (got, _) = condition(&mut Rig::simple(), &[open.clone(), data_out(true, 3, NO_TAG, 0, 10, &[0; 10])]);
    assert_eq!(got, Some(Condition::ProtocolServiceCrcError));
    // beyond FirstBurstLength (13.14)
    let mut rig = Rig::new(SessionParams { first_burst_length: 512, ..params() });
    rig.connect(connection(0, 4096));
    let (got, _) = condition(&mut rig, &[open.clone(), data_out(true, 3, NO_TAG, 0, 0, &[0; 513])]);
    assert_eq!(got, Some(Condition::IncorrectAmountOfData));
    // F was seen: nothing more may come unasked
    let first = data_out(true, 3, NO_TAG, 0, 0, &[0; 10]);
    let (got, reasons) =
        condition(&mut Rig::simple(), &[open, first.clone(), data_out(true, 3, NO_TAG, 1, 10, &[0; 10])]);
    assert_eq!((got, reasons), (Some(Condition::UnexpectedUnsolicitedData), vec![reject::PROTOCOL_ERROR]));
    // InitialR2T=Yes (13.10)
    let mut rig = Rig::new(SessionParams { initial_r2t: true, ..params() });
    rig.connect(connection(0, 4096));
    let (got, _) = condition(&mut rig, &[command(0x20, 3, 1, 1000), first]);
    assert_eq!(got, Some(Condition::UnexpectedUnsolicitedData));
    // ImmediateData=No (13.11)
    let mut rig = Rig::new(SessionParams { immediate_data: false, ..params() });
    rig.connect(connection(0, 4096));
    let (got, _) = condition(&mut rig, &[command(0xa0, 3, 1, 1000).with(&[0; 100])]);
    assert_eq!(got, Some(Condition::UnexpectedUnsolicitedData));
    // more immediate data than the transfer
    let (got, _) = condition(&mut Rig::simple(), &[command(0xa0, 3, 1, 50).with(&[0; 100])]);
    assert_eq!(got, Some(Condition::IncorrectAmountOfData));
}

#[test]
fn wrong_solicited_data_is_refused_before_it_has_a_place() {
    let start = |rig: &mut Rig| {
        rig.ok(&command(0xa0, 3, 1, 10_000));
        let slot = rig.delivered()[0];
        assert!(rig.session.solicit(slot, 0, 5000));
        (slot, rig.sent(0)[0].0.target_transfer_tag())
    };
    let mut rig = Rig::simple();
    let (slot, ttt) = start(&mut rig);
    rig.ok(&data_out(true, 3, ttt + 1, 0, 0, &[0; 10]));
    rig.ok(&data_out(true, 4, ttt, 0, 0, &[0; 10]));
    let reasons: Vec<u8> = rig.sent(0).iter().map(|(bhs, _)| bhs.response()).collect();
    assert_eq!(reasons, [reject::INVALID_PDU_FIELD; 2]);
    assert_eq!(rig.session.task(slot).expect("there").out.condition, None, "the task is not touched");
    rig.ok(&data_out(true, 3, ttt, 0, 4990, &[0; 20]));
    assert_eq!(rig.session.task(slot).expect("there").out.condition, Some(Condition::IncorrectAmountOfData));
    assert!(!rig.memory.contains_key(&slot.0));

    let mut rig = Rig::simple();
    let (slot, ttt) = start(&mut rig);
    rig.ok(&data_out(true, 3, ttt, 0, 0, &[0; 4999]));
    assert_eq!(
        rig.session.task(slot).expect("there").out.condition,
        Some(Condition::IncorrectAmountOfData),
        "F too early"
    );
    assert_eq!(rig.session.r2t_room(slot), 0);
}

/// A command whose immediate data is damaged on its way.
fn damaged_command(level: u8) -> (Rig, Pdu, Result<(), Fatal>) {
    let mut rig = Rig::new(SessionParams { error_recovery_level: level, ..params() });
    rig.connect(ConnectionParams { header_digest: true, data_digest: true, ..connection(0, 4096) });
    let pdu = command(0xa0, 3, 1, 100).with(&[7; 100]);
    let mut bytes = pdu.bytes((true, true));
    bytes[60] ^= 1;
    let result = rig.feed(0, &bytes, 13);
    assert!(rig.session.find(3).is_none());
    let sent = rig.sent(0);
    assert_eq!((sent[0].0.0[0], sent[0].0.response()), (0x3f, reject::DATA_DIGEST_ERROR));
    assert!(rig.events().iter().any(|e| matches!(e, TargetEvent::DigestFailure { .. })));
    assert_eq!(rig.session.numbers().exp_cmd_sn, 1);
    (rig, pdu, result)
}

#[test]
fn damaged_immediate_data_is_rejected_and_the_command_retried() {
    for level in [1, 2] {
        let (mut rig, pdu, result) = damaged_command(level);
        result.expect("the connection goes on");
        rig.ok(&pdu);
        assert_eq!(rig.delivered().len(), 1);
    }
}

/// RFC 7143 7.8 and 7.1.5: at level 0 nobody sends the command again, so that its CmdSN would stay open.
#[test]
fn damaged_immediate_data_ends_the_connection_at_level_0() {
    let (_, _, result) = damaged_command(0);
    assert_eq!(result.expect_err("the end").code, crate::FatalCode::DataDigest);
}

#[test]
fn damaged_data_out_ends_the_task_after_all_data_came() {
    let mut rig = Rig::new(params());
    rig.connect(ConnectionParams { data_digest: true, ..connection(0, 4096) });
    rig.ok(&command(0xa0, 3, 1, 200));
    let slot = rig.delivered()[0];
    assert!(rig.session.solicit(slot, 0, 200));
    let ttt = rig.sent(0)[0].0.target_transfer_tag();
    let mut bytes = data_out(false, 3, ttt, 0, 0, &[7; 100]).bytes((false, true));
    bytes[100] ^= 4;
    rig.feed(0, &bytes, 1000).expect("goes on");
    assert!(rig.session.task(slot).expect("there").out.is_open());
    rig.ok(&data_out(true, 3, ttt, 1, 100, &[7; 100]));
    let task = rig.session.task(slot).expect("there");
    assert_eq!(task.out.condition, Some(Condition::ProtocolServiceCrcError));
    assert!(!task.out.is_open());
    assert_eq!(Condition::ProtocolServiceCrcError.sense(), (0x0b, 0x47, 0x05));
}
