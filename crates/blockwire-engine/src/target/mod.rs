//! The target's side of one worker: its sessions and connections, their logical units, gates and block commands.
//!
//! One `TargetSide` per worker, no locks. Every call gets the worker's `Core`. All calls for a session come to the worker that owns
//! it; `abort` of a logical unit comes to every worker that serves it, and each reports its part.
//!
//! A file per duty: `calls` (the boundary), `service` (what is ready), `timers`, `role` (receive loop and send path), `execute` (gates and
//! checks), `read`, `direct` (READs in a store's memory), `step` (commands that take data), `locks`, `exclusive_or`, `reply`, `abort`, `retention` (what is kept for retransmission); `commands` and `sense` are the tables.

mod abort;
mod breakdown;
mod calls;
mod commands;
mod context;
mod direct;
mod exclusive_or;
mod execute;
mod locks;
mod read;
mod reply;
mod retention;
mod role;
mod sense;
mod service;
mod session;
mod step;
mod timers;
mod work;

#[cfg(test)]
mod tests;

pub use breakdown::WORKER_PANIC;

use std::collections::HashMap;
use std::sync::Arc;

use blockwire_store::CompletionSink;

use self::context::Shared;
use self::role::SendScratch;
use crate::buffers::Arena;
use crate::core::PlaneOptions;
use crate::events::SessionId;

/// All target sessions of a worker.
pub struct TargetSide {
    shared: Shared,
    /// Session to its index in `shared.sessions`.
    index: HashMap<SessionId, u32>,
    send_scratch: SendScratch,
    sink: Option<Arc<dyn CompletionSink>>,
    command_window: u32,
    max_transfer: u32,
    /// Memory that store operations of sessions that broke down may still use.
    broken_arenas: Vec<Arena>,
}

impl std::fmt::Debug for TargetSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetSide").field("sessions", &self.index.len()).finish_non_exhaustive()
    }
}

impl TargetSide {
    #[must_use]
    pub fn new(options: &PlaneOptions) -> Self {
        Self {
            shared: Shared::default(),
            index: HashMap::new(),
            send_scratch: SendScratch::default(),
            sink: None,
            command_window: options.command_window,
            max_transfer: options.max_transfer,
            broken_arenas: Vec::new(),
        }
    }

    /// Sessions that this worker owns.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.index.len()
    }
}
