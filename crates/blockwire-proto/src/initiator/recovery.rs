//! What recovery within a command and within a connection remembers (RFC 7143 7.1.4.1, 7.1.4.2). Plain data, allocated
//! with the first loss: at error recovery level 0, and while nothing is lost, none of it exists.

use std::collections::VecDeque;

use blockwire_wire::{Bhs, serial};

use crate::ranges::{RangeSet, TooScattered};
use crate::slab::Slot;

/// How long what was asked for may take, nanoseconds, until the session is told otherwise.
pub(super) const DEFAULT_TIMEOUT: u64 = 5_000_000_000;
/// The same loss is asked for this many times; then the connection is given up for it.
pub(super) const MOST_TRIES: u8 = 4;
/// Runs asked for at one time, of one task or of one connection's statuses; the others wait for the next timeout.
pub(super) const MOST_SNACKS: usize = 16;
/// StatSN ahead of ExpStatSN: beyond this the connection has failed (RFC 7143 4.2.2.2 asks for such a bound).
pub(super) const MOST_AHEAD: usize = 4096;
/// Data segments of responses that wait for earlier ones, bytes.
pub(super) const MOST_HELD: usize = 1 << 20;

/// A status that came (RFC 7143 11.4, 11.7.3).
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub stat_sn: u32,
    pub status: u8,
    pub counted: i64,
    pub bidi: i64,
    pub sense: Vec<u8>,
    /// Data-In PDUs that the target sent (11.4.8).
    pub numbers: u32,
}

/// Bytes that came before the first hole opened: all that a reassignment acknowledges (RFC 7143 11.5.6).
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub number: u32,
    pub bytes: RangeSet,
}

/// Numbered PDUs of one task that are missing.
#[derive(Debug, Default)]
pub(super) struct TaskRecovery {
    /// DataSN and R2TSN that came.
    seen: RangeSet,
    /// All below it were sent, as far as is known.
    high: u32,
    pub whole: Option<Whole>,
    /// The status, while data is missing: it must not be acknowledged before that came (7.9).
    pub ending: Option<Ending>,
    /// A DataACK that waits for holes to be filled (11.16.2): LUN, Target Transfer Tag.
    pub acknowledge: Option<(u64, u32)>,
    /// SNACK Tag of the R-Data SNACK that is open, else 0 (11.16.5).
    pub snack_tag: u32,
    pub last_snack_tag: u32,
    /// How often the end of the data was asked for without knowing that something is missing there.
    pub probed: u8,
    pub asked_at: u64,
    pub tries: u8,
    /// The sequence at hand starts here; only it may be asked for with DataSequenceInOrder=Yes (13.19).
    pub sequence_from: u32,
    /// The last number with the F bit.
    ended_at: Option<u32>,
}

impl TaskRecovery {
    /// For a task that got all numbers below `next`.
    pub fn new(next: u32) -> Self {
        let mut recovery = Self { high: next, ..Self::default() };
        let _ = recovery.seen.insert(0, u64::from(next)); // one run
        recovery
    }

    /// The sequence at hand starts at `number`.
    pub fn start_sequence(&mut self, number: u32) {
        self.sequence_from = number;
        self.ended_at = number.checked_sub(1);
    }

    /// The first number that is missing, or the next to come.
    pub fn next(&self) -> u32 {
        self.seen.first_gap(0, u64::MAX).map_or(0, |gap| gap.0) as u32
    }

    pub fn has(&self, number: u32) -> bool {
        self.seen.contains(u64::from(number), 1)
    }

    pub fn high(&self) -> u32 {
        self.high
    }

    /// Numbers below `high` were sent; gives what of that was not known to be missing before.
    pub fn sent_up_to(&mut self, high: u32) -> Option<(u32, u32)> {
        if high <= self.high {
            return None;
        }
        let from = std::mem::replace(&mut self.high, high);
        Some((from, high))
    }

    /// # Errors
    /// More than 256 runs.
    pub fn take(&mut self, number: u32) -> Result<(), TooScattered> {
        self.seen.insert(u64::from(number), 1)?;
        self.high = self.high.max(number.saturating_add(1));
        Ok(())
    }

    /// Notes the end of a sequence, and that the next one began.
    pub fn note_sequence(&mut self, number: u32, is_final: bool) {
        if let Some(end) = self.ended_at
            && number > end
        {
            self.sequence_from = self.sequence_from.max(end + 1);
        }
        if is_final {
            self.ended_at = Some(self.ended_at.map_or(number, |end| end.max(number)));
        }
    }

    /// Nothing more is expected of numbers `[from, to)`.
    pub fn let_go(&mut self, from: u32, to: u32) {
        // where a run is missing there are two to merge: this cannot fail
        let _ = self.seen.insert(u64::from(from), u64::from(to.min(self.high).saturating_sub(from)));
    }

    /// Runs `[from, to)` of numbers that are missing.
    pub fn holes(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (from, to) = self.seen.first_gap(at, u64::from(self.high))?;
            at = to;
            Some((from as u32, to as u32))
        })
    }

    pub fn is_whole(&self) -> bool {
        self.next() >= self.high
    }
}

/// One StatSN from ExpStatSN on.
#[derive(Debug)]
pub(super) enum Status {
    Missing,
    /// Came and waits for an earlier one.
    Held(Bhs, Vec<u8>),
    /// Was acted on; its task lacks data, so it must not be acknowledged yet (RFC 7143 7.9).
    Waiting,
    Done,
}

/// A ping that finds out what was lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub sent: u64,
    pub unanswered: u8,
    /// Initiator Task Tag of the last one.
    pub tag: u32,
}

/// What one connection remembers of losses.
#[derive(Debug, Default)]
pub(super) struct ConnectionRecovery {
    window: VecDeque<Status>,
    held: usize,
    pub asked_at: u64,
    pub tries: u8,
    /// Tasks with a `TaskRecovery`.
    pub tasks: Vec<Slot>,
}

/// What a StatSN is, against those that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Duplicate,
    /// The next one: act on it.
    Next,
    /// An earlier one is missing.
    Early,
    /// So far ahead that the connection must have failed.
    Absurd,
}

impl ConnectionRecovery {
    /// What `stat_sn` is, given ExpStatSN.
    pub fn classify(&self, expected: u32, stat_sn: u32) -> Arrival {
        let ahead = serial::distance(expected, stat_sn);
        if ahead < 0 {
            return Arrival::Duplicate;
        }
        let index = ahead as usize;
        match self.window.get(index) {
            Some(Status::Missing) | None if index >= MOST_AHEAD => Arrival::Absurd,
            Some(Status::Missing) | None if self.first_open() == index => Arrival::Next,
            Some(Status::Missing) | None => Arrival::Early,
            Some(_) => Arrival::Duplicate,
        }
    }

    fn first_open(&self) -> usize {
        let open = |s: &Status| matches!(s, Status::Missing | Status::Held(..));
        self.window.iter().position(open).unwrap_or(self.window.len())
    }

    /// StatSNs below `stat_sn` were sent; gives the index run that is newly known to be missing.
    pub fn sent_up_to(&mut self, expected: u32, stat_sn: u32) -> Option<(u32, u32)> {
        let ahead = serial::distance(expected, stat_sn);
        let known = self.window.len();
        if ahead <= 0 || ahead as usize <= known {
            return None;
        }
        self.window.resize_with((ahead as usize).min(MOST_AHEAD), || Status::Missing);
        Some((expected.wrapping_add(known as u32), (self.window.len() - known) as u32))
    }

    /// Puts a state at `stat_sn`, which is within `MOST_AHEAD`. False: too much is held.
    pub fn set(&mut self, expected: u32, stat_sn: u32, status: Status) -> bool {
        let index = stat_sn.wrapping_sub(expected) as usize;
        if index >= self.window.len() {
            self.window.resize_with(index + 1, || Status::Missing);
        }
        if let Status::Held(_, data) = &status {
            if self.held + data.len() > MOST_HELD {
                return false;
            }
            self.held += data.len();
        }
        self.window[index] = status;
        true
    }

    /// The held status that is next, marked as done.
    pub fn take_next(&mut self) -> Option<(Bhs, Vec<u8>)> {
        let open = self.first_open();
        if !matches!(self.window.get(open), Some(Status::Held(..))) {
            return None;
        }
        match std::mem::replace(&mut self.window[open], Status::Done) {
            Status::Held(bhs, data) => {
                self.held -= data.len();
                Some((bhs, data))
            }
            _ => None,
        }
    }

    /// How many StatSNs are acknowledged now.
    pub fn take_done(&mut self) -> u32 {
        let mut count = 0;
        while matches!(self.window.front(), Some(Status::Done)) {
            self.window.pop_front();
            count += 1;
        }
        count
    }

    /// Puts a status that was counted already back to the front: its task lacks data.
    pub fn uncount(&mut self) {
        self.window.push_front(Status::Waiting);
    }

    /// Runs (StatSN, count) that are missing.
    pub fn missing(&self, expected: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let is_missing = |s: &Status| matches!(s, Status::Missing);
            let from = at + self.window.iter().skip(at).position(is_missing)?;
            let count = self.window.iter().skip(from).take_while(|s| is_missing(s)).count();
            at = from + count;
            Some((expected.wrapping_add(from as u32), count as u32))
        })
    }

    pub fn misses(&self, expected: u32, stat_sn: u32) -> bool {
        matches!(self.window.get(stat_sn.wrapping_sub(expected) as usize), Some(Status::Missing))
    }

    pub fn is_idle(&self) -> bool {
        self.window.is_empty()
    }
}

/// What recovery did, for statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryCounters {
    /// SNACK PDUs of any type but DataACK.
    pub snacks: u64,
    pub data_acks: u64,
    /// Runs of numbers that were found missing.
    pub runs_lost: u64,
    /// Data and R2T PDUs that came after they had been missing.
    pub data_recovered: u64,
    pub statuses_recovered: u64,
    /// PDUs with a wrong data digest that were recovered from.
    pub digest_errors: u64,
    pub duplicates: u64,
    pub probes: u64,
    /// TASK REASSIGN that the target accepted.
    pub reassigned: u64,
    /// Commands that were sent again with their CmdSN (7.2.1).
    pub retried: u64,
    /// CmdSN gaps that were filled with a NOP-Out.
    pub plugged: u64,
}
