//! Gaps in CmdSN at the target, and the ping that finds out what was lost (RFC 7143 7.1.4.2, 7.2.1, 7.3, 7.11).

use blockwire_wire::bhs::FINAL;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG, serial};

use super::connection::Connection;
use super::recovery::{MOST_TRIES, Probe};
use super::session::InitiatorSession;
use super::task::{Kind, Outcome, Purpose, State};
use crate::endpoint::{Fatal, FatalCode};
use crate::params::ConnIndex;
use crate::send_queue::Payload;
use crate::slab::Slot;

/// Pings without an answer until the connection is given up.
const MOST_PROBES: u8 = 3;

impl InitiatorSession {
    /// A numbered request ended here, and the target may never have got it: its CmdSN would stay open for ever.
    pub(super) fn note_hole(&mut self, slot: Slot) {
        let task = &self.tasks[slot];
        let number = task.bhs.cmd_sn();
        let numbered = !task.bhs.is_immediate() && !matches!(task.state, State::Waiting | State::Paused);
        if numbered && serial::less_or_equal(self.exp_cmd_sn, number) && !self.holes.contains(&number) {
            self.holes.push(number);
        }
    }

    /// Fills the gap that the target waits for, if it is one of a request that is gone: RFC 7143 7.3 MUST, by any
    /// command with the same CmdSN. To be called when what the target said of ExpCmdSN is fresh.
    pub(super) fn plug(&mut self, conn: ConnIndex) {
        let next = self.exp_cmd_sn;
        self.holes.retain(|number| serial::less_or_equal(next, *number));
        if self.connections.get(conn).is_none_or(|c| c.as_ref().is_none_or(|c| c.logging_out)) {
            return;
        }
        if !self.holes.contains(&next) {
            return;
        }
        // The other holes with it, or a connection that carried every second command would cost a ping for each: a number
        // that the target did get it ignores as a duplicate (4.2.2.1).
        let several = self.holes.len() > 1;
        self.fill_holes(conn);
        if several {
            // the first is the one that the target waits for, so it cannot be late; the others may be duplicates
            self.cover_retry(conn);
        }
    }

    /// Sends a NOP-Out with each of the numbers that are open.
    pub(super) fn fill_holes(&mut self, conn: ConnIndex) {
        let next = self.exp_cmd_sn;
        self.holes.retain(|number| serial::less_or_equal(next, *number));
        let mut due = std::mem::take(&mut self.holes);
        due.sort_unstable_by_key(|number| number.wrapping_sub(next));
        for (at, number) in due.iter().enumerate() {
            let mut bhs = Bhs::new(Opcode::NopOut, FINAL);
            bhs.set_cmd_sn(*number);
            bhs.set_exp_stat_sn(self.connection(conn).exp_stat_sn);
            bhs.set_target_transfer_tag(RESERVED_TAG);
            let Some(slot) = self.own_request(conn, &mut bhs, Kind::Nop, Purpose::Plug) else {
                self.holes.extend_from_slice(&due[at..]);
                return;
            };
            self.recovered.plugged += 1;
            self.connection(conn).queue.push(bhs, Payload::None, Some(slot), 0);
        }
    }

    /// Requests ended with their connection, and the target may wait for numbers of theirs before it does what came after: asks
    /// it at once, on a connection that is left. The answer fills the gaps (`on_probe`).
    pub(super) fn look_for_holes(&mut self) {
        if self.holes.is_empty() {
            return;
        }
        let usable = |c: &Option<Connection>| c.as_ref().is_some_and(|c| !c.logging_out);
        if let Some(conn) = self.connections.iter().position(usable) {
            self.probe(conn);
        }
    }

    /// Sends a command again, as it was and with its CmdSN, on the connection it was sent on (RFC 7143 7.2.1 MUST).
    pub(super) fn retry(&mut self, slot: Slot) -> Result<(), Fatal> {
        let task = &mut self.tasks[slot];
        task.retries += 1;
        task.pinged = false;
        if task.retries >= MOST_TRIES {
            let what = "a command did not reach the target although it was sent again (RFC 7143 7.2.1)";
            return Err(Fatal { code: FatalCode::SequenceGap, what });
        }
        let conn = task.conn;
        self.recovered.retried += 1;
        self.drop_data_out(slot);
        self.detach(slot);
        self.queue_request(slot, conn);
        self.cover_retry(conn);
        Ok(())
    }

    /// When a connection that is silent while requests are open is to be asked.
    pub(super) fn probe_deadline(&self, conn: ConnIndex) -> Option<u64> {
        let connection = self.connections.get(conn)?.as_ref()?;
        let open = self.recovers() && connection.tasks > 0 || !self.holes.is_empty();
        if !open || connection.logging_out {
            return None;
        }
        let since = connection.probe.map_or(0, |p| p.sent).max(connection.last_received);
        Some(since.saturating_add(self.recovery_timeout))
    }

    /// The connection was silent for too long: asks it, or gives it up.
    ///
    /// # Errors
    /// It did not answer several times, and anything it had to say did not come either.
    pub(super) fn on_silence(&mut self, conn: ConnIndex) -> Result<(), Fatal> {
        let connection = self.connection(conn);
        let last = connection.last_received;
        if let Some(probe) = connection.probe.as_mut().filter(|p| p.sent < last) {
            probe.unanswered = 0; // it lives; only the ping or its answer was lost
        }
        if connection.probe.is_some_and(|p| p.unanswered >= MOST_PROBES) {
            let what = "no answer to several NOP-Out pings while requests are open (RFC 7143 7.1.4.2, 11.18)";
            return Err(Fatal { code: FatalCode::KeepAliveTimeout, what });
        }
        self.probe(conn);
        Ok(())
    }

    /// Sends a ping: a StatSN ahead in its answer reveals lost statuses, its ExpCmdSN lost commands (7.1.4.2).
    pub(super) fn probe(&mut self, conn: ConnIndex) {
        let mut bhs = self.immediate_header(conn, Opcode::NopOut, FINAL);
        let Some(slot) = self.own_request(conn, &mut bhs, Kind::Nop, Purpose::Probe) else { return };
        for slot in self.tasks.slots(|t| t.conn == conn && t.state == State::Active) {
            self.tasks[slot].pinged = true;
        }
        let sent = self.now;
        self.recovered.probes += 1;
        let connection = self.connection(conn);
        let unanswered = connection.probe.map_or(0, |p| p.unanswered) + 1;
        connection.probe = Some(Probe { sent, unanswered, tag: bhs.initiator_task_tag() });
        connection.probed = true;
        connection.queue.push(bhs, Payload::None, Some(slot), 0);
    }

    /// The ping with this tag was answered, and all that the target had sent before came or is known to be missing.
    pub(super) fn on_probe(&mut self, conn: ConnIndex, tag: u32) -> Result<(), Fatal> {
        if self.connection(conn).probe.is_none_or(|p| p.tag != tag) {
            // an earlier one: of what was sent between the two it says nothing, but the gaps it shows are gaps
            self.plug(conn);
            return Ok(());
        }
        self.connection(conn).probe = None;
        // earlier ones were lost: statuses are acted on in their order; a number that had come after all was not answered
        let next = self.exp_cmd_sn;
        let over = self.tasks.slots(|t| {
            let passed = t.purpose == Purpose::Plug && t.pinged && serial::less_than(t.bhs.cmd_sn(), next);
            let answered = t.purpose == Purpose::Probe || t.purpose == Purpose::Acknowledge && t.pinged;
            t.conn == conn && t.state == State::Active && (passed || answered)
        });
        for slot in over {
            if self.tasks[slot].purpose == Purpose::Acknowledge {
                self.connection(conn).acknowledging = false;
            }
            self.free(slot);
        }
        self.plug(conn);
        if !self.recovers() {
            return Ok(());
        }
        // the target waits for a command that went out before the ping on this very connection: it was lost (7.11)
        let next = self.exp_cmd_sn;
        let lost = self.tasks.slots(|t| {
            let numbered = !t.bhs.is_immediate() && t.bhs.cmd_sn() == next;
            t.conn == conn && t.state == State::Active && t.pinged && numbered
        });
        if let Some(&slot) = lost.first() {
            return self.retry(slot);
        }
        self.reassign_again(conn);
        self.ask_tails(conn);
        Ok(())
    }

    /// A TASK REASSIGN that was sent before the ping and is not answered did not arrive: nothing delays its answer.
    fn reassign_again(&mut self, conn: ConnIndex) {
        let lost = self.tasks.slots(|t| {
            let mine = t.conn == conn && t.state == State::Active && t.pinged;
            mine && matches!(t.purpose, Purpose::Reassign(_))
        });
        for slot in lost {
            let task = &mut self.tasks[slot];
            task.pinged = false;
            let mut bhs = task.bhs;
            let connection = self.connection(conn);
            bhs.set_exp_stat_sn(connection.exp_stat_sn);
            connection.queue.push(bhs, Payload::None, Some(slot), 0);
        }
    }

    /// Tasks that wait in the middle of something: the end of a Data-In sequence, or an R2T. RFC 7143 7.1.4.1 leaves the
    /// latter better to the target, so it is asked for late and a few times only.
    fn ask_tails(&mut self, conn: ConnIndex) {
        let (now, timeout) = (self.now, self.recovery_timeout);
        let next = self.exp_cmd_sn;
        let quiet = self.tasks.slots(|t| {
            let open = t.conn == conn && t.kind == Kind::Scsi && t.state == State::Active && !t.aborting;
            let known = t.bhs.is_immediate() || serial::less_than(t.bhs.cmd_sn(), next);
            let middle = t.sequence_bytes > 0;
            let unasked = t.write_len > 0 && t.outstanding_r2t == 0 && t.holds == 0;
            open && known
                && (middle || t.missed || unasked && !t.asked.contains(0, u64::from(t.write_len)))
                && t.recovery.as_deref().is_none_or(|r| r.is_whole() && r.snack_tag == 0)
        });
        let waited = self.connection(conn).last_data.saturating_add(timeout) <= now;
        for slot in quiet.into_iter().filter(|_| waited) {
            self.ask_tail(slot);
        }
    }

    /// Tasks for which something came before the response to their TASK REASSIGN; a status may have told what by now.
    pub(super) fn ask_missed(&mut self, conn: ConnIndex) {
        if !self.any_missed {
            return;
        }
        for slot in self.tasks.slots(|t| t.missed && t.conn == conn && t.state == State::Active) {
            let task = &mut self.tasks[slot];
            task.missed = false;
            if task.recovery.is_none() {
                self.ask_tail(slot);
            }
        }
        self.any_missed = !self.tasks.slots(|t| t.missed).is_empty();
    }

    /// A request of the plane's own ended without an answer. True when that was all.
    pub(super) fn own_lost(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Abort(tag) => self.abort_refused(tag, u8::MAX),
            Purpose::Reassign(tag) => self.reassign_refused(tag, u8::MAX),
            Purpose::Caller | Purpose::KeepAlive | Purpose::Acknowledge | Purpose::Probe | Purpose::Plug => {}
        }
    }

    /// A command PDU was rejected (RFC 7143 7.3, 11.17.1): it was never active. A wrong data digest is answered with the
    /// same PDU again, all else ends the task; the gap in CmdSN is filled either way.
    pub(super) fn command_rejected(&mut self, conn: ConnIndex, slot: Slot, reason: u8) -> Result<(), Fatal> {
        if reason == blockwire_wire::opcode::reject::DATA_DIGEST_ERROR {
            if self.recovers() {
                return self.retry(slot);
            }
            let what = "the target saw a wrong data digest in a command (RFC 7143 7.8)";
            return Err(Fatal { code: FatalCode::DataDigest, what });
        }
        self.end(slot, Outcome::Rejected(reason));
        self.plug(conn);
        Ok(())
    }
}
