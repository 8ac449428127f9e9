//! The memory behind a RAM store: one mapping whose base never moves.
//!
//! Several threads read and write it at once, with no lock between them. A disk promises nothing about overlapping
//! commands in flight together, and neither does this: bytes of a racing copy may be old or new in any mixture. So
//! no Rust reference to this memory is ever made; all access is by raw pointer and by the C library's copies.
//! (Formally the language has no words for a race of two memcpy; every disk-in-memory has it, the kernel's too.)
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::iovecs::IoVecs;
use crate::sys::{Errno, errno};

/// Granularity of the mapping; also right where the kernel's pages are larger, because the base is mapped by it.
pub(crate) const PAGE: usize = 4096;

/// A range of memory that is reserved in whole and usable from its base up to `usable`.
pub(crate) struct Region {
    base: NonNull<u8>,
    reserved: usize,
    /// Bytes that may be touched; it only grows, so that a late reader never faults.
    usable: AtomicUsize,
    anonymous: bool,
}

// SAFETY: the region owns its mapping until dropped; racing access is by raw pointers only, as the module says.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

fn page_up(len: usize) -> Option<usize> {
    len.checked_add(PAGE - 1).map(|len| len & !(PAGE - 1))
}

fn map(len: usize, protection: i32, flags: i32, fd: i32) -> Result<NonNull<u8>, Errno> {
    // SAFETY: the kernel chooses the address, so nothing that exists is replaced.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
    if base == libc::MAP_FAILED {
        return Err(errno());
    }
    NonNull::new(base.cast()).ok_or(libc::ENOMEM)
}

impl Region {
    /// Anonymous zeros, committed on touch. Up to `growth` more address space is reserved behind it where the
    /// system allows that.
    pub(crate) fn anonymous(len: usize, growth: usize) -> Result<Self, Errno> {
        let needed = page_up(len.max(1)).ok_or(libc::ENOMEM)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let wanted = needed.saturating_add(growth) & !(PAGE - 1);
        // An address space limit (ulimit -v) may refuse the reserve; the store then simply cannot grow.
        let (base, reserved) = match map(wanted, libc::PROT_NONE, flags, -1) {
            Ok(base) => (base, wanted),
            Err(_) => (map(needed, libc::PROT_NONE, flags, -1)?, needed),
        };
        let region = Self { base, reserved, usable: AtomicUsize::new(0), anonymous: true };
        // A forked child must not share or copy it: copy-on-write would double what the parent then writes.
        // Huge pages are advice; a kernel without them says EINVAL and nothing is lost.
        for advice in [libc::MADV_DONTFORK, libc::MADV_HUGEPAGE] {
            // SAFETY: our own fresh mapping; both only change how it is treated.
            unsafe { libc::madvise(region.base.as_ptr().cast(), region.reserved, advice) };
        }
        region.grow(needed)?;
        Ok(region)
    }

    /// A shared mapping of the first `len` bytes of a file, which must be allocated in full and stay that long:
    /// touching a page behind the file's end, or one the disk has no room for, kills the process (SIGBUS).
    pub(crate) fn shared(file: &File, len: usize, writable: bool) -> Result<Self, Errno> {
        let reserved = page_up(len.max(1)).ok_or(libc::ENOMEM)?;
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let base = map(reserved, protection, libc::MAP_SHARED, file.as_raw_fd())?;
        // SAFETY: our own fresh mapping.
        unsafe { libc::madvise(base.as_ptr().cast(), reserved, libc::MADV_DONTFORK) };
        Ok(Self { base, reserved, usable: AtomicUsize::new(len), anonymous: false })
    }

    pub(crate) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) const fn reserved(&self) -> usize {
        self.reserved
    }

    /// Makes at least `len` bytes usable; ENOMEM when that is more than was reserved.
    pub(crate) fn grow(&self, len: usize) -> Result<(), Errno> {
        let len = page_up(len).filter(|len| *len <= self.reserved).ok_or(libc::ENOMEM)?;
        if len <= self.usable.load(Ordering::Acquire) {
            return Ok(());
        }
        // SAFETY: a prefix of our own reserved, anonymous mapping; access is only ever added to it.
        if unsafe { libc::mprotect(self.base.as_ptr().cast(), len, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(errno());
        }
        self.usable.fetch_max(len, Ordering::AcqRel);
        Ok(())
    }

    /// The address of `offset`, having checked that `len` bytes from there may be touched.
    #[inline]
    fn at(&self, offset: u64, len: usize) -> *mut u8 {
        let usable = self.usable.load(Ordering::Acquire);
        assert!(offset <= usable as u64 && len <= usable - offset as usize, "range outside the mapping");
        // SAFETY: offset <= usable <= reserved, inside the mapping.
        unsafe { self.base.as_ptr().add(offset as usize) }
    }

    /// Copies from `offset` into `dst`.
    #[inline]
    pub(crate) fn read(&self, offset: u64, dst: &IoVecs) {
        let mut from = self.at(offset, dst.len());
        for piece in dst.as_slice() {
            // SAFETY: `at` checked the whole length on our side; the piece is writable, unshared and does not
            // overlap this mapping (`IoVec::new`).
            unsafe {
                std::ptr::copy_nonoverlapping(from, piece.as_ptr(), piece.len());
                from = from.add(piece.len());
            }
        }
    }

    /// Copies `src` to `offset`.
    #[inline]
    pub(crate) fn write(&self, offset: u64, src: &IoVecs) {
        let mut to = self.at(offset, src.len());
        for piece in src.as_slice() {
            // SAFETY: as in `read`, the other way round. The store checked that it is not read-only.
            unsafe {
                std::ptr::copy_nonoverlapping(piece.as_ptr(), to, piece.len());
                to = to.add(piece.len());
            }
        }
    }

    /// Writes zeros; the memory stays committed.
    pub(crate) fn fill_zero(&self, offset: u64, len: usize) {
        let to = self.at(offset, len);
        // SAFETY: `at` checked the range.
        unsafe { std::ptr::write_bytes(to, 0, len) };
    }

    /// Makes the range read as zeros, giving whole pages of anonymous memory back.
    pub(crate) fn discard(&self, offset: u64, len: usize) {
        let start = offset as usize;
        let first = page_up(start).unwrap_or(usize::MAX);
        let last = (start + len) & !(PAGE - 1);
        if !self.anonymous || first >= last {
            self.fill_zero(offset, len);
            return;
        }
        self.fill_zero(offset, first - start);
        let whole = self.at(first as u64, last - first);
        // SAFETY: whole pages inside our private anonymous mapping (`at` checked them); they read as zeros afterwards.
        if unsafe { libc::madvise(whole.cast(), last - first, libc::MADV_DONTNEED) } != 0 {
            self.fill_zero(first as u64, last - first); // locked memory (mlockall) cannot be given back
        }
        self.fill_zero(last as u64, start + len - last);
    }

    /// `memmove` inside the region.
    pub(crate) fn copy_within(&self, from: u64, to: u64, len: usize) {
        let (from, to) = (self.at(from, len), self.at(to, len));
        // SAFETY: both ranges were checked; `copy` allows that they overlap.
        unsafe { std::ptr::copy(from, to, len) };
    }

    /// Writes the pages of a shared mapping back to its file and waits.
    pub(crate) fn sync(&self, offset: u64, len: usize) -> Result<(), Errno> {
        let start = offset as usize & !(PAGE - 1);
        let len = len + (offset as usize - start);
        let base = self.at(start as u64, len);
        // SAFETY: a page-aligned range inside our mapping; nothing is changed in memory.
        if unsafe { libc::msync(base.cast(), len, libc::MS_SYNC) } == 0 { Ok(()) } else { Err(errno()) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: exactly our mapping; whoever was given its address holds the store that holds this region.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.reserved) };
    }
}
