//! The end of an operation that somebody waits for: told exactly once, also when the worker that has it breaks down.

use std::sync::Arc;

use crate::events::{EventQueue, Failure, OpId, OpResult};

/// What an operation failed with whose worker panicked, or ended before it came to it.
pub const BROKEN: &str = "plane.broken";

/// Dropped without an answer, it fails the operation.
#[derive(Debug)]
pub struct Ending {
    events: Option<Arc<EventQueue>>,
    op: OpId,
}

impl Ending {
    #[must_use]
    pub fn new(events: Arc<EventQueue>, op: OpId) -> Self {
        Self { events: Some(events), op }
    }

    /// Ends the operation.
    pub fn done(mut self, result: Result<OpResult, Failure>) {
        if let Some(events) = self.events.take() {
            events.done(self.op, result);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(events) = self.events.take() {
            events.done(self.op, Err(Failure::new(BROKEN, "the worker that had this operation broke down")));
        }
    }
}
