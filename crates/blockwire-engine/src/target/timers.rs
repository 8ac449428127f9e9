//! What is done by time: keep-alives, data that does not come, bounds of aborts.

use blockwire_proto::{ConnIndex, Endpoint, Slot};

use super::TargetSide;
use super::context::PATIENCE;
use super::service::Ended;
use super::session::Session;
use crate::clock::Nanos;
use crate::core::Core;

impl TargetSide {
    /// When something is to be done by time at the earliest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.shared.deadline
    }

    /// Keep-alives and bounds of aborts.
    pub fn tick(&mut self, core: &mut Core) {
        let now = core.now;
        let mut next: Option<Nanos> = None;
        let mut held: Vec<(Nanos, u32, ConnIndex)> = Vec::new();
        let live: Vec<(u32, ConnIndex)> = self.shared.connections.iter().flatten().copied().collect();
        for (index, conn) in live {
            let Some(session) = self.shared.sessions[index as usize].as_deref_mut() else { continue };
            if let Err(fatal) = session.proto.tick(conn, now) {
                self.lose_connection(core, index, conn, &Ended::Fatal(fatal));
                continue;
            }
            if session.bucket.is_some() && !session.proto.send_queue(conn).is_empty() {
                held.push((session.ports[conn].sent_at, index, conn));
            }
            if !session.retains && session.proto.send_queue(conn).is_empty() {
                let at = session.proto.deadline(conn);
                next = next.into_iter().chain(at).min();
                continue;
            }
            let deadline = self.with_session(core, index, |cx| {
                // data that did not come is asked for again
                cx.drain_events();
                if cx.session.bucket.is_none() && !cx.session.proto.send_queue(conn).is_empty() {
                    cx.wake(conn);
                }
                cx.session.proto.deadline(conn)
            });
            if let Some(Some(at)) = deadline {
                next = Some(next.map_or(at, |n| n.min(at)));
            }
        }
        held.sort_unstable();
        for (_, index, conn) in held {
            self.with_session(core, index, |cx| cx.wake(conn));
        }
        if let Some(at) = self.end_overdue_data(core) {
            next = Some(next.map_or(at, |n| n.min(at)));
        }
        let mut at = 0;
        while at < self.shared.aborts.len() {
            let pending = &mut self.shared.aborts[at];
            if pending.initiator_deadline <= now && (pending.data > 0 || pending.barrier.is_some()) {
                let (id, barrier) = (pending.id, pending.barrier.take());
                pending.data = 0;
                if let Some((session, before)) = barrier
                    && let Some(&index) = self.index.get(&session)
                {
                    // what did not come must not come after the response
                    self.with_session(core, index, |cx| cx.plug(before));
                }
                self.end_waiting_tasks(core, id);
            }
            let pending = &mut self.shared.aborts[at];
            if pending.is_over() || pending.deadline <= now {
                // a store operation that neither ends nor can be cancelled: never called complete
                pending.report.complete = pending.operations == 0;
                self.shared.aborts.remove(at).end();
            } else {
                let due = pending.due();
                next = Some(next.map_or(due, |n| n.min(due)));
                at += 1;
            }
        }
        self.shared.deadline = next;
    }

    /// While tasks wait for memory, sessions that hold some for Data-Out that does not come lose their connections. Gives when
    /// to look again.
    fn end_overdue_data(&mut self, core: &mut Core) -> Option<Nanos> {
        if self.shared.hungry.is_empty() {
            return None;
        }
        let holds = |s: &&Session| s.reserved > 0;
        let overdue: Vec<u32> = (self.shared.sessions.iter().flatten().map(|s| &**s).filter(holds))
            .filter(|s| s.data_at + PATIENCE <= core.now)
            .map(|s| s.index)
            .collect();
        for index in overdue {
            let conns = self.shared.sessions[index as usize].as_deref().map_or(0, |s| s.links.len());
            for conn in 0..conns {
                let there = |s: &Session| s.links[conn].is_some();
                if self.shared.sessions[index as usize].as_deref().is_some_and(there) {
                    self.lose_connection(core, index, conn, &Ended::DataOverdue);
                }
            }
        }
        let rest = self.shared.sessions.iter().flatten().map(|s| &**s).filter(holds);
        rest.map(|s| s.data_at + PATIENCE).min()
    }

    fn end_waiting_tasks(&mut self, core: &mut Core, id: u64) {
        let indexes: Vec<u32> = self.index.values().copied().collect();
        for index in indexes {
            self.with_session(core, index, |cx| {
                for at in 0..cx.session.work.len() {
                    if cx.session.work[at].abort == Some(id) && cx.session.work[at].generation != 0 {
                        cx.session.work[at].abort = None;
                        cx.session.proto.abort_task(Slot(at as u32));
                        cx.drain_events();
                    }
                }
            });
        }
    }
}
