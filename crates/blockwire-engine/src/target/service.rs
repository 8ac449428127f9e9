//! A worker's turn: what is ready is received, worked on and sent, within bounds and in turn.

use std::io;

use blockwire_proto::{ConnIndex, Endpoint, Fatal, FatalCode, Slot};
use blockwire_store::Outcome;

use super::TargetSide;
use super::commands::Block;
use super::context::Context;
use super::role::Outlet;
use super::session::Link;
use super::work::Phase;
use crate::calls::ReleaseMode;
use crate::core::Core;
use crate::events::Event;
use crate::receive::{ReceiveContext, Received, receive};
use crate::sys::epoll::{Interest, Ready};
use crate::transmit::Sent;

/// Bytes that one connection may bring in and take out in one turn, when others wait.
const BUDGET_IN: usize = 256 * 1024;
const BUDGET_OUT: usize = 512 * 1024;
/// Turns that a connection which is alone gets before the worker looks around.
const ALONE: usize = 8;

/// Why a connection is over.
pub(super) enum Ended {
    ByPeer,
    Failed(io::Error),
    Fatal(Fatal),
    /// Data-Out that was asked for does not come, and others wait for the memory it holds.
    DataOverdue,
}

impl TargetSide {
    /// A connection's descriptor is ready.
    pub fn ready(&mut self, _core: &mut Core, number: u32, event: Ready) {
        let Some(Some((index, conn))) = self.shared.connections.get(number as usize).copied() else { return };
        let Some(session) = self.shared.sessions[index as usize].as_deref_mut() else { return };
        if let Some(Some(link)) = session.links.get_mut(conn) {
            link.readable |= event.readable || event.hangup;
            if event.writable || event.hangup {
                link.blocked = false;
            }
        }
        let port = &mut session.ports[conn];
        if !port.queued {
            port.queued = true;
            self.shared.ready.push_back(number);
        }
    }

    /// Serves every connection that is ready once; true when there is more to do at once.
    pub fn run(&mut self, core: &mut Core) -> bool {
        let waiting = self.shared.ready.len();
        let alone = waiting == 1;
        for _ in 0..waiting {
            let Some(number) = self.shared.ready.pop_front() else { break };
            let turns = if alone { ALONE } else { 1 };
            for turn in 1..=turns {
                let more = self.serve(core, number);
                // after its last turn it stays in the list: what is taken out has to be served
                if !more || turn == turns || core.mailbox.pending() {
                    break;
                }
                // alone: it goes on without another look at the others
                if self.shared.ready.front() != Some(&number) || self.shared.ready.len() > 1 || !alone {
                    break;
                }
                self.shared.ready.pop_front();
            }
        }
        if self.shared.freed && !self.shared.hungry.is_empty() {
            self.feed_hungry(core);
        }
        if self.shared.retention.is_full() {
            self.drop_frozen_data(core);
        }
        if self.shared.freed && !self.shared.held_reads.is_empty() {
            self.resume_held_reads(core);
        }
        self.shared.freed = false;
        if !self.shared.quiescing.is_empty() {
            self.shared.settle_quiescing();
        }
        if !self.shared.aborts.is_empty() {
            self.settle_aborts();
        }
        core.counters.add(&self.shared.counters);
        self.shared.counters = crate::counters::Counters::default();
        !self.shared.ready.is_empty()
    }

    /// One turn of one connection; true when it wants another at once (it is in the list again).
    fn serve(&mut self, core: &mut Core, number: u32) -> bool {
        let Some(Some((index, conn))) = self.shared.connections.get(number as usize).copied() else { return false };
        let Some(sink) = self.sink.as_ref() else { return false };
        let Some(mut session) = self.shared.sessions[index as usize].take() else { return false };
        // what wakes it while it is served needs no further turn
        session.ports[conn].queued = true;
        let Some(mut link) = session.links[conn].take() else {
            session.ports[conn].queued = false;
            self.shared.sessions[index as usize] = Some(session);
            return false;
        };
        let Link { transport, receive: state, readable, blocked, interest } = &mut *link;
        let mut ended = None;
        let mut more = false;
        let mut cx = Context {
            trace: &mut core.trace,
            scratch: &mut core.scratch,
            send_scratch: &mut self.send_scratch,
            outlet: Some(Outlet { transport, conn, blocked: *blocked, alone: self.shared.ready.is_empty() }),
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
        if *readable && !cx.session.ports[conn].closing {
            let mut receiving = ReceiveContext {
                transport,
                buffer: &mut core.receive_buffer,
                counters: &mut core.counters,
                now: core.now,
                budget: BUDGET_IN,
                wait: false,
            };
            match receive(&mut cx, conn, state, &mut receiving) {
                Received::Drained => *readable = false,
                Received::Budget => more = true,
                Received::Closed => ended = Some(Ended::ByPeer),
                Received::Failed(error) => ended = Some(Ended::Failed(error)),
                Received::Fatal(fatal) => ended = Some(Ended::Fatal(fatal)),
            }
            cx.drain_events();
            cx.note_in_flight(conn);
        }
        *blocked = cx.outlet.as_ref().is_some_and(|o| o.blocked);
        if ended.is_none() || matches!(ended, Some(Ended::Fatal(_))) {
            let mut sent_bytes = 0;
            while !*blocked {
                cx.pull(conn);
                let before = cx.session.proto.send_queue(conn).unsent_bytes();
                if before == 0 {
                    break;
                }
                let Some(sent) = cx.send(conn, transport, BUDGET_OUT) else { break };
                match sent {
                    Sent::Full => *blocked = true,
                    Sent::Failed(error) => {
                        ended.get_or_insert(Ended::Failed(error));
                        break;
                    }
                    Sent::All | Sent::Budget => {}
                }
                sent_bytes += before.saturating_sub(cx.session.proto.send_queue(conn).unsent_bytes());
                if sent_bytes >= BUDGET_OUT {
                    more = true;
                    break;
                }
            }
            cx.pull(conn);
        }
        for closing in std::mem::take(&mut cx.close) {
            cx.session.ports[closing].closing = true;
            if closing != conn {
                cx.wake(closing);
            }
        }
        if cx.session.links.len() > 1 {
            cx.wake_unsent();
        }
        let over = cx.session.ports[conn].closing;
        cx.session.ports[conn].queued = false;
        if more && ended.is_none() {
            cx.wake(conn);
        }
        let wanted = if *blocked { Interest::READ_WRITE } else { Interest::READ };
        if wanted != *interest
            && let (Some(epoll), Some(fd)) = (&core.epoll, transport.fd())
            && epoll.modify(fd, crate::core::key::TARGET | u64::from(number), wanted).is_ok()
        {
            *interest = wanted;
        }
        session.publish_numbers();
        if session.retains
            && let Some(at) = session.proto.deadline(conn)
        {
            self.shared.due(at);
        }
        session.links[conn] = Some(link);
        self.shared.sessions[index as usize] = Some(session);
        if over {
            self.close_connection(core, index, conn);
            return false;
        }
        if let Some(ended) = ended {
            self.lose_connection(core, index, conn, &ended);
            return false;
        }
        more
    }

    /// A connection ended as it was asked to.
    fn close_connection(&mut self, core: &mut Core, index: u32, conn: ConnIndex) {
        let Some(session) = self.shared.sessions[index as usize].as_deref() else { return };
        let (id, cid) = (session.id, session.ports[conn].cid);
        // a logout "for recovery" may come on the very connection (11.14); above it is known whether its tasks end
        let keeps = session.proto.params().error_recovery_level >= 2;
        let mode = if keeps { ReleaseMode::Freeze } else { ReleaseMode::Terminate };
        self.take_connection(core, index, conn, mode);
        core.events.push(Event::ConnectionClosed { session: id, cid });
    }

    /// A connection ended without being asked to: its tasks end with it, or wait for reassignment at level 2.
    pub(super) fn lose_connection(&mut self, core: &mut Core, index: u32, conn: ConnIndex, why: &Ended) {
        let Some(session) = self.shared.sessions[index as usize].as_deref_mut() else { return };
        let (id, cid) = (session.id, session.ports[conn].cid);
        let (code, evidence, errno) = match why {
            Ended::ByPeer => ("closed-by-peer", String::new(), 0),
            Ended::Failed(error) => {
                let reset = matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
                let code = if reset { "reset" } else { "io-error" };
                (code, error.to_string(), error.raw_os_error().unwrap_or(0))
            }
            Ended::Fatal(fatal) => {
                let header = session.proto.deframer(conn).bhs().0;
                let code = match fatal.code {
                    FatalCode::HeaderDigest => {
                        core.events.push(Event::DigestFailure { session: id, cid, header_digest: true, header });
                        "header-digest"
                    }
                    FatalCode::KeepAliveTimeout => "keep-alive-timeout",
                    FatalCode::DataDigest => "data-digest", // the event is out already
                    FatalCode::ProtocolViolation | FatalCode::SequenceGap => {
                        let what = fatal.what.to_owned();
                        self.shared.counters.protocol_violations += 1;
                        core.events.push(Event::ProtocolViolation { session: id, cid, what, header });
                        "protocol-violation"
                    }
                };
                (code, fatal.what.to_owned(), 0)
            }
            Ended::DataOverdue => {
                let evidence = "Data-Out that was asked for did not come while others waited for memory".to_owned();
                ("data-out-timeout", evidence, 0)
            }
        };
        let frozen = session.proto.params().error_recovery_level >= 2 && !matches!(why, Ended::DataOverdue);
        let mode = if frozen { ReleaseMode::Freeze } else { ReleaseMode::Terminate };
        let frozen_tasks = self.take_connection(core, index, conn, mode).map_or(0, |r| r.frozen_tasks);
        self.settle_aborts();
        core.events.push(Event::ConnectionLost { session: id, cid, code, evidence, errno, frozen_tasks });
    }

    /// Store operations ended.
    pub fn completions(&mut self, core: &mut Core, batch: &mut Vec<(u64, Outcome)>) {
        for (token, outcome) in batch.drain(..) {
            let at = Slot(token as u32);
            let generation = (token >> 32) as u32 & 0x00ff_ffff;
            let matches = self.shared.operations.get(at).is_some_and(|o| o.generation & 0x00ff_ffff == generation);
            if !matches {
                continue;
            }
            let Some(operation) = self.shared.operations.remove(at) else { continue };
            if self.shared.operations.is_empty() {
                self.broken_arenas.clear(); // nothing reaches into them any more
            }
            if let Some((id, locks)) = &operation.lock {
                self.shared.unlock(*id, locks);
            }
            for extent in operation.held {
                core.arena.release(extent);
                self.shared.freed = true;
            }
            for id in &operation.aborts {
                if let Some(pending) = self.shared.aborts.iter_mut().find(|a| a.id == *id) {
                    pending.operations -= 1;
                }
            }
            let (slot, generation) = (operation.slot, operation.generation);
            self.with_session(core, operation.session, |cx| cx.operation_done(slot, generation, outcome));
        }
        self.settle_aborts();
    }

    /// Ends the aborts that wait for nothing any more.
    pub(super) fn settle_aborts(&mut self) {
        let mut at = 0;
        while at < self.shared.aborts.len() {
            let pending = &mut self.shared.aborts[at];
            if let Some((session, before)) = pending.barrier {
                let passed = self.index.get(&session).is_none_or(|index| {
                    self.shared.sessions[*index as usize]
                        .as_deref()
                        .is_none_or(|s| blockwire_wire::serial::less_or_equal(before, s.proto.numbers().exp_cmd_sn))
                });
                if passed {
                    pending.barrier = None;
                }
            }
            if pending.data > 0 {
                // tasks may have ended with their connection
                let id = pending.id;
                let left = self
                    .shared
                    .sessions
                    .iter()
                    .flatten()
                    .flat_map(|s| s.work.iter())
                    .filter(|w| w.abort == Some(id) && w.generation != 0)
                    .count();
                pending.data = left as u32;
            }
            if pending.is_over() {
                self.shared.aborts.remove(at).end();
            } else {
                at += 1;
            }
        }
    }

    /// Tasks that waited for memory; first those of sessions that hold none for Data-Out, so that what a silent writer lost is
    /// not taken by the next.
    fn feed_hungry(&mut self, core: &mut Core) {
        let mut waiting = std::mem::take(&mut self.shared.hungry);
        waiting.retain(|&task| {
            let holds = self.shared.sessions[task.0 as usize].as_deref().is_some_and(|s| s.reserved > 0);
            if !holds {
                self.feed(core, task);
            }
            holds
        });
        for task in waiting {
            self.feed(core, task);
        }
    }

    fn feed(&mut self, core: &mut Core, (index, slot, generation): (u32, Slot, u32)) {
        self.with_session(core, index, |cx| {
            if cx.session.work_of(slot).is_none_or(|w| w.generation != generation || !w.hungry) {
                return;
            }
            let work = cx.session.work_mut(slot);
            work.hungry = false;
            match work.phase {
                Phase::Run => cx.step(slot),
                Phase::Collect(length) => cx.collect(slot, length),
                _ => {}
            }
            cx.wake_task(slot);
        });
    }

    /// Asks memory transports for input and room; true when there was some.
    pub fn poll_memory(&mut self, core: &mut Core) -> bool {
        let mut moved = false;
        for number in 0..self.shared.connections.len() {
            let Some((index, conn)) = self.shared.connections[number] else { continue };
            let Some(session) = self.shared.sessions[index as usize].as_deref_mut() else { continue };
            let Some(Some(link)) = session.links.get_mut(conn) else { continue };
            if link.transport.fd().is_some() {
                continue;
            }
            let readable = link.transport.memory_readable();
            let before = session.proto.send_queue(conn).unsent_bytes();
            // what a rate holds back leaves by the timer, in turn
            if !readable && (before == 0 || session.bucket.is_some()) {
                continue;
            }
            link.readable = readable;
            link.blocked = false;
            self.shared.ready.retain(|n| *n != number as u32);
            self.serve(core, number as u32);
            let after = self.shared.sessions[index as usize]
                .as_deref_mut()
                .filter(|s| s.links.get(conn).is_some_and(Option::is_some))
                .map_or(0, |s| s.proto.send_queue(conn).unsent_bytes());
            moved |= readable || after != before;
        }
        moved
    }

    /// Counters of sessions and connections.
    pub fn statistics(&self, out: &mut Vec<(String, Vec<(&'static str, u64)>)>) {
        for session in self.shared.sessions.iter().flatten() {
            let numbers = session.proto.numbers();
            let tasks = session.proto.tasks().count() as u64;
            let connections = session.links.iter().flatten().count() as u64;
            out.push((
                format!("sessions.{}", session.id),
                vec![
                    ("exp_cmd_sn", u64::from(numbers.exp_cmd_sn)),
                    ("max_cmd_sn", u64::from(numbers.max_cmd_sn)),
                    ("tasks", tasks),
                    ("connections", connections),
                    ("reserved_bytes", session.reserved),
                ],
            ));
            for (conn, link) in session.links.iter().enumerate() {
                let Some(link) = link else { continue };
                let mut list = Vec::new();
                if let Some(connection) = session.proto.connection(conn) {
                    list.push(("stat_sn", u64::from(connection.stat_sn())));
                    list.push(("exp_stat_sn", u64::from(connection.exp_stat_sn())));
                }
                if let Some(info) = link.transport.tcp_info() {
                    list.push(("rtt_us", u64::from(info.rtt_us)));
                    list.push(("rtt_variance_us", u64::from(info.rtt_variance_us)));
                    list.push(("congestion_window", u64::from(info.congestion_window)));
                    list.push(("retransmits", u64::from(info.retransmits)));
                    list.push(("unacked", u64::from(info.unacked)));
                    list.push(("segment_size", u64::from(info.segment_size)));
                }
                out.push((format!("connections.{}.{}", session.id, session.ports[conn].cid), list));
            }
        }
    }

    /// Store operations that have not completed; they name this worker's memory.
    #[must_use]
    pub fn operations_out(&self) -> usize {
        self.shared.operations.len()
    }

    /// Drops every connection. Store operations that are out keep their memory until they end.
    pub fn shut_down(&mut self, core: &mut Core) {
        let ids: Vec<_> = self.index.keys().copied().collect();
        for id in ids {
            let _ = self.close_session(core, id); // it was just seen
        }
        for pending in std::mem::take(&mut self.shared.aborts) {
            pending.end();
        }
    }
}

impl Context<'_> {
    /// A store operation of a task ended.
    fn operation_done(&mut self, slot: Slot, generation: u32, outcome: Outcome) {
        // the task may be gone, and another one in its place
        let Some(work) = self.session.work.get_mut(slot.0 as usize).filter(|w| w.generation == generation) else {
            return;
        };
        work.operation = 0;
        if work.told {
            return;
        }
        match work.block {
            Block::Read { .. } => self.read_done(slot, outcome),
            _ => self.step_done(slot, outcome),
        }
    }
}
