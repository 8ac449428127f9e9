//! The protocol session together with memory, completion queues and events.

use std::collections::VecDeque;
use std::sync::Arc;

use blockwire_proto::initiator::{self as proto, Outcome};
use blockwire_proto::{ConnIndex, Direction, Fatal, Slot};
use blockwire_wire::Opcode;

use super::request::{Place, Places};
use crate::clock::Nanos;
use crate::events::{Event, EventQueue, SessionId, TaskDone, Token};
use crate::receive::Role;
use crate::sys::socket::Part;
use crate::trace::{TraceEntry, TraceRing};

/// Where completions of `execute` go.
pub(super) const SYNCHRONOUS: u32 = u32::MAX;
/// Where completions of the load generator go; tokens are its own there.
pub(super) const LOAD: u32 = u32::MAX - 1;
/// The request was given up and its memory taken from it: its end interests nobody.
pub(super) const NOBODY: u32 = u32::MAX - 2;
/// The plane's event queue.
pub(super) const PLANE: u32 = 0;

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub done: VecDeque<TaskDone>,
    pub in_flight: usize,
    pub open: bool,
}

pub(super) struct Side {
    pub id: SessionId,
    pub proto: proto::InitiatorSession,
    pub places: Places,
    /// Completion queues; index 0 stands for the plane's events and stays empty.
    pub queues: Vec<Queue>,
    pub synchronous: Vec<TaskDone>,
    pub load: Vec<TaskDone>,
    pub events: Arc<EventQueue>,
    pub trace: TraceRing,
    /// Requests in flight whose completion is an event.
    pub plane_tasks: usize,
    /// Requests that ended.
    pub ended: u64,
    /// R2Ts that came.
    pub asked: u64,
    /// Something ended since parked callers were last told.
    pub news: bool,
}

impl Side {
    pub fn cid(&self, conn: ConnIndex) -> u16 {
        self.proto.connection_params(conn).map_or(0, |p| p.cid)
    }

    /// Acts on what the protocol session has to tell.
    #[inline]
    pub fn drain(&mut self) {
        while let Some(event) = self.proto.poll_event() {
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: proto::Event) {
        match event {
            proto::Event::TaskEnded { slot, outcome, .. } => {
                if let Some(place) = self.places.take(slot) {
                    self.ended(&place, outcome);
                }
            }
            proto::Event::Control { conn, context, bhs, data } => {
                let event = Event::ControlPdu {
                    session: self.id,
                    cid: self.cid(conn),
                    header: bhs.0,
                    data,
                    tag: 0,
                    token: context,
                };
                self.events.push(event);
            }
            proto::Event::ControlLost { context } => {
                self.events.push(Event::TaskDone(failed(context, "connection.lost")));
            }
            // the task goes on: whoever asked for the abort still waits for its end
            proto::Event::AbortRefused { .. } => {}
            // it cannot go on: its caller sends it again, or not
            proto::Event::ReassignRefused { context, .. } => self.proto.end_refused(context),
        }
    }

    fn ended(&mut self, place: &Place, outcome: Outcome) {
        let token = place.token;
        let done = match outcome {
            Outcome::Status { status, residual, read_residual, sense } => {
                let of_the_read = if place.writes() { read_residual } else { residual };
                let residual = if residual == 0 { read_residual } else { residual };
                TaskDone { token, status, sense, residual, short: of_the_read.max(0).cast_unsigned(), code: "" }
            }
            Outcome::TargetFailure(_) => failed(token, "target.failure"),
            Outcome::Aborted => failed(token, "task.aborted"),
            Outcome::Rejected(_) => failed(token, "task.rejected"),
            Outcome::ConnectionLost if self.proto.is_dead() => failed(token, "session.lost"),
            Outcome::ConnectionLost => failed(token, "connection.lost"),
        };
        self.deliver(place.queue, done);
    }

    pub fn deliver(&mut self, queue: u32, done: TaskDone) {
        self.news = true;
        self.ended += 1;
        match queue {
            SYNCHRONOUS => self.synchronous.push(done),
            LOAD => self.load.push(done),
            NOBODY => {}
            PLANE => {
                self.plane_tasks -= 1;
                self.events.push(Event::TaskDone(done));
            }
            index => {
                let queue = &mut self.queues[index as usize];
                queue.in_flight -= 1;
                if queue.open {
                    queue.done.push_back(done);
                } else {
                    // nobody waits on it any more: the buffers are released by `drain`
                    self.events.push(Event::TaskDone(done));
                }
            }
        }
    }
}

pub(super) fn failed(token: Token, code: &'static str) -> TaskDone {
    TaskDone { token, status: 0, sense: Vec::new(), residual: 0, short: 0, code }
}

impl Role for Side {
    type Endpoint = proto::InitiatorSession;

    #[inline]
    fn endpoint(&mut self) -> &mut proto::InitiatorSession {
        &mut self.proto
    }

    #[inline]
    fn place(&mut self, slot: Slot, _direction: Direction, offset: u32, len: u32) -> Option<Part> {
        self.places.writable(slot, offset, len)
    }

    #[inline]
    fn seen(&mut self, conn: ConnIndex, now: Nanos) {
        use blockwire_proto::Endpoint as _;
        let bhs = *self.proto.deframer(conn).bhs();
        self.asked += u64::from(bhs.opcode() == Some(Opcode::R2t));
        let cid = self.cid(conn);
        self.trace.record(TraceEntry { time: now, session: self.id, cid, sent: false, bhs });
    }

    #[inline]
    fn after_pdu(&mut self, _conn: ConnIndex, _now: Nanos) -> Result<(), Fatal> {
        self.drain();
        Ok(())
    }
}
