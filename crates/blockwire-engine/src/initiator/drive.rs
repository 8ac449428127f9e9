//! The baton: one caller at a time waits for the sockets, on its own thread and without the lock, and processes what
//! comes for everybody.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use blockwire_proto::ConnIndex;

use super::patience::Wait;
use super::session::{InitiatorSession, Loss, SLICE, State};
use crate::core::RECEIVE_BUFFER;
use crate::receive::{DIRECT_PARTS, direct_parts, take_in};
use crate::sys::socket::{self, Part, PollEntry};

pub(super) type Guard<'a> = MutexGuard<'a, State>;

/// Lists of `poll_all`, kept so that waiting allocates nothing.
#[derive(Debug, Default)]
pub(super) struct PollMemory {
    entries: Vec<PollEntry>,
    who: Vec<(ConnIndex, Option<RawFd>)>,
}

/// With several connections, so many waits for the only one that has requests, as long as something comes; then all are polled.
const DIRECT_WAITS: u32 = 64;
/// And the longest of these waits: somebody else may send a request on another connection meanwhile.
const DIRECT_SLICE: Duration = Duration::from_millis(5);

/// How long a caller naps between two looks at in-memory ends, which nothing wakes it for.
const MEMORY_NAP: Duration = Duration::from_micros(200);

impl InitiatorSession {
    /// Waits up to `limit` (about; at most `SLICE`) until something came or another caller tells that something ended.
    pub(super) fn advance<'a>(&'a self, state: Guard<'a>, limit: Duration) -> Guard<'a> {
        let limit = limit.min(SLICE);
        if state.reader || state.links.iter().all(Option::is_none) {
            return self.park(state, limit);
        }
        self.drive(state, limit)
    }

    fn park<'a>(&'a self, mut state: Guard<'a>, limit: Duration) -> Guard<'a> {
        if limit.is_zero() {
            return state;
        }
        state.parked += 1;
        let waited = self.parked.wait_timeout(state, limit);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.parked -= 1;
        state
    }

    /// To be called when a caller has what it wanted: somebody else may need the baton.
    pub(super) fn leave(&self, mut state: Guard<'_>) {
        if state.reader {
            return;
        }
        if state.parked > 0 {
            self.parked.notify_one();
        } else if state.foreground && state.side.plane_tasks > 0 {
            // completions of the event queue must not wait until the session is idle
            state.foreground = false;
            drop(state);
            self.wake_background();
        }
    }

    /// Takes the baton for one wait.
    fn drive<'a>(&'a self, mut state: Guard<'a>, limit: Duration) -> Guard<'a> {
        let direct = state.only_one_to_read(limit);
        state.reader = true;
        state = match direct {
            Some(conn) => {
                let before = state.counters.bytes_received;
                let mut state = self.receive_from(state, conn, !limit.is_zero());
                state.direct_waits = if state.counters.bytes_received == before {
                    DIRECT_WAITS
                } else {
                    state.direct_waits.saturating_add(1)
                };
                state
            }
            None => self.poll_all(state, limit),
        };
        state.reader = false;
        self.tell(&mut state);
        state
    }

    /// Waits on all connections, for input and for room where a send was cut short.
    fn poll_all<'a>(&'a self, mut state: Guard<'a>, limit: Duration) -> Guard<'a> {
        let PollMemory { mut entries, mut who } = std::mem::take(&mut state.poll);
        let mut nap = limit;
        if let Some(at) = state.held_until {
            nap = nap.min(Duration::from_nanos(at.saturating_sub(self.clock.now()).max(1)));
        }
        for (conn, link) in state.links.iter_mut().enumerate() {
            let Some(link) = link else { continue };
            link.reading = true; // keeps its descriptor open
            link.set_mark(1);
            let fd = link.transport.fd();
            if let Some(fd) = fd {
                entries.push(PollEntry::new(fd, true, link.blocked));
            } else {
                nap = nap.min(MEMORY_NAP);
            }
            who.push((conn, fd));
        }
        if !nap.is_zero() {
            drop(state);
            if entries.is_empty() {
                std::thread::sleep(nap);
            } else {
                let _ = socket::poll_many(&mut entries, nap); // a signal ends the wait: the caller looks
            }
            state = self.lock();
        }
        let mut answers = entries.iter();
        for &(conn, fd) in &who {
            let readable = fd.is_none() || answers.next().is_none_or(|e| nap.is_zero() || e.readable());
            let Some(Some(link)) = state.links.get_mut(conn) else { continue };
            link.reading = false;
            if let Some(loss) = link.doomed.take() {
                state.lose(conn, loss);
            } else if readable {
                state = self.receive_from(state, conn, false);
            }
        }
        state.direct_waits = 0;
        entries.clear();
        who.clear();
        state.poll = PollMemory { entries, who };
        let now = self.clock.now();
        state.flush(now);
        state
    }

    /// Takes in what one connection has. With `wait` the first call waits, without the lock.
    fn receive_from<'a>(&'a self, mut state: Guard<'a>, conn: ConnIndex, wait: bool) -> Guard<'a> {
        let mut buffer = state.buffer.take().unwrap_or_else(|| vec![0; RECEIVE_BUFFER].into_boxed_slice());
        state.note_in_flight();
        let mut wait = wait;
        let mut missed = false;
        let mut now = self.clock.now();
        let loss = loop {
            let inner = &mut *state;
            let Some(Some(link)) = inner.links.get_mut(conn) else { break None };
            let mut parts = [Part::new(std::ptr::null_mut(), 0); DIRECT_PARTS + 1];
            let (count, direct) = direct_parts(&mut inner.side, conn, &link.receive, &mut parts);
            let room = link.receive.room(buffer.len());
            parts[count] = Part::new(buffer.as_mut_ptr(), room);
            let asked = direct as usize + room;
            inner.counters.receive_calls += 1;
            let (ended, r2ts) = (inner.side.ended, inner.side.asked);
            let received = if std::mem::take(&mut wait) {
                let plan = link.plan(&mut inner.side.proto, conn, now);
                let transport = Arc::clone(&link.transport);
                link.reading = true;
                drop(state);
                missed = !plan.keep(&transport);
                // SAFETY: the last part is this call's own buffer. The others are a task's memory: the protocol session holds the
                // task while a Data-In of it is at hand, and a connection that is being read is not given up by others,
                // so its `TaskDone` cannot come before this thread is back.
                let received = unsafe { transport.recv(&mut parts[..=count], plan == Wait::Any) };
                state = self.lock();
                received
            } else {
                // SAFETY: as above, and under the lock.
                unsafe { link.transport.recv(&mut parts[..=count], false) }
            };
            let inner = &mut *state;
            let Some(Some(link)) = inner.links.get_mut(conn) else { break None };
            link.reading = false;
            if std::mem::take(&mut missed) {
                link.patience.miss();
            }
            if let Some(doomed) = link.doomed.take() {
                break Some(doomed);
            }
            let n = match received {
                Ok(0) => break Some(Loss::ClosedByPeer),
                Ok(n) => n,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => break None,
                Err(error) => break Some(Loss::Io(error)),
            };
            now = self.clock.now();
            let rest = &buffer[..n.saturating_sub(direct as usize)];
            let taken =
                take_in(&mut inner.side, conn, &mut link.receive, &parts[..count], n, rest, &mut inner.counters, now);
            if let Err(fatal) = taken {
                break Some(Loss::Fatal(fatal));
            }
            link.patience.received(n, inner.side.ended - ended, inner.side.asked - r2ts);
            state.flush(now);
            if n < asked {
                break None;
            }
        };
        state.buffer = Some(buffer);
        if let Some(loss) = loss {
            state.lose(conn, loss);
        }
        state
    }
}

impl State {
    /// The connection that a caller may wait for in `recv` itself, which costs less than a `poll` of all before it: the only one there
    /// is or, for a while, the only one with requests. The timeout of a socket is a whole slice, so shorter waits are polls; none at all
    /// needs no timeout.
    fn only_one_to_read(&mut self, limit: Duration) -> Option<ConnIndex> {
        if self.held_until.is_some() || (limit != SLICE && !limit.is_zero()) {
            return None;
        }
        let Self { links, side, direct_waits, .. } = self;
        let several = links.iter().flatten().count() > 1;
        if several && (limit.is_zero() || *direct_waits >= DIRECT_WAITS) {
            return None;
        }
        let open = links.iter_mut().enumerate().filter_map(|(conn, link)| link.as_mut().map(|link| (conn, link)));
        let mut busy = open.filter(|(conn, _)| !several || side.proto.tasks_on(*conn) > 0);
        let (conn, link) = busy.next()?;
        if busy.next().is_some() || link.blocked || link.transport.fd().is_none() {
            return None;
        }
        link.set_slice(if several { DIRECT_SLICE } else { SLICE });
        Some(conn)
    }
}
