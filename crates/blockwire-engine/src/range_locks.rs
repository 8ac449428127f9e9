//! Byte ranges of one store that belong to one command for a while: nobody else writes there meanwhile.
//!
//! A lock is granted in two steps. Once it is made, no worker begins an operation that changes the range. Then each worker that
//! serves the store says that those it had begun before are over. So a write looks at one atomic number, and nothing else is
//! shared while no such command runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockwire_proto::Slot;

use crate::events::StoreId;
use crate::mailbox::Mailbox;

/// A task of some worker, to be gone on with.
#[derive(Clone, Debug)]
pub struct Waiter {
    pub mailbox: Arc<Mailbox>,
    /// Index of its session on that worker.
    pub session: u32,
    pub slot: Slot,
    pub generation: u32,
}

impl Waiter {
    fn wake(self) {
        let Self { mailbox, session, slot, generation } = self;
        mailbox.post(Box::new(move |worker| worker.target.go_on(&mut worker.core, session, slot, generation)));
    }
}

#[derive(Debug)]
struct Held {
    id: u64,
    start: u64,
    end: u64,
    /// Workers whose earlier operations may still run there.
    busy: usize,
    owner: Waiter,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    held: Vec<Held>,
    /// Tasks that found a range locked.
    waiting: Vec<Waiter>,
    /// Mailboxes of the workers that serve the store, by index.
    workers: Vec<(usize, Arc<Mailbox>)>,
}

impl Inner {
    /// A task that comes by again and again, with every piece of its data, waits once.
    fn wait(&mut self, waiter: Waiter) {
        let same = |other: &Waiter| {
            let place =
                (other.session, other.slot, other.generation) == (waiter.session, waiter.slot, waiter.generation);
            place && Arc::ptr_eq(&other.mailbox, &waiter.mailbox)
        };
        if !self.waiting.iter().any(same) {
            self.waiting.push(waiter);
        }
    }
}

/// The locks of one store.
#[derive(Debug, Default)]
pub struct RangeLocks {
    count: AtomicUsize,
    inner: Mutex<Inner>,
}

impl RangeLocks {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a lock asks this worker too.
    pub fn served_by(&self, worker: usize, mailbox: &Arc<Mailbox>) {
        let workers = &mut self.inner().workers;
        if workers.iter().all(|(index, _)| *index != worker) {
            workers.push((worker, Arc::clone(mailbox)));
        }
    }

    /// Nothing is locked.
    #[inline]
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Locks bytes `[start, end)`. Some: its owner is woken when it `is_granted`. None: a part of it is somebody else's, and the
    /// task is woken when that is over.
    pub fn lock(self: &Arc<Self>, store: StoreId, start: u64, end: u64, owner: Waiter) -> Option<u64> {
        let mut inner = self.inner();
        if inner.held.iter().any(|held| held.start < end && start < held.end) {
            inner.wait(owner);
            return None;
        }
        inner.last += 1;
        let id = inner.last;
        let busy = inner.workers.len();
        inner.held.push(Held { id, start, end, busy, owner });
        self.count.store(inner.held.len(), Ordering::SeqCst);
        let workers = inner.workers.clone();
        // what is posted to a worker that is gone is dropped at once, and says so here
        drop(inner);
        for (_, mailbox) in &workers {
            let locks = Arc::clone(self);
            let quiesce = Quiesce { locks, id, store, start, end };
            mailbox.post(Box::new(move |worker| worker.target.quiesce(quiesce)));
        }
        Some(id)
    }

    /// Whether what was begun before the lock is over.
    #[must_use]
    pub fn is_granted(&self, id: u64) -> bool {
        self.inner().held.iter().any(|held| held.id == id && held.busy == 0)
    }

    /// Whether bytes `[start, end)` are locked by another than `id`; the task is woken when they are not any more.
    pub fn blocks(&self, start: u64, end: u64, id: u64, waiter: impl FnOnce() -> Waiter) -> bool {
        let mut inner = self.inner();
        let blocked = inner.held.iter().any(|held| held.id != id && held.start < end && start < held.end);
        if blocked {
            inner.wait(waiter());
        }
        blocked
    }

    /// Gives a lock back.
    pub fn unlock(&self, id: u64) {
        let mut inner = self.inner();
        inner.held.retain(|held| held.id != id);
        self.count.store(inner.held.len(), Ordering::SeqCst);
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        for waiter in waiting {
            waiter.wake();
        }
    }

    /// One worker has nothing more there that was begun before the lock.
    fn quiet(&self, id: u64) {
        let mut inner = self.inner();
        let Some(held) = inner.held.iter_mut().find(|held| held.id == id) else { return };
        held.busy -= 1;
        let owner = (held.busy == 0).then(|| held.owner.clone());
        drop(inner);
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

/// A worker's part of granting a lock. Dropped when its earlier operations are over, or when there is nobody left to say so.
#[derive(Debug)]
pub struct Quiesce {
    locks: Arc<RangeLocks>,
    id: u64,
    pub store: StoreId,
    pub start: u64,
    pub end: u64,
}

impl Drop for Quiesce {
    fn drop(&mut self) {
        self.locks.quiet(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(mailbox: &Arc<Mailbox>) -> Waiter {
        Waiter { mailbox: Arc::clone(mailbox), session: 0, slot: Slot(1), generation: 1 }
    }

    #[test]
    fn a_lock_is_granted_when_every_worker_is_done_with_what_it_had_begun() {
        let (first, second) =
            (Arc::new(Mailbox::new().expect("descriptor")), Arc::new(Mailbox::new().expect("descriptor")));
        let locks = Arc::new(RangeLocks::default());
        for (index, mailbox) in [&first, &second, &first].into_iter().enumerate() {
            locks.served_by(index % 2, mailbox);
        }
        let id = locks.lock(3, 100, 200, waiter(&first)).expect("free");
        assert!(!locks.is_free() && !locks.is_granted(id));
        // a job that is dropped says that its worker has nothing there
        drop(first.take_job());
        assert!(!locks.is_granted(id));
        drop(second.take_job());
        assert!(locks.is_granted(id));
        assert!(first.take_job().is_some(), "the owner goes on");
        for (range, id, blocked) in
            [((199, 300), 0, true), ((200, 300), 0, false), ((0, 100), 0, false), ((150, 160), id, false)]
        {
            assert_eq!(locks.blocks(range.0, range.1, id, || waiter(&second)), blocked, "{range:?}");
        }
        assert_eq!(locks.lock(3, 0, 101, waiter(&second)), None);
        assert!(second.take_job().is_none());
        locks.unlock(id);
        assert!(locks.is_free());
        assert!(second.take_job().is_some() && second.take_job().is_none(), "who waited twice goes on once");
        // a worker that is gone keeps nobody waiting
        second.close();
        let id = locks.lock(3, 0, 101, waiter(&first)).expect("free");
        drop(first.take_job());
        assert!(locks.is_granted(id));
    }
}
