//! Numbers of Data-In and R2T do not come round (RFC 7143 4.2.2.4).

use super::*;

#[test]
fn a_read_has_fewer_pdus_than_there_are_numbers() {
    // 13.12: 512 bytes are the least; with them the longest read, 2^32 - 1 bytes, has 2^23 Data-Ins
    for claimed in [0, 1, 511] {
        let mut rig = Rig::new(params());
        rig.connect(connection(0, claimed));
        rig.ok(&command(0xc0, 3, 1, 2048));
        let slot = rig.delivered()[0];
        rig.session.send_data(slot, 0, 2048, true, Some(Finish::good(Residual::None)));
        let lengths: Vec<u32> = rig.sent(0).iter().map(|(b, _)| b.data_segment_length()).collect();
        assert_eq!(lengths, [512; 4], "{claimed}");
        rig.session.set_segment_lengths(0, None, Some(claimed));
        rig.ok(&command(0xc0, 4, 2, 1024));
        let slot = rig.delivered()[0];
        rig.session.send_data(slot, 0, 1024, true, Some(Finish::good(Residual::None)));
        assert_eq!(rig.sent(0).len(), 2);
    }
}

#[test]
fn what_a_snack_brings_comes_on_its_connection() {
    // 4.2.5.1: SNACKs, and the data and status that they generate, MUST use the same connection
    let mut rig = Rig::new(SessionParams { error_recovery_level: 1, ..params() });
    rig.connect(connection(0, 4096));
    rig.connect(connection(1, 4096));
    for (conn, tag) in [(0, 1), (1, 2)] {
        rig.feed(conn, &command(0xc0, tag, tag, 8192).bytes((false, false)), 48).expect("goes on");
        let slot = rig.delivered()[0];
        rig.session.send_data(slot, 0, 8192, true, None);
        rig.session.finish(slot, Finish { status: 2, ..Finish::default() });
        assert_eq!(rig.sent(conn).len(), 3);
    }
    // Data SNACK for DataSN 1, Status SNACK for StatSN 100
    let data = |tag| Pdu::new(0x10, 0x80).u32(16, tag).u32(20, NO_TAG).u32(28, 100).u32(40, 1).u32(44, 1);
    let status = Pdu::new(0x10, 0x81).u32(16, NO_TAG).u32(20, NO_TAG).u32(28, 100).u32(40, 100).u32(44, 1);
    for (conn, tag) in [(0, 1), (1, 2)] {
        rig.feed(conn, &data(tag).bytes((false, false)), 48).expect("goes on");
        rig.feed(conn, &status.bytes((false, false)), 48).expect("goes on");
        let again: Vec<(u8, u32)> = rig.sent(conn).iter().map(|(b, _)| (b.0[0], b.initiator_task_tag())).collect();
        assert_eq!(again, [(0x25, tag), (0x21, tag)]);
        assert!(rig.sent(1 - conn).is_empty());
        // and for a task of the other connection there is nothing
        rig.feed(conn, &data(3 - tag).bytes((false, false)), 48).expect("goes on");
        assert_eq!(rig.sent(conn)[0].0.0[0], 0x3f);
        assert!(rig.sent(1 - conn).is_empty());
    }
}

#[test]
fn data_is_not_asked_for_again_without_end() {
    // an initiator that leaves most of every sequence out costs a number each time
    for (used, goes_on) in [(5, true), ((1 << 31) - 2, true), ((1 << 31) - 1, false)] {
        let mut rig = Rig::new(SessionParams { error_recovery_level: 1, ..params() });
        rig.connect(connection(0, 4096));
        rig.ok(&command(0xa0, 3, 1, 10_000));
        let slot = rig.delivered()[0];
        rig.session.tasks[slot].data_in.data_sn = used;
        assert!(rig.session.solicit(slot, 0, 5000));
        let r2t = rig.sent(0)[0].0;
        assert_eq!(r2t.data_sn(), used);
        rig.ok(&data_out(true, 3, r2t.target_transfer_tag(), 0, 0, &[1; 1000]));
        let task = rig.session.task(slot).expect("there");
        assert_eq!(task.out.condition.is_none(), goes_on, "{used}");
        assert_eq!(rig.session.r2t_room(slot) > 0, goes_on, "{used}");
        assert!(rig.events().contains(&TargetEvent::DataOut(slot)), "so that it can be ended");
    }
}

#[test]
fn data_is_not_waited_for_again_without_end() {
    for (used, goes_on) in [(5, true), ((1 << 31) - 1, false)] {
        let mut rig = Rig::new(SessionParams { error_recovery_level: 1, ..params() });
        rig.connect(connection(0, 4096));
        rig.ok(&command(0xa0, 3, 1, 10_000));
        let slot = rig.delivered()[0];
        rig.session.tasks[slot].data_in.data_sn = used;
        assert!(rig.session.solicit(slot, 0, 5000));
        rig.session.tick(0, 5000).expect("goes on");
        assert_eq!(rig.session.task(slot).expect("there").out.condition.is_none(), goes_on, "{used}");
    }
}

#[test]
fn what_one_snack_asked_for_does_not_stand_back_for_the_next() {
    // several holes are asked for in one go; all SNACKs are here before anything is sent
    let mut rig = Rig::new(SessionParams { error_recovery_level: 1, ..params() });
    rig.connect(connection(0, 1000));
    rig.ok(&command(0xc0, 1, 1, 8000));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 8000, true, Some(Finish::good(Residual::None)));
    assert_eq!(rig.sent(0).len(), 8);
    let data =
        |from, length| Pdu::new(0x10, 0x80).u32(16, 1).u32(20, NO_TAG).u32(28, 100).u32(40, from).u32(44, length);
    let status = Pdu::new(0x10, 0x81).u32(16, NO_TAG).u32(20, NO_TAG).u32(28, 100).u32(40, 100).u32(44, 1);
    for pdu in [data(1, 1), data(3, 2), status.clone(), data(3, 2), status, data(1, 1)] {
        rig.ok(&pdu);
    }
    let mut again: Vec<u32> = rig.sent(0).iter().map(|(b, _)| b.data_sn()).collect();
    again.sort_unstable();
    assert_eq!(again, [1, 3, 4, 7], "each once");
}

#[test]
fn a_response_that_is_no_completion_has_neither_status_nor_exp_data_sn() {
    // 11.4.2: Status is reserved; 11.4.8: ExpDataSN MUST be 0 unless the command completed at the target
    for (response, expected) in [(0, (2, 2)), (1, (0, 0))] {
        let mut rig = Rig::simple();
        rig.ok(&command(0xc0, 3, 1, 8192));
        let slot = rig.delivered()[0];
        rig.session.send_data(slot, 0, 8192, true, None);
        rig.session.finish(slot, Finish { response, status: 2, ..Finish::default() });
        let last = rig.sent(0).pop().expect("the response").0;
        assert_eq!((last.0[0], last.0[2]), (0x21, response));
        assert_eq!((last.status(), last.exp_data_sn()), expected);
    }
}

#[test]
fn a_snack_tag_does_not_outlive_its_connection() {
    // 7.2.2: MUST be the default value again after a reassignment, which is 0 (11.4.4)
    let level_2 = SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() };
    let mut rig = Rig::new(level_2);
    rig.connect(connection(0, 4096));
    rig.connect(connection(1, 4096));
    rig.ok(&command(0xc0, 3, 1, 8192));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, 8192, true, None);
    rig.session.finish(slot, Finish { status: 2, ..Finish::default() });
    rig.sent(0);
    // R-Data SNACK with the tag 0x77
    rig.ok(&Pdu::new(0x10, 0x83).u32(16, 3).u32(20, 0x77).u32(28, 100));
    let tag = |sent: Vec<(Bhs, Payload)>| {
        let bhs = sent.into_iter().map(|(b, _)| b).find(|b| b.0[0] == 0x21).expect("the response");
        u32::from_be_bytes(bhs.0[20..24].try_into().expect("four bytes"))
    };
    assert_eq!(tag(rig.sent(0)), 0x77);
    rig.session.freeze_connection(0);
    assert_eq!(rig.session.rebind(slot, 1, 0), Ok(Rebound::Answered));
    assert_eq!(tag(rig.sent(1)), 0);
}
