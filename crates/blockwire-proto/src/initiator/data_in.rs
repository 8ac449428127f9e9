//! Data from the target: every Data-In header is checked against its task before its payload gets a place.

use blockwire_wire::bhs::{ACKNOWLEDGE, FINAL, STATUS_PRESENT};
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG};

use super::session::InitiatorSession;
use super::task::{Kind, State, Task};
use crate::endpoint::{Destination, Fatal, FatalCode};
use crate::params::ConnIndex;
use crate::send_queue::{Direction, Payload};
use crate::slab::Slot;

/// SNACK type DataACK (RFC 7143 11.16.1).
const DATA_ACK: u8 = 2;

impl Task {
    /// Checks a DataSN or R2TSN; both share one numbering (RFC 7143 11.7.5). After a reassignment the target may repeat
    /// all of the data, and go on after numbers that were lost (7.2.2), so the first number is taken as it is.
    #[inline]
    pub(super) fn check_number(&self, number: u32, what: &'static str) -> Result<(), Fatal> {
        if number == self.exp_data_sn || self.renumber {
            return Ok(());
        }
        Err(Fatal { code: FatalCode::SequenceGap, what })
    }

    /// The PDU with this number is complete.
    #[inline]
    pub(super) fn take_number(&mut self, number: u32) {
        self.exp_data_sn = number.wrapping_add(1);
        self.renumber = false;
    }
}

impl InitiatorSession {
    /// Checks the header of a Data-In (RFC 7143 11.7) and says where its data goes.
    pub(super) fn check_data_in(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<Destination, Fatal> {
        let Some(slot) = self.tasks.find(bhs.initiator_task_tag()) else {
            return Err(Fatal::violation("Data-In for a task that is not in progress (RFC 7143 11.7)"));
        };
        let task = &mut self.tasks[slot];
        if !task.is_active_on(conn) {
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
        let offset = bhs.buffer_offset();
        if u64::from(offset) + u64::from(length) > u64::from(task.read_len) {
            return Err(Fatal::violation("Data-In beyond the end of the buffer (RFC 7143 11.7.6)"));
        }
        task.check_number(bhs.data_sn(), "DataSN out of sequence (RFC 7143 11.7.5)")?;
        if length == 0 {
            return Ok(Destination::None);
        }
        if task.sequence_bytes + length > self.params.max_burst_length {
            return Err(Fatal::violation("a Data-In sequence longer than MaxBurstLength (RFC 7143 13.13)"));
        }
        if !task.replay {
            task.check_order(offset, length, self.params.data_pdu_in_order, self.params.data_sequence_in_order)?;
        }
        task.holds += 1;
        self.connection(conn).current = Some(slot);
        Ok(Destination::Task { slot, direction: Direction::In, offset })
    }

    /// The data of a Data-In is in its place.
    pub(super) fn take_data_in(&mut self, conn: ConnIndex, slot: Slot, bhs: &Bhs) -> Result<(), Fatal> {
        let sequences_in_order = self.params.data_sequence_in_order;
        let level = self.params.error_recovery_level;
        let task = &mut self.tasks[slot];
        let length = bhs.data_segment_length();
        task.take_number(bhs.data_sn());
        if task.received.insert(u64::from(bhs.buffer_offset()), u64::from(length)).is_err() {
            return Err(Fatal::violation("Data-In too scattered to keep track of"));
        }
        task.sequence_bytes += length;
        task.sequence_next = bhs.buffer_offset() + length;
        if bhs.is_final() {
            task.sequence_bytes = 0;
            if sequences_in_order && task.received.runs() > 1 {
                return Err(Fatal::violation("a Data-In sequence with a hole (RFC 7143 13.18, 13.19)"));
            }
        }
        if level > 0 && bhs.flags() & ACKNOWLEDGE != 0 {
            self.acknowledge_data(conn, bhs);
        }
        Ok(())
    }

    /// Answers the A bit (RFC 7143 11.7.2) with a DataACK SNACK (11.16.3).
    fn acknowledge_data(&mut self, conn: ConnIndex, bhs: &Bhs) {
        let connection = self.connection(conn);
        let mut snack = Bhs::new(Opcode::Snack, FINAL | DATA_ACK);
        snack.set_lun(bhs.lun());
        snack.set_initiator_task_tag(RESERVED_TAG);
        snack.set_target_transfer_tag(bhs.target_transfer_tag());
        snack.set_exp_stat_sn(connection.exp_stat_sn);
        snack.set_beg_run(bhs.data_sn().wrapping_add(1));
        connection.queue.push(snack, Payload::None, None, 0);
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
