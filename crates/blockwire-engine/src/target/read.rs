//! READs: pulled by the socket, in pieces, straight from a RAM store's memory where that is stable.

use blockwire_proto::target::{Condition, Finish, Rebound, Task};
use blockwire_proto::{ConnIndex, Endpoint, Slot};
use blockwire_store::{IoVec, IoVecs, Op, Outcome};

use super::context::Context;
use super::sense::Sense;
use super::work::{PIECE, Phase, Piece, PieceMemory, StoreBytes};
use crate::buffers::{SEGMENT, prefetch};

/// READs are executed while less than this is unsent on their connection, bytes.
const PULL_MARK: usize = 512 * 1024;
/// READs of a worker that are kept for retransmission in a store's own memory: a change of the store looks through all of them.
const MOST_KEPT_DIRECT: usize = 1024;
/// Bytes of a READ that are fetched from the store's memory while other commands are looked at; from there on the processor sees
/// by itself what comes next.
const AHEAD: usize = 4096;

/// What came of trying to queue more of a READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pulled {
    /// All of it is queued, or it ended with an error.
    Finished,
    /// A piece is queued; there is more.
    More,
    /// A store operation or memory is waited for.
    Waiting,
}

impl Context<'_> {
    /// A READ that passed its checks.
    #[inline]
    pub(super) fn start_read(&mut self, slot: Slot) {
        let Some(task) = self.session.proto.task(slot) else { return };
        if task.frozen {
            return; // goes on after its reassignment
        }
        let conn = task.conn;
        self.wake(conn);
        if !self.session.ports[conn].pulls.is_empty() {
            self.session.work_mut(slot).pulling = true;
            self.session.ports[conn].pulls.push_back(slot);
            return;
        }
        while self.session.proto.send_queue(conn).unsent_bytes() < PULL_MARK {
            match self.pull_piece(slot, conn) {
                Pulled::Finished => return,
                Pulled::More => {}
                Pulled::Waiting => break,
            }
        }
        self.session.work_mut(slot).pulling = true;
        self.session.ports[conn].pulls.push_back(slot);
    }

    /// The socket took something: queues more of the READs that wait for that.
    pub(super) fn pull(&mut self, conn: ConnIndex) {
        let mut index = 0;
        while self.session.proto.send_queue(conn).unsent_bytes() < PULL_MARK {
            // a READ that waits for its store does not hold up those behind it
            let Some(&slot) = self.session.ports[conn].pulls.get(index) else { return };
            match self.pull_piece(slot, conn) {
                Pulled::Finished => {
                    self.session.work_mut(slot).pulling = false;
                    self.session.ports[conn].pulls.remove(index);
                }
                Pulled::More => {}
                Pulled::Waiting => index += 1,
            }
        }
    }

    fn pull_piece(&mut self, slot: Slot, conn: ConnIndex) -> Pulled {
        let segment = self.session.proto.connection(conn).map_or(PIECE, |c| c.params.max_send_data_segment_length);
        let digest = self.session.ports[conn].data_digest;
        let retains = self.session.retains;
        let Some(work) = self.session.work.get_mut(slot.0 as usize) else { return Pulled::Finished };
        if work.phase != Phase::Read || work.abort.is_some() {
            return Pulled::Finished;
        }
        if work.operation > 0 {
            return Pulled::Waiting;
        }
        if retains && !self.may_retain(slot, conn) {
            return Pulled::Waiting;
        }
        let work = &mut self.session.work[slot.0 as usize];
        let (from, total, start) = (work.done as u32, work.total, work.start);
        let lun = work.lun;
        // whole segments, so that a piece's end makes no short PDU in the middle
        let whole = if segment >= PIECE { PIECE } else { PIECE - PIECE % segment };
        let len = (total - from).min(whole);
        let offset = start + u64::from(from);
        let unit = &self.session.luns[lun];
        if unit.closed {
            self.finish_sense(slot, Sense::NotReady);
            return Pulled::Finished;
        }
        // with a digest the bytes are copied when it is taken, in the same pass: what leaves is what it was taken of
        let whole_pdu = len > 0 && len <= segment.min(self.session.proto.params().max_burst_length).min(SEGMENT as u32);
        if (!digest || whole_pdu)
            && (!retains || self.shared.direct.len() < MOST_KEPT_DIRECT)
            && unit.handle().is_exclusive_to(self.worker)
            && let Some(mapping) = unit.store().mapping()
            && offset + u64::from(len) <= mapping.len as u64
        {
            // SAFETY: the range lies in the mapping, which stays while the store is open; changes and the closing of the store copy
            // this piece out first.
            let base = StoreBytes(unsafe { mapping.base.as_ptr().add(offset as usize) }.cast_const());
            let memory = if digest {
                let Some(extent) = self.arena.allocate(len) else {
                    self.wait_for_memory(slot);
                    return Pulled::Waiting;
                };
                self.shared.counters.bytes_sent_by_copy += u64::from(len);
                prefetch(base.0, (len as usize).min(AHEAD));
                PieceMemory::Reserved { base, extent }
            } else {
                self.shared.counters.bytes_sent_from_store += u64::from(len);
                PieceMemory::Direct(base)
            };
            self.session.work[slot.0 as usize].pieces.push(Piece { offset: from, len, memory });
            self.register_direct(slot, start, offset + u64::from(len));
            self.retained(slot, len);
            return self.queue_piece(slot, from, len);
        }
        let work = &mut self.session.work[slot.0 as usize];
        if !self.arena.allocate_list(len as usize, &mut work.scratch) {
            self.wait_for_memory(slot);
            return Pulled::Waiting;
        }
        work.running_to = u64::from(from + len);
        let mut dst = IoVecs::new();
        for extent in &work.scratch {
            // SAFETY: the extent is held by the task (or by the operation, should the task end) until the completion.
            dst.push(unsafe { IoVec::new(self.arena.pointer(*extent), extent.len as usize) });
        }
        match self.submit(slot, Op::Read { offset, dst }) {
            Some(outcome) => self.read_piece_done(slot, outcome),
            None => Pulled::Waiting,
        }
    }

    fn read_piece_done(&mut self, slot: Slot, outcome: Outcome) -> Pulled {
        let work = self.session.work_mut(slot);
        let (from, to, lun, start) = (work.done as u32, work.running_to as u32, work.lun, work.start);
        if let Err(error) = outcome {
            work.free_scratch(self.arena);
            self.tell_fault(lun, &error);
            let lba = (start + u64::from(from)) / u64::from(self.session.luns[lun].mapping.block_size.max(1));
            self.finish_sense(slot, Sense::of_store(&error, false, lba));
            return Pulled::Finished;
        }
        work.scratch_into_piece(from, to - from);
        self.retained(slot, to - from);
        self.shared.counters.bytes_sent_by_copy += u64::from(to - from);
        self.queue_piece(slot, from, to - from)
    }

    #[inline]
    fn queue_piece(&mut self, slot: Slot, from: u32, len: u32) -> Pulled {
        let work = self.session.work_mut(slot);
        work.done = u64::from(from + len);
        let last = from + len == work.total;
        let finish = last.then(|| Finish::good(work.residual));
        if last {
            work.phase = Phase::Done;
        }
        self.session.proto.send_data(slot, from, len, last, finish);
        if last { Pulled::Finished } else { Pulled::More }
    }

    /// The store answered a READ.
    pub(super) fn read_done(&mut self, slot: Slot, outcome: Outcome) {
        let Some(task) = self.session.proto.task(slot) else { return };
        let (conn, frozen) = (task.conn, task.frozen);
        if frozen || self.session.work_of(slot).is_none_or(|w| w.phase != Phase::Read) {
            // it is read again after the reassignment; or the task has its answer (SNACK rejected)
            let work = self.session.work_mut(slot);
            work.free_scratch(self.arena);
            return;
        }
        let pulled = self.read_piece_done(slot, outcome);
        if pulled == Pulled::Finished {
            self.session.work_mut(slot).pulling = false;
            self.session.ports[conn].pulls.retain(|s| *s != slot);
        }
        self.wake(conn);
    }

    /// `len` more bytes of Data-In left: pieces leave one after the other, whatever the order within one. They are free with
    /// that, unless they are kept for retransmission.
    pub(super) fn data_sent(&mut self, slot: Slot, len: u32) {
        if self.session.retains {
            return;
        }
        let Some(work) = self.session.work.get_mut(slot.0 as usize) else { return };
        work.sent += len;
        let end = work.sent;
        while let Some(first) = work.pieces.first()
            && first.offset + first.len <= end
        {
            work.pieces.remove(0).free(self.arena);
            self.shared.freed = true;
        }
        self.forget_direct_without_pieces(slot);
    }

    /// Goes on with a task that was moved to another connection.
    pub(super) fn rebound(&mut self, slot: Slot, conn: ConnIndex, what: Rebound) {
        if self.session.ports[conn].data_digest {
            // its digest is taken of a copy (`pull_piece`), whatever changes the store meanwhile
            self.copy_out_one(slot);
        }
        self.wake(conn);
        match what {
            Rebound::Answered => {}
            Rebound::Lost => self.snack_rejected(slot),
            Rebound::GoesOn => {
                let work = self.session.work_mut(slot);
                work.solicited_to = 0;
                match work.phase {
                    Phase::Read => self.start_read(slot),
                    Phase::Run => self.step(slot),
                    Phase::Collect(length) => self.collect(slot, length),
                    // what was announced unasked does not come any more
                    Phase::GoingUp(diverted) => self.go_up(slot, diverted),
                    Phase::Done => self.answer_deferred(slot),
                    _ => {}
                }
            }
        }
    }

    /// Data that the initiator asked for again cannot be sent: CHECK CONDITION (RFC 7143 7.8 a.1).
    pub(super) fn snack_rejected(&mut self, slot: Slot) {
        if self.session.proto.task(slot).is_some_and(|t: &Task| !t.frozen) {
            self.finish_sense(slot, Sense::Condition(Condition::SnackRejected));
        }
    }
}
