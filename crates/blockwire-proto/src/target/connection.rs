//! One connection of a target's session.

use blockwire_wire::deframe::AHS_OF_COMMAND;
use blockwire_wire::{Bhs, Deframer, serial};

use crate::params::ConnectionParams;
use crate::retain::{Kept, UnacknowledgedResponses};
use crate::send_queue::SendQueue;
use crate::slab::Slot;

/// What the header of the PDU at hand was decided to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    /// Nothing follows from it.
    Ignore,
    /// The task it was for ended in the middle of it; the record is free once it is complete.
    Abandoned(Slot),
    /// A new task (SCSI command or control request): delivered when its data is complete and right.
    Request(Slot),
    /// Data of a task.
    DataOut { slot: Slot, ttt: u32, offset: u32, length: u32, last: bool },
    /// A data PDU that was refused but whose F bit counts.
    BadDataOut { slot: Slot, ttt: u32, last: bool, reason: u8 },
    /// A ping for immediate answer, or the answer to ours.
    Nop,
    /// A request for what was sent before (11.16).
    Snack,
    /// Answered by Reject once it is complete: the reason, and what was wrong, with the rule's section.
    Reject(u8, &'static str),
}

impl Inbound {
    pub(super) fn slot(self) -> Option<Slot> {
        match self {
            Self::Request(slot)
            | Self::DataOut { slot, .. }
            | Self::BadDataOut { slot, .. }
            | Self::Abandoned(slot) => Some(slot),
            _ => None,
        }
    }
}

/// A keep-alive ping of ours that is not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ping {
    pub(super) target_transfer_tag: u32,
    pub(super) deadline: u64,
    /// StatSN it carried: its answer acknowledges what was sent before.
    pub(super) stat_sn: u32,
}

/// State of one connection.
#[derive(Debug)]
pub struct Connection {
    pub params: ConnectionParams,
    pub(super) deframer: Deframer,
    pub(super) queue: SendQueue,
    /// Next StatSN.
    pub(super) stat_sn: u32,
    /// StatSN after the last numbered PDU that left the queue: no more can be acknowledged.
    pub(super) sent_stat_sn: u32,
    /// The peer's ExpStatSN: everything below is acknowledged.
    pub(super) acknowledged: u32,
    pub(super) inbound: Inbound,
    pub(super) last_heard: u64,
    pub(super) ping: Option<Ping>,
    /// Pings answered and rejects that are queued and not sent: bounded, so that a peer that does not read cannot pile
    /// them up.
    pub(super) side_answers: u32,
    /// Numbered PDUs that may be asked for again; empty at error recovery level 0.
    pub(super) unacknowledged: UnacknowledgedResponses,
    /// When data that is to come has to be looked after; 0 when none is.
    pub(super) data_check: u64,
}

impl Connection {
    pub(super) fn new(params: ConnectionParams, stat_sn: u32, now: u64) -> Self {
        Self {
            deframer: Deframer::new(params.header_digest, params.data_digest).bounded(AHS_OF_COMMAND),
            queue: SendQueue::new(params.header_digest, params.data_digest, 0),
            params,
            stat_sn,
            sent_stat_sn: stat_sn,
            acknowledged: stat_sn,
            inbound: Inbound::Ignore,
            last_heard: now,
            ping: None,
            side_answers: 0,
            unacknowledged: UnacknowledgedResponses::default(),
            data_check: 0,
        }
    }

    /// Keeps a numbered PDU until it is acknowledged, within `limit` bytes.
    #[inline]
    pub(super) fn keep(&mut self, stat_sn: u32, kept: Kept, limit: u32) {
        self.unacknowledged.push(stat_sn, kept, limit as usize);
    }

    /// Next StatSN of the connection.
    #[must_use]
    pub fn stat_sn(&self) -> u32 {
        self.stat_sn
    }

    /// What the peer acknowledged last.
    #[must_use]
    pub fn exp_stat_sn(&self) -> u32 {
        self.acknowledged
    }

    /// Answers that have not left, and those that the peer has not acknowledged, the former included.
    #[inline]
    #[must_use]
    pub fn answers(&self) -> (u32, u32) {
        (self.stat_sn.wrapping_sub(self.sent_stat_sn), self.stat_sn.wrapping_sub(self.acknowledged))
    }

    /// Takes the ExpStatSN of a request (4.2.2.2); true when it moved. A number that was never sent is not believed: what
    /// it would release is still named by queued PDUs.
    #[inline]
    pub(super) fn acknowledge(&mut self, exp_stat_sn: u32) -> bool {
        if exp_stat_sn != self.acknowledged
            && serial::less_than(self.acknowledged, exp_stat_sn)
            && serial::less_or_equal(exp_stat_sn, self.sent_stat_sn)
        {
            self.acknowledged = exp_stat_sn;
            return true;
        }
        false
    }

    /// The header of the PDU at hand.
    #[inline]
    pub(super) fn bhs(&self) -> Bhs {
        *self.deframer.bhs()
    }
}
