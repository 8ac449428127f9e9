//! Data from the initiator: unsolicited data, R2T and what answers it (RFC 7143 11.7, 11.8, 13.10 to 13.19).

use blockwire_wire::opcode::reject;
use blockwire_wire::{Bhs, RESERVED_TAG};

use super::connection::Inbound;
use super::resend::r2t_header;
use super::respond::SendMark;
use super::session::{TargetEvent, TargetSession};
use super::task::{Condition, R2t, TaskKind, TaskState};
use crate::endpoint::Destination;
use crate::params::{ConnIndex, same_unit};
use crate::send_queue::Payload;
use crate::slab::Slot;

/// Numbers of Data-In and R2T that a task may use until no data is asked for again: they MUST NOT come round (4.2.2.4).
pub(super) const MOST_NUMBERS: u32 = 1 << 31;

impl TargetSession {
    /// Checks a Data-Out header against its task before its payload gets a place.
    pub(super) fn data_out_header(&mut self, conn: ConnIndex, bhs: &Bhs) -> (Inbound, Destination) {
        let refuse = |reason, what| (Inbound::Reject(reason, what), Destination::Discard);
        let tag = bhs.initiator_task_tag();
        let Some(slot) = self.tags.get(tag) else {
            // data that was on its way when its task ended is nobody's fault
            return if self.late.contains(tag, conn) {
                (Inbound::Ignore, Destination::Discard)
            } else {
                refuse(reject::INVALID_PDU_FIELD, "Data-Out for a task that is not in progress (RFC 7143 11.7)")
            };
        };
        let task = &mut self.tasks[slot];
        if task.kind != TaskKind::Scsi || task.conn != conn || task.frozen {
            // connection allegiance (4.2.2.1): data comes on the connection of its command
            let what =
                "Data-Out on a connection that its task is not allegiant to, or for no command (RFC 7143 4.2.2.1)";
            return refuse(reject::INVALID_PDU_FIELD, what);
        }
        let (offset, length, last) = (bhs.buffer_offset(), bhs.data_segment_length(), bhs.is_final());
        let ttt = bhs.target_transfer_tag();
        let recovers = self.params.error_recovery_level > 0;
        task.out.heard = self.now;
        let lun = task.lun;
        let mut reason = reject::PROTOCOL_ERROR;
        let out = &mut task.out;
        let wanted = task.finish.is_none() && out.condition.is_none() && task.state != TaskState::Responded;
        let problem = if ttt == RESERVED_TAG {
            if !out.unsolicited_open {
                // nothing more was to come unasked
                if task.state == TaskState::Responded || out.unsolicited_retired {
                    return (Inbound::Ignore, Destination::Discard);
                }
                out.condition.get_or_insert(Condition::UnexpectedUnsolicitedData);
                return refuse(
                    reject::PROTOCOL_ERROR,
                    "unsolicited Data-Out after its F bit, or where none may come (RFC 7143 13.10)",
                );
            }
            let end = u64::from(offset) + u64::from(length);
            let limit = u64::from(self.params.first_burst_length.min(task.expected));
            if end > limit {
                Some(Condition::IncorrectAmountOfData)
            } else if recovers && bhs.data_sn() < out.unsolicited_data_sn {
                return (Inbound::Ignore, Destination::Discard); // it was here already
            } else {
                let lost = recovers && bhs.data_sn() > out.unsolicited_data_sn;
                let place = !self.params.data_pdu_in_order
                    || if lost { offset >= out.unsolicited_next } else { offset == out.unsolicited_next };
                if (bhs.data_sn() == out.unsolicited_data_sn || lost)
                    && place
                    && !out.received.overlaps(u64::from(offset), u64::from(length))
                {
                    out.unsolicited_data_sn = bhs.data_sn();
                    out.unsolicited_next = offset + length;
                    None
                } else {
                    Some(Condition::ProtocolServiceCrcError)
                }
            }
        } else {
            let Some(r2t) = out.r2ts.iter_mut().find(|r| r.target_transfer_tag == ttt) else {
                if out.retired.contains(&ttt) {
                    return (Inbound::Ignore, Destination::Discard); // too late: it was asked for again
                }
                return refuse(
                    reject::INVALID_PDU_FIELD,
                    "Data-Out for a Target Transfer Tag that waits for none (RFC 7143 11.7.4)",
                );
            };
            let end = u64::from(offset) + u64::from(length);
            if !same_unit(bhs.lun(), lun) {
                // 4.2.5.3, 11.7.4: MUST be consistent with the command; 11.17.1, note 2
                reason = reject::INVALID_PDU_FIELD;
                Some(Condition::ProtocolServiceCrcError)
            } else if offset < r2t.offset || end > u64::from(r2t.offset) + u64::from(r2t.length) {
                Some(Condition::IncorrectAmountOfData)
            } else if recovers && bhs.data_sn() < r2t.next_data_sn {
                return (Inbound::Ignore, Destination::Discard); // it was here already
            } else {
                // 7.9: an out-of-order DataSN means that a PDU was lost. Above level 0 it is asked for again when the sequence is
                // over (7.8 a); otherwise the task ends with CHECK CONDITION (7.8 b).
                let lost = recovers && bhs.data_sn() > r2t.next_data_sn;
                let place =
                    !self.params.data_pdu_in_order || if lost { offset >= r2t.next } else { offset == r2t.next };
                if (bhs.data_sn() == r2t.next_data_sn || lost)
                    && place
                    && !out.received.overlaps(u64::from(offset), u64::from(length))
                {
                    r2t.next = offset + length;
                    r2t.next_data_sn = bhs.data_sn().wrapping_add(1);
                    None
                } else {
                    Some(Condition::ProtocolServiceCrcError)
                }
            }
        };
        if ttt == RESERVED_TAG {
            out.unsolicited_data_sn = out.unsolicited_data_sn.wrapping_add(1);
        }
        if let Some(condition) = problem {
            out.condition.get_or_insert(condition);
            let what = match condition {
                _ if reason == reject::INVALID_PDU_FIELD => {
                    "Data-Out with another LUN than that of its command (RFC 7143 4.2.5.3, 11.7.4)"
                }
                Condition::IncorrectAmountOfData => "Data-Out outside of what was asked for (RFC 7143 11.7.6, 13.14)",
                _ => "Data-Out out of order, or over bytes that came already (RFC 7143 7.9, 13.18)",
            };
            self.events.push_back(TargetEvent::Violation { conn, what, header: *bhs });
            let bad = Inbound::BadDataOut { slot, ttt, last, reason };
            return (bad, Destination::Discard);
        }
        let destination = if wanted { Self::task_destination(slot, offset) } else { Destination::Discard };
        (Inbound::DataOut { slot, ttt, offset, length, last }, destination)
    }

    pub(super) fn data_out_complete(&mut self, slot: Slot, ttt: u32, offset: u32, length: u32, last: bool) {
        let Some(task) = self.tasks.get_mut(slot) else {
            return;
        };
        let out = &mut task.out;
        if task.finish.is_none()
            && out.condition.is_none()
            && out.received.insert(u64::from(offset), u64::from(length)).is_err()
        {
            out.condition = Some(Condition::IncorrectAmountOfData);
        }
        self.data_out_closed(slot, ttt, last);
    }

    /// With an F bit a sequence is over, whatever came of it.
    pub(super) fn data_out_closed(&mut self, slot: Slot, ttt: u32, last: bool) {
        if !last {
            return;
        }
        let Some(task) = self.tasks.get_mut(slot) else {
            return;
        };
        let out = &mut task.out;
        if ttt == RESERVED_TAG {
            out.unsolicited_open = false;
        } else if let Some(at) = out.r2ts.iter().position(|r| r.target_transfer_tag == ttt) {
            let r2t = out.r2ts.remove(at);
            let whole = out.received.contains(u64::from(r2t.offset), u64::from(r2t.length));
            let recovers = self.params.error_recovery_level > 0 && out.condition.is_none();
            let numbers_left = task.data_in.data_sn < MOST_NUMBERS;
            if !whole && task.finish.is_none() && recovers && !(numbers_left && out.may_recover()) {
                // 7.8 b: asking again has led nowhere
                out.condition = Some(Condition::ProtocolServiceCrcError);
            } else if !whole && !recovers {
                out.condition.get_or_insert(Condition::IncorrectAmountOfData);
            }
        }
        let (open, answered) = (out.is_open(), task.finish.is_some());
        match task.state {
            TaskState::Active if !answered => self.events.push_back(TargetEvent::DataOut(slot)),
            TaskState::Active if !open => self.answer(slot),
            _ => {}
        }
    }

    pub(super) fn set_condition(&mut self, slot: Slot, condition: Condition) {
        if let Some(task) = self.tasks.get_mut(slot) {
            task.out.condition.get_or_insert(condition);
        }
    }

    /// R2Ts that may be sent for a task now (MaxOutstandingR2T, 13.17).
    #[must_use]
    pub fn r2t_room(&self, slot: Slot) -> u32 {
        let Some(task) = self.tasks.get(slot) else {
            return 0;
        };
        if task.frozen || task.state != TaskState::Active || task.finish.is_some() || task.out.condition.is_some() {
            return 0;
        }
        self.params.max_outstanding_r2t.saturating_sub(task.out.r2ts.len() as u32)
    }

    /// Asks for `length` bytes at `offset`, for which there is memory. At most MaxBurstLength at a time (13.13), and
    /// only with `r2t_room`. False: nothing was asked for.
    pub fn solicit(&mut self, slot: Slot, offset: u32, length: u32) -> bool {
        debug_assert!(length > 0 && length <= self.params.max_burst_length);
        if self.r2t_room(slot) == 0 {
            return false;
        }
        let target_transfer_tag = self.unused_ttt();
        let (exp, max) = (self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        let keep_log = self.params.error_recovery_level > 0;
        let Some(task) = self.tasks.get_mut(slot) else {
            return false;
        };
        if task.out.r2ts.capacity() == 0
            && let Some(spare) = self.spare_r2ts.pop()
        {
            task.out.r2ts = spare;
        }
        let r2t_sn = task.data_in.data_sn;
        task.data_in.data_sn = r2t_sn.wrapping_add(1);
        if keep_log {
            task.log_r2t();
        } else {
            task.data_in.r2ts += 1;
        }
        task.out.heard = self.now;
        let r2t = R2t { target_transfer_tag, r2t_sn, offset, length, next: offset, next_data_sn: 0 };
        let mut bhs = r2t_header(task, &r2t);
        task.out.r2ts.push(r2t);
        let conn = task.conn;
        bhs.set_exp_cmd_sn(exp);
        bhs.set_max_cmd_sn(max);
        if keep_log {
            self.watch_data(conn);
        }
        let c = self.conn(conn);
        // 11.8.3: the next StatSN, which is not advanced
        bhs.set_stat_sn(c.stat_sn);
        c.queue.push(bhs, Payload::None, Some(slot), SendMark::DATA);
        true
    }

    /// A Target Transfer Tag that no R2T and no ping of the session uses.
    pub(super) fn unused_ttt(&mut self) -> u32 {
        next_ttt(&mut self.next_ttt)
    }
}

/// The next Target Transfer Tag; never the reserved one (11.8.5).
#[inline]
pub(super) fn next_ttt(counter: &mut u32) -> u32 {
    // The counter comes round after 2^32 R2Ts; no R2T waits that long on a session that goes on.
    let ttt = *counter;
    *counter = if ttt == RESERVED_TAG - 1 { 0 } else { ttt + 1 };
    ttt
}
