//! `fault`: lets operations fail without running them. Which ones is a function of the parameters, the seed and the
//! order of submission, so a run can be repeated.
//!
//! Parameters: `op=read+write` (default all), `offset=BYTES` and `len=BYTES` (default everywhere), `after=N` (let
//! the first N matching operations pass), `count=N` (fail so many, default no end), `probability=0.01` with
//! `seed=N` (default 1), `errno=EIO` (name or number, default EIO). Several rules are several filters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StoreError;
use crate::op::{Op, Submitted};
use crate::options::{Params, invalid};
use crate::{Capabilities, CompletionSink, Geometry, Mapping, Store, StoreIdentity};

const NAMES: [(&str, i32); 12] = [
    ("EIO", libc::EIO),
    ("ENOSPC", libc::ENOSPC),
    ("EDQUOT", libc::EDQUOT),
    ("ENODEV", libc::ENODEV),
    ("ENXIO", libc::ENXIO),
    ("ENOMEM", libc::ENOMEM),
    ("EROFS", libc::EROFS),
    ("EPERM", libc::EPERM),
    ("ETIMEDOUT", libc::ETIMEDOUT),
    ("EREMOTEIO", libc::EREMOTEIO),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
    ("EBUSY", libc::EBUSY),
];

/// When to fail, and how.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    kinds: [bool; 7],
    offset: u64,
    len: u64,
    after: u64,
    count: u64,
    probability: f64,
    seed: u64,
    errno: i32,
}

impl Rule {
    pub(crate) fn parse(map: &BTreeMap<String, String>) -> Result<Self, StoreError> {
        let known = ["op", "offset", "len", "after", "count", "probability", "seed", "errno"];
        let params = Params::new("filter fault", map, &known)?;
        let probability = params.number::<f64>("probability")?.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&probability) {
            return Err(invalid(format!("filter fault: probability={probability} is not between 0 and 1")));
        }
        let errno = match params.text("errno") {
            None => libc::EIO,
            Some(text) => NAMES
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(text))
                .map(|(_, number)| *number)
                .or_else(|| text.parse().ok().filter(|number| (1..4096).contains(number)))
                .ok_or_else(|| invalid(format!("filter fault: errno={text:?} is neither a number nor a known name")))?,
        };
        Ok(Self {
            kinds: params.kinds("op")?,
            offset: params.number("offset")?.unwrap_or(0),
            len: params.number("len")?.unwrap_or(u64::MAX),
            after: params.number("after")?.unwrap_or(0),
            count: params.number("count")?.unwrap_or(u64::MAX),
            probability,
            seed: params.number("seed")?.unwrap_or(1),
            errno,
        })
    }

    fn matches(&self, op: &Op) -> bool {
        let hit = |start: u64, len: u64| {
            start < self.offset.saturating_add(self.len) && start.saturating_add(len) > self.offset
        };
        self.kinds[op.kind().index()]
            && match op {
                Op::Copy { from, to, len } => hit(*from, *len) || hit(*to, *len),
                _ => op.range().is_none_or(|(offset, len)| hit(offset, len)),
            }
    }

    /// Whether the matching operation with this number draws the short straw.
    fn draws(&self, number: u64) -> bool {
        // splitmix64 of (seed, number): each operation has its own draw, whatever the threads do.
        let mut bits = self.seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 11) as f64) < self.probability * (1u64 << 53) as f64
    }
}

struct Fault {
    inner: Arc<dyn Store>,
    rule: Rule,
    matched: AtomicU64,
    failed: AtomicU64,
}

pub(crate) fn apply(inner: Arc<dyn Store>, rule: Rule) -> Arc<dyn Store> {
    Arc::new(Fault { inner, rule, matched: AtomicU64::new(0), failed: AtomicU64::new(0) })
}

impl Fault {
    fn fails(&self, op: &Op) -> bool {
        if !self.rule.matches(op) {
            return false;
        }
        let number = self.matched.fetch_add(1, Ordering::Relaxed);
        if number < self.rule.after || !self.rule.draws(number) {
            return false;
        }
        self.failed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < self.rule.count).then_some(n + 1))
            .is_ok()
    }
}

impl Store for Fault {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        super::without_mapping(&*self.inner)
    }

    fn mapping(&self) -> Option<Mapping> {
        None
    }

    fn identity(&self) -> StoreIdentity {
        self.inner.identity()
    }

    fn submit(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>) -> Submitted {
        if self.fails(&op) {
            let mut error = StoreError::from_errno(self.rule.errno, "failed by the fault filter");
            error.offset = op.range().map(|(offset, _)| offset);
            return Submitted::Done(Err(error));
        }
        self.inner.submit(op, token, sink)
    }

    fn try_cancel(&self, token: u64) -> bool {
        self.inner.try_cancel(token)
    }
}
