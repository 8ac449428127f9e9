//! Status: SCSI Response and status in Data-In, residuals.

use blockwire_wire::Bhs;
use blockwire_wire::bhs::{BIDI_OVERFLOW, BIDI_UNDERFLOW, OVERFLOW, UNDERFLOW};
use blockwire_wire::opcode::status;

use super::recovery::Ending;
use super::session::InitiatorSession;
use super::task::{Kind, Outcome, State};
use crate::endpoint::Fatal;
use crate::params::ConnIndex;
use crate::slab::Slot;

/// Neither defined nor vendor-specific (11.4.3).
const RESERVED_RESPONSES: std::ops::Range<u8> = 0x02..0x80;

/// Residual of a pair of bits and a count: positive underflow, negative overflow.
fn residual(over: bool, under: bool, count: u32) -> Result<i64, Fatal> {
    match (over, under) {
        (true, true) => Err(Fatal::violation("overflow and underflow in one response (RFC 7143 11.4.1)")),
        (true, false) => Ok(-i64::from(count)),
        (false, true) => Ok(i64::from(count)),
        (false, false) => Ok(0),
    }
}

impl InitiatorSession {
    /// Which task a SCSI Response ends; checked at its header.
    pub(super) fn check_response(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<Slot, Fatal> {
        let Some(slot) = self.tasks.find(bhs.initiator_task_tag()) else {
            return Err(Fatal::violation("SCSI Response for a task that is not in progress (RFC 7143 11.4)"));
        };
        let task = &self.tasks[slot];
        if !task.is_active_on(conn) {
            return Err(Fatal::violation(
                "SCSI Response on a connection that the task is not allegiant to (RFC 7143 4.2.2)",
            ));
        }
        if task.kind != Kind::Scsi {
            return Err(Fatal::violation("SCSI Response to a request that is no SCSI command (RFC 7143 11.4)"));
        }
        Ok(slot)
    }

    /// A SCSI Response is complete; `data` is its data segment.
    pub(super) fn on_response(&mut self, slot: Slot, bhs: &Bhs, data: &[u8]) -> Result<(), Fatal> {
        if self.tasks[slot].state == State::Ended {
            return Ok(());
        }
        if RESERVED_RESPONSES.contains(&bhs.response()) {
            return Err(Fatal::violation("a reserved Response code in a SCSI Response (RFC 7143 11, 11.4.3)"));
        }
        if bhs.response() != 0 {
            self.end(slot, Outcome::TargetFailure(bhs.response()));
            return Ok(());
        }
        let sense = match data {
            [] if bhs.status() == status::CHECK_CONDITION => {
                return Err(Fatal::violation("CHECK CONDITION without sense data (RFC 7143 7.7, 11.4.7)"));
            }
            [] => Vec::new(),
            [high, low, rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                let Some(sense) = rest.get(..length) else {
                    return Err(Fatal::violation("SenseLength beyond the data segment (RFC 7143 11.4.7.1)"));
                };
                sense.to_vec()
            }
            [_] => return Err(Fatal::violation("a data segment of one byte in a SCSI Response (RFC 7143 11.4.7)")),
        };
        let flags = bhs.flags();
        let counted = residual(flags & OVERFLOW != 0, flags & UNDERFLOW != 0, bhs.residual_count())?;
        let bidi =
            residual(flags & BIDI_OVERFLOW != 0, flags & BIDI_UNDERFLOW != 0, bhs.bidirectional_residual_count())?;
        let ending =
            Ending { stat_sn: bhs.stat_sn(), status: bhs.status(), counted, bidi, sense, numbers: bhs.exp_data_sn() };
        self.finish(slot, ending)
    }

    /// A Data-In with the S bit is complete (RFC 7143 11.7.3).
    #[inline]
    pub(super) fn on_status_in_data(&mut self, slot: Slot, bhs: &Bhs) -> Result<(), Fatal> {
        if bhs.status() == status::CHECK_CONDITION {
            return Err(Fatal::violation("CHECK CONDITION in a Data-In (RFC 7143 11.7)"));
        }
        let counted = residual(bhs.flags() & OVERFLOW != 0, bhs.flags() & UNDERFLOW != 0, bhs.residual_count())?;
        // it is the last of the numbers itself
        let numbers = bhs.data_sn().wrapping_add(1);
        let (stat_sn, status) = (bhs.stat_sn(), bhs.status());
        self.finish(slot, Ending { stat_sn, status, counted, bidi: 0, sense: Vec::new(), numbers })
    }

    /// Ends the task with its status. Bytes that should have come and did not are counted as underflow, so that nobody
    /// takes them for data. Above level 0 the status waits for data that was sent and did not come (RFC 7143 7.9, 11.4.8).
    pub(super) fn finish(&mut self, slot: Slot, ending: Ending) -> Result<(), Fatal> {
        let recovers = self.recovers();
        let task = &self.tasks[slot];
        let bidirectional = task.write_len > 0 && task.read_len > 0;
        let (mut residual, mut read_residual) = (ending.counted, if bidirectional { ending.bidi } else { 0 });
        if task.read_len > 0 {
            let missing = i64::from(task.read_len) - task.received.total() as i64;
            let reported = if bidirectional { &mut read_residual } else { &mut residual };
            if recovers && missing > (*reported).max(0) && self.lacks_data(slot, &ending) {
                return self.wait_for_data(slot, ending);
            }
            let task = &self.tasks[slot];
            if ending.status == status::GOOD && !task.received.contains(0, task.received.total()) {
                return Err(Fatal::violation("GOOD status with a hole in the data (RFC 7143 11.4.8)"));
            }
            // what lies behind a hole is of no use: only the first bytes count as come
            let missing = i64::from(task.read_len) - self.received_prefix(slot) as i64;
            // an overflow means that all of the buffer was filled (11.4.5.1): it does not excuse bytes that never came
            if missing > 0 || *reported >= 0 {
                *reported = (*reported).max(missing);
            }
        }
        let Ending { status, sense, .. } = ending;
        let task = &self.tasks[slot];
        if let Some(Some(connection)) = self.connections.get_mut(task.conn) {
            connection.settle(task.bhs.exp_stat_sn());
        }
        self.end(slot, Outcome::Status { status, residual, read_residual, sense });
        Ok(())
    }
}
