//! Data-Out that is missing: asked for again by a recovery R2T (RFC 7143 7.1.4.1, 7.8, 7.9, 11.8).

use super::data_out::MOST_NUMBERS;
use super::session::{TargetEvent, TargetSession};
use super::task::{Condition, OutProgress, Task, TaskState};
use crate::params::ConnIndex;
use crate::ranges::RangeSet;
use crate::slab::Slot;

/// Sequences that may end without a byte that was not there before, one after the other; then the task ends.
const FRUITLESS: u8 = 8;
/// Times that data which does not come is waited for.
const TIMEOUTS: usize = 3;

impl OutProgress {
    /// A sequence ended with data missing. False: asking again has led nowhere too often.
    pub(super) fn may_recover(&mut self) -> bool {
        let here = self.received.total();
        let (tries, before) = self.recoveries;
        self.recoveries = if here > before { (1, here) } else { (tries.saturating_add(1), before) };
        self.recoveries.0 <= FRUITLESS
    }

    /// The first stretch below `total` that is neither here nor asked for, from `from` on.
    fn missing(&self, from: u64, total: u64) -> Option<(u64, u64)> {
        let mut at = from;
        loop {
            let (start, mut end) = self.received.first_gap(at, total)?;
            let mut covered = None;
            for r2t in &self.r2ts {
                let (first, last) = (u64::from(r2t.offset), u64::from(r2t.offset) + u64::from(r2t.length));
                if first <= start && start < last {
                    covered = Some(last);
                } else if start < first {
                    end = end.min(first);
                }
            }
            match covered {
                Some(last) => at = last,
                None => return Some((start, end)),
            }
        }
    }
}

impl Task {
    /// Takes the numbers of all unacknowledged Data-In back; gives the bytes they carried.
    pub(super) fn rewind_data(&mut self) -> RangeSet {
        let first = self.data_in.log.first();
        self.data_in.r2ts -= self.data_in.log.r2ts_from(first);
        let ranges = self.data_in.log.rewind(first);
        self.data_in.data_sn = first;
        self.data_in.ack_request = None;
        self.data_in.burst = 0;
        ranges
    }
}

impl TargetSession {
    /// The next stretch of a write to be asked for: (offset, length), at most MaxBurstLength (13.13). Bytes that came or are
    /// asked for are never asked for (again).
    pub fn next_to_solicit(&mut self, slot: Slot, total: u32) -> Option<(u32, u32)> {
        let burst = u64::from(self.params.max_burst_length);
        let task = self.tasks.get(slot)?;
        let out = &task.out;
        let (start, end) = if let Some(shuffle) = self.shuffle.as_mut().filter(|_| !self.params.data_sequence_in_order)
        {
            // anywhere, in parts of a burst or less
            let part = burst.min(u64::from(total).div_ceil(8).next_multiple_of(512));
            let parts = u64::from(total).div_ceil(part.max(1));
            let from = shuffle.below(parts as usize) as u64 * part;
            let (start, end) = out.missing(from, u64::from(total)).or_else(|| out.missing(0, u64::from(total)))?;
            (start, end.min(start + part))
        } else {
            out.missing(0, u64::from(total))?
        };
        Some((start as u32, (end - start).min(burst) as u32))
    }

    /// Data is to come on a connection: its absence will be noticed, above error recovery level 0.
    pub(super) fn watch_data(&mut self, conn: ConnIndex) {
        let timeout = self.limits.data_timeout;
        if self.params.error_recovery_level == 0 || timeout == 0 {
            return;
        }
        let at = self.now.saturating_add(timeout).max(1);
        let c = self.conn(conn);
        if c.data_check == 0 {
            c.data_check = at;
        }
    }

    /// Looks after data that did not come (7.1.4.1 b).
    pub(super) fn check_data(&mut self, conn: ConnIndex, now: u64) {
        let due = self.conn(conn).data_check;
        if due == 0 || now < due {
            return;
        }
        let timeout = self.limits.data_timeout;
        let mut next = 0;
        let mut late = Vec::new();
        for (slot, task) in self.tasks.iter() {
            let waits = matches!(task.state, TaskState::Waiting | TaskState::Active) && task.out.is_open();
            if task.conn != conn || task.frozen || !waits {
                continue;
            }
            let at = task.out.heard.saturating_add(timeout);
            if at <= now {
                late.push(slot);
            } else if next == 0 || at < next {
                next = at;
            }
        }
        self.conn(conn).data_check = next;
        for slot in late {
            self.give_up_waiting(slot);
        }
    }

    /// What a task was to receive is overdue: its open sequences end here, and what they lack is asked for anew.
    fn give_up_waiting(&mut self, slot: Slot) {
        let Some(task) = self.tasks.get_mut(slot) else { return };
        let out = &mut task.out;
        out.heard = self.now;
        if out.unsolicited_open {
            out.unsolicited_open = false;
            out.unsolicited_retired = true;
        }
        let tags: Vec<u32> = out.r2ts.drain(..).map(|r2t| r2t.target_transfer_tag).collect();
        out.retired.extend(tags);
        let numbers_left = task.data_in.data_sn < MOST_NUMBERS;
        if !numbers_left
            || out.retired.len() > TIMEOUTS * self.params.max_outstanding_r2t as usize
            || !out.may_recover()
        {
            out.condition.get_or_insert(Condition::ProtocolServiceCrcError);
        }
        let (answered, active) = (task.finish.is_some(), task.state == TaskState::Active);
        if active && answered {
            self.answer(slot);
        } else if active {
            self.events.push_back(TargetEvent::DataOut(slot));
        }
    }
}
