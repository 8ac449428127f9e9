//! What the work on one session needs of its worker.

use std::collections::VecDeque;
use std::sync::Arc;

use blockwire_proto::retain::RetentionBudget;
use blockwire_proto::target::{Finish, Residual, TargetEvent};
use blockwire_proto::{ConnIndex, Endpoint, Slab, Slot};
use blockwire_store::{CompletionSink, Op, Outcome, Submitted};
use blockwire_wire::opcode::status;

use super::abort::PendingAbort;
use super::direct::DirectReads;
use super::role::{Outlet, SendScratch};
use super::sense::Sense;
use super::session::Session;
use super::work::{NOT_DIRECT, Operation, Phase};
use crate::buffers::{Arena, SEGMENT};
use crate::clock::{Nanos, SECOND};
use crate::counters::Counters;
use crate::events::{Event, EventQueue, Failure, StoreId};
use crate::mailbox::Mailbox;
use crate::range_locks::{Quiesce, RangeLocks};
use crate::sys::socket::Part;
use crate::trace::TraceRing;
use crate::transmit::Scratch;

/// How long Data-Out that was asked for may keep memory without coming, once somebody else waits for memory.
pub(super) const PATIENCE: Nanos = 2 * SECOND;

/// Everything of a worker's target side that belongs to no single session.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// By index; the one being worked on is taken out.
    pub(super) sessions: Vec<Option<Box<Session>>>,
    /// Connection number to (session index, connection).
    pub(super) connections: Vec<Option<(u32, ConnIndex)>>,
    /// Numbers of connections with something to do, in turn.
    pub(super) ready: VecDeque<u32>,
    pub(super) operations: Slab<Operation>,
    /// READs that name memory of a store, in all sessions of this worker.
    pub(super) direct: DirectReads,
    /// Tasks that wait for memory.
    pub(super) hungry: VecDeque<(u32, Slot, u32)>,
    pub(super) aborts: Vec<PendingAbort>,
    pub(super) next_abort: u64,
    pub(super) counters: Counters,
    /// When a fault of a store was last told, so that a broken disk does not flood the events.
    faults: Vec<(StoreId, Nanos)>,
    /// Memory was freed since tasks that wait for it were looked at.
    pub(super) freed: bool,
    /// Data-In kept by all sessions of this worker.
    pub(super) retention: RetentionBudget,
    /// Ranges that tasks of this worker have, and locks that wait for its operations.
    pub(super) locked: Vec<(u64, Arc<RangeLocks>)>,
    pub(super) quiescing: Vec<Quiesce>,
    /// Connections with READs that wait for room to keep their data.
    pub(super) held_reads: Vec<(u32, ConnIndex)>,
    /// Earliest thing to be done by time; may be too early, never too late.
    pub(super) deadline: Option<Nanos>,
}

impl Shared {
    pub(super) fn due(&mut self, at: Nanos) {
        self.deadline = Some(self.deadline.map_or(at, |d| d.min(at)));
    }
}

/// One session at work.
pub(super) struct Context<'a> {
    pub(super) trace: &'a mut TraceRing,
    pub(super) scratch: &'a mut Scratch,
    pub(super) send_scratch: &'a mut SendScratch,
    /// Where output of the connection being served may leave at once.
    pub(super) outlet: Option<Outlet<'a>>,
    pub(super) session: &'a mut Session,
    pub(super) shared: &'a mut Shared,
    pub(super) arena: &'a mut Arena,
    pub(super) events: &'a EventQueue,
    pub(super) sink: &'a Arc<dyn CompletionSink>,
    pub(super) mailbox: &'a Arc<Mailbox>,
    pub(super) worker: usize,
    pub(super) now: Nanos,
    /// Most bytes that are collected for the control plane.
    pub(super) max_collect: u32,
    /// The data segment of the PDU at hand, where it lies in the receive buffer: (task, offset, bytes).
    pub(super) offered: Option<(Slot, u32, *const u8, u32)>,
    /// Connections of this session that have to be closed when this turn of theirs is over.
    pub(super) close: Vec<ConnIndex>,
}

impl Context<'_> {
    /// Acts on everything the protocol has to say.
    #[inline]
    pub(super) fn drain_events(&mut self) {
        while let Some(event) = self.session.proto.poll_event() {
            match event {
                TargetEvent::Command(slot) => self.command(slot),
                TargetEvent::Released(slot) => self.released(slot),
                TargetEvent::DataOut(slot) => self.data_out(slot),
                TargetEvent::Control(slot) => self.control_request(slot),
                TargetEvent::Acknowledged { slot, offset } => self.data_acknowledged(slot, offset),
                TargetEvent::SnackRejected(slot) => self.snack_rejected(slot),
                TargetEvent::DigestFailure { conn, header } => {
                    let (session, cid) = (self.session.id, self.cid(conn));
                    self.events.push(Event::DigestFailure { session, cid, header_digest: false, header: header.0 });
                }
                TargetEvent::Violation { conn, what, header } => {
                    self.shared.counters.protocol_violations += 1;
                    let (session, cid) = (self.session.id, self.cid(conn));
                    let what = what.to_owned();
                    self.events.push(Event::ProtocolViolation { session, cid, what, header: header.0 });
                }
                TargetEvent::CloseConnection { conn } => self.close.push(conn),
            }
        }
    }

    pub(super) fn cid(&self, conn: ConnIndex) -> u16 {
        self.session.ports.get(conn).map_or(0, |p| p.cid)
    }

    /// Something is to be sent on a connection, or to be looked at.
    #[inline]
    pub(super) fn wake(&mut self, conn: ConnIndex) {
        let port = &mut self.session.ports[conn];
        if !port.queued {
            port.queued = true;
            self.shared.ready.push_back(port.number);
        }
    }

    /// Wakes connections that have something to send and were not told: a fence that clears, a gap that is filled or a
    /// window that opens on one connection queues answers on others.
    pub(super) fn wake_unsent(&mut self) {
        for conn in 0..self.session.links.len() {
            let idle = self.session.links[conn].as_ref().is_some_and(|link| !link.blocked);
            if !idle || self.session.ports[conn].queued || self.session.proto.send_queue(conn).is_empty() {
                continue;
            }
            match &self.session.bucket {
                // what a rate holds back leaves by the timer, in turn
                Some(bucket) => self.shared.due(bucket.next()),
                None => self.wake(conn),
            }
        }
    }

    /// Wakes the connection of a task.
    pub(super) fn wake_task(&mut self, slot: Slot) {
        if let Some(task) = self.session.proto.task(slot)
            && !task.frozen
        {
            let conn = task.conn;
            self.wake(conn);
        }
    }

    // ------------------------------------------------------------------------------------ answers

    /// Ends a SCSI task.
    pub(super) fn finish(&mut self, slot: Slot, finish: Finish) {
        self.session.work_mut(slot).phase = Phase::Done;
        self.unlock_range(slot);
        if self.session.proto.finish(slot, finish) {
            self.wake_task(slot);
        }
    }

    /// Ends a block command that went well and sends no data.
    pub(super) fn finish_good(&mut self, slot: Slot) {
        let work = self.session.work_mut(slot);
        work.phase = Phase::Done;
        let residual = work.residual;
        if self.session.proto.finish_good(slot, residual) {
            self.wake_task(slot);
        }
    }

    /// Ends a task with CHECK CONDITION. What was not moved of a read is an underflow.
    pub(super) fn finish_sense(&mut self, slot: Slot, sense: Sense) {
        let Some(task) = self.session.proto.task(slot) else { return };
        let (moved, expected) = (u64::from(task.data_in.queued_to), task.expected_read());
        let residual = if task.write { Residual::None } else { Residual::of(expected, moved.min(u64::from(expected))) };
        let work = self.session.work_mut(slot);
        let lun = work.uses_lun.then_some(work.lun);
        let descriptor = lun.is_some_and(|lun| self.session.luns[lun].mapping.descriptor_sense);
        let finish =
            Finish { status: status::CHECK_CONDITION, sense: sense.encode(descriptor), residual, ..Finish::default() };
        self.finish(slot, finish);
    }

    pub(super) fn finish_status(&mut self, slot: Slot, scsi_status: u8) {
        let expected = self.session.proto.task(slot).map_or(0, |t| if t.write { 0 } else { t.expected_read() });
        let residual = Residual::of(expected, 0);
        self.finish(slot, Finish { status: scsi_status, residual, ..Finish::default() });
    }

    // ------------------------------------------------------------------------------------ store operations

    /// Submits an operation for a task. Some: it is over. None: it goes on, and `operation_done` follows.
    pub(super) fn submit(&mut self, slot: Slot, op: Op) -> Option<Outcome> {
        let session = self.session.index;
        let work = self.session.work_mut(slot);
        let (lun, generation) = (work.lun, work.generation);
        let changes = op.changes();
        let store = self.session.luns[lun].handle().id;
        let range = op.range().map_or((0, 0), |(start, len)| (start, start + len));
        let (held, aborts) = (Vec::new(), Vec::new());
        let record = Operation { session, slot, generation, changes, store, range, lock: None, held, aborts };
        let at = self.shared.operations.insert(record);
        // The worker is in it because several workers may have operations at one store.
        let token = operation_token(self.worker, at, generation);
        let submitted = self.session.luns[lun].store().submit(op, token, self.sink);
        match submitted {
            Submitted::Done(outcome) => {
                self.shared.operations.remove(at);
                Some(outcome)
            }
            Submitted::Pending => {
                self.session.work_mut(slot).operation = at.0 + 1;
                None
            }
        }
    }

    /// Says once a second at most that a store fails.
    pub(super) fn tell_fault(&mut self, lun: usize, error: &blockwire_store::StoreError) {
        use blockwire_store::ErrorKind;
        if matches!(
            error.kind,
            ErrorKind::OutOfRange | ErrorKind::ReadOnly | ErrorKind::Unsupported | ErrorKind::Invalid
        ) {
            return;
        }
        let store = self.session.luns[lun].handle().id;
        let now = self.now;
        match self.shared.faults.iter_mut().find(|f| f.0 == store) {
            Some(fault) if now < fault.1 + SECOND => return,
            Some(fault) => fault.1 = now,
            None => self.shared.faults.push((store, now)),
        }
        let failure = Failure { errno: error.errno, ..Failure::new(fault_code(error.kind), error.to_string()) };
        self.events.push(Event::StoreFault { store, failure });
    }

    // ------------------------------------------------------------------------------------ memory

    /// A task's record is free: so is its memory, except what a running operation uses.
    #[inline]
    pub(super) fn released(&mut self, slot: Slot) {
        if self.offered.is_some_and(|o| o.0 == slot) {
            self.offered = None;
        }
        self.shared.freed = true;
        self.unlock_range(slot);
        let work = self.session.work_mut(slot);
        let (operation, direct, pulling) = (work.operation, work.direct, work.pulling);
        let retained = std::mem::take(&mut work.retained);
        if !work.pieces.is_empty() {
            work.free_pieces(self.arena);
        }
        if operation > 0 {
            if let Some(record) = self.shared.operations.get_mut(Slot(operation - 1)) {
                record.held.append(&mut work.scratch);
                record.held.extend(work.out.drain(..).flatten());
            }
        } else if !work.scratch.is_empty() {
            work.free_scratch(self.arena);
        }
        let out_bytes = std::mem::take(&mut work.out_bytes);
        if !work.out.is_empty() {
            work.free_out(self.arena);
        }
        let (uses_lun, lun) = (work.uses_lun, work.lun);
        let was_picked = std::mem::take(&mut work.picked);
        work.phase = Phase::Idle;
        work.operation = 0;
        work.direct = NOT_DIRECT;
        work.uses_lun = false;
        work.pulling = false;
        work.hungry = false;
        // a later task in the slot must not be taken for this one
        work.generation = 0;
        self.session.reserved -= out_bytes;
        if retained > 0 {
            self.session.retention.release(retained);
            self.shared.retention.release(retained);
        }
        if direct != NOT_DIRECT {
            self.shared.direct.remove(direct);
        }
        if uses_lun {
            let lun = &mut self.session.luns[lun];
            lun.users -= 1;
            if !lun.held.is_empty() {
                lun.held.retain(|s| *s != slot);
            }
        }
        if pulling {
            for port in &mut self.session.ports {
                port.pulls.retain(|s| *s != slot);
            }
        }
        if was_picked {
            // It ended without going up (bad data, an abort), so nobody answers it with a `set_gate`: the next one goes up.
            self.reconsider(lun);
        }
    }

    /// Bytes of the arena that this session's Data-Out may hold: a quarter of all, and no more than what it leaves to the
    /// others, so that writes whose data never comes do not take everything. The last quarter is for those that hold nothing.
    fn data_quota(&self) -> u64 {
        let quarter = self.arena.capacity() as u64 / 4;
        let share = ((self.arena.available() as u64).saturating_sub(quarter) + self.session.reserved) / 2;
        share.min(quarter)
    }

    /// Whether a session that holds nothing for Data-Out may take `len` bytes. Sixty silent writers with long bursts leave an
    /// eighth of the arena, in which a burst of one segment always finds room; a burst of more than half of it has no such bound.
    fn may_begin(&self, len: u64) -> bool {
        let capacity = self.arena.capacity() as u64;
        let bounded = len > SEGMENT as u64 && len * 2 <= capacity;
        !bounded || self.arena.available() as u64 >= len + capacity / 8
    }

    /// Takes memory for data that is asked for, all of it or none.
    pub(super) fn reserve(&mut self, slot: Slot, offset: u32, len: u32) -> bool {
        let Some(limit) = self.session.proto.task(slot).map(blockwire_proto::target::Task::expected_write) else {
            return false;
        };
        let reserved = self.session.reserved;
        let quota = self.data_quota();
        let lacking = self.session.work_mut(slot).lacking(offset, len, limit);
        let refused = if reserved == 0 { !self.may_begin(lacking) } else { reserved + lacking > quota };
        if lacking > 0 && refused {
            return false;
        }
        let work = self.session.work_mut(slot);
        let before = work.out_bytes;
        let done = work.reserve(self.arena, offset, len, limit);
        let after = work.out_bytes;
        if reserved == 0 {
            self.session.data_at = self.now;
        }
        self.session.reserved = reserved + after - before;
        done
    }

    /// A place for data that arrives.
    pub(super) fn out_part(&mut self, slot: Slot, offset: u32, len: u32) -> Option<Part> {
        let task = self.session.proto.task(slot)?;
        let (limit, generation) = (task.expected_write(), task.generation);
        let reserved = self.session.reserved;
        let quota = self.data_quota();
        self.session.data_at = self.now;
        let work = self.session.work_mut(slot);
        if work.generation != generation {
            work.begin(generation);
        }
        let before = work.out_bytes;
        let part = if reserved > quota && work.received_part(self.arena, offset, 1).is_none() {
            None
        } else {
            work.out_part(self.arena, offset, len, limit)
        };
        work.no_room |= part.is_none();
        let after = work.out_bytes;
        self.session.reserved = reserved + after - before;
        part
    }

    /// Frees Data-Out memory below `offset`.
    pub(super) fn free_out_below(&mut self, slot: Slot, offset: u64) {
        self.shared.freed = true;
        let work = self.session.work_mut(slot);
        let before = work.out_bytes;
        work.free_out_below(self.arena, offset);
        let after = work.out_bytes;
        self.session.reserved -= before - after;
    }

    /// Has a task looked at again when there is memory.
    pub(super) fn wait_for_memory(&mut self, slot: Slot) {
        let index = self.session.index;
        let work = self.session.work_mut(slot);
        if !std::mem::replace(&mut work.hungry, true) {
            let generation = work.generation;
            self.shared.hungry.push_back((index, slot, generation));
            self.shared.due(self.now + PATIENCE);
        }
    }
}

/// Token of a store operation: worker, generation (24 bits) and index.
pub(super) fn operation_token(worker: usize, at: Slot, generation: u32) -> u64 {
    ((worker as u64 & 0xff) << 56) | (u64::from(generation & 0x00ff_ffff) << 32) | u64::from(at.0)
}

fn fault_code(kind: blockwire_store::ErrorKind) -> &'static str {
    use blockwire_store::ErrorKind;
    match kind {
        ErrorKind::NoSpace => "store.no-space",
        ErrorKind::Medium => "store.medium-error",
        ErrorKind::Offline => "store.offline",
        ErrorKind::Changed => "store.changed",
        ErrorKind::Corrupt => "store.corrupt",
        _ => "store.io-error",
    }
}
