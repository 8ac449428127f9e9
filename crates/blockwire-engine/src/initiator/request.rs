//! Requests as callers make them, and where the memory of a task is.

use blockwire_proto::{Direction, Slot};

use super::cdb::UNMAP_LIST;
use crate::events::{TaskDone, Token};
use crate::sys::socket::Part;
use crate::transmit::Resolve;

/// A caller's buffer: raw, because it belongs to somebody else (the pin of a Python object) until the request ends.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    base: *mut u8,
    len: u32,
}

// SAFETY: an address and a length. Whoever makes one promises that any thread may use the memory while the request lives.
unsafe impl Send for Memory {}

impl Memory {
    /// No buffer.
    pub const NONE: Self = Self { base: std::ptr::null_mut(), len: 0 };

    /// Memory for a request.
    ///
    /// # Safety
    /// The memory stays valid, and is used by nobody else (for data to the target: is changed by nobody), until the
    /// request's `TaskDone` was taken by `drain`, `wait` or `execute`.
    #[must_use]
    pub unsafe fn new(base: *mut u8, len: u32) -> Self {
        Self { base, len }
    }

    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn part(&self, offset: u32, len: u32) -> Part {
        let offset = offset.min(self.len);
        Part::new(self.base.wrapping_add(offset as usize), len.min(self.len - offset) as usize)
    }
}

/// Any SCSI command.
#[derive(Clone, Copy, Debug)]
pub struct CommandRequest<'a> {
    /// LUN field (RFC 7143 11.3.3) as a number.
    pub lun: u64,
    pub cdb: &'a [u8],
    pub attribute: u8,
    pub immediate: bool,
    pub data_out: Memory,
    pub data_in: Memory,
    pub cid: Option<u16>,
}

/// How `execute` came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    pub done: TaskDone,
    /// The task could not be ended in time: its buffers stay in use until another `TaskDone` with this token comes as
    /// an event.
    pub pinned: bool,
}

/// Zeros for WRITE SAME; a block is never longer.
static ZEROS: [u8; 65536] = [0; 65536];
/// Longest logical block that WRITE SAME is built for.
pub(super) const LONGEST_BLOCK: u32 = ZEROS.len() as u32;

#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Memory(Memory),
    List([u8; UNMAP_LIST]),
    Zeros,
}

/// What a slot's task reads into and writes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub source: Source,
    pub target: Memory,
    pub queue: u32,
    pub token: Token,
    /// The caller's memory must not be written any more: what comes is thrown away.
    pub revoked: bool,
}

impl Place {
    /// Data goes to the target.
    pub fn writes(&self) -> bool {
        !matches!(self.source, Source::Memory(memory) if memory.is_empty())
    }
}

/// Places by slot.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Option<Place>>);

impl Places {
    pub fn set(&mut self, slot: Slot, place: Place) {
        let at = slot.0 as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, None);
        }
        self.0[at] = Some(place);
    }

    pub fn take(&mut self, slot: Slot) -> Option<Place> {
        self.0.get_mut(slot.0 as usize)?.take()
    }

    #[inline]
    pub fn writable(&self, slot: Slot, offset: u32, len: u32) -> Option<Part> {
        let place = self.0.get(slot.0 as usize)?.as_ref()?;
        if place.revoked {
            return None;
        }
        let part = place.target.part(offset, len);
        (!part.is_empty()).then_some(part)
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut Place> {
        self.0.iter_mut().flatten()
    }
}

impl Resolve for Places {
    #[inline]
    fn payload(&self, slot: Slot, _direction: Direction, offset: u32, len: u32) -> Part {
        let place = self.0.get(slot.0 as usize).and_then(Option::as_ref).expect("a queued payload has its place");
        match &place.source {
            Source::Memory(memory) => memory.part(offset, len),
            Source::List(list) => Part::new(list[offset as usize..].as_ptr().cast_mut(), len as usize),
            Source::Zeros => Part::new(ZEROS.as_ptr().cast_mut(), len as usize),
        }
    }
}
