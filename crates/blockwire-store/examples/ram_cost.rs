//! What `submit` of a RAM store costs beyond the copy itself: nanoseconds per operation, for a store and for the
//! bare copy. `cargo run --release -p blockwire-store --example ram_cost`
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use blockwire_store::{CompletionSink, IoVecs, Op, OpenOptions, Outcome, Submitted, open};

struct Nobody;
impl CompletionSink for Nobody {
    fn complete(&self, _: &[(u64, Outcome)]) {}
}

fn main() {
    let size = 64u64 << 20;
    let options = OpenOptions { create_size: Some(size), ..OpenOptions::default() };
    let store = open("ram", "", &options, &BTreeMap::new(), &[]).unwrap();
    let sink: Arc<dyn CompletionSink> = Arc::new(Nobody);
    let base = store.mapping().unwrap().base.as_ptr();
    // SAFETY: the whole mapping, touched once before measuring.
    unsafe { std::ptr::write_bytes(base, 1, size as usize) };
    for block in [8usize, 512, 4096, 65_536] {
        let mut buffer = vec![0u8; block];
        let rounds = (200_000_000 / (block + 200)).min(2_000_000) as u64;
        let place = |round: u64| round.wrapping_mul(7_919) % (size / block as u64) * block as u64;
        for write in [false, true] {
            let started = Instant::now();
            for round in 0..rounds {
                // SAFETY: `buffer` outlives the operation, which is done when `submit` returns.
                let list = unsafe { IoVecs::single(buffer.as_mut_ptr(), block) };
                let offset = place(round);
                let op =
                    if write { Op::Write { offset, src: list, fua: false } } else { Op::Read { offset, dst: list } };
                assert!(matches!(store.submit(black_box(op), round, &sink), Submitted::Done(Ok(()))));
            }
            let through = started.elapsed().as_nanos() as f64 / rounds as f64;
            let started = Instant::now();
            for round in 0..rounds {
                // SAFETY: `place` stays inside the mapping; nothing else uses it or the buffer.
                unsafe {
                    let there = base.add(place(round) as usize);
                    let (from, to) =
                        if write { (buffer.as_ptr(), there) } else { (there.cast_const(), buffer.as_mut_ptr()) };
                    std::ptr::copy_nonoverlapping(from, to, black_box(block));
                }
                black_box(&mut buffer);
            }
            let bare = started.elapsed().as_nanos() as f64 / rounds as f64;
            let name = if write { "write" } else { "read" };
            println!("{name:5} {block:6} bytes: submit {through:8.1} ns, copy {bare:8.1} ns");
        }
    }
}
