//! Data-Out that is damaged, lost or late (RFC 7143 7.8, 7.9, 7.1.4.1), typed by hand.

use blockwire_wire::opcode::reject;

use super::*;

fn level_1(in_order: bool) -> Rig {
    let params = SessionParams {
        error_recovery_level: 1,
        data_pdu_in_order: in_order,
        data_sequence_in_order: in_order,
        max_outstanding_r2t: if in_order { 1 } else { 2 },
        ..params()
    };
    let mut rig = Rig::new(params);
    rig.connect(ConnectionParams { data_digest: true, ..connection(0, 4096) });
    rig
}

/// Asks for what is missing, as an engine does; gives the R2Ts: (R2TSN, tag, offset, length).
fn ask(rig: &mut Rig, slot: Slot, total: u32) -> Vec<(u32, u32, u32, u32)> {
    while rig.session.r2t_room(slot) > 0
        && let Some((offset, length)) = rig.session.next_to_solicit(slot, total)
    {
        assert!(rig.session.solicit(slot, offset, length));
    }
    let r2t = |b: &Bhs| (b.data_sn(), b.target_transfer_tag(), b.buffer_offset(), b.desired_data_transfer_length());
    rig.sent(0).iter().filter(|(b, _)| b.0[0] == 0x31).map(|(b, _)| r2t(b)).collect()
}

/// A write of 20,000 bytes in two R2Ts of which the initiator answers the first in PDUs of 2000 bytes.
fn start(rig: &mut Rig) -> (Slot, u32) {
    rig.ok(&command(0xa0, 3, 1, 20_000));
    let slot = rig.delivered()[0];
    let r2ts = ask(rig, slot, 20_000);
    assert_eq!((r2ts.len(), r2ts[0].0, r2ts[0].2, r2ts[0].3), (1, 0, 0, 20_000));
    (slot, r2ts[0].1)
}

fn byte(at: u32) -> u8 {
    (at / 3) as u8
}

fn piece(ttt: u32, sn: u32, offset: u32, length: u32, last: bool) -> Pdu {
    data_out(last, 3, ttt, sn, offset, &(offset..offset + length).map(byte).collect::<Vec<_>>())
}

fn whole(rig: &Rig, slot: Slot) {
    assert!(rig.session.task(slot).expect("there").out.received.contains(0, 20_000));
    assert!(rig.memory[&slot.0] == (0..20_000).map(byte).collect::<Vec<_>>());
}

#[test]
fn a_damaged_pdu_is_rejected_and_asked_for_again() {
    for in_order in [true, false] {
        let mut rig = level_1(in_order);
        let (slot, ttt) = start(&mut rig);
        for sn in 0..10 {
            let mut bytes = piece(ttt, sn, sn * 2000, 2000, sn == 9).bytes((false, true));
            if sn == 4 || sn == 9 {
                bytes[700] ^= 0x10;
            }
            rig.feed(0, &bytes, 333).expect("the connection goes on");
        }
        let rejects = rig.sent(0);
        // 7.8: MUST answer with a Reject that carries the header
        assert_eq!(rejects.len(), 2);
        for (bhs, data) in &rejects {
            assert_eq!((bhs.0[0], bhs.response()), (0x3f, reject::DATA_DIGEST_ERROR));
            assert!(matches!(data, Payload::Inline(bytes) if bytes.len() == 48 && bytes[0] == 0x05));
        }
        assert!(rig.events().contains(&TargetEvent::DataOut(slot)), "the sequence is over");
        assert_eq!(rig.session.task(slot).expect("there").out.condition, None);
        // 11.8: the next unused R2TSN, part of the burst; MaxOutstandingR2T holds for them as well (13.17)
        let mut r2ts = ask(&mut rig, slot, 20_000);
        if in_order {
            assert_eq!(r2ts.iter().map(|r| (r.0, r.2, r.3)).collect::<Vec<_>>(), [(1, 8000, 2000)]);
            rig.ok(&piece(r2ts[0].1, 0, 8000, 2000, true));
            r2ts = ask(&mut rig, slot, 20_000);
            assert_eq!(r2ts.iter().map(|r| (r.0, r.2, r.3)).collect::<Vec<_>>(), [(2, 18_000, 2000)]);
            rig.ok(&piece(r2ts[0].1, 0, 18_000, 2000, true));
        } else {
            assert_eq!(r2ts.iter().map(|r| (r.0, r.2, r.3)).collect::<Vec<_>>(), [(1, 8000, 2000), (2, 18_000, 2000)]);
            rig.ok(&piece(r2ts[1].1, 0, 18_000, 2000, true));
            rig.ok(&piece(r2ts[0].1, 0, 8000, 2000, true));
        }
        whole(&rig, slot);
        assert!(ask(&mut rig, slot, 20_000).is_empty());
        rig.session.finish(slot, Finish::default());
        let response = rig.sent(0)[0].0;
        assert_eq!((response.0[0], response.status(), response.exp_data_sn()), (0x21, 0, 0), "11.4.8: no Data-In");
    }
}

#[test]
fn a_lost_pdu_shows_by_its_number_and_is_asked_for_again() {
    let mut rig = level_1(true);
    let (slot, ttt) = start(&mut rig);
    for sn in [0, 1, 3, 4, 5, 8, 9] {
        rig.ok(&piece(ttt, sn, sn * 2000, 2000, sn == 9));
    }
    assert!(rig.sent(0).is_empty(), "7.9: addressed as in 7.8, with no Reject: nothing of what came is bad");
    let r2t = ask(&mut rig, slot, 20_000);
    assert_eq!((r2t[0].2, r2t[0].3), (4000, 2000));
    rig.ok(&piece(r2t[0].1, 0, 4000, 2000, true));
    let r2t = ask(&mut rig, slot, 20_000);
    assert_eq!((r2t[0].0, r2t[0].2, r2t[0].3), (2, 12_000, 4000));
    rig.ok(&piece(r2t[0].1, 0, 12_000, 1000, false));
    rig.ok(&piece(r2t[0].1, 0, 12_000, 1000, false)); // twice
    rig.ok(&piece(r2t[0].1, 1, 13_000, 3000, true));
    whole(&rig, slot);
}

#[test]
fn unsolicited_data_is_recovered_too() {
    let mut rig = level_1(true);
    rig.ok(&command(0x20, 3, 1, 20_000).with(&(0..1000).map(byte).collect::<Vec<_>>()));
    let slot = rig.delivered()[0];
    rig.ok(&piece(NO_TAG, 0, 1000, 1000, false));
    rig.ok(&piece(NO_TAG, 2, 3000, 1000, true));
    let r2t = ask(&mut rig, slot, 20_000);
    assert_eq!((r2t[0].0, r2t[0].2, r2t[0].3), (0, 2000, 1000));
    rig.ok(&piece(r2t[0].1, 0, 2000, 1000, true));
    let r2t = ask(&mut rig, slot, 20_000);
    assert_eq!((r2t[0].0, r2t[0].2, r2t[0].3), (1, 4000, 16_000));
    for sn in 0..4 {
        rig.ok(&piece(r2t[0].1, sn, 4000 + sn * 4000, 4000, sn == 3));
    }
    whole(&rig, slot);
}

#[test]
fn data_that_does_not_come_is_asked_for_after_a_timeout() {
    let mut rig = level_1(true);
    let (slot, ttt) = start(&mut rig);
    rig.ok(&piece(ttt, 0, 0, 2000, false));
    rig.events();
    let deadline = rig.session.deadline(0).expect("data is waited for");
    rig.session.tick(0, deadline - 1).expect("goes on");
    assert!(rig.sent(0).is_empty());
    rig.session.tick(0, deadline).expect("goes on");
    rig.drain();
    assert_eq!(rig.events(), [TargetEvent::DataOut(slot)]);
    let r2t = ask(&mut rig, slot, 20_000);
    assert_eq!((r2t[0].0, r2t[0].2, r2t[0].3), (1, 2000, 18_000));
    // the old one was only slow: it is too late
    rig.ok(&piece(ttt, 1, 2000, 2000, true));
    assert!(rig.sent(0).is_empty() && rig.events().is_empty());
    for sn in 0..9 {
        rig.ok(&piece(r2t[0].1, sn, 2000 + sn * 2000, 2000, sn == 8));
    }
    whole(&rig, slot);
    assert!(rig.session.deadline(0).is_some());
    rig.session.tick(0, u64::MAX / 2).expect("goes on");
    assert_eq!(rig.session.deadline(0), None, "nothing is waited for any more");
}

#[test]
fn a_task_whose_data_never_comes_ends() {
    let mut rig = level_1(true);
    let (slot, _) = start(&mut rig);
    for round in 1..=4 {
        let at = rig.session.deadline(0).expect("data is waited for");
        rig.session.tick(0, at).expect("goes on");
        let r2ts = ask(&mut rig, slot, 20_000);
        assert_eq!(r2ts.len(), usize::from(round < 4), "{round}");
    }
    assert_eq!(rig.session.task(slot).expect("there").out.condition, Some(Condition::ProtocolServiceCrcError), "7.8 b");
    rig.session.finish(slot, Finish { status: 2, ..Finish::default() });
    assert_eq!(rig.sent(0)[0].0.status(), 2, "its R2Ts are given up: nothing holds the response");
}

#[test]
fn asking_without_end_leads_nowhere() {
    let mut rig = level_1(true);
    let (slot, mut ttt) = start(&mut rig);
    let mut rounds = 0;
    loop {
        let mut bytes = piece(ttt, 0, 0, 2000, true).bytes((false, true));
        bytes[60] ^= 1;
        rig.feed(0, &bytes, 9000).expect("goes on");
        rounds += 1;
        assert!(rounds < 20);
        match ask(&mut rig, slot, 20_000).first() {
            Some(r2t) => ttt = r2t.1,
            None => break,
        }
    }
    assert_eq!(rig.session.task(slot).expect("there").out.condition, Some(Condition::ProtocolServiceCrcError));
}

#[test]
fn several_r2ts_are_answered_in_any_order() {
    let mut rig = Rig::new(SessionParams {
        error_recovery_level: 1,
        data_sequence_in_order: false,
        data_pdu_in_order: false,
        max_outstanding_r2t: 4,
        max_burst_length: 5000,
        ..params()
    });
    rig.connect(connection(0, 4096));
    rig.ok(&command(0xa0, 3, 1, 20_000));
    let slot = rig.delivered()[0];
    let r2ts = ask(&mut rig, slot, 20_000);
    assert_eq!(
        r2ts.iter().map(|r| (r.0, r.2, r.3)).collect::<Vec<_>>(),
        [(0, 0, 5000), (1, 5000, 5000), (2, 10_000, 5000), (3, 15_000, 5000)]
    );
    for i in [2, 0, 3, 1] {
        let (_, ttt, offset, _) = r2ts[i];
        // and the PDUs of each backwards
        rig.ok(&piece(ttt, 0, offset + 3000, 2000, false));
        rig.ok(&piece(ttt, 1, offset, 3000, true));
    }
    whole(&rig, slot);
}

#[test]
fn an_offset_that_is_out_of_place_is_no_loss() {
    let mut rig = level_1(true);
    let (slot, ttt) = start(&mut rig);
    rig.ok(&piece(ttt, 0, 2000, 2000, false));
    let task = rig.session.task(slot).expect("there");
    assert_eq!(task.out.condition, Some(Condition::ProtocolServiceCrcError), "11.8: continuous ranges");
}
