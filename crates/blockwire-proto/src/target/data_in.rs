//! Data to the initiator, cut into PDUs and sequences (RFC 7143 11.7, 13.12, 13.13).

use blockwire_wire::bhs::{ACKNOWLEDGE, FINAL, OVERFLOW, STATUS_PRESENT, UNDERFLOW};
use blockwire_wire::opcode::status;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG};

use super::data_out::next_ttt;
use super::respond::SendMark;
use super::session::TargetSession;
use super::task::{Finish, Residual, Task, TaskState};
use crate::retain::Kept;
use crate::send_queue::{Direction, Payload};
use crate::slab::Slot;

/// Header of a Data-In with everything but StatSN, ExpCmdSN and MaxCmdSN.
#[inline]
pub(super) fn data_in_header(task: &Task, data_sn: u32, offset: u32, is_final: bool) -> Bhs {
    let mut bhs = Bhs::new(Opcode::DataIn, if is_final { FINAL } else { 0 });
    bhs.set_initiator_task_tag(task.initiator_task_tag);
    bhs.set_target_transfer_tag(RESERVED_TAG);
    bhs.set_data_sn(data_sn);
    bhs.set_buffer_offset(offset);
    bhs
}

/// Makes a Data-In the one that carries the status (11.7.3).
#[inline]
pub(super) fn put_status(bhs: &mut Bhs, finish: &Finish, stat_sn: u32) {
    let mut flags = bhs.flags() | FINAL | STATUS_PRESENT;
    match finish.residual {
        Residual::None => {}
        Residual::Overflow(bytes) => {
            flags |= OVERFLOW;
            bhs.set_residual_count(bytes);
        }
        Residual::Underflow(bytes) => {
            flags |= UNDERFLOW;
            bhs.set_residual_count(bytes);
        }
    }
    bhs.set_flags(flags);
    bhs.set_status(finish.status);
    bhs.set_stat_sn(stat_sn);
}

/// Sets the A bit, with the tag and LUN that have to come with it (11.7.4).
pub(super) fn ask_for_acknowledgement(bhs: &mut Bhs, lun: u64, target_transfer_tag: u32) {
    bhs.set_flags(bhs.flags() | ACKNOWLEDGE);
    bhs.set_lun(lun);
    bhs.set_target_transfer_tag(target_transfer_tag);
}

/// Segment and sequence length for data that may be asked for again: all segments of a sequence are of one length, so that
/// the log stays short.
pub(super) fn whole_segments(segment: u32, max_burst: u32) -> (u32, u32) {
    if segment >= max_burst { (max_burst, max_burst) } else { (segment, max_burst - max_burst % segment) }
}

impl TargetSession {
    /// Queues `len` bytes of a task's read at `offset`. Pieces come in order. `last` says that no data follows; with
    /// `finish` the task ends: in the last Data-In where RFC 7143 11.7.3 allows it, otherwise in a SCSI Response.
    ///
    /// The bytes stay in place until the PDUs are sent and, above error recovery level 0, until `Acknowledged` or
    /// `Released`.
    pub fn send_data(&mut self, slot: Slot, offset: u32, len: u32, last: bool, finish: Option<Finish>) {
        let Some(task) = self.tasks.get_mut(slot) else {
            return;
        };
        if task.state != TaskState::Active || task.frozen {
            return;
        }
        debug_assert!(finish.is_none() || last);
        if self.shuffle.is_some() && len > 0 {
            return self.send_shuffled(slot, offset, len, finish);
        }
        let collapse = task.may_carry_status(finish.as_ref()) && self.fence.is_clear();
        let keep_log = self.params.error_recovery_level > 0;
        let congested = self.limits.command_window as usize * 4;
        let (exp, mut max) = (self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        let c = self.conns[task.conn].as_deref_mut().expect("a task that is not frozen has its connection");
        let mut segment = c.params.max_send_data_segment_length;
        let mut burst = self.params.max_burst_length;
        if keep_log {
            (segment, burst) = whole_segments(segment, burst);
        }
        let mut at = offset;
        let mut left = len;
        let mut collapsed = false;
        while left > 0 {
            // the segment length may have changed in the middle of a sequence
            let room =
                if task.data_in.burst < burst { burst } else { self.params.max_burst_length } - task.data_in.burst;
            let n = left.min(segment).min(room);
            let ends = n == left && last;
            let final_pdu = ends || n == room;
            task.data_in.burst = if final_pdu { 0 } else { task.data_in.burst + n };
            let data_sn = task.data_in.data_sn;
            let mut bhs = data_in_header(task, data_sn, at, final_pdu);
            task.data_in.data_sn = data_sn.wrapping_add(1);
            let carries_status = ends && collapse;
            if keep_log {
                task.log_data(at, n, final_pdu);
                task.data_in.unasked = task.data_in.unasked.saturating_add(n);
                // 11.7.2: no more often than once every MaxBurstLength bytes, or on the last Data-In of the command; never at
                // level 0
                if self.soliciting
                    && final_pdu
                    && !carries_status
                    && task.data_in.ack_request.is_none()
                    && (ends || task.data_in.unasked >= self.params.max_burst_length)
                {
                    let ttt = next_ttt(&mut self.next_ttt);
                    ask_for_acknowledgement(&mut bhs, task.lun, ttt);
                    task.data_in.ack_request = Some((data_sn, ttt));
                    task.data_in.unasked = 0;
                }
            }
            let mut mark = SendMark::DATA;
            if carries_status && let Some(finish) = &finish {
                collapsed = true;
                mark = SendMark::STATUS;
                put_status(&mut bhs, finish, c.stat_sn);
                task.data_in.status_sn = Some(data_sn);
                task.stat_sn = c.stat_sn;
                c.stat_sn = c.stat_sn.wrapping_add(1);
                // the window opens with the answer
                if std::mem::replace(&mut task.counted, true) {
                    // it answered before it was reassigned
                } else if task.immediate {
                    self.immediate_commands = self.immediate_commands.saturating_sub(1);
                } else if c.queue.len() < congested && c.unacknowledged.len() < congested {
                    self.window.complete(1);
                    max = max.wrapping_add(1);
                } else {
                    self.window_debt += 1;
                }
                task.state = TaskState::Responded;
            }
            bhs.set_exp_cmd_sn(exp);
            bhs.set_max_cmd_sn(max);
            c.queue.push(bhs, Payload::Task { slot, direction: Direction::In, offset: at, len: n }, Some(slot), mark);
            at += n;
            left -= n;
        }
        task.data_in.queued_to = task.data_in.queued_to.max(at);
        if collapsed {
            if keep_log {
                let (conn, stat_sn) = (task.conn, task.stat_sn);
                task.finish = finish;
                c.keep(stat_sn, Kept::Task(slot), self.limits.control_bytes);
                self.solicit_when_many(conn);
            }
        } else if let Some(finish) = finish {
            self.finish(slot, finish);
        }
    }
}

impl Task {
    /// Whether the last Data-In may carry this status (RFC 7143 11.7.3). The status of a bidirectional command MUST be in a SCSI
    /// Response; so must one with a SNACK Tag (11.16.3).
    #[inline]
    pub(super) fn may_carry_status(&self, finish: Option<&Finish>) -> bool {
        let plain = self.expected_write() == 0 && !self.fenced && !self.close_after && self.snack_tag == 0;
        plain && finish.is_some_and(|f| f.status == status::GOOD && f.response == 0)
    }

    /// Notes what the Data-In that was just numbered carries.
    pub(super) fn log_data(&mut self, offset: u32, len: u32, is_final: bool) {
        if self.data_in.forgotten || self.data_in.log.push(u64::from(offset), len, is_final).is_err() {
            // more than 256 runs: it goes on, and cannot be asked for again
            self.data_in.forgotten = true;
        }
    }

    /// As `log_data`, for an R2T.
    pub(super) fn log_r2t(&mut self) {
        self.data_in.r2ts += 1;
        if self.data_in.forgotten || self.data_in.log.push_r2t().is_err() {
            self.data_in.forgotten = true;
        }
    }
}
