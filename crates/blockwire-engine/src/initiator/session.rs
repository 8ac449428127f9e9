//! The session's state behind its lock, and its connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blockwire_proto::initiator as proto;
use blockwire_proto::{ConnIndex, Endpoint, Fatal, FatalCode, Payload, Slot};

use super::drive::PollMemory;
use super::patience::Patience;
use super::request::Places;
use super::side::{Queue, Side};
use crate::bucket::Bucket;
use crate::calls::{Handoff, ReleaseMode, SessionSpec};
use crate::clock::{Clock, Nanos};
use crate::core::PlaneOptions;
use crate::counters::Counters;
use crate::events::{Event, EventQueue, Failure, Released, SessionId};
use crate::mailbox::Mailbox;
use crate::receive::{ReceiveState, feed};
use crate::sys::socket;
use crate::trace::{TraceEntry, TraceRing};
use crate::transmit::{BATCH_BYTES, Scratch, Sent, TransmitContext, batch_of, transmit};
use crate::transport::Transport;

/// A blocking `recv` comes back after this long, so that Python can run its signal handlers.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Loss {
    ClosedByPeer,
    Io(io::Error),
    Fatal(Fatal),
    /// Asked for: no `ConnectionLost` event; the tasks freeze or end.
    Released {
        freeze: bool,
    },
}

/// One connection as the engine holds it; same index as in the protocol session.
pub(super) struct Link {
    pub transport: Arc<Transport>,
    pub receive: ReceiveState,
    pub patience: Patience,
    /// SO_RCVLOWAT as it stands on the socket.
    pub mark: u32,
    /// SO_RCVTIMEO, likewise.
    pub slice: Duration,
    /// The last send took less than it was given.
    pub blocked: bool,
    /// The reader waits in `recv` on it, without the lock.
    pub reading: bool,
    /// To be lost as soon as the reader is back.
    pub doomed: Option<Loss>,
    /// Its other end is on this machine.
    pub here: bool,
    /// Its number in the worker's background, for epoll.
    pub number: u32,
}

/// What came of an attempt to send on a connection.
enum Progress {
    /// Nothing is queued, or the connection is not there any more.
    Nothing,
    /// Something left; there may be more.
    Some,
    /// The transport takes no more for now.
    Full,
}

pub(super) struct State {
    pub side: Side,
    pub links: Vec<Option<Link>>,
    pub scratch: Scratch,
    pub counters: Counters,
    pub sent: Vec<Slot>,
    /// The rate of the session.
    pub bucket: Option<Bucket>,
    /// When what the rate holds back may be sent.
    pub held_until: Option<Nanos>,
    /// The connection whose turn it is while there is a rate.
    turn: ConnIndex,
    /// The baton is out.
    pub reader: bool,
    pub parked: u32,
    /// Callers drive the session; the worker has its sockets disarmed.
    pub foreground: bool,
    /// Counts calls, so that the worker sees whether anybody was here.
    pub uses: u64,
    /// Requests that were in flight when somebody waited, the most of late.
    in_flight: usize,
    pub poll: PollMemory,
    /// Waits for one connection of several since all were polled.
    pub direct_waits: u32,
    /// The receive buffer; whoever has the baton takes it.
    pub buffer: Option<Box<[u8]>>,
    pub closed: bool,
    /// Connections that ended.
    pub losses: u64,
    /// A load run is on; how many there were.
    pub loading: bool,
    pub load_runs: u64,
}

/// A session of the initiator's role. Any thread may call it.
pub struct InitiatorSession {
    id: SessionId,
    pub(super) state: Mutex<State>,
    pub(super) parked: Condvar,
    pub(super) clock: Clock,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) stepped: bool,
    pub(super) max_transfer: u32,
    /// In the background's list.
    pub(super) attached: AtomicBool,
    pub(super) background_number: AtomicU32,
}

impl std::fmt::Debug for InitiatorSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InitiatorSession").field("id", &self.id).finish_non_exhaustive()
    }
}

impl InitiatorSession {
    /// A session without connections; `mailbox` is that of the worker that keeps its background.
    #[must_use]
    pub fn new(
        id: SessionId, spec: &SessionSpec, options: &PlaneOptions, clock: Clock, mailbox: Arc<Mailbox>,
        events: Arc<EventQueue>,
    ) -> Arc<Self> {
        let side = Side {
            id,
            proto: proto::InitiatorSession::new(spec.params.clone(), spec.cmd_sn, spec.exp_cmd_sn, spec.max_cmd_sn),
            places: Places::default(),
            queues: vec![Queue::default()],
            synchronous: Vec::new(),
            load: Vec::new(),
            events,
            trace: TraceRing::new(options.trace_entries),
            plane_tasks: 0,
            ended: 0,
            asked: 0,
            news: false,
        };
        let state = State {
            side,
            links: Vec::new(),
            scratch: Scratch::default(),
            counters: Counters::default(),
            sent: Vec::with_capacity(64),
            bucket: None,
            held_until: None,
            turn: 0,
            reader: false,
            parked: 0,
            foreground: false,
            uses: 0,
            in_flight: 0,
            poll: PollMemory::default(),
            direct_waits: 0,
            buffer: None,
            closed: false,
            losses: 0,
            loading: false,
            load_runs: 0,
        };
        Arc::new(Self {
            id,
            state: Mutex::new(state),
            parked: Condvar::new(),
            clock,
            mailbox,
            stepped: options.stepped,
            max_transfer: options.max_transfer,
            attached: AtomicBool::new(false),
            background_number: AtomicU32::new(0),
        })
    }

    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `api.numbers`: CmdSN, ExpCmdSN, MaxCmdSN.
    #[must_use]
    pub fn numbers(&self) -> (u32, u32, u32) {
        self.lock().side.proto.numbers()
    }

    /// ExpStatSN of the connection with this CID, which may be gone; 0 for one that never was.
    #[must_use]
    pub fn exp_stat_sn(&self, cid: u16) -> u32 {
        self.lock().side.proto.last_exp_stat_sn(cid).unwrap_or(0)
    }

    /// Takes a connection in; the caller (the background) watches its descriptor under `number`.
    pub(super) fn adopt(
        &self, handoff: Handoff, number: u32, now: Nanos,
    ) -> Result<(ConnIndex, Option<RawFd>), Failure> {
        let transport = Transport::from_handle(handoff.transport).map_err(|e| Failure::io("transport.invalid", &e))?;
        let fd = transport.fd();
        if let Some(fd) = fd {
            // the caller's thread waits in recv itself; whoever must not wait says so per call
            socket::set_nonblocking(fd, false).map_err(|e| Failure::io("transport.invalid", &e))?;
            socket::set_receive_timeout(fd, SLICE).map_err(|e| Failure::io("transport.invalid", &e))?;
        }
        let mut state = self.lock();
        if state.closed {
            return Err(Failure::new("session.closed", "the session was closed"));
        }
        let here = fd.is_some() && handoff.peer.parse::<SocketAddr>().is_ok_and(|peer| peer.ip().is_loopback());
        let cid = handoff.params.cid;
        if state.side.proto.find_connection(cid).is_some() {
            return Err(Failure::new("session.cid-in-use", format!("the session has a connection with CID {cid}")));
        }
        let conn = state.side.proto.add_connection(handoff.params, handoff.exp_stat_sn, now);
        if conn >= state.links.len() {
            state.links.resize_with(conn + 1, || None);
        }
        state.links[conn] = Some(Link {
            transport: Arc::new(transport),
            receive: ReceiveState::default(),
            patience: Patience::default(),
            mark: 1,
            slice: SLICE,
            blocked: false,
            reading: false,
            doomed: None,
            number,
            here,
        });
        let one_machine = state.links.iter().flatten().all(|link| link.here);
        state.side.proto.set_one_machine(one_machine);
        if let Some(old) = handoff.reassigned_from {
            for slot in state.side.proto.frozen(Some(old)) {
                state.side.proto.rebind(slot, conn);
            }
        }
        state.feed(conn, &handoff.over_read, now);
        state.flush(now);
        self.tell(&mut state);
        Ok((conn, fd))
    }

    /// `api.release`, on the worker.
    pub(super) fn release(&self, cid: u16, mode: ReleaseMode) -> Result<(Option<RawFd>, Released), Failure> {
        let mut state = self.lock();
        let unknown = || Failure::new("plane.unknown", format!("the session has no connection with CID {cid}"));
        let Some(conn) = state.side.proto.find_connection(cid) else {
            let frozen = state.side.proto.frozen(Some(cid));
            if frozen.is_empty() || mode == ReleaseMode::Detach {
                return Err(unknown());
            }
            let mut left = frozen.len() as u32;
            if mode == ReleaseMode::Terminate {
                state.side.proto.end_frozen(Some(cid));
                state.side.drain();
                state.flush(self.clock.now());
                self.tell(&mut state);
                left = 0;
            }
            let released =
                Released { transport: None, over_read: Vec::new(), stat_sn: 0, exp_stat_sn: 0, frozen_tasks: left };
            return Ok((None, released));
        };
        let exp_stat_sn = state.side.proto.exp_stat_sn(conn).unwrap_or(0);
        let link = state.links[conn].as_mut().ok_or_else(unknown)?;
        let fd = link.transport.fd();
        let mut released =
            Released { transport: None, over_read: Vec::new(), stat_sn: 0, exp_stat_sn, frozen_tasks: 0 };
        if mode == ReleaseMode::Detach {
            let busy = link.reading
                || state.side.proto.tasks_on(conn) > 0
                || !state.side.proto.deframer(conn).at_boundary()
                || !state.side.proto.send_queue(conn).is_empty();
            let only = |transport: Arc<Transport>| Arc::try_unwrap(transport).ok();
            let transport = if busy { None } else { state.links[conn].take().and_then(|l| only(l.transport)) };
            let Some(transport) = transport else {
                return Err(Failure::new(
                    "session.busy",
                    "the connection has tasks in flight and cannot be given back",
                ));
            };
            if let Some(fd) = fd {
                let _ = socket::set_receive_mark(fd, 1);
                let _ = socket::set_receive_timeout(fd, Duration::ZERO);
                let _ = socket::set_nonblocking(fd, true);
            }
            state.side.proto.lose_connection(conn, false);
            state.side.drain();
            released.transport = Some(transport.into_handle());
            self.tell(&mut state);
            return Ok((fd, released));
        }
        let freeze = mode == ReleaseMode::Freeze;
        released.frozen_tasks = if freeze { state.side.proto.tasks_on(conn) } else { 0 };
        state.fail(conn, Loss::Released { freeze });
        state.flush(self.clock.now());
        self.tell(&mut state);
        Ok((fd, released))
    }

    /// Ends the session: connections are cut, requests end with `session.lost`.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for conn in 0..state.links.len() {
            if state.links[conn].is_some() {
                state.fail(conn, Loss::Released { freeze: false });
            }
        }
        if state.links.iter().all(Option::is_none) {
            state.side.proto.end_all();
            state.side.drain();
        }
        self.tell(&mut state);
        drop(state);
        self.wake_background();
    }

    /// As `close`, when the whole plane ends.
    pub fn shut_down(&self) {
        self.close();
    }

    /// Tells parked callers when something ended.
    pub(super) fn tell(&self, state: &mut State) {
        if std::mem::take(&mut state.side.news) && state.parked > 0 {
            self.parked.notify_all();
        }
    }
}

impl State {
    /// Bytes that were read from the transport before.
    fn feed(&mut self, conn: ConnIndex, bytes: &[u8], now: Nanos) {
        let Some(Some(link)) = self.links.get_mut(conn) else { return };
        if let Err(fatal) = feed(&mut self.side, conn, &mut link.receive, bytes, &mut self.counters, now) {
            self.fail(conn, Loss::Fatal(fatal));
        }
    }

    /// Sends what is queued on all connections, as far as it goes without waiting. True when something is left.
    #[inline]
    pub fn flush(&mut self, now: Nanos) -> bool {
        if self.bucket.is_some() {
            return self.flush_by_rate(now);
        }
        loop {
            let (mut left, losses) = (false, self.losses);
            for conn in 0..self.links.len() {
                left |= self.flush_link(conn, now);
            }
            // the end of one leaves something to be said on the others
            if losses == self.losses {
                return left;
            }
        }
    }

    fn flush_link(&mut self, conn: ConnIndex, now: Nanos) -> bool {
        loop {
            match self.send_some(conn, usize::MAX, now) {
                Progress::Nothing => return false,
                Progress::Full => return true,
                Progress::Some => {} // more may have been made meanwhile
            }
        }
    }

    /// As `flush`, a send call per connection in turn while the bucket is open.
    fn flush_by_rate(&mut self, now: Nanos) -> bool {
        let count = self.links.len();
        let (mut idle, mut left) = (0, false);
        while idle < count {
            let conn = self.turn % count;
            let Some(bucket) = self.bucket.as_mut() else { return self.flush(now) };
            if !bucket.is_open(now) {
                let next = bucket.next();
                let mut held = false;
                for (conn, link) in self.links.iter_mut().enumerate() {
                    let Some(link) = link.as_mut().filter(|link| link.doomed.is_none()) else { continue };
                    link.blocked = false; // the time decides, not the room of the socket
                    held |= !self.side.proto.send_queue(conn).is_empty();
                }
                self.held_until = held.then_some(next);
                return held;
            }
            let before = self.counters.bytes_sent;
            let progress = self.send_some(conn, BATCH_BYTES, now);
            if let Some(bucket) = self.bucket.as_mut() {
                bucket.spend(self.counters.bytes_sent - before);
            }
            self.turn = conn + 1;
            left |= matches!(progress, Progress::Full);
            idle = if matches!(progress, Progress::Some) { 0 } else { idle + 1 };
        }
        self.held_until = None;
        left
    }

    /// Sends up to about `budget` bytes of what is queued on one connection.
    fn send_some(&mut self, conn: ConnIndex, budget: usize, now: Nanos) -> Progress {
        let Some(Some(link)) = self.links.get_mut(conn) else { return Progress::Nothing };
        if link.doomed.is_some() {
            return Progress::Nothing;
        }
        let side = &mut self.side;
        let cid = side.proto.connection_params(conn).map_or(0, |p| p.cid);
        let (id, trace, sent) = (side.id, &mut side.trace, &mut self.sent);
        let queue = side.proto.send_queue(conn);
        if queue.is_empty() {
            link.blocked = false;
            return Progress::Nothing;
        }
        let mut cx = TransmitContext {
            transport: &link.transport,
            scratch: &mut self.scratch,
            counters: &mut self.counters,
            budget,
        };
        let result = transmit(queue, &mut side.places, &mut cx, |pdu| {
            trace.record(TraceEntry { time: now, session: id, cid, sent: true, bhs: pdu.bhs() });
            if let Payload::Task { slot, .. } = pdu.payload {
                sent.push(slot);
            }
        });
        link.blocked = matches!(result, Sent::Full);
        while let Some(slot) = self.sent.pop() {
            self.side.proto.payload_sent(slot);
        }
        self.side.drain();
        match result {
            Sent::All | Sent::Budget => Progress::Some,
            Sent::Full => Progress::Full,
            Sent::Failed(error) => {
                self.fail(conn, Loss::Io(error));
                Progress::Nothing
            }
        }
    }

    /// Limits what is sent over all connections; 0 lifts the limit.
    pub fn set_rate(&mut self, bytes_per_second: u64, now: Nanos) {
        self.bucket = Bucket::new(bytes_per_second, now);
        self.held_until = None;
        self.flush(now);
    }

    /// Ends a connection, now or as soon as the reader is back from it.
    pub fn fail(&mut self, conn: ConnIndex, loss: Loss) {
        let Some(Some(link)) = self.links.get_mut(conn) else { return };
        if link.reading {
            if link.doomed.is_none() {
                link.doomed = Some(loss);
            }
            link.transport.shut_down();
        } else {
            self.lose(conn, loss);
        }
    }

    /// Ends a connection on which nobody reads.
    pub fn lose(&mut self, conn: ConnIndex, loss: Loss) {
        let Some(link) = self.links.get_mut(conn).and_then(Option::take) else { return };
        link.transport.shut_down();
        let session = self.side.id;
        let cid = self.side.cid(conn);
        let header = self.side.proto.deframer(conn).bhs().0;
        let keeps = self.side.proto.params().error_recovery_level >= 2 && !self.closed;
        let freeze = match &loss {
            Loss::Released { freeze } => *freeze,
            _ => keeps,
        };
        let (code, evidence, errno) = match loss {
            Loss::Released { .. } => {
                self.side.events.push(Event::ConnectionClosed { session, cid });
                ("", String::new(), 0)
            }
            Loss::ClosedByPeer => ("closed-by-peer", "the target closed the connection".to_owned(), 0),
            Loss::Io(error) => {
                let reset = matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
                (if reset { "reset" } else { "io-error" }, error.to_string(), error.raw_os_error().unwrap_or(0))
            }
            Loss::Fatal(fatal) => {
                let code = match fatal.code {
                    FatalCode::HeaderDigest => "header-digest",
                    FatalCode::DataDigest => "data-digest",
                    FatalCode::KeepAliveTimeout => "keep-alive-timeout",
                    FatalCode::ProtocolViolation | FatalCode::SequenceGap => "protocol-violation",
                };
                let event = match fatal.code {
                    FatalCode::HeaderDigest => Some(Event::DigestFailure { session, cid, header_digest: true, header }),
                    FatalCode::DataDigest => Some(Event::DigestFailure { session, cid, header_digest: false, header }),
                    FatalCode::ProtocolViolation | FatalCode::SequenceGap => {
                        self.counters.protocol_violations += 1;
                        Some(Event::ProtocolViolation { session, cid, what: fatal.what.to_owned(), header })
                    }
                    FatalCode::KeepAliveTimeout => None,
                };
                if let Some(event) = event {
                    self.side.events.push(event);
                }
                (code, fatal.what.to_owned(), 0)
            }
        };
        self.losses += 1;
        self.side.proto.lose_connection(conn, freeze);
        if !code.is_empty() {
            let frozen_tasks = if freeze { self.side.proto.frozen(Some(cid)).len() as u32 } else { 0 };
            self.side.events.push(Event::ConnectionLost { session, cid, code, evidence, errno, frozen_tasks });
        }
        if self.closed && self.links.iter().all(Option::is_none) {
            self.side.proto.end_all();
        }
        self.side.drain();
        self.side.news = true;
    }

    /// Enough waits to be sent that the target should begin with it.
    pub fn has_batch(&mut self) -> bool {
        let in_flight = self.side.proto.unfinished().max(self.in_flight);
        let (bytes, pdus) = self.unsent();
        bytes >= BATCH_BYTES || pdus >= batch_of(in_flight)
    }

    /// Before input is taken in: what is in flight now is what callers keep in flight, also while they make the next requests.
    /// It does not fade below 7, of which a batch is 1 all the same.
    pub fn note_in_flight(&mut self) {
        let before = self.in_flight - self.in_flight / 8;
        self.in_flight = self.side.proto.unfinished().max(before);
    }

    /// Bytes and PDUs that wait to be sent.
    fn unsent(&mut self) -> (usize, usize) {
        let mut total = (0, 0);
        for conn in 0..self.links.len() {
            if self.links[conn].is_some() {
                let queue = self.side.proto.send_queue(conn);
                total.0 += queue.unsent_bytes();
                total.1 += queue.len();
            }
        }
        total
    }
}
