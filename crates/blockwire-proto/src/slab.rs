//! Records in reused places, so that steady traffic allocates nothing.

/// Index of a record in its `Slab`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// A growable table with a free list. Places are reused, last freed first.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// An empty table with room for `n` records before it grows.
    #[must_use]
    pub fn with_capacity(n: usize) -> Self {
        Self { places: Vec::with_capacity(n), free: Vec::with_capacity(n) }
    }

    #[inline]
    pub fn insert(&mut self, value: T) -> Slot {
        if let Some(at) = self.free.pop() {
            self.places[at as usize] = Some(value);
            Slot(at)
        } else {
            self.places.push(Some(value));
            Slot((self.places.len() - 1) as u32)
        }
    }

    #[inline]
    pub fn remove(&mut self, slot: Slot) -> Option<T> {
        let value = self.places.get_mut(slot.0 as usize)?.take()?;
        self.free.push(slot.0);
        Some(value)
    }

    #[inline]
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&T> {
        self.places.get(slot.0 as usize)?.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.places.get_mut(slot.0 as usize)?.as_mut()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        self.places.iter().enumerate().filter_map(|(i, p)| p.as_ref().map(|v| (Slot(i as u32), v)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut T)> {
        self.places.iter_mut().enumerate().filter_map(|(i, p)| p.as_mut().map(|v| (Slot(i as u32), v)))
    }
}

impl<T> std::ops::Index<Slot> for Slab<T> {
    type Output = T;
    #[inline]
    fn index(&self, slot: Slot) -> &T {
        self.get(slot).expect("slot in use")
    }
}

impl<T> std::ops::IndexMut<Slot> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        self.get_mut(slot).expect("slot in use")
    }
}
