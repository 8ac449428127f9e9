//! What every store and every stack of filters must do, as a suite that anybody who writes one can run.
//!
//! ```
//! # use blockwire_store::{conformance, open, OpenOptions};
//! let options = OpenOptions { create_size: Some(4 << 20), ..OpenOptions::default() };
//! let make = || open("ram", "", &options, &Default::default(), &[]).unwrap();
//! conformance::run(&make, &conformance::Expect::default()).assert_passed();
//! ```
//!
//! Not promised, so not tested: any order among operations in flight together, and which bytes of which of two
//! overlapping writes remain.

mod concurrent;
mod data;
mod model;
mod refusals;

use std::fmt;
use std::sync::Arc;

use crate::Store;

/// Makes a store: a new one each time, or the same one opened again.
pub type Make<'a> = &'a dyn Fn() -> Arc<dyn Store>;

/// What the suite should know about the store it gets.
#[derive(Clone, Copy)]
pub struct Expect<'a> {
    /// It returns what was written (a null store does not).
    pub retains: bool,
    /// Opens again what `make` made last, after that was dropped; the durability case needs it.
    pub reopen: Option<Make<'a>>,
    /// Operations in the random comparison with a model.
    pub steps: u32,
    /// Start of all random choices.
    pub seed: u64,
}

impl Default for Expect<'_> {
    fn default() -> Self {
        Self { retains: true, reopen: None, steps: 400, seed: 7 }
    }
}

/// Why a case could not be run on this store: not a failure.
pub(crate) struct Skip(pub(crate) &'static str);

/// How a case ended, unless it failed.
pub(crate) type Verdict = Result<Option<Skip>, String>;

/// A named part of the suite.
pub(crate) type Case = (&'static str, fn(&Context<'_>) -> Verdict);

/// What a case works with.
pub(crate) struct Context<'a> {
    pub(crate) make: Make<'a>,
    pub(crate) expect: Expect<'a>,
}

impl Context<'_> {
    /// A store that may be written, if this one may.
    pub(crate) fn writable(&self) -> Result<Arc<dyn Store>, Skip> {
        let store = (self.make)();
        if store.capabilities().read_only { Err(Skip("the store is read-only")) } else { Ok(store) }
    }

    /// A store that may be written and keeps what was written.
    pub(crate) fn retaining(&self) -> Result<Arc<dyn Store>, Skip> {
        if !self.expect.retains {
            return Err(Skip("the store keeps no data"));
        }
        self.writable()
    }
}

/// What became of every case.
#[derive(Debug, Default)]
pub struct Report {
    /// Names of the cases that passed.
    pub passed: Vec<&'static str>,
    /// Names of the cases that do not apply, and why.
    pub skipped: Vec<(&'static str, &'static str)>,
    /// Names of the cases that failed, and what was seen.
    pub failed: Vec<(&'static str, String)>,
}

impl Report {
    /// # Panics
    /// When a case failed, with all of them in the message.
    pub fn assert_passed(&self) {
        assert!(self.failed.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{} passed, {} not applicable", self.passed.len(), self.skipped.len())?;
        self.failed.iter().try_for_each(|(name, why)| writeln!(out, "FAILED {name}: {why}"))
    }
}

/// Names of all cases, in order.
pub fn case_names() -> impl Iterator<Item = &'static str> {
    all_cases().map(|(name, _)| *name)
}

fn all_cases() -> impl Iterator<Item = &'static Case> {
    [data::CASES, refusals::CASES, concurrent::CASES, model::CASES].into_iter().flatten()
}

/// Runs the whole suite. Stores of `make` must have 2 MiB or more; their first and last MiB are overwritten.
pub fn run(make: Make<'_>, expect: &Expect<'_>) -> Report {
    let context = Context { make, expect: *expect };
    let mut report = Report::default();
    for (name, case) in all_cases() {
        match case(&context) {
            Ok(None) => report.passed.push(name),
            Ok(Some(Skip(why))) => report.skipped.push((name, why)),
            Err(why) => report.failed.push((name, why)),
        }
    }
    report
}

/// Fails a case with a message when a condition does not hold.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

/// Takes the value, or ends the case as not applicable.
macro_rules! applicable {
    ($value:expr) => {
        match $value {
            Ok(value) => value,
            Err(skip) => return Ok(Some(skip)),
        }
    };
}

pub(crate) use {applicable, ensure};

/// Small, seeded and good enough (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        // Long data repeat themselves with a period that is a multiple of nothing a store cares about.
        let fresh = len.min(131_101);
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < fresh {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(fresh);
        while bytes.len() < len {
            bytes.extend_from_within(..(len - bytes.len()).min(fresh));
        }
        bytes
    }
}

pub(crate) fn read_back(store: &dyn Store, offset: u64, len: usize) -> Result<Vec<u8>, String> {
    let mut buffer = vec![0x5a; len];
    crate::read(store, offset, &mut buffer).map_err(|error| format!("read of {len} at {offset}: {error}"))?;
    Ok(buffer)
}

pub(crate) fn put(store: &dyn Store, offset: u64, data: &[u8]) -> Result<(), String> {
    crate::write(store, offset, data, false).map_err(|error| format!("write of {} at {offset}: {error}", data.len()))
}

/// Compares without printing megabytes.
pub(crate) fn same(seen: &[u8], wanted: &[u8], offset: u64, what: &str) -> Result<(), String> {
    if seen == wanted {
        return Ok(());
    }
    match seen.iter().zip(wanted).position(|(a, b)| a != b) {
        Some(at) => {
            let place = offset + at as u64;
            Err(format!("{what}: byte {place} is {:#04x}, not {:#04x}", seen[at], wanted[at]))
        }
        None => Err(format!("{what}: {} bytes, not {}", seen.len(), wanted.len())),
    }
}
