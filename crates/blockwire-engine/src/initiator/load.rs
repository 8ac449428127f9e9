//! The load generator: keeps `depth` block requests in flight on the caller's thread and measures them.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::calls::{Check, nanos};
use super::cdb::{BlockRequest, IoKind};
use super::drive::Guard;
use super::histogram::Histogram;
use super::request::Memory;
use super::session::{InitiatorSession, SLICE};
use super::side::LOAD;
use crate::clock::Nanos;
use crate::events::{Failure, TaskDone};

/// `api.LoadSpec`.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// LUN field as a number.
    pub lun: u64,
    pub block_size: u32,
    /// Bytes of the logical unit that are used, from offset 0.
    pub size: u64,
    /// Bytes per request.
    pub transfer: u32,
    pub depth: u32,
    pub read_percent: u8,
    pub random: bool,
    /// Nanoseconds; 0 means `requests` decides.
    pub duration: Nanos,
    pub requests: u64,
    /// Writes carry a pattern, reads compare it. Reads alone in order (`read_percent` 100, not `random`) with the table of runs
    /// that wrote read each place that was written once, and end.
    pub verify: bool,
    pub seed: u64,
    pub fua: bool,
}

/// `api.LoadReport`.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    pub reads: u64,
    pub writes: u64,
    pub bytes: u64,
    pub errors: u64,
    pub miscompares: u64,
    pub seconds: f64,
    /// (upper bound in nanoseconds, count).
    pub histogram_ns: Vec<(u64, u64)>,
    pub mean_ns: f64,
    pub max_ns: u64,
    pub first_error: String,
}

/// What verifying runs wrote where, from one run to the next on the same logical unit: so a run that goes on after the
/// loss of its session still knows what has to be there. Empty at first.
///
/// Of each position it keeps the generation that was acknowledged last, 0 for none, and the one that was sent last. What
/// was sent and never acknowledged may be there or not, block by block, until a later write of the place is acknowledged.
#[derive(Clone, Debug, Default)]
pub struct LoadTable {
    /// Stands in every block of these runs and in no other: what others left behind is not taken for ours.
    nonce: u64,
    transfer: u32,
    acknowledged: Vec<u32>,
    sent: Vec<u32>,
}

impl LoadTable {
    /// Ready for runs of `transfer` bytes at so many positions. False: it was begun for others.
    fn prepare(&mut self, transfer: u32, positions: usize) -> bool {
        if self.acknowledged.is_empty() {
            let nonce = RandomState::new().hash_one(positions);
            *self = Self { nonce, transfer, acknowledged: vec![0; positions], sent: vec![0; positions] };
        }
        self.transfer == transfer && self.acknowledged.len() == positions
    }

    /// The generation that stands in a block, when the block is right.
    fn check(&self, part: &[u8], offset: u64, position: usize) -> Option<u32> {
        let word = |j: usize| u64::from_le_bytes(part[j * 8..j * 8 + 8].try_into().unwrap_or_default());
        let known = self.acknowledged[position]..=self.sent[position];
        if word(0) != MARK || word(1) != self.nonce {
            return known.contains(&0).then_some(0);
        }
        let generation = u32::try_from(word(3)).ok().filter(|g| *g > 0 && known.contains(g))?;
        let right = |j| word(j) == offset ^ (u64::from(generation) << 32) ^ j as u64;
        (word(2) == offset && (4..part.len() / 8).all(right)).then_some(generation)
    }
}

/// How long the run waits for its last requests before it aborts them, and then for the aborts.
const LINGER: Nanos = 10_000_000_000;
/// Marks a block that a verifying run wrote.
const MARK: u64 = 0x626c_6f63_6b77_6972;

#[derive(Clone, Copy, Default)]
struct Flight {
    busy: bool,
    write: bool,
    position: u64,
    generation: u32,
    started: Nanos,
}

struct Run<'a> {
    spec: &'a LoadSpec,
    positions: u64,
    /// Run number in the upper half, so that a straggler of an earlier run is not taken for one of this.
    base: u64,
    memory: Box<[u8]>,
    aligned: usize,
    flights: Vec<Flight>,
    idle: Vec<u32>,
    random: u64,
    next: u64,
    issued: u64,
    /// What was written where, and whether a request is on a position (verify only).
    table: &'a mut LoadTable,
    occupied: Vec<bool>,
    /// Every place that was written is read once, in order.
    sweeps: bool,
    swept: bool,
    report: LoadReport,
    latencies: Histogram,
    lost: bool,
}

impl Run<'_> {
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A position, and with verify one that no other request is on.
    fn position(&mut self) -> Option<u64> {
        if self.sweeps {
            let from = usize::try_from(self.next).unwrap_or(usize::MAX);
            let written = self.table.sent.iter().skip(from).position(|sent| *sent > 0);
            self.swept |= written.is_none();
            let at = (from + written?) as u64;
            self.next = at + 1;
            return Some(at);
        }
        for _ in 0..64 {
            let at = if self.spec.random {
                ((u128::from(self.draw()) * u128::from(self.positions)) >> 64) as u64
            } else {
                self.next += 1;
                (self.next - 1) % self.positions
            };
            if !self.spec.verify || !self.occupied[at as usize] {
                return Some(at);
            }
        }
        None
    }

    fn buffer(&mut self, index: u32) -> &mut [u8] {
        let length = self.spec.transfer as usize;
        let from = self.aligned + index as usize * length.next_multiple_of(4096);
        &mut self.memory[from..from + length]
    }

    /// Fills the buffer with blocks that name their place, run and generation.
    fn pattern(&mut self, index: u32, position: u64, generation: u32) {
        let (block, nonce) = (self.spec.block_size as usize, self.table.nonce);
        let first = position * u64::from(self.spec.transfer);
        for (i, part) in self.buffer(index).chunks_mut(block).enumerate() {
            let offset = first + (i * block) as u64;
            let words = [MARK, nonce, offset, u64::from(generation)];
            for (j, word) in part.chunks_exact_mut(8).enumerate() {
                let value = words.get(j).copied().unwrap_or_else(|| offset ^ (u64::from(generation) << 32) ^ j as u64);
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
    }

    /// Compares what was read: every block must be what was acknowledged, or what was sent after that and never
    /// acknowledged; where nothing was acknowledged it may be anybody's.
    fn compare(&mut self, index: u32, position: u64) -> bool {
        let block = self.spec.block_size as usize;
        let first = position * u64::from(self.spec.transfer);
        let length = self.spec.transfer as usize;
        let from = self.aligned + index as usize * length.next_multiple_of(4096);
        let mut oldest = u32::MAX;
        for (i, part) in self.memory[from..from + length].chunks(block).enumerate() {
            match self.table.check(part, first + (i * block) as u64, position as usize) {
                Some(generation) => oldest = oldest.min(generation),
                None => return false,
            }
        }
        // what was seen once does not go away again
        self.table.acknowledged[position as usize] = oldest;
        true
    }

    fn complete(&mut self, done: &TaskDone, now: Nanos) {
        let index = done.token.wrapping_sub(self.base).wrapping_sub(1) as usize;
        let Some(flight) = self.flights.get(index).copied().filter(|f| f.busy) else { return };
        self.flights[index].busy = false;
        self.idle.push(index as u32);
        let position = flight.position as usize;
        if self.spec.verify {
            self.occupied[position] = false;
        }
        let good = done.code.is_empty() && done.status == 0 && done.residual == 0;
        if !good {
            self.report.errors += 1;
            self.lost |= done.code.ends_with(".lost");
            if self.report.first_error.is_empty() {
                self.report.first_error = if done.code.is_empty() {
                    format!("status 0x{:02x}, residual {}, sense {:02x?}", done.status, done.residual, done.sense)
                } else {
                    done.code.to_owned()
                };
            }
            return;
        }
        self.latencies.record(now - flight.started);
        self.report.bytes += u64::from(self.spec.transfer);
        if flight.write {
            self.report.writes += 1;
            if self.spec.verify {
                self.table.acknowledged[position] = flight.generation;
            }
        } else {
            self.report.reads += 1;
            if self.spec.verify && !self.compare(index as u32, flight.position) {
                self.report.miscompares += 1;
            }
        }
    }
}

impl InitiatorSession {
    /// `api.run_load`. `check` ends it early with what was measured; `table` is used when the run verifies.
    ///
    /// # Errors
    /// The specification cannot work, or another run is on.
    pub fn run_load(&self, spec: &LoadSpec, table: &mut LoadTable, check: Check<'_>) -> Result<LoadReport, Failure> {
        let invalid = |what: &str| Err(Failure::new("request.invalid", what));
        let whole = spec.block_size >= 512 && spec.transfer > 0 && spec.transfer.is_multiple_of(spec.block_size);
        if !whole || spec.transfer > self.max_transfer {
            return invalid("the transfer has to be a multiple of the block size and at most the plane's max_transfer");
        }
        if spec.size < u64::from(spec.transfer) || spec.depth == 0 || spec.depth > 65_000 || spec.read_percent > 100 {
            return invalid("the size has to hold one transfer, the depth is 1 to 65000, the percentage 0 to 100");
        }
        if spec.duration == 0 && spec.requests == 0 {
            return invalid("a run needs a duration or a number of requests");
        }
        let positions = usize::try_from(spec.size / u64::from(spec.transfer)).unwrap_or(usize::MAX);
        if spec.verify && !table.prepare(spec.transfer, positions) {
            return invalid("the table is that of runs of another size or transfer");
        }
        let mut state = self.lock();
        if state.loading {
            return Err(Failure::new("session.busy", "another load run is on"));
        }
        state.loading = true;
        state.load_runs += 1;
        let base = state.load_runs << 32;
        drop(state);
        let mut run = new_run(spec, table, base);
        let stray = self.load(&mut run, check);
        self.lock().loading = false;
        if stray {
            // a request that did not end may still be written to
            std::mem::forget(std::mem::take(&mut run.memory));
        }
        let mut report = run.report;
        report.histogram_ns = run.latencies.buckets();
        report.mean_ns = run.latencies.mean();
        report.max_ns = run.latencies.max();
        Ok(report)
    }

    /// Runs; true when requests are left that did not end.
    fn load(&self, run: &mut Run<'_>, check: Check<'_>) -> bool {
        let mut state = self.lock();
        self.enter(&mut state);
        let started = self.clock.now();
        let mut now = started;
        let mut checked = started;
        let mut stopped = None;
        let mut done = Vec::with_capacity(run.flights.len());
        loop {
            let spec = run.spec;
            let over = (spec.duration > 0 && now - started >= spec.duration)
                || (spec.requests > 0 && run.issued >= spec.requests)
                || run.swept;
            if (over || run.lost) && stopped.is_none() {
                stopped = Some(now);
            }
            if stopped.is_none() {
                issue(&mut state, run, now, self.max_transfer);
            }
            if run.idle.len() == run.flights.len() {
                break;
            }
            state.uses += 1;
            if state.flush(self.clock.now()) && state.reader {
                self.wake_background();
            }
            if state.side.load.is_empty() {
                state = self.advance(state, SLICE);
            }
            std::mem::swap(&mut state.side.load, &mut done);
            now = self.clock.now();
            for ended in done.drain(..) {
                run.complete(&ended, now);
            }
            if now - checked >= nanos(SLICE) {
                checked = now;
                drop(state);
                if check() && stopped.is_none() {
                    stopped = Some(now);
                }
                state = self.lock();
            }
            if let Some(at) = stopped
                && now - at > LINGER
            {
                if now - at > 2 * LINGER {
                    break;
                }
                self.abort_load(&mut state, run);
            }
        }
        run.report.seconds = Duration::from_nanos(now - started).as_secs_f64();
        self.leave(state);
        run.idle.len() < run.flights.len()
    }

    fn abort_load(&self, state: &mut Guard<'_>, run: &Run<'_>) {
        for (index, _) in run.flights.iter().enumerate().filter(|(_, f)| f.busy) {
            if let Some(slot) = state.side.proto.find_task(run.base + index as u64 + 1) {
                state.side.proto.abort(slot);
            }
        }
        state.side.drain();
        state.flush(self.clock.now());
    }
}

fn new_run<'a>(spec: &'a LoadSpec, table: &'a mut LoadTable, base: u64) -> Run<'a> {
    let depth = spec.depth as usize;
    let memory = vec![0u8; depth * (spec.transfer as usize).next_multiple_of(4096) + 4096].into_boxed_slice();
    let aligned = memory.as_ptr().align_offset(4096);
    let positions = spec.size / u64::from(spec.transfer);
    let known = if spec.verify { positions as usize } else { 0 };
    // reads alone, in order, behind runs that wrote: what they left is compared, each place once
    let compares = spec.verify && spec.read_percent == 100 && !spec.random;
    let sweeps = compares && table.sent.iter().any(|sent| *sent > 0);
    Run {
        spec,
        positions,
        base,
        memory,
        aligned,
        flights: vec![Flight::default(); depth],
        idle: (0..spec.depth).rev().collect(),
        random: spec.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        next: 0,
        issued: 0,
        table,
        occupied: vec![false; known],
        sweeps,
        swept: false,
        report: LoadReport::default(),
        latencies: Histogram::default(),
        lost: false,
    }
}

/// Submits a request for every idle place.
fn issue(state: &mut Guard<'_>, run: &mut Run<'_>, now: Nanos, most: u32) {
    let spec = run.spec;
    let blocks = spec.transfer / spec.block_size;
    let mut full = false;
    while let Some(index) = run.idle.pop() {
        let out = spec.requests > 0 && run.issued >= spec.requests;
        let Some(position) = (if out { None } else { run.position() }) else {
            run.idle.push(index);
            return;
        };
        let write = match spec.read_percent {
            100 => false,
            0 => true,
            percent => (run.draw() >> 33) % 100 >= u64::from(percent),
        };
        let mut generation = 0;
        if spec.verify {
            run.occupied[position as usize] = true;
            if write {
                run.table.sent[position as usize] += 1;
                generation = run.table.sent[position as usize];
                run.pattern(index, position, generation);
            }
        }
        run.flights[index as usize] = Flight { busy: true, write, position, generation, started: now };
        let io = BlockRequest {
            kind: if write { IoKind::Write } else { IoKind::Read },
            lba: position * u64::from(blocks),
            blocks,
            block_size: spec.block_size,
            fua: spec.fua,
        };
        let base = run.buffer(index).as_mut_ptr();
        // SAFETY: the run keeps this part of its memory for this request until it ended (or for ever, when it did not).
        let memory = unsafe { Memory::new(base, spec.transfer) };
        run.issued += 1;
        if let Err(failure) = state.begin_io(run.base + u64::from(index) + 1, LOAD, spec.lun, &io, memory, most) {
            run.flights[index as usize].busy = false;
            run.idle.push(index);
            run.report.errors += 1;
            run.report.first_error = failure.message;
            run.lost = true;
            return;
        }
        if !full && state.has_batch() {
            full = state.flush(now); // what is left is sent by the caller
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSFER: u32 = 1024;

    /// A block as `pattern` fills it.
    fn block(nonce: u64, offset: u64, generation: u32) -> Vec<u8> {
        let words = [MARK, nonce, offset, u64::from(generation)];
        let rest = |j: u64| offset ^ (u64::from(generation) << 32) ^ j;
        (0..64).flat_map(|j| words.get(j).copied().unwrap_or_else(|| rest(j as u64)).to_le_bytes()).collect()
    }

    fn table() -> LoadTable {
        let mut table = LoadTable::default();
        assert!(table.prepare(TRANSFER, 4));
        table
    }

    #[test]
    fn a_table_is_for_one_size_and_transfer() {
        let mut table = table();
        let nonce = table.nonce;
        table.sent[3] = 7;
        assert!(table.prepare(TRANSFER, 4));
        assert_eq!((table.nonce, table.sent[3]), (nonce, 7), "what is known stays");
        assert!(!table.prepare(TRANSFER, 5));
        assert!(!table.prepare(512, 4));
    }

    #[test]
    fn what_was_acknowledged_has_to_be_there() {
        let mut table = table();
        (table.acknowledged[1], table.sent[1]) = (2, 2);
        let nonce = table.nonce;
        assert_eq!(table.check(&block(nonce, 1024, 2), 1024, 1), Some(2));
        assert_eq!(table.check(&block(nonce, 1024, 1), 1024, 1), None, "an older write");
        assert_eq!(table.check(&block(nonce, 1024, 3), 1024, 1), None, "one that was never sent");
        assert_eq!(table.check(&block(nonce, 512, 2), 1024, 1), None, "of another place");
        assert_eq!(table.check(&block(nonce ^ 1, 1024, 2), 1024, 1), None, "of another run");
        assert_eq!(table.check(&[0; 512], 1024, 1), None, "lost");
        let mut damaged = block(nonce, 1024, 2);
        damaged[511] ^= 1;
        assert_eq!(table.check(&damaged, 1024, 1), None);
    }

    #[test]
    fn a_write_that_was_cut_may_be_there_or_not_and_nothing_else() {
        let mut table = table();
        (table.acknowledged[0], table.sent[0]) = (3, 5);
        let nonce = table.nonce;
        for (generation, allowed) in [(2, false), (3, true), (4, true), (5, true), (6, false)] {
            let found = table.check(&block(nonce, 0, generation), 0, 0);
            assert_eq!(found, allowed.then_some(generation), "generation {generation}");
        }
        assert_eq!(table.check(&[0; 512], 0, 0), None, "neither of them");
        // where nothing was acknowledged before, anything may be left
        (table.acknowledged[0], table.sent[0]) = (0, 1);
        assert_eq!(table.check(&[0; 512], 0, 0), Some(0));
        assert_eq!(table.check(&block(nonce, 0, 1), 0, 0), Some(1));
        assert_eq!(table.check(&block(nonce, 512, 1), 0, 0), None, "ours, but of another place");
    }
}
