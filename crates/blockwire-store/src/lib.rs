//! Stores: what lies behind a logical unit, seen as byte ranges and nothing of SCSI.
//!
//! A [`Store`] takes one [`Op`] at a time and either answers at once or later through a [`CompletionSink`]; it never
//! blocks its caller. Filters have the same shape and stack on any store. [`conformance`] is the suite every store
//! and every stack passes.
//!
//! Order: operations in flight together have no order among each other; who needs one waits for the completion.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod blocking;
pub mod conformance;
mod error;
pub mod filters;
mod iovecs;
mod memory;
mod op;
mod open;
mod options;
mod pool;
pub mod stores;
mod sys;

use std::ptr::NonNull;
use std::sync::Arc;

pub use blocking::{block_on, read, write};
pub use error::{ErrorKind, StoreError};
pub use iovecs::{IoVec, IoVecs};
pub use op::{Op, OpKind, Outcome, Submitted};
pub use open::open;
pub use options::{FilterSpec, OpenOptions};

/// Size and preferred shapes of a store, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size; changes only by [`Op::Resize`].
    pub size: u64,
    /// Smallest unit that is written without reading first.
    pub physical_block: u32,
    /// Length that is served best, 0 where nothing is known.
    pub optimal_io: u32,
}

/// What a store can do. Fixed while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Every change is refused with [`ErrorKind::ReadOnly`].
    pub read_only: bool,
    /// [`Op::Zero`] costs less than writing zeros (it works in any case).
    pub can_zero: bool,
    /// [`Op::Punch`] frees space and the range reads as zeros; otherwise it is refused as unsupported.
    pub can_punch: bool,
    /// A volatile cache exists, so that [`Op::Flush`] and FUA matter.
    pub can_flush: bool,
    /// [`Store::mapping`] gives the memory.
    pub stable_memory: bool,
    /// [`Op::Resize`] works; otherwise it is refused as unsupported.
    pub can_resize: bool,
}

/// The memory of a RAM store, from which a READ may be served directly.
///
/// `base` never moves and the range stays mapped while the store is open (hold its `Arc`). The bytes change under
/// the reader's hands when somebody writes; a later, larger mapping (after a resize) starts at the same `base`.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// First byte.
    pub base: NonNull<u8>,
    /// Bytes; the size of the store when asked.
    pub len: usize,
}

// SAFETY: an address and a length; using it is `unsafe` for whoever does.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}

/// What a serial number and a NAA designator are derived from: the same store gives the same value after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    /// `ram`, `file`, `block` or `null`.
    pub kind: &'static str,
    /// Absolute path for what lives in a file or device, the given name (may be empty) for what does not.
    pub key: String,
    /// The serial number the user asked for.
    pub serial: Option<String>,
}

/// Where completions arrive. Called from the store's own threads, several may call at once.
///
/// An implementation must be quick, must not panic, and must not wait for another operation of the same store.
pub trait CompletionSink: Send + Sync {
    /// Each entry is a token and how its operation ended; what was lent to these operations is the caller's again.
    fn complete(&self, batch: &[(u64, Outcome)]);
}

/// A disk of bytes.
pub trait Store: Send + Sync {
    /// Size and preferred shapes now.
    fn geometry(&self) -> Geometry;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Its memory, where reads may be served from directly.
    fn mapping(&self) -> Option<Mapping>;

    /// What it is, stable over restarts.
    fn identity(&self) -> StoreIdentity;

    /// Runs `op` inline when it cannot block (memory, cached file data), otherwise hands it on and completes later
    /// with `token` on `sink`. Never blocks the caller, and never completes on the caller's stack.
    ///
    /// `token` must be unique among the store's outstanding operations if [`Store::try_cancel`] is used. The number
    /// of outstanding operations is bounded by the caller (its task limit), not here.
    fn submit(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>) -> Submitted;

    /// Takes back an operation that has not started. True: it will not run, no completion arrives, its memory is the
    /// caller's again. False: it runs, is over, or is unknown; a completion arrives if it was pending.
    fn try_cancel(&self, token: u64) -> bool;
}

/// Refuses a range that does not lie in a store of `size` bytes.
pub(crate) fn check_range(offset: u64, len: u64, size: u64) -> Outcome {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(StoreError::new(ErrorKind::OutOfRange, "range ends behind the end of the store").at(offset)),
    }
}

/// Checks every range of `op` against a store of `size` bytes, and that a read-only store is not changed.
pub(crate) fn check_op(op: &Op, size: u64, capabilities: &Capabilities) -> Outcome {
    if capabilities.read_only && op.changes() {
        let offset = op.range().map_or(0, |range| range.0);
        return Err(StoreError::new(ErrorKind::ReadOnly, "the store is read-only").at(offset));
    }
    match op {
        Op::Punch { .. } if !capabilities.can_punch => {
            return Err(StoreError::new(ErrorKind::Unsupported, "the store cannot free space"));
        }
        Op::Resize { .. } if !capabilities.can_resize => {
            return Err(StoreError::new(ErrorKind::Unsupported, "the store cannot be resized"));
        }
        Op::Copy { from, len, .. } => check_range(*from, *len, size)?,
        _ => {}
    }
    op.range().map_or(Ok(()), |(offset, len)| check_range(offset, len, size))
}
