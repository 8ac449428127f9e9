//! Asking for what was lost: SNACK of all types (RFC 7143 11.16), and what its rejection means.

use blockwire_wire::bhs::FINAL;
use blockwire_wire::opcode::reject;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG, serial};

use super::recovery::{ConnectionRecovery, MOST_SNACKS, MOST_TRIES, TaskRecovery};
use super::session::InitiatorSession;
use super::task::{Kind, State};
use crate::endpoint::{Fatal, FatalCode};
use crate::params::ConnIndex;
use crate::send_queue::Payload;
use crate::slab::Slot;

/// SNACK types (RFC 7143 11.16.1).
const DATA: u8 = 0;
const STATUS: u8 = 1;
const DATA_ACK: u8 = 2;
const R_DATA: u8 = 3;

pub(super) fn gap(what: &'static str) -> Fatal {
    Fatal { code: FatalCode::SequenceGap, what }
}

impl InitiatorSession {
    /// Within-command and within-connection recovery are there (7.1.5).
    #[inline]
    pub(super) fn recovers(&self) -> bool {
        self.params.error_recovery_level > 0
    }

    fn snack(&mut self, conn: ConnIndex, kind: u8, tag: u32, transfer_tag: u32, run: (u32, u32), lun: u64) -> Bhs {
        let connection = self.connection(conn);
        let mut snack = Bhs::new(Opcode::Snack, FINAL | kind);
        snack.set_lun(lun);
        snack.set_initiator_task_tag(tag);
        snack.set_target_transfer_tag(transfer_tag);
        snack.set_exp_stat_sn(connection.exp_stat_sn);
        snack.set_beg_run(run.0);
        snack.set_run_length(run.1);
        snack
    }

    fn queue_snack(&mut self, conn: ConnIndex, kind: u8, tag: u32, transfer_tag: u32, run: (u32, u32), lun: u64) {
        let snack = self.snack(conn, kind, tag, transfer_tag, run, lun);
        let connection = self.connection(conn);
        connection.queue.push(snack, Payload::None, None, 0);
        connection.snacked = true;
        self.recovered.snacks += 1;
    }

    /// The record of a connection's losses.
    pub(super) fn late(&mut self, conn: ConnIndex) -> &mut ConnectionRecovery {
        self.connection(conn).late.get_or_insert_default()
    }

    /// The record of a task's losses; it starts with the numbers and bytes that came until now.
    pub(super) fn task_late(&mut self, slot: Slot) -> &mut TaskRecovery {
        let task = &self.tasks[slot];
        if task.recovery.is_none() {
            let (conn, next) = (task.conn, task.exp_data_sn);
            let mut recovery = TaskRecovery::new(next);
            recovery.start_sequence(task.sequence_sn);
            self.tasks[slot].recovery = Some(Box::new(recovery));
            let late = self.late(conn);
            if !late.tasks.contains(&slot) {
                late.tasks.push(slot);
            }
        }
        self.tasks[slot].recovery.as_mut().expect("made above")
    }

    /// A task with a record of losses ends: a status that waited for its data may be acknowledged.
    #[cold]
    pub(super) fn forget_recovery(&mut self, slot: Slot) {
        self.settle_status(slot);
        let conn = self.tasks[slot].conn;
        self.tasks[slot].recovery = None;
        if let Some(Some(connection)) = self.connections.get_mut(conn)
            && let Some(late) = connection.late.as_deref_mut()
        {
            late.tasks.retain(|s| *s != slot);
            if late.is_idle() && late.tasks.is_empty() {
                connection.late = None; // back on the short way
            }
        }
    }

    /// Numbers of a task below `high` were sent: what of them did not come is asked for, once now and once per timeout.
    pub(super) fn note_numbers(&mut self, slot: Slot, high: u32) -> Result<(), Fatal> {
        let now = self.now;
        let task = &self.tasks[slot];
        let (number, was_whole) = (task.exp_data_sn, task.recovery.as_ref().is_none_or(|r| r.is_whole()));
        let bytes = if was_whole { Some(task.received.clone()) } else { None };
        let recovery = self.task_late(slot);
        let Some(run) = recovery.sent_up_to(high) else { return Ok(()) };
        if let Some(bytes) = bytes {
            recovery.whole = Some(super::recovery::Whole { number, bytes });
            recovery.asked_at = now;
            recovery.tries = 0;
        }
        self.recovered.runs_lost += 1;
        self.ask_data(slot, &[run])
    }

    /// Data/R2T SNACK for runs `[from, to)`, or R-Data SNACK when their length may have changed.
    fn ask_data(&mut self, slot: Slot, runs: &[(u32, u32)]) -> Result<(), Fatal> {
        let in_order = self.params.data_sequence_in_order;
        let task = &self.tasks[slot];
        let (conn, tag, lun) = (task.conn, task.tag(), task.bhs.lun());
        // 11.16.3: a changed MaxRecvDataSegmentLength MUST be met with R-Data, never with a plain Data SNACK
        if task.read_len > 0 && self.connection(conn).epoch != self.tasks[slot].epoch {
            self.ask_everything(slot);
            return Ok(());
        }
        let sequence_from = self.task_late(slot).sequence_from;
        for &(from, to) in runs.iter().take(MOST_SNACKS) {
            // 13.19: with DataSequenceInOrder=Yes at most the last read sequence may be asked for
            if in_order && from < sequence_from {
                return Err(gap(
                    "data of an earlier sequence is missing with DataSequenceInOrder=Yes (RFC 7143 13.19)",
                ));
            }
            // 11.16.4: the tag of the command; 11.16.5: no Target Transfer Tag
            self.queue_snack(conn, DATA, tag, RESERVED_TAG, (from, to - from), lun);
        }
        Ok(())
    }

    /// R-Data SNACK (11.16.3): all data that is not acknowledged comes again, in segments of today's length, and a SCSI
    /// Response with the tag follows.
    fn ask_everything(&mut self, slot: Slot) {
        let now = self.now;
        let recovery = self.task_late(slot);
        // 11.16.5: never 0 or 0xffffffff, unique for the task
        recovery.last_snack_tag = if recovery.last_snack_tag >= 0xffff_fffe { 1 } else { recovery.last_snack_tag + 1 };
        let snack_tag = recovery.last_snack_tag;
        recovery.snack_tag = snack_tag;
        recovery.asked_at = now;
        recovery.whole = None;
        let ending = recovery.ending.take();
        let task = &mut self.tasks[slot];
        // the initiator discards all the unacknowledged data (11.16.3)
        task.received = task.acknowledged.clone();
        task.exp_data_sn = task.acknowledged_sn;
        let (conn, tag, lun) = (task.conn, task.tag(), task.bhs.lun());
        if let Some(ending) = ending {
            // another SCSI Response with the same StatSN replaces this one (11.4.4)
            self.reopen_status(conn, ending.stat_sn);
        }
        // 11.16.6, 11.16.7: BegRun and RunLength MUST be 0
        self.queue_snack(conn, R_DATA, tag, snack_tag, (0, 0), lun);
    }

    /// Status SNACK (11.16.1) for a run; 11.16.4: the Initiator Task Tag MUST be reserved.
    pub(super) fn ask_status(&mut self, conn: ConnIndex, run: (u32, u32)) {
        self.queue_snack(conn, STATUS, RESERVED_TAG, RESERVED_TAG, run, 0);
    }

    /// DataACK (11.16.2): everything of the task below `next` came. LUN and Target Transfer Tag are copies (11.16.5).
    ///
    /// # Errors
    /// The target asks for more than it reads.
    pub(super) fn acknowledge_data(&mut self, slot: Slot, lun: u64, transfer_tag: u32) -> Result<(), Fatal> {
        let task = &mut self.tasks[slot];
        let (conn, next) = (task.conn, task.exp_data_sn);
        task.acknowledged_sn = next;
        task.acknowledged.clone_from(&task.received);
        self.recovered.data_acks += 1;
        let snack = self.snack(conn, DATA_ACK, RESERVED_TAG, transfer_tag, (next, 0), lun);
        self.queue_answer(conn, snack, Payload::None)
    }

    /// A PDU with a wrong data digest: it is discarded, header and all, as far as its number does not help to ask for it
    /// again (RFC 7143 7.8). Level 0 has no answer to it.
    pub(super) fn discard(&mut self, conn: ConnIndex, opcode: Opcode, bhs: &Bhs) -> Result<(), Fatal> {
        if !self.recovers() {
            return Err(Fatal { code: FatalCode::DataDigest, what: "a wrong data digest (RFC 7143 7.8)" });
        }
        self.recovered.digest_errors += 1;
        let numbered = Self::consumes_stat_sn(opcode, bhs);
        if opcode == Opcode::DataIn {
            if let Some(slot) = self.tasks.find(bhs.initiator_task_tag())
                && self.tasks[slot].kind == Kind::Scsi
                && self.tasks[slot].state == State::Active
                && self.tasks[slot].conn == conn
            {
                let number = bhs.data_sn();
                let task = &self.tasks[slot];
                let known = task.recovery.as_ref().map_or(number < task.exp_data_sn, |r| number < r.high());
                // without a header digest the number itself may be wrong: nothing absurd is believed
                if !known && number - task.exp_data_sn < super::recovery::MOST_AHEAD as u32 {
                    self.note_numbers(slot, number + 1)?;
                    if numbered {
                        // its retransmission is an exact replica, status included (11.16)
                        self.note_statuses(conn, bhs.stat_sn().wrapping_add(1), false);
                    }
                    return Ok(());
                }
            }
            if !numbered {
                return Ok(()); // of a task that is over, or a repetition: asked for again at the timeout
            }
        }
        if numbered {
            self.note_statuses(conn, bhs.stat_sn().wrapping_add(1), true);
        }
        Ok(())
    }

    /// Asks again for what has been missing for a timeout.
    pub(super) fn ask_again(&mut self, conn: ConnIndex) -> Result<(), Fatal> {
        let (now, timeout) = (self.now, self.recovery_timeout);
        let Some(Some(connection)) = self.connections.get_mut(conn) else { return Ok(()) };
        let expected = connection.exp_stat_sn;
        let Some(late) = connection.late.as_deref_mut() else { return Ok(()) };
        let due = |at: u64| at.saturating_add(timeout) <= now;
        let tasks = late.tasks.clone();
        if due(late.asked_at) {
            let runs: Vec<_> = late.missing(expected).take(MOST_SNACKS).collect();
            if !runs.is_empty() {
                late.asked_at = now;
                late.tries += 1;
                if late.tries >= MOST_TRIES {
                    return Err(gap("a status did not come although it was asked for (RFC 7143 7.8, 11.16)"));
                }
            }
            for run in runs {
                self.ask_status(conn, run);
            }
        }
        for slot in tasks {
            let task = &mut self.tasks[slot];
            let mine = task.conn == conn && task.state == State::Active;
            let Some(recovery) = task.recovery.as_deref_mut().filter(|_| mine) else {
                self.late(conn).tasks.retain(|s| *s != slot);
                continue;
            };
            if !due(recovery.asked_at) || (recovery.is_whole() && recovery.snack_tag == 0) {
                continue;
            }
            recovery.asked_at = now;
            recovery.tries += 1;
            if recovery.tries >= MOST_TRIES && task.read_len == 0 {
                let end = recovery.high();
                self.let_r2ts_go(slot, 0, end);
                continue;
            }
            if recovery.tries >= MOST_TRIES {
                return Err(gap("data did not come although it was asked for (RFC 7143 7.8, 11.16)"));
            }
            if recovery.snack_tag != 0 {
                self.ask_everything(slot);
            } else {
                let runs: Vec<_> = recovery.holes().take(MOST_SNACKS).collect();
                self.ask_data(slot, &runs)?;
            }
        }
        Ok(())
    }

    /// When `ask_again` has something to do.
    pub(super) fn ask_deadline(&self, conn: ConnIndex) -> Option<u64> {
        let connection = self.connections.get(conn)?.as_ref()?;
        let late = connection.late.as_deref()?;
        let statuses = late.missing(connection.exp_stat_sn).next().map(|_| late.asked_at);
        let open = |slot: &Slot| {
            let task = &self.tasks[*slot];
            let recovery = task.recovery.as_deref()?;
            let waits = task.conn == conn && task.state == State::Active;
            (waits && (!recovery.is_whole() || recovery.snack_tag != 0)).then_some(recovery.asked_at)
        };
        let first = late.tasks.iter().filter_map(open).chain(statuses).min()?;
        Some(first.saturating_add(self.recovery_timeout))
    }

    /// Asks for the end of a task's numbers without knowing that there is more, a few times for each task. `rejected` SNACKs of this
    /// kind mean nothing.
    pub(super) fn ask_tail(&mut self, slot: Slot) {
        let recovery = self.task_late(slot);
        if recovery.probed >= MOST_TRIES || !recovery.is_whole() {
            return;
        }
        recovery.probed += 1;
        let task = &self.tasks[slot];
        let (conn, tag, lun) = (task.conn, task.tag(), task.bhs.lun());
        if task.read_len > 0 && self.connection(conn).epoch != self.tasks[slot].epoch {
            return; // only R-Data would do (11.16.3), and that needs a reason
        }
        // 11.16.6: all that is not acknowledged, which is no error when there is nothing; what came before is discarded
        self.queue_snack(conn, DATA, tag, RESERVED_TAG, (0, 0), lun);
    }

    /// A SNACK was rejected (7.8, 11.17.1). When what it asked for is still missing there is no other way within the
    /// connection: connection recovery is next, and without that session recovery.
    pub(super) fn snack_rejected(&mut self, conn: ConnIndex, rejected: &Bhs) -> Result<(), Fatal> {
        let (from, length) = (rejected.beg_run(), rejected.run_length());
        match rejected.flags() & 0x0f {
            STATUS => {
                let connection = self.connection(conn);
                let expected = connection.exp_stat_sn;
                let open = connection.late.as_deref().is_some_and(|late| {
                    late.missing(expected).any(|run| {
                        let end = from.wrapping_add(length);
                        serial::less_than(run.0, end) && serial::less_than(from, run.0.wrapping_add(run.1))
                    })
                });
                if open {
                    return Err(gap("a Status SNACK was rejected (RFC 7143 11.16, 11.17.1)"));
                }
            }
            DATA | R_DATA => {
                let Some(slot) = self.tasks.find(rejected.initiator_task_tag()) else { return Ok(()) };
                let task = &self.tasks[slot];
                let end = if length == 0 { u32::MAX } else { from.saturating_add(length) };
                let open = task.conn == conn
                    && task.state == State::Active
                    && task.recovery.as_deref().is_some_and(|recovery| {
                        let same = recovery.snack_tag == rejected.target_transfer_tag() && recovery.snack_tag != 0;
                        same || recovery.snack_tag == 0 && recovery.holes().any(|run| run.0 < end && from < run.1)
                    });
                if open && task.read_len == 0 {
                    // R2Ts: the target gave them up for a recovery R2T of its own (7.1.4.1), which asks for the same data
                    self.let_r2ts_go(slot, from, end);
                } else if open {
                    return Err(gap("a Data SNACK was rejected (RFC 7143 7.8, 11.17.1)"));
                }
            }
            _ => {} // a DataACK: what it tried to free stays with the target
        }
        Ok(())
    }

    fn let_r2ts_go(&mut self, slot: Slot, from: u32, to: u32) {
        let task = &mut self.tasks[slot];
        if let Some(recovery) = task.recovery.as_deref_mut() {
            recovery.let_go(from, to);
            task.exp_data_sn = recovery.next();
        }
    }

    /// A Reject that may be about a SNACK.
    pub(super) fn is_snack_reject(reason: u8, rejected: &Bhs) -> bool {
        rejected.opcode() == Some(Opcode::Snack)
            && matches!(
                reason,
                reject::SNACK_REJECT
                    | reject::PROTOCOL_ERROR
                    | reject::INVALID_DATA_ACK
                    | reject::INVALID_PDU_FIELD
                    | reject::COMMAND_NOT_SUPPORTED
            )
    }
}
