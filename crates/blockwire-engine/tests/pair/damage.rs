//! Single bits turned over on the way, through both engines: a spoiled payload is recovered within the connection (RFC 7143
//! 7.8), a spoiled header ends it (7.7) and the tasks go on on another one; the data is always compared.

use blockwire_engine::calls::{Change, ReleaseMode};

use crate::harness::Pair;
use crate::{DISK, pattern, recoverable};

/// What happened to the tasks of one run.
#[derive(Default)]
struct Seen {
    lost: u32,
    snacks: u64,
}

fn count(pair: &Pair, name: &str) -> u64 {
    let all = pair.plane.statistics();
    all.iter().flat_map(|(_, list)| list).filter(|(n, _)| *n == name).map(|(_, value)| *value).sum()
}

/// A write and a read in flight with one byte spoiled `at` bytes from here on.
fn spoiled(up: bool, at: u64, seen: &mut Seen) {
    let mut pair = Pair::new(&recoverable(), DISK);
    let before = pattern(16 * 512, 1);
    pair.connect(700, 520, (true, true), None);
    let token = pair.write(100, &before);
    pair.settle();
    pair.good(token);
    let op = pair.plane.configure(pair.initiator, None, vec![Change::RecoveryTimeout(20_000_000)]);
    pair.finish(op);
    if let Some(end) = &pair.end {
        let mut pipe = if up { end.outgoing() } else { end.incoming() };
        let position = pipe.delivered + at;
        pipe.damage.push((position, 0x10));
    }
    let data = pattern(12 * 512, 7);
    let write = pair.write(200, &data);
    let read = pair.read(100, before.len());
    for _ in 0..20_000 {
        pair.step();
        if pair.done.len() == 2 {
            break;
        }
        if let Some(&(session, cid)) = pair.lost.first() {
            assert_eq!(cid, 1, "the second link is clean");
            seen.lost += 1;
            for other in [pair.initiator, pair.target] {
                if other != session {
                    pair.plane.release(other, 1, ReleaseMode::Freeze);
                }
            }
            pair.settle();
            pair.lost.clear();
            pair.connect(8192, 2000, (true, true), Some(1));
        }
    }
    pair.good(write);
    assert!(pair.good(read)[..] == before[..], "{at}");
    assert!(pair.stored(200 * 512, data.len() as u32) == data, "{at}");
    seen.snacks += count(&pair, "snacks_sent");
}

#[test]
fn one_spoiled_bit() {
    for up in [true, false] {
        let mut seen = Seen::default();
        for at in (1..8000).step_by(97) {
            spoiled(up, at, &mut seen);
        }
        assert!(seen.lost > 0, "headers end the connection");
        assert!(up || seen.snacks > 40, "{}", seen.snacks);
    }
}
