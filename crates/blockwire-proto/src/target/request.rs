//! New tasks: SCSI commands, and requests that the control plane answers.

use blockwire_wire::bhs::{FINAL, READ, WRITE};
use blockwire_wire::opcode::reject;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG, serial};

use super::connection::Inbound;
use super::session::{TargetEvent, TargetSession};
use super::task::{Cdb, Condition, InProgress, OutProgress, Task, TaskKind, TaskState};
use crate::endpoint::{Destination, Fatal};
use crate::order::Entry;
use crate::params::ConnIndex;
use crate::slab::Slot;
use crate::window::Position;

/// AHSType of an extended CDB (11.2.2.1).
const AHS_EXTENDED_CDB: u8 = 1;
/// AHSType of the expected bidirectional read length.
const AHS_BIDIRECTIONAL_READ: u8 = 2;

const TAG_IN_USE: &str = "an Initiator Task Tag that is in use (RFC 7143 11.2.1.8)";
const TOO_MANY_IMMEDIATE: &str = "too many immediate commands (RFC 7143 4.2.2.1)";
const TOO_MUCH_KEPT: &str = "more text and ping data than is kept for one session (RFC 7143 11.17.1)";

/// Bytes of the longest CDB (SPC-4 4.2.3).
const MAX_CDB: usize = 260;

/// What the additional header segments say (11.2.2).
#[derive(Debug, Default, PartialEq, Eq)]
struct Additional<'a> {
    cdb: &'a [u8],
    bidirectional_read: Option<u32>,
    /// There is one of a type that is not defined.
    unknown: bool,
}

/// Highest task attribute that is defined, ACA (11.3.1).
const LAST_ATTRIBUTE: u8 = 4;

fn refused(reason: u8, what: &'static str) -> (Inbound, Destination) {
    (Inbound::Reject(reason, what), Destination::Discard)
}

/// Reads the AHS chain.
fn additional(ahs: &[u8]) -> Result<Additional<'_>, Fatal> {
    let bad = || Fatal::violation("malformed additional header segment (RFC 7143 7.7, 11.2.2)");
    let mut out = Additional::default();
    let mut rest = ahs;
    while !rest.is_empty() {
        // AHSLength, AHSType, and AHSLength bytes of which the first is AHS-specific, padded to a word
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let kind = rest[2] & 0x3f;
        if length == 0 || rest.len() < 3 + length {
            return Err(bad());
        }
        let body = &rest[4..3 + length];
        match kind {
            // 11.2.2.3: a CDB has 260 bytes at the most
            AHS_EXTENDED_CDB if out.cdb.is_empty() && !body.is_empty() && body.len() <= MAX_CDB - 16 => out.cdb = body,
            AHS_BIDIRECTIONAL_READ if out.bidirectional_read.is_none() && length == 5 => {
                out.bidirectional_read = Some(u32::from_be_bytes([body[0], body[1], body[2], body[3]]));
            }
            AHS_EXTENDED_CDB | AHS_BIDIRECTIONAL_READ => return Err(bad()),
            _ => out.unknown = true,
        }
        let total = (3 + length).next_multiple_of(4);
        rest = rest.get(total..).ok_or_else(bad)?;
    }
    Ok(out)
}

impl TargetSession {
    /// Whether a request may enter: its tag is free, its number in the window, immediate ones within their bound.
    fn admit(&mut self, conn: ConnIndex, bhs: &Bhs) -> Option<Inbound> {
        let tag = bhs.initiator_task_tag();
        if tag == RESERVED_TAG {
            let what = "a request with the reserved Initiator Task Tag (RFC 7143 11.2.1.8)";
            return Some(Inbound::Reject(reject::INVALID_PDU_FIELD, what));
        }
        // 4.2.2.1: the test for an execution state by tag precedes any other action
        if let Some(slot) = self.tags.get(tag)
            && !self.free_answered(slot, bhs)
        {
            let task = &self.tasks[slot];
            let retry = !bhs.is_immediate() && !task.immediate && task.cmd_sn == bhs.cmd_sn();
            return Some(if retry { Inbound::Ignore } else { Inbound::Reject(reject::TASK_IN_PROGRESS, TAG_IN_USE) });
        }
        if bhs.is_immediate() {
            if self.immediate_commands >= self.limits.immediate_commands {
                return Some(Inbound::Reject(reject::IMMEDIATE_COMMAND_REJECT, TOO_MANY_IMMEDIATE));
            }
            return None;
        }
        match self.window.position(bhs.cmd_sn()) {
            Position::Outside => {
                // on the wire it is ignored; one below the window is a repetition that came late
                if serial::less_than(self.window.max_cmd_sn(), bhs.cmd_sn()) {
                    let what = "a CmdSN above the window, ignored (RFC 7143 4.2.2.1)";
                    self.events.push_back(TargetEvent::Violation { conn, what, header: *bhs });
                }
                Some(Inbound::Ignore)
            }
            Position::Ahead(ahead) if self.order.get(ahead) != Entry::Missing => Some(Inbound::Ignore),
            Position::Ahead(_) => None,
        }
    }

    /// Above error recovery level 0 an answer is kept until it is acknowledged, and the initiator may use the tag again when it
    /// has the answer (11.2.1.8): with the very request that acknowledges it, or before that on another connection. True: the
    /// tag is free.
    fn free_answered(&mut self, slot: Slot, bhs: &Bhs) -> bool {
        let task = &self.tasks[slot];
        if task.state != TaskState::Responded || task.frozen {
            return false;
        }
        let left = self.conns[task.conn].as_ref().is_some_and(|c| serial::less_than(task.stat_sn, c.sent_stat_sn));
        let is_new = bhs.is_immediate()
            || matches!(self.window.position(bhs.cmd_sn()), Position::Ahead(at) if self.order.get(at) == Entry::Missing);
        if left && is_new {
            let tag = task.initiator_task_tag;
            self.tasks[slot].nameless = true;
            self.tags.remove(tag);
        }
        left && is_new
    }

    fn new_task(&mut self, conn: ConnIndex, kind: TaskKind, bhs: &Bhs) -> Task {
        let cid = self.conn(conn).params.cid;
        let immediate = bhs.is_immediate();
        if immediate {
            self.immediate_commands += 1;
        }
        Task {
            kind,
            state: TaskState::Receiving,
            generation: self.next_generation(),
            initiator_task_tag: bhs.initiator_task_tag(),
            nameless: false,
            conn,
            cid,
            frozen: false,
            lun: bhs.lun(),
            cmd_sn: bhs.cmd_sn(),
            immediate,
            attribute: bhs.task_attribute(),
            read: false,
            write: false,
            cdb: Cdb::default(),
            expected: 0,
            bidirectional_read: 0,
            out: OutProgress::default(),
            data_in: InProgress::default(),
            finish: None,
            parked_control: None,
            fenced: false,
            reassigns: false,
            close_after: false,
            counted: false,
            stat_sn: 0,
            snack_tag: 0,
            resent: false,
            header: *bhs,
            control_data: Vec::new(),
        }
    }

    fn insert_task(&mut self, task: Task) -> Slot {
        let tag = task.initiator_task_tag;
        let slot = self.tasks.insert(task);
        self.tags.insert(tag, slot);
        slot
    }

    /// The data that follows a command which is ignored is ignored as well; of a retry it came already (7.2.1).
    fn ignore_unsolicited(&mut self, conn: ConnIndex, bhs: &Bhs) {
        match self.tags.get(bhs.initiator_task_tag()) {
            Some(slot) => self.tasks[slot].out.unsolicited_retired = true,
            None => self.note_late(bhs.initiator_task_tag(), conn, bhs.lun()),
        }
    }

    pub(super) fn scsi_command_header(&mut self, conn: ConnIndex, bhs: &Bhs) -> Result<(Inbound, Destination), Fatal> {
        if let Some(refused) = self.admit(conn, bhs) {
            if refused == Inbound::Ignore && !bhs.is_final() {
                self.ignore_unsolicited(conn, bhs);
            }
            return Ok((refused, Destination::Discard));
        }
        let flags = bhs.flags();
        let (read, write, last) = (flags & READ != 0, flags & WRITE != 0, flags & FINAL != 0);
        if !last && !write {
            // F=0 announces unsolicited data, which only a write has (11.3.1)
            return Ok(refused(
                reject::INVALID_PDU_FIELD,
                "a SCSI Command with neither the F nor the W bit (RFC 7143 11.3.1)",
            ));
        }
        if !read && !write && bhs.expected_data_transfer_length() > 0 {
            let what = "a transfer length with neither the R nor the W bit (RFC 7143 11.3.1)";
            return Ok(refused(reject::INVALID_PDU_FIELD, what));
        }
        if bhs.task_attribute() > LAST_ATTRIBUTE {
            return Ok(refused(reject::PROTOCOL_ERROR, "a reserved task attribute (RFC 7143 11, 11.3.1)"));
        }
        let mut cdb_rest = Cdb::default();
        let mut bidirectional_read = 0;
        if bhs.ahs_len() > 0 {
            let ahs = additional(self.conn(conn).deframer.ahs())?;
            if ahs.unknown {
                return Ok(refused(reject::PROTOCOL_ERROR, "a reserved AHSType (RFC 7143 11, 11.2.2.1)"));
            }
            bidirectional_read = ahs.bidirectional_read.unwrap_or(0);
            cdb_rest = Cdb::new(*bhs.cdb(), ahs.cdb);
        }
        let mut task = self.new_task(conn, TaskKind::Scsi, bhs);
        task.read = read;
        task.write = write;
        task.cdb = if bhs.ahs_len() > 0 { cdb_rest } else { Cdb::new(*bhs.cdb(), &[]) };
        task.expected = bhs.expected_data_transfer_length();
        task.bidirectional_read = if read && write { bidirectional_read } else { 0 };
        let length = bhs.data_segment_length();
        let mut keep = true;
        let mut wrong = None;
        if length > 0 {
            let most = task.expected_write().min(self.params.first_burst_length);
            if !write || !self.params.immediate_data {
                task.out.condition = Some(Condition::UnexpectedUnsolicitedData);
                wrong = Some("immediate data where there may be none (RFC 7143 13.11)");
                keep = false;
            } else if length > most {
                task.out.condition = Some(Condition::IncorrectAmountOfData);
                wrong = Some("more immediate data than FirstBurstLength or the transfer (RFC 7143 11.3.4, 13.14)");
                keep = false;
            }
        }
        if !last {
            task.out.unsolicited_open = true;
            task.out.unsolicited_next = length;
            task.out.heard = self.now;
            if self.params.initial_r2t {
                task.out.condition = Some(Condition::UnexpectedUnsolicitedData);
                wrong = Some("unsolicited data is announced although InitialR2T=Yes (RFC 7143 13.10)");
            }
            self.watch_data(conn);
        }
        if let Some(what) = wrong {
            self.events.push_back(TargetEvent::Violation { conn, what, header: *bhs });
        }
        let slot = self.insert_task(task);
        let destination = if keep { Self::task_destination(slot, 0) } else { Destination::Discard };
        Ok((Inbound::Request(slot), destination))
    }

    pub(super) fn control_header(&mut self, conn: ConnIndex, bhs: &Bhs) -> (Inbound, Destination) {
        if let Some(refused) = self.admit(conn, bhs) {
            return (refused, Destination::Discard);
        }
        let length = bhs.data_segment_length();
        if length > 0 && bhs.opcode() != Some(Opcode::TextRequest) {
            return refused(
                reject::INVALID_PDU_FIELD,
                "a data segment in a request that has none (RFC 7143 11.5, 11.14)",
            );
        }
        if self.control_bytes.saturating_add(length) > self.limits.control_bytes {
            // nothing was made of it: the initiator may send it again (7.3)
            return refused(reject::LONG_OPERATION_REJECT, TOO_MUCH_KEPT);
        }
        let task = self.new_task(conn, TaskKind::Control, bhs);
        (Inbound::Request(self.insert_task(task)), Destination::Control)
    }

    /// A NOP-Out (11.18): the answer to our ping, a ping for now, or one in command order.
    pub(super) fn nop_header(&mut self, conn: ConnIndex, bhs: &Bhs) -> (Inbound, Destination) {
        if bhs.initiator_task_tag() == RESERVED_TAG {
            if !bhs.is_immediate() {
                let what = "a NOP-Out without an Initiator Task Tag that is not immediate (RFC 7143 11.18.1)";
                return refused(reject::INVALID_PDU_FIELD, what);
            }
            return (Inbound::Nop, Destination::Discard);
        }
        if bhs.is_immediate() {
            let limit = self.limits.side_answers / 2;
            if self.conn(conn).side_answers >= limit || self.has_much_to_send(conn, bhs) {
                return refused(reject::IMMEDIATE_COMMAND_REJECT, TOO_MANY_IMMEDIATE);
            }
            if self.tags.get(bhs.initiator_task_tag()).is_some_and(|slot| !self.free_answered(slot, bhs)) {
                return refused(reject::TASK_IN_PROGRESS, TAG_IN_USE);
            }
            return (Inbound::Nop, Destination::Control);
        }
        if let Some(refused) = self.admit(conn, bhs) {
            return (refused, Destination::Discard);
        }
        if self.control_bytes.saturating_add(bhs.data_segment_length()) > self.limits.control_bytes
            || self.has_much_to_send(conn, bhs)
        {
            return refused(reject::LONG_OPERATION_REJECT, TOO_MUCH_KEPT);
        }
        let task = self.new_task(conn, TaskKind::Nop, bhs);
        (Inbound::Request(self.insert_task(task)), Destination::Control)
    }

    /// Ping data that the peer does not read back must not pile up.
    fn has_much_to_send(&mut self, conn: ConnIndex, bhs: &Bhs) -> bool {
        let limit = self.limits.control_bytes as usize;
        bhs.data_segment_length() > 0 && self.conn(conn).queue.unsent_bytes() > limit
    }

    /// The PDU of a request is complete and right.
    pub(super) fn request_complete(&mut self, slot: Slot, control: &[u8]) {
        let task = &mut self.tasks[slot];
        if task.kind == TaskKind::Scsi {
            let length = task.header.data_segment_length();
            if length > 0 && task.out.condition != Some(Condition::IncorrectAmountOfData) && task.write {
                // one run in an empty set always fits
                let _ = task.out.received.insert(0, u64::from(length));
            }
        } else if !control.is_empty() {
            task.control_data = control.to_vec();
            self.control_bytes += control.len() as u32;
        }
        self.enter(slot);
    }

    /// A request whose PDU was damaged was never here.
    pub(super) fn forget_request(&mut self, slot: Slot) {
        let Some(task) = self.tasks.get(slot) else {
            return;
        };
        if task.immediate {
            self.immediate_commands -= 1;
        }
        if task.out.unsolicited_open {
            let (tag, conn, lun) = (task.initiator_task_tag, task.conn, task.lun);
            self.note_late(tag, conn, lun);
        }
        self.release(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_chain_of_additional_headers() {
        // 11.2.2.3: a 20-byte CDB has AHSLength 5 = 4 CDB bytes and the reserved one; 11.2.2.4: AHSLength 5, type 2
        let ahs = [0, 5, 1, 0, 0xaa, 0xbb, 0xcc, 0xdd, 0, 5, 2, 0, 0, 0, 0x10, 0];
        let read = additional(&ahs).expect("well formed");
        assert_eq!(read.cdb, [0xaa, 0xbb, 0xcc, 0xdd]);
        assert_eq!(read.bidirectional_read, Some(0x1000));
        assert!(additional(&[0, 9, 1, 0, 1, 2, 3, 4]).is_err());
        assert!(additional(&[0, 0, 1, 0]).is_err());
        assert!(additional(&[0, 1, 0x3f, 0]).expect("well formed").unknown);
    }
}
