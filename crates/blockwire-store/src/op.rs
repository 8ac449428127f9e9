//! One operation on a byte range, and how it ends.

use crate::error::StoreError;
use crate::iovecs::IoVecs;

/// One request. Offsets and lengths are bytes; any alignment is allowed.
#[derive(Debug, Clone)]
pub enum Op {
    /// Fills `dst` from `offset` on.
    Read {
        /// First byte.
        offset: u64,
        /// Where the data go; its length is the length of the read.
        dst: IoVecs,
    },
    /// Puts `src` at `offset`.
    Write {
        /// First byte.
        offset: u64,
        /// Where the data are; its length is the length of the write.
        src: IoVecs,
        /// The data are on stable storage when the operation completes.
        fua: bool,
    },
    /// Makes a range read as zeros.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The space may be given back; otherwise it stays (or becomes) allocated where the store can.
        may_unmap: bool,
        /// The zeros are on stable storage when the operation completes.
        fua: bool,
    },
    /// Gives the space of a range back; it reads as zeros afterwards. Only with [`crate::Capabilities::can_punch`].
    Punch {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Copies inside the store; the ranges may overlap, the result is that of `memmove`.
    Copy {
        /// First byte of the source.
        from: u64,
        /// First byte of the destination.
        to: u64,
        /// Bytes.
        len: u64,
    },
    /// Everything that completed before this was submitted is on stable storage when it completes.
    Flush,
    /// Changes the size; new bytes read as zeros. Only with [`crate::Capabilities::can_resize`].
    Resize {
        /// The new size in bytes.
        size: u64,
    },
}

/// The kind of an operation, without its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum OpKind {
    Read,
    Write,
    Zero,
    Punch,
    Copy,
    Flush,
    Resize,
}

impl OpKind {
    /// All kinds, in the order of [`OpKind::index`].
    pub const ALL: [OpKind; 7] =
        [OpKind::Read, OpKind::Write, OpKind::Zero, OpKind::Punch, OpKind::Copy, OpKind::Flush, OpKind::Resize];

    /// The word used in filter parameters and traces.
    pub const fn name(self) -> &'static str {
        match self {
            OpKind::Read => "read",
            OpKind::Write => "write",
            OpKind::Zero => "zero",
            OpKind::Punch => "punch",
            OpKind::Copy => "copy",
            OpKind::Flush => "flush",
            OpKind::Resize => "resize",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<OpKind> {
        OpKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A dense number, for tables.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Op {
    /// Its kind.
    pub const fn kind(&self) -> OpKind {
        match self {
            Op::Read { .. } => OpKind::Read,
            Op::Write { .. } => OpKind::Write,
            Op::Zero { .. } => OpKind::Zero,
            Op::Punch { .. } => OpKind::Punch,
            Op::Copy { .. } => OpKind::Copy,
            Op::Flush => OpKind::Flush,
            Op::Resize { .. } => OpKind::Resize,
        }
    }

    /// The range it reads or changes as (first byte, bytes); the destination for a copy, nothing for flush and resize.
    pub fn range(&self) -> Option<(u64, u64)> {
        match self {
            Op::Read { offset, dst } => Some((*offset, dst.len() as u64)),
            Op::Write { offset, src, .. } => Some((*offset, src.len() as u64)),
            Op::Zero { offset, len, .. } | Op::Punch { offset, len } => Some((*offset, *len)),
            Op::Copy { to, len, .. } => Some((*to, *len)),
            Op::Flush | Op::Resize { .. } => None,
        }
    }

    /// True when it can change the medium.
    pub const fn changes(&self) -> bool {
        !matches!(self, Op::Read { .. } | Op::Flush)
    }
}

/// How an operation ended.
pub type Outcome = Result<(), StoreError>;

/// What `submit` says.
#[derive(Debug)]
#[must_use = "a pending operation's memory stays lent until its completion arrives"]
pub enum Submitted {
    /// It is over; nothing will arrive at the sink.
    Done(Outcome),
    /// The completion arrives at the sink exactly once.
    Pending,
}
