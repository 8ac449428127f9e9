//! Connections of a session: what there is, adding one, keep-alive. Losing one is in `reassign`.

use std::collections::VecDeque;

use blockwire_wire::{Deframer, serial};

use super::data_out::Burst;
use super::recovery::{ConnectionRecovery, Probe};
use super::session::{InitiatorSession, QUEUE_ROOM};
use crate::endpoint::{Fatal, FatalCode};
use crate::params::{ConnIndex, ConnectionParams};
use crate::send_queue::SendQueue;
use crate::slab::Slot;

/// One connection of the session.
#[derive(Debug)]
pub(super) struct Connection {
    pub params: ConnectionParams,
    pub deframer: Deframer,
    pub queue: SendQueue,
    pub bursts: VecDeque<Burst>,
    /// Bursts put by (`fast_abort`), oldest first.
    pub held: Vec<Burst>,
    pub exp_stat_sn: u32,
    /// ExpStatSN of the last request.
    pub acknowledged: u32,
    /// ExpStatSN of the last request that was answered: the target knows it.
    pub settled: u32,
    /// A ping that acknowledges is on its way.
    pub acknowledging: bool,
    /// Tasks allegiant to it.
    pub tasks: u32,
    /// The task of the Data-In at hand.
    pub current: Option<Slot>,
    /// The text exchange that the target wants to continue.
    pub text: Option<Slot>,
    pub logging_out: bool,
    pub last_received: u64,
    pub ping_sent: Option<u64>,
    /// The last PDU that was no NOP-In.
    pub last_data: u64,
    pub probe: Option<Probe>,
    /// A probe was ever sent.
    pub probed: bool,
    /// Counts changes of MaxRecvDataSegmentLength.
    pub epoch: u32,
    /// A SNACK was sent: what it asked for may come twice, and after its task's end.
    pub snacked: bool,
    /// A successful Logout Response ended it; true when its tasks may go on elsewhere.
    pub logged_out: Option<bool>,
    /// What is missing; made with the first loss.
    pub late: Option<Box<ConnectionRecovery>>,
}

impl Connection {
    /// Statuses that came since the last request went out, which acknowledged those before.
    pub fn unacknowledged(&self) -> u32 {
        self.statuses_since(self.acknowledged)
    }

    /// Statuses that the target may not know yet to be acknowledged.
    pub fn unsettled(&self) -> u32 {
        self.statuses_since(self.settled)
    }

    /// A request with this ExpStatSN was answered.
    #[inline]
    pub fn settle(&mut self, exp_stat_sn: u32) {
        if serial::less_than(self.settled, exp_stat_sn) {
            self.settled = exp_stat_sn;
        }
    }

    fn statuses_since(&self, exp_stat_sn: u32) -> u32 {
        // below 0 after a status was put back (`hold_status`)
        (self.exp_stat_sn.wrapping_sub(exp_stat_sn) as i32).max(0) as u32
    }
}

impl InitiatorSession {
    /// Indexes of the connections there are.
    pub fn connections(&self) -> impl Iterator<Item = ConnIndex> + '_ {
        self.connections.iter().enumerate().filter_map(|(i, c)| c.as_ref().map(|_| i))
    }

    /// The connection with this CID.
    #[must_use]
    pub fn find_connection(&self, cid: u16) -> Option<ConnIndex> {
        self.connections.iter().position(|c| c.as_ref().is_some_and(|c| c.params.cid == cid))
    }

    #[must_use]
    pub fn connection_params(&self, conn: ConnIndex) -> Option<&ConnectionParams> {
        self.connections.get(conn)?.as_ref().map(|c| &c.params)
    }

    /// Live changes: segment lengths and keep-alive; digests of a connection never change.
    pub fn connection_params_mut(&mut self, conn: ConnIndex) -> Option<&mut ConnectionParams> {
        self.connections.get_mut(conn)?.as_mut().map(|c| &mut c.params)
    }

    /// The segment length that was declared to the target changed in the middle of the connection (RFC 7143 13.12): data of
    /// commands on their way is asked for again by R-Data SNACK only (11.16.3).
    pub fn set_max_recv_data_segment_length(&mut self, conn: ConnIndex, bytes: u32) {
        if let Some(Some(connection)) = self.connections.get_mut(conn)
            && connection.params.max_recv_data_segment_length != bytes
        {
            connection.params.max_recv_data_segment_length = bytes;
            connection.epoch += 1;
        }
    }

    /// ExpStatSN of a connection.
    #[must_use]
    pub fn exp_stat_sn(&self, conn: ConnIndex) -> Option<u32> {
        self.connections.get(conn)?.as_ref().map(|c| c.exp_stat_sn)
    }

    /// Tasks allegiant to a connection.
    #[must_use]
    pub fn tasks_on(&self, conn: ConnIndex) -> u32 {
        self.connections.get(conn).and_then(Option::as_ref).map_or(0, |c| c.tasks)
    }

    #[inline]
    pub(super) fn connection(&mut self, conn: ConnIndex) -> &mut Connection {
        self.connections[conn].as_mut().expect("connection in use")
    }

    /// Adds a connection in the full feature phase. Waiting commands start.
    pub fn add_connection(&mut self, params: ConnectionParams, exp_stat_sn: u32, now: u64) -> ConnIndex {
        let connection = Connection {
            deframer: Deframer::new(params.header_digest, params.data_digest).bounded(0),
            queue: SendQueue::new(params.header_digest, params.data_digest, QUEUE_ROOM),
            bursts: VecDeque::new(),
            held: Vec::new(),
            exp_stat_sn,
            acknowledged: exp_stat_sn,
            settled: exp_stat_sn,
            acknowledging: false,
            tasks: 0,
            current: None,
            text: None,
            logging_out: false,
            last_received: now,
            ping_sent: None,
            last_data: now,
            probe: None,
            probed: false,
            epoch: 0,
            snacked: false,
            logged_out: None,
            late: None,
            params,
        };
        let index = match self.connections.iter().position(Option::is_none) {
            Some(index) => {
                self.connections[index] = Some(connection);
                index
            }
            None => {
                self.connections.push(Some(connection));
                self.connections.len() - 1
            }
        };
        self.dead = false;
        self.now = now;
        if !self.holes.is_empty() {
            self.probe(index); // its answer says which gap the target waits for
        }
        self.release_waiting();
        index
    }

    /// When `on_timer` has to be called for this connection next.
    #[must_use]
    pub fn deadline(&self, conn: ConnIndex) -> Option<u64> {
        let keep_alive = self.keep_alive_deadline(conn);
        if !self.recovers() && self.holes.is_empty() {
            return keep_alive;
        }
        [keep_alive, self.ask_deadline(conn), self.probe_deadline(conn)].into_iter().flatten().min()
    }

    fn keep_alive_deadline(&self, conn: ConnIndex) -> Option<u64> {
        let connection = self.connections.get(conn)?.as_ref()?;
        match connection.ping_sent {
            Some(sent) if connection.params.keep_alive_timeout > 0 => {
                Some(sent.saturating_add(connection.params.keep_alive_timeout))
            }
            Some(_) => None,
            None if connection.params.keep_alive_interval > 0 => {
                Some(connection.last_received.saturating_add(connection.params.keep_alive_interval))
            }
            None => None,
        }
    }

    /// Does what is due: a keep-alive ping, asking again for what is missing, asking a silent connection.
    ///
    /// # Errors
    /// The peer did not answer in time, or did not send again what was asked for: the connection has to be dropped.
    pub fn on_timer(&mut self, conn: ConnIndex, now: u64) -> Result<(), Fatal> {
        self.now = now;
        if self.ask_deadline(conn).is_some_and(|at| at <= now) {
            self.ask_again(conn)?;
        }
        if self.probe_deadline(conn).is_some_and(|at| at <= now) {
            self.on_silence(conn)?;
        }
        if self.keep_alive_deadline(conn).is_none_or(|at| at > now) {
            return Ok(());
        }
        let connection = self.connection(conn);
        if connection.ping_sent.is_some() {
            return Err(Fatal {
                code: FatalCode::KeepAliveTimeout,
                what: "no answer to a NOP-Out ping (RFC 7143 11.18)",
            });
        }
        connection.ping_sent = Some(now);
        self.ping(conn);
        Ok(())
    }
}
