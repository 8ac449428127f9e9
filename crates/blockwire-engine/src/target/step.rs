//! Commands that take data or work on a range: fetched, then done step by step, one store operation at a time.

use blockwire_proto::Slot;
use blockwire_store::{IoVec, IoVecs, Op, Outcome};
use blockwire_wire::opcode::status;

use super::commands::{Block, ByteCheck, unmap_ranges};
use super::context::Context;
use super::sense::Sense;
use super::work::{PIECE, Phase, Stage};
use crate::buffers::SEGMENT;

/// A large write goes to the store in parts of at least this length, so that its memory is free early.
pub(super) const CHUNK: u64 = 1 << 20;

/// What a command needs next.
pub(super) enum Next {
    /// Data, memory or a store operation is waited for.
    Wait,
    Good,
    Sense(Sense),
    Op(Op),
    /// As `Op`, of which is known that nobody has locked its range.
    Free(Op),
}

impl Context<'_> {
    /// Goes on with a command as far as it goes now.
    pub(super) fn step(&mut self, slot: Slot) {
        loop {
            let Some(work) = self.session.work_of(slot) else { return };
            if work.phase != Phase::Run || work.operation > 0 || work.abort.is_some() {
                return;
            }
            let next = self.next(slot);
            match next {
                Next::Wait => return,
                Next::Good => return self.finish_good(slot),
                Next::Sense(sense) => return self.finish_sense(slot, sense),
                Next::Op(op) if op.changes() && self.is_locked_out(slot, &op) => return,
                Next::Op(op) | Next::Free(op) => {
                    if op.changes()
                        && let Some((start, len)) = op.range()
                    {
                        let store = self.session.luns[self.session.work[slot.0 as usize].lun].handle().id;
                        self.about_to_change(store, start, start + len);
                    }
                    match self.submit(slot, op) {
                        None => {
                            debug_assert!(self.offered.is_none(), "a store with a mapping writes inline");
                            return;
                        }
                        Some(outcome) => {
                            if !self.apply(slot, outcome) {
                                return;
                            }
                        }
                    }
                }
            }
        }
    }

    /// The store answered a command of this kind.
    pub(super) fn step_done(&mut self, slot: Slot, outcome: Outcome) {
        if self.apply(slot, outcome) {
            self.step(slot);
        }
        self.wake_task(slot);
    }

    fn next(&mut self, slot: Slot) -> Next {
        let Some(task) = self.session.proto.task(slot) else { return Next::Wait };
        if let Some(condition) = task.out.condition {
            return Next::Sense(Sense::Condition(condition));
        }
        let Some(work) = self.session.work_of(slot) else { return Next::Wait };
        if self.session.luns[work.lun].closed {
            return Next::Sense(Sense::NotReady);
        }
        if work.no_room {
            self.finish_status(slot, status::TASK_SET_FULL);
            return Next::Wait;
        }
        let (total, block) = (work.total, work.block);
        if !task.out.received.contains(0, u64::from(total)) && !task.out.unsolicited_open {
            self.solicit_more(slot, total);
        }
        match block {
            Block::TestUnitReady | Block::Read { .. } => Next::Good,
            Block::Flush => {
                let work = self.session.work_mut(slot);
                if std::mem::replace(&mut work.done, 1) == 0 { Next::Op(Op::Flush) } else { Next::Good }
            }
            Block::Write { fua, compare, .. } => self.next_chunk(slot, Some(fua), compare),
            Block::XdWriteRead { fua, disable_write, .. } => self.next_xor(slot, fua, disable_write),
            Block::Verify { check: ByteCheck::All, .. } => self.next_chunk(slot, None, true),
            Block::Verify { check: ByteCheck::Medium, .. } => {
                if self.session.luns[self.session.work[slot.0 as usize].lun].store().mapping().is_some() {
                    return Next::Good; // memory has no medium to check
                }
                self.next_range_read(slot)
            }
            Block::Verify { check: ByteCheck::One, .. } => {
                if self.all_here(slot) {
                    self.next_range_read(slot)
                } else {
                    Next::Wait
                }
            }
            Block::WriteSame { unmap, no_data, .. } => {
                if self.all_here(slot) {
                    self.next_same(slot, unmap, no_data)
                } else {
                    Next::Wait
                }
            }
            Block::Unmap { .. } => {
                if self.all_here(slot) {
                    self.next_unmap(slot)
                } else {
                    Next::Wait
                }
            }
        }
    }

    /// All data that the command takes was received and is in memory. The task ends when there was no room for it.
    pub(super) fn all_here(&mut self, slot: Slot) -> bool {
        self.keep_offered(slot);
        if self.session.work_of(slot).is_some_and(|w| w.no_room) {
            self.finish_status(slot, status::TASK_SET_FULL);
            return false;
        }
        let total = self.session.work_of(slot).map_or(0, |w| w.total);
        self.session.proto.task(slot).is_some_and(|t| t.out.received.contains(0, u64::from(total)))
    }

    /// The next part of a transfer: written, compared with the store, or both.
    fn next_chunk(&mut self, slot: Slot, write: Option<bool>, compare: bool) -> Next {
        let Some(task) = self.session.proto.task(slot) else { return Next::Wait };
        let work = &self.session.work[slot.0 as usize];
        let (done, total, start, lun) = (work.done, u64::from(work.total), work.start, work.lun);
        if done == total {
            return Next::Good;
        }
        if work.stage == Stage::Compare {
            let (from, to) = (work.compared, work.running_to);
            return self.read_for_comparison(slot, start + from, (to - from).min(u64::from(PIECE)));
        }
        let here = task.out.received.first_gap(done, total).map_or(total, |gap| gap.0);
        if here < total && here - done < CHUNK {
            return Next::Wait;
        }
        let unit = &self.session.luns[lun];
        let (durable, can_flush) = (!unit.mapping.write_cache, unit.can_flush);
        let Some(fua) = write else {
            let work = self.session.work_mut(slot);
            work.running_to = here;
            work.compared = done;
            work.stage = Stage::Compare;
            return self.next_chunk(slot, None, compare);
        };
        let fua = (fua || durable) && can_flush;
        if let Some((offered, 0, base, len)) = self.offered
            && offered == slot
            && done == 0
            && here == total
            && total <= u64::from(len)
            && !fua
            && !compare
            && self.session.luns[lun].store().mapping().is_some()
            && self.session.luns[lun].handle().locks.is_free()
        {
            self.offered = None;
            self.session.work_mut(slot).running_to = total;
            // SAFETY: the bytes lie in the receive buffer until the PDU at hand is done with; a store with a mapping carries out a write
            // that need not be durable before `submit` returns.
            let src = unsafe { IoVecs::single(base.cast_mut(), total as usize) };
            return Next::Free(Op::Write { offset: start, src, fua });
        }
        self.keep_offered(slot);
        let work = self.session.work_mut(slot);
        if work.no_room {
            self.finish_status(slot, status::TASK_SET_FULL);
            return Next::Wait;
        }
        work.running_to = here;
        match self.received_vectors(slot, done, here) {
            Some(src) => Next::Op(Op::Write { offset: start + done, src, fua }),
            None => Next::Sense(Sense::InternalFailure),
        }
    }

    /// Received data as the source of a write; None where it has no memory.
    pub(super) fn received_vectors(&self, slot: Slot, from: u64, to: u64) -> Option<IoVecs> {
        let work = self.session.work_of(slot)?;
        let mut src = IoVecs::new();
        let mut at = from;
        while at < to {
            let part = work.received_part(self.arena, at as u32, (to - at) as u32)?;
            // SAFETY: the task (or the operation, should the task end) holds the segment until the completion, and what was received is
            // not written to again.
            src.push(unsafe { IoVec::new(part.base(), part.len()) });
            at += part.len() as u64;
        }
        Some(src)
    }

    pub(super) fn read_for_comparison(&mut self, slot: Slot, offset: u64, len: u64) -> Next {
        self.keep_offered(slot);
        let work = self.session.work_mut(slot);
        if work.no_room {
            self.finish_status(slot, status::TASK_SET_FULL);
            return Next::Wait;
        }
        if !self.arena.allocate_list(len as usize, &mut work.scratch) {
            self.wait_for_memory(slot);
            return Next::Wait;
        }
        let mut dst = IoVecs::new();
        for extent in &work.scratch {
            // SAFETY: held by the task, or by the operation, until the completion.
            dst.push(unsafe { IoVec::new(self.arena.pointer(*extent), extent.len as usize) });
        }
        Next::Op(Op::Read { offset, dst })
    }

    /// The next part of a range that is read, to be checked or compared with one block.
    fn next_range_read(&mut self, slot: Slot) -> Next {
        let work = self.session.work_mut(slot);
        let (done, range, start, lun) = (work.done, work.range, work.start, work.lun);
        if done == range {
            return Next::Good;
        }
        let block = u64::from(self.session.luns[lun].mapping.block_size);
        let len = (range - done).min(u64::from(PIECE) / block * block);
        self.session.work_mut(slot).running_to = done + len;
        self.read_for_comparison(slot, start + done, len)
    }

    /// The next part of a WRITE SAME.
    fn next_same(&mut self, slot: Slot, unmap: bool, no_data: bool) -> Next {
        let work = &self.session.work[slot.0 as usize];
        let (done, range, start, total, lun) = (work.done, work.range, work.start, work.total, work.lun);
        if done == range {
            return Next::Good;
        }
        let unit = &self.session.luns[lun];
        let fua = !unit.mapping.write_cache && unit.can_flush;
        let block = work.copy_received(self.arena, total);
        // UNMAP set: the range is unmapped and reads as zeros. SBC-4 would have other data written instead; LIO unmaps too, and
        // libiscsi's suite asks for it.
        if no_data || unmap || block.iter().all(|b| *b == 0) {
            let work = self.session.work_mut(slot);
            work.running_to = range;
            return Next::Op(Op::Zero { offset: start, len: range, may_unmap: unmap, fua });
        }
        if self.session.work[slot.0 as usize].scratch.is_empty() {
            let copies = (SEGMENT / block.len()).max(1) * block.len();
            let work = self.session.work_mut(slot);
            if !self.arena.allocate_list(copies.min(SEGMENT), &mut work.scratch) {
                self.wait_for_memory(slot);
                return Next::Wait;
            }
            let to = self.arena.pointer(work.scratch[0]);
            for at in (0..copies).step_by(block.len()) {
                // SAFETY: `copies` bytes of a fresh extent are this task's.
                unsafe { std::ptr::copy_nonoverlapping(block.as_ptr(), to.add(at), block.len()) };
            }
        }
        let work = self.session.work_mut(slot);
        let extent = work.scratch[0];
        let mut src = IoVecs::new();
        let mut left = (range - done).min(CHUNK);
        let len = left;
        while left > 0 {
            let n = left.min(u64::from(extent.len));
            // SAFETY: held until the completion; a write only reads it, so that naming it several times is fine.
            src.push(unsafe { IoVec::new(self.arena.pointer(extent), n as usize) });
            left -= n;
        }
        work.running_to = done + len;
        Next::Op(Op::Write { offset: start + done, src, fua })
    }

    /// The next range of an UNMAP; `done` counts ranges.
    fn next_unmap(&mut self, slot: Slot) -> Next {
        let work = &self.session.work[slot.0 as usize];
        let (done, total, lun) = (work.done, work.total, work.lun);
        let (capacity, block, can_punch, fua) = {
            let unit = &self.session.luns[lun];
            let fua = !unit.mapping.write_cache && unit.can_flush;
            (unit.mapping.blocks, u64::from(unit.mapping.block_size), unit.can_punch, fua)
        };
        if done == 0 {
            let list = work.copy_received(self.arena, total);
            let ranges = match unmap_ranges(&list) {
                Ok(ranges) => ranges,
                Err(sense) => return Next::Sense(sense),
            };
            // all are checked before the first is done
            for (lba, blocks) in &ranges {
                if lba.checked_add(*blocks).is_none_or(|end| end > capacity) {
                    return Next::Sense(Sense::LbaOutOfRange(*lba));
                }
            }
            self.session.work_mut(slot).ranges = ranges;
        }
        let work = self.session.work_mut(slot);
        let Some(&(lba, blocks)) = work.ranges.get(done as usize) else { return Next::Good };
        work.running_to = done + 1;
        let (offset, len) = (lba * block, blocks * block);
        // without a write cache what is unmapped is so on stable storage when the answer goes
        Next::Op(if can_punch && !fua {
            Op::Punch { offset, len }
        } else {
            Op::Zero { offset, len, may_unmap: true, fua }
        })
    }

    /// Takes the outcome of an operation; false when the command ended.
    fn apply(&mut self, slot: Slot, outcome: Outcome) -> bool {
        let work = self.session.work_mut(slot);
        let (block, lun, start, done) = (work.block, work.lun, work.start, work.done);
        if let Err(error) = outcome {
            work.free_scratch(self.arena);
            self.tell_fault(lun, &error);
            let size = u64::from(self.session.luns[lun].mapping.block_size.max(1));
            let writes = !matches!(block, Block::Verify { .. });
            let lba = match block {
                Block::Unmap { .. } => self.session.work[slot.0 as usize].ranges.get(done as usize).map_or(0, |r| r.0),
                _ => (start + done) / size,
            };
            self.finish_sense(slot, Sense::of_store(&error, writes, lba));
            return false;
        }
        match block {
            Block::Write { compare: true, .. } if work.stage == Stage::Main => {
                work.stage = Stage::Compare;
                work.compared = done;
            }
            Block::Write { compare: true, .. } | Block::Verify { check: ByteCheck::All, .. } => {
                return self.compare_chunk(slot);
            }
            Block::Verify { check: ByteCheck::One, .. } => return self.compare_block(slot),
            Block::XdWriteRead { .. } => self.xor_done(slot),
            Block::Flush => {}
            _ => {
                work.done = work.running_to;
                if matches!(block, Block::Verify { .. }) {
                    work.free_scratch(self.arena);
                }
                if matches!(block, Block::Write { .. }) && work.total as usize > SEGMENT {
                    let done = work.done;
                    self.free_out_below(slot, done);
                }
            }
        }
        true
    }

    fn compare_chunk(&mut self, slot: Slot) -> bool {
        let work = self.session.work_mut(slot);
        let mut at = work.compared;
        let scratch = std::mem::take(&mut work.scratch);
        let mut differs = None;
        for extent in &scratch {
            // SAFETY: the read into it is complete.
            let stored = unsafe { std::slice::from_raw_parts(self.arena.pointer(*extent), extent.len as usize) };
            let mut inside = 0;
            while inside < stored.len() && differs.is_none() {
                let left = (stored.len() - inside) as u32;
                let Some(part) = work.received_part(self.arena, (at + inside as u64) as u32, left) else { break };
                // SAFETY: received data of this task.
                let sent = unsafe { std::slice::from_raw_parts(part.base(), part.len()) };
                differs =
                    sent.iter().zip(&stored[inside..]).position(|(a, b)| a != b).map(|p| at + (inside + p) as u64);
                inside += part.len();
            }
            at += u64::from(extent.len);
        }
        work.scratch = scratch;
        work.free_scratch(self.arena);
        if let Some(offset) = differs {
            self.finish_sense(slot, Sense::Miscompare(offset));
            return false;
        }
        work.compared = at;
        if at == work.running_to {
            work.done = at;
            work.stage = Stage::Main;
            self.free_out_below(slot, at);
        }
        true
    }

    fn compare_block(&mut self, slot: Slot) -> bool {
        let total = self.session.work_of(slot).map_or(0, |w| w.total);
        let work = self.session.work_mut(slot);
        let block = work.copy_received(self.arena, total);
        let mut position = 0;
        let mut differs = None;
        for extent in &work.scratch {
            // SAFETY: the read into it is complete.
            let stored = unsafe { std::slice::from_raw_parts(self.arena.pointer(*extent), extent.len as usize) };
            for byte in stored {
                if *byte != block[position] && differs.is_none() {
                    differs = Some(position as u64);
                }
                position = (position + 1) % block.len();
            }
        }
        work.free_scratch(self.arena);
        if let Some(offset) = differs {
            self.finish_sense(slot, Sense::Miscompare(offset));
            return false;
        }
        work.done = work.running_to;
        true
    }

    /// Asks for data that is missing below `total`, with the memory for it taken first.
    pub(super) fn solicit_more(&mut self, slot: Slot, total: u32) {
        let max_burst = self.session.proto.params().max_burst_length;
        while self.session.proto.r2t_room(slot) > 0 {
            let (start, len) = if self.session.recovers || self.session.proto.shuffles() {
                // what was asked for and did not come is asked for again (RFC 7143 7.8 a)
                let Some(missing) = self.session.proto.next_to_solicit(slot, total) else { return };
                missing
            } else {
                let Some(task) = self.session.proto.task(slot) else { return };
                let Some(work) = self.session.work_of(slot) else { return };
                let from = u64::from(work.solicited_to);
                let Some((start, end)) = task.out.received.first_gap(from, u64::from(total)) else { return };
                (start as u32, (end - start).min(u64::from(max_burst)) as u32)
            };
            if !self.reserve(slot, start, len) {
                self.wait_for_memory(slot);
                return;
            }
            if !self.session.proto.solicit(slot, start, len) {
                return;
            }
            self.session.work_mut(slot).solicited_to = start + len;
            self.wake_task(slot);
        }
    }

    /// Moves data that lies in the receive buffer into the task's own memory.
    pub(super) fn keep_offered(&mut self, slot: Slot) {
        let Some((offered, offset, base, len)) = self.offered else { return };
        if offered != slot {
            return;
        }
        self.offered = None;
        self.shared.counters.bytes_placed_by_copy += u64::from(len);
        let mut done = 0;
        while done < len {
            let Some(part) = self.out_part(slot, offset + done, len - done) else { return };
            let n = (part.len() as u32).min(len - done);
            // SAFETY: the source is the receive buffer, the destination the task's own memory.
            unsafe { std::ptr::copy_nonoverlapping(base.add(done as usize), part.base(), n as usize) };
            done += n;
        }
    }
}
