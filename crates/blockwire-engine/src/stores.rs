//! The open stores of a plane.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blockwire_store::Store;

use crate::mailbox::Mailbox;
use crate::range_locks::RangeLocks;

/// A store with its plane-wide identity.
#[derive(Clone)]
pub struct StoreHandle {
    pub id: u64,
    pub store: Arc<dyn Store>,
    /// Bit per worker that serves a logical unit on this store, or that runs control operations on it.
    workers: Arc<AtomicU64>,
    /// Ranges that belong to one command for a while.
    pub locks: Arc<RangeLocks>,
}

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

impl StoreHandle {
    #[must_use]
    pub fn new(id: u64, store: Arc<dyn Store>) -> Self {
        Self { id, store, workers: Arc::default(), locks: Arc::default() }
    }

    /// Notes that `worker` serves it. Never taken back while the store is open: a READ may still be on its way out.
    pub fn serve_on(&self, worker: usize, mailbox: &Arc<Mailbox>) {
        self.locks.served_by(worker, mailbox);
        self.workers.fetch_or(1 << (worker & 63), Ordering::AcqRel);
    }

    /// Whether `worker` alone serves it, so that its memory only changes in that worker's own turns.
    #[must_use]
    pub fn is_exclusive_to(&self, worker: usize) -> bool {
        self.workers.load(Ordering::Acquire) == 1 << (worker & 63)
    }

    /// Indexes of the workers that serve it.
    pub fn workers(&self) -> impl Iterator<Item = usize> {
        let mask = self.workers.load(Ordering::Acquire);
        (0..64).filter(move |i| mask & (1 << i) != 0)
    }
}
