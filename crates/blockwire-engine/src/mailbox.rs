//! How other threads reach a worker: closures for control calls, packed records for store completions.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use blockwire_store::{CompletionSink, Outcome};

use crate::sys::eventfd::EventFd;
use crate::worker::Worker;

/// A control call on its way to its worker.
pub type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// The inbox of one worker.
pub struct Mailbox {
    jobs: Mutex<VecDeque<Job>>,
    completions: Mutex<Vec<(u64, Outcome)>>,
    /// The descriptor is signalled and the worker has not looked yet.
    signalled: AtomicBool,
    /// Nobody will look any more.
    closed: AtomicBool,
    wake: EventFd,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl Mailbox {
    /// # Errors
    /// The system's, when no descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            jobs: Mutex::default(),
            completions: Mutex::new(Vec::with_capacity(1024)),
            signalled: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake: EventFd::new()?,
        })
    }

    /// Has `job` run on the worker's thread, after all that were posted before it. One that nobody will run is dropped, and
    /// what it was to end fails thereby (`Ending`).
    pub fn post(&self, job: Job) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed() {
            drop(jobs);
            drop(job);
            return;
        }
        jobs.push_back(job);
        drop(jobs);
        self.signal();
    }

    /// The worker is gone for good: what waits is dropped, and so is what comes.
    pub fn close(&self) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Release);
        let left = std::mem::take(&mut *jobs);
        drop(jobs);
        drop(left);
    }

    /// Whether the worker is gone for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Has the worker look, whether or not something was posted.
    pub fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            self.wake.signal();
        }
    }

    /// Polls readable when something was posted.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.wake.raw()
    }

    /// To be called before `take_job` and `take_completions`, so that no later post is missed.
    pub fn clear(&self) {
        self.wake.clear();
        self.signalled.store(false, Ordering::Release);
    }

    /// Whether something may be waiting; for a driver without `epoll`.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.signalled.load(Ordering::Acquire)
    }

    pub fn take_job(&self) -> Option<Job> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Swaps the waiting completions into `into`, which must be empty.
    pub fn take_completions(&self, into: &mut Vec<(u64, Outcome)>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut *self.completions.lock().unwrap_or_else(PoisonError::into_inner), into);
    }
}

impl CompletionSink for Mailbox {
    fn complete(&self, batch: &[(u64, Outcome)]) {
        self.completions.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(batch);
        self.signal();
    }
}
