//! Statuses that wait to be acknowledged, in a session with several connections (RFC 7143 4.2.2.2, 11.18).
//!
//! A target remembers a command until ExpStatSN acknowledges its status, and only what is sent on that same connection does. On
//! a connection that has its turn the next commands do; where the turn went away nothing follows, and so much would stay there
//! as was in flight. A target with room for two windows of commands in a session (Linux's has 2 * window + 8, and takes nothing
//! from any connection while it has none left) would be full with the third connection, for good. So what is in flight and
//! what is not acknowledged are kept at hardly more than one window together: the other connections are pinged. It has to be a
//! ping: Linux takes no acknowledgement from a NOP-Out that wants no answer.

use blockwire_wire::Opcode;
use blockwire_wire::bhs::FINAL;

use super::connection::Connection;
use super::session::InitiatorSession;
use super::task::{Kind, Purpose};
use crate::params::ConnIndex;
use crate::send_queue::Payload;

/// Nothing is done for the sake of a target with less room than this.
const LEAST: u32 = 16;
/// The share of a window that may be in flight or unacknowledged beyond a whole one.
const SPARE: u32 = 16;

/// How many commands the target lets be on their way, and when to look next.
#[derive(Debug)]
pub(super) struct Room {
    /// The largest window of the session so far.
    window: u32,
    /// Requests that start before there is anything to look at: each takes one more place at the most.
    left: u32,
    /// A turn could not pass on: what was left behind elsewhere is to be acknowledged.
    turn_is_due: bool,
}

impl Room {
    pub fn new(exp_cmd_sn: u32, max_cmd_sn: u32) -> Self {
        let mut room = Self { window: 0, left: 0, turn_is_due: false };
        room.note_window(exp_cmd_sn, max_cmd_sn);
        room
    }

    /// Commands that may be in flight or unacknowledged beyond a whole window.
    fn spare(&self) -> u32 {
        self.window.max(LEAST) / SPARE
    }

    /// Whether the target has room for a whole window on another connection than `turn`, which has its records of what is in flight:
    /// little is left on all others. What was acknowledged there counts until the target is known to have taken it in, because
    /// it may read the connections in any order.
    pub fn lets_turn_pass(&mut self, connections: &[Option<Connection>], turn: ConnIndex) -> bool {
        let mut taken = 0;
        for (conn, c) in connections.iter().enumerate().filter_map(|(i, c)| c.as_ref().map(|c| (i, c))) {
            taken += match conn == turn {
                true => c.unsettled().max(c.tasks + c.unacknowledged()),
                false => c.unsettled() + c.tasks,
            };
        }
        // the answer to a ping has a StatSN too: one is always left
        let passes = taken <= self.window.max(LEAST) + self.spare().max(connections.len() as u32 - 1);
        self.turn_is_due |= !passes;
        passes
    }

    /// MaxCmdSN grew.
    #[inline]
    pub fn note_window(&mut self, exp_cmd_sn: u32, max_cmd_sn: u32) {
        // of a login that told nonsense it is below 0
        let window = max_cmd_sn.wrapping_sub(exp_cmd_sn).wrapping_add(1) as i32;
        self.window = self.window.max(window.max(0) as u32);
    }
}

impl InitiatorSession {
    /// A request starts on `conn`: where nothing is sent to acknowledge, something is, before the target's room is used up.
    #[inline]
    pub(super) fn keep_room(&mut self, conn: ConnIndex) {
        if self.connections.len() > 1 {
            match self.room.left.checked_sub(1) {
                Some(left) if !self.room.turn_is_due => self.room.left = left,
                _ => self.acknowledge_elsewhere(conn),
            }
        }
    }

    #[cold]
    fn acknowledge_elsewhere(&mut self, conn: ConnIndex) {
        let taken: u32 = self.connections.iter().flatten().map(|c| c.tasks + c.unacknowledged()).sum();
        let most = self.room.window.max(LEAST) + self.room.spare();
        self.room.left = most.saturating_sub(taken).max(self.room.spare()) - 1;
        if taken < most && !std::mem::take(&mut self.room.turn_is_due) {
            return;
        }
        for other in 0..self.connections.len() {
            let wants = |c: &Connection| !c.acknowledging && !c.logging_out && c.unsettled() > 1;
            if other != conn && self.connections[other].as_ref().is_some_and(wants) {
                self.acknowledge(other);
            }
        }
    }

    /// A ping that acknowledges all that came.
    fn acknowledge(&mut self, conn: ConnIndex) {
        let mut bhs = self.immediate_header(conn, Opcode::NopOut, FINAL);
        if let Some(slot) = self.own_request(conn, &mut bhs, Kind::Nop, Purpose::Acknowledge) {
            let connection = self.connection(conn);
            (connection.acknowledged, connection.acknowledging) = (connection.exp_stat_sn, true);
            connection.queue.push(bhs, Payload::None, Some(slot), 0);
        }
    }
}
