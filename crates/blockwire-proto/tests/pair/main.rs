//! Both ends of the protocol crate against each other, without engine, threads or clock; the data is always compared.

mod both_halves;
mod connections;
mod faults;
mod harness;
mod losses;

use blockwire_proto::SessionParams;
use blockwire_proto::initiator::Outcome;
use harness::{BLOCK, Pair};

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 97 + seed * 5) as u8).collect()
}

fn all_good(pair: &Pair, count: usize) {
    assert_eq!(pair.outcomes.len(), count, "{:?}", pair.outcomes);
    for outcome in &pair.outcomes {
        assert!(matches!(outcome, Outcome::Status { status: 0, residual: 0, .. }), "{outcome:?}");
    }
}

const DISK: usize = 64 * 1024;

/// Three writes beside each other, then three reads that cover them.
fn exchange(pair: &mut Pair, sizes: [usize; 3]) {
    let mut expected = pair.disk.clone();
    let mut at = BLOCK;
    for (i, len) in sizes.into_iter().enumerate() {
        let data = pattern(len, i + 1);
        pair.write(at, &data);
        expected[at..at + len].copy_from_slice(&data);
        at += len;
    }
    assert!(pair.run(usize::MAX).unwrap());
    assert!(pair.disk == expected);
    for start in [0, at / 2, at - sizes[2]] {
        pair.read(start, sizes[0] + sizes[2]);
    }
    assert!(pair.run(usize::MAX).unwrap());
    all_good(pair, 6);
    for (start, data) in &pair.reads {
        assert!(data[..] == expected[*start..*start + data.len()], "read at {start}");
    }
    assert_eq!(pair.initiator.unfinished(), 0);
}

#[test]
fn every_combination_of_the_keys() {
    for initial_r2t in [true, false] {
        for immediate_data in [true, false] {
            for (first, burst, segment_up, segment_down) in [
                (512, 512, 512, 512),
                (700, 1500, 513, 519),
                (4096, 4096, 8192, 8192),
                (1024, 65_536, 600, 4096),
                (65_536, 262_144, 65_536, 65_536),
            ] {
                for (r2ts, in_order) in [(1, true), (4, true), (3, false)] {
                    for (digests, chunk) in [((false, false), usize::MAX), ((true, true), 7), ((true, false), 1000)] {
                        let params = SessionParams {
                            initial_r2t,
                            immediate_data,
                            first_burst_length: first,
                            max_burst_length: burst,
                            max_outstanding_r2t: r2ts,
                            data_pdu_in_order: in_order,
                            data_sequence_in_order: in_order,
                            ..SessionParams::default()
                        };
                        let mut pair = Pair::new(&params, DISK);
                        pair.connect(segment_down, segment_up, digests);
                        pair.chunk = chunk;
                        exchange(&mut pair, [1, 3333, 5000]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_window_of_eight_carries_any_number() {
    let mut pair = Pair::new(&SessionParams::default(), DISK);
    pair.connect(8192, 8192, (false, false));
    for i in 0..200 {
        pair.write(i * 64, &pattern(64, i));
    }
    assert!(pair.run(usize::MAX).unwrap());
    all_good(&pair, 200);
    for i in 0..200 {
        assert!(pair.disk[i * 64..i * 64 + 64] == pattern(64, i));
    }
}

#[test]
fn commands_spread_over_connections_arrive_in_order() {
    let params = SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..SessionParams::default() };
    let mut pair = Pair::new(&params, DISK);
    for _ in 0..3 {
        pair.connect(1000, 1000, (true, true));
    }
    pair.chunk = 100;
    exchange(&mut pair, [2000, 4000, 3000]);
}

fn recoverable(immediate_data: bool, initial_r2t: bool) -> SessionParams {
    SessionParams {
        error_recovery_level: 2,
        immediate_data,
        initial_r2t,
        first_burst_length: 600,
        max_burst_length: 1024,
        max_outstanding_r2t: 2,
        data_sequence_in_order: false,
        ..SessionParams::default()
    }
}

/// A write and a read in flight, the link lost after `cut` bytes, and once more after `again` bytes on the next link, which has
/// other segment lengths and digests. False: it was over before the first cut.
fn lost(params: &SessionParams, cut: usize, again: Option<usize>) -> bool {
    let mut pair = Pair::new(params, DISK);
    pair.capacity = 300;
    pair.chunk = 120;
    pair.disk = pattern(DISK, 9);
    let mut expected = pair.disk.clone();
    let data = pattern(2500, 4);
    expected[8000..10_500].copy_from_slice(&data);
    pair.connect(700, 520, (false, false));
    pair.write(8000, &data);
    pair.read(100, 2200);
    if pair.run(cut).unwrap() {
        all_good(&pair, 2);
        return false;
    }
    let cid = pair.cut(0);
    pair.connect(512, 2048, (true, true));
    pair.reassign(cid);
    if let Some(again) = again
        && !pair.run(again).unwrap()
    {
        let cid = pair.cut(0);
        pair.connect(4096, 600, (false, true));
        pair.reassign(cid);
    }
    assert!(pair.run(usize::MAX).unwrap());
    all_good(&pair, 2);
    assert!(pair.disk == expected);
    assert!(pair.reads[0].1[..] == expected[100..2300]);
    assert_eq!(pair.initiator.unfinished(), 0);
    true
}

#[test]
fn every_byte_is_a_place_to_lose_the_connection() {
    for immediate_data in [true, false] {
        for initial_r2t in [true, false] {
            let params = recoverable(immediate_data, initial_r2t);
            // one exchange at every byte, the others at every seventh
            let step = if immediate_data && !initial_r2t { 1 } else { 7 };
            let mut cut = 0;
            while lost(&params, cut, None) {
                cut += step;
            }
            assert!(cut > 4700, "{cut}");
        }
    }
}

#[test]
fn twice_in_a_row() {
    let params = recoverable(true, false);
    for cut in (0..4700).step_by(131) {
        for again in (0..2500).step_by(173) {
            lost(&params, cut, Some(again));
        }
    }
}
