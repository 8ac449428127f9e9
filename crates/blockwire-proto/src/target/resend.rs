//! What was sent, sent again: replicas with the old numbers (RFC 7143 11.16), or all of it anew (11.16.3, 7.2.2).

use blockwire_wire::bhs::FINAL;
use blockwire_wire::{Bhs, Opcode};

use super::data_in::{ask_for_acknowledgement, data_in_header, put_status, whole_segments};
use super::respond::{SendMark, scsi_response};
use super::session::TargetSession;
use super::task::{R2t, Task};
use crate::params::ConnIndex;
use crate::ranges::RangeSet;
use crate::retain::Kept;
use crate::send_queue::{Direction, Payload};
use crate::sequence::Numbered;
use crate::slab::Slot;

/// Header of an R2T with everything but StatSN, ExpCmdSN and MaxCmdSN.
pub(super) fn r2t_header(task: &Task, r2t: &R2t) -> Bhs {
    let mut bhs = Bhs::new(Opcode::R2t, FINAL);
    bhs.set_lun(task.lun);
    bhs.set_initiator_task_tag(task.initiator_task_tag);
    bhs.set_target_transfer_tag(r2t.target_transfer_tag);
    bhs.set_data_sn(r2t.r2t_sn);
    bhs.set_buffer_offset(r2t.offset);
    bhs.set_desired_data_transfer_length(r2t.length);
    bhs
}

impl TargetSession {
    fn push_again(&mut self, conn: ConnIndex, mut bhs: Bhs, payload: Payload, slot: Option<Slot>) {
        // 11.16: exact replicas, but for ExpCmdSN and MaxCmdSN, which MUST be the current ones
        bhs.set_exp_cmd_sn(self.window.exp_cmd_sn());
        bhs.set_max_cmd_sn(self.window.max_cmd_sn());
        self.conn(conn).queue.push(bhs, payload, slot, SendMark::AGAIN);
        if let Some(slot) = slot
            && let Some(task) = self.tasks.get_mut(slot)
        {
            task.resent = true;
        }
    }

    /// Takes replicas of these numbers that still wait to be sent out of the queue, so that asking twice does not send them
    /// twice. What another SNACK asked for stays.
    pub(super) fn drop_replicas(&mut self, slot: Slot, from: u32, to: u32) {
        let numbered = |opcode: u8| opcode == Opcode::DataIn as u8 || opcode == Opcode::R2t as u8;
        self.drop_again(slot, |bhs| numbered(bhs.0[0]) && (from..to).contains(&bhs.data_sn()));
    }

    /// As `drop_replicas`, for what carries the status.
    pub(super) fn drop_status_replica(&mut self, slot: Slot) {
        match self.tasks.get(slot).and_then(|t| t.data_in.status_sn) {
            Some(number) => self.drop_replicas(slot, number, number.saturating_add(1)),
            None => self.drop_again(slot, |bhs| bhs.0[0] == Opcode::ScsiResponse as u8),
        }
    }

    fn drop_again(&mut self, slot: Slot, is_it: impl Fn(&Bhs) -> bool) {
        let Some(task) = self.tasks.get(slot).filter(|t| t.resent) else { return };
        let conn = task.conn;
        let again = |pdu: &crate::OutPdu| pdu.mark == SendMark::AGAIN && pdu.slot == Some(slot) && is_it(&pdu.bhs());
        self.conn(conn).queue.drop_unsent(again, |_| ());
    }

    /// A replica of what carried this DataSN or R2TSN. False: it is not there any more (an R2T that was answered).
    pub(super) fn resend_number(&mut self, slot: Slot, number: u32) -> bool {
        let Some(task) = self.tasks.get(slot) else { return false };
        let conn = task.conn;
        match task.data_in.log.get(number) {
            Some(Numbered::Data { offset, len, is_final }) => {
                let offset = offset as u32;
                let mut bhs = data_in_header(task, number, offset, is_final);
                if let Some((asked, ttt)) = task.data_in.ack_request
                    && asked == number
                {
                    ask_for_acknowledgement(&mut bhs, task.lun, ttt);
                }
                if task.data_in.status_sn == Some(number)
                    && let Some(finish) = &task.finish
                {
                    put_status(&mut bhs, finish, task.stat_sn);
                }
                let payload = Payload::Task { slot, direction: Direction::In, offset, len };
                self.push_again(conn, bhs, payload, Some(slot));
                true
            }
            Some(Numbered::R2t) => {
                let Some(r2t) = task.out.r2ts.iter().find(|r| r.r2t_sn == number) else { return false };
                let mut bhs = r2t_header(task, r2t);
                // 11.16: an R2T MUST carry the current StatSN
                bhs.set_stat_sn(self.connection(conn).map_or(0, super::Connection::stat_sn));
                self.push_again(conn, bhs, Payload::None, Some(slot));
                true
            }
            None => false,
        }
    }

    /// A replica of the numbered PDU with this StatSN. False: it was dropped for want of room.
    pub(super) fn resend_status(&mut self, conn: ConnIndex, stat_sn: u32) -> bool {
        let Some(kept) = self.conn(conn).unacknowledged.find(stat_sn).cloned() else { return false };
        match kept {
            Kept::Gone => false,
            Kept::Pdu(pdu) => {
                let (bhs, data) = *pdu;
                let payload = if data.is_empty() { Payload::None } else { Payload::Inline(data) };
                self.push_again(conn, bhs, payload, None);
                true
            }
            Kept::Task(slot) => {
                let Some(task) = self.tasks.get(slot) else { return false };
                if let Some(number) = task.data_in.status_sn {
                    return !task.data_in.forgotten && self.resend_number(slot, number);
                }
                self.resend_response(slot);
                true
            }
        }
    }

    /// The SCSI Response of a task again, with the same StatSN and its last SNACK Tag (11.16.3).
    pub(super) fn resend_response(&mut self, slot: Slot) {
        let Some(task) = self.tasks.get(slot) else { return };
        let (mut bhs, payload) = scsi_response(task);
        bhs.set_stat_sn(task.stat_sn);
        let conn = task.conn;
        self.push_again(conn, bhs, payload, Some(slot));
    }

    /// Sends ranges of a read again with new numbers and the segment length of the connection. Each range ends a sequence.
    pub(super) fn queue_ranges(&mut self, slot: Slot, ranges: &RangeSet) {
        let Some(params) = self.tasks.get(slot).and_then(|t| self.connection(t.conn)).map(|c| &c.params) else {
            return;
        };
        let (segment, burst) = whole_segments(params.max_send_data_segment_length, self.params.max_burst_length);
        for (start, end) in ranges.iter() {
            let mut at = start;
            while at < end {
                let left = u64::from(burst) - (at - start) % u64::from(burst);
                let n = (end - at).min(u64::from(segment)).min(left);
                let is_final = at + n == end || n == left;
                self.queue_data_in(slot, at as u32, n as u32, is_final, None);
                at += n;
            }
        }
        self.tasks[slot].data_in.burst = 0;
    }

    /// What was kept of a task's Data-In is gone, for want of room.
    pub fn forget_data(&mut self, slot: Slot) {
        if let Some(task) = self.tasks.get_mut(slot) {
            task.data_in.forgotten = true;
        }
    }
}
