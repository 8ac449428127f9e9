//! Exclusive ranges (`range_locks`) from the side of one worker: who takes one, who waits for it, what is still running there.

use std::sync::Arc;

use blockwire_proto::Slot;
use blockwire_store::Op;

use super::TargetSide;
use super::context::{Context, Shared};
use super::work::{NO_LOCK, Phase};
use crate::core::Core;
use crate::range_locks::{Quiesce, RangeLocks, Waiter};

impl TargetSide {
    /// A task waited for a range, or for the grant of its own.
    pub fn go_on(&mut self, core: &mut Core, session: u32, slot: Slot, generation: u32) {
        self.with_session(core, session, |cx| {
            let Some(work) = cx.session.work_of(slot) else { return };
            if work.generation == generation && work.phase == Phase::Run {
                cx.step(slot);
                cx.wake_task(slot);
            }
        });
    }

    /// Somebody locked a range: it is told when what this worker has begun there is over.
    pub fn quiesce(&mut self, asked: Quiesce) {
        self.shared.quiescing.push(asked);
        self.shared.settle_quiescing();
    }
}

impl Shared {
    /// Operations ended.
    pub(super) fn settle_quiescing(&mut self) {
        let operations = &self.operations;
        self.quiescing.retain(|asked| {
            operations.iter().any(|(_, operation)| {
                let (start, end) = operation.range;
                operation.changes && operation.store == asked.store && start < asked.end && asked.start < end
            })
        });
    }
}

impl Context<'_> {
    fn waiter(&self, slot: Slot) -> Waiter {
        Waiter {
            mailbox: Arc::clone(self.mailbox),
            session: self.session.index,
            slot,
            generation: self.session.work_of(slot).map_or(0, |work| work.generation),
        }
    }

    fn locks(&self, slot: Slot) -> &Arc<RangeLocks> {
        &self.session.luns[self.session.work[slot.0 as usize].lun].handle().locks
    }

    /// Whether a task may not begin an operation because another one has the range; it is gone on with later.
    #[inline]
    pub(super) fn is_locked_out(&self, slot: Slot, op: &Op) -> bool {
        let Some((start, len)) = op.range() else { return false };
        let locks = self.locks(slot);
        if locks.is_free() {
            return false;
        }
        let own = self.session.work[slot.0 as usize].lock;
        locks.blocks(start, start + len, own, || self.waiter(slot))
    }

    /// Makes bytes `[start, end)` the task's own. False: not yet.
    pub(super) fn lock_range(&mut self, slot: Slot, start: u64, end: u64) -> bool {
        let locks = Arc::clone(self.locks(slot));
        let own = self.session.work[slot.0 as usize].lock;
        if own != NO_LOCK {
            return locks.is_granted(own);
        }
        let store = self.session.luns[self.session.work[slot.0 as usize].lun].handle().id;
        if let Some(id) = locks.lock(store, start, end, self.waiter(slot)) {
            self.session.work_mut(slot).lock = id;
            self.shared.locked.push((id, locks));
        }
        false
    }

    /// Gives the range back, unless an operation of the task still runs there.
    #[inline]
    pub(super) fn unlock_range(&mut self, slot: Slot) {
        let work = self.session.work_mut(slot);
        if work.lock == NO_LOCK {
            return;
        }
        let (id, operation) = (work.lock, work.operation);
        if operation > 0 {
            // it ends the lock with itself, whatever becomes of the task
            if let Some(record) = self.shared.operations.get_mut(Slot(operation - 1)) {
                let locks = Arc::clone(&self.session.luns[self.session.work[slot.0 as usize].lun].handle().locks);
                record.lock = Some((id, locks));
                self.session.work_mut(slot).lock = NO_LOCK;
            }
            return;
        }
        work.lock = NO_LOCK;
        let locks = Arc::clone(self.locks(slot));
        self.shared.unlock(id, &locks);
    }
}

impl Shared {
    pub(super) fn unlock(&mut self, id: u64, locks: &Arc<RangeLocks>) {
        self.locked.retain(|(held, of)| *held != id || !Arc::ptr_eq(of, locks));
        locks.unlock(id);
    }
}
