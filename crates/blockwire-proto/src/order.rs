//! Commands that wait for an earlier one: delivery in CmdSN order (RFC 7143 4.2.2.1). Bounded by the command window.

use std::collections::VecDeque;

use crate::slab::Slot;

/// What stands at a place of the command order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Not received.
    Missing,
    /// Received; the task's record.
    Task(Slot),
    /// The number counts as received and nothing is delivered for it (an aborted command that never came, 11.5.5).
    Consumed,
}

/// The places from ExpCmdSN on.
#[derive(Debug, Default)]
pub struct OrderQueue {
    places: VecDeque<Entry>,
}

impl OrderQueue {
    /// Puts `entry` `ahead` places behind the front. False when something is there already (a duplicate).
    #[inline]
    pub fn insert(&mut self, ahead: u32, entry: Entry) -> bool {
        let ahead = ahead as usize;
        while self.places.len() <= ahead {
            self.places.push_back(Entry::Missing);
        }
        if self.places[ahead] != Entry::Missing {
            return false;
        }
        self.places[ahead] = entry;
        true
    }

    /// True when nothing waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What stands `ahead` places behind the front.
    #[must_use]
    pub fn get(&self, ahead: u32) -> Entry {
        self.places.get(ahead as usize).copied().unwrap_or(Entry::Missing)
    }

    /// Takes the front entry if it was received.
    #[inline]
    pub fn pop(&mut self) -> Option<Entry> {
        match self.places.front() {
            None | Some(Entry::Missing) => None,
            Some(_) => self.places.pop_front(),
        }
    }

    /// A waiting task was never here: its number may come again (7.2.1, 7.11).
    pub fn forget(&mut self, slot: Slot) {
        for place in &mut self.places {
            if *place == Entry::Task(slot) {
                *place = Entry::Missing;
            }
        }
    }

    /// A waiting task ended before its turn: its number stays received.
    pub fn consume(&mut self, slot: Slot) {
        for place in &mut self.places {
            if *place == Entry::Task(slot) {
                *place = Entry::Consumed;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivers_in_order_whatever_the_arrival() {
        let mut order = OrderQueue::default();
        assert!(order.insert(2, Entry::Task(Slot(2))));
        assert!(order.pop().is_none());
        assert!(order.insert(0, Entry::Task(Slot(0))));
        assert!(!order.insert(2, Entry::Task(Slot(9))), "a duplicate is refused");
        assert_eq!(order.pop(), Some(Entry::Task(Slot(0))));
        assert!(order.pop().is_none());
        assert!(order.insert(0, Entry::Consumed));
        assert_eq!(order.pop(), Some(Entry::Consumed));
        order.consume(Slot(2));
        assert_eq!(order.pop(), Some(Entry::Consumed));
        assert!(order.is_empty());
    }
}
