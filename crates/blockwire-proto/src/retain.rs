//! What is kept until it is acknowledged: responses (and their data) at error recovery levels 1 and 2.
//!
//! A response is retained until ExpStatSN passes it (RFC 7143 4.2.2.2); its task record, and with it the data and the
//! DataSN log, lives as long. The bytes have a budget: at half of it acknowledgement is solicited, at all of it
//! admitted READs are held.

use std::collections::VecDeque;

use blockwire_wire::serial;

use crate::slab::Slot;

/// Responses of one connection that are sent and not acknowledged, in StatSN order.
#[derive(Debug, Default)]
pub struct UnacknowledgedResponses {
    entries: VecDeque<(u32, Slot)>,
}

impl UnacknowledgedResponses {
    pub fn push(&mut self, stat_sn: u32, slot: Slot) {
        self.entries.push_back((stat_sn, slot));
    }

    /// Takes the next task whose response is below `exp_stat_sn`.
    pub fn pop_acknowledged(&mut self, exp_stat_sn: u32) -> Option<Slot> {
        let &(stat_sn, slot) = self.entries.front()?;
        if !serial::less_than(stat_sn, exp_stat_sn) {
            return None;
        }
        self.entries.pop_front();
        Some(slot)
    }

    /// The task whose response carried `stat_sn`.
    #[must_use]
    pub fn find(&self, stat_sn: u32) -> Option<Slot> {
        self.entries.iter().find(|entry| entry.0 == stat_sn).map(|entry| entry.1)
    }

    pub fn drain(&mut self) -> impl Iterator<Item = Slot> + '_ {
        self.entries.drain(..).map(|entry| entry.1)
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

/// Bytes of data kept for retransmission.
#[derive(Clone, Copy, Debug)]
pub struct RetentionBudget {
    limit: u64,
    used: u64,
}

impl RetentionBudget {
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
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

    #[test]
    fn releases_up_to_the_acknowledged_number() {
        let mut kept = UnacknowledgedResponses::default();
        kept.push(0xffff_ffff, Slot(1));
        kept.push(0, Slot(2));
        kept.push(1, Slot(3));
        assert_eq!(kept.find(0), Some(Slot(2)));
        assert_eq!(kept.pop_acknowledged(1), Some(Slot(1)));
        assert_eq!(kept.pop_acknowledged(1), Some(Slot(2)));
        assert_eq!(kept.pop_acknowledged(1), None);
        assert_eq!(kept.len(), 1);
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
