//! No command retry may outlive the turn of the command numbers (RFC 7143 4.2.2.1, 10.4).
//!
//! A retry that is late on its connection would be a valid command again 2^31 numbers on. So a new numbered request follows it
//! on the same connection; as long as the target has not acknowledged that, its window cannot have moved on.

use blockwire_wire::bhs::FINAL;
use blockwire_wire::{Bhs, Opcode, RESERVED_TAG};

use super::session::InitiatorSession;
use super::task::{Kind, Purpose};
use crate::params::ConnIndex;

impl InitiatorSession {
    /// A command was sent again on `conn`, or its number was: a NOP-Out in command order follows it there, as soon as the
    /// window allows.
    pub(super) fn cover_retry(&mut self, conn: ConnIndex) {
        if self.connection(conn).logging_out {
            return; // the connection goes away, and with it what is late on it
        }
        // what was lost beside the command keeps the target waiting behind it as well
        self.fill_holes(conn);
        let Some(slot) = self.tasks.take() else {
            // all 65,536 tags are in use; the next PDU that comes may have freed one
            if !self.uncovered.contains(&conn) {
                self.uncovered.push(conn);
            }
            return;
        };
        let mut bhs = Bhs::new(Opcode::NopOut, FINAL);
        bhs.set_target_transfer_tag(RESERVED_TAG);
        let task = &mut self.tasks[slot];
        bhs.set_initiator_task_tag(task.tag());
        task.bhs = bhs;
        task.kind = Kind::Nop;
        task.purpose = Purpose::Plug;
        task.context = 0;
        task.wanted = Some(conn);
        self.start_or_wait(slot);
    }

    /// Covers what found no free tag.
    #[cold]
    pub(super) fn cover_rest(&mut self) {
        for conn in std::mem::take(&mut self.uncovered) {
            if matches!(self.connections.get(conn), Some(Some(_))) {
                self.cover_retry(conn);
            }
        }
    }
}
