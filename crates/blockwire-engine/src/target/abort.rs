//! Ending tasks for task management: what was admitted is ended, what may still change the medium is waited for (RFC 7143 4.2.3.3,
//! 4.2.3.4, 11.5).

use blockwire_proto::target::{Task, TaskKind, TaskState};
use blockwire_proto::{ConnIndex, Slot};
use blockwire_wire::opcode::function;
use blockwire_wire::{Opcode, serial};

use super::context::Context;
use super::work::Phase;
use crate::calls::{AbortDone, AbortScope, AbortTarget};
use crate::clock::{Nanos, SECOND};
use crate::events::{AbortReport, SessionId, TaskView};

/// How long an abort waits for store operations.
const BOUND: Nanos = 15 * SECOND;
/// How long it waits for data, and for commands that are still to come: an initiator that stops sending once it asked for the
/// abort (as open-iscsi does) has to be answered before its own patience ends.
const INITIATOR_BOUND: Nanos = 5 * SECOND;
/// The same for what ends tasks of a whole logical unit: a reset is what one asks for when data does not come.
const RESET_BOUND: Nanos = SECOND;

/// SAM-5 5.3.1.
const TASK_ABORTED: u8 = 0x40;

/// An abort that waits.
pub(super) struct PendingAbort {
    pub(super) id: u64,
    pub(super) scope: AbortScope,
    pub(super) report: AbortReport,
    /// Store operations that can change the medium.
    pub(super) operations: u32,
    /// Tasks whose data is still to come (4.2.3.3 a).
    pub(super) data: u32,
    /// Commands before this CmdSN of a session still have to come (4.2.3.3 b).
    pub(super) barrier: Option<(SessionId, u32)>,
    pub(super) deadline: Nanos,
    /// Data and commands are waited for until then.
    pub(super) initiator_deadline: Nanos,
    pub(super) done: Option<AbortDone>,
}

impl std::fmt::Debug for PendingAbort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingAbort").field("id", &self.id).field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl PendingAbort {
    pub(super) fn new(id: u64, scope: AbortScope, now: Nanos, done: AbortDone) -> Self {
        let report = AbortReport { complete: true, ..AbortReport::default() };
        let whole_unit = matches!(scope.target, AbortTarget::LogicalUnit { .. });
        let patience = if whole_unit { RESET_BOUND } else { INITIATOR_BOUND };
        let (operations, data, deadline, initiator_deadline) = (0, 0, now + BOUND, now + patience);
        Self { id, scope, report, operations, data, barrier: None, deadline, initiator_deadline, done: Some(done) }
    }

    /// When it has to be looked at next.
    pub(super) fn due(&self) -> Nanos {
        let waits = self.data > 0 || self.barrier.is_some();
        if waits { self.initiator_deadline.min(self.deadline) } else { self.deadline }
    }

    pub(super) fn is_over(&self) -> bool {
        self.operations == 0 && self.data == 0 && self.barrier.is_none()
    }

    pub(super) fn end(mut self) {
        if let Some(done) = self.done.take() {
            done(self.report);
        }
    }

    /// Whether a session's data is waited for: MUST be for the session that asked (4.2.3.3 a), and is for no other, so that another
    /// initiator's stalled write holds nobody up. With FastAbort the tags stay valid and late data is ignored (4.2.3.4 c).
    fn waits_for_data(&self, session: SessionId) -> bool {
        !self.scope.fast && self.scope.issuer == session && !matches!(self.scope.target, AbortTarget::Task { .. })
    }
}

impl Context<'_> {
    /// Whether a task of this session falls under a scope.
    fn is_in_scope(&self, scope: &AbortScope, slot: Slot) -> bool {
        let Some(task) = self.session.proto.task(slot) else { return false };
        if task.kind != TaskKind::Scsi || task.nameless || (scope.keep != 0 && self.session.tag(slot) == scope.keep) {
            return false;
        }
        // the number is one of the session that asked; other sessions have numbers of their own
        let asked = scope.issuer == self.session.id;
        if asked && scope.before_cmd_sn.is_some_and(|before| !serial::less_than(task.cmd_sn, before)) {
            return false;
        }
        match scope.target {
            AbortTarget::Task { session, initiator_task_tag, .. } => {
                session == self.session.id && task.initiator_task_tag == initiator_task_tag
            }
            AbortTarget::TaskSet { session, lun } => session == self.session.id && task.lun == lun,
            AbortTarget::Nexus { session } => session == self.session.id,
            AbortTarget::LogicalUnit { store } => {
                let lun = task.lun;
                self.session.luns.iter().any(|l| l.lun == lun && l.handle().id == store)
            }
        }
    }

    /// Ends this session's part of an abort.
    pub(super) fn abort_here(&mut self, pending: &mut PendingAbort) {
        let slots: Vec<Slot> = self
            .session
            .proto
            .tasks()
            .filter(|(_, t)| !matches!(t.state, TaskState::Dying))
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            if self.is_in_scope(&pending.scope, slot) {
                self.abort_one(slot, pending);
            }
        }
        if let AbortTarget::Task { session, initiator_task_tag, ref_cmd_sn: Some(number) } = pending.scope.target
            && session == self.session.id
            && !pending.report.found
            && !pending.report.already_responded
            && self.session.proto.find(initiator_task_tag).is_none()
        {
            // it never came: its number counts as received from now on
            pending.report.found = self.session.proto.consume_cmd_sn(number);
        }
        if let Some(before) = pending.scope.before_cmd_sn {
            let issuing = pending.scope.issuer;
            let expected = self.session.proto.numbers().exp_cmd_sn;
            if issuing == self.session.id
                && !matches!(pending.scope.target, AbortTarget::Task { .. })
                && serial::less_than(expected, before)
            {
                if pending.scope.plug {
                    self.plug(before);
                } else {
                    pending.barrier = Some((issuing, before));
                }
            }
        }
        self.drain_events();
    }

    /// Every number before this one that did not come counts as received (RFC 7143 4.2.3.3 b, 7.11).
    pub(super) fn plug(&mut self, before: u32) {
        self.session.proto.consume_before(before);
        self.drain_events();
    }

    /// What is there now, of the tasks under a scope; with a single task under it, control requests too.
    pub(super) fn look(&self, scope: &AbortScope, found: &mut Vec<TaskView>) {
        for (slot, task) in self.session.proto.tasks() {
            let control = task.kind != TaskKind::Scsi;
            let wanted = match scope.target {
                AbortTarget::Task { session, initiator_task_tag, .. } if control => {
                    session == self.session.id && task.initiator_task_tag == initiator_task_tag
                }
                _ => self.is_in_scope(scope, slot),
            };
            if wanted && task.state != TaskState::Dying {
                found.push(TaskView {
                    session: self.session.id,
                    initiator_task_tag: task.initiator_task_tag,
                    cid: task.cid,
                    lun: task.lun,
                    cmd_sn: task.cmd_sn,
                    frozen: task.frozen,
                    control,
                    responded: task.state == TaskState::Responded,
                    token: 0,
                });
            }
        }
    }

    fn abort_one(&mut self, slot: Slot, pending: &mut PendingAbort) {
        let Some(task) = self.session.proto.task(slot) else { return };
        if task.state == TaskState::Responded && task.frozen {
            if let AbortTarget::Task { initiator_task_tag, .. } = pending.scope.target
                && let Some(conn) = self.aborting_connection(initiator_task_tag)
            {
                // 11.5.1: a status that was sent and not acknowledged is sent again, followed by the answer to the function
                if let Ok(what) = self.session.proto.rebind(slot, conn, 0) {
                    self.rebound(slot, conn, what);
                }
                pending.report.already_responded = true;
                return;
            }
            // nobody asks for its status any more (11.5.1: the function reassigns the task and ends it)
            let tag = task.initiator_task_tag;
            self.session.proto.forget_answered(slot);
            pending.report.found = true;
            pending.report.affected.push((self.session.id, tag));
            return;
        }
        if task.state == TaskState::Responded {
            pending.report.already_responded |= matches!(pending.scope.target, AbortTarget::Task { .. });
            return;
        }
        let tag = task.initiator_task_tag;
        let task_is_frozen = task.frozen;
        let open = task.out.is_open() && !task.frozen;
        let waits = pending.waits_for_data(self.session.id) && open && task.state == TaskState::Active;
        pending.report.found = true;
        pending.report.affected.push((self.session.id, tag));
        let operation = self.session.work_of(slot).map_or(0, |w| w.operation);
        if operation > 0 {
            self.wait_for_operation(slot, Slot(operation - 1), pending);
        }
        if waits {
            pending.data += 1;
            let id = pending.id;
            self.session.work_mut(slot).abort = Some(id);
            return;
        }
        if pending.scope.task_aborted && self.session.id != pending.scope.issuer && !task_is_frozen {
            // the status waits until the initiator has sent what it was asked for; nothing of that is looked at
            self.session.work_mut(slot).told = true;
            self.finish_status(slot, TASK_ABORTED);
            return;
        }
        self.end_aborted(slot);
    }

    /// The connection that an ABORT TASK for this tag came on.
    fn aborting_connection(&self, initiator_task_tag: u32) -> Option<ConnIndex> {
        let is_it = |task: &Task| {
            task.kind == TaskKind::Control
                && task.state == TaskState::Active
                && task.header.opcode() == Some(Opcode::TaskManagementRequest)
                && task.header.function() == function::ABORT_TASK
                && task.header.referenced_task_tag() == initiator_task_tag
        };
        self.session.proto.tasks().find(|(_, task)| is_it(task)).map(|(_, task)| task.conn)
    }

    fn end_aborted(&mut self, slot: Slot) {
        self.wake_task(slot);
        if let Some(work) = self.session.work.get_mut(slot.0 as usize) {
            work.phase = Phase::Done;
        }
        self.session.proto.abort_task(slot);
        self.drain_events();
    }

    /// Takes a running operation back if it has not begun; otherwise it is waited for when it can change the medium.
    fn wait_for_operation(&mut self, slot: Slot, at: Slot, pending: &mut PendingAbort) {
        let Some(record) = self.shared.operations.get_mut(at) else { return };
        let token = super::context::operation_token(self.worker, at, record.generation);
        let lun = self.session.work[slot.0 as usize].lun;
        if self.session.luns[lun].store().try_cancel(token) {
            self.shared.operations.remove(at);
            self.session.work_mut(slot).operation = 0;
        } else if record.changes {
            record.aborts.push(pending.id);
            pending.operations += 1;
        }
    }

    /// All data came of a task that an abort waits for.
    pub(super) fn aborted_data_came(&mut self, slot: Slot) {
        if self.session.proto.task(slot).is_some_and(|t| t.out.is_open()) {
            return;
        }
        let id = self.session.work_mut(slot).abort.take();
        self.end_aborted(slot);
        if let Some(id) = id
            && let Some(pending) = self.shared.aborts.iter_mut().find(|a| a.id == id)
        {
            pending.data -= 1;
        }
    }

    /// A command arrives while an abort waits for the commands before its own number. True when it was ended.
    pub(super) fn abort_latecomer(&mut self, slot: Slot) -> bool {
        let id = self.session.id;
        for at in 0..self.shared.aborts.len() {
            if self.shared.aborts[at].barrier.is_none_or(|(session, _)| session != id) {
                continue;
            }
            let scope = self.shared.aborts[at].scope.clone();
            if self.is_in_scope(&scope, slot) {
                let tag = self.session.proto.task(slot).map_or(0, |t| t.initiator_task_tag);
                let report = &mut self.shared.aborts[at].report;
                report.found = true;
                report.affected.push((id, tag));
                self.end_aborted(slot);
                return true;
            }
        }
        false
    }
}
