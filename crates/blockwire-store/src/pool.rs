//! A bounded pool of threads for calls that block.
//!
//! Every store has its own, so that a device that hangs takes no threads away from another one. Threads start when
//! work waits and nobody is idle, up to a maximum, and end after a while without work; a pool at rest has none and
//! uses no CPU. The queue has room for a usual command window from the start and grows beyond it rather than block
//! its caller: its length is bounded by the caller's own bound on outstanding operations.
//!
//! Completions are batched without being delayed: whoever finishes puts the outcome on a list, and if nobody is
//! delivering, delivers the list until it is empty. While one thread is inside a sink, the others pile up a batch.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::CompletionSink;
use crate::error::{ErrorKind, StoreError};
use crate::op::{Op, Outcome};
use crate::sys;

const QUEUE_ROOM: usize = 256;
const IDLE: Duration = Duration::from_secs(5);
const STACK: usize = 256 * 1024;

/// Something that can carry out an operation, waiting as long as it takes.
pub(crate) trait Execute: Send + Sync {
    fn execute(&self, op: Op) -> Outcome;
}

/// An operation with everything needed to run and complete it.
pub(crate) struct Job {
    pub(crate) target: Arc<dyn Execute>,
    pub(crate) op: Op,
    pub(crate) token: u64,
    pub(crate) sink: Arc<dyn CompletionSink>,
}

struct State {
    queue: VecDeque<Job>,
    threads: usize,
    /// Threads that wait, also those that are woken but have not run yet.
    idle: usize,
    /// Of those, how many are on their way; saves a system call for every job beyond one per thread.
    woken: usize,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    deliveries: Deliveries,
    name: &'static str,
    max_threads: usize,
}

/// The pool; dropping it lets the threads finish what is queued and end.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(crate) fn new(name: &'static str, max_threads: usize) -> Self {
        let state = State { queue: VecDeque::new(), threads: 0, idle: 0, woken: 0, closed: false };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                wake: Condvar::new(),
                deliveries: Deliveries::default(),
                name,
                max_threads: max_threads.max(1),
            }),
        }
    }

    /// Queues a job; never waits for one.
    pub(crate) fn submit(&self, job: Job) {
        let mut state = locked(&self.shared.state);
        if state.queue.capacity() == 0 {
            state.queue.reserve(QUEUE_ROOM);
        }
        state.queue.push_back(job);
        if state.queue.len() > state.idle && state.threads < self.shared.max_threads {
            state.threads += 1;
            drop(state);
            Shared::start_thread(&self.shared);
        } else if state.idle > state.woken {
            state.woken += 1;
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Takes a job back that has not started.
    pub(crate) fn try_cancel(&self, token: u64) -> bool {
        let mut state = locked(&self.shared.state);
        let found = state.queue.iter().position(|job| job.token == token);
        let job = found.and_then(|at| state.queue.remove(at));
        drop(state);
        job.is_some()
    }

    #[cfg(test)]
    fn threads(&self) -> usize {
        locked(&self.shared.state).threads
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        locked(&self.shared.state).closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn start_thread(shared: &Arc<Self>) {
        let own = shared.clone();
        let spawned = std::thread::Builder::new().name(shared.name.into()).stack_size(STACK).spawn(move || own.work());
        if let Err(error) = spawned {
            let mut orphans = VecDeque::new();
            let mut state = locked(&shared.state);
            state.threads -= 1;
            if state.threads == 0 {
                std::mem::swap(&mut orphans, &mut state.queue);
            }
            drop(state);
            for job in orphans {
                let mut failure = StoreError::new(ErrorKind::Io, "no thread could be started for the store");
                failure.errno = error.raw_os_error().unwrap_or(libc::EAGAIN);
                shared.deliveries.deliver(job.sink, job.token, Err(failure));
            }
        }
    }

    fn work(&self) {
        sys::block_signals();
        let mut state = locked(&self.state);
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                let Job { target, op, token, sink } = job;
                let outcome = catch_unwind(AssertUnwindSafe(|| target.execute(op)))
                    .unwrap_or_else(|_| Err(StoreError::new(ErrorKind::Io, "the store's code panicked")));
                // Before the completion: who then drops the store closes its file (and its lock) there and then.
                drop(target);
                self.deliveries.deliver(sink, token, outcome);
                state = locked(&self.state);
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (back, waited) = self.wake.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            state.woken = state.woken.saturating_sub(1);
            if waited.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

/// An outcome on its way to its sink.
pub(crate) type Delivery = (Arc<dyn CompletionSink>, u64, Outcome);

/// Finished operations on their way to their sinks.
#[derive(Default)]
struct Deliveries {
    list: Mutex<DeliveryList>,
}

#[derive(Default)]
struct DeliveryList {
    waiting: Vec<Delivery>,
    delivering: bool,
    /// Kept from one delivery to the next, so that no list is allocated after warm-up.
    spare: Vec<Delivery>,
    batch: Vec<(u64, Outcome)>,
}

impl Deliveries {
    /// Adds one outcome and delivers, unless another thread is delivering and will take it along.
    fn deliver(&self, sink: Arc<dyn CompletionSink>, token: u64, outcome: Outcome) {
        let mut list = locked(&self.list);
        list.waiting.push((sink, token, outcome));
        if list.delivering {
            return;
        }
        list.delivering = true;
        let mut taken = std::mem::take(&mut list.spare);
        let mut batch = std::mem::take(&mut list.batch);
        while !list.waiting.is_empty() {
            std::mem::swap(&mut list.waiting, &mut taken);
            drop(list);
            send(&mut taken, &mut batch);
            list = locked(&self.list);
        }
        list.spare = taken;
        list.batch = batch;
        list.delivering = false;
    }
}

/// Gives every outcome to its sink, consecutive ones of one sink in one batch.
pub(crate) fn send(deliveries: &mut Vec<Delivery>, batch: &mut Vec<(u64, Outcome)>) {
    let mut current: Option<Arc<dyn CompletionSink>> = None;
    for (sink, token, outcome) in deliveries.drain(..) {
        if let Some(previous) = current.as_ref().filter(|previous| !Arc::ptr_eq(previous, &sink)) {
            previous.complete(batch);
            batch.clear();
        }
        current = Some(sink);
        batch.push((token, outcome));
    }
    if let Some(sink) = current {
        sink.complete(batch);
        batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Instant;

    struct Collect(Mutex<Vec<u64>>, AtomicUsize, Duration);

    impl CompletionSink for Collect {
        fn complete(&self, batch: &[(u64, Outcome)]) {
            std::thread::sleep(self.2);
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.lock().unwrap().extend(batch.iter().map(|(token, _)| token));
        }
    }

    impl Collect {
        fn new(pause: Duration) -> Arc<Self> {
            Arc::new(Self(Mutex::default(), AtomicUsize::new(0), pause))
        }
        fn wait_for(&self, count: usize) {
            let end = Instant::now() + Duration::from_secs(120);
            while self.0.lock().unwrap().len() < count {
                assert!(Instant::now() < end, "completions are missing");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Runs when the channel gives it leave, and counts how many run together.
    struct Gate(Mutex<mpsc::Receiver<()>>, AtomicUsize);

    impl Execute for Gate {
        fn execute(&self, op: Op) -> Outcome {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.lock().unwrap().recv().unwrap();
            assert!(!matches!(op, Op::Resize { .. }), "panics where the test wants it to");
            Ok(())
        }
    }

    fn job(target: &Arc<Gate>, op: Op, token: u64, sink: &Arc<Collect>) -> Job {
        Job { target: target.clone(), op, token, sink: sink.clone() }
    }

    #[test]
    fn threads_are_bounded_and_all_jobs_complete_once() {
        let (leave, gate) = mpsc::channel();
        let target = Arc::new(Gate(Mutex::new(gate), AtomicUsize::new(0)));
        let sink = Collect::new(Duration::ZERO);
        let pool = Pool::new("test", 3);
        for token in 0..500 {
            pool.submit(job(&target, Op::Flush, token, &sink));
        }
        assert_eq!(pool.threads(), 3);
        for _ in 0..500 {
            leave.send(()).unwrap();
        }
        sink.wait_for(500);
        let mut seen = sink.0.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn a_slow_sink_gets_batches() {
        let (leave, gate) = mpsc::channel();
        let target = Arc::new(Gate(Mutex::new(gate), AtomicUsize::new(0)));
        let sink = Collect::new(Duration::from_millis(20));
        let pool = Pool::new("test", 4);
        for token in 0..100 {
            pool.submit(job(&target, Op::Flush, token, &sink));
        }
        for _ in 0..100 {
            leave.send(()).unwrap();
        }
        sink.wait_for(100);
        assert!(sink.1.load(Ordering::Relaxed) < 50, "100 completions came in {:?} batches", sink.1);
    }

    #[test]
    fn cancel_takes_back_only_what_has_not_started() {
        let (leave, gate) = mpsc::channel();
        let target = Arc::new(Gate(Mutex::new(gate), AtomicUsize::new(0)));
        let sink = Collect::new(Duration::ZERO);
        let pool = Pool::new("test", 1);
        pool.submit(job(&target, Op::Flush, 1, &sink));
        while target.1.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        pool.submit(job(&target, Op::Flush, 2, &sink));
        assert!(!pool.try_cancel(1), "it runs");
        assert!(pool.try_cancel(2));
        assert!(!pool.try_cancel(2), "it is gone");
        leave.send(()).unwrap();
        sink.wait_for(1);
        assert_eq!(*sink.0.lock().unwrap(), [1]);
    }

    #[test]
    fn a_panic_is_an_outcome_and_the_target_is_let_go_before_the_completion() {
        let (leave, gate) = mpsc::channel();
        let target = Arc::new(Gate(Mutex::new(gate), AtomicUsize::new(0)));
        let sink = Collect::new(Duration::ZERO);
        let pool = Pool::new("test", 1);
        leave.send(()).unwrap();
        pool.submit(job(&target, Op::Resize { size: 0 }, 7, &sink));
        sink.wait_for(1);
        assert_eq!(Arc::strong_count(&target), 1);
        leave.send(()).unwrap();
        pool.submit(job(&target, Op::Flush, 8, &sink));
        sink.wait_for(2);
    }
}
