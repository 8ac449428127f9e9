//! Data-In that does not come in the order of its numbers: later than it should, twice, or after a reassignment
//! (RFC 7143 7.8, 7.9, 11.16). Data in order takes the short way in `data_in`.

use blockwire_wire::Bhs;
use blockwire_wire::bhs::ACKNOWLEDGE;

use super::recovery::Ending;
use super::session::InitiatorSession;
use super::snack::gap;
use super::task::Task;
use crate::endpoint::{Destination, Fatal};
use crate::params::ConnIndex;
use crate::send_queue::Direction;
use crate::slab::Slot;

/// What the number of a Data-In or R2T is to its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbered {
    /// The first one after a reassignment: numbering goes on with it.
    Restart,
    /// All of the data is on its way again: the number says nothing.
    Anything,
    Duplicate,
    /// The next one, one that was missing, or one ahead of missing ones.
    New,
}

impl Task {
    pub(super) fn number_is(&self, number: u32) -> Numbered {
        // after a reassignment the target may repeat data from an earlier number on; R2Ts that were lost with the
        // connection have used numbers that are not known here (7.2.2)
        if self.renumber && (number <= self.exp_data_sn || self.write_len > 0) {
            return Numbered::Restart;
        }
        match self.recovery.as_deref() {
            Some(recovery) if recovery.snack_tag != 0 => Numbered::Anything,
            Some(recovery) if recovery.has(number) => Numbered::Duplicate,
            None if number < self.exp_data_sn => Numbered::Duplicate,
            _ => Numbered::New,
        }
    }
}

impl InitiatorSession {
    /// The header of a Data-In whose number is not simply the next.
    #[cold]
    pub(super) fn check_late_data(&mut self, conn: ConnIndex, slot: Slot, bhs: &Bhs) -> Result<Destination, Fatal> {
        if !self.recovers() {
            return Err(gap("DataSN out of sequence (RFC 7143 11.7.5)"));
        }
        let task = &mut self.tasks[slot];
        let (offset, length, number) = (bhs.buffer_offset(), bhs.data_segment_length(), bhs.data_sn());
        if number == u32::MAX {
            return Err(Fatal::violation("more than 2^32 - 1 Data-In PDUs of one command (RFC 7143 4.2.2.4)"));
        }
        if length == 0 {
            return Ok(Destination::None);
        }
        match task.number_is(number) {
            // 7.9: duplicate DataSNs MUST be discarded
            Numbered::Duplicate => return Ok(Destination::Discard),
            Numbered::New if !task.replay && task.received.overlaps(u64::from(offset), u64::from(length)) => {
                return Err(Fatal::violation("Data-In over bytes that came already (RFC 7143 13.18)"));
            }
            Numbered::New | Numbered::Restart | Numbered::Anything => {}
        }
        task.holds += 1;
        self.connection(conn).current = Some(slot);
        Ok(Destination::Task { slot, direction: Direction::In, offset })
    }

    /// The data of such a Data-In is in its place.
    #[cold]
    pub(super) fn take_late_data(&mut self, slot: Slot, bhs: &Bhs) -> Result<(), Fatal> {
        let number = bhs.data_sn();
        let scattered = |_| Fatal::violation("Data-In too scattered to keep track of");
        let range = (u64::from(bhs.buffer_offset()), u64::from(bhs.data_segment_length()));
        let task = &mut self.tasks[slot];
        match task.number_is(number) {
            Numbered::Duplicate => {
                self.recovered.duplicates += 1;
                return Ok(());
            }
            Numbered::Anything => return task.received.insert(range.0, range.1).map_err(scattered),
            Numbered::Restart => {
                task.restart(number);
                task.sequence_sn = 0;
            }
            Numbered::New => task.renumber = false,
        }
        self.take_number(slot, number)?;
        let task = &mut self.tasks[slot];
        task.received.insert(range.0, range.1).map_err(scattered)?;
        task.data_ins += 1;
        if bhs.is_final() {
            (task.sequence_bytes, task.sequence_sn) = (0, number + 1);
        } else {
            task.sequence_bytes = task.sequence_bytes.saturating_add(bhs.data_segment_length());
        }
        let asked = bhs.flags() & ACKNOWLEDGE != 0;
        let Some(recovery) = task.recovery.as_deref_mut() else {
            if asked {
                self.acknowledge_data(slot, bhs.lun(), bhs.target_transfer_tag())?;
            }
            return Ok(());
        };
        recovery.note_sequence(number, bhs.is_final());
        if asked {
            recovery.acknowledge = Some((bhs.lun(), bhs.target_transfer_tag()));
        }
        self.check_whole(slot)
    }

    /// A new number of a task: what is missing before it is asked for.
    pub(super) fn take_number(&mut self, slot: Slot, number: u32) -> Result<(), Fatal> {
        let now = self.now;
        let task = &mut self.tasks[slot];
        if number == task.exp_data_sn && task.recovery.is_none() {
            task.exp_data_sn = number.wrapping_add(1);
            return Ok(());
        }
        self.note_numbers(slot, number)?;
        let task = &mut self.tasks[slot];
        let Some(recovery) = task.recovery.as_deref_mut() else { return Ok(()) };
        let was_missing = number < recovery.high();
        recovery.take(number).map_err(|_| gap("more than 256 runs of data of one task are missing"))?;
        task.exp_data_sn = recovery.next();
        if was_missing {
            (recovery.asked_at, recovery.tries) = (now, 0);
            self.recovered.data_recovered += 1;
        }
        Ok(())
    }

    /// When nothing is missing any more: the DataACK that waited (RFC 7143 11.16.2), then the status that waited (7.9).
    pub(super) fn check_whole(&mut self, slot: Slot) -> Result<(), Fatal> {
        let Some(recovery) = self.tasks[slot].recovery.as_deref_mut().filter(|r| r.is_whole()) else { return Ok(()) };
        recovery.whole = None;
        let ending = recovery.ending.clone();
        if let Some((lun, transfer_tag)) = recovery.acknowledge.take() {
            self.acknowledge_data(slot, lun, transfer_tag)?;
        }
        match ending {
            Some(ending) => self.finish(slot, ending),
            None => Ok(()),
        }
    }

    /// Whether a status says or implies that data was sent that did not come. Only asked when bytes are missing.
    pub(super) fn lacks_data(&self, slot: Slot, ending: &Ending) -> bool {
        let task = &self.tasks[slot];
        let open = task.recovery.as_deref().is_some_and(|r| r.snack_tag != 0 || !r.is_whole());
        open || self.sent_numbers(slot, ending) > task.exp_data_sn
    }

    /// The number after the last that the target used, by its status (11.4.8).
    fn sent_numbers(&self, slot: Slot, ending: &Ending) -> u32 {
        let task = &self.tasks[slot];
        if task.write_len == 0 {
            return ending.numbers;
        }
        // of a bidirectional command ExpDataSN counts Data-In, but R2Ts share the numbers (4.2.2.4)
        let lost = ending.numbers.saturating_sub(task.data_ins);
        task.exp_data_sn.saturating_add(if task.replay { lost.min(1) } else { lost })
    }

    /// Keeps a status until the data before it came; it is not acknowledged meanwhile (7.9 MUST NOT, 11.7.2).
    pub(super) fn wait_for_data(&mut self, slot: Slot, ending: Ending) -> Result<(), Fatal> {
        let conn = self.tasks[slot].conn;
        self.tasks[slot].renumber = false;
        self.hold_status(conn, ending.stat_sn);
        let high = self.sent_numbers(slot, &ending);
        let recovery = self.task_late(slot);
        recovery.ending = Some(ending);
        if recovery.snack_tag != 0 {
            return Ok(()); // asked for again at the timeout
        }
        self.note_numbers(slot, high)
    }
}
