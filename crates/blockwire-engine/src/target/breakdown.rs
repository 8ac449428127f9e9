//! After a panic: no session of this worker is used again, and the worker can have new ones.

use std::mem;

use super::TargetSide;
use super::role::SendScratch;
use crate::buffers::Arena;
use crate::core::Core;
use crate::events::Event;
use crate::transmit::Scratch;

/// The code of what is told.
pub const WORKER_PANIC: &str = "worker-panic";

/// A session index that no session has.
const NOBODY: u32 = u32::MAX;

impl TargetSide {
    /// Forgets every session; their connections are cut. What a panic may have left half done is dropped, not looked at.
    pub fn break_down(&mut self, core: &mut Core, what: &str) {
        for session in mem::take(&mut self.index).into_keys() {
            core.events.push(Event::SessionLost { session, code: WORKER_PANIC, evidence: what.to_owned() });
        }
        let old = mem::take(&mut self.shared);
        (self.shared.operations, self.shared.next_abort) = (old.operations, old.next_abort);
        for (id, locks) in old.locked {
            locks.unlock(id);
        }
        for (_, operation) in self.shared.operations.iter_mut() {
            // their memory is in the arena that goes; their completions find nobody
            operation.session = NOBODY;
            operation.held.clear();
            operation.aborts.clear();
            operation.lock = None;
        }
        self.send_scratch = SendScratch::default();
        core.scratch = Scratch::new(core.options.pdus_per_send);
        // Extents of sessions that are gone are held by nobody. Without another arena they stay lost.
        if let Ok(fresh) = Arena::new(core.options.arena_bytes) {
            let old = mem::replace(&mut core.arena, fresh);
            if !self.shared.operations.is_empty() {
                self.broken_arenas.push(old);
            }
        }
    }
}
