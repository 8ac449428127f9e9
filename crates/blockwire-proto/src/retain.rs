//! What is kept until it is acknowledged: responses (and their data) at error recovery levels 1 and 2.
//!
//! A response is retained until ExpStatSN passes it (RFC 7143 4.2.2.2); its task record, and with it the data and the
//! DataSN log, lives as long. The bytes have a budget: at half of it acknowledgement is solicited, at all of it
//! admitted READs are held.

use std::collections::VecDeque;

use blockwire_wire::{Bhs, serial};

use crate::slab::Slot;

/// A numbered PDU that may be asked for again.
#[derive(Clone, Debug)]
pub enum Kept {
    /// The answer of a SCSI task: its record has all of it.
    Task(Slot),
    /// Any other numbered PDU: its header and data segment.
    Pdu(Box<(Bhs, Vec<u8>)>),
    /// It was dropped for want of room.
    Gone,
}

/// Numbered PDUs of one connection that are not acknowledged, one for each StatSN, in order.
#[derive(Debug, Default)]
pub struct UnacknowledgedResponses {
    entries: VecDeque<(u32, Kept)>,
    /// Bytes of data segments kept here.
    bytes: usize,
}

impl UnacknowledgedResponses {
    /// Keeps the PDU numbered `stat_sn`. While more than `limit` bytes are kept the oldest data goes.
    pub fn push(&mut self, stat_sn: u32, kept: Kept, limit: usize) {
        self.bytes += kept_bytes(&kept);
        self.entries.push_back((stat_sn, kept));
        let mut at = 0;
        while self.bytes > limit && at < self.entries.len() {
            if matches!(self.entries[at].1, Kept::Pdu(_)) {
                let gone = std::mem::replace(&mut self.entries[at].1, Kept::Gone);
                self.bytes -= kept_bytes(&gone);
            }
            at += 1;
        }
    }

    /// Takes the next PDU below `exp_stat_sn`.
    pub fn pop_acknowledged(&mut self, exp_stat_sn: u32) -> Option<Kept> {
        let &(stat_sn, _) = self.entries.front()?;
        if !serial::less_than(stat_sn, exp_stat_sn) {
            return None;
        }
        let (_, kept) = self.entries.pop_front()?;
        self.bytes -= kept_bytes(&kept);
        Some(kept)
    }

    /// The PDU that carried `stat_sn`; the numbers are without gaps.
    #[must_use]
    pub fn find(&self, stat_sn: u32) -> Option<&Kept> {
        let &(front, _) = self.entries.front()?;
        let entry = self.entries.get(stat_sn.wrapping_sub(front) as usize)?;
        (entry.0 == stat_sn).then_some(&entry.1)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn kept_bytes(kept: &Kept) -> usize {
    if let Kept::Pdu(pdu) = kept { 48 + pdu.1.len() } else { 0 }
}

/// Bytes of data kept for retransmission.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetentionBudget {
    limit: u64,
    used: u64,
}

impl RetentionBudget {
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
    }

    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    pub fn add(&mut self, bytes: u64) {
        self.used += bytes;
    }

    pub fn release(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// At half of the budget acknowledgement is asked for.
    #[must_use]
    pub fn should_solicit(&self) -> bool {
        self.used * 2 >= self.limit
    }

    /// At all of it nothing more is read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used >= self.limit
    }

    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(kept: Option<Kept>) -> Option<u32> {
        match kept {
            Some(Kept::Task(slot)) => Some(slot.0),
            _ => None,
        }
    }

    #[test]
    fn releases_up_to_the_acknowledged_number_across_the_wrap() {
        let mut kept = UnacknowledgedResponses::default();
        for (stat_sn, slot) in [(0xffff_ffff, 1), (0, 2), (1, 3)] {
            kept.push(stat_sn, Kept::Task(Slot(slot)), 0);
        }
        assert_eq!(slot(kept.find(0).cloned()), Some(2));
        assert!(kept.find(2).is_none() && kept.find(0xffff_fffe).is_none());
        assert_eq!(slot(kept.pop_acknowledged(1)), Some(1));
        assert_eq!(slot(kept.pop_acknowledged(1)), Some(2));
        assert!(kept.pop_acknowledged(1).is_none());
        assert_eq!(kept.len(), 1);
    }

    #[test]
    fn the_oldest_data_goes_first() {
        let mut kept = UnacknowledgedResponses::default();
        for stat_sn in 0..5 {
            kept.push(stat_sn, Kept::Pdu(Box::new((Bhs::default(), vec![0; 52]))), 300);
        }
        assert!(matches!(kept.find(0), Some(Kept::Gone)) && matches!(kept.find(1), Some(Kept::Gone)));
        assert!(matches!(kept.find(2), Some(Kept::Pdu(_))));
        assert_eq!((kept.len(), kept.bytes), (5, 300));
        while kept.pop_acknowledged(5).is_some() {}
        assert_eq!((kept.len(), kept.bytes), (0, 0));
    }

    #[test]
    fn budget_speaks_up_at_half() {
        let mut budget = RetentionBudget::new(100);
        budget.add(49);
        assert!(!budget.should_solicit());
        budget.add(1);
        assert!(budget.should_solicit() && !budget.is_full());
        budget.add(50);
        assert!(budget.is_full());
        budget.release(60);
        assert!(!budget.should_solicit());
    }
}
