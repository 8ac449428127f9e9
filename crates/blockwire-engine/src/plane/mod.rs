//! The boundary as Rust sees it: every call of `api.DataPlane`, on workers that own the sessions.

mod initiator;
mod store_calls;
mod target;
#[cfg(test)]
mod tests;

pub use store_calls::{StoreCall, StoreRequest};
pub use target::LunRequest;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::calls::Numbers;
use crate::clock::{Clock, Nanos};
use crate::core::PlaneOptions;
use crate::counters::Counters;
use crate::ending::Ending;
use crate::events::{EventQueue, Failure, OpId, SessionId, StoreId};
use crate::initiator::InitiatorSession;
use crate::mailbox::{Job, Mailbox};
use crate::stores::StoreHandle;
use crate::sys::fork;
use crate::trace::{TraceEntry, pcapng};
use crate::worker::Worker;

/// One worker as the plane holds it.
struct Seat {
    mailbox: Arc<Mailbox>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The worker itself, in a stepped plane.
    stepped: Option<Mutex<Box<Worker>>>,
}

// The worker of a stepped plane is moved between threads only behind its mutex.
#[derive(Clone)]
enum Session {
    Target { worker: usize, numbers: Arc<Numbers>, target_name: String },
    Initiator(Arc<InitiatorSession>),
}

/// A data plane: workers, stores and sessions.
pub struct Plane {
    options: PlaneOptions,
    clock: Clock,
    events: Arc<EventQueue>,
    seats: Vec<Seat>,
    stores: Mutex<HashMap<StoreId, StoreHandle>>,
    sessions: RwLock<HashMap<SessionId, Session>>,
    next: AtomicU64,
    closed: AtomicBool,
    generation: u32,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("options", &self.options).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a call gives that names something unknown.
fn unknown(what: &str, id: u64) -> Failure {
    Failure::new("plane.unknown", format!("there is no {what} {id}"))
}

/// Counters of the plane's parts: (name of the part, counters).
pub type Statistics = Vec<(String, Vec<(&'static str, u64)>)>;

impl Plane {
    /// A plane with its workers running.
    ///
    /// # Errors
    /// The system's, when threads, descriptors or address space are out.
    pub fn new(options: PlaneOptions) -> io::Result<Self> {
        let clock = if options.stepped { Clock::manual() } else { Clock::monotonic() };
        let events = Arc::new(EventQueue::new()?);
        let mut seats = Vec::new();
        for index in 0..options.workers.max(1) {
            let mailbox = Arc::new(Mailbox::new()?);
            let mut worker =
                Box::new(Worker::new(index, &options, clock.clone(), Arc::clone(&mailbox), Arc::clone(&events))?);
            let (thread, stepped) = if options.stepped {
                (None, Some(Mutex::new(worker)))
            } else {
                let name = format!("blockwire-{index}");
                (
                    Some(std::thread::Builder::new().name(name).spawn(move || {
                        worker.run();
                        worker.end();
                    })?),
                    None,
                )
            };
            seats.push(Seat { mailbox, thread: Mutex::new(thread), stepped });
        }
        Ok(Self {
            options,
            clock,
            events,
            seats,
            stores: Mutex::default(),
            sessions: RwLock::default(),
            next: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            generation: fork::generation(),
        })
    }

    #[must_use]
    pub fn options(&self) -> &PlaneOptions {
        &self.options
    }

    #[must_use]
    pub fn events(&self) -> &Arc<EventQueue> {
        &self.events
    }

    /// Whether calls may go on.
    ///
    /// # Errors
    /// `plane.closed` after `shutdown`, `plane.forked` in a child process.
    pub fn check(&self) -> Result<(), Failure> {
        if fork::generation() != self.generation {
            let message =
                "this handle was made before a fork and its threads do not exist in the child; open a new one";
            return Err(Failure::new("plane.forked", message));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Failure::new("plane.closed", "the data plane was shut down"));
        }
        Ok(())
    }

    fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn post(&self, worker: usize, job: Job) {
        self.seats[worker].mailbox.post(job);
    }

    fn session(&self, id: SessionId) -> Result<Session, Failure> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&id).cloned().ok_or_else(|| unknown("session", id))
    }

    /// Ends `op` with what a job on `worker` gives.
    fn run_op<F>(&self, worker: usize, job: F) -> OpId
    where
        F: FnOnce(&mut Worker) -> Result<crate::events::OpResult, Failure> + Send + 'static,
    {
        let op = self.id();
        let ending = self.ending(op);
        self.post(worker, Box::new(move |worker| ending.done(job(worker))));
        op
    }

    /// The end of an operation that a worker tells.
    fn ending(&self, op: OpId) -> Ending {
        Ending::new(Arc::clone(&self.events), op)
    }

    fn failed_op(&self, failure: Failure) -> OpId {
        let op = self.id();
        self.events.done(op, Err(failure));
        op
    }

    /// Runs `ask` on every worker and collects the answers, waiting up to a second for a busy one.
    fn ask_workers<T: Send + 'static>(&self, ask: fn(&mut Worker) -> T) -> Vec<T> {
        let mut answers = Vec::new();
        let mut waiting = Vec::new();
        for seat in &self.seats {
            if let Some(worker) = &seat.stepped {
                answers.push(ask(&mut locked(worker)));
            } else {
                let (sender, receiver) = sync_channel(1);
                seat.mailbox.post(Box::new(move |worker| {
                    let _ = sender.send(ask(worker)); // nobody waits any more after the second
                }));
                waiting.push(receiver);
            }
        }
        answers.extend(waiting.into_iter().filter_map(|r| r.recv_timeout(Duration::from_secs(1)).ok()));
        answers
    }

    /// Counters of workers, sessions and connections.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut out: Statistics = Vec::new();
        if self.closed.load(Ordering::Acquire) {
            return out;
        }
        let answers = self.ask_workers(|worker| {
            let mut list = Vec::new();
            let arena = &worker.core.arena;
            let mut own = worker.core.counters.list();
            own.push(("arena_segments_in_use", arena.in_use() as u64));
            own.push(("arena_segments_touched", arena.touched() as u64));
            list.push((format!("workers.{}", worker.core.index), own));
            worker.target.statistics(&mut list);
            list
        });
        out.extend(answers.into_iter().flatten());
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        for (id, session) in sessions.iter() {
            if let Session::Initiator(session) = session {
                session.statistics(*id, &mut out);
            }
        }
        out
    }

    /// Totals over all workers and initiator sessions.
    #[must_use]
    pub fn totals(&self) -> Counters {
        let mut total = Counters::default();
        for counters in self.ask_workers(|worker| worker.core.counters) {
            total.add(&counters);
        }
        total
    }

    /// The rings of PDU headers as a pcapng file, of one session or of all. `epoch_offset` is what to add to the plane's clock to get
    /// nanoseconds since 1970.
    #[must_use]
    pub fn trace(&self, session: Option<SessionId>, epoch_now: u64) -> Vec<u8> {
        let mut entries: Vec<TraceEntry> = self
            .ask_workers(|worker| worker.core.trace.iter().copied().collect::<Vec<_>>())
            .into_iter()
            .flatten()
            .collect();
        let mut initiator = false;
        {
            let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
            for entry in sessions.values() {
                if let Session::Initiator(session) = entry {
                    initiator = true;
                    session.trace(&mut entries);
                }
            }
        }
        entries.retain(|entry| session.is_none_or(|id| id == entry.session));
        entries.sort_by_key(|entry| entry.time);
        pcapng(entries.iter(), !initiator, epoch_now.saturating_sub(self.clock.now()))
    }

    /// Drives a stepped plane at virtual time `now` until nothing moves; true when anything did.
    pub fn step(&self, now: Nanos) -> bool {
        const MOST_TURNS: usize = 100_000;
        self.clock.set(now);
        let mut any = false;
        for _ in 0..MOST_TURNS {
            let mut moved = false;
            for seat in &self.seats {
                if let Some(worker) = &seat.stepped {
                    moved |= locked(worker).step();
                }
            }
            if !moved {
                break;
            }
            any = true;
        }
        any
    }

    /// When a stepped plane's next timer is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.seats.iter().filter_map(|seat| seat.stepped.as_ref().and_then(|w| locked(w).next_deadline())).min()
    }

    /// Stops the workers, waiting at most `deadline` for them. Later calls fail with `plane.closed`.
    pub fn shutdown(&self, deadline: Duration) {
        if fork::generation() != self.generation || self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        {
            let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
            for session in sessions.values() {
                if let Session::Initiator(session) = session {
                    session.shut_down();
                }
            }
            sessions.clear();
        }
        let started = std::time::Instant::now();
        for seat in &self.seats {
            if let Some(worker) = &seat.stepped {
                locked(worker).shut_down();
            } else {
                seat.mailbox.post(Box::new(Worker::stop));
            }
        }
        for seat in &self.seats {
            let Some(thread) = locked(&seat.thread).take() else { continue };
            while !thread.is_finished() && started.elapsed() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                let _ = thread.join(); // a worker that panicked has said so already
            }
        }
        locked(&self.stores).clear();
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.shutdown(Duration::from_secs(1));
        for seat in &mut self.seats {
            if let Some(worker) = seat.stepped.take() {
                worker.into_inner().unwrap_or_else(PoisonError::into_inner).end();
            }
        }
        if fork::generation() != self.generation {
            // The threads that these handles name do not exist in a forked child; joining or waking them would hang.
            for seat in &self.seats {
                std::mem::forget(locked(&seat.thread).take());
            }
        }
    }
}
