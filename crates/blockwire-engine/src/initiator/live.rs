//! A live session looked at and changed: tasks, parameters, reassignment, statistics.

use blockwire_proto::ConnIndex;
use blockwire_proto::initiator as proto;

use super::session::InitiatorSession;
use crate::calls::{AbortScope, AbortTarget, Change};
use crate::events::{Failure, SessionId, TaskView, Token};
use crate::plane::Statistics;
use crate::sys::socket;
use crate::trace::TraceEntry;

impl InitiatorSession {
    /// `api.query`: tasks of this session under the scope.
    pub fn look(&self, scope: &AbortScope) -> Vec<TaskView> {
        let state = self.lock();
        let mut found = Vec::new();
        state.side.proto.look(|task| {
            let wanted = match scope.target {
                AbortTarget::Task { initiator_task_tag, .. } => task.initiator_task_tag == initiator_task_tag,
                AbortTarget::TaskSet { lun, .. } => !task.control && task.lun == lun,
                _ => !task.control,
            };
            if wanted {
                found.push(TaskView {
                    session: self.id(),
                    initiator_task_tag: task.initiator_task_tag,
                    cid: task.cid,
                    lun: task.lun,
                    cmd_sn: task.cmd_sn,
                    frozen: task.frozen,
                    control: task.control,
                    responded: false,
                    token: task.context,
                });
            }
        });
        found
    }

    /// `api.reassign`: TASK REASSIGN on the connection `to` of what was allegiant to `from`; how many were asked for.
    ///
    /// # Errors
    /// There is no connection `to`.
    pub fn reassign(&self, from: u16, to: u16) -> Result<u32, Failure> {
        let mut state = self.lock();
        let unknown = || Failure::new("plane.unknown", format!("the session has no connection with CID {to}"));
        let conn = state.side.proto.find_connection(to).ok_or_else(unknown)?;
        let mut asked = 0;
        for slot in state.side.proto.frozen(Some(from)) {
            asked += u32::from(state.side.proto.rebind(slot, conn));
        }
        state.side.drain();
        state.flush(self.clock.now());
        self.tell(&mut state);
        drop(state);
        self.wake_background();
        Ok(asked)
    }

    /// `api.configure`.
    ///
    /// # Errors
    /// There is no such connection, or the operating system refuses.
    pub fn configure(&self, cid: Option<u16>, changes: &[Change]) -> Result<(), Failure> {
        let mut state = self.lock();
        let now = self.clock.now();
        let rate = changes.iter().find_map(|change| if let Change::Rate(rate) = change { Some(*rate) } else { None });
        if let (None, Some(rate)) = (cid, rate) {
            state.set_rate(rate, now);
        }
        let conns: Vec<ConnIndex> = match cid {
            None => state.side.proto.connections().collect(),
            Some(cid) => {
                let unknown = || Failure::new("plane.unknown", format!("the session has no connection with CID {cid}"));
                vec![state.side.proto.find_connection(cid).ok_or_else(unknown)?]
            }
        };
        for conn in conns {
            let fd = state.links[conn].as_ref().and_then(|l| l.transport.fd());
            let proto = &mut state.side.proto;
            for change in changes {
                match *change {
                    Change::MaxRecvDataSegmentLength(bytes) => {
                        proto.set_max_recv_data_segment_length(conn, bytes);
                        continue;
                    }
                    Change::RecoveryTimeout(nanos) => {
                        proto.set_recovery_timeout(nanos);
                        continue;
                    }
                    Change::RoundRobin(on) => {
                        let policy =
                            if on { proto::Distribution::RoundRobin } else { proto::Distribution::LeastQueued };
                        proto.set_distribution(policy);
                        continue;
                    }
                    _ => {}
                }
                let Some(params) = proto.connection_params_mut(conn) else { continue };
                match *change {
                    Change::MaxSendDataSegmentLength(bytes) => params.max_send_data_segment_length = bytes,
                    Change::KeepAliveInterval(nanos) => params.keep_alive_interval = nanos,
                    Change::KeepAliveTimeout(nanos) => params.keep_alive_timeout = nanos,
                    Change::Rate(rate) => {
                        if let (Some(_), Some(fd)) = (cid, fd) {
                            socket::set_pacing_rate(fd, rate).map_err(|e| Failure::io("transport.rate", &e))?;
                        }
                    }
                    _ => {} // done above, or of a target's connection
                }
            }
        }
        drop(state);
        self.wake_background();
        Ok(())
    }

    /// Whether a request's buffers are still in use.
    pub fn is_in_flight(&self, token: Token) -> bool {
        self.lock().side.places.all().any(|place| place.token == token)
    }

    /// Counters for `api.statistics`.
    pub fn statistics(&self, id: SessionId, out: &mut Statistics) {
        let state = self.lock();
        let mut own = state.counters.list();
        own.push(("unfinished", state.side.proto.unfinished() as u64));
        own.push(("initiator", 1));
        own.push(("data_in_sequences_too_long", state.side.proto.long_sequences()));
        let recovered = *state.side.proto.recovery_counters();
        own.extend([
            ("snacks_sent", recovered.snacks),
            ("data_acks_sent", recovered.data_acks),
            ("runs_lost", recovered.runs_lost),
            ("data_recovered", recovered.data_recovered),
            ("statuses_recovered", recovered.statuses_recovered),
            ("digest_errors_recovered", recovered.digest_errors),
            ("duplicates", recovered.duplicates),
            ("probes_sent", recovered.probes),
            ("tasks_reassigned", recovered.reassigned),
            ("commands_retried", recovered.retried),
            ("cmd_sn_plugged", recovered.plugged),
        ]);
        out.push((format!("sessions.{id}"), own));
        for conn in state.side.proto.connections() {
            let Some(link) = state.links.get(conn).and_then(Option::as_ref) else { continue };
            let mut list = vec![("tasks", u64::from(state.side.proto.tasks_on(conn)))];
            if let Some(info) = link.transport.tcp_info() {
                list.extend([
                    ("rtt_us", u64::from(info.rtt_us)),
                    ("rtt_variance_us", u64::from(info.rtt_variance_us)),
                    ("congestion_window", u64::from(info.congestion_window)),
                    ("retransmits", u64::from(info.retransmits)),
                    ("unacked", u64::from(info.unacked)),
                    ("segment_size", u64::from(info.segment_size)),
                ]);
            }
            out.push((format!("connections.{id}.{}", state.side.cid(conn)), list));
        }
    }

    /// Adds the ring of PDU headers.
    pub fn trace(&self, entries: &mut Vec<TraceEntry>) {
        entries.extend(self.lock().side.trace.iter().copied());
    }
}
