//! How tasks end without an answer, and how they outlive their connection (RFC 7143 4.2.3, 7.2.2, 7.6).

use blockwire_wire::{RESERVED_TAG, serial};

use super::connection::Inbound;
use super::session::TargetSession;
use super::task::{Task, TaskKind, TaskState};
use crate::order::Entry;
use crate::params::ConnIndex;
use crate::ranges::RangeSet;
use crate::reassign::resume_data_in;
use crate::slab::Slot;
use crate::window::Position;

/// Connections that are gone of which it is remembered what the initiator had: one that loses connection after connection, each
/// with another CID, must not make it any number.
const MOST_GONE: usize = 64;

/// Why a task cannot be moved to another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebindError {
    /// No such task (response code 1 of 11.6.1).
    NoTask,
    /// It has allegiance to a connection that is there (response code 3).
    StillAllegiant,
}

/// What a rebound task needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebound {
    /// Its answer was complete: what the initiator lacks of data and answer is queued again.
    Answered,
    /// What the initiator lacks of the data is queued again; the task still runs or waits for data: missing ranges of
    /// `out.received` have to be solicited again.
    GoesOn,
    /// Data that the initiator lacks was dropped for want of room: the task has to end with `Condition::SnackRejected`.
    Lost,
}

/// Status numbers of a connection whose tasks were frozen, until a later one of its CID is.
#[derive(Debug)]
pub(super) struct GoneNumbers {
    cid: u16,
    acknowledged: u32,
    /// StatSN after the last one that left.
    sent: u32,
    /// Answers that were queued there: StatSN, task and its generation.
    answers: Vec<(u32, Slot, u32)>,
}

impl TargetSession {
    /// Ends a task without an answer (abort). Its queued PDUs are dropped, except one already begun. The memory is free with
    /// `Released`, which may come later. False when its answer is queued or it is no more.
    pub fn abort_task(&mut self, slot: Slot) -> bool {
        let Some(task) = self.tasks.get(slot) else {
            return false;
        };
        if matches!(task.state, TaskState::Responded | TaskState::Dying) {
            return false;
        }
        self.end_task(slot);
        true
    }

    fn end_task(&mut self, slot: Slot) {
        let Some(task) = self.tasks.get(slot) else {
            return;
        };
        let (state, conn, tag, frozen) = (task.state, task.conn, task.initiator_task_tag, task.frozen);
        let (immediate, cmd_sn) = (task.immediate, task.cmd_sn);
        let lun = task.lun;
        if !frozen && (task.out.is_open() || state == TaskState::Receiving) {
            self.note_late(tag, conn, lun);
        }
        match state {
            TaskState::Receiving => {
                if immediate {
                    self.immediate_commands = self.immediate_commands.saturating_sub(1);
                } else {
                    // its CmdSN counts as received
                    self.consume_cmd_sn(cmd_sn);
                }
            }
            TaskState::Waiting => self.order.consume(slot),
            TaskState::Active => {
                let congested = !frozen && self.conns.get(conn).is_some_and(Option::is_some) && self.is_congested(conn);
                self.uncount(slot, congested);
            }
            TaskState::Responded | TaskState::Dying => {}
        }
        self.unpark(slot);
        let mut busy = false;
        for c in self.conns.iter_mut().flatten() {
            c.queue.drop_unsent(|pdu| pdu.slot == Some(slot), |_| ());
            busy |= c.queue.get(0).is_some_and(|pdu| pdu.slot == Some(slot));
            if c.inbound.slot() == Some(slot) {
                c.inbound = Inbound::Abandoned(slot);
                busy = true;
            }
        }
        if busy {
            // the tag is free at once; the record stays while bytes in transit refer to it
            self.tags.remove(tag);
            self.tasks[slot].state = TaskState::Dying;
        } else {
            self.release(slot);
        }
    }

    /// The answer of a task is acknowledged: nothing of it is needed any more.
    pub(super) fn retire(&mut self, slot: Slot) {
        let Some(task) = self.tasks.get(slot) else { return };
        if task.resent {
            let (conn, tag, nameless) = (task.conn, task.initiator_task_tag, task.nameless);
            let c = self.conn(conn);
            c.queue.drop_unsent(|pdu| pdu.slot == Some(slot), |_| ());
            if c.queue.get(0).is_some_and(|pdu| pdu.slot == Some(slot)) {
                if !nameless {
                    self.tags.remove(tag);
                }
                self.tasks[slot].state = TaskState::Dying;
                return;
            }
        }
        self.release(slot);
    }

    /// Bytes in transit no longer refer to a task that ended.
    pub(super) fn bury(&mut self, slot: Slot) {
        if self.tasks.get(slot).is_none_or(|t| t.state != TaskState::Dying) {
            return;
        }
        let still = self
            .conns
            .iter()
            .flatten()
            .any(|c| c.inbound.slot() == Some(slot) || c.queue.get(0).is_some_and(|pdu| pdu.slot == Some(slot)));
        if !still {
            self.release(slot);
        }
    }

    /// The command with this number counts as received although it never came (11.5.5, ABORT TASK with RefCmdSN).
    /// False when the number is not one that may still come.
    pub fn consume_cmd_sn(&mut self, cmd_sn: u32) -> bool {
        let Position::Ahead(ahead) = self.window.position(cmd_sn) else {
            return false;
        };
        if !self.order.insert(ahead, Entry::Consumed) {
            return false;
        }
        self.deliver_waiting();
        true
    }

    /// As `consume_cmd_sn`, for every number before this one that did not come. Numbers above MaxCmdSN cannot have been sent
    /// (4.2.2.1), so that a made-up CmdSN of an immediate request does not move the window on and on.
    pub fn consume_before(&mut self, cmd_sn: u32) {
        let end = self.window.max_cmd_sn().wrapping_add(1);
        let before = if serial::less_than(end, cmd_sn) { end } else { cmd_sn };
        let mut number = self.window.exp_cmd_sn();
        while serial::less_than(number, before) {
            self.consume_cmd_sn(number);
            number = number.wrapping_add(1);
        }
    }

    /// Drops a connection and ends its tasks (7.6). Returns how many ended.
    pub fn remove_connection(&mut self, conn: ConnIndex) -> u32 {
        if self.conns.get(conn).is_none_or(Option::is_none) {
            return 0;
        }
        self.conns[conn] = None;
        let mut mine: Vec<Slot> =
            self.tasks.iter().filter(|(_, t)| t.conn == conn && !t.frozen).map(|(slot, _)| slot).collect();
        // those that wait for their turn first, so that the end of an earlier one delivers none of them
        mine.sort_by_key(|slot| self.tasks[*slot].state != TaskState::Waiting);
        let mut ended = 0;
        for slot in mine {
            match self.tasks[slot].state {
                TaskState::Responded | TaskState::Dying => self.release(slot),
                _ => {
                    self.end_task(slot);
                    ended += 1;
                }
            }
        }
        self.pay_window_debt();
        self.late.connection_gone(conn);
        let cleared = self.fence.connection_gone(conn);
        self.fence_step(cleared);
        ended
    }

    /// Drops a connection and keeps its tasks for reassignment. Half-received PDUs were never there; what is missing is
    /// asked for again after `rebind`. Returns how many tasks wait.
    pub fn freeze_connection(&mut self, conn: ConnIndex) -> u32 {
        let Some(gone) = self.conns.get_mut(conn).and_then(Option::take) else { return 0 };
        let (cid, acknowledged, sent) = (gone.params.cid, gone.acknowledged, gone.sent_stat_sn);
        let mut answers = Vec::new();
        let mut moved = Vec::new();
        let mine: Vec<Slot> =
            self.tasks.iter().filter(|(_, t)| t.conn == conn && !t.frozen).map(|(slot, _)| slot).collect();
        let mut frozen = 0;
        for slot in mine {
            let task = &mut self.tasks[slot];
            match task.state {
                TaskState::Receiving => {
                    let (immediate, state) = (task.immediate, TaskState::Dying);
                    let tag = task.initiator_task_tag;
                    task.state = state;
                    if immediate {
                        self.immediate_commands = self.immediate_commands.saturating_sub(1);
                    }
                    self.tags.remove(tag);
                    self.release(slot);
                }
                TaskState::Dying => self.release(slot),
                // 7.11: unacknowledged commands of the connection are discarded; a retry fills the gap (7.2.1)
                TaskState::Waiting => {
                    self.order.forget(slot);
                    self.release(slot);
                }
                // 11.5.1: requests other than SCSI commands MUST NOT be reassigned
                // 7.14: immediate commands MUST be ended, they are not recoverable
                TaskState::Responded if task.kind != TaskKind::Scsi || task.immediate || task.nameless => {
                    self.release(slot);
                }
                TaskState::Active if task.kind != TaskKind::Scsi || task.immediate => self.end_task(slot),
                _ => {
                    task.frozen = true;
                    moved.push(slot);
                    if task.state == TaskState::Responded {
                        answers.push((task.stat_sn, slot, task.generation));
                    }
                    task.out.r2ts.clear();
                    task.out.retired.clear();
                    task.out.unsolicited_open = false;
                    task.out.unsolicited_retired = false;
                    frozen += 1;
                }
            }
        }
        self.gone.retain(|numbers| numbers.cid != cid);
        if self.gone.len() >= MOST_GONE {
            self.gone.remove(0); // what was known of its answers is asked for again, or ends with its time
        }
        self.gone.push(GoneNumbers { cid, acknowledged, sent, answers });
        self.pay_window_debt();
        self.late.connection_gone(conn);
        for slot in moved {
            self.not_ahead(slot);
        }
        let cleared = self.fence.connection_gone(conn);
        self.fence_step(cleared);
        frozen
    }

    /// A connection that did not read is gone: the window opens for what ended on it, and another connection says so.
    fn pay_window_debt(&mut self) {
        let debt = std::mem::take(&mut self.window_debt);
        if debt == 0 {
            return;
        }
        self.window.complete(debt);
        if let Some(conn) = self.conns.iter().position(Option::is_some) {
            self.send_nop_in(conn, RESERVED_TAG);
        }
    }

    /// Forgets a frozen task whose answer was sent and never acknowledged: nobody will ask for it any more.
    pub fn forget_answered(&mut self, slot: Slot) {
        if self.tasks.get(slot).is_some_and(|t| t.frozen && t.state == TaskState::Responded) {
            self.release(slot);
        }
    }

    /// What the initiator says it has of a connection that is gone: the ExpStatSN of its recovery logout (RFC 7143 11.14.4) or
    /// of the login that takes its place (11.12.9). Answers below it are known, so nobody will ask for them.
    pub fn acknowledged_frozen(&mut self, cid: u16, exp_stat_sn: u32) {
        let Some(numbers) = self.gone.iter_mut().find(|numbers| numbers.cid == cid) else { return };
        // as on a connection: a number that was never sent is not believed
        let moved = serial::less_than(numbers.acknowledged, exp_stat_sn);
        if !moved || !serial::less_or_equal(exp_stat_sn, numbers.sent) {
            return;
        }
        numbers.acknowledged = exp_stat_sn;
        let known = numbers.answers.extract_if(.., |(stat_sn, ..)| serial::less_than(*stat_sn, exp_stat_sn));
        for (_, slot, generation) in known.collect::<Vec<_>>() {
            if self.tasks.get(slot).is_some_and(|task| task.generation == generation) {
                self.forget_answered(slot);
            }
        }
    }

    /// Tasks that wait for reassignment.
    pub fn frozen_tasks(&self) -> impl Iterator<Item = (Slot, &Task)> {
        self.tasks.iter().filter(|(_, t)| t.frozen)
    }

    /// Gives a frozen task to another connection, after the task management response was queued there (11.5.1).
    /// `exp_data_sn` is ExpDataSN of the request (11.5.7).
    ///
    /// # Errors
    /// The task cannot be moved; the record is unchanged.
    pub fn rebind(&mut self, slot: Slot, conn: ConnIndex, exp_data_sn: u32) -> Result<Rebound, RebindError> {
        let cid = self.connection(conn).ok_or(RebindError::NoTask)?.params.cid;
        let task = self.tasks.get_mut(slot).ok_or(RebindError::NoTask)?;
        if !task.frozen {
            return Err(RebindError::StillAllegiant);
        }
        task.conn = conn;
        task.cid = cid;
        task.frozen = false;
        task.resent = false;
        // 7.2.2: the SNACK Tag MUST be the default again
        task.snack_tag = 0;
        task.data_in.status_sn = None;
        task.out.heard = self.now;
        let mut again = RangeSet::new();
        if task.expected_read() > 0 {
            if task.data_in.forgotten && exp_data_sn != task.data_in.data_sn {
                task.state = TaskState::Active;
                task.finish = None;
                return Ok(Rebound::Lost);
            }
            task.data_in.ack_request = None;
            task.data_in.burst = 0;
            // one that has all of a read whose log was given up needs nothing again
            if !task.data_in.forgotten {
                // R2Ts that were lost with the connection are sent anew, with numbers that follow
                let first = if exp_data_sn > task.data_in.log.first() && exp_data_sn <= task.data_in.log.next() {
                    exp_data_sn
                } else {
                    task.data_in.log.first()
                };
                self.acknowledge_data(slot, first);
                let data_in = &mut self.tasks[slot].data_in;
                data_in.r2ts -= data_in.log.r2ts_from(first);
                again = resume_data_in(&mut data_in.log, exp_data_sn);
                data_in.data_sn = first;
            }
        }
        self.queue_ranges(slot, &again);
        let task = &self.tasks[slot];
        if task.state == TaskState::Responded {
            // a response that may have been delivered already: it waits for no fence
            self.queue_answer(slot);
            Ok(Rebound::Answered)
        } else if task.has_answer() {
            self.answer(slot);
            Ok(Rebound::Answered)
        } else {
            Ok(Rebound::GoesOn)
        }
    }
}
