//! Both halves of recovery against each other: the target's own retransmission, losses both ways; the data is always compared.

use blockwire_proto::{FatalCode, SessionParams};
use blockwire_wire::{Bhs, Opcode};

use crate::faults::{Fate, Faults};
use crate::harness::Pair;
use crate::losses::{exchange, nth, params};

/// Strikes each PDU of a kind in its turn; after a connection is given up, things go on on another one.
fn each(level: u8, links: usize, fate: Fate, kind: fn(bool, Opcode) -> bool, least: u32) {
    let mut number = 0;
    loop {
        let (judge, seen) = nth(number, fate, kind);
        let mut pair = Pair::new(&params(level), crate::DISK);
        pair.faults = Some(Faults::new(false, judge));
        for _ in 0..links {
            pair.connect(520, 700, (true, true));
        }
        exchange(&mut pair, |pair| go_on(pair, level, &format!("{kind:p} {fate:?} {number}")));
        // a lost R2T may be asked for when the target gave it up for a recovery R2T
        let race = |what: &&str| what.starts_with("Data SNACK for numbers never sent or acknowledged");
        assert!(pair.violations.iter().all(race), "{number}: {:?}", pair.violations);
        if seen.get() <= number {
            break;
        }
        number += 1;
    }
    assert!(number >= least, "{number}");
}

fn go_on(pair: &mut Pair, level: u8, what: &str) {
    while let Err((fatal, at)) = pair.run_with_time() {
        assert!(level == 2, "{what}: {}", fatal.what);
        assert!(fatal.code != FatalCode::ProtocolViolation, "{what}: {}", fatal.what);
        let cid = pair.cut(at);
        pair.connect(600, 512, (true, true));
        pair.reassign(cid);
    }
}

#[test]
fn every_pdu_of_the_target() {
    for links in [1, 2] {
        for fate in [Fate::Lose, Fate::Twice] {
            each(1, links, fate, |down, _| down, 9);
        }
    }
    each(1, 1, Fate::SpoilData, |down, o| down && o == Opcode::DataIn, 5);
    each(2, 2, Fate::SpoilHeader, |down, _| down, 9);
}

#[test]
fn every_pdu_of_the_initiator() {
    for links in [1, 2] {
        each(1, links, Fate::Lose, |down, _| !down, 6);
    }
    each(1, 1, Fate::SpoilData, |down, o| !down && matches!(o, Opcode::DataOut | Opcode::ScsiCommand), 4);
    each(2, 2, Fate::SpoilHeader, |down, _| !down, 6);
}

/// R-Data SNACK (11.16.3): a piece is lost, and MaxRecvDataSegmentLength grows before it can be asked for.
#[test]
fn segments_that_grow_meanwhile() {
    let mut asked = 0;
    for number in 0..12 {
        for limit in (200..4000).step_by(173) {
            for again in [None, Some(number + 3)] {
                let (mut judge, _) = nth(number, Fate::Lose, |down, o| down && o == Opcode::DataIn);
                let (mut second, _) = nth(again.unwrap_or(u32::MAX - 1), Fate::Lose, |down, _| down);
                let mut pair = Pair::new(&params(1), crate::DISK);
                pair.faults = Some(Faults::new(false, move |down, bhs| match judge(down, bhs) {
                    Fate::Pass => second(down, bhs),
                    fate => fate,
                }));
                pair.connect(512, 700, (true, true));
                exchange(&mut pair, |pair| {
                    pair.run(limit).unwrap();
                    pair.resegment(0, 800);
                    go_on(pair, 1, &format!("{number} {limit} {again:?}"));
                });
                assert!(pair.violations.is_empty(), "{number} {limit}: {:?}", pair.violations);
                asked += pair.initiator.recovery_counters().snacks;
            }
        }
    }
    assert!(asked > 100, "{asked}");
}

/// All keys, several connections, three PDUs of ten struck, both ways.
#[test]
fn bad_lines() {
    let (mut hit, mut reassigned, mut retried, mut gave_up) = (0, 0, 0, 0);
    for seed in 0..300_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) % n
        };
        let sequences_in_order = random(3) == 0;
        let params = SessionParams {
            error_recovery_level: 2,
            initial_r2t: random(2) == 0,
            immediate_data: random(2) == 0,
            first_burst_length: 512 + random(1500) as u32,
            max_burst_length: 2048,
            // 13.19: 1 with DataSequenceInOrder=Yes above level 0
            max_outstanding_r2t: if sequences_in_order { 1 } else { 1 + random(4) as u32 },
            data_pdu_in_order: random(2) == 0,
            data_sequence_in_order: sequences_in_order,
            ..SessionParams::default()
        };
        let mut pair = Pair::new(&params, crate::DISK);
        for _ in 0..1 + random(3) {
            pair.connect(512 + random(600) as u32, 512 + random(600) as u32, (true, true));
        }
        pair.target.set_shuffle(if random(2) == 0 { seed + 1 } else { 0 });
        pair.target.set_soliciting(random(3) == 0);
        let headers = random(2) == 0;
        let mut left = 25;
        let judge = move |down: bool, bhs: &Bhs| {
            if left == 0 {
                return Fate::Pass;
            }
            let fate = match random(10) {
                0 => Fate::Lose,
                // the last data of a task comes again only when it was asked for again
                1 if down && bhs.flags() & 1 == 0 => Fate::Twice,
                2 if bhs.data_segment_length() > 0 => Fate::SpoilData,
                3 if headers => Fate::SpoilHeader,
                _ => Fate::Pass,
            };
            left -= u32::from(fate != Fate::Pass);
            fate
        };
        pair.faults = Some(Faults::new(false, judge));
        exchange(&mut pair, |pair| go_on(pair, 2, &format!("seed {seed}")));
        gave_up += pair.gave_up;
        hit += pair.faults.as_ref().map_or(0, |f| f.hit);
        reassigned += pair.initiator.recovery_counters().reassigned;
        retried += pair.initiator.recovery_counters().retried;
    }
    assert!(gave_up < 3, "{gave_up}");
    assert!(hit > 1500 && reassigned > 50 && retried > 50, "{hit} {reassigned} {retried}");
}
