//! A log-linear histogram of latencies: 32 buckets per power of two, so that a bound is at most 3.2 % off.

const SUB_BITS: u32 = 5;
const SUB: u64 = 1 << SUB_BITS;
const BUCKETS: usize = ((64 - SUB_BITS as usize) + 1) * SUB as usize;

/// Counts of values; recording allocates nothing.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0, sum: 0, max: 0 }
    }
}

impl Histogram {
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.sum += value;
        self.max = self.max.max(value);
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.sum as f64 / self.total as f64 }
    }

    /// (largest value of the bucket, count) of buckets that hold something, ascending.
    #[must_use]
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        let used = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        used.map(|(i, n)| (bound(i), *n)).collect()
    }
}

#[inline]
fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - SUB_BITS;
    ((u64::from(shift) + 1) * SUB + ((value >> shift) - SUB)) as usize
}

fn bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    let low = (bucket % SUB + SUB) << shift;
    low + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        let mut previous = 0;
        for value in (0..5000).chain([65_535, 65_536, 1 << 40, u64::MAX - 1, u64::MAX]) {
            let at = bucket(value);
            assert!(at >= previous && at < BUCKETS);
            previous = at;
            assert!(bound(at) >= value, "{value}");
            assert!(bound(at) - value <= value / 32 + 1, "{value}");
            assert_eq!(bucket(bound(at)), at);
        }
    }

    #[test]
    fn totals() {
        let mut histogram = Histogram::default();
        for value in [1, 1, 100, 1000] {
            histogram.record(value);
        }
        assert_eq!(histogram.buckets().iter().map(|b| b.1).sum::<u64>(), 4);
        assert_eq!((histogram.total(), histogram.max()), (4, 1000));
        assert!((histogram.mean() - 275.5).abs() < 1e-9);
    }
}
