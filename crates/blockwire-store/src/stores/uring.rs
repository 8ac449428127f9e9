//! io_uring for reads, writes and flushes of one file store; everything else, and whatever the ring does not finish
//! at the first try, goes to the pool.
//!
//! One thread owns the ring. Requests belong to the thread that enters them (they end with it, and their
//! notifications interrupt its waits), so reactors never enter; they hand over through a queue and an eventfd that
//! is written only when the thread sleeps.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_uring::{IoUring, Probe, opcode, squeue, types};

use crate::CompletionSink;
use crate::op::{Op, Outcome};
use crate::pool::{Delivery, Job, Pool, send};
use crate::stores::file_io::{MAX_PIECES, OpenFile, Path};
use crate::sys::{self, Errno};

/// Requests in the ring at a time; more wait in the queue.
const DEPTH: usize = 128;
const WAKE: u64 = u64::MAX;

pub(crate) struct RingJob {
    pub(crate) open: Arc<OpenFile>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) op: Op,
    pub(crate) token: u64,
    pub(crate) sink: Arc<dyn CompletionSink>,
}

struct State {
    queue: VecDeque<RingJob>,
    /// The thread looks at the queue no more before it waits: whoever adds to it must wake it.
    sleeping: bool,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: OwnedFd,
}

/// The submitting side. Dropping it lets the thread finish what is queued and end.
pub(crate) struct Ring {
    shared: Arc<Shared>,
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring_the_bell(&self) {
        let one = 1u64;
        // SAFETY: eight bytes from a local into an eventfd. It fails only when the counter is full, and then the
        // thread is awake.
        unsafe { libc::write(self.wake.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

impl Ring {
    /// Makes a ring that can do what we ask of it, with its thread.
    pub(crate) fn start() -> Result<Self, Errno> {
        let number = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::ENOSYS);
        let mut ring: IoUring = IoUring::builder().dontfork().build(DEPTH as u32 * 2).map_err(number)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(number)?;
        let needed = [opcode::Readv::CODE, opcode::Writev::CODE, opcode::Fsync::CODE, opcode::Read::CODE];
        if !needed.iter().all(|code| probe.is_supported(*code)) {
            return Err(libc::ENOSYS);
        }
        // A filter of system calls may allow to make a ring and not to enter it.
        // SAFETY: a request without any memory.
        unsafe { ring.submission().push(&opcode::Nop::new().build()) }.map_err(|_| libc::EBUSY)?;
        ring.submit_and_wait(1).map_err(number)?;
        let answer = ring.completion().next();
        if answer.is_none_or(|entry| entry.result() != 0) {
            return Err(libc::ENOSYS);
        }
        // SAFETY: no pointers involved.
        let wake = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if wake < 0 {
            return Err(sys::errno());
        }
        // SAFETY: a descriptor the kernel has just given to us alone.
        let wake = unsafe { OwnedFd::from_raw_fd(wake) };
        let state = State { queue: VecDeque::with_capacity(DEPTH), sleeping: false, closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake });
        let own = shared.clone();
        std::thread::Builder::new()
            .name("blockwire-uring".into())
            .stack_size(256 * 1024)
            .spawn(move || Worker::new(own, ring).run())
            .map_err(number)?;
        Ok(Self { shared })
    }

    /// Whether the ring can take this; the rest is the pool's.
    pub(crate) fn takes(open: &OpenFile, op: &Op) -> bool {
        match op {
            Op::Read { offset, dst: pieces } | Op::Write { offset, src: pieces, .. } => {
                let plain = !matches!(op, Op::Write { fua: true, .. });
                pieces.as_slice().len() <= MAX_PIECES
                    && open.path(*offset, pieces.as_slice(), pieces.len()) != Path::Bounced
                    && (plain || open.dsync.load(Ordering::Relaxed))
            }
            Op::Flush => true,
            _ => false,
        }
    }

    /// Queues a job that [`Ring::takes`] accepted.
    pub(crate) fn submit(&self, job: RingJob) {
        let mut state = self.shared.locked();
        state.queue.push_back(job);
        let asleep = std::mem::take(&mut state.sleeping);
        drop(state);
        if asleep {
            self.shared.ring_the_bell();
        }
    }

    /// Takes a job back that has not entered the ring.
    pub(crate) fn try_cancel(&self, token: u64) -> bool {
        let mut state = self.shared.locked();
        let found = state.queue.iter().position(|job| job.token == token);
        let job = found.and_then(|at| state.queue.remove(at));
        drop(state);
        job.is_some()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shared.locked().closed = true;
        self.shared.ring_the_bell();
    }
}

struct Worker {
    shared: Arc<Shared>,
    ring: IoUring,
    /// Jobs in the ring. Never reallocated: the kernel has pointers to the piece lists inside.
    slots: Box<[Option<RingJob>]>,
    free: Vec<usize>,
    /// Where the pending read of the eventfd puts its counter.
    counter: Box<u64>,
    listening: bool,
    finished: Vec<Delivery>,
    batch: Vec<(u64, Outcome)>,
}

impl Worker {
    fn new(shared: Arc<Shared>, ring: IoUring) -> Self {
        Self {
            shared,
            ring,
            slots: (0..DEPTH).map(|_| None).collect(),
            free: (0..DEPTH).rev().collect(),
            counter: Box::new(0),
            listening: false,
            finished: Vec::with_capacity(DEPTH),
            batch: Vec::with_capacity(DEPTH),
        }
    }

    fn run(mut self) {
        sys::block_signals();
        loop {
            let closed = self.take_jobs();
            if closed && self.free.len() == DEPTH && !self.listening {
                return; // nothing of ours is left in the ring, so nothing can write to our memory any more
            }
            if !closed && !self.listening {
                let wake = types::Fd(self.shared.wake.as_raw_fd());
                let read = opcode::Read::new(wake, (&raw mut *self.counter).cast(), 8).build().user_data(WAKE);
                self.push(&read);
                self.listening = true;
            }
            // Interrupted or out of kernel memory for the moment: what was pushed stays pushed.
            let _ = self.ring.submit_and_wait(1);
            self.reap();
        }
    }

    /// Moves jobs from the queue into the ring; says whether the store is closed and the queue empty.
    fn take_jobs(&mut self) -> bool {
        loop {
            let mut state = self.shared.locked();
            if self.free.is_empty() {
                return false; // a completion will bring us back here
            }
            let Some(job) = state.queue.pop_front() else {
                state.sleeping = !state.closed;
                return state.closed;
            };
            drop(state);
            let slot = self.free.pop().expect("checked above");
            let entry = entry(self.slots[slot].insert(job)).user_data(slot as u64);
            self.push(&entry);
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the entry points to an open descriptor and to memory of a slot (or `counter`) that stays where it
        // is until its completion was reaped; `run` does not return before. The job's pieces are lent until then.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            // Full only if an earlier submit was refused; the ring has room for twice the slots.
            let _ = self.ring.submit();
        }
    }

    fn reap(&mut self) {
        while let Some(completion) = { self.ring.completion().next() } {
            if completion.user_data() == WAKE {
                self.listening = false;
                continue;
            }
            let slot = completion.user_data() as usize;
            let job = self.slots[slot].take().expect("a completion without a request");
            self.free.push(slot);
            let Some(outcome) = judge(&job, completion.result()) else {
                // A short count or a refusal: the pool does the whole operation again, which is harmless.
                let RingJob { open, pool, op, token, sink } = job;
                pool.submit(Job { target: open, op, token, sink });
                continue;
            };
            let RingJob { open, pool, op: _, token, sink } = job;
            // The last one to let go closes the file; that must have happened before the completion is seen.
            drop((open, pool));
            self.finished.push((sink, token, outcome));
        }
        send(&mut self.finished, &mut self.batch);
    }
}

fn entry(job: &RingJob) -> squeue::Entry {
    match &job.op {
        Op::Read { offset, dst } => {
            let pieces = dst.as_slice();
            let file = job.open.descriptor(job.open.path(*offset, pieces, dst.len()));
            opcode::Readv::new(types::Fd(file.as_raw_fd()), pieces.as_ptr().cast(), pieces.len() as u32)
                .offset(*offset)
                .build()
        }
        Op::Write { offset, src, fua } => {
            let pieces = src.as_slice();
            let file = job.open.descriptor(job.open.path(*offset, pieces, src.len()));
            opcode::Writev::new(types::Fd(file.as_raw_fd()), pieces.as_ptr().cast(), pieces.len() as u32)
                .offset(*offset)
                .rw_flags(if *fua { libc::RWF_DSYNC } else { 0 })
                .build()
        }
        _ => opcode::Fsync::new(types::Fd(job.open.file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build(),
    }
}

/// The outcome of a request, or nothing when the pool has to do it again.
fn judge(job: &RingJob, result: i32) -> Option<Outcome> {
    let errno = match usize::try_from(result) {
        Ok(count) => {
            let wanted = match &job.op {
                Op::Read { dst, .. } => dst.len(),
                Op::Write { src, .. } => src.len(),
                _ => 0,
            };
            // What was flushed may be less than what was lost before; the pool says so.
            let promised = matches!(job.op, Op::Flush | Op::Write { fua: true, .. });
            let hold = promised && job.open.lost_writes.load(Ordering::Acquire);
            return (count == wanted && !hold).then_some(Ok(()));
        }
        Err(_) => -result,
    };
    if matches!(errno, libc::EAGAIN | libc::EINTR | libc::EOPNOTSUPP | libc::EINVAL | libc::ECANCELED | libc::ENOMEM) {
        return None;
    }
    Some(Err(match &job.op {
        Op::Read { offset, .. } => OpenFile::read_failed(errno, *offset),
        Op::Write { offset, fua, .. } => job.open.write_failed(errno, *offset, *fua),
        _ => job.open.flush_failed(errno),
    }))
}
