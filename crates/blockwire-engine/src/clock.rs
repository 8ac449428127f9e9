//! Time as the engine sees it: nanoseconds of one monotonic clock, real or virtual.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Nanoseconds since an arbitrary start.
pub type Nanos = u64;

/// One second in `Nanos`.
pub const SECOND: Nanos = 1_000_000_000;

/// The clock of a plane; cheap to clone.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's monotonic clock.
    Monotonic(Instant),
    /// Moved by hand, for the stepped driver.
    Virtual(Arc<AtomicU64>),
}

impl Clock {
    #[must_use]
    pub fn monotonic() -> Self {
        Self::Monotonic(Instant::now())
    }

    #[must_use]
    pub fn manual() -> Self {
        Self::Virtual(Arc::new(AtomicU64::new(0)))
    }

    #[must_use]
    pub fn now(&self) -> Nanos {
        match self {
            Self::Monotonic(start) => start.elapsed().as_nanos() as Nanos,
            Self::Virtual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Moves a virtual clock to `now` (never backwards); no effect on the monotonic one.
    pub fn set(&self, now: Nanos) {
        if let Self::Virtual(cell) = self {
            cell.fetch_max(now, Ordering::Relaxed);
        }
    }
}
