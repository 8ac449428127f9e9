//! Calls for sessions of the initiator's role.

use std::sync::Arc;
use std::time::Duration;

use blockwire_wire::bhs::BHS_LEN;

use super::{Plane, Session, unknown};
use crate::calls::{Change, Handoff, ReleaseMode, SessionSpec};
use crate::events::{Failure, OpId, OpResult, QueueId, SessionId, TaskDone, Token};
use crate::initiator::{
    BlockRequest, Check, CommandRequest, Executed, InitiatorSession, LoadReport, LoadSpec, LoadTable, Memory,
};

/// Queue ids of a plane: the session above, its own index below.
const QUEUE_BITS: u32 = 16;

fn queue_index(queue: QueueId) -> u32 {
    (queue & ((1 << QUEUE_BITS) - 1)) as u32
}

impl Plane {
    /// Makes an initiator's session; the least used worker keeps its background.
    ///
    /// # Errors
    /// `plane.closed` or `plane.forked`.
    pub fn create_initiator_session(&self, spec: SessionSpec) -> Result<SessionId, Failure> {
        self.check()?;
        // the number says where it lives: not on a worker that is gone, if there is another
        let alive = |id: &u64| !self.seats[(*id as usize) % self.seats.len()].mailbox.is_closed();
        let id = (0..self.seats.len()).map(|_| self.id()).find(alive).unwrap_or_else(|| self.id());
        let worker = (id as usize) % self.seats.len();
        let mailbox = Arc::clone(&self.seats[worker].mailbox);
        let session =
            InitiatorSession::new(id, &spec, &self.options, self.clock.clone(), mailbox, Arc::clone(&self.events));
        let mut sessions = self.sessions.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        sessions.insert(id, Session::Initiator(session));
        Ok(id)
    }

    /// The worker that keeps the background of a session.
    fn home(&self, session: &Arc<InitiatorSession>) -> usize {
        (session.id() as usize) % self.seats.len()
    }

    pub(super) fn adopt_initiator(&self, session: &Arc<InitiatorSession>, handoff: Handoff) -> OpId {
        let entry = Arc::clone(session);
        self.run_op(self.home(session), move |worker| {
            worker.initiators.adopt(&mut worker.core, &entry, handoff)?;
            Ok(OpResult::None)
        })
    }

    pub(super) fn release_initiator(&self, session: &Arc<InitiatorSession>, cid: u16, mode: ReleaseMode) -> OpId {
        let entry = Arc::clone(session);
        self.run_op(self.home(session), move |worker| {
            worker.initiators.release(&mut worker.core, &entry, cid, mode).map(OpResult::Released)
        })
    }

    pub(super) fn configure_initiator(
        &self, session: &Arc<InitiatorSession>, cid: Option<u16>, changes: &[Change],
    ) -> OpId {
        let op = self.id();
        self.events.done(op, session.configure(cid, changes).map(|()| OpResult::None));
        op
    }

    /// The session, if it is an initiator's.
    ///
    /// # Errors
    /// The plane is closed, there is no such session, or it is a target's.
    #[inline]
    pub fn initiator_session(&self, session: SessionId) -> Result<Arc<InitiatorSession>, Failure> {
        self.check()?;
        match self.session(session)? {
            Session::Initiator(session) => Ok(session),
            Session::Target { .. } => Err(Failure::new("plane.role", format!("session {session} is a target's"))),
        }
    }

    /// A fresh token, to be known before the request is.
    #[inline]
    pub fn token(&self) -> Token {
        self.id()
    }

    /// `api.open_queue`.
    ///
    /// # Errors
    /// As `initiator_session`.
    pub fn open_queue(&self, session: SessionId) -> Result<QueueId, Failure> {
        let index = self.initiator_session(session)?.open_queue();
        if u64::from(index) >> QUEUE_BITS != 0 {
            return Err(Failure::new("session.full", "the session has 65,535 open queues"));
        }
        Ok(session << QUEUE_BITS | u64::from(index))
    }

    /// `api.close_queue`; a queue of a session that is gone is closed.
    pub fn close_queue(&self, queue: QueueId) {
        if let Ok(session) = self.initiator_session(queue >> QUEUE_BITS) {
            session.close_queue(queue_index(queue));
        }
    }

    /// The queue's index within `session`; 0 is the plane's event stream.
    fn queue_of(session: SessionId, queue: QueueId) -> Result<u32, Failure> {
        if queue != 0 && queue >> QUEUE_BITS != session {
            return Err(Failure::new("request.invalid", "the queue belongs to another session"));
        }
        Ok(queue_index(queue))
    }

    /// `api.submit`.
    ///
    /// # Errors
    /// The request was not taken; its buffers are free.
    pub fn submit(
        &self, session: SessionId, token: Token, queue: QueueId, request: &CommandRequest<'_>,
    ) -> Result<(), Failure> {
        self.initiator_session(session)?.submit(token, Self::queue_of(session, queue)?, request)
    }

    /// `api.submit_io`.
    ///
    /// # Errors
    /// As `submit`.
    pub fn submit_io(
        &self, session: SessionId, token: Token, queue: QueueId, lun: u64, io: &BlockRequest, buffer: Memory,
    ) -> Result<(), Failure> {
        self.initiator_session(session)?.submit_io(token, Self::queue_of(session, queue)?, lun, io, buffer)
    }

    /// `api.execute`.
    ///
    /// # Errors
    /// As `submit`.
    pub fn execute(
        &self, session: SessionId, token: Token, request: &CommandRequest<'_>, timeout: Option<Duration>,
        check: Check<'_>,
    ) -> Result<Executed, Failure> {
        self.initiator_session(session)?.execute(token, request, timeout, check)
    }

    /// `api.execute_io`.
    ///
    /// # Errors
    /// As `submit`.
    pub fn execute_io(
        &self, session: SessionId, token: Token, lun: u64, io: &BlockRequest, buffer: Memory,
        timeout: Option<Duration>, check: Check<'_>,
    ) -> Result<Executed, Failure> {
        self.initiator_session(session)?.execute_io(token, lun, io, buffer, timeout, check)
    }

    /// `api.wait`.
    ///
    /// # Errors
    /// There is no such queue.
    pub fn wait(
        &self, queue: QueueId, minimum: usize, timeout: Option<Duration>, check: Check<'_>, out: &mut Vec<TaskDone>,
    ) -> Result<(), Failure> {
        let session = self
            .initiator_session(queue >> QUEUE_BITS)
            .map_err(|failure| if failure.code == "plane.unknown" { unknown("queue", queue) } else { failure })?;
        session.wait(queue_index(queue), minimum, timeout, check, out)
    }

    /// `api.cancel`.
    #[must_use]
    pub fn cancel(&self, token: Token) -> bool {
        let sessions = self.sessions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        sessions.values().any(|entry| matches!(entry, Session::Initiator(session) if session.cancel(token)))
    }

    /// Whether a request's buffers may still be in use; of a session that is gone nobody can tell.
    #[must_use]
    pub fn is_in_flight(&self, session: SessionId, token: Token) -> bool {
        self.initiator_session(session).map_or(true, |session| session.is_in_flight(token))
    }

    /// `api.send_pdu`.
    ///
    /// # Errors
    /// It is no control request, or there is no connection for it.
    pub fn send_pdu(
        &self, session: SessionId, cid: Option<u16>, header: &[u8; BHS_LEN], data: &[u8],
    ) -> Result<Token, Failure> {
        let token = self.id();
        self.initiator_session(session)?.send_pdu(token, cid, header, data)?;
        Ok(token)
    }

    /// `api.run_load`, on the caller's thread.
    ///
    /// # Errors
    /// The specification makes no sense, or there is no such session.
    pub fn run_load(
        &self, session: SessionId, spec: &LoadSpec, table: &mut LoadTable, check: Check<'_>,
    ) -> Result<LoadReport, Failure> {
        self.initiator_session(session)?.run_load(spec, table, check)
    }
}
