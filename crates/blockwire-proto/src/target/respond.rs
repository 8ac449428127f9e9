//! Answers: SCSI Response, responses to control requests, Reject, and the Response Fence.

use blockwire_wire::bhs::{BIDI_OVERFLOW, BIDI_UNDERFLOW, FINAL, OVERFLOW, UNDERFLOW};
use blockwire_wire::opcode::function;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG};

use super::session::{TargetEvent, TargetSession};
use super::task::{Finish, Residual, Task, TaskKind, TaskState};
use crate::endpoint::Fatal;
use crate::fence::{Cleared, Fence};
use crate::params::ConnIndex;
use crate::retain::Kept;
use crate::send_queue::Payload;
use crate::slab::Slot;

/// What a queued PDU means to this role (`OutPdu::mark`).
#[derive(Debug)]
pub struct SendMark;

impl SendMark {
    /// Data-In without status, or R2T.
    pub const DATA: u32 = 0;
    /// The answer that ends a task.
    pub const STATUS: u32 = 1;
    /// The answer that ends a task, after which the connection is closed.
    pub const STATUS_AND_CLOSE: u32 = 2;
    /// A ping answered or a Reject: counted against their bound.
    pub const SIDE: u32 = 3;
    /// An unsolicited PDU of the control plane.
    pub const UNSOLICITED: u32 = 4;
    /// An unsolicited PDU after which the connection is closed.
    pub const UNSOLICITED_AND_CLOSE: u32 = 5;
    /// Our own ping, or word of a wider command window.
    pub const PING: u32 = 6;
    /// A replica of what was sent before: it has an old number or none.
    pub const AGAIN: u32 = 7;
}

impl TargetSession {
    /// Says that the answer to a task raises the Response Fence or closes the connection; before `finish`, `send_data` or
    /// `respond_control`.
    pub fn set_effects(&mut self, slot: Slot, fence: bool, close: bool) {
        if let Some(task) = self.tasks.get_mut(slot) {
            task.fenced |= fence;
            task.close_after |= close;
        }
    }

    /// The answer to a control request establishes a new allegiance; before `respond_control`.
    pub fn set_reassigns(&mut self, slot: Slot) {
        if let Some(task) = self.tasks.get_mut(slot) {
            task.reassigns = true;
        }
    }

    /// Ends a SCSI task. The response waits until the initiator has sent all data that it was asked for or announced
    /// (11.17.1), and for the fence. False when the task has an answer already or is no more.
    pub fn finish(&mut self, slot: Slot, finish: Finish) -> bool {
        self.finish_with(slot, |place| *place = Some(finish))
    }

    /// As `finish`, with GOOD. Made in its place: a record that was just written field by field is not copied, which would
    /// wait until the processor has written out what a RAM store took before it.
    #[inline]
    pub fn finish_good(&mut self, slot: Slot, residual: Residual) -> bool {
        self.finish_with(slot, |place| place.insert(Finish::default()).residual = residual)
    }

    #[inline]
    fn finish_with(&mut self, slot: Slot, put: impl FnOnce(&mut Option<Finish>)) -> bool {
        let Some(task) = self.tasks.get_mut(slot) else {
            return false;
        };
        if task.kind != TaskKind::Scsi || task.state != TaskState::Active || task.finish.is_some() {
            return false;
        }
        put(&mut task.finish);
        if !task.frozen && !task.out.is_open() {
            self.answer(slot);
        }
        true
    }

    /// Answers a control request: a header with its opcode-specific fields, and data. Filled in here: Initiator Task Tag,
    /// StatSN, ExpCmdSN, MaxCmdSN, lengths.
    pub fn respond_control(&mut self, slot: Slot, header: Bhs, data: Vec<u8>) -> bool {
        let Some(task) = self.tasks.get_mut(slot) else {
            return false;
        };
        if task.kind != TaskKind::Control || task.state != TaskState::Active || task.parked_control.is_some() {
            return false;
        }
        task.parked_control = Some(Box::new((header, data)));
        if !task.frozen {
            self.answer(slot);
        }
        true
    }

    /// Sends the answer of a task, or parks it behind the fence.
    pub(super) fn answer(&mut self, slot: Slot) {
        let task = &self.tasks[slot];
        if is_reassignment(task) || task.reassigns {
            // it is no response of the SCSI layer, and MUST come before what the reassigned task sends (11.5.1)
            self.send_answer(slot);
        } else if self.is_ahead(slot) {
            self.send_ahead(slot);
        } else if self.fence.is_clear() {
            if !task.fenced {
                self.send_answer(slot);
            } else {
                self.raise_fence(slot);
            }
        } else if !self.parked.contains(&slot) && self.fenced != Some(slot) {
            // 4.2.2.3.3 d: MUST be held until the fence is cleared
            self.parked.push_back(slot);
        }
    }

    fn raise_fence(&mut self, slot: Slot) {
        self.ahead = self.owed_before(slot);
        // 4.2.2.3.3 a: with one connection the stream keeps the order
        let several = self.live_connections() > 1;
        if !several && self.ahead.is_empty() {
            self.send_answer(slot);
            return;
        }
        let marks: Vec<_> = self
            .conns
            .iter()
            .enumerate()
            .filter_map(|(i, c)| c.as_ref().map(|c| (i, c)))
            .filter(|(_, c)| several && c.acknowledged != c.stat_sn)
            .map(|(i, c)| (i, c.stat_sn))
            .collect();
        self.fenced = Some(slot);
        for &(conn, _) in &marks {
            self.solicit_acknowledgement(conn);
        }
        if self.fence.raise(marks.into_iter()) && self.ahead.is_empty() {
            self.send_fenced();
        }
    }

    /// Tasks of the logical unit whose answer is decided (TASK ABORTED status after a reset, say) and waits for data that the
    /// initiator was asked for: the unit attention that tells of the reset MUST NOT pass them (4.2.3.6).
    fn owed_before(&self, slot: Slot) -> Vec<Slot> {
        let fenced = &self.tasks[slot];
        let owed = |t: &Task| {
            t.kind == TaskKind::Scsi
                && t.state == TaskState::Active
                && !t.frozen
                && t.finish.is_some()
                && t.out.is_open()
                && t.lun == fenced.lun
        };
        if fenced.kind != TaskKind::Scsi {
            return Vec::new();
        }
        self.tasks.iter().filter(|(other, t)| *other != slot && owed(t)).map(|(other, _)| other).collect()
    }

    fn is_ahead(&self, slot: Slot) -> bool {
        self.ahead.contains(&slot)
    }

    /// An answer that the fenced one waits for. It has to be acknowledged itself before that, where there are several
    /// connections.
    fn send_ahead(&mut self, slot: Slot) {
        self.send_answer(slot);
        if self.live_connections() > 1 {
            let conn = self.tasks[slot].conn;
            let stat_sn = self.conn(conn).stat_sn;
            self.fence.wait_for(conn, stat_sn);
            self.solicit_acknowledgement(conn);
        }
        self.not_ahead(slot);
    }

    /// The fenced answer does not wait for this one any more.
    pub(super) fn not_ahead(&mut self, slot: Slot) {
        if self.ahead.is_empty() {
            return;
        }
        self.ahead.retain(|ahead| *ahead != slot);
        if self.ahead.is_empty() && self.fence.is_ready() {
            self.send_fenced();
        }
    }

    /// The task has a connection that an answer could be sent on.
    fn is_connected(&self, slot: Slot) -> bool {
        self.tasks.get(slot).is_some_and(|t| !t.frozen && self.conns.get(t.conn).is_some_and(Option::is_some))
    }

    fn send_fenced(&mut self) {
        let Some(slot) = self.fenced.take() else {
            self.fence = Fence::Clear;
            self.send_parked();
            return;
        };
        let sent = self.tasks.get(slot).filter(|_| self.is_connected(slot)).map(|t| t.conn);
        if let Some(conn) = sent {
            self.send_answer(slot);
            if self.live_connections() < 2 {
                self.fence = Fence::Clear;
                self.send_parked();
                return;
            }
            let stat_sn = self.conn(conn).stat_sn.wrapping_sub(1);
            self.fence.sent(conn, stat_sn);
            self.solicit_acknowledgement(conn);
        } else {
            self.fence = Fence::Clear;
            self.send_parked();
        }
    }

    fn send_parked(&mut self) {
        while self.fence.is_clear()
            && let Some(slot) = self.parked.pop_front()
        {
            if self.is_connected(slot) && self.tasks[slot].has_answer() {
                self.answer(slot);
            }
        }
    }

    pub(super) fn fence_step(&mut self, cleared: Cleared) {
        match cleared {
            Cleared::Nothing => {}
            Cleared::SendFenced if !self.ahead.is_empty() => {} // `not_ahead` goes on
            Cleared::SendFenced => self.send_fenced(),
            Cleared::SendParked => self.send_parked(),
        }
    }

    /// The answer of a task that ended while it waited for the fence is not sent.
    pub(super) fn unpark(&mut self, slot: Slot) {
        self.parked.retain(|s| *s != slot);
        self.not_ahead(slot);
        if self.fenced == Some(slot) {
            self.fenced = None;
            self.ahead.clear();
            if matches!(self.fence, Fence::Raised { .. }) {
                self.fence = Fence::Clear;
                self.send_parked();
            }
        }
    }

    /// The peer does not read its answers: the window opens only as it does.
    pub(super) fn is_congested(&mut self, conn: ConnIndex) -> bool {
        let limit = self.limits.command_window as usize * 4;
        let c = self.conn(conn);
        c.queue.len() >= limit || c.unacknowledged.len() >= limit
    }

    /// Asks for acknowledgement before too much has to be kept for want of it.
    pub(super) fn solicit_when_many(&mut self, conn: ConnIndex) {
        if self.conn(conn).unacknowledged.len() >= self.limits.command_window as usize * 2 {
            self.solicit_acknowledgement(conn);
        }
    }

    /// Asks for acknowledgement of the answers whose data is kept (7.1.4.2: by a NOP-In).
    pub fn solicit_status(&mut self) {
        for conn in 0..self.conns.len() {
            if self.conns[conn].as_ref().is_some_and(|c| !c.unacknowledged.is_empty()) {
                self.solicit_acknowledgement(conn);
            }
        }
    }

    fn send_answer(&mut self, slot: Slot) {
        let conn = self.tasks[slot].conn;
        let congested = self.is_congested(conn);
        if self.tasks[slot].state != TaskState::Responded {
            self.uncount(slot, congested);
        }
        self.queue_answer(slot);
    }

    /// Queues the response PDU of a task on its connection, with a new StatSN.
    pub(super) fn queue_answer(&mut self, slot: Slot) {
        let keep = self.params.error_recovery_level > 0;
        let (exp, max) = (self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        let task = &mut self.tasks[slot];
        let conn = task.conn;
        let c = self.conns[conn].as_deref_mut().expect("a task that is not frozen has its connection");
        let (mut bhs, payload) = match task.kind {
            TaskKind::Scsi => {
                task.data_in.status_sn = None;
                let response = scsi_response(task);
                if !keep {
                    task.finish = None;
                }
                response
            }
            TaskKind::Control | TaskKind::Nop => {
                let (bhs, data) = *task.parked_control.take().unwrap_or_default();
                (bhs, if data.is_empty() { Payload::None } else { Payload::Inline(data) })
            }
        };
        bhs.set_initiator_task_tag(task.initiator_task_tag);
        bhs.set_stat_sn(c.stat_sn);
        bhs.set_exp_cmd_sn(exp);
        bhs.set_max_cmd_sn(max);
        task.stat_sn = c.stat_sn;
        task.state = TaskState::Responded;
        c.stat_sn = c.stat_sn.wrapping_add(1);
        let mark = if task.close_after { SendMark::STATUS_AND_CLOSE } else { SendMark::STATUS };
        if keep {
            let kept = match (task.kind, &payload) {
                (TaskKind::Scsi, _) => Kept::Task(slot),
                (_, Payload::Inline(data)) => Kept::Pdu(Box::new((bhs, data.clone()))),
                _ => Kept::Pdu(Box::new((bhs, Vec::new()))),
            };
            c.keep(task.stat_sn, kept, self.limits.control_bytes);
        }
        c.queue.push(bhs, payload, Some(slot), mark);
        if keep {
            self.solicit_when_many(conn);
        }
    }

    /// Keeps a numbered PDU that is no task's answer (a Reject, a ping answered, an asynchronous message).
    pub(super) fn keep_side(&mut self, conn: ConnIndex, bhs: &Bhs, data: &[u8]) -> Result<(), Fatal> {
        if self.params.error_recovery_level == 0 {
            return Ok(());
        }
        let (limit, many) = (self.limits.control_bytes, self.limits.command_window as usize * 16);
        let c = self.conn(conn);
        if c.unacknowledged.len() >= many {
            return Err(Fatal::violation("answers are never acknowledged (RFC 7143 4.2.2.2)"));
        }
        c.keep(bhs.stat_sn(), Kept::Pdu(Box::new((*bhs, data.to_vec()))), limit);
        Ok(())
    }

    /// Queues what `keep_side` kept. The ping that may follow carries the next StatSN, so it follows.
    pub(super) fn push_side(&mut self, conn: ConnIndex, bhs: Bhs, payload: Payload, slot: Option<Slot>, mark: u32) {
        self.conn(conn).queue.push(bhs, payload, slot, mark);
        if self.params.error_recovery_level > 0 {
            self.solicit_when_many(conn);
        }
    }

    /// Rejects a PDU with its complete header (11.17). Bounded: a peer that does not read its Rejects is dropped.
    pub(super) fn reject(&mut self, conn: ConnIndex, bad: &Bhs, reason: u8) -> Result<(), Fatal> {
        self.reject_with(conn, bad, reason, 0)
    }

    /// As `reject`, with the DataSN/R2TSN field (11.17.2).
    pub(super) fn reject_with(&mut self, conn: ConnIndex, bad: &Bhs, reason: u8, data_sn: u32) -> Result<(), Fatal> {
        let (exp, max) = (self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        let limit = self.limits.side_answers;
        let c = self.conn(conn);
        if c.side_answers >= limit {
            return Err(Fatal::violation("too many rejected PDUs whose Rejects are not read (RFC 7143 7.3)"));
        }
        c.side_answers += 1;
        let mut bhs = Bhs::new(Opcode::Reject, FINAL);
        bhs.set_response(reason);
        bhs.set_data_sn(data_sn);
        bhs.set_initiator_task_tag(RESERVED_TAG);
        bhs.set_stat_sn(c.stat_sn);
        c.stat_sn = c.stat_sn.wrapping_add(1);
        bhs.set_exp_cmd_sn(exp);
        bhs.set_max_cmd_sn(max);
        let mut data = bad.0.to_vec();
        if bad.ahs_len() > 0 {
            data.extend_from_slice(c.deframer.ahs());
            data.truncate(c.params.max_send_data_segment_length as usize);
        }
        self.keep_side(conn, &bhs, &data)?;
        self.push_side(conn, bhs, Payload::Inline(data), None, SendMark::SIDE);
        Ok(())
    }

    /// Sends an asynchronous message of the control plane; StatSN advances for it (11.9).
    pub fn send_unsolicited(&mut self, conn: ConnIndex, mut header: Bhs, data: Vec<u8>, close: bool) {
        let (exp, max) = (self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        let c = self.conn(conn);
        header.set_stat_sn(c.stat_sn);
        c.stat_sn = c.stat_sn.wrapping_add(1);
        header.set_exp_cmd_sn(exp);
        header.set_max_cmd_sn(max);
        self.tell_late(conn, &header);
        if self.keep_side(conn, &header, &data).is_err() {
            // the peer's next request finds out
        }
        let payload = if data.is_empty() { Payload::None } else { Payload::Inline(data) };
        let mark = if close { SendMark::UNSOLICITED_AND_CLOSE } else { SendMark::UNSOLICITED };
        self.push_side(conn, header, payload, None, mark);
    }

    pub(super) fn marked_pdu_sent(&mut self, conn: ConnIndex, slot: Option<Slot>, mark: u32) {
        if mark != SendMark::PING
            && let Some(Some(c)) = self.conns.get_mut(conn)
        {
            c.sent_stat_sn = c.sent_stat_sn.wrapping_add(1);
        }
        match mark {
            SendMark::STATUS | SendMark::STATUS_AND_CLOSE => {
                if let Some(slot) = slot
                    && let Some(task) = self.tasks.get(slot)
                {
                    let kept = self.params.error_recovery_level > 0 && task.kind == TaskKind::Scsi;
                    if task.state == TaskState::Dying {
                        self.bury(slot);
                    } else if !kept {
                        self.release(slot);
                    }
                }
            }
            SendMark::SIDE => {
                let c = self.conn(conn);
                c.side_answers = c.side_answers.saturating_sub(1);
            }
            _ => {}
        }
        if matches!(mark, SendMark::STATUS_AND_CLOSE | SendMark::UNSOLICITED_AND_CLOSE) {
            self.events.push_back(TargetEvent::CloseConnection { conn });
        }
        self.reopen_window(conn);
    }

    /// The peer read (and above level 0 acknowledged) what it was sent: the window opens for what ended meanwhile.
    fn reopen_window(&mut self, conn: ConnIndex) {
        if self.window_debt == 0 {
            return;
        }
        let limit = self.limits.command_window as usize;
        let c = self.conn(conn);
        if c.queue.len() < limit && c.unacknowledged.len() < limit * 2 {
            // the answers did not say that the window is open again: say it now
            self.window.complete(std::mem::take(&mut self.window_debt));
            self.send_nop_in(conn, RESERVED_TAG);
        }
    }

    /// ExpStatSN of the peer: releases what was kept for it, and moves the fence.
    #[inline]
    pub(super) fn acknowledged(&mut self, conn: ConnIndex, exp_stat_sn: u32) {
        if !self.conn(conn).acknowledge(exp_stat_sn) {
            return;
        }
        while let Some(kept) = self.conn(conn).unacknowledged.pop_acknowledged(exp_stat_sn) {
            if let Kept::Task(slot) = kept {
                self.retire(slot);
            }
        }
        self.reopen_window(conn);
        if !self.fence.is_clear() {
            let cleared = self.fence.acknowledged(conn, exp_stat_sn);
            self.fence_step(cleared);
        }
    }
}

/// The answer to a TASK REASSIGN.
fn is_reassignment(task: &Task) -> bool {
    task.kind == TaskKind::Control
        && task.header.opcode() == Some(Opcode::TaskManagementRequest)
        && task.header.function() == function::TASK_REASSIGN
}

impl Task {
    /// It is answered, and the answer is not on its way.
    pub(super) fn has_answer(&self) -> bool {
        self.state == TaskState::Active && (self.finish.is_some() || self.parked_control.is_some())
    }
}

/// Header and data segment of a SCSI Response, but for its numbers.
pub(super) fn scsi_response(task: &Task) -> (Bhs, Payload) {
    let good = Finish::default();
    let finish = task.finish.as_ref().unwrap_or(&good);
    let bidirectional = task.read && task.write;
    let mut flags = FINAL;
    let mut bhs = Bhs::new(Opcode::ScsiResponse, FINAL);
    bhs.set_response(finish.response);
    // 11.4.2: status is only there when the command completed at the target
    bhs.set_status(if finish.response == 0 { finish.status } else { 0 });
    // 11.4.1: for a response other than "command completed at target" bits 3 to 6 MUST be 0
    let completed = finish.response == 0;
    match finish.residual {
        _ if !completed => {}
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
    if bidirectional && completed {
        match finish.bidirectional_residual {
            Residual::None => {}
            Residual::Overflow(bytes) => {
                flags |= BIDI_OVERFLOW;
                bhs.set_bidirectional_residual_count(bytes);
            }
            Residual::Underflow(bytes) => {
                flags |= BIDI_UNDERFLOW;
                bhs.set_bidirectional_residual_count(bytes);
            }
        }
    }
    bhs.set_flags(flags);
    bhs.set_initiator_task_tag(task.initiator_task_tag);
    // 11.4.4: 0 unless there was an R-Data SNACK
    bhs.set_snack_tag(task.snack_tag);
    // 11.4.8: Data-In PDUs, without the R2Ts that share their numbers; MUST be 0 unless the command completed
    bhs.set_exp_data_sn(if finish.response == 0 { task.data_ins() } else { 0 });
    let payload = if finish.sense.is_empty() {
        Payload::None
    } else {
        // SenseLength, then the sense data (11.4.7)
        let mut data = Vec::with_capacity(finish.sense.len() + 2);
        data.extend_from_slice(&(finish.sense.len() as u16).to_be_bytes());
        data.extend_from_slice(&finish.sense);
        Payload::Inline(data)
    };
    (bhs, payload)
}
