//! Data-In that is kept until it is acknowledged, within a budget per session and worker (error recovery levels 1 and 2).
//!
//! At half of a budget acknowledgement is asked for: by the A bit of Data-In (RFC 7143 11.7.2), and by NOP-In for answers that
//! are not acknowledged (7.1.4.2). At all of it READs wait. Frozen sessions count; the data of the oldest goes first, and a task
//! that needs it again ends with CHECK CONDITION. What is kept is what was sent, never read again from the store: a copy, or the
//! store's own memory, which is copied out before it changes. Such a piece counts as well: a change may come at any time.

use blockwire_proto::target::TaskState;
use blockwire_proto::{ConnIndex, Slot};

use super::TargetSide;
use super::context::Context;
use super::work::PIECE;
use crate::core::Core;

impl Context<'_> {
    /// Counts a piece of Data-In that was just queued, where it is kept.
    pub(super) fn retained(&mut self, slot: Slot, len: u32) {
        if !self.session.retains {
            return;
        }
        let before = self.session.retention.should_solicit() || self.shared.retention.should_solicit();
        self.session.work_mut(slot).retained += u64::from(len);
        self.session.retention.add(u64::from(len));
        self.shared.retention.add(u64::from(len));
        let solicits = self.session.retention.should_solicit() || self.shared.retention.should_solicit();
        self.session.proto.set_soliciting(solicits);
        if solicits && !before {
            self.session.proto.solicit_status();
            self.wake_all();
        }
    }

    /// Whether more of a READ may be taken from the store. The first READ that has begun on a connection gets on, up to a sequence
    /// and a piece, whatever others keep: without a whole sequence there is no A bit, and nothing would ever be acknowledged.
    pub(super) fn may_retain(&mut self, slot: Slot, conn: ConnIndex) -> bool {
        if !self.session.retention.is_full() && !self.shared.retention.is_full() {
            return true;
        }
        self.session.proto.solicit_status();
        let begun = |slot: &Slot| self.session.work_of(*slot).is_some_and(|w| w.done > 0);
        let first = self.session.ports[conn].pulls.iter().find(|slot| begun(slot)).is_some_and(|first| *first == slot);
        let enough = u64::from(self.session.proto.params().max_burst_length) + u64::from(PIECE);
        let index = self.session.index;
        if first && self.session.work_of(slot).is_some_and(|w| w.retained < enough) {
            return true;
        }
        if !self.shared.held_reads.contains(&(index, conn)) {
            self.shared.held_reads.push((index, conn));
        }
        false
    }

    fn wake_all(&mut self) {
        for conn in 0..self.session.links.len() {
            if self.session.proto.connection(conn).is_some() {
                self.wake(conn);
            }
        }
    }

    /// Data-In below `offset` arrived: what lies wholly below is free.
    pub(super) fn data_acknowledged(&mut self, slot: Slot, offset: u32) {
        let Some(work) = self.session.work.get_mut(slot.0 as usize) else { return };
        let mut freed = 0;
        while let Some(first) = work.pieces.first()
            && first.offset + first.len <= offset
        {
            freed += u64::from(first.len);
            work.pieces.remove(0).free(self.arena);
        }
        self.forget_direct_without_pieces(slot);
        self.give_back(slot, freed);
    }

    fn give_back(&mut self, slot: Slot, freed: u64) {
        if freed == 0 {
            return;
        }
        let work = self.session.work_mut(slot);
        let counted = freed.min(work.retained);
        work.retained -= counted;
        self.session.retention.release(counted);
        self.shared.retention.release(counted);
        self.shared.freed = true;
        let solicits = self.session.retention.should_solicit() || self.shared.retention.should_solicit();
        self.session.proto.set_soliciting(solicits);
    }

    /// Drops what is kept of the frozen tasks; their records stay.
    fn drop_frozen(&mut self) {
        let slots: Vec<Slot> = self.session.proto.frozen_tasks().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(work) = self.session.work.get_mut(slot.0 as usize).filter(|w| w.retained > 0) else { continue };
            let kept = work.retained;
            work.free_pieces(self.arena);
            self.forget_direct_without_pieces(slot);
            self.session.proto.forget_data(slot);
            self.give_back(slot, kept);
        }
    }

    /// A frozen task keeps data.
    fn keeps_frozen(&self) -> bool {
        self.session.proto.frozen_tasks().any(|(slot, task)| {
            task.state != TaskState::Dying && self.session.work_of(slot).is_some_and(|w| w.retained > 0)
        })
    }
}

impl TargetSide {
    /// The worker keeps as much as it may: the oldest frozen session gives its data up.
    pub(super) fn drop_frozen_data(&mut self, core: &mut Core) {
        let mut frozen: Vec<(u64, u32)> = Vec::new();
        let indexes: Vec<u32> = self.index.values().copied().collect();
        for index in indexes {
            let found = self.with_session(core, index, |cx| cx.keeps_frozen().then_some(cx.session.frozen_at));
            if let Some(Some(at)) = found {
                frozen.push((at, index));
            }
        }
        frozen.sort_unstable();
        for (_, index) in frozen {
            if !self.shared.retention.is_full() {
                return;
            }
            self.with_session(core, index, |cx| {
                cx.drop_frozen();
            });
        }
    }

    /// READs that were held may go on.
    pub(super) fn resume_held_reads(&mut self, core: &mut Core) {
        for (index, conn) in std::mem::take(&mut self.shared.held_reads) {
            self.with_session(core, index, |cx| {
                if cx.session.proto.connection(conn).is_some() {
                    cx.wake(conn);
                }
            });
        }
    }
}
