//! READs whose bytes are still in a store's own memory: sent from there, or copied when they are sent. A change copies them first.

use blockwire_proto::Slot;

use super::context::Context;
use super::session::Session;
use super::work::{NOT_DIRECT, Piece, Work};
use crate::buffers::Arena;
use crate::events::StoreId;

/// The bytes of a store that PDUs of one READ name which are queued, or kept for retransmission.
#[derive(Clone, Copy, Debug)]
struct DirectRead {
    store: StoreId,
    start: u64,
    end: u64,
    session: u32,
    slot: Slot,
    live: bool,
}

/// Those of one worker; `Work::direct` is a task's place in it.
#[derive(Debug, Default)]
pub(super) struct DirectReads {
    reads: Vec<DirectRead>,
    free: Vec<u32>,
    live: usize,
}

impl DirectReads {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.live
    }

    #[inline]
    fn insert(&mut self, read: DirectRead) -> u32 {
        self.live += 1;
        if let Some(at) = self.free.pop() {
            self.reads[at as usize] = read;
            return at;
        }
        self.reads.push(read);
        self.reads.len() as u32 - 1
    }

    #[inline]
    pub(super) fn remove(&mut self, at: u32) {
        self.reads[at as usize].live = false;
        self.free.push(at);
        self.live -= 1;
    }

    /// A piece of the task went, or was copied: when none of them is in a store's memory any more it leaves the list.
    #[inline]
    pub(super) fn forget_if_copied(&mut self, work: &mut Work) {
        if work.direct != NOT_DIRECT && !work.pieces.iter().any(Piece::is_in_store) {
            self.remove(std::mem::replace(&mut work.direct, NOT_DIRECT));
        }
    }
}

impl Context<'_> {
    pub(super) fn register_direct(&mut self, slot: Slot, start: u64, end: u64) {
        let session = self.session.index;
        let work = self.session.work_mut(slot);
        let (lun, at) = (work.lun, work.direct);
        if at != NOT_DIRECT {
            self.shared.direct.reads[at as usize].end = end;
            return;
        }
        let store = self.session.luns[lun].handle().id;
        let at = self.shared.direct.insert(DirectRead { store, start, end, session, slot, live: true });
        self.session.work_mut(slot).direct = at;
    }

    /// Nothing of the task names a store's memory any more, once its last piece is gone.
    #[inline]
    pub(super) fn forget_direct_without_pieces(&mut self, slot: Slot) {
        let work = &mut self.session.work[slot.0 as usize];
        if work.pieces.is_empty() {
            self.shared.direct.forget_if_copied(work);
        }
    }

    /// Before bytes `[start, end)` of a store change: READs that are being sent from them, or were and may be asked for again,
    /// get a copy of what is not sent yet or not acknowledged.
    #[inline]
    pub(super) fn about_to_change(&mut self, store: StoreId, start: u64, end: u64) {
        if self.shared.direct.live > 0 {
            self.copy_out(store, start, end);
        }
    }

    /// What one task keeps in a store's memory is copied.
    pub(super) fn copy_out_one(&mut self, slot: Slot) {
        let Some(at) = self.session.work_of(slot).map(|w| w.direct).filter(|at| *at != NOT_DIRECT) else { return };
        self.shared.counters.bytes_sent_by_copy += copy_out_task(self.session, self.arena, slot);
        self.shared.direct.remove(at);
    }

    fn copy_out(&mut self, store: StoreId, start: u64, end: u64) {
        for at in 0..self.shared.direct.reads.len() {
            let entry = self.shared.direct.reads[at];
            if !entry.live || entry.store != store || entry.start >= end || start >= entry.end {
                continue;
            }
            let copied = if entry.session == self.session.index {
                copy_out_task(self.session, self.arena, entry.slot)
            } else if let Some(session) = self.shared.sessions[entry.session as usize].as_deref_mut() {
                copy_out_task(session, self.arena, entry.slot)
            } else {
                0
            };
            self.shared.counters.bytes_sent_by_copy += copied;
            self.shared.direct.remove(at as u32);
        }
    }
}

/// Replaces the pieces of a task that are in a store's memory by copies; returns the bytes for which no copy was foreseen.
fn copy_out_task(session: &mut Session, arena: &mut Arena, slot: Slot) -> u64 {
    let mut copied = 0;
    let work = session.work_mut(slot);
    work.direct = NOT_DIRECT;
    for piece in &mut work.pieces {
        copied += u64::from(piece.copy_out(arena));
    }
    copied
}
