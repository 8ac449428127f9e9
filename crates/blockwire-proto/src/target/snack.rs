//! SNACK: what the initiator asks for again, and what it acknowledges (RFC 7143 11.16).

use blockwire_wire::opcode::reject;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG};

use super::connection::Inbound;
use super::respond::SendMark;
use super::session::{TargetEvent, TargetSession};
use super::task::{TaskKind, TaskState};
use crate::endpoint::{Destination, Fatal};
use crate::params::ConnIndex;
use crate::send_queue::{OutPdu, Payload};
use crate::sequence::Numbered;
use crate::slab::Slot;

/// Types of SNACK (11.16.1).
const DATA_R2T: u8 = 0;
const STATUS: u8 = 1;
const DATA_ACK: u8 = 2;
const R_DATA: u8 = 3;

/// A Data-In or R2T with a number below this one.
fn carries_below(pdu: &OutPdu, number: u32) -> bool {
    let bhs = pdu.bhs();
    matches!(bhs.opcode(), Some(Opcode::DataIn | Opcode::R2t)) && bhs.data_sn() < number
}

fn kind(bhs: &Bhs) -> u8 {
    bhs.flags() & 0x0f
}

impl TargetSession {
    /// 11.16: above error recovery level 0 all types MUST be supported. At level 0 nothing is kept that could be sent again.
    pub(super) fn snack_header(&self, bhs: &Bhs) -> (Inbound, Destination) {
        let inbound = if self.params.error_recovery_level == 0 {
            Inbound::Reject(reject::COMMAND_NOT_SUPPORTED, "a SNACK at ErrorRecoveryLevel 0 (RFC 7143 11.16)")
        } else if bhs.data_segment_length() > 0 {
            Inbound::Reject(reject::INVALID_PDU_FIELD, "a data segment in a SNACK (RFC 7143 11.16)")
        } else if kind(bhs) > R_DATA {
            Inbound::Reject(reject::PROTOCOL_ERROR, "a reserved type of SNACK (RFC 7143 11, 11.16.1)")
        } else {
            Inbound::Snack
        };
        (inbound, Destination::Discard)
    }

    /// Whether a SNACK has to be looked at before its ExpStatSN, which may release the task it is about.
    pub(super) fn is_data_ack(bhs: &Bhs) -> bool {
        kind(bhs) == DATA_ACK
    }

    pub(super) fn snack(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<(), Fatal> {
        match kind(bhs) {
            DATA_R2T => self.data_snack(conn, bhs),
            STATUS => self.status_snack(conn, bhs),
            DATA_ACK => self.data_ack(conn, bhs),
            _ => self.r_data_snack(conn, bhs),
        }
    }

    fn refuse(&mut self, conn: ConnIndex, bhs: &Bhs, reason: u8, what: &'static str) -> Result<(), Fatal> {
        self.events.push_back(TargetEvent::Violation { conn, what, header: *bhs });
        self.reject(conn, bhs, reason)
    }

    /// The task that a Data, R2T or R-Data SNACK names, if it may be asked for on this connection.
    fn snacked(&self, conn: ConnIndex, bhs: &Bhs) -> Option<Slot> {
        let slot = self.tags.get(bhs.initiator_task_tag())?;
        let task = &self.tasks[slot];
        let there = matches!(task.state, TaskState::Active | TaskState::Responded);
        (task.kind == TaskKind::Scsi && there && !task.frozen && task.conn == conn).then_some(slot)
    }

    /// Data that was dropped cannot be sent again: SNACK Reject, and CHECK CONDITION for a task without status (7.8 a.1).
    fn reject_snack(&mut self, conn: ConnIndex, bhs: &Bhs, slot: Option<Slot>) -> Result<(), Fatal> {
        self.reject(conn, bhs, reject::SNACK_REJECT)?;
        if let Some(slot) = slot
            && self.tasks.get(slot).is_some_and(|t| t.state == TaskState::Active && t.finish.is_none())
        {
            self.events.push_back(TargetEvent::SnackRejected(slot));
        }
        Ok(())
    }

    /// Data/R2T SNACK: replicas of a run of Data-In and R2T PDUs.
    fn data_snack(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<(), Fatal> {
        let (begin, length) = (bhs.beg_run(), bhs.run_length());
        if bhs.target_transfer_tag() != RESERVED_TAG {
            let what = "Data SNACK with a Target Transfer Tag (RFC 7143 11.16.5)";
            return self.refuse(conn, bhs, reject::INVALID_PDU_FIELD, what);
        }
        let Some(slot) = self.snacked(conn, bhs) else {
            let what = "Data SNACK for a task that is not here (RFC 7143 11.16)";
            return self.refuse(conn, bhs, reject::PROTOCOL_ERROR, what);
        };
        let task = &self.tasks[slot];
        let (first, next) = (task.data_in.log.first(), task.data_in.data_sn);
        let (from, to) = match (begin, length) {
            // 11.16.6: all that is not acknowledged, which may be nothing
            (0, 0) => (first, next),
            (_, 0) => (begin, next),
            _ => (begin, begin.saturating_add(length)),
        };
        let open = begin == 0 && length == 0;
        let answered =
            |sn| task.data_in.log.get(sn) == Some(Numbered::R2t) && !task.out.r2ts.iter().any(|r| r.r2t_sn == sn);
        // 11.16: what was not sent or is acknowledged MUST be rejected as a protocol error; an R2T is acknowledged by its data
        let wrong = from < first || to > next || (from >= to && !open);
        if wrong || (length > 0 && !task.data_in.forgotten && (from..to).any(answered)) {
            let what = "Data SNACK for numbers never sent or acknowledged already (RFC 7143 11.16)";
            self.events.push_back(TargetEvent::Violation { conn, what, header: *bhs });
            // 11.17.2: with the next number
            return self.reject_with(conn, bhs, reject::PROTOCOL_ERROR, next);
        }
        if task.data_in.forgotten {
            return self.reject_snack(conn, bhs, Some(slot));
        }
        self.drop_replicas(slot, from, to);
        for number in from..to {
            self.resend_number(slot, number);
        }
        Ok(())
    }

    /// Status SNACK: replicas of a run of numbered responses of this connection.
    fn status_snack(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<(), Fatal> {
        if bhs.initiator_task_tag() != RESERVED_TAG || bhs.target_transfer_tag() != RESERVED_TAG {
            let what = "Status SNACK with a tag (RFC 7143 11.16.4, 11.16.5)";
            return self.refuse(conn, bhs, reject::INVALID_PDU_FIELD, what);
        }
        let c = self.conn(conn);
        let (first, next) = (c.acknowledged, c.sent_stat_sn);
        let (begin, length) = (bhs.beg_run(), bhs.run_length());
        let (from, to) = match (begin, length) {
            (0, 0) => (first, next),
            (_, 0) => (begin, next),
            _ => (begin, begin.wrapping_add(length)),
        };
        let open = begin == 0 && length == 0;
        // as distances from the first: a run across half of the numbers has its end before its beginning in serial arithmetic
        let (begins, ends) = (from.wrapping_sub(first), to.wrapping_sub(first));
        let inside = ends <= next.wrapping_sub(first) && (begins < ends || (open && begins == ends));
        if !inside {
            let what = "Status SNACK for numbers never sent or acknowledged already (RFC 7143 11.16)";
            return self.refuse(conn, bhs, reject::PROTOCOL_ERROR, what);
        }
        // one that asks twice gets what still waits once
        self.conn(conn).queue.drop_unsent(|pdu| pdu.mark == SendMark::AGAIN && pdu.slot.is_none(), |_| ());
        let mut number = from;
        let mut lost = false;
        while number != to {
            if let Some(crate::retain::Kept::Task(slot)) = self.conn(conn).unacknowledged.find(number) {
                let slot = *slot;
                self.drop_status_replica(slot);
            }
            lost |= !self.resend_status(conn, number);
            number = number.wrapping_add(1);
        }
        if lost { self.reject_snack(conn, bhs, None) } else { Ok(()) }
    }

    /// DataACK: Data-In below BegRun arrived; its memory is free (11.16.2).
    fn data_ack(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<(), Fatal> {
        let ttt = bhs.target_transfer_tag();
        if bhs.initiator_task_tag() != RESERVED_TAG || ttt == RESERVED_TAG || bhs.run_length() != 0 {
            let what =
                "DataACK with an Initiator Task Tag or a RunLength, or without Target Transfer Tag (RFC 7143 11.16)";
            return self.refuse(conn, bhs, reject::INVALID_PDU_FIELD, what);
        }
        let asked = |t: &super::Task| t.conn == conn && !t.frozen && t.data_in.ack_request.is_some_and(|a| a.1 == ttt);
        let found = self.tasks.iter().find(|(_, t)| asked(t)).map(|(slot, _)| slot);
        let Some(slot) = found else {
            let what = "DataACK for data whose acknowledgement was not asked for (RFC 7143 11.16.2)";
            return self.refuse(conn, bhs, reject::INVALID_DATA_ACK, what);
        };
        let task = &self.tasks[slot];
        if bhs.lun() != task.lun {
            // 11.17.1, note 2: the LUN qualifies the tag
            let what = "DataACK whose LUN is not that of its Target Transfer Tag (RFC 7143 11.16.5)";
            return self.refuse(conn, bhs, reject::INVALID_PDU_FIELD, what);
        }
        let number = bhs.beg_run();
        if number <= task.data_in.log.first() || number > task.data_in.data_sn {
            let what = "DataACK for numbers never sent or acknowledged already (RFC 7143 11.16.2)";
            return self.refuse(conn, bhs, reject::INVALID_DATA_ACK, what);
        }
        if self.first_unsent(conn, slot).is_some_and(|unsent| unsent < number) {
            let what = "DataACK for numbers that were not sent yet (RFC 7143 11.16.2)";
            return self.refuse(conn, bhs, reject::INVALID_DATA_ACK, what);
        }
        self.tasks[slot].data_in.ack_request = None;
        // replicas of what arrived are not sent: what they carry is free
        let arrived =
            |pdu: &OutPdu| pdu.slot == Some(slot) && pdu.mark == SendMark::AGAIN && carries_below(pdu, number);
        self.conn(conn).queue.drop_unsent(arrived, |_| ());
        self.acknowledge_data(slot, number);
        Ok(())
    }

    /// The lowest DataSN or R2TSN of a task that waits to be sent for the first time; one that is begun waits too.
    fn first_unsent(&mut self, conn: ConnIndex, slot: Slot) -> Option<u32> {
        let waiting = self.conn(conn).queue.iter().filter(|pdu| pdu.slot == Some(slot) && pdu.mark != SendMark::AGAIN);
        let numbers = waiting.map(OutPdu::bhs).filter(|b| matches!(b.opcode(), Some(Opcode::DataIn | Opcode::R2t)));
        numbers.map(|b| b.data_sn()).min()
    }

    /// Everything below this DataSN arrived.
    pub(super) fn acknowledge_data(&mut self, slot: Slot, data_sn: u32) {
        let task = &mut self.tasks[slot];
        task.data_in.log.acknowledge(data_sn);
        let queued_to = task.data_in.queued_to;
        let mut offset = task.data_in.log.lowest_offset().map_or(queued_to, |lowest| queued_to.min(lowest as u32));
        // a PDU that is begun has to be finished: what it carries stays in place
        let (conn, forgotten) = (task.conn, task.data_in.forgotten);
        if let Some(Payload::Task { slot: begun, offset: from, .. }) = self.conn(conn).queue.get(0).map(|p| &p.payload)
            && *begun == slot
        {
            offset = offset.min(*from);
        }
        if !forgotten {
            self.events.push_back(TargetEvent::Acknowledged { slot, offset });
        }
    }

    /// R-Data SNACK: all data that is not acknowledged again, in segments as they are now (11.16.3).
    fn r_data_snack(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<(), Fatal> {
        let tag = bhs.target_transfer_tag();
        if tag == 0 || tag == RESERVED_TAG || bhs.beg_run() != 0 || bhs.run_length() != 0 {
            let what = "R-Data SNACK with a run, or without SNACK Tag (RFC 7143 11.16.5, 11.16.6)";
            return self.refuse(conn, bhs, reject::INVALID_PDU_FIELD, what);
        }
        let Some(slot) = self.snacked(conn, bhs).filter(|slot| self.tasks[*slot].expected_read() > 0) else {
            let what = "R-Data SNACK for a task that is not here or does not read (RFC 7143 11.16)";
            return self.refuse(conn, bhs, reject::PROTOCOL_ERROR, what);
        };
        if self.tasks[slot].data_in.forgotten {
            return self.reject_snack(conn, bhs, Some(slot));
        }
        // what waits to be sent in old segments goes; a PDU with status keeps its place in the numbers and goes out
        self.conn(conn).queue.drop_unsent(
            |pdu| {
                pdu.slot == Some(slot)
                    && (pdu.mark == SendMark::AGAIN || (pdu.mark == SendMark::DATA && !pdu.payload.is_empty()))
            },
            |_| (),
        );
        let task = &mut self.tasks[slot];
        // the Response MUST carry this tag, and no other PDU the status
        task.snack_tag = tag;
        task.data_in.status_sn = None;
        let ranges = task.rewind_data();
        let responded = task.state == TaskState::Responded;
        self.queue_ranges(slot, &ranges);
        if responded {
            self.resend_response(slot);
        }
        Ok(())
    }
}
