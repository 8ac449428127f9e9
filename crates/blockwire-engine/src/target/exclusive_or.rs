//! XDWRITEREAD (SBC-3 5.47): the blocks are read, the XOR with the data from the initiator goes back, the data is written.
//!
//! `compared` counts the bytes whose XOR is made, `done` those that are written. The blocks are the command's own from the first
//! read to the last write: what it gives back is the XOR with what it overwrites. So it goes on without its connection once it
//! has begun; what could not be sent is sent after the reassignment.

use blockwire_proto::Slot;
use blockwire_proto::target::{Finish, Residual};
use blockwire_store::Op;

use super::context::Context;
use super::sense::Sense;
use super::step::{CHUNK, Next};
use super::work::{NO_LOCK, PIECE};

impl Context<'_> {
    /// What the command does next, once all its data is here.
    pub(super) fn next_xor(&mut self, slot: Slot, fua: bool, disable_write: bool) -> Next {
        if !self.all_here(slot) {
            return Next::Wait;
        }
        let Some(frozen) = self.session.proto.task(slot).map(|t| t.frozen) else { return Next::Wait };
        let work = self.session.work_mut(slot);
        let (start, end) = (work.start, work.start + u64::from(work.total));
        if frozen && work.lock == NO_LOCK {
            return Next::Wait; // it has not begun, or changes nothing: it cannot send
        }
        let over = disable_write || work.done == u64::from(work.total);
        if !over && !self.lock_range(slot, start, end) {
            return Next::Wait;
        }
        self.send_xor(slot);
        let work = self.session.work_mut(slot);
        let (total, read, written, start, lun) =
            (u64::from(work.total), work.compared, work.done, work.start, work.lun);
        if read < total {
            let len = (total - read).min(u64::from(PIECE));
            work.running_to = read + len;
            return self.read_for_comparison(slot, start + read, len);
        }
        if disable_write || written == total {
            if frozen {
                self.unlock_range(slot); // nothing is left to be done but to say so
            } else {
                self.finish_xor(slot);
            }
            return Next::Wait;
        }
        let to = total.min(written + CHUNK);
        work.running_to = to;
        let unit = &self.session.luns[lun];
        let fua = (fua || !unit.mapping.write_cache) && unit.can_flush;
        match self.received_vectors(slot, written, to) {
            Some(src) => Next::Op(Op::Write { offset: start + written, src, fua }),
            None => Next::Sense(Sense::InternalFailure),
        }
    }

    /// A part was read or written.
    pub(super) fn xor_done(&mut self, slot: Slot) {
        let frozen = self.session.proto.task(slot).is_none_or(|t| t.frozen);
        let work = self.session.work_mut(slot);
        if work.compared == u64::from(work.total) {
            work.done = work.running_to;
            return;
        }
        if frozen && work.lock == NO_LOCK {
            work.free_scratch(self.arena); // read again after the reassignment
            return;
        }
        let (from, to) = (work.compared, work.running_to);
        let mut at = from;
        for extent in &work.scratch {
            // SAFETY: the read into it is complete, and nothing else refers to it yet.
            let old = unsafe { std::slice::from_raw_parts_mut(self.arena.pointer(*extent), extent.len as usize) };
            let mut inside = 0;
            while inside < old.len() {
                let Some(part) = work.received_part(self.arena, at as u32, (old.len() - inside) as u32) else { break };
                // SAFETY: received data of this task; it is not the scratch memory.
                let new = unsafe { std::slice::from_raw_parts(part.base(), part.len()) };
                old[inside..].iter_mut().zip(new).for_each(|(a, b)| *a ^= b);
                inside += part.len();
                at += part.len() as u64;
            }
        }
        work.compared = to;
        work.scratch_into_piece(from as u32, (to - from) as u32);
        self.retained(slot, (to - from) as u32);
        self.send_xor(slot);
    }

    /// Sends what is made and was not sent.
    fn send_xor(&mut self, slot: Slot) {
        let Some(task) = self.session.proto.task(slot).filter(|t| !t.frozen) else { return };
        let (from, expected) = (task.data_in.queued_to, task.expected_read());
        let work = self.session.work_mut(slot);
        let expected = expected.min(work.total);
        let end = (work.compared as u32).min(expected);
        if from < end {
            self.session.proto.send_data(slot, from, end - from, end == expected, None);
            self.wake_task(slot);
        }
    }

    fn finish_xor(&mut self, slot: Slot) {
        let expected = self.session.proto.task(slot).map_or(0, blockwire_proto::target::Task::expected_read);
        let work = self.session.work_mut(slot);
        let residual = work.residual;
        let bidirectional_residual = Residual::of(expected, work.range);
        self.finish(slot, Finish { residual, bidirectional_residual, ..Finish::default() });
    }
}
