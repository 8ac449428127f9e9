//! `check`: remembers a checksum of every 512-byte block that was written or read through it, and turns a read that
//! returns something else into an error. It catches a store (or a layer below) that loses, mixes up or resurrects
//! data, not a client that writes the wrong thing.
//!
//! What it cannot know it does not judge: blocks under a change in flight while they are read, blocks under two
//! changes in flight together, blocks of which only a part was written, the destination of a copy, and everything
//! after a change that failed. It needs about 24 bytes of memory for each block it knows.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{ErrorKind, StoreError};
use crate::iovecs::IoVecs;
use crate::op::{Op, Outcome, Submitted};
use crate::options::Params;
use crate::{Capabilities, CompletionSink, Geometry, Mapping, Store, StoreIdentity};

const BLOCK: u64 = 512;
/// A range of zeros longer than this is forgotten rather than remembered block by block.
const LONG: u64 = 64 << 20;

pub(crate) fn parse(params: &BTreeMap<String, String>) -> Result<(), StoreError> {
    Params::new("filter check", params, &[]).map(|_| ())
}

pub(crate) fn apply(inner: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(Check { inner, shared: Arc::default() })
}

/// What becomes of the knowledge about a range when its operation succeeds.
enum Effect {
    /// A read: compare, and learn what is new.
    Compare { offset: u64, dst: IoVecs },
    /// These checksums, from this block on.
    Known { first: u64, sums: Vec<u64> },
    /// Zeros in these blocks.
    Zeros { first: u64, end: u64 },
    /// Nothing is known.
    Forget,
}

struct Active {
    /// Blocks touched, rounded outwards.
    first: u64,
    end: u64,
    changes: bool,
    /// Something overlapped that makes the result unpredictable.
    tainted: bool,
    effect: Effect,
    token: u64,
    sink: Arc<dyn CompletionSink>,
}

#[derive(Default)]
struct State {
    sums: HashMap<u64, u64>,
    active: HashMap<u64, Active>,
    next: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

struct Check {
    inner: Arc<dyn Store>,
    shared: Arc<Shared>,
}

/// A 64-bit checksum of one block; not cryptographic, but any single change is seen.
fn checksum(block: &[u8; BLOCK as usize]) -> u64 {
    let mut sum = 0x6a09_e667_f3bc_c908u64;
    for word in block.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        // Odd multiplier, xor, rotation: each step is a bijection of `sum`, so one changed word changes the result.
        sum = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    sum
}

/// Checksums of the whole blocks in a range: the first block's number and one sum each.
fn sums_of(offset: u64, pieces: &IoVecs) -> (u64, Vec<u64>) {
    let first = offset.div_ceil(BLOCK);
    let skip = (first * BLOCK - offset) as usize;
    if skip >= pieces.len() {
        return (first, Vec::new());
    }
    let mut rest = pieces.clone();
    rest.advance(skip);
    let mut sums = Vec::with_capacity(rest.len() / BLOCK as usize);
    let mut block = [0; BLOCK as usize];
    while rest.len() >= BLOCK as usize {
        rest.copy_to(&mut block);
        sums.push(checksum(&block));
        rest.advance(BLOCK as usize);
    }
    (first, sums)
}

impl Effect {
    fn of(op: &Op, can_punch: bool) -> Effect {
        let zeros = |offset: u64, len: u64| {
            if len > LONG {
                return Effect::Forget;
            }
            Effect::Zeros { first: offset.div_ceil(BLOCK), end: (offset + len) / BLOCK }
        };
        match op {
            Op::Read { offset, dst } => Effect::Compare { offset: *offset, dst: dst.clone() },
            Op::Write { offset, src, .. } => {
                let (first, sums) = sums_of(*offset, src);
                Effect::Known { first, sums }
            }
            Op::Zero { offset, len, .. } => zeros(*offset, *len),
            Op::Punch { offset, len } if can_punch => zeros(*offset, *len),
            _ => Effect::Forget,
        }
    }
}

impl State {
    fn forget(&mut self, first: u64, end: u64) {
        if end - first > self.sums.len() as u64 {
            self.sums.retain(|block, _| *block < first || *block >= end);
        } else {
            for block in first..end {
                self.sums.remove(&block);
            }
        }
    }

    fn begin(&mut self, mut active: Active) -> u64 {
        for other in self.active.values_mut() {
            if other.first < active.end && active.first < other.end {
                other.tainted |= active.changes;
                active.tainted |= other.changes;
            }
        }
        self.next += 1;
        self.active.insert(self.next, active);
        self.next
    }

    /// Ends an operation: updates what is known and judges a read.
    fn end(&mut self, id: u64, outcome: Outcome) -> Option<(Arc<dyn CompletionSink>, u64, Outcome)> {
        let active = self.active.remove(&id)?;
        let mut outcome = outcome;
        let sure = outcome.is_ok() && !active.tainted;
        if active.changes {
            self.forget(active.first, active.end);
        }
        match active.effect {
            Effect::Compare { offset, dst } if sure => outcome = self.compare(offset, &dst),
            Effect::Known { first, sums } if sure => self.sums.extend((first..).zip(sums)),
            Effect::Zeros { first, end } if sure => {
                let zero = checksum(&[0; BLOCK as usize]);
                self.sums.extend((first..end).map(|block| (block, zero)));
            }
            _ => {}
        }
        Some((active.sink, active.token, outcome))
    }

    fn compare(&mut self, offset: u64, dst: &IoVecs) -> Outcome {
        let (first, sums) = sums_of(offset, dst);
        for (block, sum) in (first..).zip(sums) {
            if *self.sums.entry(block).or_insert(sum) != sum {
                let text = "the data read are not those written (check filter)";
                return Err(StoreError::new(ErrorKind::Corrupt, text).at(block * BLOCK));
            }
        }
        Ok(())
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CompletionSink for Shared {
    fn complete(&self, batch: &[(u64, Outcome)]) {
        for (id, outcome) in batch {
            let ended = self.locked().end(*id, outcome.clone());
            if let Some((sink, token, outcome)) = ended {
                sink.complete(&[(token, outcome)]);
            }
        }
    }
}

impl Store for Check {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        super::without_mapping(&*self.inner)
    }

    fn mapping(&self) -> Option<Mapping> {
        None
    }

    fn identity(&self) -> StoreIdentity {
        self.inner.identity()
    }

    fn submit(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>) -> Submitted {
        // A range that leaves the store is the inner store's to refuse; it must not reach the arithmetic here.
        let (offset, len) = match op.range() {
            Some((offset, len)) if offset.checked_add(len).is_none() => {
                return self.inner.submit(op, token, sink);
            }
            Some(range) => range,
            None if op.changes() => (0, u64::MAX - BLOCK), // resize: everything may change
            None => (0, 0),
        };
        let changes = op.changes();
        let effect = Effect::of(&op, self.inner.capabilities().can_punch);
        let (first, end) = (offset / BLOCK, (offset + len).div_ceil(BLOCK));
        let active = Active { first, end, changes, tainted: false, effect, token, sink: sink.clone() };
        let id = self.shared.locked().begin(active);
        let own: Arc<dyn CompletionSink> = self.shared.clone();
        match self.inner.submit(op, id, &own) {
            Submitted::Pending => Submitted::Pending,
            Submitted::Done(outcome) => {
                let ended = self.shared.locked().end(id, outcome);
                Submitted::Done(ended.map_or(Ok(()), |(_, _, outcome)| outcome))
            }
        }
    }

    fn try_cancel(&self, token: u64) -> bool {
        let id = self.shared.locked().active.iter().find(|(_, active)| active.token == token).map(|(id, _)| *id);
        let Some(id) = id else { return false };
        let taken = self.inner.try_cancel(id);
        if taken {
            self.shared.locked().active.remove(&id);
        }
        taken
    }
}
