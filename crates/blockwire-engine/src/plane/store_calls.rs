//! Opening, closing and using stores from the control plane, on byte ranges.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use blockwire_store::{CompletionSink, ErrorKind, FilterSpec, IoVecs, Op, OpenOptions, Outcome, StoreError, Submitted};

use super::{Plane, locked, unknown};
use crate::ending::Ending;
use crate::events::{Event, EventQueue, Failure, OpId, OpResult, StoreId, StoreInfo};
use crate::stores::StoreHandle;

/// `api.StoreSpec`.
#[derive(Clone, Debug)]
pub struct StoreRequest {
    pub scheme: String,
    pub path: String,
    pub options: OpenOptions,
    pub extra: BTreeMap<String, String>,
    pub filters: Vec<FilterSpec>,
}

/// `api.StoreOp` with its arguments.
#[derive(Clone, Debug)]
pub enum StoreCall {
    Geometry,
    Read { offset: u64, length: u32 },
    Write { offset: u64, data: Vec<u8> },
    Copy { from: u64, to: u64, length: u64 },
    Zero { offset: u64, length: u64 },
    Punch { offset: u64, length: u64 },
    Flush,
    Resize { size: u64 },
}

/// Stable codes for what stores refuse.
#[must_use]
pub fn store_failure(error: &StoreError) -> Failure {
    let code = match error.kind {
        ErrorKind::OutOfRange => "store.out-of-range",
        ErrorKind::ReadOnly => "store.read-only",
        ErrorKind::NoSpace => "store.no-space",
        ErrorKind::Medium => "store.medium-error",
        ErrorKind::Offline => "store.offline",
        ErrorKind::Unsupported => "store.unsupported",
        ErrorKind::WouldResize => "store.wrong-size",
        ErrorKind::Locked => "store.locked",
        ErrorKind::Invalid => "store.invalid",
        ErrorKind::NotFound => "store.not-found",
        ErrorKind::Permission => "store.permission-denied",
        ErrorKind::Changed => "store.changed",
        ErrorKind::Corrupt => "store.corrupt",
        _ => "store.io-error",
    };
    Failure { code: code.to_owned(), message: error.to_string(), errno: error.errno }
}

fn describe(handle: &StoreHandle) -> StoreInfo {
    let geometry = handle.store.geometry();
    let capabilities = handle.store.capabilities();
    let identity = handle.store.identity();
    StoreInfo {
        store: handle.id,
        size: geometry.size,
        physical_block: geometry.physical_block,
        optimal_io: geometry.optimal_io,
        read_only: capabilities.read_only,
        can_punch: capabilities.can_punch,
        can_zero: capabilities.can_zero,
        can_flush: capabilities.can_flush,
        identity: identity.serial.unwrap_or_else(|| format!("{}:{}", identity.kind, identity.key)),
    }
}

/// Completions of control operations; keeps their memory until then.
struct CallSink {
    events: Arc<EventQueue>,
    pending: Mutex<HashMap<u64, Pending>>,
}

struct Pending {
    buffer: Vec<u8>,
    read: bool,
    resized: Option<(StoreId, u64)>,
    ending: Ending,
}

impl Pending {
    fn memory(&mut self) -> IoVecs {
        // SAFETY: the heap memory of `buffer` stays in place and untouched in the sink's map until the completion takes it out.
        unsafe { IoVecs::single(self.buffer.as_mut_ptr(), self.buffer.len()) }
    }
}

impl CallSink {
    fn finish(&self, pending: Pending, outcome: Outcome) {
        match outcome {
            Ok(()) => {
                if let Some((store, size)) = pending.resized {
                    self.events.push(Event::StoreChanged { store, size });
                }
                let result = if pending.read { OpResult::Bytes(pending.buffer) } else { OpResult::None };
                pending.ending.done(Ok(result));
            }
            Err(error) => pending.ending.done(Err(store_failure(&error))),
        }
    }
}

impl CompletionSink for CallSink {
    fn complete(&self, batch: &[(u64, Outcome)]) {
        for (op, outcome) in batch {
            let pending = locked(&self.pending).remove(op);
            if let Some(pending) = pending {
                self.finish(pending, outcome.clone());
            }
        }
    }
}

impl Plane {
    /// `api.open_store`. Opening may block, so it has a thread of its own.
    pub fn open_store(self: &Arc<Self>, request: StoreRequest) -> OpId {
        if let Err(failure) = self.check() {
            return self.failed_op(failure);
        }
        let op = self.id();
        let plane = Arc::downgrade(self);
        let events = Arc::clone(&self.events);
        let work = move || {
            let StoreRequest { scheme, path, options, extra, filters } = request;
            let result = blockwire_store::open(&scheme, &path, &options, &extra, &filters);
            let result = match (result, plane.upgrade()) {
                (Ok(store), Some(plane)) => {
                    let handle = StoreHandle::new(plane.id(), store);
                    let info = describe(&handle);
                    locked(&plane.stores).insert(handle.id, handle);
                    Ok(OpResult::Store(info))
                }
                (Ok(_), None) => Err(Failure::new("plane.closed", "the data plane was shut down")),
                (Err(error), _) => Err(store_failure(&error)),
            };
            events.done(op, result);
        };
        if self.options.stepped {
            work();
        } else if let Err(error) = std::thread::Builder::new().name("blockwire-open".into()).spawn(work) {
            self.events.done(op, Err(Failure::io("store.io-error", &error)));
        }
        op
    }

    /// `api.close_store`: logical units on it are unmapped first.
    pub fn close_store(&self, id: StoreId) -> OpId {
        let Some(handle) = locked(&self.stores).remove(&id) else { return self.failed_op(unknown("store", id)) };
        let op = self.id();
        let workers: Vec<usize> = handle.workers().filter(|&w| w < self.seats.len()).collect();
        let last = workers.len();
        if last == 0 {
            self.events.done(op, Ok(OpResult::None));
            return op;
        }
        let left = Arc::new(Mutex::new((last, Some(self.ending(op)))));
        for worker in workers {
            let left = Arc::clone(&left);
            let handle = handle.clone();
            self.post(
                worker,
                Box::new(move |worker| {
                    worker.target.store_closing(&mut worker.core, handle.id);
                    drop(handle);
                    let mut left = locked(&left);
                    left.0 -= 1;
                    if left.0 == 0
                        && let Some(ending) = left.1.take()
                    {
                        ending.done(Ok(OpResult::None));
                    }
                }),
            );
        }
        op
    }

    /// `api.store_op`. It runs on the worker that serves the store, so that READs sent from a store's memory are copied out
    /// before a change reaches them.
    pub fn store_op(&self, id: StoreId, call: StoreCall) -> OpId {
        if let Err(failure) = self.check() {
            return self.failed_op(failure);
        }
        let Some(handle) = locked(&self.stores).get(&id).cloned() else {
            return self.failed_op(unknown("store", id));
        };
        if let StoreCall::Geometry = call {
            let op = self.id();
            self.events.done(op, Ok(OpResult::Store(describe(&handle))));
            return op;
        }
        let op = self.id();
        let ending = self.ending(op);
        let worker = handle.workers().next().unwrap_or(0).min(self.seats.len() - 1);
        self.post(
            worker,
            Box::new(move |worker| {
                let changed = match &call {
                    StoreCall::Write { offset, data } => Some((*offset, data.len() as u64)),
                    StoreCall::Copy { to, length, .. } => Some((*to, *length)),
                    StoreCall::Zero { offset, length } | StoreCall::Punch { offset, length } => {
                        Some((*offset, *length))
                    }
                    StoreCall::Resize { .. } => Some((0, u64::MAX)),
                    StoreCall::Geometry | StoreCall::Read { .. } | StoreCall::Flush => None,
                };
                if let Some((offset, length)) = changed {
                    worker.target.about_to_change(&mut worker.core, handle.id, offset, length);
                }
                start(op, ending, &handle, call, Arc::clone(&worker.core.events));
            }),
        );
        op
    }
}

fn start(op: OpId, ending: Ending, handle: &StoreHandle, call: StoreCall, events: Arc<EventQueue>) {
    let mut pending = Pending { buffer: Vec::new(), read: false, resized: None, ending };
    let sink = Arc::new(CallSink { events, pending: Mutex::default() });
    let request = match call {
        StoreCall::Geometry => return,
        StoreCall::Read { offset, length } => {
            pending.read = true;
            pending.buffer = vec![0; length as usize];
            Op::Read { offset, dst: pending.memory() }
        }
        StoreCall::Write { offset, data } => {
            pending.buffer = data;
            Op::Write { offset, src: pending.memory(), fua: false }
        }
        StoreCall::Copy { from, to, length } => Op::Copy { from, to, len: length },
        StoreCall::Zero { offset, length } => Op::Zero { offset, len: length, may_unmap: true, fua: false },
        StoreCall::Punch { offset, length } => Op::Punch { offset, len: length },
        StoreCall::Flush => Op::Flush,
        StoreCall::Resize { size } => {
            pending.resized = Some((handle.id, size));
            Op::Resize { size }
        }
    };
    // The buffer's heap memory stays where it is when `pending` moves into the map.
    locked(&sink.pending).insert(op, pending);
    let shared: Arc<dyn CompletionSink> = Arc::clone(&sink) as Arc<dyn CompletionSink>;
    if let Submitted::Done(outcome) = handle.store.submit(request, op, &shared) {
        sink.complete(&[(op, outcome)]);
    }
}
