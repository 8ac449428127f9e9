//! Filters: stores in front of a store. They are test equipment and product at once, and deterministic.
//!
//! A filter that has to see the data (check), the time (delay) or the outcome (fault) of every operation hides the
//! memory mapping of the store behind it, because reads served from there would pass it by.

mod check;
pub mod delay;
mod fault;
mod readonly;

use std::sync::Arc;

use crate::error::StoreError;
use crate::options::{FilterSpec, invalid};
use crate::{Capabilities, Store};

/// A filter whose parameters are known to be right.
pub(crate) enum Maker {
    Check,
    Delay(delay::Times),
    Fault(fault::Rule),
    ReadOnly,
}

impl Maker {
    pub(crate) fn new(spec: &FilterSpec) -> Result<Self, StoreError> {
        match spec.name.as_str() {
            "check" => check::parse(&spec.params).map(|()| Maker::Check),
            "delay" => delay::Times::parse(&spec.params).map(Maker::Delay),
            "fault" => fault::Rule::parse(&spec.params).map(Maker::Fault),
            "readonly" => readonly::parse(&spec.params).map(|()| Maker::ReadOnly),
            other => Err(invalid(format!("{other:?} is no filter (check, delay, fault, readonly)"))),
        }
    }

    pub(crate) fn apply(self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        match self {
            Maker::Check => check::apply(store),
            Maker::Delay(times) => delay::apply(store, times),
            Maker::Fault(rule) => fault::apply(store, rule),
            Maker::ReadOnly => readonly::apply(store),
        }
    }
}

/// Puts filters before any store, the first outermost; for stores that were not made by [`crate::open`].
///
/// # Errors
/// An unknown filter or parameter ([`crate::ErrorKind::Invalid`]).
pub fn stack(store: Arc<dyn Store>, specs: &[FilterSpec]) -> Result<Arc<dyn Store>, StoreError> {
    let makers = specs.iter().map(Maker::new).collect::<Result<Vec<_>, _>>()?;
    Ok(apply_all(store, makers))
}

pub(crate) fn apply_all(store: Arc<dyn Store>, makers: Vec<Maker>) -> Arc<dyn Store> {
    makers.into_iter().rev().fold(store, |store, maker| maker.apply(store))
}

/// The capabilities of a store whose memory must not be read past the filter.
fn without_mapping(store: &dyn Store) -> Capabilities {
    Capabilities { stable_memory: false, ..store.capabilities() }
}
