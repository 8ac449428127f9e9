//! Answers of the control plane, and what happens together with them.

use blockwire_proto::Slot;
use blockwire_proto::target::{Finish, Residual, TaskKind};
use blockwire_wire::opcode::status;
use blockwire_wire::{BHS_LEN, Bhs};

use super::context::Context;
use super::work::{Phase, Piece, PieceMemory};
use crate::calls::{Answer, Effects};
use crate::events::{Event, TaskTag};

impl Context<'_> {
    /// `api.reply`. A task that ended meanwhile needs no answer.
    pub(super) fn reply(&mut self, tag: TaskTag, answer: Answer, effects: &Effects) {
        let Some(slot) = self.session.slot_of(tag) else { return };
        if self.session.work_of(slot).is_none_or(|w| w.phase != Phase::Control) {
            return;
        }
        self.session.proto.set_effects(slot, effects.fence, effects.close);
        if effects.rebind.is_some() {
            self.session.proto.set_reassigns(slot);
        }
        let conn = self.session.proto.task(slot).filter(|t| !t.frozen).map(|t| t.conn);
        match answer {
            Answer::Collect { length } => self.collect(slot, length),
            Answer::Resume => {
                if !self.resume(slot) {
                    self.finish_status(slot, status::BUSY);
                }
            }
            Answer::Status { ref data, .. } if conn.is_none() && !data.is_empty() => {
                let work = self.session.work_mut(slot);
                work.phase = Phase::Done;
                work.deferred = Some(Box::new(answer));
            }
            Answer::Status { status, response, sense, data } => self.answer(slot, status, response, sense, data),
            Answer::Pdu { mut header, data } => {
                if let Some((tag, cid)) = effects.rebind
                    && header[2] == 0
                {
                    header[2] = self.reassign_response(tag, cid);
                }
                self.control_response(slot, header, data);
            }
        }
        if let Some(conn) = conn {
            if effects.max_recv_data_segment_length.is_some() || effects.max_send_data_segment_length.is_some() {
                let (receive, send) = (effects.max_recv_data_segment_length, effects.max_send_data_segment_length);
                self.session.proto.set_segment_lengths(conn, receive, send);
            }
            if let Some((tag, cid)) = effects.rebind {
                // the response was queued first (11.5.1)
                self.rebind(tag, cid, conn, effects.exp_data_sn);
            }
            self.wake(conn);
        }
        self.drain_events();
    }

    /// Whether there is such a task, only the plane knows: the Response of a TASK REASSIGN that would be granted (11.6.1).
    fn reassign_response(&self, initiator_task_tag: u32, cid: Option<u16>) -> u8 {
        const FUNCTION_COMPLETE: u8 = 0;
        const TASK_DOES_NOT_EXIST: u8 = 1;
        const TASK_STILL_ALLEGIANT: u8 = 3;
        const FUNCTION_REJECTED: u8 = 255;
        let task = self.session.proto.find(initiator_task_tag).and_then(|slot| self.session.proto.task(slot));
        match task {
            None => TASK_DOES_NOT_EXIST,
            // 11.5.1: requests other than SCSI commands MUST NOT be reassigned
            Some(task) if task.kind != TaskKind::Scsi => FUNCTION_REJECTED,
            Some(task) if task.frozen && cid.is_none_or(|cid| task.cid == cid) => FUNCTION_COMPLETE,
            Some(_) => TASK_STILL_ALLEGIANT,
        }
    }

    fn rebind(
        &mut self, initiator_task_tag: u32, cid: Option<u16>, conn: blockwire_proto::ConnIndex, exp_data_sn: u32,
    ) {
        let Some(slot) = self.session.proto.find(initiator_task_tag) else { return };
        if self.session.proto.task(slot).is_none_or(|t| !t.frozen || cid.is_some_and(|cid| t.cid != cid)) {
            return;
        }
        match self.session.proto.rebind(slot, conn, exp_data_sn) {
            Ok(what) => self.rebound(slot, conn, what),
            Err(error) => {
                let (session, cid) = (self.session.id, self.cid(conn));
                let what = format!("a task could not be reassigned: {error:?} (RFC 7143 11.5.7)");
                self.events.push(Event::ProtocolViolation { session, cid, what, header: [0; BHS_LEN] });
            }
        }
    }

    fn control_response(&mut self, slot: Slot, header: [u8; BHS_LEN], data: Vec<u8>) {
        self.session.work_mut(slot).phase = Phase::Done;
        if !self.session.proto.respond_control(slot, Bhs(header), data)
            && self.session.proto.task(slot).is_some_and(|t| t.kind == TaskKind::Scsi)
        {
            // a PDU is no answer to a SCSI command: the target failed (11.4.3)
            self.finish(slot, Finish { response: 1, ..Finish::default() });
        }
        self.wake_task(slot);
    }

    /// An answer that waited for the reassignment of its task.
    pub(super) fn answer_deferred(&mut self, slot: Slot) {
        let deferred = self.session.work_mut(slot).deferred.take();
        if let Some(Answer::Status { status, response, sense, data }) = deferred.map(|answer| *answer) {
            self.answer(slot, status, response, sense, data);
        }
    }

    /// Status, with data before it: cut to what the initiator expects, with the residual.
    fn answer(&mut self, slot: Slot, scsi_status: u8, response: u8, sense: Vec<u8>, mut data: Vec<u8>) {
        let Some(task) = self.session.proto.task(slot) else { return };
        if task.kind != TaskKind::Scsi {
            return;
        }
        let (read_expected, write_expected) = (task.expected_read(), task.expected_write());
        let bidirectional = task.read && task.write;
        let used = self.session.work_of(slot).and_then(|w| w.collected).unwrap_or(write_expected);
        let read_residual = Residual::of(read_expected, data.len() as u64);
        let write_residual =
            if scsi_status == status::GOOD { Residual::of(write_expected, u64::from(used)) } else { Residual::None };
        let finish = Finish {
            status: scsi_status,
            response,
            sense,
            residual: if write_expected > 0 || bidirectional { write_residual } else { read_residual },
            bidirectional_residual: if bidirectional { read_residual } else { Residual::None },
        };
        data.truncate(read_expected as usize);
        if data.is_empty() {
            return self.finish(slot, finish);
        }
        let len = data.len() as u32;
        let work = self.session.work_mut(slot);
        work.phase = Phase::Done;
        work.done = u64::from(len);
        work.total = len;
        work.pieces.push(Piece { offset: 0, len, memory: PieceMemory::Heap(data.into_boxed_slice()) });
        self.retained(slot, len);
        self.session.proto.send_data(slot, 0, len, true, Some(finish));
        self.wake_task(slot);
    }
}
