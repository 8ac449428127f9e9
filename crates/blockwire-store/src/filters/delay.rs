//! `delay`: operations reach the store behind it later.
//!
//! Parameters are times (`250us`, `10ms`, `1s`): `read=`, `write=`, `zero=`, `punch=`, `copy=`, `flush=`, `resize=`,
//! and `all=` for those not named. Kinds without a time pass at once. For tests without clocks, [`manual`] holds
//! every operation until it is told to let it go.

use std::cmp::{Ordering as Order, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::StoreError;
use crate::op::{Op, OpKind, Submitted};
use crate::options::Params;
use crate::sys;
use crate::{Capabilities, CompletionSink, Geometry, Mapping, Store, StoreIdentity};

/// How long each kind of operation is held.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times([Duration; 7]);

impl Times {
    pub(crate) fn parse(map: &BTreeMap<String, String>) -> Result<Self, StoreError> {
        let names: Vec<&str> = OpKind::ALL.iter().map(|kind| kind.name()).chain(["all"]).collect();
        let params = Params::new("filter delay", map, &names)?;
        let mut times = [params.duration("all")?.unwrap_or_default(); 7];
        for kind in OpKind::ALL {
            if let Some(time) = params.duration(kind.name())? {
                times[kind.index()] = time;
            }
        }
        Ok(Self(times))
    }
}

struct Held {
    due: Instant,
    number: u64,
    op: Op,
    token: u64,
    sink: Arc<dyn CompletionSink>,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Held {}
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}
impl Ord for Held {
    fn cmp(&self, other: &Self) -> Order {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

#[derive(Default)]
struct State {
    held: BinaryHeap<Reverse<Held>>,
    next: u64,
    thread: Option<JoinHandle<()>>,
    closed: bool,
}

struct Shared {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
    changed: Condvar,
}

struct Delay {
    shared: Arc<Shared>,
    /// None: nothing moves but by hand.
    times: Option<Times>,
}

/// Lets held operations go, in a test.
#[derive(Clone)]
pub struct DelayHandle {
    shared: Arc<Shared>,
}

pub(crate) fn apply(inner: Arc<dyn Store>, times: Times) -> Arc<dyn Store> {
    Arc::new(Delay::new(inner, Some(times)))
}

/// A delay filter without a clock: it holds every operation until [`DelayHandle::release`].
pub fn manual(inner: Arc<dyn Store>) -> (Arc<dyn Store>, DelayHandle) {
    let filter = Delay::new(inner, None);
    let handle = DelayHandle { shared: filter.shared.clone() };
    (Arc::new(filter), handle)
}

impl DelayHandle {
    /// Operations held now.
    pub fn held(&self) -> usize {
        self.shared.locked().held.len()
    }

    /// Submits up to `count` held operations on this thread, oldest first; returns how many. What the store answers
    /// at once is completed before this returns.
    pub fn release(&self, count: usize) -> usize {
        let mut done = 0;
        while done < count {
            let next = self.shared.locked().held.pop();
            let Some(Reverse(held)) = next else { break };
            self.shared.pass_on(held);
            done += 1;
        }
        done
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&self, held: Held) {
        if let Submitted::Done(outcome) = self.inner.submit(held.op, held.token, &held.sink) {
            held.sink.complete(&[(held.token, outcome)]);
        }
    }

    fn run(&self) {
        sys::block_signals();
        let mut state = self.locked();
        loop {
            let now = Instant::now();
            let due = state.held.peek().map(|Reverse(first)| first.due);
            state = match due {
                Some(due) if due <= now || state.closed => {
                    let Some(Reverse(held)) = state.held.pop() else {
                        continue;
                    };
                    drop(state);
                    self.pass_on(held);
                    self.locked()
                }
                Some(due) => self.changed.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0,
                None if state.closed => return,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Delay {
    fn new(inner: Arc<dyn Store>, times: Option<Times>) -> Self {
        Self { shared: Arc::new(Shared { inner, state: Mutex::default(), changed: Condvar::new() }), times }
    }

    fn hold(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>, time: Duration) {
        let mut state = self.shared.locked();
        state.next += 1;
        // By hand, arrival alone is the order; the clock must not have a say.
        let due = if self.times.is_some() { Instant::now() + time } else { *EPOCH };
        let number = state.next;
        state.held.push(Reverse(Held { due, number, op, token, sink: sink.clone() }));
        if self.times.is_some() && state.thread.is_none() {
            let shared = self.shared.clone();
            let name = "blockwire-delay".to_string();
            // Without a thread nothing would ever end; failing here is no worse than failing to start a pool.
            let started = std::thread::Builder::new().name(name).stack_size(256 * 1024).spawn(move || shared.run());
            state.thread = started.ok();
            if state.thread.is_none() {
                drop(state);
                DelayHandle { shared: self.shared.clone() }.release(usize::MAX);
                return;
            }
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}

static EPOCH: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

impl Drop for Delay {
    fn drop(&mut self) {
        let mut state = self.shared.locked();
        state.closed = true;
        let thread = state.thread.take();
        drop(state);
        self.shared.changed.notify_one();
        if self.times.is_none() {
            // Nobody else would end what is still held.
            DelayHandle { shared: self.shared.clone() }.release(usize::MAX);
        }
        // The thread has the store behind this filter open. It passes on at once what is held, and ends; who closes a
        // disk may open it again right afterwards.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Store for Delay {
    fn geometry(&self) -> Geometry {
        self.shared.inner.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        super::without_mapping(&*self.shared.inner)
    }

    fn mapping(&self) -> Option<Mapping> {
        None
    }

    fn identity(&self) -> StoreIdentity {
        self.shared.inner.identity()
    }

    fn submit(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>) -> Submitted {
        let time = self.times.map_or(Duration::ZERO, |times| times.0[op.kind().index()]);
        if self.times.is_some() && time.is_zero() {
            return self.shared.inner.submit(op, token, sink);
        }
        self.hold(op, token, sink, time);
        Submitted::Pending
    }

    fn try_cancel(&self, token: u64) -> bool {
        let mut state = self.shared.locked();
        let before = state.held.len();
        state.held.retain(|Reverse(held)| held.token != token);
        let found = state.held.len() < before;
        drop(state);
        found || self.shared.inner.try_cancel(token)
    }
}
