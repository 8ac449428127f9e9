//! Data to the initiator, cut into PDUs and sequences (RFC 7143 11.7, 13.12, 13.13).

use blockwire_wire::bhs::{FINAL, OVERFLOW, STATUS_PRESENT, UNDERFLOW};
use blockwire_wire::opcode::status;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG};

use super::respond::SendMark;
use super::session::TargetSession;
use super::task::{Finish, Residual, TaskState};
use crate::send_queue::{Direction, Payload};
use crate::slab::Slot;

impl TargetSession {
    /// Queues `len` bytes of a task's read at `offset`. Pieces come in order. `last` says that no data follows; with
    /// `finish` the task ends: in the last Data-In where RFC 7143 11.7.3 allows it, otherwise in a SCSI Response.
    ///
    /// The bytes stay in place until the PDUs are sent and, above error recovery level 0, until `Released`.
    pub fn send_data(&mut self, slot: Slot, offset: u32, len: u32, last: bool, finish: Option<Finish>) {
        let Some(task) = self.tasks.get_mut(slot) else {
            return;
        };
        if task.state != TaskState::Active || task.frozen {
            return;
        }
        debug_assert!(finish.is_none() || last);
        let plain = task.expected_write() == 0 && self.fence.is_clear() && !task.fenced && !task.close_after;
        let collapse = plain && finish.as_ref().is_some_and(|f| f.status == status::GOOD && f.response == 0);
        let keep_log = self.params.error_recovery_level > 0;
        let max_burst = self.params.max_burst_length;
        let (exp, mut max) = (self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        let c = self.conns[task.conn].as_deref_mut().expect("a task that is not frozen has its connection");
        let segment = c.params.max_send_data_segment_length;
        let mut at = offset;
        let mut left = len;
        let mut collapsed = false;
        while left > 0 {
            let room = max_burst - task.data_in.burst;
            let n = left.min(segment).min(room);
            let ends = n == left && last;
            let final_pdu = ends || n == room;
            task.data_in.burst = if final_pdu { 0 } else { task.data_in.burst + n };
            let mut bhs = Bhs::new(Opcode::DataIn, if final_pdu { FINAL } else { 0 });
            bhs.set_initiator_task_tag(task.initiator_task_tag);
            bhs.set_target_transfer_tag(RESERVED_TAG);
            bhs.set_data_sn(task.data_in.data_sn);
            bhs.set_buffer_offset(at);
            task.data_in.data_sn += 1;
            if keep_log && task.data_in.log.push(u64::from(at), n).is_err() {
                // cannot happen: segments of a connection are of one length but for the last of a burst or piece, and pieces
                // are few; without a log entry the task can still be sent, only not resumed in its middle
                task.data_in.log.clear();
            }
            let mut mark = SendMark::DATA;
            if ends
                && collapse
                && let Some(finish) = &finish
            {
                collapsed = true;
                mark = SendMark::STATUS;
                let mut flags = FINAL | STATUS_PRESENT;
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
                bhs.set_stat_sn(c.stat_sn);
                task.stat_sn = c.stat_sn;
                c.stat_sn = c.stat_sn.wrapping_add(1);
                // the window opens with the answer
                if std::mem::replace(&mut task.counted, true) {
                    // it answered before it was reassigned
                } else if task.immediate {
                    self.immediate_commands = self.immediate_commands.saturating_sub(1);
                } else if c.queue.len() < self.limits.command_window as usize * 4 {
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
        task.data_in.queued_to = at;
        if collapsed {
            if keep_log {
                task.finish = finish;
                c.unacknowledged.push(task.stat_sn, slot);
            }
        } else if let Some(finish) = finish {
            self.finish(slot, finish);
        }
    }
}
