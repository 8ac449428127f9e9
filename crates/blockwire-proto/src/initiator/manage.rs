//! Task management (RFC 7143 11.5, 11.6): aborting one task, and what functions of the caller end here.

use blockwire_wire::bhs::FINAL;
use blockwire_wire::opcode::function;
use blockwire_wire::{Bhs, Opcode};

use super::fast_abort::covers;
use super::session::{Event, InitiatorSession};
use super::task::{Kind, Outcome, Purpose, State};
use crate::endpoint::Fatal;
use crate::params::ConnIndex;
use crate::send_queue::Payload;
use crate::slab::Slot;

/// Task management responses (RFC 7143 11.6.1).
const FUNCTION_COMPLETE: u8 = 0;
pub(super) const TASK_DOES_NOT_EXIST: u8 = 1;
const FUNCTION_REJECTED: u8 = 255;
/// After the last that is defined (RFC 7144 6.4.2), but for 255.
const RESERVED_RESPONSES: std::ops::Range<u8> = 8..FUNCTION_REJECTED;

impl InitiatorSession {
    /// Aborts a SCSI task: one that was not sent ends at once, else ABORT TASK goes out on the task's own connection. The task
    /// ends with `Outcome::Aborted`, or with its status if that came first. False when there is nothing to do
    /// (it ended, or it is frozen: its connection has to be replaced first), or no tag is free.
    pub fn abort(&mut self, slot: Slot) -> bool {
        let task = &self.tasks[slot];
        if task.kind != Kind::Scsi {
            return false;
        }
        match task.state {
            State::Waiting => {
                self.waiting.retain(|s| *s != slot);
                self.end(slot, Outcome::Aborted);
                true
            }
            State::Active if task.aborting => true,
            State::Active => self.send_abort(slot),
            State::Frozen | State::Reassigning => {
                self.tasks[slot].aborting = true;
                false
            }
            State::Free | State::Paused | State::Ended => false,
        }
    }

    pub(super) fn send_abort(&mut self, slot: Slot) -> bool {
        let task = &self.tasks[slot];
        let (conn, tag, lun) = (task.conn, task.tag(), task.bhs.lun());
        // of an immediate command: the CmdSN of the request itself (11.5.5)
        let reference = if task.bhs.is_immediate() { self.cmd_sn } else { task.bhs.cmd_sn() };
        let mut bhs = self.immediate_header(conn, Opcode::TaskManagementRequest, FINAL | function::ABORT_TASK);
        bhs.set_lun(lun);
        bhs.set_referenced_task_tag(tag);
        bhs.set_ref_cmd_sn(reference);
        let Some(request) = self.own_request(conn, &mut bhs, Kind::TaskManagement, Purpose::Abort(tag)) else {
            return false;
        };
        self.tasks[slot].aborting = true;
        self.drop_data_out(slot);
        self.connection(conn).queue.push(bhs, Payload::None, Some(request), 0);
        true
    }

    /// Task Management Function Response.
    pub(super) fn on_task_management(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<(), Fatal> {
        let what = "Task Management Response to no request (RFC 7143 11.6)";
        let slot = self.answered(conn, bhs, Kind::TaskManagement, what)?;
        if RESERVED_RESPONSES.contains(&bhs.response()) {
            return Err(Fatal::violation("a reserved Response in a Task Management Response (RFC 7143 11, 11.6.1)"));
        }
        let task = &self.tasks[slot];
        let (context, purpose, request) = (task.context, task.purpose, task.bhs);
        self.free(slot);
        let response = bhs.response();
        match purpose {
            Purpose::Abort(tag) => match response {
                // "does not exist" in order after everything of this connection: no status will come (11.6.1)
                FUNCTION_COMPLETE | TASK_DOES_NOT_EXIST => self.end_aborted(tag),
                _ => self.abort_refused(tag, response),
            },
            Purpose::Reassign(tag) => {
                let response = match response {
                    FUNCTION_COMPLETE if self.params.quirks.reassign_answer => TASK_DOES_NOT_EXIST,
                    FUNCTION_REJECTED if self.params.quirks.reassign_answer => FUNCTION_COMPLETE,
                    response => response,
                };
                if response == FUNCTION_COMPLETE {
                    self.reassigned(tag);
                } else {
                    self.reassign_refused(tag, response);
                }
            }
            Purpose::Caller | Purpose::KeepAlive | Purpose::Acknowledge | Purpose::Probe | Purpose::Plug => {
                if response == FUNCTION_COMPLETE {
                    self.apply_function(&request);
                }
                self.events.push_back(Event::Control { conn, context, bhs: *bhs, data: Vec::new() });
            }
        }
        Ok(())
    }

    fn end_aborted(&mut self, tag: u32) {
        if let Some(slot) = self.tasks.find(tag)
            && self.tasks[slot].state == State::Active
        {
            self.end(slot, Outcome::Aborted);
        }
    }

    pub(super) fn abort_refused(&mut self, tag: u32, response: u8) {
        if let Some(slot) = self.tasks.find(tag)
            && self.tasks[slot].state == State::Active
        {
            let task = &mut self.tasks[slot];
            task.aborting = false;
            let context = task.context;
            self.events.push_back(Event::AbortRefused { context, response });
        }
    }

    /// A function of the caller is complete: no response of the tasks it covers comes any more (RFC 7143 11.5.1), so
    /// they end here.
    fn apply_function(&mut self, request: &Bhs) {
        let function = request.function();
        if function == function::ABORT_TASK {
            return self.end_aborted(request.referenced_task_tag());
        }
        let covered = self.tasks.slots(|t| matches!(t.state, State::Active | State::Frozen) && covers(request, t));
        for slot in covered {
            self.end(slot, Outcome::Aborted);
        }
    }
}
