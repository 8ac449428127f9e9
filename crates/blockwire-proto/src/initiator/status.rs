//! StatSN and ExpStatSN of a connection (RFC 7143 4.2.2.2): in order, or with gaps that are asked for (7.9).

use blockwire_wire::bhs::STATUS_PRESENT;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG, serial};

use super::recovery::{Arrival, ConnectionRecovery, Status};
use super::session::InitiatorSession;
use super::snack::gap;
use crate::endpoint::Fatal;
use crate::params::ConnIndex;
use crate::slab::Slot;

/// What to do with a PDU that carries a StatSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Act on it.
    Now,
    /// Act on it; others that wait behind it follow.
    NowAndMore,
    /// It was kept until earlier ones came, or came before.
    Later,
}

impl InitiatorSession {
    /// Whether this opcode carries a status of its own, so that StatSN counts it (RFC 7143 4.2.2.2).
    #[inline]
    pub(super) fn consumes_stat_sn(opcode: Opcode, bhs: &Bhs) -> bool {
        match opcode {
            Opcode::DataIn => bhs.flags() & STATUS_PRESENT != 0,
            // an unsolicited NOP-In and an R2T carry the next StatSN without taking it (11.19.2, 11.8.3)
            Opcode::NopIn => bhs.initiator_task_tag() != RESERVED_TAG,
            Opcode::R2t => false,
            _ => true,
        }
    }

    /// StatSN of a PDU that has one, against ExpStatSN.
    #[inline]
    pub(super) fn take_stat_sn(&mut self, conn: ConnIndex, bhs: &Bhs, data: &[u8]) -> Result<Turn, Fatal> {
        let connection = self.connection(conn);
        if bhs.stat_sn() == connection.exp_stat_sn && connection.late.is_none() {
            connection.exp_stat_sn = connection.exp_stat_sn.wrapping_add(1);
            return Ok(Turn::Now);
        }
        self.take_late(conn, bhs, data)
    }

    #[cold]
    fn take_late(&mut self, conn: ConnIndex, bhs: &Bhs, data: &[u8]) -> Result<Turn, Fatal> {
        let connection = self.connection(conn);
        let (expected, stat_sn) = (connection.exp_stat_sn, bhs.stat_sn());
        if !self.recovers() && stat_sn != expected {
            let what = if serial::less_than(expected, stat_sn) {
                "a StatSN ahead of ExpStatSN: a status is missing (RFC 7143 4.2.2.2, 7.5)"
            } else {
                "a StatSN that was used already (RFC 7143 4.2.2.2)"
            };
            return Err(gap(what));
        }
        if self.superseded(bhs) {
            self.recovered.duplicates += 1;
            self.note_statuses(conn, stat_sn.wrapping_add(1), false);
            return Ok(Turn::Later);
        }
        let now = self.now;
        let late = self.late(conn);
        match late.classify(expected, stat_sn) {
            Arrival::Duplicate => {
                self.recovered.duplicates += 1;
                Ok(Turn::Later)
            }
            Arrival::Absurd => Err(gap("a StatSN far ahead of ExpStatSN (RFC 7143 4.2.2.2)")),
            Arrival::Next => {
                let recovered = late.misses(expected, stat_sn);
                late.set(expected, stat_sn, Status::Done);
                if recovered {
                    (late.asked_at, late.tries) = (now, 0);
                    self.recovered.statuses_recovered += 1;
                }
                Ok(Turn::NowAndMore)
            }
            Arrival::Early => {
                let recovered = late.misses(expected, stat_sn);
                if recovered {
                    (late.asked_at, late.tries) = (now, 0);
                    self.recovered.statuses_recovered += 1;
                } else {
                    self.note_statuses(conn, stat_sn, true);
                }
                // 7.9: what is missing is asked for; nothing from there on is acknowledged
                if !self.late(conn).set(expected, stat_sn, Status::Held(*bhs, data.to_vec())) {
                    return Err(gap("too much waits for a status that is missing (RFC 7143 7.9)"));
                }
                Ok(Turn::Later)
            }
        }
    }

    /// After an R-Data SNACK any status counts only in a SCSI Response with its SNACK Tag (RFC 7143 11.4.4: MUST be
    /// discarded otherwise); that one has the same StatSN.
    fn superseded(&self, bhs: &Bhs) -> bool {
        let opcode = bhs.opcode();
        if !matches!(opcode, Some(Opcode::DataIn | Opcode::ScsiResponse)) {
            return false;
        }
        let Some(slot) = self.tasks.find(bhs.initiator_task_tag()) else { return false };
        self.tasks[slot].recovery.as_deref().is_some_and(|recovery| {
            recovery.snack_tag != 0 && (opcode == Some(Opcode::DataIn) || bhs.snack_tag() != recovery.snack_tag)
        })
    }

    /// StatSNs below `stat_sn` were sent: those that are newly known to be missing are asked for.
    pub(super) fn note_statuses(&mut self, conn: ConnIndex, stat_sn: u32, ask: bool) {
        let now = self.now;
        let expected = self.connection(conn).exp_stat_sn;
        if !serial::less_than(expected, stat_sn) {
            return;
        }
        let late = self.late(conn);
        let Some(run) = late.sent_up_to(expected, stat_sn) else { return };
        if late.missing(expected).next() == Some(run) {
            (late.asked_at, late.tries) = (now, 0); // the first one
        }
        self.recovered.runs_lost += 1;
        if ask {
            self.ask_status(conn, run);
        }
    }

    /// A status that was acted on must not be acknowledged: its task lacks data (RFC 7143 7.9, 11.7.2).
    pub(super) fn hold_status(&mut self, conn: ConnIndex, stat_sn: u32) {
        let connection = self.connection(conn);
        let expected = connection.exp_stat_sn;
        if stat_sn == expected.wrapping_sub(1) && connection.late.as_deref().is_none_or(ConnectionRecovery::is_idle) {
            connection.exp_stat_sn = stat_sn;
            self.late(conn).uncount();
        } else {
            self.late(conn).set(expected, stat_sn, Status::Waiting);
        }
    }

    /// A status that was acted on will come once more in another form.
    pub(super) fn reopen_status(&mut self, conn: ConnIndex, stat_sn: u32) {
        let now = self.now;
        let expected = self.connection(conn).exp_stat_sn;
        let late = self.late(conn);
        late.set(expected, stat_sn, Status::Missing);
        (late.asked_at, late.tries) = (now, 0);
    }

    /// The task of a status that was held has all it needs.
    pub(super) fn settle_status(&mut self, slot: Slot) {
        let task = &mut self.tasks[slot];
        let conn = task.conn;
        let Some(ending) = task.recovery.as_deref_mut().and_then(|r| r.ending.take()) else { return };
        if let Some(Some(connection)) = self.connections.get_mut(conn) {
            let expected = connection.exp_stat_sn;
            let late = connection.late.get_or_insert_default();
            late.set(expected, ending.stat_sn, Status::Done);
            connection.exp_stat_sn = expected.wrapping_add(late.take_done());
        }
    }

    /// Acts on statuses that waited for the one that just came, and acknowledges.
    #[cold]
    pub(super) fn take_held(&mut self, conn: ConnIndex) -> Result<(), Fatal> {
        loop {
            let connection = self.connection(conn);
            let Some(late) = connection.late.as_deref_mut() else { return Ok(()) };
            let Some((bhs, data)) = late.take_next() else {
                connection.exp_stat_sn = connection.exp_stat_sn.wrapping_add(late.take_done());
                self.ask_missed(conn);
                let connection = self.connection(conn);
                let Some(late) = connection.late.as_deref_mut() else { return Ok(()) };
                if late.is_idle() && late.tasks.is_empty() {
                    connection.late = None; // back on the short way
                }
                return Ok(());
            };
            if self.superseded(&bhs) {
                self.reopen_status(conn, bhs.stat_sn());
                continue;
            }
            self.act(conn, &bhs, &data)?;
        }
    }
}
