//! Sets of byte ranges with a bound on how scattered they may become.

/// Most runs a set keeps (a task's data in more pieces than that is refused, so that a peer cannot make it grow).
pub const MAX_RUNS: usize = 256;

/// The set would need more than `MAX_RUNS` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooScattered;

/// Disjoint, ascending, non-adjacent runs `[start, end)`. A set of one run (data in order) allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// The first run; empty while the set is.
    first: (u64, u64),
    /// The runs after it.
    more: Vec<(u64, u64)>,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: (0, 0), more: Vec::new() }
    }

    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.0 == self.first.1
    }

    /// Number of runs.
    #[inline]
    #[must_use]
    pub fn runs(&self) -> usize {
        if self.is_empty() { 0 } else { 1 + self.more.len() }
    }

    /// The runs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (!self.is_empty()).then_some(self.first).into_iter().chain(self.more.iter().copied())
    }

    /// Bytes in the set.
    #[must_use]
    pub fn total(&self) -> u64 {
        (self.first.1 - self.first.0) + self.more.iter().map(|run| run.1 - run.0).sum::<u64>()
    }

    /// Whether all of `[start, start + len)` is in the set (true for no bytes).
    #[inline]
    #[must_use]
    pub fn contains(&self, start: u64, len: u64) -> bool {
        len == 0 || self.iter().any(|run| run.0 <= start && start + len <= run.1)
    }

    /// Whether any of `[start, start + len)` is in the set.
    #[inline]
    #[must_use]
    pub fn overlaps(&self, start: u64, len: u64) -> bool {
        len > 0 && self.iter().any(|run| run.0 < start + len && start < run.1)
    }

    /// The first stretch of `[start, end)` that is not in the set.
    #[must_use]
    pub fn first_gap(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let mut at = start;
        for run in self.iter() {
            if run.1 <= at {
                continue;
            }
            if run.0 > at {
                return (at < end).then_some((at, run.0.min(end)));
            }
            at = run.1;
        }
        (at < end).then_some((at, end))
    }

    /// Adds `[start, start + len)`; overlaps merge.
    ///
    /// # Errors
    /// `TooScattered`: the set is unchanged.
    #[inline]
    pub fn insert(&mut self, start: u64, len: u64) -> Result<(), TooScattered> {
        if len == 0 {
            return Ok(());
        }
        let end = start + len;
        if self.is_empty() {
            self.first = (start, end);
            return Ok(());
        }
        if self.more.is_empty() && start <= self.first.1 && end >= self.first.0 {
            self.first = (self.first.0.min(start), self.first.1.max(end));
            return Ok(());
        }
        self.insert_among(start, end)
    }

    fn insert_among(&mut self, start: u64, end: u64) -> Result<(), TooScattered> {
        let mut all: Vec<(u64, u64)> = Vec::with_capacity(self.runs() + 1);
        let mut new = (start, end);
        let mut placed = false;
        for run in self.iter() {
            if run.1 < new.0 {
                all.push(run);
            } else if run.0 > new.1 {
                if !placed {
                    all.push(new);
                    placed = true;
                }
                all.push(run);
            } else {
                new = (new.0.min(run.0), new.1.max(run.1));
            }
        }
        if !placed {
            all.push(new);
        }
        if all.len() > MAX_RUNS {
            return Err(TooScattered);
        }
        self.first = all.remove(0);
        self.more = all;
        Ok(())
    }

    /// Takes every byte at or above `end` out.
    pub fn truncate(&mut self, end: u64) {
        self.more.retain_mut(|run| {
            run.1 = run.1.min(end);
            run.0 < run.1
        });
        self.first.1 = self.first.1.min(end);
        if self.first.0 >= self.first.1 {
            self.first = (0, 0);
        }
    }

    pub fn clear(&mut self) {
        self.first = (0, 0);
        self.more.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_neighbours_and_names_gaps() {
        let mut set = RangeSet::new();
        set.insert(10, 10).unwrap();
        set.insert(40, 10).unwrap();
        set.insert(25, 5).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [(10, 20), (25, 30), (40, 50)]);
        assert_eq!(set.first_gap(0, 60), Some((0, 10)));
        assert_eq!(set.first_gap(12, 60), Some((20, 25)));
        assert_eq!(set.first_gap(45, 60), Some((50, 60)));
        set.insert(18, 8).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [(10, 30), (40, 50)]);
        assert!(set.contains(10, 20) && !set.contains(29, 2) && set.overlaps(29, 2) && !set.overlaps(30, 10));
        set.insert(30, 10).unwrap();
        assert_eq!((set.runs(), set.total()), (1, 40));
        set.truncate(15);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(10, 15)]);
        set.truncate(3);
        assert!(set.is_empty());
    }

    #[test]
    fn refuses_to_scatter_without_bound() {
        let mut set = RangeSet::new();
        for i in 0..MAX_RUNS as u64 {
            set.insert(i * 10, 5).unwrap();
        }
        assert_eq!(set.insert(100_000, 1), Err(TooScattered));
        assert_eq!(set.runs(), MAX_RUNS);
        set.insert(5, 5).unwrap();
        assert_eq!(set.runs(), MAX_RUNS - 1);
    }
}
