//! A rate as a bucket of bytes: what a session may send, over all its connections.

use crate::clock::{Nanos, SECOND};

/// The bucket holds what may be sent in this time: after silence, so much leaves at once.
const DEPTH: Nanos = SECOND / 20;

/// Fills with time and is emptied by what is sent. Whoever sends may take more than there is, up to a send call; the
/// debt is waited for afterwards, so that the rate holds whatever the length of a PDU.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Bytes per second.
    rate: u64,
    /// Bytes times `SECOND`, below 0 when more was sent than there was.
    level: i128,
    /// When `level` was right.
    at: Nanos,
}

impl Bucket {
    /// Full. None for a rate of 0, which is no limit.
    #[must_use]
    pub fn new(rate: u64, now: Nanos) -> Option<Self> {
        (rate > 0).then(|| Self { rate, level: i128::from(rate) * i128::from(DEPTH), at: now })
    }

    /// Whether something may be sent now.
    pub fn is_open(&mut self, now: Nanos) -> bool {
        let passed = i128::from(now.saturating_sub(self.at));
        self.at = self.at.max(now);
        let rate = i128::from(self.rate);
        self.level = (self.level + rate * passed).min(rate * i128::from(DEPTH));
        self.level > 0
    }

    /// So many bytes were sent.
    pub fn spend(&mut self, bytes: u64) {
        self.level -= i128::from(bytes) * i128::from(SECOND);
    }

    /// When it is open again; in the past when it is.
    #[must_use]
    pub fn next(&self) -> Nanos {
        let missing = u128::try_from(1 - self.level).unwrap_or(0);
        self.at.saturating_add(u64::try_from(missing.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_is_the_rate_times_the_time_and_one_bucket() {
        for (rate, piece) in [(1_000_000, 48), (1_000_000, 70_000), (7, 3), (100_000_000_000, 131_072)] {
            let mut bucket = Bucket::new(rate, 0).unwrap();
            let (mut now, mut sent) = (0, 0u64);
            while now < 10 * SECOND && sent < 1 << 30 {
                while bucket.is_open(now) {
                    bucket.spend(piece);
                    sent += piece;
                }
                assert!(bucket.next() > now);
                now = bucket.next();
                assert!(bucket.is_open(now), "open at the time it names");
            }
            let full = u128::from(rate) * u128::from(now + DEPTH) / u128::from(SECOND);
            assert!(u128::from(sent).abs_diff(full) <= u128::from(piece) + 1, "{rate}: {sent} of {full}");
        }
    }

    #[test]
    fn silence_fills_it_once() {
        let mut bucket = Bucket::new(1000, 0).unwrap();
        assert!(bucket.is_open(3600 * SECOND));
        bucket.spend(50);
        assert!(!bucket.is_open(3600 * SECOND));
        assert_eq!(bucket.next(), 3600 * SECOND + 1);
        assert!(Bucket::new(0, 0).is_none(), "no limit");
    }
}
