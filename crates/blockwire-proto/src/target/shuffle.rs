//! Data and R2Ts in an order that only the keys allow: a policy for testing initiators (RFC 7143 13.18, 13.19).

use super::data_in::whole_segments;
use super::data_in::{data_in_header, put_status};
use super::respond::SendMark;
use super::session::TargetSession;
use super::task::{Finish, TaskState};
use crate::ranges::MAX_RUNS;
use crate::retain::Kept;
use crate::send_queue::{Direction, Payload};
use crate::slab::Slot;

/// A generator that gives the same order for the same seed (xorshift64*).
#[derive(Clone, Copy, Debug)]
pub(super) struct Shuffle(u64);

impl Shuffle {
    /// None for seed 0.
    pub(super) fn new(seed: u64) -> Option<Self> {
        (seed != 0).then_some(Self(seed))
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }

    fn mix<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

impl TargetSession {
    /// `send_data` with sequences and PDUs mixed, as far as the keys allow.
    pub(super) fn send_shuffled(&mut self, slot: Slot, offset: u32, len: u32, finish: Option<Finish>) {
        let Some(mut shuffle) = self.shuffle else { return };
        let (pdus_in_order, sequences_in_order) = (self.params.data_pdu_in_order, self.params.data_sequence_in_order);
        let keep = self.params.error_recovery_level > 0;
        let Some(task) = self.tasks.get(slot) else { return };
        let (conn, runs) = (task.conn, task.data_in.log.runs());
        let Some(params) = self.connection(conn).map(|c| c.params.clone()) else { return };
        let (segment, burst) = whole_segments(params.max_send_data_segment_length, self.params.max_burst_length);
        // sequences may be shorter than MaxBurstLength: with one of two to four segments there is an order to mix
        let burst = if sequences_in_order { burst } else { burst.min(segment * (2 + shuffle.below(3) as u32)) };
        let mut sequences: Vec<Vec<(u32, u32)>> = Vec::new();
        let mut at = offset;
        while at < offset + len {
            let end = (offset + len).min(at + burst);
            let mut pdus: Vec<(u32, u32)> =
                (at..end).step_by(segment as usize).map(|from| (from, segment.min(end - from))).collect();
            if !pdus_in_order {
                shuffle.mix(&mut pdus);
            }
            sequences.push(pdus);
            at = end;
        }
        let count: usize = sequences.iter().map(Vec::len).sum();
        if !sequences_in_order {
            shuffle.mix(&mut sequences);
        }
        if keep && runs + count > MAX_RUNS / 2 {
            // the log of a long read would not fit: what is left goes in order
            for pdus in &mut sequences {
                pdus.sort_unstable();
            }
            sequences.sort_unstable();
        }
        self.shuffle = Some(shuffle);
        let collapse = self.tasks[slot].may_carry_status(finish.as_ref()) && self.fence.is_clear();
        let many = sequences.len();
        for (i, pdus) in sequences.into_iter().enumerate() {
            let ends = pdus.len();
            for (k, (from, n)) in pdus.into_iter().enumerate() {
                let is_final = k + 1 == ends;
                let status = if is_final && i + 1 == many && collapse { finish.as_ref() } else { None };
                self.queue_data_in(slot, from, n, is_final, status);
            }
        }
        let Some(task) = self.tasks.get_mut(slot) else { return };
        task.data_in.burst = 0;
        task.data_in.queued_to = task.data_in.queued_to.max(offset + len);
        if collapse {
            if keep {
                let stat_sn = task.stat_sn;
                task.finish = finish;
                let limit = self.limits.control_bytes;
                self.conn(conn).keep(stat_sn, Kept::Task(slot), limit);
                self.solicit_when_many(conn);
            }
        } else if let Some(finish) = finish {
            self.finish(slot, finish);
        }
    }

    /// Queues one Data-In with the next number. A status ends the task with it.
    pub(super) fn queue_data_in(&mut self, slot: Slot, offset: u32, len: u32, is_final: bool, status: Option<&Finish>) {
        let keep = self.params.error_recovery_level > 0;
        let conn = self.tasks[slot].conn;
        if status.is_some() {
            let congested = self.is_congested(conn);
            self.uncount(slot, congested);
        }
        let (exp, max) = (self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        let Some(task) = self.tasks.get_mut(slot) else { return };
        let c = self.conns[conn].as_deref_mut().expect("a task that is not frozen has its connection");
        let data_sn = task.data_in.data_sn;
        task.data_in.data_sn = data_sn.wrapping_add(1);
        let mut bhs = data_in_header(task, data_sn, offset, is_final);
        if keep {
            task.log_data(offset, len, is_final);
        }
        let mut mark = SendMark::DATA;
        if let Some(finish) = status {
            mark = SendMark::STATUS;
            put_status(&mut bhs, finish, c.stat_sn);
            task.data_in.status_sn = Some(data_sn);
            task.stat_sn = c.stat_sn;
            task.state = TaskState::Responded;
            c.stat_sn = c.stat_sn.wrapping_add(1);
        }
        bhs.set_exp_cmd_sn(exp);
        bhs.set_max_cmd_sn(max);
        c.queue.push(bhs, Payload::Task { slot, direction: Direction::In, offset, len }, Some(slot), mark);
    }
}
