//! Data towards the target: unsolicited data, R2T, Data-Out.

use blockwire_wire::bhs::FINAL;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG};

use super::connection::Connection;
use super::late_data::Numbered;
use super::session::InitiatorSession;
use super::snack::gap;
use super::task::{Kind, State, Task};
use crate::endpoint::Fatal;
use crate::params::{ConnIndex, ConnectionParams, SessionParams, same_unit};
use crate::send_queue::{Direction, Payload};
use crate::slab::Slot;

/// Data-Out PDUs are made while fewer bytes than this wait in the send queue, so that commands of other tasks do not
/// wait behind megabytes.
const MARK: usize = 256 * 1024;

/// A run of Data-Out PDUs that ends with F: unsolicited, or the answer to one R2T.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    pub(super) slot: Slot,
    lun: u64,
    initiator_task_tag: u32,
    pub(super) target_transfer_tag: u32,
    offset: u32,
    end: u32,
    data_sn: u32,
}

impl Burst {
    pub fn unsolicited(slot: Slot, task: &Task, offset: u32, end: u32) -> Self {
        // the LUN field is reserved without a valid Target Transfer Tag (RFC 7143 11.7.3)
        let initiator_task_tag = task.tag();
        Self { slot, lun: 0, initiator_task_tag, target_transfer_tag: RESERVED_TAG, offset, end, data_sn: 0 }
    }
}

/// What goes out before the first R2T.
pub(super) struct Unsolicited {
    /// Bytes in the command PDU.
    pub immediate: u32,
    /// End of all unsolicited data.
    pub end: u32,
}

/// Longest data segment to send: whole words, so that only the last PDU is padded (RFC 7143 11.7: SHOULD).
fn segment(connection: &ConnectionParams) -> u32 {
    (connection.max_send_data_segment_length & !3).max(4)
}

/// Immediate data is bounded by FirstBurstLength and the segment; both kinds together by FirstBurstLength (13.10,
/// 13.11, 13.14).
pub(super) fn plan_unsolicited(session: &SessionParams, connection: &ConnectionParams, write_len: u32) -> Unsolicited {
    let first = session.first_burst_length.min(session.max_burst_length).min(write_len);
    let immediate = if session.immediate_data { first.min(segment(connection)) } else { 0 };
    Unsolicited { immediate, end: if session.initial_r2t { immediate } else { first } }
}

impl InitiatorSession {
    /// Checks an R2T and notes its burst (RFC 7143 11.8).
    pub(super) fn on_r2t(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<(), Fatal> {
        let Some(slot) = self.tasks.find(bhs.initiator_task_tag()) else {
            if self.connection(conn).snacked {
                self.recovered.duplicates += 1;
                return Ok(()); // a repetition that was asked for, after its task's end
            }
            return Err(Fatal::violation("R2T for a task that is not in progress (RFC 7143 11.8)"));
        };
        let recovers = self.recovers();
        let task = &mut self.tasks[slot];
        if !task.is_active_on(conn) {
            if task.conn == conn && task.state == State::Reassigning {
                task.missed = true;
                self.any_missed = true;
                return Ok(()); // the response to TASK REASSIGN is missing; asked for again after it
            }
            return Err(Fatal::violation("R2T on a connection that the task is not allegiant to (RFC 7143 4.2.2)"));
        }
        if task.state == State::Ended {
            return Ok(());
        }
        if task.kind != Kind::Scsi || task.write_len == 0 {
            return Err(Fatal::violation("R2T for a task that writes nothing (RFC 7143 11.8)"));
        }
        if !same_unit(bhs.lun(), task.bhs.lun()) {
            return Err(Fatal::violation("R2T with another LUN than that of its command (RFC 7143 4.2.5.3)"));
        }
        if bhs.target_transfer_tag() == RESERVED_TAG {
            return Err(Fatal::violation("R2T with the reserved Target Transfer Tag (RFC 7143 11.8.5)"));
        }
        let (offset, length) = (bhs.buffer_offset(), bhs.desired_data_transfer_length());
        if length == 0 {
            return Err(Fatal::violation("R2T for no data (RFC 7143 11.8.4)"));
        }
        if length > self.params.max_burst_length {
            return Err(Fatal::violation("R2T for more than MaxBurstLength (RFC 7143 11.8.4)"));
        }
        if u64::from(offset) + u64::from(length) > u64::from(task.write_len) {
            return Err(Fatal::violation("R2T beyond the end of the transfer (RFC 7143 11.8.4)"));
        }
        let number = bhs.data_sn();
        if number != task.exp_data_sn || task.recovery.is_some() || task.renumber {
            if !recovers {
                return Err(gap("R2TSN out of sequence (RFC 7143 11.8.2)"));
            }
            match task.number_is(number) {
                // 7.9: duplicate R2TSNs MUST be discarded
                Numbered::Duplicate => {
                    self.recovered.duplicates += 1;
                    return Ok(());
                }
                Numbered::Restart => task.restart(number),
                Numbered::New | Numbered::Anything => {}
            }
        }
        let whole = task.recovery.is_none() && number == task.exp_data_sn;
        // a recovery R2T asks for part of a burst once more, under the next R2TSN (11.8)
        let again = task.asked.overlaps(u64::from(offset), u64::from(length));
        if again && !recovers {
            return Err(Fatal::violation("R2T for bytes that were sent already (RFC 7143 11.8)"));
        }
        let next = task.asked.first_gap(0, u64::from(task.write_len)).map_or(0, |gap| gap.0);
        if self.params.data_sequence_in_order && !again && !task.replay && whole && u64::from(offset) != next {
            return Err(Fatal::violation("R2T out of order with DataSequenceInOrder=Yes (RFC 7143 13.19)"));
        }
        // one that is repeated may still be in the middle of being answered
        let most = self.params.max_outstanding_r2t * if again { 2 } else { 1 };
        if task.outstanding_r2t >= most {
            return Err(Fatal::violation("more R2Ts than MaxOutstandingR2T (RFC 7143 13.17)"));
        }
        if task.asked.insert(u64::from(offset), u64::from(length)).is_err() {
            return Err(Fatal::violation("R2Ts too scattered to keep track of"));
        }
        self.take_number(slot, number)?;
        self.check_whole(slot)?;
        let task = &mut self.tasks[slot];
        if task.aborting || task.state != State::Active {
            return Ok(());
        }
        task.outstanding_r2t += 1;
        let burst = Burst {
            slot,
            lun: bhs.lun(),
            initiator_task_tag: bhs.initiator_task_tag(),
            target_transfer_tag: bhs.target_transfer_tag(),
            offset,
            end: offset + length,
            data_sn: 0,
        };
        let is_held = task.is_quiet;
        self.connection(conn).add_burst(burst, is_held);
        Ok(())
    }

    /// Makes Data-Out PDUs while the send queue is short.
    #[inline]
    pub(super) fn pump(&mut self, conn: ConnIndex) {
        let Some(Some(connection)) = self.connections.get_mut(conn) else { return };
        while !connection.bursts.is_empty() && connection.queue.unsent_bytes() < MARK {
            let slot = connection.bursts[0].slot;
            let task = &mut self.tasks[slot];
            task.holds += 1;
            let solicited = connection.bursts[0].target_transfer_tag != RESERVED_TAG;
            if connection.queue_data_out() && solicited {
                task.outstanding_r2t = task.outstanding_r2t.saturating_sub(1);
            }
        }
    }

    /// Forgets the bursts of a task and takes its unbegun Data-Out PDUs back. The command PDU stays: its CmdSN is used.
    pub(super) fn drop_data_out(&mut self, slot: Slot) {
        let conn = self.tasks[slot].conn;
        let Some(Some(connection)) = self.connections.get_mut(conn) else { return };
        if !connection.bursts.is_empty() {
            connection.bursts.retain(|burst| burst.slot != slot);
        }
        if !connection.held.is_empty() {
            connection.held.retain(|burst| burst.slot != slot);
        }
        let task = &mut self.tasks[slot];
        if task.holds == 0 {
            return;
        }
        let mut dropped = 0;
        let is_data = |pdu: &crate::OutPdu| pdu.slot == Some(slot) && pdu.header_bytes()[0] == Opcode::DataOut as u8;
        connection.queue.drop_unsent(is_data, |_| dropped += 1);
        task.holds -= dropped;
    }
}

impl Connection {
    /// Queues one Data-Out of the burst in front; true when that was its last.
    fn queue_data_out(&mut self) -> bool {
        let segment = segment(&self.params);
        let burst = &mut self.bursts[0];
        let length = (burst.end - burst.offset).min(segment);
        let last = burst.offset + length == burst.end;
        let mut bhs = Bhs::new(Opcode::DataOut, if last { FINAL } else { 0 });
        bhs.set_lun(burst.lun);
        bhs.set_initiator_task_tag(burst.initiator_task_tag);
        bhs.set_target_transfer_tag(burst.target_transfer_tag);
        bhs.set_exp_stat_sn(self.exp_stat_sn);
        bhs.set_data_sn(burst.data_sn);
        bhs.set_buffer_offset(burst.offset);
        let payload = Payload::Task { slot: burst.slot, direction: Direction::Out, offset: burst.offset, len: length };
        let slot = burst.slot;
        burst.offset += length;
        burst.data_sn += 1;
        self.queue.push(bhs, payload, Some(slot), 0);
        if last {
            self.bursts.pop_front();
        }
        last
    }
}
