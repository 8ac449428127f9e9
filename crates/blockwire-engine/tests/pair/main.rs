//! Both roles of the engine against each other, stepped; the data is always compared.

mod damage;
mod harness;

use blockwire_proto::SessionParams;
use harness::Pair;

const DISK: u64 = 4 << 20;

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 97 + seed * 5) as u8).collect()
}

/// Writes and reads of several sizes in flight together.
fn exchange(pair: &mut Pair) {
    let sizes = [512, 4096, 1536, 65_536, 300 * 512];
    let mut lba = 3;
    let mut writes = Vec::new();
    for (i, len) in sizes.into_iter().enumerate() {
        let data = pattern(len, i);
        writes.push((pair.write(lba, &data), lba, data));
        lba += (len / 512) as u64;
    }
    pair.settle();
    let mut reads = Vec::new();
    for (token, lba, data) in writes {
        pair.good(token);
        assert!(pair.stored(lba * 512, data.len() as u32) == data, "{} bytes at {lba} in the store", data.len());
        reads.push((pair.read(lba, data.len()), data));
    }
    let all = pair.read(0, 600 * 512);
    pair.settle();
    for (token, data) in &reads {
        assert!(pair.good(*token)[..] == data[..], "{} bytes read", data.len());
    }
    let everything: Vec<u8> = reads.into_iter().flat_map(|(_, data)| data).collect();
    let got = pair.good(all);
    assert!(got[..1536].iter().all(|b| *b == 0));
    assert!(got[1536..1536 + everything.len()] == everything);
    assert!(pair.lost.is_empty() && pair.other.is_empty(), "{:?}", pair.other);
}

#[test]
fn every_combination_of_the_keys() {
    for initial_r2t in [true, false] {
        for immediate_data in [true, false] {
            for (first, burst, up, down) in
                [(512, 512, 512, 512), (1000, 5000, 513, 700), (65_536, 262_144, 262_144, 262_144)]
            {
                for (r2ts, digests, chunk) in
                    [(1, (false, false), usize::MAX), (4, (true, true), 1000), (2, (false, true), 70)]
                {
                    let params = SessionParams {
                        initial_r2t,
                        immediate_data,
                        first_burst_length: first,
                        max_burst_length: burst,
                        max_outstanding_r2t: r2ts,
                        ..SessionParams::default()
                    };
                    let mut pair = Pair::new(&params, DISK);
                    pair.chunk = chunk;
                    pair.capacity = if chunk < 100 { 5000 } else { 100_000 };
                    pair.connect(down, up, digests, None);
                    exchange(&mut pair);
                }
            }
        }
    }
}

fn recoverable() -> SessionParams {
    SessionParams {
        error_recovery_level: 2,
        initial_r2t: false,
        first_burst_length: 1024,
        max_burst_length: 4096,
        data_sequence_in_order: false,
        max_outstanding_r2t: 2,
        ..SessionParams::default()
    }
}

/// A write and a read in flight when the link is lost after `up` or `down` bytes; they go on on a link with other segment
/// lengths and digests. False: both were over before.
fn lost(up: Option<u64>, down: Option<u64>) -> bool {
    let mut pair = Pair::new(&recoverable(), DISK);
    let before = pattern(16 * 512, 1);
    let token = {
        pair.connect(700, 520, (false, false), None);
        pair.write(100, &before)
    };
    pair.settle();
    pair.good(token);
    if let Some(end) = &pair.end {
        let cut = |pipe: &mut blockwire_engine::memory_pair::Pipe, after: Option<u64>| {
            pipe.cut_after = after.map(|n| pipe.delivered + n);
            pipe.chunk = 300;
            pipe.capacity = 1000;
        };
        cut(&mut end.outgoing(), up);
        cut(&mut end.incoming(), down);
    }
    let data = pattern(12 * 512, 7);
    let write = pair.write(200, &data);
    let read = pair.read(100, before.len());
    pair.settle();
    let over = pair.lost.is_empty();
    if !over {
        // one end may not have noticed: the control plane drops both before it logs in anew
        for session in [pair.initiator, pair.target] {
            if !pair.lost.contains(&(session, 1)) {
                pair.plane.release(session, 1, blockwire_engine::calls::ReleaseMode::Freeze);
            }
        }
        pair.settle();
        pair.connect(8192, 2000, (true, true), Some(1));
        pair.settle();
    }
    pair.good(write);
    assert!(pair.good(read)[..] == before[..]);
    assert!(pair.stored(200 * 512, data.len() as u32) == data);
    !over
}

#[test]
fn tasks_go_on_on_a_connection_with_another_segment_length() {
    for at in (1..6900).step_by(61) {
        lost(Some(at), None);
    }
    for at in (1..9500).step_by(61) {
        lost(None, Some(at));
    }
    assert!(!lost(None, None));
}
