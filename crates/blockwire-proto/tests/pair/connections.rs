//! Sessions of several connections of which some are lost: commands, data and status of all of them on the way, in any order
//! between the connections (RFC 7143 4.2.2, 7.2); the data is always compared and every task completes exactly once.

use blockwire_proto::SessionParams;

use crate::harness::Pair;
use crate::{DISK, all_good, pattern};

fn params(max_outstanding_r2t: u32) -> SessionParams {
    SessionParams {
        error_recovery_level: 2,
        initial_r2t: false,
        first_burst_length: 600,
        max_burst_length: 1024,
        max_outstanding_r2t,
        data_pdu_in_order: false,
        data_sequence_in_order: false,
        ..SessionParams::default()
    }
}

/// What is lost, and when.
struct Loss<'a> {
    /// Links that go at once, by index (highest first).
    victims: &'a [usize],
    /// Bytes that all links delivered before.
    after: usize,
    /// A link takes their place; otherwise the last that is left does.
    replaced: bool,
    /// Bytes after which the link that took their place is lost too.
    again: Option<usize>,
}

/// Five tasks over three links. False: they were over before the loss.
fn lose(loss: &Loss<'_>, order: u64, shuffle: u64) -> bool {
    let mut pair = Pair::new(&params(1 + (order % 3) as u32), DISK);
    (pair.capacity, pair.chunk, pair.order) = (250, 90, order);
    pair.target.set_shuffle(shuffle);
    pair.disk = pattern(DISK, 9);
    let mut expected = pair.disk.clone();
    pair.connect(700, 520, (false, false));
    pair.connect(512, 512, (true, true));
    pair.connect(1000, 600, (false, true));
    for (i, (at, len)) in [(8000, 1900), (20_000, 700), (30_000, 16)].into_iter().enumerate() {
        let data = pattern(len, 4 + i);
        expected[at..at + len].copy_from_slice(&data);
        pair.write(at, &data);
    }
    pair.read(100, 2200);
    pair.read(50_000, 700);
    if pair.run(loss.after).unwrap() {
        all_good(&pair, 5);
        return false;
    }
    let gone: Vec<u16> = loss.victims.iter().map(|at| pair.cut(*at)).collect();
    if loss.replaced {
        pair.connect(512, 2048, (true, true));
    }
    for cid in &gone {
        pair.reassign(*cid);
    }
    if let Some(again) = loss.again {
        let now = pair.delivered();
        if !pair.run(now + again).unwrap() {
            let cid = pair.cut(pair.links.len() - 1);
            pair.connect(4096, 600, (false, true));
            pair.reassign(cid);
        }
    }
    if let Err((fatal, at)) = pair.run_with_time() {
        panic!("link {at}: {} (after {}, order {order})", fatal.what, loss.after);
    }
    all_good(&pair, 5);
    assert!(pair.disk == expected, "after {} order {order}", loss.after);
    for (at, data) in &pair.reads {
        assert!(data[..] == expected[*at..*at + data.len()], "read at {at}, after {} order {order}", loss.after);
    }
    assert_eq!(pair.initiator.unfinished(), 0);
    assert!(pair.violations.is_empty(), "{:?} after {} order {order}", pair.violations, loss.after);
    true
}

#[test]
fn each_of_three_at_any_byte() {
    for victim in 0..3 {
        for replaced in [false, true] {
            for order in [0, 77] {
                let mut after = 0;
                while lose(&Loss { victims: &[victim], after, replaced, again: None }, order, 0) {
                    after += 29;
                }
                assert!(after > 5000, "{after}");
            }
        }
    }
}

#[test]
fn two_of_three_and_all_of_them_at_once() {
    for victims in [&[1, 0][..], &[2, 1], &[2, 0], &[2, 1, 0]] {
        let mut after = 0;
        while lose(&Loss { victims, after, replaced: true, again: None }, 5 + after as u64, after as u64) {
            after += 79;
        }
    }
}

#[test]
fn again_while_tasks_are_moved() {
    for after in (100..6000).step_by(463) {
        for again in (0..3000).step_by(271) {
            let order = (after * 31 + again) as u64;
            lose(
                &Loss { victims: &[after % 3], after, replaced: again % 2 == 0, again: Some(again) },
                order,
                order % 5,
            );
        }
    }
}
