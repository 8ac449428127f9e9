//! Data from the target: every Data-In header is checked against its task before its payload gets a place.

use blockwire_wire::bhs::{ACKNOWLEDGE, FINAL, STATUS_PRESENT};
use blockwire_wire::{Bhs, RESERVED_TAG};

use super::session::InitiatorSession;
use super::task::{Kind, State, Task};
use crate::endpoint::{Destination, Fatal};
use crate::params::{ConnIndex, same_unit};
use crate::send_queue::Direction;
use crate::slab::Slot;

impl InitiatorSession {
    /// Checks the header of a Data-In (RFC 7143 11.7) and says where its data goes.
    pub(super) fn check_data_in(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<Destination, Fatal> {
        let Some(slot) = self.tasks.find(bhs.initiator_task_tag()) else {
            return self.stray_data(conn, "Data-In for a task that is not in progress (RFC 7143 11.7)");
        };
        let recovers = self.recovers();
        let task = &mut self.tasks[slot];
        if !task.is_active_on(conn) {
            if task.conn == conn && task.state == State::Reassigning {
                task.missed = true;
                self.any_missed = true;
                return Ok(Destination::Discard); // the response to TASK REASSIGN is missing; asked for again after it
            }
            return Err(Fatal::violation("Data-In on a connection that the task is not allegiant to (RFC 7143 4.2.2)"));
        }
        let length = bhs.data_segment_length();
        if task.state == State::Ended {
            return Ok(if length == 0 { Destination::None } else { Destination::Discard });
        }
        if task.kind != Kind::Scsi || task.read_len == 0 {
            return Err(Fatal::violation("Data-In for a task that reads nothing (RFC 7143 11.7)"));
        }
        if bhs.flags() & (STATUS_PRESENT | FINAL) == STATUS_PRESENT {
            return Err(Fatal::violation("Data-In with status but without the F bit (RFC 7143 11.7.3)"));
        }
        // 11.7.4: the LUN is reserved unless acknowledgement is asked for, which at level 0 MUST be ignored (11.7.2)
        let asks = recovers && bhs.flags() & ACKNOWLEDGE != 0 && bhs.target_transfer_tag() != RESERVED_TAG;
        if asks && !same_unit(bhs.lun(), task.bhs.lun()) {
            return Err(Fatal::violation(
                "Data-In with another LUN than that of its command (RFC 7143 4.2.5.3, 11.7.4)",
            ));
        }
        let offset = bhs.buffer_offset();
        if u64::from(offset) + u64::from(length) > u64::from(task.read_len) {
            return Err(Fatal::violation("Data-In beyond the end of the buffer (RFC 7143 11.7.6)"));
        }
        if bhs.data_sn() != task.exp_data_sn || task.recovery.is_some() || task.renumber {
            return self.check_late_data(conn, slot, bhs);
        }
        if length == 0 {
            return Ok(Destination::None);
        }
        // 13.13 binds the target; nothing here depends on it, and tgt sends every read as one sequence: counted, and taken
        let most = self.params.max_burst_length;
        if task.sequence_bytes <= most && task.sequence_bytes.saturating_add(length) > most {
            self.long_sequences += 1;
        }
        if !task.replay {
            task.check_order(offset, length, self.params.data_pdu_in_order, self.params.data_sequence_in_order)?;
        }
        task.holds += 1;
        self.connection(conn).current = Some(slot);
        Ok(Destination::Task { slot, direction: Direction::In, offset })
    }

    /// Data for a tag that is not in use: a repetition that was asked for may come after its task's end (7.9).
    fn stray_data(&mut self, conn: ConnIndex, what: &'static str) -> Result<Destination, Fatal> {
        if !self.connection(conn).snacked {
            return Err(Fatal::violation(what));
        }
        self.recovered.duplicates += 1;
        Ok(Destination::Discard)
    }

    /// The data of a Data-In is in its place.
    #[inline]
    pub(super) fn take_data_in(&mut self, slot: Slot, bhs: &Bhs) -> Result<(), Fatal> {
        let sequences_in_order = self.params.data_sequence_in_order;
        let recovers = self.recovers();
        let task = &mut self.tasks[slot];
        if bhs.data_sn() != task.exp_data_sn || task.recovery.is_some() || task.renumber {
            return self.take_late_data(slot, bhs);
        }
        let length = bhs.data_segment_length();
        task.exp_data_sn = bhs.data_sn().wrapping_add(1);
        if task.received.insert(u64::from(bhs.buffer_offset()), u64::from(length)).is_err() {
            return Err(Fatal::violation("Data-In too scattered to keep track of"));
        }
        task.data_ins += 1;
        task.sequence_bytes = task.sequence_bytes.saturating_add(length);
        task.sequence_next = bhs.buffer_offset() + length;
        if bhs.is_final() {
            task.sequence_bytes = 0;
            task.sequence_sn = task.exp_data_sn;
            if sequences_in_order && task.received.runs() > 1 && !task.replay {
                return Err(Fatal::violation("a Data-In sequence with a hole (RFC 7143 13.18, 13.19)"));
            }
        }
        // at level 0 the A bit MUST be ignored, above it MUST be answered (11.7.2)
        if recovers && bhs.flags() & ACKNOWLEDGE != 0 {
            self.acknowledge_data(slot, bhs.lun(), bhs.target_transfer_tag())?;
        }
        Ok(())
    }
}

impl Task {
    /// DataPDUInOrder (RFC 7143 13.18) and DataSequenceInOrder (13.19); overlays are never allowed.
    #[inline]
    fn check_order(&self, offset: u32, length: u32, pdus: bool, sequences: bool) -> Result<(), Fatal> {
        if pdus {
            let continues = self.sequence_bytes > 0 || sequences;
            if continues && offset != self.sequence_next {
                return Err(Fatal::violation("Data-In out of order with DataPDUInOrder=Yes (RFC 7143 13.18)"));
            }
            if sequences {
                return Ok(()); // in one run from the start: nothing can overlap
            }
        }
        if self.received.overlaps(u64::from(offset), u64::from(length)) {
            return Err(Fatal::violation("Data-In over bytes that came already (RFC 7143 13.18)"));
        }
        Ok(())
    }
}
