//! Tasks of a connection that is gone: ended, or frozen and continued on another one (RFC 7143 7.2).
//!
//! The record keeps tag, CmdSN, and the bytes that came and went; nothing in it depends on the segment length of a
//! connection, so the new one may have another.

use blockwire_wire::bhs::FINAL;
use blockwire_wire::opcode::function;
use blockwire_wire::{Opcode, serial};

use super::manage::TASK_DOES_NOT_EXIST;
use super::session::{Event, InitiatorSession};
use super::task::{Kind, Outcome, Purpose, State, Task};
use crate::params::ConnIndex;
use crate::send_queue::Payload;
use crate::slab::Slot;

/// TASK REASSIGNs of a session that are on their way at a time.
const MOST_REASSIGNS: usize = 8;

/// One task, for `look`.
#[derive(Clone, Copy, Debug)]
pub struct TaskLook {
    pub initiator_task_tag: u32,
    pub cid: u16,
    pub lun: u64,
    pub cmd_sn: u32,
    /// It waits for its reassignment, or for the answer to that.
    pub frozen: bool,
    pub control: bool,
    pub context: u64,
}

impl Task {
    /// A read of which only the status did not come.
    fn has_all_data(&self) -> bool {
        self.write_len == 0 && self.read_len > 0 && self.received.contains(0, u64::from(self.read_len))
    }

    /// Before a reassignment: data beyond what it will acknowledge is discarded (RFC 7143 11.5.6 MUST), and so are a status
    /// that waited for data and a SNACK Tag (7.2.2).
    fn forget_unacknowledged(&mut self) {
        let Some(recovery) = self.recovery.take() else { return };
        if recovery.snack_tag != 0 {
            self.exp_data_sn = self.acknowledged_sn;
            self.received = self.acknowledged.clone();
        } else if let Some(whole) = recovery.whole {
            self.exp_data_sn = whole.number;
            self.received = whole.bytes;
        }
    }
}

impl InitiatorSession {
    /// Forgets a connection. With `freeze` its SCSI tasks are kept for `rebind`, otherwise they end. Control requests end
    /// either way (11.5.1: they cannot be reassigned). Whatever was unsent is gone.
    pub fn lose_connection(&mut self, conn: ConnIndex, freeze: bool) {
        let Some(place) = self.connections.get_mut(conn) else { return };
        let Some(connection) = place.take() else { return };
        self.note_gone(connection.params.cid, connection.exp_stat_sn);
        // 11.14: closing a connection ends its tasks at the target, whatever the level
        let freeze = freeze && connection.logged_out != Some(false);
        if let Some(slot) = connection.current {
            self.release_hold(slot);
        }
        for index in 0..connection.queue.len() {
            if let Some(pdu) = connection.queue.get(index)
                && let Payload::Task { slot, .. } = pdu.payload
            {
                self.release_hold(slot);
            }
        }
        let mine = self
            .tasks
            .slots(|t| t.conn == conn && matches!(t.state, State::Active | State::Paused | State::Reassigning));
        for slot in mine {
            let task = &mut self.tasks[slot];
            // Linux's target closes the connection instead of sending a status alone (7.2.2), on every one it is moved to
            let keeps = freeze && !(self.params.quirks.reassign_answer && task.has_all_data());
            match task.state {
                State::Paused => self.tasks.give_back(slot), // its last answer was handed up already
                State::Active if task.kind != Kind::Scsi => {
                    let purpose = task.purpose;
                    self.end(slot, Outcome::ConnectionLost);
                    if let Purpose::Reassign(tag) = purpose {
                        self.freeze_again(tag);
                    }
                }
                // 7.14: the target ends immediate commands with their connection, whatever the level
                _ if keeps && !task.bhs.is_immediate() => {
                    task.state = State::Frozen;
                    task.cid = connection.params.cid;
                    task.sequence_bytes = 0;
                    task.outstanding_r2t = 0;
                    task.is_quiet = false;
                    task.forget_unacknowledged();
                }
                _ => self.end(slot, Outcome::ConnectionLost),
            }
        }
        self.to_reassign.retain(|slot| self.tasks[*slot].state == State::Reassigning);
        if self.connections.iter().all(Option::is_none) && !freeze {
            self.dead = true;
            for slot in std::mem::take(&mut self.waiting) {
                self.end(slot, Outcome::ConnectionLost);
            }
        } else {
            self.look_for_holes();
            self.release_waiting();
            self.send_reassigns();
        }
    }

    /// Frozen tasks that were allegiant to the connection with this CID (all with None), in CmdSN order.
    #[must_use]
    pub fn frozen(&self, cid: Option<u16>) -> Vec<Slot> {
        let mut slots = self.tasks.slots(|t| t.state == State::Frozen && cid.is_none_or(|cid| t.cid == cid));
        slots.sort_by(|a, b| serial::distance(self.tasks[*b].bhs.cmd_sn(), self.tasks[*a].bhs.cmd_sn()).cmp(&0));
        slots
    }

    /// Continues a frozen task on `conn` with TASK REASSIGN. The old connection must have been logged out (RFC 7143 7.2.2).
    /// When the target answers that it never had the task, the command is sent again with its CmdSN (7.2.1). False: the
    /// task is not frozen, the connection is not there, or no tag is free.
    pub fn rebind(&mut self, slot: Slot, conn: ConnIndex) -> bool {
        if self.tasks[slot].state != State::Frozen || !matches!(self.connections.get(conn), Some(Some(_))) {
            return false;
        }
        let task = &mut self.tasks[slot];
        task.conn = conn;
        task.state = State::Reassigning;
        if self.reassigns_on_their_way() >= MOST_REASSIGNS {
            self.to_reassign.push_back(slot);
        } else if !self.send_reassign(slot) {
            self.tasks[slot].state = State::Frozen;
            return false;
        }
        self.connection(conn).tasks += 1;
        true
    }

    fn reassigns_on_their_way(&self) -> usize {
        self.tasks.slots(|t| t.state == State::Active && matches!(t.purpose, Purpose::Reassign(_))).len()
    }

    /// Sends what waits of TASK REASSIGN, a few at a time: the target has a record of each until its response is acknowledged,
    /// beside those of the tasks, and Linux's has room for two windows of both together (`acknowledge`).
    #[cold]
    pub(super) fn send_reassigns(&mut self) {
        while let Some(&slot) = self.to_reassign.front() {
            if self.reassigns_on_their_way() >= MOST_REASSIGNS || !self.send_reassign(slot) {
                return;
            }
            self.to_reassign.pop_front();
        }
    }

    /// Asks for a task to go on. False: no tag is free.
    fn send_reassign(&mut self, slot: Slot) -> bool {
        let task = &self.tasks[slot];
        if task.state != State::Reassigning {
            return true;
        }
        let (tag, conn) = (task.tag(), task.conn);
        // what lies before the next number arrived and is acknowledged with this (11.5.6)
        let number = if task.read_len > 0 { task.exp_data_sn } else { 0 };
        let mut bhs = self.immediate_header(conn, Opcode::TaskManagementRequest, FINAL | function::TASK_REASSIGN);
        bhs.set_referenced_task_tag(tag);
        bhs.set_exp_data_sn(number);
        if self.params.quirks.reassign_lun {
            bhs.set_lun(self.tasks[slot].bhs.lun());
        }
        let Some(request) = self.own_request(conn, &mut bhs, Kind::TaskManagement, Purpose::Reassign(tag)) else {
            return false;
        };
        self.connection(conn).queue.push(bhs, Payload::None, Some(request), 0);
        true
    }

    /// The target took the task over: data, R2Ts and status come on the new connection from here on.
    pub(super) fn reassigned(&mut self, tag: u32) {
        let Some(slot) = self.tasks.find(tag) else { return };
        let task = &mut self.tasks[slot];
        if task.state != State::Reassigning {
            return;
        }
        let connection = self.connections[task.conn].as_ref().expect("connection in use");
        task.epoch = connection.epoch;
        task.state = State::Active;
        task.replay = true;
        task.renumber = true;
        task.sequence_bytes = 0;
        task.sequence_sn = task.exp_data_sn;
        // what the target has and lacks shows in what it asks for now
        task.asked.clear();
        self.recovered.reassigned += 1;
        if self.tasks[slot].aborting {
            self.send_abort(slot);
        }
    }

    pub(super) fn reassign_refused(&mut self, tag: u32, response: u8) {
        if let Some(slot) = self.tasks.find(tag) {
            self.freeze_again(tag);
            let task = &self.tasks[slot];
            let (context, conn) = (task.context, task.conn);
            let unknown = serial::less_or_equal(self.exp_cmd_sn, task.bhs.cmd_sn()) && !task.bhs.is_immediate();
            if response == TASK_DOES_NOT_EXIST && unknown && task.state == State::Frozen {
                self.recovered.retried += 1;
                self.queue_request(slot, conn);
                self.cover_retry(conn);
                if self.tasks[slot].aborting {
                    self.send_abort(slot);
                }
                return;
            }
            if response == TASK_DOES_NOT_EXIST && task.aborting && task.state == State::Frozen {
                // the abort was done, only its answer was lost with the connection
                self.end(slot, Outcome::Aborted);
                return;
            }
            self.events.push_back(Event::ReassignRefused { context, response });
        }
    }

    fn freeze_again(&mut self, tag: u32) {
        let Some(slot) = self.tasks.find(tag) else { return };
        let task = &mut self.tasks[slot];
        if task.state == State::Reassigning {
            task.state = State::Frozen;
            let conn = task.conn;
            if let Some(Some(connection)) = self.connections.get_mut(conn) {
                connection.tasks -= 1;
                self.tasks[slot].cid = connection.params.cid;
            }
        }
    }

    /// Ends the frozen tasks that were allegiant to the connection with this CID (all with None): nobody will continue
    /// them.
    pub fn end_frozen(&mut self, cid: Option<u16>) {
        for slot in self.tasks.slots(|t| t.state == State::Frozen && cid.is_none_or(|cid| t.cid == cid)) {
            self.end(slot, Outcome::ConnectionLost);
        }
        self.look_for_holes();
    }

    /// Ends a task whose reassignment was refused.
    pub fn end_refused(&mut self, context: u64) {
        for slot in self.tasks.slots(|t| t.state == State::Frozen && t.context == context) {
            self.end(slot, Outcome::ConnectionLost);
        }
    }

    /// Shows every task that is not over.
    pub fn look(&self, mut show: impl FnMut(&TaskLook)) {
        let there = |t: &Task| !matches!(t.state, State::Free | State::Ended);
        for slot in self.tasks.slots(there) {
            let task = &self.tasks[slot];
            let frozen = matches!(task.state, State::Frozen | State::Reassigning);
            let cid = match self.connections.get(task.conn) {
                Some(Some(connection)) if task.state != State::Frozen => connection.params.cid,
                _ => task.cid,
            };
            show(&TaskLook {
                initiator_task_tag: task.tag(),
                cid,
                lun: task.bhs.lun(),
                cmd_sn: task.bhs.cmd_sn(),
                frozen,
                control: task.kind != Kind::Scsi,
                context: task.context,
            });
        }
    }
}
