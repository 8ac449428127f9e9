//! Calls of the boundary that carry I/O: submit, wait, execute, cancel.

use std::time::Duration;

use blockwire_proto::Slot;
use blockwire_proto::initiator::{Command, SubmitError};
use blockwire_wire::Bhs;
use blockwire_wire::bhs::BHS_LEN;

use super::cdb::{BlockRequest, IoKind};
use super::drive::Guard;
use super::request::{CommandRequest, Executed, LONGEST_BLOCK, Memory, Place, Source};
use super::session::{InitiatorSession, SLICE, State};
use super::side::{LOAD, NOBODY, PLANE, Queue, SYNCHRONOUS, failed};
use crate::clock::Nanos;
use crate::events::{Failure, TaskDone, Token};

/// Called at least every 100 ms while a call waits; true ends the wait (a signal came).
pub type Check<'a> = &'a mut dyn FnMut() -> bool;

/// How long a call waits for the end of a task that it aborted.
const GRACE: Nanos = 5_000_000_000;

fn refusal(error: SubmitError) -> Failure {
    match error {
        SubmitError::Full => Failure::new("session.full", "65,536 requests of the session are unfinished"),
        SubmitError::Dead => Failure::new("session.lost", "the session has no connection left"),
        SubmitError::NoConnection => {
            Failure::new("session.no-connection", "the connection is gone or being logged out")
        }
        SubmitError::Invalid => Failure::new("request.invalid", "no such request (the CDB has 1 to 260 bytes)"),
    }
}

impl State {
    /// Takes a request; its completion goes to `queue`.
    pub(super) fn begin(
        &mut self, token: Token, queue: u32, request: &CommandRequest<'_>, source: Source, write_len: u32,
    ) -> Result<Option<Slot>, Failure> {
        if queue != PLANE && queue != SYNCHRONOUS && queue != LOAD {
            let known = self.side.queues.get(queue as usize).is_some_and(|q| q.open);
            if !known {
                return Err(Failure::new("plane.unknown", "the queue was closed"));
            }
        }
        let conn = match request.cid {
            None => None,
            Some(cid) => {
                let found = self.side.proto.find_connection(cid);
                Some(found.ok_or_else(|| refusal(SubmitError::NoConnection))?)
            }
        };
        let command = Command {
            lun: request.lun,
            cdb: request.cdb,
            attribute: request.attribute,
            immediate: request.immediate,
            write_len,
            read_len: request.data_in.len(),
            conn,
            context: token,
        };
        let taken = self.side.proto.submit(&command);
        if matches!(taken, Ok(_) | Err(SubmitError::Dead)) {
            match queue {
                PLANE => self.side.plane_tasks += 1,
                SYNCHRONOUS | LOAD => {}
                index => self.side.queues[index as usize].in_flight += 1,
            }
        }
        match taken {
            Ok(slot) => {
                let place = Place { source, target: request.data_in, queue, token, revoked: false };
                self.side.places.set(slot, place);
                Ok(Some(slot))
            }
            Err(SubmitError::Dead) => {
                self.side.deliver(queue, failed(token, "session.lost"));
                Ok(None)
            }
            Err(error) => Err(refusal(error)),
        }
    }

    /// Nobody waits for this request any more. A read's memory is taken from it, in the middle of a PDU if need be, so that
    /// what still comes is thrown away. True when the memory stays in use (data may be on its way out, or another thread
    /// may just be receiving into it): then its end comes as an event.
    fn give_up(&mut self, token: Token) -> bool {
        let reader = self.reader;
        let mut pinned = false;
        for place in self.side.places.all().filter(|p| p.token == token && p.queue == SYNCHRONOUS) {
            pinned = place.writes() || reader;
            place.revoked = !pinned;
            place.queue = if pinned { PLANE } else { NOBODY };
        }
        self.side.plane_tasks += usize::from(pinned);
        pinned
    }

    /// As `begin`, for a block request.
    pub(super) fn begin_io(
        &mut self, token: Token, queue: u32, lun: u64, io: &BlockRequest, buffer: Memory, most: u32,
    ) -> Result<Option<Slot>, Failure> {
        let (to_target, from_target) = io.lengths();
        let invalid = |what: &str| Err(Failure::new("request.invalid", what));
        if to_target.max(from_target) > u64::from(most) {
            return invalid("the request is longer than the plane's max_transfer");
        }
        let (source, data_in) = match io.kind {
            IoKind::Read if u64::from(buffer.len()) != from_target => {
                return invalid("the buffer's length is not that of the blocks");
            }
            IoKind::Write if u64::from(buffer.len()) != to_target => {
                return invalid("the buffer's length is not that of the blocks");
            }
            IoKind::Read => (Source::Memory(Memory::NONE), buffer),
            IoKind::Write => (Source::Memory(buffer), Memory::NONE),
            IoKind::Flush => (Source::Memory(Memory::NONE), Memory::NONE),
            IoKind::Unmap => (Source::List(io.unmap_list()), Memory::NONE),
            // to the target it would mean all blocks up to the last one (SBC-4 5.49)
            IoKind::WriteSameZero if io.blocks == 0 => return invalid("zeroing no blocks at all"),
            IoKind::WriteSameZero if io.block_size > LONGEST_BLOCK => return invalid("blocks longer than 64 KiB"),
            IoKind::WriteSameZero => (Source::Zeros, Memory::NONE),
        };
        let mut cdb = [0; 16];
        let length = io.cdb(&mut cdb);
        let request = CommandRequest {
            lun,
            cdb: &cdb[..length],
            attribute: 1,
            immediate: false,
            data_out: Memory::NONE,
            data_in,
            cid: None,
        };
        self.begin(token, queue, &request, source, to_target as u32)
    }
}

impl InitiatorSession {
    /// Callers drive from now on; the worker disarms the sockets when it hears of it.
    #[inline]
    pub(super) fn enter(&self, state: &mut State) {
        state.uses += 1;
        if !state.foreground && !self.stepped {
            state.foreground = true;
            self.wake_background();
        }
    }

    /// What follows a submission: nothing when a batch of them is to come or somebody will wait for it, else it leaves.
    fn send_soon(&self, state: &mut State, queue: u32) {
        if queue != PLANE {
            self.enter(state);
            if !state.has_batch() && !self.stepped {
                return;
            }
        }
        self.send_now(state);
        self.tell(state);
        let proto = &state.side.proto;
        if proto.params().error_recovery_level > 0 && proto.unfinished() == 1 {
            self.wake_background(); // from now on silence means something
        }
    }

    /// Sends; what the socket does not take leaves through the worker unless this caller will wait itself.
    fn send_now(&self, state: &mut State) {
        if state.flush(self.clock.now()) && (state.reader || !state.foreground) {
            self.wake_background();
        }
    }

    /// `api.submit`: any SCSI command; its `TaskDone` goes to `queue` (0: the plane's events).
    ///
    /// # Errors
    /// The request was not taken; its buffers are free.
    pub fn submit(&self, token: Token, queue: u32, request: &CommandRequest<'_>) -> Result<(), Failure> {
        if request.data_out.len().max(request.data_in.len()) > self.max_transfer {
            return Err(Failure::new("request.invalid", "the request is longer than the plane's max_transfer"));
        }
        let mut state = self.lock();
        state.begin(token, queue, request, Source::Memory(request.data_out), request.data_out.len())?;
        self.send_soon(&mut state, queue);
        Ok(())
    }

    /// `api.submit_io`: a block request. `buffer` has exactly the length of the blocks for READ and WRITE, else none.
    ///
    /// # Errors
    /// As `submit`.
    pub fn submit_io(
        &self, token: Token, queue: u32, lun: u64, io: &BlockRequest, buffer: Memory,
    ) -> Result<(), Failure> {
        let mut state = self.lock();
        state.begin_io(token, queue, lun, io, buffer, self.max_transfer)?;
        self.send_soon(&mut state, queue);
        Ok(())
    }

    /// `api.execute`: submits and waits on this thread. `timeout` or `check` abort the task and wait for its end, which
    /// a peer that does not answer may delay by five seconds.
    ///
    /// # Errors
    /// As `submit`.
    pub fn execute(
        &self, token: Token, request: &CommandRequest<'_>, timeout: Option<Duration>, check: Check<'_>,
    ) -> Result<Executed, Failure> {
        if request.data_out.len().max(request.data_in.len()) > self.max_transfer {
            return Err(Failure::new("request.invalid", "the request is longer than the plane's max_transfer"));
        }
        let mut state = self.lock();
        self.enter(&mut state);
        state.begin(token, SYNCHRONOUS, request, Source::Memory(request.data_out), request.data_out.len())?;
        Ok(self.finish(state, token, timeout, check))
    }

    /// `api.execute_io`.
    ///
    /// # Errors
    /// As `submit`.
    pub fn execute_io(
        &self, token: Token, lun: u64, io: &BlockRequest, buffer: Memory, timeout: Option<Duration>, check: Check<'_>,
    ) -> Result<Executed, Failure> {
        let mut state = self.lock();
        self.enter(&mut state);
        state.begin_io(token, SYNCHRONOUS, lun, io, buffer, self.max_transfer)?;
        Ok(self.finish(state, token, timeout, check))
    }

    fn finish<'a>(
        &'a self, mut state: Guard<'a>, token: Token, timeout: Option<Duration>, check: Check<'_>,
    ) -> Executed {
        self.send_now(&mut state);
        let mut now = self.clock.now();
        let mut deadline = timeout.map(|t| now.saturating_add(nanos(t)));
        let mut aborted = false;
        let mut checked = now;
        loop {
            if let Some(at) = state.side.synchronous.iter().position(|d| d.token == token) {
                let done = state.side.synchronous.swap_remove(at);
                self.leave(state);
                return Executed { done, pinned: false };
            }
            let late = deadline.is_some_and(|at| now >= at);
            if late && aborted || self.stepped {
                let pinned = state.give_up(token);
                self.leave(state);
                let code = if self.stepped { "plane.stepped" } else { "task.timeout" };
                return Executed { done: failed(token, code), pinned };
            }
            if late {
                aborted = true;
                deadline = Some(now.saturating_add(GRACE));
                self.abort(&mut state, token);
                continue;
            }
            let limit = deadline.map_or(SLICE, |at| Duration::from_nanos(at - now));
            state = self.advance(state, limit);
            self.send_now(&mut state);
            now = self.clock.now();
            if !aborted && now.saturating_sub(checked) >= nanos(SLICE) {
                checked = now;
                drop(state);
                let stop = check();
                state = self.lock();
                if stop {
                    deadline = Some(now);
                }
            }
        }
    }

    /// `api.wait`: waits on this thread until `minimum` requests of `queue` ended, none is in flight, `timeout` passed or
    /// `check` said so; appends all that ended to `out`. Zero for `minimum` or `timeout` takes what is there.
    ///
    /// # Errors
    /// There is no such queue.
    pub fn wait(
        &self, queue: u32, minimum: usize, timeout: Option<Duration>, check: Check<'_>, out: &mut Vec<TaskDone>,
    ) -> Result<(), Failure> {
        let mut state = self.lock();
        if queue == PLANE || state.side.queues.get(queue as usize).is_none_or(|q| !q.open) {
            return Err(Failure::new("plane.unknown", "there is no such queue"));
        }
        self.enter(&mut state);
        self.send_now(&mut state);
        let started = self.clock.now();
        let deadline = timeout.map(|t| started.saturating_add(nanos(t)));
        let mut checked = started;
        let mut now = started;
        let mut looked = false;
        loop {
            let this = &state.side.queues[queue as usize];
            let enough = this.done.len() >= minimum && (minimum > 0 || looked || !this.done.is_empty());
            let late = deadline.is_some_and(|at| now >= at) && looked;
            if enough || this.in_flight == 0 || late {
                break;
            }
            let limit = match deadline {
                _ if minimum == 0 => Duration::ZERO,
                Some(at) => Duration::from_nanos(at.saturating_sub(now)),
                None => SLICE,
            };
            looked = true;
            state = self.advance(state, limit);
            self.send_now(&mut state);
            now = self.clock.now();
            if now.saturating_sub(checked) >= nanos(SLICE) {
                checked = now;
                drop(state);
                let stop = check();
                state = self.lock();
                if stop {
                    break;
                }
            }
        }
        out.extend(state.side.queues[queue as usize].done.drain(..));
        self.leave(state);
        Ok(())
    }

    fn abort(&self, state: &mut State, token: Token) -> bool {
        let Some(slot) = state.side.proto.find_task(token) else { return false };
        state.side.proto.abort(slot);
        state.side.drain();
        self.send_now(state);
        self.tell(state);
        true
    }

    /// `api.cancel`. False when no request with this token is in flight.
    pub fn cancel(&self, token: Token) -> bool {
        let mut state = self.lock();
        self.abort(&mut state, token)
    }

    /// `api.open_queue`: an index of this session, never 0.
    pub fn open_queue(&self) -> u32 {
        let mut state = self.lock();
        let queues = &mut state.side.queues;
        let free = queues.iter().skip(1).position(|q| !q.open && q.in_flight == 0).map(|i| i + 1);
        let index = free.unwrap_or(queues.len());
        if free.is_none() {
            queues.push(Queue::default());
        }
        queues[index].open = true;
        index as u32
    }

    /// `api.close_queue`: cancels what is in flight; the ends come as events, and so do completions nobody took.
    pub fn close_queue(&self, queue: u32) {
        let mut state = self.lock();
        let Some(this) = state.side.queues.get_mut(queue as usize).filter(|q| q.open) else { return };
        this.open = false;
        for done in std::mem::take(&mut this.done) {
            state.side.events.push(crate::events::Event::TaskDone(done));
        }
        let tokens: Vec<Token> = state.side.places.all().filter(|p| p.queue == queue).map(|p| p.token).collect();
        for token in tokens {
            self.abort(&mut state, token);
        }
        if state.side.queues[queue as usize].in_flight > 0 {
            // nobody waits for these any more: the worker has to
            state.foreground = state.reader || state.parked > 0;
            drop(state);
            self.wake_background();
        }
    }

    /// `api.send_pdu`: a control request; the answer is a `ControlPdu` event with `token`, or a `TaskDone` with
    /// `connection.lost`.
    ///
    /// # Errors
    /// It is no control request, or there is no connection for it.
    pub fn send_pdu(&self, token: Token, cid: Option<u16>, header: &[u8; BHS_LEN], data: &[u8]) -> Result<(), Failure> {
        let mut state = self.lock();
        let conn = match cid {
            None => None,
            Some(cid) => {
                let found = state.side.proto.find_connection(cid);
                Some(found.ok_or_else(|| refusal(SubmitError::NoConnection))?)
            }
        };
        state.side.proto.submit_control(conn, &Bhs(*header), data, token).map_err(refusal)?;
        self.send_now(&mut state);
        // its answer is an event: nobody may be there to read it
        if state.foreground && !state.reader && state.parked == 0 {
            state.foreground = false;
            drop(state);
            self.wake_background();
        }
        Ok(())
    }

    /// Has the worker look at the session: interest, timers.
    pub(super) fn wake_background(&self) {
        let number = self.background_number.load(std::sync::atomic::Ordering::Acquire);
        if self.attached.load(std::sync::atomic::Ordering::Acquire) {
            self.mailbox.post(Box::new(move |worker| worker.initiators.refresh(&mut worker.core, number)));
        }
    }
}

pub(super) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
