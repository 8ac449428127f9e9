//! What a worker does for initiator sessions: reading when no caller does, timers, sends that were cut short.

use std::mem;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use blockwire_proto::ConnIndex;

use super::session::{InitiatorSession, Loss, State};
use crate::calls::{Handoff, ReleaseMode};
use crate::clock::Nanos;
use crate::core::{Core, PlaneOptions, key};
use crate::events::{Event, Failure, Released};
use crate::receive::{ReceiveContext, Received, receive};
use crate::sys::epoll::{Interest, Ready};
use crate::target::WORKER_PANIC;

/// The sockets come back when the session was not used for one of these, at the least.
const IDLE: Nanos = 4_000_000;
/// Bytes of one connection in one turn.
const BUDGET: usize = 256 * 1024;

struct Watched {
    conn: ConnIndex,
    fd: Option<RawFd>,
    number: u32,
    interest: Interest,
}

struct Entry {
    session: Arc<InitiatorSession>,
    watched: Vec<Watched>,
    next: Option<Nanos>,
    /// `State::uses` at the last look.
    uses: u64,
}

/// The initiator sessions of one worker.
pub struct Background {
    entries: Vec<Option<Entry>>,
    /// Epoll number to entry.
    numbers: Vec<Option<u32>>,
    next: Option<Nanos>,
}

impl std::fmt::Debug for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Background").field("sessions", &self.entries.len()).finish_non_exhaustive()
    }
}

fn first_free<T>(places: &mut Vec<Option<T>>) -> usize {
    places.iter().position(Option::is_none).unwrap_or_else(|| {
        places.push(None);
        places.len() - 1
    })
}

impl Background {
    #[must_use]
    pub fn new(_options: &PlaneOptions) -> Self {
        Self { entries: Vec::new(), numbers: Vec::new(), next: None }
    }

    /// Takes a connection into a session; runs on the session's worker.
    ///
    /// # Errors
    /// The transport is unusable or the session closed; the transport is closed then.
    pub fn adopt(&mut self, core: &mut Core, session: &Arc<InitiatorSession>, handoff: Handoff) -> Result<(), Failure> {
        let at = if session.attached.load(Ordering::Acquire) {
            session.background_number.load(Ordering::Acquire) as usize
        } else {
            let at = first_free(&mut self.entries);
            let uses = session.lock().uses;
            self.entries[at] = Some(Entry { session: Arc::clone(session), watched: Vec::new(), next: None, uses });
            session.background_number.store(at as u32, Ordering::Release);
            session.attached.store(true, Ordering::Release);
            at
        };
        let number = first_free(&mut self.numbers);
        let (conn, fd) = match session.adopt(handoff, number as u32, core.now) {
            Ok(adopted) => adopted,
            Err(failure) => {
                self.refresh(core, at as u32); // of a closed session nothing may stay here
                return Err(failure);
            }
        };
        self.numbers[number] = Some(at as u32);
        if let Some(entry) = &mut self.entries[at] {
            entry.watched.push(Watched { conn, fd, number: number as u32, interest: Interest::NONE });
        }
        if let (Some(fd), Some(epoll)) = (fd, &core.epoll)
            && let Err(error) = epoll.add(fd, key::INITIATOR | number as u64, Interest::NONE)
        {
            session.lock().fail(conn, Loss::Io(error));
        }
        self.refresh(core, at as u32);
        Ok(())
    }

    /// `api.release`; runs on the session's worker.
    ///
    /// # Errors
    /// There is no such connection, or it is busy.
    pub fn release(
        &mut self, core: &mut Core, session: &Arc<InitiatorSession>, cid: u16, mode: ReleaseMode,
    ) -> Result<Released, Failure> {
        let (fd, released) = session.release(cid, mode)?;
        if let (Some(fd), Some(epoll), Some(_)) = (fd, &core.epoll, &released.transport) {
            let _ = epoll.remove(fd); // the descriptor lives on elsewhere
        }
        self.refresh(core, session.background_number.load(Ordering::Acquire));
        Ok(released)
    }

    /// Looks at a session: which descriptors to watch for what, and when to look again.
    pub fn refresh(&mut self, core: &mut Core, number: u32) {
        let Some(Some(entry)) = self.entries.get_mut(number as usize) else { return };
        let session = Arc::clone(&entry.session);
        let mut state = session.lock();
        let (foreground, reader) = (state.foreground, state.reader);
        let numbers = &mut self.numbers;
        entry.watched.retain_mut(|watched| {
            let Some(Some(link)) =
                state.links.get_mut(watched.conn).filter(|l| l.as_ref().is_some_and(|l| l.number == watched.number))
            else {
                numbers[watched.number as usize] = None;
                return false;
            };
            let readable = !foreground;
            if readable {
                link.set_mark(1); // the reader of a caller may have left another
            }
            let interest = Interest { readable, writable: link.blocked && (readable || reader) };
            if interest != watched.interest
                && let (Some(fd), Some(epoll)) = (watched.fd, &core.epoll)
                && epoll.modify(fd, key::INITIATOR | u64::from(watched.number), interest).is_ok()
            {
                watched.interest = interest;
            }
            true
        });
        let deadlines = state.side.proto.connections().filter_map(|conn| state.side.proto.deadline(conn)).min();
        let look = state.foreground.then(|| core.now + if state.reader { 5 * IDLE } else { IDLE });
        entry.next = [deadlines, look, state.held_until].into_iter().flatten().min();
        if state.closed && state.links.iter().all(Option::is_none) {
            session.attached.store(false, Ordering::Release);
            drop(state);
            self.entries[number as usize] = None;
        }
        self.next = self.entries.iter().flatten().filter_map(|e| e.next).min();
    }

    /// A descriptor is ready.
    pub fn ready(&mut self, core: &mut Core, number: u32, ready: Ready) {
        let Some(Some(at)) = self.numbers.get(number as usize).copied() else { return };
        let Some(Some(entry)) = self.entries.get(at as usize) else { return };
        let Some(conn) = entry.watched.iter().find(|w| w.number == number).map(|w| w.conn) else { return };
        let session = Arc::clone(&entry.session);
        let mut state = session.lock();
        if !state.foreground && (ready.readable || ready.hangup) {
            take(&mut state, core, conn);
        }
        state.flush(core.now);
        session.tell(&mut state);
        let changed = state.foreground
            || state.links.get(conn).is_none_or(Option::is_none)
            || ready.writable
            || state.held_until.is_some()
            || state.links.iter().flatten().any(|l| l.blocked);
        // a later deadline is found by the tick of the earlier one
        let earlier = state.side.proto.deadline(conn).is_some_and(|at| entry.next.is_none_or(|next| at < next));
        drop(state);
        if changed || earlier {
            self.refresh(core, at);
        }
    }

    /// When `tick` wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.next
    }

    /// Keep-alive, and taking sockets back from callers that went away.
    pub fn tick(&mut self, core: &mut Core) {
        for at in 0..self.entries.len() {
            let Some(entry) = &mut self.entries[at] else { continue };
            if entry.next.is_none_or(|next| next > core.now) {
                continue;
            }
            let session = Arc::clone(&entry.session);
            let mut state = session.lock();
            let conns: Vec<ConnIndex> = state.side.proto.connections().collect();
            for conn in conns {
                if let Err(fatal) = state.side.proto.on_timer(conn, core.now) {
                    state.fail(conn, Loss::Fatal(fatal));
                }
            }
            if state.foreground && !state.reader && state.parked == 0 && state.uses == entry.uses {
                state.foreground = false;
            }
            entry.uses = state.uses;
            state.flush(core.now);
            session.tell(&mut state);
            drop(state);
            self.refresh(core, at as u32);
        }
    }

    /// Nothing waits here: callers send by themselves, and what is readable stays so.
    pub fn run(&mut self, _core: &mut Core) -> bool {
        false
    }

    /// Asks the in-memory ends, for the stepped driver; true when something came or went.
    pub fn poll_memory(&mut self, core: &mut Core) -> bool {
        let mut moved = false;
        for at in 0..self.entries.len() {
            let Some(Some(entry)) = self.entries.get(at) else { continue };
            let conns: Vec<ConnIndex> = entry.watched.iter().filter(|w| w.fd.is_none()).map(|w| w.conn).collect();
            if conns.is_empty() {
                continue;
            }
            let session = Arc::clone(&entry.session);
            let mut state = session.lock();
            let before = (state.counters.bytes_received, state.counters.bytes_sent, state.side.proto.unfinished());
            let mut gone = false;
            for conn in conns {
                take(&mut state, core, conn);
                gone |= state.links.get(conn).is_none_or(Option::is_none);
            }
            state.flush(core.now);
            session.tell(&mut state);
            moved |=
                before != (state.counters.bytes_received, state.counters.bytes_sent, state.side.proto.unfinished());
            drop(state);
            if gone {
                moved = true;
            }
            self.refresh(core, at as u32);
        }
        moved
    }

    /// After a panic: every session of this worker ends, and its requests with `session.lost`.
    pub fn break_down(&mut self, core: &mut Core, what: &str) {
        for entry in mem::take(&mut self.entries).into_iter().flatten() {
            let session = entry.session.id();
            core.events.push(Event::SessionLost { session, code: WORKER_PANIC, evidence: what.to_owned() });
            entry.session.attached.store(false, Ordering::Release);
            entry.session.close();
        }
        self.numbers.clear();
        self.next = None;
    }

    /// Cuts everything.
    pub fn shut_down(&mut self, _core: &mut Core) {
        for entry in self.entries.iter().flatten() {
            entry.session.attached.store(false, Ordering::Release);
            entry.session.close();
        }
        self.entries.clear();
        self.next = None;
    }
}

/// Takes in what a connection has, on the worker's thread and under the lock.
fn take(state: &mut State, core: &mut Core, conn: ConnIndex) {
    state.note_in_flight();
    let Some(Some(link)) = state.links.get_mut(conn) else { return };
    if link.reading {
        return;
    }
    let transport = Arc::clone(&link.transport);
    let mut cx = ReceiveContext {
        transport: &transport,
        buffer: &mut core.receive_buffer,
        counters: &mut state.counters,
        now: core.now,
        budget: BUDGET,
        wait: false,
    };
    let loss = match receive(&mut state.side, conn, &mut link.receive, &mut cx) {
        Received::Drained | Received::Budget => return,
        Received::Closed => Loss::ClosedByPeer,
        Received::Failed(error) => Loss::Io(error),
        Received::Fatal(fatal) => Loss::Fatal(fatal),
    };
    drop(transport);
    state.lose(conn, loss);
}
