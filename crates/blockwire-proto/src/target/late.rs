//! Data that is still on its way when its task ends (RFC 7143 4.2.3.4 c and g, 10.7).
//!
//! The tags of such a task stay valid without its memory: what comes for them is discarded without a Reject. Under FastAbort
//! they are free as soon as the initiator has acknowledged the asynchronous message that told it to stop; otherwise the oldest
//! make room for new ones.

use std::collections::VecDeque;

use blockwire_wire::{Bhs, Opcode, RESERVED_TAG, serial};

use super::session::TargetSession;
use crate::params::{ConnIndex, same_unit};

/// Tasks that are remembered at least.
const LATE_TAGS: usize = 256;
/// Place of AsyncEvent in an Asynchronous Message (11.9), and event 5: task termination (11.9.1).
const ASYNC_EVENT_FIELD: usize = 36;
const TASKS_TERMINATED: u8 = 5;

#[derive(Clone, Copy, Debug)]
struct Late {
    initiator_task_tag: u32,
    conn: ConnIndex,
    lun: u64,
    /// StatSN of the asynchronous message that tells of the end.
    told: Option<u32>,
}

/// Tags of tasks that ended while data was still to come for them, oldest first.
#[derive(Debug, Default)]
pub(super) struct LateTags(VecDeque<Late>);

impl LateTags {
    #[inline]
    pub(super) fn contains(&self, initiator_task_tag: u32, conn: ConnIndex) -> bool {
        self.0.iter().any(|late| late.initiator_task_tag == initiator_task_tag && late.conn == conn)
    }

    /// Nothing comes on this connection any more.
    pub(super) fn connection_gone(&mut self, conn: ConnIndex) {
        self.0.retain(|late| late.conn != conn);
    }
}

impl TargetSession {
    /// Data of a task that ends here may still come.
    pub(super) fn note_late(&mut self, initiator_task_tag: u32, conn: ConnIndex, lun: u64) {
        // there can be that many tasks at once, and as many again before the data of the first came
        let most = LATE_TAGS.max(2 * self.limits.command_window as usize);
        if self.late.0.len() >= most {
            self.late.0.pop_front();
        }
        self.late.0.push_back(Late { initiator_task_tag, conn, lun, told: None });
    }

    /// An asynchronous message goes out: event 5 tells of all tasks of its logical unit that ended on its connection.
    pub(super) fn tell_late(&mut self, conn: ConnIndex, message: &Bhs) {
        if message.opcode() != Some(Opcode::AsyncMessage) || message.0[ASYNC_EVENT_FIELD] != TASKS_TERMINATED {
            return;
        }
        let untold = |late: &&mut Late| late.conn == conn && late.told.is_none() && same_unit(late.lun, message.lun());
        for late in self.late.0.iter_mut().filter(untold) {
            late.told = Some(message.stat_sn());
        }
    }

    /// A NOP-Out that is no ping: it may be the acknowledgement of such messages for its logical unit, after which no data of
    /// the tasks comes any more (4.2.3.4 g, 11.9.1).
    pub(super) fn free_told(&mut self, conn: ConnIndex, bhs: &Bhs) {
        if self.late.0.is_empty() || bhs.target_transfer_tag() != RESERVED_TAG {
            return;
        }
        let (exp_stat_sn, lun) = (bhs.exp_stat_sn(), bhs.lun());
        self.late.0.retain(|late| {
            let acknowledged = late.told.is_some_and(|stat_sn| serial::less_than(stat_sn, exp_stat_sn));
            !(acknowledged && late.conn == conn && same_unit(late.lun, lun))
        });
    }
}
