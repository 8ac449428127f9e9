//! One reactor: a thread (or a stepped driver) that owns sessions and drives them.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockwire_store::Outcome;

use crate::clock::{Clock, Nanos};
use crate::core::{Core, PlaneOptions, key};
use crate::events::EventQueue;
use crate::initiator::Background;
use crate::mailbox::Mailbox;
use crate::sys::epoll::{Interest, Ready};
use crate::sys::socket;
use crate::target::TargetSide;

/// How long the end of a worker waits for store operations.
const LAST_OPERATIONS: Duration = Duration::from_secs(2);

/// A worker's whole state. Control calls run on it as jobs.
pub struct Worker {
    pub core: Core,
    pub target: TargetSide,
    pub initiators: Background,
    ready: Vec<Ready>,
    completions: Vec<(u64, Outcome)>,
    stopping: bool,
    /// It could not be put in order after a panic.
    wrecked: bool,
}

impl Worker {
    /// # Errors
    /// The system's, when descriptors or address space are out.
    pub fn new(
        index: usize, options: &PlaneOptions, clock: Clock, mailbox: Arc<Mailbox>, events: Arc<EventQueue>,
    ) -> io::Result<Self> {
        let core = Core::new(index, options, clock, mailbox, events)?;
        if let Some(epoll) = &core.epoll {
            epoll.add(core.mailbox.fd(), key::MAILBOX, Interest::READ)?;
        }
        Ok(Self {
            core,
            target: TargetSide::new(options),
            initiators: Background::new(options),
            ready: Vec::with_capacity(256),
            completions: Vec::with_capacity(1024),
            stopping: false,
            wrecked: false,
        })
    }

    /// The worker leaves its loop after the job that calls this.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Runs until `stop`.
    pub fn run(&mut self) {
        let mut busy = false;
        while !self.stopping && !self.wrecked {
            match catch_unwind(AssertUnwindSafe(|| self.wait_and_turn(busy))) {
                Ok(Ok(more)) => busy = more,
                Ok(Err(_)) => break,
                Err(panic) => {
                    self.broke_down(&*panic);
                    busy = true;
                }
            }
        }
        if self.wrecked {
            self.core.mailbox.close();
        } else {
            self.shut_down();
        }
    }

    /// One look at the descriptors, and a turn.
    fn wait_and_turn(&mut self, busy: bool) -> io::Result<bool> {
        let timeout = if busy { 0 } else { self.timeout_ms() };
        self.ready.clear();
        if let Some(epoll) = &self.core.epoll {
            self.core.counters.wait_calls += 1;
            epoll.wait(&mut self.ready, timeout)?;
        }
        self.core.now = self.core.clock.now();
        let ready = std::mem::take(&mut self.ready);
        for event in &ready {
            match key::role(event.key) {
                key::TARGET => self.target.ready(&mut self.core, key::number(event.key), *event),
                key::INITIATOR => self.initiators.ready(&mut self.core, key::number(event.key), *event),
                _ => {}
            }
        }
        self.ready = ready;
        Ok(self.turn())
    }

    /// A turn panicked: which state it left half done is not known, so every session of this worker ends, with an event that
    /// says so, and the worker goes on with nothing. Other workers notice nothing. Operations fail as their `Ending` is dropped.
    fn broke_down(&mut self, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let what = format!("worker {} panicked: {}", self.core.index, text.unwrap_or("without a word"));
        self.core.counters.breakdowns += 1;
        let put_in_order = catch_unwind(AssertUnwindSafe(|| {
            self.target.break_down(&mut self.core, &what);
            self.initiators.break_down(&mut self.core, &what);
        }));
        self.wrecked = put_in_order.is_err();
        // jobs that came behind the one that panicked still wait
        self.core.mailbox.signal();
    }

    /// Cuts every connection.
    pub fn shut_down(&mut self) {
        self.target.shut_down(&mut self.core);
        self.initiators.shut_down(&mut self.core);
    }

    /// Lets go of everything. Store operations that are still out name memory of this worker: they get a while to end, and
    /// when one does not, the memory stays for good rather than be taken from under it.
    pub fn end(mut self: Box<Self>) {
        if self.wrecked {
            std::mem::forget(self);
            return;
        }
        let started = Instant::now();
        while self.target.operations_out() > 0 && started.elapsed() < LAST_OPERATIONS {
            let _ = socket::poll(self.core.mailbox.fd(), true, false, 10); // a failing poll only ends the pause
            self.core.mailbox.clear();
            self.core.mailbox.take_completions(&mut self.completions);
            self.target.completions(&mut self.core, &mut self.completions);
            self.completions.clear();
        }
        if self.target.operations_out() > 0 {
            std::mem::forget(self);
        }
    }

    /// Milliseconds until the next timer, rounded up; -1 without one.
    fn timeout_ms(&self) -> i32 {
        let next = [self.target.next_deadline(), self.initiators.next_deadline()].into_iter().flatten().min();
        next.map_or(-1, |at| {
            let left = at.saturating_sub(self.core.clock.now()).div_ceil(1_000_000);
            i32::try_from(left).unwrap_or(i32::MAX)
        })
    }

    /// Jobs, completions, timers, and what the roles have to do; true when there is more to do at once.
    fn turn(&mut self) -> bool {
        if self.core.mailbox.pending() {
            let mailbox = Arc::clone(&self.core.mailbox);
            mailbox.clear();
            while let Some(job) = mailbox.take_job() {
                job(self);
            }
            mailbox.take_completions(&mut self.completions);
            if !self.completions.is_empty() {
                let mut completions = std::mem::take(&mut self.completions);
                self.target.completions(&mut self.core, &mut completions);
                completions.clear();
                self.completions = completions;
            }
        }
        let now = self.core.now;
        if self.target.next_deadline().is_some_and(|at| at <= now) {
            self.target.tick(&mut self.core);
        }
        if self.initiators.next_deadline().is_some_and(|at| at <= now) {
            self.initiators.tick(&mut self.core);
        }
        let target = self.target.run(&mut self.core);
        let initiators = self.initiators.run(&mut self.core);
        target || initiators
    }

    /// One turn of the stepped driver at the clock's time; memory transports are asked for input. True when something
    /// was done or is left to do.
    pub fn step(&mut self) -> bool {
        if self.wrecked {
            return false;
        }
        catch_unwind(AssertUnwindSafe(|| self.step_once())).unwrap_or_else(|panic| {
            self.broke_down(&*panic);
            true
        })
    }

    fn step_once(&mut self) -> bool {
        self.core.now = self.core.clock.now();
        let moved = self.target.poll_memory(&mut self.core) | self.initiators.poll_memory(&mut self.core);
        let had_mail = self.core.mailbox.pending();
        let due = self.next_deadline().is_some_and(|at| at <= self.core.now);
        self.turn() || moved || had_mail || due && self.next_deadline().is_none_or(|at| at > self.core.now)
    }

    /// When the next timer is due, for the stepped driver.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        [self.target.next_deadline(), self.initiators.next_deadline()].into_iter().flatten().min()
    }
}
