//! Calls for sessions of the target's role, and those that both roles share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use blockwire_wire::bhs::BHS_LEN;

use super::{Plane, Session, locked, unknown};
use crate::calls::{
    AbortScope, AbortTarget, Answer, Change, CommandClass, Effects, Gate, Handoff, LunMapping, Numbers, ReleaseMode,
    SessionSpec,
};
use crate::events::{AbortReport, Failure, OpId, OpResult, SessionId, StoreId, TaskTag};
use crate::mailbox::Job;
use crate::stores::StoreHandle;
use crate::worker::Worker;

/// `LunMapping` before its store is looked up.
#[derive(Clone, Debug)]
pub struct LunRequest {
    pub store: StoreId,
    pub block_size: u32,
    pub blocks: u64,
    pub read_only: bool,
    pub write_cache: bool,
    pub descriptor_sense: bool,
    pub can_unmap: bool,
    pub max_transfer_blocks: u32,
    pub gates: [Gate; CommandClass::COUNT],
}

impl Plane {
    /// Makes a target's session on the worker that already serves this target, so that its logical units stay on one worker.
    ///
    /// # Errors
    /// `plane.closed` or `plane.forked`.
    pub fn create_target_session(&self, spec: SessionSpec) -> Result<SessionId, Failure> {
        self.check()?;
        let id = self.id();
        let numbers = Arc::new(Numbers::default());
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        let worker = self.place(&sessions, &spec.target_name);
        let entry = Session::Target { worker, numbers: Arc::clone(&numbers), target_name: spec.target_name.clone() };
        sessions.insert(id, entry);
        drop(sessions);
        self.post(worker, Box::new(move |worker| worker.target.create_session(&mut worker.core, id, spec, numbers)));
        Ok(id)
    }

    /// Least sessions first among workers, except that sessions of one target stay together up to twice the average.
    fn place(&self, sessions: &std::collections::HashMap<SessionId, Session>, target_name: &str) -> usize {
        let workers = self.seats.len();
        let mut load = vec![0usize; workers];
        let mut same = vec![0usize; workers];
        for session in sessions.values() {
            if let Session::Target { worker, target_name: name, .. } = session {
                load[*worker] += 1;
                if name == target_name {
                    same[*worker] += 1;
                }
            }
        }
        let total: usize = load.iter().sum();
        let alive = |worker: usize| !self.seats[worker].mailbox.is_closed();
        let home = (0..workers).max_by_key(|&i| same[i]).filter(|&i| same[i] > 0);
        match home {
            Some(home) if load[home] * workers <= total * 2 + 8 && alive(home) => home,
            _ => (0..workers).filter(|&i| alive(i)).min_by_key(|&i| load[i]).unwrap_or(0),
        }
    }

    fn target_worker(&self, session: SessionId) -> Result<usize, Failure> {
        match self.session(session)? {
            Session::Target { worker, .. } => Ok(worker),
            Session::Initiator(_) => Err(Failure::new("plane.role", format!("session {session} is an initiator's"))),
        }
    }

    /// Runs a job on the worker of a target's session.
    fn on_target<F>(&self, session: SessionId, job: F) -> OpId
    where
        F: FnOnce(&mut Worker) -> Result<OpResult, Failure> + Send + 'static,
    {
        match self.check().and_then(|()| self.target_worker(session)) {
            Ok(worker) => self.run_op(worker, job),
            Err(failure) => self.failed_op(failure),
        }
    }

    /// `api.close_session`, either role.
    pub fn close_session(&self, session: SessionId) -> OpId {
        let entry = self.sessions.write().unwrap_or_else(PoisonError::into_inner).remove(&session);
        match entry {
            Some(Session::Target { worker, .. }) => self.run_op(worker, move |worker| {
                worker.target.close_session(&mut worker.core, session)?;
                Ok(OpResult::None)
            }),
            Some(Session::Initiator(entry)) => {
                entry.close();
                let op = self.id();
                self.events.done(op, Ok(OpResult::None));
                op
            }
            None => self.failed_op(unknown("session", session)),
        }
    }

    /// `api.numbers`, either role.
    ///
    /// # Errors
    /// There is no such session.
    pub fn numbers(&self, session: SessionId) -> Result<(u32, u32, u32), Failure> {
        Ok(match self.session(session)? {
            Session::Target { numbers, .. } => numbers.get(),
            Session::Initiator(session) => session.numbers(),
        })
    }

    /// `api.exp_stat_sn`: of a target's session 0.
    ///
    /// # Errors
    /// There is no such session.
    pub fn exp_stat_sn(&self, session: SessionId, cid: u16) -> Result<u32, Failure> {
        Ok(match self.session(session)? {
            Session::Target { .. } => 0,
            Session::Initiator(session) => session.exp_stat_sn(cid),
        })
    }

    /// `api.adopt`, either role. The transport is the plane's from now on, and closed when this fails.
    pub fn adopt(&self, session: SessionId, handoff: Handoff) -> OpId {
        match self.session(session) {
            Ok(Session::Initiator(entry)) => self.adopt_initiator(&entry, handoff),
            Ok(Session::Target { .. }) => self.on_target(session, move |worker| {
                worker.target.adopt(&mut worker.core, session, handoff)?;
                Ok(OpResult::None)
            }),
            Err(failure) => {
                drop(crate::transport::Transport::from_handle(handoff.transport));
                self.failed_op(failure)
            }
        }
    }

    /// `api.release`, either role.
    pub fn release(&self, session: SessionId, cid: u16, mode: ReleaseMode) -> OpId {
        match self.session(session) {
            Ok(Session::Initiator(entry)) => self.release_initiator(&entry, cid, mode),
            _ => self.on_target(session, move |worker| {
                worker.target.release(&mut worker.core, session, cid, mode).map(OpResult::Released)
            }),
        }
    }

    /// `api.configure`, either role.
    pub fn configure(&self, session: SessionId, cid: Option<u16>, changes: Vec<Change>) -> OpId {
        match self.session(session) {
            Ok(Session::Initiator(entry)) => self.configure_initiator(&entry, cid, &changes),
            _ => self.on_target(session, move |worker| {
                worker.target.configure(&mut worker.core, session, cid, &changes)?;
                Ok(OpResult::None)
            }),
        }
    }

    /// `api.map_lun`; `lun` is the LUN field as a number.
    pub fn map_lun(&self, session: SessionId, lun: u64, request: LunRequest) -> OpId {
        let store: Option<StoreHandle> = locked(&self.stores).get(&request.store).cloned();
        let Some(store) = store else { return self.failed_op(unknown("store", request.store)) };
        let worker = match self.check().and_then(|()| self.target_worker(session)) {
            Ok(worker) => worker,
            Err(failure) => return self.failed_op(failure),
        };
        store.serve_on(worker, &self.seats[worker].mailbox);
        let mapping = LunMapping {
            store,
            block_size: request.block_size,
            blocks: request.blocks,
            read_only: request.read_only,
            write_cache: request.write_cache,
            descriptor_sense: request.descriptor_sense,
            can_unmap: request.can_unmap,
            max_transfer_blocks: request.max_transfer_blocks,
            gates: request.gates,
        };
        let others: Vec<usize> = mapping.store.workers().filter(|&w| w != worker && w < self.seats.len()).collect();
        let id = mapping.store.id;
        let op = self.id();
        let ending = self.ending(op);
        let map: Job = Box::new(move |worker| {
            let result = worker.target.map_lun(&mut worker.core, session, lun, mapping);
            ending.done(result.map(|()| OpResult::None));
        });
        if others.is_empty() {
            self.post(worker, map);
            return op;
        }
        // The store's memory is about to change under another worker's hands: what the present ones still send straight from it
        // is copied out before the first command can come.
        let left = Arc::new(Mutex::new((others.len(), Some(map))));
        let home = Arc::clone(&self.seats[worker].mailbox);
        for other in others {
            let (left, home) = (Arc::clone(&left), Arc::clone(&home));
            let copied_out: Job = Box::new(move |worker| {
                worker.target.about_to_change(&mut worker.core, id, 0, u64::MAX);
                let mut left = locked(&left);
                left.0 -= 1;
                if left.0 == 0
                    && let Some(map) = left.1.take()
                {
                    home.post(map);
                }
            });
            self.post(other, copied_out);
        }
        op
    }

    /// `api.unmap_lun`.
    pub fn unmap_lun(&self, session: SessionId, lun: u64) -> OpId {
        self.on_target(session, move |worker| {
            worker.target.unmap_lun(&mut worker.core, session, lun)?;
            Ok(OpResult::None)
        })
    }

    /// `api.set_gate`: ends when every worker that serves one of the nexuses has it. Unknown sessions are gone and need no gate.
    pub fn set_gate(&self, nexuses: &[(SessionId, u64)], gates: &[(CommandClass, Gate)]) -> OpId {
        let mut by_worker: BTreeMap<usize, Vec<(SessionId, u64)>> = BTreeMap::new();
        for &(session, lun) in nexuses {
            if let Ok(worker) = self.target_worker(session) {
                by_worker.entry(worker).or_default().push((session, lun));
            }
        }
        let op = self.id();
        if by_worker.is_empty() {
            self.events.done(op, Ok(OpResult::None));
            return op;
        }
        // told by the last; when one breaks down, by the drop of what all of them hold
        let left = Arc::new(Mutex::new((by_worker.len(), Some(self.ending(op)))));
        for (worker, nexuses) in by_worker {
            let gates = gates.to_vec();
            let left = Arc::clone(&left);
            self.post(
                worker,
                Box::new(move |worker| {
                    worker.target.set_gate(&mut worker.core, &nexuses, &gates);
                    let mut left = locked(&left);
                    left.0 -= 1;
                    if left.0 == 0
                        && let Some(ending) = left.1.take()
                    {
                        ending.done(Ok(OpResult::None));
                    }
                }),
            );
        }
        op
    }

    /// `api.abort`: of a logical unit, on every worker that serves it, with one merged report.
    pub fn abort(&self, scope: AbortScope) -> OpId {
        let workers: Vec<usize> = match &scope.target {
            AbortTarget::LogicalUnit { store } => {
                locked(&self.stores).get(store).map(|s| s.workers().collect()).unwrap_or_default()
            }
            AbortTarget::Task { session, .. }
            | AbortTarget::TaskSet { session, .. }
            | AbortTarget::Nexus { session } => match self.target_worker(*session) {
                Ok(worker) => vec![worker],
                Err(failure) => return self.failed_op(failure),
            },
        };
        let op = self.id();
        if workers.is_empty() {
            self.events.done(op, Ok(OpResult::Aborted(AbortReport { complete: true, ..AbortReport::default() })));
            return op;
        }
        let report = AbortReport { complete: true, ..AbortReport::default() };
        let merged = Arc::new(Mutex::new((workers.len(), report, Some(self.ending(op)))));
        for worker in workers {
            let scope = scope.clone();
            let merged = Arc::clone(&merged);
            let done = Box::new(move |report: AbortReport| {
                let mut merged = locked(&merged);
                merged.0 -= 1;
                merged.1.affected.extend(report.affected);
                merged.1.found |= report.found;
                merged.1.complete &= report.complete;
                merged.1.already_responded |= report.already_responded;
                if merged.0 == 0
                    && let Some(ending) = merged.2.take()
                {
                    ending.done(Ok(OpResult::Aborted(std::mem::take(&mut merged.1))));
                }
            });
            self.post(worker, Box::new(move |worker| worker.target.abort(&mut worker.core, scope, done)));
        }
        op
    }

    /// `api.query`, either role: ends with the tasks that are there now.
    pub fn query(&self, scope: AbortScope) -> OpId {
        let workers: Vec<usize> = match &scope.target {
            AbortTarget::LogicalUnit { store } => {
                locked(&self.stores).get(store).map(|s| s.workers().collect()).unwrap_or_default()
            }
            AbortTarget::Task { session, .. }
            | AbortTarget::TaskSet { session, .. }
            | AbortTarget::Nexus { session } => match self.session(*session) {
                Ok(Session::Target { worker, .. }) => vec![worker],
                Ok(Session::Initiator(entry)) => {
                    let op = self.id();
                    self.events.done(op, Ok(OpResult::Tasks(entry.look(&scope))));
                    return op;
                }
                Err(failure) => return self.failed_op(failure),
            },
        };
        let op = self.id();
        if workers.is_empty() {
            self.events.done(op, Ok(OpResult::Tasks(Vec::new())));
            return op;
        }
        let merged = Arc::new(Mutex::new((workers.len(), Vec::new(), Some(self.ending(op)))));
        for worker in workers {
            let scope = scope.clone();
            let merged = Arc::clone(&merged);
            self.post(
                worker,
                Box::new(move |worker| {
                    let found = worker.target.query(&mut worker.core, &scope);
                    let mut merged = locked(&merged);
                    merged.0 -= 1;
                    merged.1.extend(found);
                    if merged.0 == 0
                        && let Some(ending) = merged.2.take()
                    {
                        ending.done(Ok(OpResult::Tasks(std::mem::take(&mut merged.1))));
                    }
                }),
            );
        }
        op
    }

    /// `api.reassign`: an initiator's frozen tasks of one connection go to another one.
    pub fn reassign(&self, session: SessionId, from: u16, to: u16) -> OpId {
        match self.initiator_session(session) {
            Ok(entry) => {
                let op = self.id();
                self.events.done(op, entry.reassign(from, to).map(OpResult::Count));
                op
            }
            Err(failure) => self.failed_op(failure),
        }
    }

    /// `api.reply`. A session or task that is gone needs no answer.
    ///
    /// # Errors
    /// The session is an initiator's, or the plane is closed.
    pub fn reply(&self, session: SessionId, tag: TaskTag, answer: Answer, effects: Effects) -> Result<(), Failure> {
        self.check()?;
        let worker = match self.target_worker(session) {
            Ok(worker) => worker,
            Err(failure) if failure.code == "plane.unknown" => return Ok(()),
            Err(failure) => return Err(failure),
        };
        self.post(worker, Box::new(move |worker| worker.target.reply(&mut worker.core, session, tag, answer, effects)));
        Ok(())
    }

    /// `api.send_unsolicited`.
    ///
    /// # Errors
    /// As `reply`.
    pub fn send_unsolicited(
        &self, session: SessionId, cid: u16, header: [u8; BHS_LEN], data: Vec<u8>, effects: Effects,
    ) -> Result<(), Failure> {
        self.check()?;
        let worker = match self.target_worker(session) {
            Ok(worker) => worker,
            Err(failure) if failure.code == "plane.unknown" => return Ok(()),
            Err(failure) => return Err(failure),
        };
        self.post(
            worker,
            Box::new(move |worker| {
                worker.target.send_unsolicited(&mut worker.core, session, cid, header, data, effects);
            }),
        );
        Ok(())
    }
}
