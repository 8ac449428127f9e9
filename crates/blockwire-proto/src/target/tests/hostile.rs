//! Whatever a peer sends: no panic, bounded memory, and an orderly exchange that does not depend on how bytes arrive.

use proptest::prelude::*;

use super::*;

fn any_pdu() -> impl Strategy<Value = Pdu> {
    let opcode = prop_oneof![
        4 => Just(0x01_u8), 4 => Just(0x05), 1 => Just(0x00), 1 => Just(0x02), 1 => Just(0x04), 1 => Just(0x06),
        3 => Just(0x10), 1 => Just(0x41), 1 => Just(0x40), 1 => any::<u8>(),
    ];
    let flags = prop_oneof![Just(0x81_u8), Just(0xc1), Just(0xa1), Just(0x21), Just(0xe1), any::<u8>()];
    let tag = prop_oneof![8 => 0..6_u32, 1 => Just(NO_TAG), 1 => any::<u32>()];
    let number = prop_oneof![8 => 0..12_u32, 1 => any::<u32>()];
    let length = prop_oneof![6 => 0..600_usize, 1 => Just(8192)];
    (opcode, flags, tag, 0..8_u32, number.clone(), number, prop_oneof![0..3000_u32, any::<u32>()], length).prop_map(
        |(opcode, flags, itt, ttt, cmd_sn, sn, word, length)| {
            let ttt = if ttt == 7 { NO_TAG } else { ttt };
            let twenty = if opcode & 0x3f == 1 { word } else { ttt };
            Pdu::new(opcode, flags)
                .u32(16, itt)
                .u32(20, twenty)
                .u32(24, cmd_sn)
                .u32(28, 100)
                .u32(36, sn)
                .u32(40, word)
                .with(&vec![0x5a; length])
        },
    )
}

/// Acts like an engine: answers commands in one way or another, chosen by `choice`.
fn act(rig: &mut Rig, choice: u8) {
    for event in rig.events() {
        match event {
            TargetEvent::Command(slot) | TargetEvent::DataOut(slot) => {
                if choice > 200 {
                    rig.session.forget_data(slot);
                }
                let Some(task) = rig.session.task(slot) else {
                    continue;
                };
                let (write, read) = (task.expected_write(), task.expected_read());
                match choice % 7 {
                    0 => {
                        rig.session.finish(slot, Finish { status: 2, sense: vec![0; 18], ..Default::default() });
                    }
                    1 if read > 0 => {
                        let n = read.min(10_000);
                        rig.session.send_data(slot, 0, n, true, Some(Finish::good(Residual::None)));
                    }
                    2 if write > 0 => {
                        let gap = task.out.received.first_gap(0, u64::from(write));
                        if let Some((from, to)) = gap {
                            rig.session.solicit(slot, from as u32, ((to - from) as u32).min(262_144));
                        } else {
                            rig.session.finish(slot, Finish::default());
                        }
                    }
                    3 => {
                        rig.session.abort_task(slot);
                    }
                    5 if read > 0 => rig.session.send_data(slot, 0, read.min(5000), false, None),
                    4 => {
                        rig.session.set_effects(slot, true, false);
                        rig.session.finish(slot, Finish::default());
                    }
                    _ => {}
                }
            }
            TargetEvent::Control(slot) => {
                if !choice.is_multiple_of(3) {
                    rig.session.respond_control(slot, Bhs::default(), vec![1; 40]);
                } else {
                    rig.session.abort_task(slot);
                }
            }
            _ => {}
        }
        rig.drain();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_pdus_is_survived(
        steps in prop::collection::vec((any_pdu(), any::<u8>(), 0..2_usize, any::<bool>()), 1..60),
        level in 0..3_u8, in_order in any::<bool>(), initial_r2t in any::<bool>(), seed in 0..3_u64,
    ) {
        let session = SessionParams {
            error_recovery_level: level, data_pdu_in_order: in_order, initial_r2t, first_burst_length: 1024, ..params()
        };
        let mut rig = Rig::new(session);
        rig.session.set_soliciting(true);
        rig.session.set_shuffle(seed);
        rig.connect(connection(0, 512));
        rig.connect(connection(1, 4096));
        let mut alive = [true; 2];
        for (pdu, choice, conn, read_answers) in steps {
            if !alive[conn] {
                continue;
            }
            if rig.feed(conn, &pdu.bytes((false, false)), 4096).is_err() {
                alive[conn] = false;
                if choice % 2 == 0 {
                    rig.session.remove_connection(conn);
                } else {
                    rig.session.freeze_connection(conn);
                    let frozen: Vec<Slot> = rig.session.frozen_tasks().map(|(slot, _)| slot).collect();
                    for slot in frozen {
                        if alive[1 - conn] {
                            let _ = rig.session.rebind(slot, 1 - conn, u32::from(choice % 3));
                        }
                    }
                }
                rig.drain();
                continue;
            }
            act(&mut rig, choice);
            if choice % 32 == 7 {
                let at = rig.session.deadline(conn).unwrap_or(0);
                prop_assert!(rig.session.tick(conn, at).is_ok());
                rig.drain();
            }
            if read_answers {
                for (bhs, _) in rig.sent(conn) {
                    // 11.17.1: of the reasons 0x0b MUST NOT be used, and 0x01 and those from 0x0d on are none
                    let reason = bhs.response();
                    prop_assert!(bhs.0[0] != 0x3f || matches!(reason, 0x02..=0x0a | 0x0c), "reason {reason:#04x}");
                }
            }
            // 8 in the window, 2 immediate, and those that answered but were not read or acknowledged
            prop_assert!(rig.session.tasks().count() <= 8 * 5 + 10 + 200);
            let numbers = rig.session.numbers();
            prop_assert!(numbers.max_cmd_sn.wrapping_sub(numbers.exp_cmd_sn).wrapping_add(1) <= 8);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000), cut in 1..100_usize) {
        let mut rig = Rig::simple();
        let _ = rig.feed(0, &bytes, cut);
    }

    #[test]
    fn arrival_in_pieces_changes_nothing(
        pdus in prop::collection::vec((any_pdu(), any::<u8>()), 1..30), cut in 1..400_usize,
    ) {
        let run = |cut: usize| {
            let mut rig = Rig::simple();
            let mut log = Vec::new();
            for (pdu, choice) in &pdus {
                if let Err(fatal) = rig.feed(0, &pdu.bytes((false, false)), cut) {
                    log.push(format!("{fatal:?}"));
                    break;
                }
                log.push(format!("{:?}", rig.events));
                act(&mut rig, *choice);
                log.push(format!("{:?}", rig.sent(0)));
            }
            log
        };
        prop_assert_eq!(run(cut), run(usize::MAX));
    }
}

#[test]
fn rejects_that_nobody_reads_end_the_connection() {
    let mut rig = Rig::simple();
    let mut count = 0;
    while rig.send(&Pdu::new(0x1c, 0x80)).is_ok() {
        count += 1;
        assert!(count < 100);
    }
    assert_eq!(count, 8);
}

#[test]
fn a_peer_that_reads_nothing_gets_no_wider_window() {
    let mut rig = Rig::simple();
    let mut done = 0;
    for sn in 1..1000 {
        rig.ok(&command(0xc0, sn, sn, 0));
        for slot in rig.delivered() {
            rig.session.finish(slot, Finish::default());
            done += 1;
        }
    }
    assert!(done <= 8 * 4 + 8, "{done}");
    assert!(rig.session.send_queue(0).len() <= 8 * 4 + 8);
    // once it reads, it is told that it may go on
    let sent = rig.sent(0);
    let nop = rig.sent(0);
    let widest = sent.iter().chain(&nop).map(|(b, _)| b.max_cmd_sn()).max().expect("some");
    assert_eq!(widest, done + 8);
}
