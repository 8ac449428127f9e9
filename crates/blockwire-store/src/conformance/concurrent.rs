//! Many operations at a time: each completes exactly once, and disjoint ranges do not disturb each other.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{Case, Context, Random, Verdict, applicable, ensure, put, read_back, same};
use crate::{CompletionSink, IoVecs, Op, Outcome, Store, Submitted, block_on};

pub(super) const CASES: &[Case] = &[
    ("many in flight: every operation ends exactly once", each_once),
    ("many in flight: a cancelled operation does not complete, any other does", cancelled),
    ("threads: disjoint ranges keep their data", disjoint),
    ("threads: overlapping writes leave bytes of one of them", overlapping),
];

#[derive(Default)]
struct Counting {
    seen: Mutex<HashMap<u64, (u32, bool)>>,
    arrived: Condvar,
}

impl CompletionSink for Counting {
    fn complete(&self, batch: &[(u64, Outcome)]) {
        let mut seen = self.seen.lock().unwrap();
        for (token, outcome) in batch {
            let entry = seen.entry(*token).or_insert((0, true));
            entry.0 += 1;
            entry.1 &= outcome.is_ok();
        }
        self.arrived.notify_all();
    }
}

impl Counting {
    /// Waits until `count` tokens have completed; then a moment more for what should not come.
    fn settle(&self, count: usize) -> Result<HashMap<u64, (u32, bool)>, String> {
        let patience = Duration::from_secs(30);
        let seen = self.seen.lock().unwrap();
        let (seen, late) = self.arrived.wait_timeout_while(seen, patience, |seen| seen.len() < count).unwrap();
        ensure!(!late.timed_out(), "{} of {count} completions arrived", seen.len());
        drop(seen);
        std::thread::sleep(Duration::from_millis(2));
        Ok(self.seen.lock().unwrap().clone())
    }
}

/// Memory for operations in flight; it is freed only after all of them have ended.
struct Buffers(Vec<Box<[u8]>>);

impl Buffers {
    fn lend(&mut self, index: usize) -> IoVecs {
        let buffer = &mut self.0[index];
        // SAFETY: the boxes stay where they are, every buffer is lent to one operation, and `each_once` and
        // `cancelled` wait for all of them (or leak the buffers) before they touch or drop them.
        unsafe { IoVecs::single(buffer.as_mut_ptr(), buffer.len()) }
    }
}

/// Submits reads and writes of `count` blocks in turn; returns the tokens that are pending.
fn submit_many(
    store: &dyn Store, sink: &Arc<dyn CompletionSink>, buffers: &mut Buffers, fill: bool,
) -> Result<Vec<u64>, String> {
    let mut pending = Vec::new();
    for index in 0..buffers.0.len() {
        let offset = index as u64 * 4096;
        let list = buffers.lend(index);
        let op = if fill { Op::Write { offset, src: list, fua: false } } else { Op::Read { offset, dst: list } };
        match store.submit(op, index as u64, sink) {
            Submitted::Pending => pending.push(index as u64),
            Submitted::Done(outcome) => outcome.map_err(|error| error.to_string())?,
        }
    }
    Ok(pending)
}

fn each_once(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.writable());
    let mut random = Random::new(context.expect.seed);
    let data: Vec<Vec<u8>> = (0..200).map(|_| random.bytes(4096)).collect();
    for fill in [true, false] {
        let counting = Arc::new(Counting::default());
        let sink: Arc<dyn CompletionSink> = counting.clone();
        let start = |block: &Vec<u8>| if fill { block.clone() } else { vec![0; 4096] };
        let mut buffers =
            std::mem::ManuallyDrop::new(Buffers(data.iter().map(|b| start(b).into_boxed_slice()).collect()));
        let pending = submit_many(&*store, &sink, &mut buffers, fill)?;
        let seen = counting.settle(pending.len())?;
        for token in &pending {
            let ended = seen.get(token);
            ensure!(ended == Some(&(1, true)), "operation {token} ended with (times, success) {ended:?}");
        }
        ensure!(seen.len() == pending.len(), "an operation that was done at once completed as well");
        let buffers = std::mem::ManuallyDrop::into_inner(buffers);
        if !fill && context.expect.retains {
            for (index, (seen, wanted)) in buffers.0.iter().zip(&data).enumerate() {
                same(seen, wanted, index as u64 * 4096, "read with many in flight")?;
            }
        }
    }
    Ok(None)
}

fn cancelled(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.writable());
    let counting = Arc::new(Counting::default());
    let sink: Arc<dyn CompletionSink> = counting.clone();
    let blocks = (0..200).map(|_| vec![0xc3; 4096].into_boxed_slice()).collect();
    let mut buffers = std::mem::ManuallyDrop::new(Buffers(blocks));
    let pending = submit_many(&*store, &sink, &mut buffers, true)?;
    let taken: Vec<u64> = pending.iter().rev().step_by(2).copied().filter(|token| store.try_cancel(*token)).collect();
    let seen = counting.settle(pending.len() - taken.len())?;
    for token in &pending {
        let (ended, cancelled) = (seen.get(token).map_or(0, |entry| entry.0), taken.contains(token));
        ensure!(ended == u32::from(!cancelled), "operation {token}: cancelled {cancelled}, completed {ended} times");
    }
    drop(std::mem::ManuallyDrop::into_inner(buffers));
    Ok(None)
}

/// Runs `work` on four threads; the first complaint counts.
fn on_threads(store: &dyn Store, work: &(dyn Fn(&dyn Store, u64) -> Result<(), String> + Sync)) -> Result<(), String> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || work(store, number))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })
}

fn disjoint(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.retaining());
    let seed = context.expect.seed;
    on_threads(&*store, &|store, number| {
        let mut random = Random::new(seed + number);
        // Ranges that meet in the middle of a page and of a block.
        let (start, room) = (number * 300_007, 300_007usize);
        let mut wanted = random.bytes(room);
        put(store, start, &wanted)?;
        for _ in 0..30 {
            let at = random.below(room as u64 - 1) as usize;
            let len = 1 + random.below((room - at) as u64 - 1).min(20_000) as usize;
            if random.below(4) == 0 {
                let op = Op::Zero { offset: start + at as u64, len: len as u64, may_unmap: true, fua: false };
                block_on(store, op).map_err(|error| error.to_string())?;
                wanted[at..at + len].fill(0);
            } else {
                let data = random.bytes(len);
                put(store, start + at as u64, &data)?;
                wanted[at..at + len].copy_from_slice(&data);
            }
            let what = format!("thread {number}");
            same(&read_back(store, start + at as u64, len)?, &wanted[at..at + len], start + at as u64, &what)?;
        }
        same(&read_back(store, start, room)?, &wanted, start, &format!("thread {number} at the end"))
    })?;
    Ok(None)
}

fn overlapping(context: &Context<'_>) -> Verdict {
    let store = applicable!(context.retaining());
    put(&*store, 0, &[0xff; 70_000])?;
    on_threads(&*store, &|store, number| {
        for round in 0..20 {
            put(store, 1000, &vec![number as u8 * 32 + round; 60_000])?;
            read_back(store, 0, 70_000)?;
        }
        Ok(())
    })?;
    let seen = read_back(&*store, 0, 70_000)?;
    let last = |byte: &u8| *byte < 128;
    ensure!(seen[1000..61_000].iter().all(last), "a byte is of none of the writes");
    ensure!(seen[..1000].iter().chain(&seen[61_000..]).all(|byte| *byte == 0xff), "a neighbour changed");
    Ok(None)
}
