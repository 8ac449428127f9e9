//! Single PDUs lost, repeated and spoiled on links that go on, every one of them; the data is always compared.

use std::cell::Cell;
use std::rc::Rc;

use blockwire_proto::{FatalCode, SessionParams};
use blockwire_wire::Opcode;

use crate::faults::{Fate, Faults};
use crate::harness::Pair;
use crate::{DISK, all_good, pattern};

pub fn params(level: u8) -> SessionParams {
    SessionParams {
        error_recovery_level: level,
        initial_r2t: false,
        first_burst_length: 600,
        max_burst_length: 1024,
        max_outstanding_r2t: 2,
        data_sequence_in_order: false,
        ..SessionParams::default()
    }
}

/// Writes and reads together over `links` links; fate strikes PDU number `strike` of a kind.
pub fn exchange(pair: &mut Pair, check: impl FnOnce(&mut Pair)) {
    pair.capacity = usize::MAX;
    pair.chunk = 48; // events are taken after every PDU
    pair.initiator.set_recovery_timeout(1_000_000);
    pair.disk = pattern(DISK, 9);
    let mut expected = pair.disk.clone();
    let data = pattern(2500, 4);
    expected[8000..10_500].copy_from_slice(&data);
    pair.write(8000, &data);
    pair.read(100, 2200);
    pair.read(20_000, 700);
    check(pair);
    if pair.gave_up > 0 {
        return;
    }
    all_good(pair, 3);
    let bad: Vec<usize> = (0..DISK).filter(|i| pair.disk[*i] != expected[*i]).collect();
    assert!(bad.is_empty(), "{:?} to {:?}", bad.first().map(|b| b - 8000), bad.last().map(|b| b - 8000));
    for (at, data) in &pair.reads {
        assert!(data[..] == expected[*at..*at + data.len()], "read at {at}");
    }
    assert_eq!(pair.initiator.unfinished(), 0);
}

/// The judge that strikes the `nth` PDU that `kind` names.
pub fn nth(
    nth: u32, fate: Fate, kind: fn(bool, Opcode) -> bool,
) -> (impl FnMut(bool, &blockwire_wire::Bhs) -> Fate, Rc<Cell<u32>>) {
    let seen = Rc::new(Cell::new(0));
    let count = Rc::clone(&seen);
    let judge = move |down, bhs: &blockwire_wire::Bhs| {
        if !bhs.opcode().is_some_and(|o| kind(down, o)) {
            return Fate::Pass;
        }
        count.set(count.get() + 1);
        // the last data of a task comes again only when it was asked for again
        let last = bhs.opcode() == Some(Opcode::DataIn) && bhs.flags() & 1 != 0;
        if count.get() == nth + 1 && !(last && fate == Fate::Twice) { fate } else { Fate::Pass }
    };
    (judge, seen)
}

fn everything_down(down: bool, _: Opcode) -> bool {
    down
}

#[test]
fn every_pdu_of_the_target_is_lost_or_repeated_once() {
    for links in [1, 2] {
        for fate in [Fate::Lose, Fate::Twice] {
            let mut number = 0;
            loop {
                let (judge, seen) = nth(number, fate, everything_down);
                let mut pair = Pair::new(&params(1), DISK);
                pair.faults = Some(Faults::new(true, judge));
                for _ in 0..links {
                    pair.connect(520, 700, (true, true));
                }
                exchange(&mut pair, |pair| pair.run_with_time().unwrap());
                if seen.get() <= number {
                    break;
                }
                number += 1;
            }
            assert!(number >= 9, "{number}");
        }
    }
}

#[test]
fn commands_and_what_asks_for_lost_ones_are_lost() {
    let kinds: [fn(bool, Opcode) -> bool; 2] =
        [|down, o| !down && o == Opcode::ScsiCommand, |down, o| !down && matches!(o, Opcode::Snack | Opcode::NopOut)];
    for kind in kinds {
        for number in 0..3 {
            for lost_down in 0..6 {
                let (mut up, _) = nth(number, Fate::Lose, kind);
                let (mut down, _) = nth(lost_down, Fate::Lose, everything_down);
                let mut pair = Pair::new(&params(1), DISK);
                // a write's unsolicited data cannot be missed without the target's own recovery
                pair.faults = Some(Faults::new(true, move |way, bhs| match up(way, bhs) {
                    Fate::Pass => down(way, bhs),
                    fate if bhs.flags() & 0x20 != 0 && bhs.opcode() == Some(Opcode::ScsiCommand) => {
                        let _ = fate;
                        Fate::Pass
                    }
                    fate => fate,
                }));
                pair.connect(520, 700, (false, false));
                exchange(&mut pair, |pair| pair.run_with_time().unwrap());
            }
        }
    }
}

#[test]
fn data_spoiled_on_its_way() {
    let mut number = 0;
    loop {
        let (judge, seen) = nth(number, Fate::SpoilData, |down, o| down && o == Opcode::DataIn);
        let mut pair = Pair::new(&params(1), DISK);
        pair.faults = Some(Faults::new(true, judge));
        pair.connect(512, 700, (true, true));
        exchange(&mut pair, |pair| pair.run_with_time().unwrap());
        if seen.get() <= number {
            break;
        }
        assert_eq!(pair.initiator.recovery_counters().digest_errors, 1);
        number += 1;
    }
    assert!(number >= 7, "{number}");
}

/// A header that is spoiled ends the connection (RFC 7143 7.7); at level 2 everything goes on on another one.
#[test]
fn headers_spoiled_on_their_way() {
    for both in [false, true] {
        let mut number = 0;
        loop {
            let (judge, seen) = nth(number, Fate::SpoilHeader, everything_down);
            let mut pair = Pair::new(&params(2), DISK);
            pair.faults = Some(Faults::new(true, judge));
            pair.connect(520, 700, (true, true));
            if both {
                pair.connect(520, 700, (true, true));
            }
            exchange(&mut pair, |pair| {
                while let Err((fatal, at)) = pair.run_with_time() {
                    assert_eq!(fatal.code, FatalCode::HeaderDigest, "{}", fatal.what);
                    let cid = pair.cut(at);
                    pair.connect(600, 512, (true, false));
                    pair.reassign(cid);
                }
            });
            if seen.get() <= number {
                break;
            }
            number += 1;
        }
        assert!(number >= 9, "{number}");
    }
}

/// Three PDUs of ten are lost, spoiled or repeated; what cannot be recovered within its connection is on the next.
#[test]
fn a_bad_line() {
    let (mut hit, mut snacks, mut reassigned) = (0, 0, 0);
    for seed in 0..150_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x14057b7ef767814f);
            (state >> 33) % n
        };
        let links = 1 + seed % 3;
        let mut left = 30;
        let judge = move |down: bool, bhs: &blockwire_wire::Bhs| {
            let harmless = down || matches!(bhs.opcode(), Some(Opcode::Snack | Opcode::NopOut));
            if !harmless || left == 0 {
                return Fate::Pass;
            }
            let fate = match random(10) {
                0 => Fate::Lose,
                // the last data of a task comes again only when it was asked for again
                1 if down && bhs.flags() & 1 == 0 => Fate::Twice,
                2 if down => Fate::SpoilData,
                _ => Fate::Pass,
            };
            left -= u32::from(fate != Fate::Pass);
            fate
        };
        let mut pair = Pair::new(&params(2), DISK);
        pair.faults = Some(Faults::new(true, judge));
        for _ in 0..links {
            pair.connect(512, 700, (true, true));
        }
        exchange(&mut pair, |pair| {
            while let Err((fatal, at)) = pair.run_with_time() {
                let known = matches!(fatal.code, FatalCode::SequenceGap | FatalCode::KeepAliveTimeout);
                assert!(known, "{seed}: {}", fatal.what);
                let cid = pair.cut(at);
                pair.connect(600, 512, (true, true));
                pair.reassign(cid);
            }
        });
        hit += pair.faults.as_ref().map_or(0, |f| f.hit);
        snacks += pair.initiator.recovery_counters().snacks;
        reassigned += pair.initiator.recovery_counters().reassigned;
    }
    assert!(hit > 500 && snacks > 300 && reassigned > 0, "{hit} {snacks} {reassigned}");
}
