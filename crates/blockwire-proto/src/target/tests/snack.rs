//! SNACK of every type (RFC 7143 11.16), typed by hand.

use blockwire_wire::opcode::reject;

use super::*;

/// SNACK (opcode 0x10): F 0x80 and the type; ITT, TTT or SNACK Tag, ExpStatSN, BegRun, RunLength (figure of 11.16).
fn snack(kind: u8, itt: u32, tag: u32, exp_stat_sn: u32, begin: u32, length: u32) -> Pdu {
    Pdu::new(0x10, 0x80 | kind).u32(16, itt).u32(20, tag).u32(28, exp_stat_sn).u32(40, begin).u32(44, length)
}

fn level(error_recovery_level: u8) -> SessionParams {
    SessionParams { error_recovery_level, max_burst_length: 8192, data_sequence_in_order: false, ..params() }
}

fn rig() -> Rig {
    let mut rig = Rig::new(level(1));
    rig.connect(connection(0, 4096));
    rig
}

/// A read of `len` bytes that is sent, with its status.
fn read(rig: &mut Rig, itt: u32, cmd_sn: u32, len: u32) -> (Slot, Vec<(Bhs, Payload)>) {
    rig.ok(&command(0xc0, itt, cmd_sn, len));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, len, true, Some(Finish::good(Residual::None)));
    (slot, rig.sent(0))
}

/// A header without the fields that a replica carries anew (ExpCmdSN, MaxCmdSN).
fn old(bhs: Bhs) -> [u8; BHS_LEN] {
    let mut bytes = bhs.0;
    bytes[28..36].fill(0);
    bytes
}

fn replicas(rig: &mut Rig, originals: &[(Bhs, Payload)]) {
    let again = rig.sent(0);
    assert_eq!(again.len(), originals.len());
    for ((a, pa), (b, pb)) in again.iter().zip(originals) {
        assert_eq!((old(*a), pa), (old(*b), pb), "11.16: exact replicas");
        assert_eq!(a.exp_cmd_sn(), rig.session.numbers().exp_cmd_sn, "11.16: the current value");
        assert_eq!(a.max_cmd_sn(), rig.session.numbers().max_cmd_sn);
    }
}

/// The one Reject that was sent: reason and DataSN field.
fn rejected(rig: &mut Rig) -> (u8, u32) {
    let sent = rig.sent(0);
    assert_eq!((sent.len(), sent[0].0.0[0]), (1, 0x3f), "{sent:?}");
    (sent[0].0.response(), sent[0].0.data_sn())
}

#[test]
fn at_level_0_nothing_can_be_asked_for_again() {
    for kind in 0..4 {
        let mut rig = Rig::simple();
        read(&mut rig, 3, 1, 5000);
        rig.ok(&snack(kind, 3, NO_TAG, 100, 0, 0));
        assert_eq!(rejected(&mut rig).0, reject::COMMAND_NOT_SUPPORTED);
    }
}

#[test]
fn data_is_sent_again_as_it_was() {
    let mut rig = rig();
    let (_, sent) = read(&mut rig, 3, 1, 20_000);
    assert_eq!(sent.len(), 5);
    for (begin, length, from, to) in [(0, 0, 0, 5), (2, 0, 2, 5), (1, 2, 1, 3), (4, 1, 4, 5), (0, 5, 0, 5)] {
        rig.ok(&snack(0, 3, NO_TAG, 100, begin, length));
        replicas(&mut rig, &sent[from..to]);
    }
    // another command moves the window on: replicas say so
    rig.ok(&command(0xc0, 4, 2, 0));
    rig.ok(&snack(0, 3, NO_TAG, 100, 3, 2));
    replicas(&mut rig, &sent[3..5]);
}

#[test]
fn asking_twice_before_anything_was_sent_gives_it_once() {
    let mut rig = rig();
    let (_, sent) = read(&mut rig, 3, 1, 20_000);
    for _ in 0..3 {
        rig.ok(&snack(0, 3, NO_TAG, 100, 0, 0));
    }
    replicas(&mut rig, &sent);
}

#[test]
fn data_that_was_never_sent_is_a_protocol_error_that_names_the_next_number() {
    for (begin, length) in [(5, 1), (4, 2), (5, 0), (6, 0), (0, 6), (u32::MAX, 1), (1, u32::MAX)] {
        let mut rig = rig();
        read(&mut rig, 3, 1, 20_000);
        rig.ok(&snack(0, 3, NO_TAG, 100, begin, length));
        // 11.16: MUST be rejected with "Protocol Error"; 11.17.2: DataSN is the next number
        assert_eq!(rejected(&mut rig), (reject::PROTOCOL_ERROR, 5), "{begin} {length}");
    }
    let mut rig = rig();
    read(&mut rig, 3, 1, 20_000);
    rig.ok(&snack(0, 4, NO_TAG, 100, 0, 0));
    assert_eq!(rejected(&mut rig).0, reject::PROTOCOL_ERROR, "no such task");
    rig.ok(&snack(0, 3, 7, 100, 0, 0));
    assert_eq!(rejected(&mut rig).0, reject::INVALID_PDU_FIELD, "11.16.5: the tag MUST be the reserved one");
    // the status is acknowledged, and with it the data (11.16: MUST precede status acknowledgment)
    rig.ok(&snack(0, 3, NO_TAG, 101, 0, 0));
    assert_eq!(rejected(&mut rig).0, reject::PROTOCOL_ERROR);
    // with nothing sent, "all that is not acknowledged" is nothing
    rig.ok(&command(0xc0, 5, 2, 512));
    rig.ok(&snack(0, 5, NO_TAG, 103, 0, 0));
    assert!(rig.sent(0).is_empty());
    rig.ok(&snack(5, 5, NO_TAG, 103, 0, 0));
    assert_eq!(rejected(&mut rig).0, reject::PROTOCOL_ERROR, "11.16.1: reserved type");
}

#[test]
fn an_r2t_is_sent_again_with_the_current_stat_sn_until_it_is_answered() {
    let mut rig = rig();
    rig.ok(&command(0xa0, 3, 1, 10_000));
    let slot = rig.delivered()[0];
    assert!(rig.session.solicit(slot, 0, 5000) && rig.session.solicit(slot, 5000, 5000));
    let first = rig.sent(0);
    rig.ok(&Pdu::new(0x40, 0x80).u32(16, 9).u32(20, NO_TAG).u32(28, 100));
    assert_eq!(rig.sent(0).len(), 1, "a ping answered takes StatSN 100");
    rig.ok(&snack(0, 3, NO_TAG, 101, 0, 2));
    let again = rig.sent(0);
    for (a, b) in again.iter().zip(&first) {
        let (mut a, b) = (a.0, b.0);
        assert_eq!((a.stat_sn(), b.stat_sn()), (101, 100), "11.16: R2Ts MUST carry the current StatSN");
        a.set_stat_sn(100);
        assert_eq!(old(a), old(b));
    }
    rig.ok(&data_out(true, 3, first[0].0.target_transfer_tag(), 0, 0, &[1; 5000]));
    rig.ok(&snack(0, 3, NO_TAG, 101, 0, 2));
    assert_eq!(rejected(&mut rig), (reject::PROTOCOL_ERROR, 2), "an R2T is acknowledged by its data");
    rig.ok(&snack(0, 3, NO_TAG, 102, 0, 0));
    assert_eq!(rig.sent(0)[0].0.data_sn(), 1, "all that is open");
}

#[test]
fn numbered_responses_of_every_kind_are_sent_again() {
    let mut rig = rig();
    let mut all = Vec::new();
    // 100: status in Data-In; 101: SCSI Response with sense; 102: ping answered; 103: TMF response; 104: Reject; 105: Async
    all.extend(read(&mut rig, 3, 1, 100).1);
    rig.ok(&command(0xc0, 4, 2, 512));
    let slot = rig.delivered()[0];
    rig.session.finish(slot, Finish { status: 2, sense: vec![0x70, 7], ..Finish::default() });
    rig.ok(&Pdu::new(0x40, 0x80).u32(16, 9).u32(20, NO_TAG).u32(28, 100).with(b"ping"));
    rig.ok(&Pdu::new(0x42, 0x81).u32(16, 10).u32(20, 77).u32(28, 100));
    let control = rig.events().into_iter().find_map(|e| if let TargetEvent::Control(s) = e { Some(s) } else { None });
    let mut header = Bhs::default();
    header.0[..3].copy_from_slice(&[0x22, 0x80, 1]);
    assert!(rig.session.respond_control(control.expect("one"), header, Vec::new()));
    rig.ok(&Pdu::new(0x1c, 0x80).u32(28, 100));
    let mut header = Bhs::default();
    header.0[..2].copy_from_slice(&[0x32, 0x80]);
    rig.session.send_unsolicited(0, header, b"text".to_vec(), false);
    all.extend(rig.sent(0));
    assert_eq!(all.iter().map(|(b, _)| b.stat_sn()).collect::<Vec<_>>(), [100, 101, 102, 103, 104, 105]);
    rig.ok(&snack(1, NO_TAG, NO_TAG, 100, 0, 0));
    replicas(&mut rig, &all);
    rig.ok(&snack(1, NO_TAG, NO_TAG, 100, 101, 3));
    replicas(&mut rig, &all[1..4]);
    rig.ok(&snack(1, NO_TAG, NO_TAG, 102, 104, 0));
    replicas(&mut rig, &all[4..]);
    // 11.16, 11.17.1: acknowledged already, or never sent
    for (begin, length) in [(101, 1), (106, 0), (105, 2), (100, 0), (u32::MAX, 2)] {
        let at = rig.session.connection(0).expect("there").stat_sn();
        rig.ok(&snack(1, NO_TAG, NO_TAG, at, begin, length));
        assert_eq!(rejected(&mut rig).0, reject::PROTOCOL_ERROR, "{begin} {length}");
    }
    let at = rig.session.connection(0).expect("there").stat_sn();
    rig.ok(&snack(1, 3, NO_TAG, at, 0, 0));
    assert_eq!(rejected(&mut rig).0, reject::INVALID_PDU_FIELD, "11.16.4: the tag MUST be the reserved one");
    rig.ok(&snack(1, NO_TAG, NO_TAG, at + 1, 0, 0));
    assert!(rig.sent(0).is_empty(), "all is acknowledged");
    assert_eq!(rig.session.tasks().count(), 0);
}

#[test]
fn status_numbers_go_round_at_2_to_the_32() {
    let mut rig = Rig::new(level(1));
    let conn = rig.session.add_connection(connection(0, 4096), 0xffff_fffe, 0);
    rig.adopt(conn, (false, false));
    let mut sent = Vec::new();
    for sn in 1..=4 {
        rig.ok(&command(0xc0, sn, sn, 0).u32(28, 0xffff_fffe));
        let slot = rig.delivered()[0];
        rig.session.finish(slot, Finish::default());
        sent.extend(rig.sent(0));
    }
    assert_eq!(sent.iter().map(|(b, _)| b.stat_sn()).collect::<Vec<_>>(), [0xffff_fffe, 0xffff_ffff, 0, 1]);
    rig.ok(&snack(1, NO_TAG, NO_TAG, 0xffff_fffe, 0xffff_ffff, 3));
    replicas(&mut rig, &sent[1..]);
    rig.ok(&snack(1, NO_TAG, NO_TAG, 0, 1, 1));
    replicas(&mut rig, &sent[3..]);
    assert_eq!(rig.session.tasks().count(), 2, "0xfffffffe and 0xffffffff are acknowledged by 0");
    rig.ok(&snack(1, NO_TAG, NO_TAG, 1, 0xffff_ffff, 1));
    assert_eq!(rejected(&mut rig).0, reject::PROTOCOL_ERROR);
}

#[test]
fn acknowledgement_is_asked_for_once_a_burst_and_frees_the_data() {
    let mut rig = rig();
    let mut read = command(0xc0, 3, 1, 40_000);
    read.bhs[9] = 5; // LUN 5
    rig.ok(&read);
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 8192, false, None);
    assert!(rig.sent(0).iter().all(|(b, _)| b.flags() & 0x40 == 0), "nobody asked for it");
    rig.session.set_soliciting(true);
    rig.session.send_data(slot, 8192, 16_384, false, None);
    let sent = rig.sent(0);
    let asked: Vec<_> = sent.iter().filter(|(b, _)| b.flags() & 0x40 != 0).map(|(b, _)| *b).collect();
    assert_eq!(asked.len(), 1, "the next only when this one is answered");
    let ttt = asked[0].target_transfer_tag();
    assert_eq!((asked[0].data_sn(), asked[0].is_final(), asked[0].lun()), (3, true, 5 << 48), "11.7.4: tag and LUN");
    assert_ne!(ttt, NO_TAG);
    assert!(sent.iter().filter(|(b, _)| b.flags() & 0x40 == 0).all(|(b, _)| b.target_transfer_tag() == NO_TAG));
    // its replica has the same tag
    rig.ok(&snack(0, 3, NO_TAG, 100, 3, 1));
    replicas(&mut rig, &sent[1..2]);
    let ack = |lun: u8, ttt, begin, length| {
        let mut pdu = snack(2, NO_TAG, ttt, 100, begin, length);
        pdu.bhs[9] = lun;
        pdu
    };
    for (pdu, reason) in [
        (ack(5, ttt + 1, 4, 0), reject::INVALID_DATA_ACK),
        (ack(5, ttt, 7, 0), reject::INVALID_DATA_ACK),
        (ack(5, ttt, 0, 0), reject::INVALID_DATA_ACK),
        (ack(4, ttt, 4, 0), reject::INVALID_PDU_FIELD),
        (ack(5, ttt, 4, 1), reject::INVALID_PDU_FIELD),
        (ack(5, NO_TAG, 4, 0), reject::INVALID_PDU_FIELD),
    ] {
        rig.ok(&pdu);
        assert_eq!(rejected(&mut rig).0, reason, "{pdu:?}");
    }
    rig.events();
    rig.ok(&ack(5, ttt, 4, 0));
    assert_eq!(rig.events(), [TargetEvent::Acknowledged { slot, offset: 16_384 }]);
    rig.ok(&ack(5, ttt, 5, 0));
    assert_eq!(rejected(&mut rig).0, reject::INVALID_DATA_ACK, "answered already");
    rig.ok(&snack(0, 3, NO_TAG, 100, 3, 1));
    assert_eq!(rejected(&mut rig), (reject::PROTOCOL_ERROR, 6), "11.16.2: MUST NOT be asked for again");
    // the last one may ask too, unless it carries the status
    rig.session.send_data(slot, 24_576, 15_424, true, None);
    let flags: Vec<u8> = rig.sent(0).iter().map(|(b, _)| b.flags()).collect();
    assert_eq!(flags, [0, 0xc0, 0, 0x80]);
}

#[test]
fn acknowledgement_is_not_asked_for_more_often_than_once_every_max_burst_length() {
    // sequences are whole segments: with 3,000 bytes each they end after 6,000, which is less than MaxBurstLength (8,192)
    let mut rig = Rig::new(level(1));
    rig.connect(connection(0, 3000));
    rig.ok(&command(0xc0, 3, 1, 40_000));
    let slot = rig.delivered()[0];
    rig.session.set_soliciting(true);
    let mut last = 0;
    for from in (0..36_000).step_by(6000) {
        rig.session.send_data(slot, from, 6000, false, None);
        let sent = rig.sent(0);
        assert!(sent[1].0.is_final());
        for (bhs, _) in sent.iter().filter(|(b, _)| b.flags() & 0x40 != 0) {
            let end = bhs.buffer_offset() + bhs.data_segment_length();
            assert!(end - last >= 8192, "11.7.2: MUST NOT, {last} and {end}");
            last = end;
            rig.ok(&snack(2, NO_TAG, bhs.target_transfer_tag(), 100, bhs.data_sn() + 1, 0));
        }
    }
    assert_eq!(last, 36_000);
}

#[test]
fn a_status_that_did_not_leave_cannot_be_asked_for_again() {
    let mut rig = rig();
    rig.ok(&command(0x80, 3, 1, 0));
    let slot = rig.delivered()[0];
    rig.session.finish(slot, Finish::default());
    rig.ok(&snack(1, NO_TAG, NO_TAG, 100, 100, 1));
    let sent = rig.sent(0);
    let seen: Vec<_> = sent.iter().map(|(b, _)| (b.0[0], b.stat_sn())).collect();
    assert_eq!(seen, [(0x21, 100), (0x3f, 101)], "11.16: never sent, a protocol error; and the answer once");
    assert_eq!(sent[1].0.response(), reject::PROTOCOL_ERROR);
}

#[test]
fn level_0_never_asks_for_acknowledgement() {
    let mut rig = Rig::new(level(0));
    rig.connect(connection(0, 4096));
    rig.session.set_soliciting(true);
    let (_, sent) = read(&mut rig, 3, 1, 60_000);
    assert!(sent.iter().all(|(b, _)| b.flags() & 0x40 == 0), "11.7.2: MUST NOT");
}

#[test]
fn an_acknowledgement_may_come_with_that_of_the_status() {
    let mut rig = rig();
    rig.session.set_soliciting(true);
    let (_, sent) = read(&mut rig, 3, 1, 20_000);
    let asked = sent.iter().find(|(b, _)| b.flags() & 0x40 != 0).expect("at the first burst").0;
    rig.events();
    rig.ok(&snack(2, NO_TAG, asked.target_transfer_tag(), 101, 2, 0));
    assert!(rig.sent(0).is_empty());
    assert!(matches!(rig.events()[..], [TargetEvent::Acknowledged { .. }, TargetEvent::Released(_)]));
}

#[test]
fn r_data_cuts_what_is_not_acknowledged_anew_and_tags_the_response() {
    let mut rig = rig();
    rig.session.set_soliciting(true);
    let (slot, sent) = read(&mut rig, 3, 1, 20_000);
    let asked = sent.iter().find(|(b, _)| b.flags() & 0x40 != 0).expect("one").0;
    assert_eq!(asked.data_sn(), 1);
    rig.ok(&snack(2, NO_TAG, asked.target_transfer_tag(), 100, 2, 0));
    // MaxRecvDataSegmentLength of the initiator is 1000 from now on
    rig.session.set_segment_lengths(0, None, Some(1000));
    for (tag, begin, length) in [(0, 0, 0), (NO_TAG, 0, 0), (9, 1, 0), (9, 0, 1)] {
        rig.ok(&snack(3, 3, tag, 100, begin, length));
        assert_eq!(rejected(&mut rig).0, reject::INVALID_PDU_FIELD, "11.16.5, 11.16.6");
    }
    rig.ok(&snack(3, 3, 9, 100, 0, 0));
    let again = rig.sent(0);
    let data: Vec<_> = again.iter().filter(|(b, _)| b.0[0] == 0x25).map(|(b, _)| *b).collect();
    // 11.16.3: DataSN starts with BegRun of the last DataACK
    assert_eq!((data[0].data_sn(), data[0].buffer_offset()), (2, 8192));
    let mut at = 8192;
    for (i, bhs) in data.iter().enumerate() {
        assert_eq!((bhs.data_sn(), bhs.buffer_offset()), (2 + i as u32, at));
        assert!(bhs.data_segment_length() <= 1000 && bhs.flags() & 1 == 0);
        at += bhs.data_segment_length();
    }
    assert_eq!(at, 20_000);
    assert!(data.last().expect("some").is_final());
    let response = again.last().expect("some").0;
    // 11.16.3: MUST be a SCSI Response with the tag, and the StatSN of the first time
    assert_eq!((response.0[0], response.snack_tag(), response.stat_sn()), (0x21, 9, 100));
    assert_eq!(response.exp_data_sn(), 2 + data.len() as u32);
    // a second one: the last tag counts, for the status asked for again too
    rig.ok(&snack(3, 3, 10, 100, 0, 0));
    assert_eq!(rig.sent(0).last().expect("some").0.snack_tag(), 10);
    rig.ok(&snack(1, NO_TAG, NO_TAG, 100, 100, 1));
    let status = rig.sent(0);
    assert_eq!((status.len(), status[0].0.snack_tag(), status[0].0.stat_sn()), (1, 10, 100));
    assert_eq!(rig.session.find(3), Some(slot));
}

#[test]
fn r_data_before_the_end_makes_the_status_a_response() {
    let mut rig = rig();
    rig.ok(&command(0xc0, 3, 1, 12_000));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 8192, false, None);
    rig.session.send_queue(0).sent(10, |_| ());
    rig.ok(&snack(3, 3, 9, 100, 0, 0));
    rig.session.send_data(slot, 8192, 3808, true, Some(Finish::good(Residual::None)));
    let sent = rig.sent(0);
    let seen: Vec<_> = sent.iter().map(|(b, _)| (b.0[0], b.data_sn(), b.buffer_offset(), b.snack_tag())).collect();
    // the PDU begun is finished, the one behind it is not sent in vain
    assert_eq!(seen[0], (0x25, 0, 0, NO_TAG));
    assert_eq!(seen[1..4], [(0x25, 0, 0, NO_TAG), (0x25, 1, 4096, NO_TAG), (0x25, 2, 8192, NO_TAG)]);
    assert_eq!((seen[4].0, seen[4].3, seen.len()), (0x21, 9, 5));
}

#[test]
fn data_that_was_dropped_is_refused_and_the_task_ends() {
    let mut rig = rig();
    rig.ok(&command(0xc0, 3, 1, 12_000));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 8192, false, None);
    rig.sent(0);
    rig.session.forget_data(slot);
    for (kind, tag) in [(0, NO_TAG), (3, 9)] {
        rig.ok(&snack(kind, 3, tag, 100, 0, 0));
        // 7.8 a: SNACK reject; a.1: the task MUST end with CHECK CONDITION
        assert_eq!(rejected(&mut rig).0, reject::SNACK_REJECT);
        assert!(rig.events().contains(&TargetEvent::SnackRejected(slot)));
    }
    assert_eq!(Condition::SnackRejected.sense(), (0x0b, 0x11, 0x13));
}

#[test]
fn an_acknowledgement_takes_replicas_out_of_the_queue() {
    let mut rig = rig();
    let (slot, _) = read(&mut rig, 3, 1, 20_000);
    rig.ok(&snack(0, 3, NO_TAG, 100, 0, 0));
    rig.session.send_queue(0).sent(10, |_| ()); // one is begun: its memory has to stay
    rig.events();
    rig.ok(&Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, NO_TAG).u32(28, 101));
    assert!(rig.events().is_empty(), "not released yet");
    assert_eq!(rig.sent(0).len(), 1);
    assert_eq!(rig.events(), [TargetEvent::Released(slot)]);
}

#[test]
fn a_log_of_too_many_runs_is_given_up_not_the_task() {
    let mut rig = rig();
    rig.ok(&command(0xc0, 3, 1, 600_000));
    let slot = rig.delivered()[0];
    for i in 0..400 {
        // a segment length that changes all the time
        rig.session.set_segment_lengths(0, None, Some(512 + 4 * (i % 3)));
        rig.session.send_data(slot, i * 1500, 1500, i == 399, (i == 399).then(Finish::default));
    }
    let sent = rig.sent(0);
    assert_eq!(sent.last().expect("some").0.flags() & 1, 1);
    assert!(rig.session.task(slot).expect("there").data_in.log.runs() <= crate::ranges::MAX_RUNS);
    rig.sent(0); // word of the window
    rig.ok(&snack(0, 3, NO_TAG, 100, 0, 1));
    assert_eq!(rejected(&mut rig).0, reject::SNACK_REJECT);
}
