//! A session as the receive loop and the send path need it.

use blockwire_proto::target::{Connection, TargetSession};
use blockwire_proto::{ConnIndex, Direction, Endpoint, Fatal, Payload, Slot};

use super::context::Context;
use super::direct::DirectReads;
use super::work::Work;
use crate::buffers::Arena;
use crate::clock::Nanos;
use crate::receive::Role;
use crate::sys::socket::Part;
use crate::trace::{TraceEntry, TraceRing};
use crate::transmit::{BATCH_BYTES, Resolve, Sent, TransmitContext, batch_of, transmit};
use crate::transport::Transport;

/// What it takes to send while receiving goes on.
pub(super) struct Outlet<'a> {
    pub(super) transport: &'a Transport,
    pub(super) conn: ConnIndex,
    /// The transport takes no more for now.
    pub(super) blocked: bool,
    /// No other connection of this worker waits to be served.
    pub(super) alone: bool,
}

/// A PDU that left, as far as its task is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    slot: Option<Slot>,
    mark: u32,
    /// Bytes of its Data-In; 0 for none.
    len: u32,
}

/// Scratch memory of the send path, kept between turns.
#[derive(Debug, Default)]
pub(super) struct SendScratch {
    pub(super) left: Vec<Left>,
}

struct Memory<'a> {
    work: &'a mut [Work],
    arena: &'a Arena,
    direct: &'a mut DirectReads,
}

impl Resolve for Memory<'_> {
    #[inline]
    fn payload(&self, slot: Slot, _direction: Direction, offset: u32, len: u32) -> Part {
        let pieces = &self.work[slot.0 as usize].pieces;
        let piece = pieces
            .iter()
            .find(|p| p.offset <= offset && offset - p.offset < p.len)
            .expect("queued data stays in place until it is sent");
        piece.part(self.arena, offset, len)
    }

    #[inline]
    fn settle(&mut self, slot: Slot, _direction: Direction, offset: u32, len: u32) -> Option<u32> {
        let work = &mut self.work[slot.0 as usize];
        let piece = work.pieces.iter_mut().find(|p| p.offset <= offset && offset - p.offset < p.len)?;
        let crc = piece.copy_reserved(self.arena)?;
        let whole = (piece.offset, piece.len) == (offset, len);
        self.direct.forget_if_copied(work);
        whole.then_some(crc)
    }
}

impl Role for Context<'_> {
    type Endpoint = TargetSession;

    #[inline]
    fn endpoint(&mut self) -> &mut TargetSession {
        &mut self.session.proto
    }

    fn place(&mut self, slot: Slot, _direction: Direction, offset: u32, len: u32) -> Option<Part> {
        // a task that ended in the middle of a PDU has no place any more
        let task = self.session.proto.task(slot)?;
        if task.state == blockwire_proto::target::TaskState::Dying {
            return None;
        }
        self.out_part(slot, offset, len)
    }

    #[inline]
    fn offer(&mut self, slot: Slot, _direction: Direction, offset: u32, bytes: &[u8]) -> bool {
        self.offered = Some((slot, offset, bytes.as_ptr(), bytes.len() as u32));
        true
    }

    #[inline]
    fn seen(&mut self, conn: ConnIndex, now: Nanos) {
        let bhs = *self.session.proto.deframer(conn).bhs();
        let cid = self.session.ports[conn].cid;
        self.trace.record(TraceEntry { time: now, session: self.session.id, cid, sent: false, bhs });
    }

    #[inline]
    fn after_pdu(&mut self, conn: ConnIndex, _now: Nanos) -> Result<(), Fatal> {
        self.drain_events();
        if let Some((slot, ..)) = self.offered {
            self.keep_offered(slot);
            self.offered = None;
        }
        // both ends work at the same time: what is ready leaves while the rest of the input is looked at
        if self.session.proto.send_queue(conn).unsent_bytes() >= BATCH_BYTES || self.has_batch(conn) {
            self.send_batch(conn);
        }
        Ok(())
    }
}

impl Context<'_> {
    /// Answers for a batch wait. Not when other connections do too: what overlaps then is the work for them.
    #[inline]
    fn has_batch(&self, conn: ConnIndex) -> bool {
        let alone = self.outlet.as_ref().is_some_and(|outlet| outlet.alone);
        let (unsent, unacknowledged) = self.answers(conn);
        alone && unsent as usize >= batch_of(unacknowledged.max(self.session.ports[conn].in_flight) as usize)
    }

    /// After input was taken in: answers that the initiator did not know of when it made its last request belong to requests that
    /// it had in flight then. It does not fade below 7, of which a batch is 1 all the same.
    pub(super) fn note_in_flight(&mut self, conn: ConnIndex) {
        let (_, unacknowledged) = self.answers(conn);
        let port = &mut self.session.ports[conn];
        port.in_flight = unacknowledged.max(port.in_flight - port.in_flight / 8);
    }

    #[inline]
    fn answers(&self, conn: ConnIndex) -> (u32, u32) {
        self.session.proto.connection(conn).map_or((0, 0), Connection::answers)
    }

    fn send_batch(&mut self, conn: ConnIndex) {
        let Some(outlet) = &mut self.outlet else { return };
        if outlet.conn != conn || outlet.blocked {
            return;
        }
        let transport = outlet.transport;
        let sent = self.send(conn, transport, BATCH_BYTES);
        if let Some(outlet) = &mut self.outlet {
            // a failure shows again at the end of the turn
            outlet.blocked = matches!(sent, Some(Sent::Full | Sent::Failed(_)));
        }
    }

    /// Sends what is queued, up to `budget` bytes. None: the rate of the session does not let it; it is woken in time.
    pub(super) fn send(&mut self, conn: ConnIndex, transport: &Transport, budget: usize) -> Option<Sent> {
        let Some(bucket) = &mut self.session.bucket else { return Some(self.send_freely(conn, transport, budget)) };
        if !bucket.is_open(self.now) {
            let next = bucket.next();
            self.shared.due(next);
            return None;
        }
        let before = self.shared.counters.bytes_sent;
        let sent = self.send_freely(conn, transport, BATCH_BYTES);
        if let Some(bucket) = &mut self.session.bucket {
            bucket.spend(self.shared.counters.bytes_sent - before);
        }
        self.session.ports[conn].sent_at = self.now;
        Some(sent)
    }

    fn send_freely(&mut self, conn: ConnIndex, transport: &Transport, budget: usize) -> Sent {
        let mut left = std::mem::take(&mut self.send_scratch.left);
        let mut memory = Memory { work: &mut self.session.work, arena: self.arena, direct: &mut self.shared.direct };
        let queue = self.session.proto.send_queue(conn);
        let mut cx = TransmitContext { transport, scratch: self.scratch, counters: &mut self.shared.counters, budget };
        let (now, session, cid) = (self.now, self.session.id, self.session.ports[conn].cid);
        let trace: &mut TraceRing = self.trace;
        let sent = transmit(queue, &mut memory, &mut cx, |pdu| {
            trace.record(TraceEntry { time: now, session, cid, sent: true, bhs: pdu.bhs() });
            let len = if let Payload::Task { len, .. } = pdu.payload { len } else { 0 };
            left.push(Left { slot: pdu.slot, mark: pdu.mark, len });
        });
        for gone in &left {
            if gone.len > 0
                && gone.mark == blockwire_proto::target::SendMark::DATA
                && let Some(slot) = gone.slot
            {
                self.data_sent(slot, gone.len);
            }
            self.session.proto.sent_mark(conn, gone.slot, gone.mark);
        }
        left.clear();
        self.send_scratch.left = left;
        self.drain_events();
        sent
    }
}
