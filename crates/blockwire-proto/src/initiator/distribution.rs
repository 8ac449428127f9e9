//! Which connection of several gets a command (RFC 7143 4.2.2).

use super::InitiatorSession;
use crate::ConnIndex;

/// Which connection a command goes to that names none (RFC 7143 4.2.2: any; its data and status stay there).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// The one with the fewest unfinished requests, in runs: the one that got the last command keeps its turn until it is ahead
    /// by an even share of the session's requests. A few are spread one by one; of many, runs go into one system call and
    /// wake the target once, as with a single connection. With an even share none runs dry while another has its turn, so that
    /// connections over several links add up. Between loopback addresses links are not expected to: the share is half there, and
    /// of many requests a run is many times what is in flight, so that each batch is as long as with a single connection;
    /// a connection that answers nothing does not get the last eighth of them.
    #[default]
    LeastQueued,
    RoundRobin,
}

/// Up to this many requests are spread over the connections one by one.
const FEW: usize = 5;
/// With more requests than this within one machine a run is `RUN` times what is in flight.
const DEEP: usize = 16;
const RUN: usize = 16;

/// How commands are spread, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Spread {
    distribution: Distribution,
    turn: ConnIndex,
    /// All connections end at loopback addresses.
    one_machine: bool,
    /// Requests that are left of a run within one machine.
    run: usize,
    /// ExpStatSN of the connection whose turn it is, and requests it got since it moved.
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

    /// The connection for a command that names none, among those that still take commands.
    pub(super) fn pick_connection(&mut self) -> Option<ConnIndex> {
        let Self { spread, connections, tasks, room, .. } = self;
        let open = connections.iter().enumerate().filter_map(|(i, c)| c.as_ref().map(|c| (i, c)));
        let mut open = open.filter(|(_, c)| !c.logging_out);
        let last = connections.get(spread.turn).and_then(Option::as_ref).filter(|c| !c.logging_out);
        match spread.distribution {
            Distribution::LeastQueued if spread.one_machine && tasks.len() > DEEP => {
                if let Some(c) = last
                    && c.exp_stat_sn != spread.exp_stat_sn
                {
                    (spread.exp_stat_sn, spread.unanswered) = (c.exp_stat_sn, 0);
                }
                let silent = spread.unanswered >= tasks.len() * 7 / 8;
                if last.is_some_and(|c| silent && (c.tasks as usize) + 1 < tasks.len()) {
                    // it must not get the last of what is in flight: if it is stuck, the rest goes on with these
                    let others = open.filter(|(i, _)| *i != spread.turn);
                    return others.min_by_key(|(_, c)| c.tasks).map(|(i, _)| i).or(Some(spread.turn));
                }
                if spread.run == 0 && last.is_some() && !room.lets_turn_pass(connections, spread.turn) {
                    spread.run = 1;
                }
                if spread.run == 0 || last.is_none() {
                    let count = connections.len();
                    let behind = |at: ConnIndex| (at + 2 * count - spread.turn - 1) % count;
                    let (turn, next) = open.min_by_key(|(i, c)| (c.tasks, behind(*i)))?;
                    (spread.turn, spread.exp_stat_sn, spread.unanswered) = (turn, next.exp_stat_sn, 0);
                    spread.run = tasks.len() * RUN;
                }
                spread.run -= 1;
                spread.unanswered += 1;
                Some(spread.turn)
            }
            Distribution::LeastQueued => {
                let shares = if spread.one_machine { 2 } else { open.clone().count() as u32 };
                let (least, fewest) = open.min_by_key(|(_, c)| c.tasks).map(|(i, c)| (i, c.tasks))?;
                let more = if tasks.len() > FEW { tasks.len() as u32 / shares } else { 0 };
                let mut passes = || !spread.one_machine || room.lets_turn_pass(connections, spread.turn);
                if last.is_none_or(|c| c.tasks >= fewest + more && passes()) {
                    spread.turn = least;
                }
                Some(spread.turn)
            }
            Distribution::RoundRobin => {
                let first = open.next()?.0;
                let next =
                    if first >= spread.turn { Some(first) } else { open.map(|(i, _)| i).find(|i| *i >= spread.turn) };
                let at = next.unwrap_or(first);
                spread.turn = at + 1;
                Some(at)
            }
        }
    }
}
