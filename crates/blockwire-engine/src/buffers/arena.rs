//! One arena per worker: 64 KiB segments out of one reservation of address space.
//!
//! Address space is reserved at the start and gets memory on first touch; `trim` gives the memory of free segments back.
//! A payload is a list of extents. Small payloads share a segment, which is free again when the last of them goes.
//! Nothing here allocates after `new`.

use std::io;
use std::ptr::NonNull;

/// Bytes of a segment.
pub const SEGMENT: usize = 64 * 1024;
/// Small payloads start on this boundary, so that two of them never share a cache line.
const GRAIN: u32 = 512;

/// Part of a segment that a payload holds. Copies name the same bytes; each `retain` or allocation is one `release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    segment: u32,
    offset: u32,
    pub len: u32,
}

/// Bounded payload memory.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    segments: usize,
    /// Extents alive in each segment.
    references: Vec<u32>,
    /// Free segments, last freed last.
    free: Vec<u32>,
    /// The segment that small payloads are cut from, and how much of it is used.
    open: Option<(u32, u32)>,
    /// Segments at the end of `free` that may have been touched since the last trim are all those not in `clean`.
    touched: Vec<bool>,
}

// SAFETY: the memory belongs to this value alone; extents are plain numbers that only its owner resolves.
unsafe impl Send for Arena {}

impl Arena {
    /// Reserves `bytes` (rounded up to segments). Fork leaves a child without it (MADV_DONTFORK).
    ///
    /// # Errors
    /// The system's, when there is not that much address space.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let segments = bytes.div_ceil(SEGMENT).max(2);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), segments * SEGMENT, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range was just mapped.
        unsafe { libc::madvise(base, segments * SEGMENT, libc::MADV_DONTFORK) };
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?,
            segments,
            references: vec![0; segments],
            free: (0..segments as u32).rev().collect(),
            open: None,
            touched: vec![false; segments],
        })
    }

    /// Segments that hold something.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.segments - self.free.len()
    }

    /// Bytes that could still be had as whole segments.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len() * SEGMENT
    }

    /// All bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.segments * SEGMENT
    }

    fn take_segment(&mut self) -> Option<u32> {
        let segment = self.free.pop()?;
        self.touched[segment as usize] = true;
        Some(segment)
    }

    fn close_open(&mut self) {
        if let Some((segment, _)) = self.open.take() {
            self.unreference(segment);
        }
    }

    fn unreference(&mut self, segment: u32) {
        let count = &mut self.references[segment as usize];
        debug_assert!(*count > 0, "released once too often");
        *count -= 1;
        if *count == 0 {
            self.free.push(segment);
        }
    }

    /// One contiguous extent of `len` bytes (1 to `SEGMENT`), or None when the arena is exhausted.
    pub fn allocate(&mut self, len: u32) -> Option<Extent> {
        debug_assert!(len > 0 && len as usize <= SEGMENT);
        if len as usize > SEGMENT / 2 {
            let segment = self.take_segment()?;
            self.references[segment as usize] = 1;
            return Some(Extent { segment, offset: 0, len });
        }
        let rounded = len.next_multiple_of(GRAIN);
        if let Some((segment, used)) = self.open {
            // Nobody else holds a part of it: start again at its (cache-warm) beginning.
            let used = if self.references[segment as usize] == 1 { 0 } else { used };
            if (used + rounded) as usize <= SEGMENT {
                self.open = Some((segment, used + rounded));
                self.references[segment as usize] += 1;
                return Some(Extent { segment, offset: used, len });
            }
            self.close_open();
        }
        let segment = self.take_segment()?;
        // One reference is the arena's own while the segment is open.
        self.references[segment as usize] = 2;
        self.open = Some((segment, rounded));
        Some(Extent { segment, offset: 0, len })
    }

    /// Extents for `len` bytes in order, pushed onto `out`: all of them or none.
    pub fn allocate_list(&mut self, len: usize, out: &mut Vec<Extent>) -> bool {
        if len > SEGMENT && len.div_ceil(SEGMENT) > self.free.len() {
            return false;
        }
        let start = out.len();
        let mut left = len;
        while left > 0 {
            let part = left.min(SEGMENT);
            let Some(extent) = self.allocate(part as u32) else {
                for extent in out.drain(start..) {
                    self.unreference(extent.segment);
                }
                return false;
            };
            out.push(extent);
            left -= part;
        }
        true
    }

    /// One more holder of the extent's memory.
    pub fn retain(&mut self, extent: Extent) {
        debug_assert!(self.references[extent.segment as usize] > 0);
        self.references[extent.segment as usize] += 1;
    }

    /// One holder less.
    pub fn release(&mut self, extent: Extent) {
        self.unreference(extent.segment);
    }

    /// Address of the extent's first byte; valid for `len` bytes until its last release.
    #[inline]
    #[must_use]
    pub fn pointer(&self, extent: Extent) -> *mut u8 {
        debug_assert!(self.references[extent.segment as usize] > 0);
        // SAFETY: segment and offset were handed out by `allocate` and lie inside the mapping.
        unsafe { self.base.as_ptr().add(extent.segment as usize * SEGMENT + extent.offset as usize) }
    }

    /// Gives the memory of free segments back to the system, beyond `keep` of them; for an idle moment.
    pub fn trim(&mut self, keep: usize) {
        if let Some((segment, _)) = self.open
            && self.references[segment as usize] == 1
        {
            self.close_open();
        }
        let end = self.free.len().saturating_sub(keep);
        for &segment in &self.free[..end] {
            if std::mem::take(&mut self.touched[segment as usize]) {
                // SAFETY: nobody holds a part of a free segment.
                unsafe {
                    let start = self.base.as_ptr().add(segment as usize * SEGMENT);
                    libc::madvise(start.cast(), SEGMENT, libc::MADV_DONTNEED);
                }
            }
        }
    }

    /// Segments whose memory may be present.
    #[must_use]
    pub fn touched(&self) -> usize {
        self.touched.iter().filter(|t| **t).count()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's; extents that outlive it are numbers without a resolver.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.segments * SEGMENT) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_payloads_share_a_segment_and_free_it_together() {
        let mut arena = Arena::new(4 * SEGMENT).expect("address space");
        let a = arena.allocate(4096).expect("room");
        let b = arena.allocate(4096).expect("room");
        assert_eq!(arena.in_use(), 1);
        assert_eq!(arena.pointer(b) as usize - arena.pointer(a) as usize, 4096);
        arena.release(a);
        let c = arena.allocate(100).expect("room");
        assert_ne!(arena.pointer(c), arena.pointer(b));
        arena.release(b);
        arena.release(c);
        let d = arena.allocate(4096).expect("room");
        assert_eq!(arena.pointer(d), arena.pointer(a), "an idle open segment starts again");
        arena.release(d);
        arena.trim(0);
        assert_eq!((arena.in_use(), arena.touched()), (0, 0));
    }

    #[test]
    fn exhaustion_takes_nothing() {
        let mut arena = Arena::new(3 * SEGMENT).expect("address space");
        let mut list = Vec::new();
        assert!(arena.allocate_list(2 * SEGMENT + 10, &mut list));
        assert_eq!(list.iter().map(|e| e.len as usize).sum::<usize>(), 2 * SEGMENT + 10);
        let mut more = Vec::new();
        assert!(!arena.allocate_list(2 * SEGMENT, &mut more));
        assert!(more.is_empty());
        for extent in list {
            arena.release(extent);
        }
        assert!(arena.allocate_list(2 * SEGMENT, &mut more));
    }
}
