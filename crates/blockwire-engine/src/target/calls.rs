//! The calls of the boundary (`api.py`) for sessions of this worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockwire_proto::retain::RetentionBudget;
use blockwire_proto::target::{TargetLimits, TargetSession};
use blockwire_proto::{ConnIndex, Endpoint};
use blockwire_store::{CompletionSink, OpenOptions, Store};
use blockwire_wire::{BHS_LEN, Bhs};

use super::TargetSide;
use super::abort::PendingAbort;
use super::context::Context;
use super::service::Ended;
use super::session::{Link, Lun, Port, Session};
use super::work::Phase;
use crate::bucket::Bucket;
use crate::calls::{
    AbortDone, AbortScope, AbortTarget, Answer, Change, CommandClass, Effects, Gate, Handoff, LunMapping, Numbers,
    ReleaseMode, SessionSpec,
};
use crate::core::{Core, key};
use crate::events::{Failure, Released, SessionId, StoreId, TaskTag, TaskView};
use crate::receive::{ReceiveState, feed};
use crate::stores::StoreHandle;
use crate::sys::epoll::Interest;
use crate::sys::socket;
use crate::transport::Transport;

/// Most bytes of a Reject to a connection that ends with its first PDUs.
const LAST_WORDS: usize = 64 * 1024;

fn unknown_session(id: SessionId) -> Failure {
    Failure::new("plane.unknown", format!("there is no session {id}"))
}

/// A store that holds nothing, in the place of one that is closed.
fn nothing() -> Option<Arc<dyn Store>> {
    let options = OpenOptions { create_size: Some(512), ..OpenOptions::default() };
    blockwire_store::open("null", "", &options, &BTreeMap::new(), &[]).ok()
}

fn unknown_connection(cid: u16) -> Failure {
    Failure::new("plane.unknown", format!("the session has no connection with CID {cid}"))
}

impl TargetSide {
    fn find(&self, session: SessionId) -> Result<u32, Failure> {
        self.index.get(&session).copied().ok_or_else(|| unknown_session(session))
    }

    fn session_mut(&mut self, index: u32) -> Option<&mut Session> {
        self.shared.sessions.get_mut(index as usize)?.as_deref_mut()
    }

    /// `api.create_session`.
    pub fn create_session(&mut self, core: &mut Core, id: SessionId, spec: SessionSpec, numbers: Arc<Numbers>) {
        if self.sink.is_none() {
            self.sink = Some(Arc::clone(&core.mailbox) as Arc<dyn CompletionSink>);
        }
        let limits = TargetLimits { command_window: self.command_window, ..TargetLimits::default() };
        let free = self.shared.sessions.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.shared.sessions.push(None);
            self.shared.sessions.len() - 1
        });
        let retains = spec.params.error_recovery_level > 0;
        let session = Session {
            id,
            index: index as u32,
            proto: TargetSession::new(spec.params, limits, spec.cmd_sn),
            numbers,
            links: Vec::new(),
            ports: Vec::new(),
            luns: Vec::new(),
            work: Vec::new(),
            reserved: 0,
            data_at: core.now,
            retains,
            recovers: retains,
            retention: RetentionBudget::new(core.arena.capacity() as u64 / 8),
            frozen_at: 0,
            bucket: None,
        };
        self.shared.retention.set_limit(core.arena.capacity() as u64 / 2);
        session.publish_numbers();
        self.shared.sessions[index] = Some(Box::new(session));
        self.index.insert(id, index as u32);
    }

    /// `api.close_session`: what is left of it is terminated.
    ///
    /// # Errors
    /// There is no such session.
    pub fn close_session(&mut self, core: &mut Core, id: SessionId) -> Result<(), Failure> {
        let index = self.find(id)?;
        let conns = self.session_mut(index).map_or(0, |s| s.ports.len());
        for conn in 0..conns {
            self.take_connection(core, index, conn, ReleaseMode::Terminate);
        }
        self.with_session(core, index, |cx| {
            // tasks that were frozen have no connection that could end them
            let left: Vec<_> = cx.session.proto.tasks().map(|(slot, _)| slot).collect();
            for slot in left {
                cx.session.proto.abort_task(slot);
                cx.drain_events();
                if cx.session.proto.task(slot).is_some() {
                    cx.released(slot); // answered and never acknowledged
                }
            }
        });
        // operations still out find no session and free their memory when they end
        self.shared.sessions[index as usize] = None;
        self.index.remove(&id);
        self.settle_aborts();
        Ok(())
    }

    /// `api.adopt`.
    ///
    /// # Errors
    /// There is no such session, the handle names nothing, or it cannot be polled; the transport is closed then.
    pub fn adopt(&mut self, core: &mut Core, session: SessionId, handoff: Handoff) -> Result<(), Failure> {
        let transport = Transport::from_handle(handoff.transport).map_err(|e| Failure::io("transport.invalid", &e))?;
        let index = self.find(session)?;
        let number = match self.shared.connections.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.shared.connections.push(None);
                self.shared.connections.len() - 1
            }
        } as u32;
        if let (Some(epoll), Some(fd)) = (&core.epoll, transport.fd()) {
            epoll
                .add(fd, key::TARGET | u64::from(number), Interest::READ)
                .map_err(|e| Failure::io("transport.invalid", &e))?;
        }
        // a connection with the same CID is implicitly logged out (RFC 7143 6.3.4)
        let old = self.session_mut(index).and_then(|s| s.proto.connection_by_cid(handoff.params.cid));
        if let Some(old) = old {
            let level = self.session_mut(index).map_or(0, |s| s.proto.params().error_recovery_level);
            let mode = if level >= 2 { ReleaseMode::Freeze } else { ReleaseMode::Terminate };
            self.take_connection(core, index, old, mode);
        }
        if let Some(gone) = handoff.reassigned_from {
            // the login told what its initiator has of the old connection (11.12.9)
            self.with_session(core, index, |cx| cx.session.proto.acknowledged_frozen(gone, handoff.exp_stat_sn));
        }
        let now = core.now;
        let Some(session) = self.session_mut(index) else { return Err(unknown_session(session)) };
        let (cid, data_digest) = (handoff.params.cid, handoff.params.data_digest);
        let conn = session.proto.add_connection(handoff.params, handoff.stat_sn, now);
        if session.links.len() <= conn {
            session.links.resize_with(conn + 1, || None);
            session.ports.resize_with(conn + 1, Port::default);
        }
        session.ports[conn] = Port { number, cid, data_digest, ..Port::default() };
        session.links[conn] = Some(Box::new(Link {
            transport,
            receive: ReceiveState::default(),
            interest: Interest::READ,
            readable: true,
            blocked: false,
        }));
        let deadline = session.proto.deadline(conn);
        self.shared.connections[number as usize] = Some((index, conn));
        if let Some(at) = deadline {
            self.shared.due(at);
        }
        if !handoff.over_read.is_empty() {
            let mut link = self.session_mut(index).and_then(|s| s.links[conn].take());
            let mut counters = std::mem::take(&mut core.counters);
            let fed = self.with_session(core, index, |cx| {
                let Some(link) = &mut link else { return Ok(()) };
                let fed = feed(cx, conn, &mut link.receive, &handoff.over_read, &mut counters, now);
                if fed.is_err() {
                    // what the peer is told of it, as far as it goes: the connection ends either way
                    let _ = cx.send(conn, &link.transport, LAST_WORDS);
                }
                fed
            });
            core.counters = counters;
            if let Some(session) = self.session_mut(index) {
                session.links[conn] = link;
            }
            if let Some(Err(fatal)) = fed {
                self.lose_connection(core, index, conn, &Ended::Fatal(fatal));
                return Ok(());
            }
        }
        self.with_session(core, index, |cx| cx.wake(conn));
        Ok(())
    }

    /// `api.release`.
    ///
    /// # Errors
    /// There is no such session or connection; or DETACH while tasks or bytes are in flight.
    pub fn release(
        &mut self, core: &mut Core, session: SessionId, cid: u16, mode: ReleaseMode,
    ) -> Result<Released, Failure> {
        let index = self.find(session)?;
        let Some(session) = self.session_mut(index) else { return Err(unknown_session(session)) };
        let Some(conn) = session.proto.connection_by_cid(cid) else {
            return self.release_frozen(core, index, cid, mode);
        };
        if mode == ReleaseMode::Detach {
            let busy = session.proto.tasks().any(|(_, t)| t.conn == conn && !t.frozen)
                || !session.proto.send_queue(conn).is_empty()
                || !session.proto.deframer(conn).at_boundary();
            if busy {
                let message = "the connection has tasks or bytes in flight and cannot be given back";
                return Err(Failure::new("connection.busy", message));
            }
        }
        Ok(self.take_connection(core, index, conn, mode).unwrap_or(Released {
            transport: None,
            over_read: Vec::new(),
            stat_sn: 0,
            exp_stat_sn: 0,
            frozen_tasks: 0,
        }))
    }

    /// A connection that is gone: its frozen tasks end with TERMINATE (RFC 7143 7.5, 11.15.4).
    fn release_frozen(
        &mut self, core: &mut Core, index: u32, cid: u16, mode: ReleaseMode,
    ) -> Result<Released, Failure> {
        let frozen: Vec<_> = self.session_mut(index).map_or_else(Vec::new, |s| {
            s.proto.frozen_tasks().filter(|(_, t)| t.cid == cid).map(|(slot, _)| slot).collect()
        });
        if frozen.is_empty() || mode == ReleaseMode::Detach {
            return Err(unknown_connection(cid));
        }
        let left = frozen.len() as u32;
        let mut released =
            Released { transport: None, over_read: Vec::new(), stat_sn: 0, exp_stat_sn: 0, frozen_tasks: left };
        if mode == ReleaseMode::Terminate {
            self.with_session(core, index, |cx| {
                for slot in frozen {
                    cx.session.proto.abort_task(slot);
                    cx.drain_events();
                    if cx.session.proto.task(slot).is_some_and(|t| t.frozen) {
                        cx.session.proto.forget_answered(slot); // answered, and never acknowledged
                        cx.drain_events();
                    }
                }
            });
            released.frozen_tasks = 0;
            self.settle_aborts();
        }
        Ok(released)
    }

    /// Removes a connection: given back, or closed with its tasks frozen or ended.
    pub(super) fn take_connection(
        &mut self, core: &mut Core, index: u32, conn: ConnIndex, mode: ReleaseMode,
    ) -> Option<Released> {
        let session = self.session_mut(index)?;
        let (stat_sn, exp_stat_sn) = session.proto.connection(conn).map(|c| (c.stat_sn(), c.exp_stat_sn()))?;
        let link = session.links.get_mut(conn)?.take()?;
        let number = session.ports[conn].number;
        self.shared.connections[number as usize] = None;
        self.shared.ready.retain(|n| *n != number);
        if let (Some(epoll), Some(fd)) = (&core.epoll, link.transport.fd()) {
            let _ = epoll.remove(fd); // it is about to be closed or somebody else's
        }
        let frozen_tasks = self
            .with_session(core, index, |cx| {
                let pulls = std::mem::take(&mut cx.session.ports[conn].pulls);
                for slot in pulls {
                    cx.session.work_mut(slot).pulling = false;
                }
                if mode == ReleaseMode::Freeze {
                    cx.session.frozen_at = cx.now;
                    cx.session.proto.freeze_connection(conn)
                } else {
                    // store operations of ended tasks go on; their memory stays with them
                    cx.session.proto.remove_connection(conn);
                    0
                }
            })
            .unwrap_or(0);
        let transport = if mode == ReleaseMode::Detach {
            Some(link.transport.into_handle())
        } else {
            link.transport.shut_down();
            None
        };
        Some(Released { transport, over_read: Vec::new(), stat_sn, exp_stat_sn, frozen_tasks })
    }

    /// `api.configure`.
    ///
    /// # Errors
    /// There is no such session or connection.
    pub fn configure(
        &mut self, core: &mut Core, session: SessionId, cid: Option<u16>, changes: &[Change],
    ) -> Result<(), Failure> {
        let index = self.find(session)?;
        let Some(session) = self.session_mut(index) else { return Err(unknown_session(session)) };
        let conns: Vec<ConnIndex> = match cid {
            Some(cid) => vec![session.proto.connection_by_cid(cid).ok_or_else(|| unknown_connection(cid))?],
            None => (0..session.links.len()).filter(|c| session.links[*c].is_some()).collect(),
        };
        let mut due = Vec::new();
        for change in changes {
            match *change {
                Change::Shuffle(seed) => session.proto.set_shuffle(seed),
                Change::RecoveryTimeout(n) => session.proto.set_data_timeout(n),
                Change::Rate(rate) if cid.is_none() => {
                    session.bucket = Bucket::new(rate, core.now);
                    due.push(core.now); // for what was held back
                }
                _ => {}
            }
        }
        for conn in conns {
            for change in changes {
                match *change {
                    Change::MaxRecvDataSegmentLength(n) => session.proto.set_segment_lengths(conn, Some(n), None),
                    Change::MaxSendDataSegmentLength(n) => session.proto.set_segment_lengths(conn, None, Some(n)),
                    Change::KeepAliveInterval(n) => session.proto.set_keep_alive(conn, Some(n), None),
                    Change::KeepAliveTimeout(n) => session.proto.set_keep_alive(conn, None, Some(n)),
                    Change::Rate(rate) => {
                        let fd = session.links[conn].as_ref().and_then(|l| l.transport.fd());
                        if let (Some(_), Some(fd)) = (cid, fd) {
                            socket::set_pacing_rate(fd, rate).map_err(|e| Failure::io("transport.rate", &e))?;
                        }
                    }
                    // the initiator's number: a target learns it from every request
                    Change::ExpStatSn(_) | Change::RoundRobin(_) => {}
                    Change::RecoveryTimeout(_) | Change::Shuffle(_) => {}
                }
            }
            due.extend(session.proto.deadline(conn));
        }
        for at in due {
            self.shared.due(at);
        }
        Ok(())
    }

    /// `api.map_lun`. Tasks of an earlier mapping of the same number finish on the old one.
    ///
    /// # Errors
    /// There is no such session.
    pub fn map_lun(
        &mut self, _core: &mut Core, session: SessionId, lun: u64, mapping: LunMapping,
    ) -> Result<(), Failure> {
        let index = self.find(session)?;
        let Some(session) = self.session_mut(index) else { return Err(unknown_session(session)) };
        if let Some(old) = session.find_lun(lun) {
            if session.luns[old].handle().id == mapping.store.id {
                session.luns[old].mapping = mapping;
                return Ok(());
            }
            session.luns[old].mapped = false;
        }
        let unit = Lun::new(lun, mapping);
        match session.luns.iter().position(|l| !l.mapped && l.users == 0) {
            Some(free) => session.luns[free] = unit,
            None => session.luns.push(unit),
        }
        Ok(())
    }

    /// `api.unmap_lun`: later commands go up, and so do those that a gate holds.
    ///
    /// # Errors
    /// There is no such session.
    pub fn unmap_lun(&mut self, core: &mut Core, session: SessionId, lun: u64) -> Result<(), Failure> {
        let index = self.find(session)?;
        self.with_session(core, index, |cx| {
            if let Some(at) = cx.session.find_lun(lun) {
                cx.session.luns[at].mapped = false;
                let held = std::mem::take(&mut cx.session.luns[at].held);
                for slot in held {
                    if cx.session.work_of(slot).is_some_and(|w| w.phase == Phase::Held) {
                        cx.go_up(slot, false);
                    }
                }
            }
        });
        Ok(())
    }

    /// `api.set_gate`: parked commands are looked at again. Nexuses that are gone need no gate.
    pub fn set_gate(&mut self, core: &mut Core, nexuses: &[(SessionId, u64)], gates: &[(CommandClass, Gate)]) {
        for &(session, lun) in nexuses {
            let Ok(index) = self.find(session) else { continue };
            self.with_session(core, index, |cx| {
                let Some(at) = cx.session.find_lun(lun) else { return };
                for &(class, gate) in gates {
                    cx.session.luns[at].mapping.gates[class as usize] = gate;
                }
                cx.reconsider(at);
            });
        }
    }

    /// `api.abort`; `done` is called once, at once or later.
    pub fn abort(&mut self, core: &mut Core, scope: AbortScope, done: AbortDone) {
        self.shared.next_abort += 1;
        let mut pending = PendingAbort::new(self.shared.next_abort, scope, core.now, done);
        let indexes: Vec<u32> = match pending.scope.target {
            AbortTarget::LogicalUnit { .. } => self.index.values().copied().collect(),
            AbortTarget::Task { session, .. }
            | AbortTarget::TaskSet { session, .. }
            | AbortTarget::Nexus { session } => self.index.get(&session).copied().into_iter().collect(),
        };
        for index in indexes {
            self.with_session(core, index, |cx| cx.abort_here(&mut pending));
        }
        if pending.is_over() {
            pending.end();
        } else {
            self.shared.due(pending.due());
            self.shared.aborts.push(pending);
        }
    }

    /// `api.query`.
    pub fn query(&mut self, core: &mut Core, scope: &AbortScope) -> Vec<TaskView> {
        let indexes: Vec<u32> = self.index.values().copied().collect();
        let mut found = Vec::new();
        for index in indexes {
            self.with_session(core, index, |cx| cx.look(scope, &mut found));
        }
        found
    }

    /// `api.reply`.
    pub fn reply(&mut self, core: &mut Core, session: SessionId, tag: TaskTag, answer: Answer, effects: Effects) {
        if let Ok(index) = self.find(session) {
            self.with_session(core, index, |cx| cx.reply(tag, answer, &effects));
            self.settle_aborts();
        }
    }

    /// `api.send_unsolicited`.
    pub fn send_unsolicited(
        &mut self, core: &mut Core, session: SessionId, cid: u16, header: [u8; BHS_LEN], data: Vec<u8>,
        effects: Effects,
    ) {
        let Ok(index) = self.find(session) else { return };
        self.with_session(core, index, |cx| {
            let Some(conn) = cx.session.proto.connection_by_cid(cid) else { return };
            cx.session.proto.send_unsolicited(conn, Bhs(header), data, effects.close);
            cx.wake(conn);
        });
    }

    /// Before bytes of a store are changed by somebody else than a session of this worker.
    pub fn about_to_change(&mut self, core: &mut Core, store: StoreId, offset: u64, length: u64) {
        let Some(&index) = self.index.values().next() else { return };
        self.with_session(core, index, |cx| cx.about_to_change(store, offset, offset.saturating_add(length)));
    }

    /// Before a store is closed: nothing of this worker reaches it afterwards.
    pub fn store_closing(&mut self, core: &mut Core, store: StoreId) {
        let indexes: Vec<u32> = self.index.values().copied().collect();
        for index in indexes {
            self.with_session(core, index, |cx| {
                cx.about_to_change(store, 0, u64::MAX);
                for at in 0..cx.session.luns.len() {
                    if cx.session.luns[at].handle().id == store {
                        cx.session.luns[at].closed = true;
                        cx.session.luns[at].mapped = false;
                        // what is in flight there has its own hold on the store; this one must not keep a file open
                        if let Some(nothing) = nothing() {
                            cx.session.luns[at].mapping.store = StoreHandle::new(store, nothing);
                        }
                        let held = std::mem::take(&mut cx.session.luns[at].held);
                        for slot in held {
                            if cx.session.work_of(slot).is_some_and(|w| w.phase == Phase::Held) {
                                cx.go_up(slot, false);
                            }
                        }
                    }
                }
            });
        }
    }

    /// Runs `work` on a session; what it woke or closed is taken care of.
    pub(super) fn with_session<R>(
        &mut self, core: &mut Core, index: u32, work: impl FnOnce(&mut Context<'_>) -> R,
    ) -> Option<R> {
        let sink = self.sink.as_ref()?;
        let mut session = self.shared.sessions.get_mut(index as usize)?.take()?;
        let mut cx = Context {
            trace: &mut core.trace,
            scratch: &mut core.scratch,
            send_scratch: &mut self.send_scratch,
            outlet: None,
            session: &mut session,
            shared: &mut self.shared,
            arena: &mut core.arena,
            events: &core.events,
            sink,
            mailbox: &core.mailbox,
            worker: core.index,
            now: core.now,
            max_collect: self.max_transfer,
            offered: None,
            close: Vec::new(),
        };
        let result = work(&mut cx);
        cx.drain_events();
        for conn in std::mem::take(&mut cx.close) {
            cx.session.ports[conn].closing = true;
            cx.wake(conn);
        }
        cx.wake_unsent();
        session.publish_numbers();
        self.shared.sessions[index as usize] = Some(session);
        Some(result)
    }
}
