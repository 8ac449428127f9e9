//! Which connection of several gets a command (RFC 7143 4.2.2).

use super::InitiatorSession;
use super::connection::Connection;
use crate::ConnIndex;

/// Which connection a command goes to that names none (RFC 7143 4.2.2: any; its data and status stay there).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// The one with the fewest unfinished requests, in runs: the one that got the last command keeps its turn until it is ahead
    /// by an even share of the session's requests. A few are spread one by one; of many, runs go into one system call and
    /// wake the target once, as with a single connection. With an even share none runs dry while another has its turn, so that
    /// connections over several links add up. Between loopback addresses links are not expected to: a run is many times
    /// what is in flight there, so that each batch is as long as with a single connection, and a connection that answers
    /// nothing does not get the last of them; of commands with much data the share is half.
    #[default]
    LeastQueued,
    RoundRobin,
}

/// Two to so many requests are spread over the connections one by one.
const FEW: usize = 5;
/// A run within one machine is so many times what was in flight.
const RUN: usize = 64;
/// And of requests that come one at a time it has so many.
const ALONE: usize = 1024;
/// Commands with more data than this have no such runs: one socket does not hold what two do.
const MUCH: u32 = 128 * 1024;

/// How commands are spread, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Spread {
    distribution: Distribution,
    turn: ConnIndex,
    /// All connections end at loopback addresses.
    one_machine: bool,
    /// Requests that are left of a run within one machine.
    run: usize,
    /// The run is of requests that come one at a time.
    alone: bool,
    /// The most that were in flight since the run began: after a batch that ended many, few are left for a moment.
    most: usize,
    /// ExpStatSN of the connection whose turn it is, and requests it got since it moved; those it had when the run began count.
    exp_stat_sn: u32,
    unanswered: usize,
}

impl InitiatorSession {
    /// Whether both ends are on one machine: then no links are expected to add up, and longer runs cost both ends less.
    pub fn set_one_machine(&mut self, on: bool) {
        self.spread.one_machine = on;
    }

    /// How commands are spread over the connections from now on.
    pub fn set_distribution(&mut self, distribution: Distribution) {
        self.spread.distribution = distribution;
    }

    /// The connection for a command that names none and moves `length` bytes, among those that still take commands.
    pub(super) fn pick_connection(&mut self, length: u32) -> Option<ConnIndex> {
        match self.spread.distribution {
            Distribution::RoundRobin => self.next_in_turn(),
            Distribution::LeastQueued if self.spread.one_machine && length <= MUCH => self.in_long_runs(),
            Distribution::LeastQueued => self.least_queued(),
        }
    }

    fn open_connections(&self) -> impl Iterator<Item = (ConnIndex, &Connection)> {
        let all = self.connections.iter().enumerate().filter_map(|(i, c)| c.as_ref().map(|c| (i, c)));
        all.filter(|(_, c)| !c.logging_out)
    }

    /// The connection whose turn it is, if it still takes commands.
    fn last_connection(&self) -> Option<&Connection> {
        self.connections.get(self.spread.turn).and_then(Option::as_ref).filter(|c| !c.logging_out)
    }

    fn turn_may_pass(&mut self) -> bool {
        self.room.lets_turn_pass(&self.connections, self.spread.turn)
    }

    fn next_in_turn(&mut self) -> Option<ConnIndex> {
        let turn = self.spread.turn;
        let open = || self.open_connections().map(|(i, _)| i);
        let next = open().find(|i| *i >= turn).or_else(|| open().next())?;
        self.spread.turn = next + 1;
        Some(next)
    }

    fn least_queued(&mut self) -> Option<ConnIndex> {
        let shares = if self.spread.one_machine { 2 } else { self.open_connections().count() as u32 };
        let (least, fewest) = self.open_connections().min_by_key(|(_, c)| c.tasks).map(|(i, c)| (i, c.tasks))?;
        let more = if self.tasks.len() > FEW { self.tasks.len() as u32 / shares } else { 0 };
        let ahead = self.last_connection().map(|c| c.tasks >= fewest + more);
        if ahead.is_none_or(|ahead| ahead && (!self.spread.one_machine || self.turn_may_pass())) {
            self.spread.turn = least;
        }
        Some(self.spread.turn)
    }

    fn in_long_runs(&mut self) -> Option<ConnIndex> {
        let unfinished = self.tasks.len();
        self.spread.most = self.spread.most.max(unfinished);
        if self.spread.alone && unfinished > 1 {
            self.spread.run = 0; // its connection may be stuck
        }
        let last = self.last_connection().is_some();
        if last && self.spread.run == 0 && !self.turn_may_pass() {
            self.spread.run = 1;
        }
        if !last || self.spread.run == 0 {
            self.begin_run()?;
        } else if let Some(other) = self.instead_of_a_stuck_one(unfinished) {
            return Some(other);
        }
        self.spread.run = self.spread.run.saturating_sub(1);
        self.spread.unanswered += 1;
        Some(self.spread.turn)
    }

    /// Gives the turn to the least queued, of several to the next; when a few requests are in flight at a time for one only.
    fn begin_run(&mut self) -> Option<()> {
        let (count, last) = (self.connections.len(), self.spread.turn);
        let behind = |at: ConnIndex| (at + 2 * count - last - 1) % count;
        let (turn, next) = self.open_connections().min_by_key(|(i, c)| (c.tasks, behind(*i)))?;
        let (exp_stat_sn, unanswered) = (next.exp_stat_sn, next.tasks as usize);
        let Self { spread, tasks, .. } = self;
        spread.alone = spread.most <= 1;
        spread.run = match spread.most {
            0 | 1 => ALONE,
            few if few <= FEW => 1,
            many => many * RUN,
        };
        spread.most = tasks.len();
        (spread.turn, spread.exp_stat_sn, spread.unanswered) = (turn, exp_stat_sn, unanswered);
        Some(())
    }

    /// The least queued of the others, when nothing of a run was answered and it would get the last of what is in flight:
    /// if its connection is stuck, the rest goes on with these.
    fn instead_of_a_stuck_one(&mut self, unfinished: usize) -> Option<ConnIndex> {
        let last = self.last_connection()?;
        let (exp_stat_sn, tasks) = (last.exp_stat_sn, last.tasks as usize);
        if exp_stat_sn != self.spread.exp_stat_sn {
            (self.spread.exp_stat_sn, self.spread.unanswered) = (exp_stat_sn, 0);
        }
        let silent = self.spread.unanswered + (unfinished / 8).max(2) >= unfinished;
        if !silent || tasks + 1 >= unfinished {
            return None;
        }
        let others = self.open_connections().filter(|(i, _)| *i != self.spread.turn);
        others.min_by_key(|(_, c)| c.tasks).map(|(i, _)| i)
    }
}
