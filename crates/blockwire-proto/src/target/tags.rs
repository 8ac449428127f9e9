//! Initiator Task Tag to task record.
//!
//! Open addressing with linear probing and backward-shift deletion. The number of tags is bounded by the command window, so
//! the longest probe is too, whatever tags a peer chooses; the table allocates only when it grows.

use crate::slab::Slot;

const EMPTY: u32 = u32::MAX;

/// Map of tags in use.
#[derive(Debug)]
pub struct TagMap {
    /// (tag, slot); `EMPTY` in the slot marks a free place.
    places: Vec<(u32, u32)>,
    len: usize,
    shift: u32,
}

impl Default for TagMap {
    fn default() -> Self {
        Self { places: vec![(0, EMPTY); 32], len: 0, shift: 32 - 5 }
    }
}

impl TagMap {
    #[inline]
    fn home(&self, tag: u32) -> usize {
        // Fibonacci hashing: consecutive tags, the usual case, spread without collisions
        (tag.wrapping_mul(0x9e37_79b9) >> self.shift) as usize
    }

    #[inline]
    #[must_use]
    pub fn get(&self, tag: u32) -> Option<Slot> {
        let mask = self.places.len() - 1;
        let mut at = self.home(tag);
        loop {
            let (t, slot) = self.places[at];
            if slot == EMPTY {
                return None;
            }
            if t == tag {
                return Some(Slot(slot));
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a tag that is not in the map.
    #[inline]
    pub fn insert(&mut self, tag: u32, slot: Slot) {
        debug_assert!(self.get(tag).is_none());
        if (self.len + 1) * 2 > self.places.len() {
            self.grow();
        }
        let mask = self.places.len() - 1;
        let mut at = self.home(tag);
        while self.places[at].1 != EMPTY {
            at = (at + 1) & mask;
        }
        self.places[at] = (tag, slot.0);
        self.len += 1;
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.places);
        self.places = vec![(0, EMPTY); old.len() * 2];
        self.shift -= 1;
        self.len = 0;
        for (tag, slot) in old {
            if slot != EMPTY {
                self.insert(tag, Slot(slot));
            }
        }
    }

    #[inline]
    pub fn remove(&mut self, tag: u32) {
        let mask = self.places.len() - 1;
        let mut hole = self.home(tag);
        loop {
            let (t, slot) = self.places[hole];
            if slot == EMPTY {
                return;
            }
            if t == tag {
                break;
            }
            hole = (hole + 1) & mask;
        }
        self.len -= 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let (t, slot) = self.places[at];
            if slot == EMPTY {
                break;
            }
            // an entry may move into the hole when its home is not between the hole and itself
            let home = self.home(t);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.places[hole] = (t, slot);
                hole = at;
            }
        }
        self.places[hole].1 = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn agrees_with_a_hash_map_even_when_all_collide() {
        let mut map = TagMap::default();
        let mut model = HashMap::new();
        let mut state = 1_u32;
        for round in 0..20_000_u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // few distinct high bits: heavy collisions
            let tag = (state >> 24) << 24 | (state >> 8 & 3);
            if model.remove(&tag).is_some() {
                map.remove(tag);
            } else if model.len() < 300 {
                model.insert(tag, round);
                map.insert(tag, Slot(round));
            }
            assert_eq!(map.len, model.len());
            assert_eq!(map.get(tag).map(|s| s.0), model.get(&tag).copied());
        }
        for (tag, slot) in model {
            assert_eq!(map.get(tag), Some(Slot(slot)));
        }
    }
}
