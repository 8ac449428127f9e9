//! A delivered command: gates, decoding, checks, and the way up for what is not served here.

use blockwire_proto::Slot;
use blockwire_proto::target::{Residual, Task, TaskState};
use blockwire_wire::opcode::status;

use super::commands::{Block, ByteCheck, Known, known};
use super::context::Context;
use super::sense::Sense;
use super::work::Phase;
use crate::calls::Gate;
use crate::events::Event;

/// Untagged and SIMPLE (RFC 7143 11.3.1.2); every other attribute is the control plane's to order.
const SIMPLE: u8 = 1;

impl Context<'_> {
    fn task_of(&self, slot: Slot) -> Option<&Task> {
        self.session.proto.task(slot)
    }

    /// A SCSI command has its turn.
    #[inline]
    pub(super) fn command(&mut self, slot: Slot) {
        let Some(task) = self.session.proto.task(slot) else { return };
        let (generation, lun, attribute) = (task.generation, task.lun, task.attribute);
        let known = known(task.cdb.as_slice());
        let work = self.session.work_mut(slot);
        if work.generation != generation {
            work.begin(generation);
        }
        if !self.shared.aborts.is_empty() && self.abort_latecomer(slot) {
            return;
        }
        if self.refused(slot) {
            return;
        }
        let lun = self.session.find_lun(lun);
        if let Some(lun) = lun {
            self.session.luns[lun].users += 1;
            let work = self.session.work_mut(slot);
            work.lun = lun;
            work.uses_lun = true;
        }
        match (lun, known) {
            (Some(lun), Some(known)) if attribute <= SIMPLE => self.admit(slot, lun, known),
            _ => self.go_up(slot, false),
        }
    }

    /// Ends a task whose data was wrong or had no room. True when it did.
    fn refused(&mut self, slot: Slot) -> bool {
        let Some(task) = self.task_of(slot) else { return true };
        if let Some(condition) = task.out.condition {
            self.finish_sense(slot, Sense::Condition(condition));
            return true;
        }
        if self.session.work_of(slot).is_some_and(|w| w.no_room) {
            self.finish_status(slot, status::TASK_SET_FULL);
            return true;
        }
        false
    }

    /// Asks the gate of a served command.
    fn admit(&mut self, slot: Slot, lun: usize, known: Known) {
        match self.session.luns[lun].gate(known.class()) {
            Gate::Pass => self.execute(slot, lun, known),
            Gate::Hold => {
                self.session.work_mut(slot).phase = Phase::Held;
                self.session.luns[lun].held.push_back(slot);
            }
            Gate::Divert => self.go_up(slot, true),
            Gate::DivertOne => {
                self.session.luns[lun].diverted = true;
                self.session.work_mut(slot).picked = true;
                self.go_up(slot, true);
            }
        }
    }

    /// The gates of a logical unit changed: parked commands are looked at again, in order.
    pub(super) fn reconsider(&mut self, lun: usize) {
        self.session.luns[lun].diverted = false;
        let held = std::mem::take(&mut self.session.luns[lun].held);
        for slot in held {
            if self.session.work_of(slot).is_none_or(|w| w.phase != Phase::Held) {
                continue;
            }
            let found = self.task_of(slot).and_then(|t| known(t.cdb.as_slice()));
            if let Some(known) = found {
                self.admit(slot, lun, known);
            }
        }
    }

    /// Runs a command that the control plane gave back (`Resume`). False when it is none that can be run here.
    pub(super) fn resume(&mut self, slot: Slot) -> bool {
        let Some(task) = self.task_of(slot) else { return false };
        let found = known(task.cdb.as_slice());
        let Some(work) = self.session.work_of(slot) else { return false };
        let (uses_lun, lun) = (work.uses_lun, work.lun);
        match found {
            Some(known) if uses_lun && self.session.luns[lun].mapped => {
                self.execute(slot, lun, known);
                true
            }
            _ => false,
        }
    }

    /// Sends a command up, once the data that was announced is here.
    pub(super) fn go_up(&mut self, slot: Slot, diverted: bool) {
        self.keep_offered(slot);
        let Some(task) = self.session.proto.task(slot) else { return };
        if task.out.is_open() {
            self.session.work_mut(slot).phase = Phase::GoingUp(diverted);
            return;
        }
        if self.refused(slot) {
            return;
        }
        self.send_up(slot, diverted);
    }

    fn send_up(&mut self, slot: Slot, diverted: bool) {
        let tag = self.session.tag(slot);
        let Some(task) = self.session.proto.task(slot) else { return };
        let received = task
            .out
            .received
            .first_gap(0, u64::from(task.expected_write()))
            .map_or(task.expected_write(), |g| g.0 as u32);
        let data = self.session.work_of(slot).map_or_else(Vec::new, |w| w.copy_received(self.arena, received));
        self.shared.counters.other_commands += 1;
        self.events.push(Event::CommandForControl {
            session: self.session.id,
            cid: task.cid,
            tag,
            lun: task.lun,
            cdb: task.cdb.as_slice().to_vec(),
            attribute: task.attribute,
            initiator_task_tag: task.initiator_task_tag,
            cmd_sn: task.cmd_sn,
            expected_length: task.expected,
            read: task.read,
            write: task.write,
            data,
            diverted,
            bidirectional_read_length: task.bidirectional_read,
            immediate: task.immediate,
        });
        let work = self.session.work_mut(slot);
        work.phase = Phase::Control;
        work.picked = false;
    }

    /// A text, task management or logout request has its turn.
    pub(super) fn control_request(&mut self, slot: Slot) {
        let tag = self.session.tag(slot);
        let Some(task) = self.session.proto.task(slot) else { return };
        let generation = task.generation;
        self.events.push(Event::ControlPdu {
            session: self.session.id,
            cid: task.cid,
            header: task.header.0,
            data: task.control_data.clone(),
            tag,
            token: 0,
        });
        let work = self.session.work_mut(slot);
        work.begin(generation);
        work.phase = Phase::Control;
    }

    /// A sequence of Data-Out is complete.
    pub(super) fn data_out(&mut self, slot: Slot) {
        let Some(work) = self.session.work_of(slot) else { return };
        let (phase, abort) = (work.phase, work.abort);
        if phase != Phase::Run {
            self.keep_offered(slot);
        }
        if abort.is_some() {
            self.aborted_data_came(slot);
            return;
        }
        match phase {
            Phase::Done | Phase::Read | Phase::Idle => {}
            Phase::Held | Phase::Control => {
                self.refused(slot);
            }
            Phase::GoingUp(diverted) => self.go_up(slot, diverted),
            Phase::Collect(length) => self.collect(slot, length),
            Phase::Run => self.step(slot),
        }
    }

    /// Fetches the first `length` bytes of a command's data for the control plane, then sends it up again.
    pub(super) fn collect(&mut self, slot: Slot, length: u32) {
        let Some(task) = self.task_of(slot) else { return };
        let length = length.min(task.expected_write()).min(self.max_collect);
        let here = task.out.received.contains(0, u64::from(length)) && !task.out.is_open();
        let work = self.session.work_mut(slot);
        work.phase = Phase::Collect(length);
        work.collected = Some(length);
        if self.refused(slot) {
            return;
        }
        if here {
            self.send_up(slot, true);
        } else {
            self.solicit_more(slot, length);
        }
    }

    /// Decodes and starts a command.
    fn execute(&mut self, slot: Slot, lun: usize, known: Known) {
        let Some(task) = self.session.proto.task(slot) else { return };
        let (expected_read, expected_write) = (task.expected_read(), task.expected_write());
        debug_assert!(task.state == TaskState::Active);
        let unit = &self.session.luns[lun];
        if unit.closed {
            return self.finish_sense(slot, Sense::NotReady);
        }
        let mapping = &unit.mapping;
        let block_size = u64::from(mapping.block_size);
        let (read_only, can_unmap, max_blocks) = (mapping.read_only, mapping.can_unmap, mapping.max_transfer_blocks);
        let capacity = mapping.blocks;
        let block = match known.decode(task.cdb.as_slice()) {
            Ok(block) => block,
            Err(sense) => return self.finish_sense(slot, sense),
        };
        let in_range = |lba: u64, blocks: u64| lba.checked_add(blocks).is_some_and(|end| end <= capacity);
        // (first block, blocks, blocks of data moved, does it write)
        let (lba, blocks, data, changes) = match block {
            Block::TestUnitReady | Block::Flush => (0, 0, 0, false),
            Block::Read { lba, blocks } => (lba, u64::from(blocks), u64::from(blocks), false),
            Block::Write { lba, blocks, .. } => (lba, u64::from(blocks), u64::from(blocks), true),
            Block::XdWriteRead { lba, blocks, disable_write, .. } => {
                (lba, u64::from(blocks), u64::from(blocks), !disable_write)
            }
            Block::Verify { lba, blocks, check } => {
                let data = match check {
                    ByteCheck::Medium => 0,
                    ByteCheck::All => u64::from(blocks),
                    ByteCheck::One => u64::from(blocks > 0),
                };
                (lba, u64::from(blocks), data, false)
            }
            Block::WriteSame { lba, blocks, unmap, no_data } => {
                if unmap && !can_unmap && !read_only {
                    return self.finish_sense(slot, Sense::InvalidFieldInCdb { byte: 1, bit: Some(3) });
                }
                let blocks = if blocks == 0 { capacity.saturating_sub(lba) } else { blocks };
                (lba, blocks, u64::from(!no_data), true)
            }
            Block::Unmap { .. } => {
                if !can_unmap {
                    return self.go_up(slot, false);
                }
                (0, 0, 0, true)
            }
        };
        if changes && read_only {
            return self.finish_sense(slot, Sense::WriteProtected);
        }
        if !in_range(lba, blocks) {
            return self.finish_sense(slot, Sense::LbaOutOfRange(lba));
        }
        // the same number is MAXIMUM TRANSFER LENGTH and MAXIMUM WRITE SAME LENGTH of VPD page B0
        let length = if matches!(block, Block::WriteSame { .. }) { blocks } else { data };
        if max_blocks > 0 && length > u64::from(max_blocks) {
            let byte = match known.length() {
                6 => 4,
                10 => 7,
                12 => 6,
                32 => 28,
                _ => 10,
            };
            return self.finish_sense(slot, Sense::InvalidFieldInCdb { byte, bit: None });
        }
        let wanted = match block {
            Block::Unmap { list_length } => u64::from(list_length),
            _ => data * block_size,
        };
        let is_read = matches!(block, Block::Read { .. });
        let expected = if is_read { expected_read } else { expected_write };
        let wrong_length = match block {
            Block::WriteSame { no_data: false, .. } => u64::from(expected) != wanted,
            Block::Verify { check: ByteCheck::One, .. } => u64::from(expected) < wanted,
            _ => false,
        };
        if wrong_length {
            // a part of the block that is to be repeated means nothing
            return self.finish_sense(slot, Sense::InvalidFieldInCdb { byte: 0, bit: None });
        }
        let total = wanted.min(u64::from(expected)) as u32;
        let announced = self.session.proto.task(slot).map_or(0, |t| t.expected);
        let work = self.session.work_mut(slot);
        work.block = block;
        work.total = total;
        // a command whose announced direction is not its own moves nothing: all of it is an overflow (RFC 7143 11.4.5.2)
        work.residual = Residual::of(if wanted == 0 { announced } else { expected }, wanted);
        work.start = lba * block_size;
        work.range = blocks * block_size;
        if is_read {
            self.shared.counters.reads += 1;
            if total == 0 {
                return self.finish_good(slot);
            }
            self.session.work_mut(slot).phase = Phase::Read;
            self.start_read(slot);
        } else {
            if matches!(block, Block::Write { .. }) {
                self.shared.counters.writes += 1;
            } else {
                self.shared.counters.other_commands += 1;
            }
            self.session.work_mut(slot).phase = Phase::Run;
            self.step(slot);
        }
    }
}
