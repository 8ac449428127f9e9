//! What a file or block device does with an operation, on a thread that may wait.

use std::cell::RefCell;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{ErrorKind, StoreError};
use crate::iovecs::{IoVec, IoVecs};
use crate::op::{Op, Outcome};
use crate::pool::Execute;
use crate::sys::{self, Bounce, Errno};

const BOUNCE: usize = 256 * 1024;
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
/// Beyond this many pieces one system call does not take them all; only the pool's loops handle that.
pub(crate) const MAX_PIECES: usize = 1024;

/// An open file with what was found out about it.
pub(crate) struct OpenFile {
    pub(crate) file: File,
    /// The same file opened with O_DIRECT, for requests that are aligned to `direct_align`.
    pub(crate) direct: Option<File>,
    pub(crate) direct_align: u64,
    pub(crate) is_device: bool,
    pub(crate) can_punch: bool,
    /// The device's unit for fallocate; 1 for files.
    pub(crate) logical_block: u64,
    pub(crate) size: AtomicU64,
    /// These three start as what the probe said and are cleared by the first refusal.
    pub(crate) nowait: AtomicBool,
    pub(crate) dsync: AtomicBool,
    pub(crate) zero_range: AtomicBool,
    /// A write-back failed. The kernel reports that once and then calls the lost pages clean, so a later flush would
    /// succeed; from then on none does, until the store is opened anew.
    pub(crate) lost_writes: AtomicBool,
}

/// Whether O_DIRECT can take a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// Through the page cache: direct was not asked for, or offset or length are not aligned. (The kernel keeps
    /// both ways coherent: a direct request writes back and drops the cached pages of its range.)
    Cached,
    /// Directly from and to the caller's memory.
    Direct,
    /// Directly, through aligned memory of our own.
    Bounced,
}

thread_local! {
    /// One per pool thread, mapped when first needed.
    static BUFFER: RefCell<Option<Bounce>> = const { RefCell::new(None) };
}

fn with_buffer<T>(use_it: impl FnOnce(&mut Bounce) -> Result<T, StoreError>) -> Result<T, StoreError> {
    BUFFER.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Bounce::new(BOUNCE).map_err(|errno| StoreError::from_errno(errno, "no memory for a copy"))?);
        }
        use_it(slot.as_mut().expect("filled above"))
    })
}

fn changed(offset: u64) -> StoreError {
    StoreError::new(ErrorKind::Changed, "the file became shorter than the store").at(offset)
}

/// Stable storage cannot be promised any more.
pub(crate) fn lost_writes() -> StoreError {
    let text = "an earlier flush failed and writes may be lost; open the store anew after checking";
    StoreError { errno: libc::EIO, ..StoreError::new(ErrorKind::Medium, text) }
}

impl OpenFile {
    /// Which way a request over these pieces takes.
    pub(crate) fn path(&self, offset: u64, pieces: &[IoVec], total: usize) -> Path {
        let aligned = |value: u64| value.is_multiple_of(self.direct_align);
        if self.direct.is_none() || !aligned(offset) || !aligned(total as u64) {
            Path::Cached
        } else if pieces.iter().all(|piece| aligned(piece.as_ptr() as u64) && aligned(piece.len() as u64)) {
            Path::Direct
        } else {
            Path::Bounced
        }
    }

    /// The descriptor for a path that needs no bouncing.
    pub(crate) fn descriptor(&self, path: Path) -> &File {
        match (&self.direct, path) {
            (Some(direct), Path::Direct) => direct,
            _ => &self.file,
        }
    }

    /// Turns the errno of a failed read into an error.
    pub(crate) fn read_failed(errno: Errno, offset: u64) -> StoreError {
        StoreError::from_errno(errno, "read failed").at(offset)
    }

    /// Turns the errno of a failed write into an error; `durable` when it was to reach stable storage.
    pub(crate) fn write_failed(&self, errno: Errno, offset: u64, durable: bool) -> StoreError {
        if durable && errno == libc::EIO {
            self.lost_writes.store(true, Ordering::Release);
        }
        StoreError::from_errno(errno, "write failed").at(offset)
    }

    /// Turns the errno of a failed fdatasync into an error, and makes every later flush fail.
    pub(crate) fn flush_failed(&self, errno: Errno) -> StoreError {
        self.lost_writes.store(true, Ordering::Release);
        StoreError::from_errno(errno, "flush failed; writes may be lost, open the store anew after checking")
    }

    /// Refuses to promise stable storage after writes were lost.
    pub(crate) fn check_nothing_lost(&self) -> Outcome {
        if self.lost_writes.load(Ordering::Acquire) { Err(lost_writes()) } else { Ok(()) }
    }

    fn flush(&self) -> Outcome {
        self.check_nothing_lost()?;
        sys::sync_data(&self.file).map_err(|errno| self.flush_failed(errno))
    }

    fn read_with(file: &File, mut offset: u64, mut dst: IoVecs) -> Outcome {
        while !dst.is_empty() {
            match sys::read_at(file, dst.as_slice(), offset, 0) {
                Ok(0) => return Err(changed(offset)),
                Ok(count) => {
                    dst.advance(count);
                    offset += count as u64;
                }
                Err(errno) => return Err(Self::read_failed(errno, offset)),
            }
        }
        Ok(())
    }

    fn read(&self, offset: u64, dst: IoVecs) -> Outcome {
        let path = self.path(offset, dst.as_slice(), dst.len());
        if path != Path::Bounced {
            return Self::read_with(self.descriptor(path), offset, dst);
        }
        with_buffer(|buffer| {
            let (mut at, mut dst) = (offset, dst);
            while !dst.is_empty() {
                let len = dst.len().min(buffer.len());
                let mut one = IoVecs::new();
                one.push(buffer.piece(len));
                Self::read_with(self.descriptor(Path::Direct), at, one)?;
                dst.copy_from(&buffer.bytes()[..len]);
                dst.advance(len);
                at += len as u64;
            }
            Ok(())
        })
    }

    /// Writes everything; with `fua` through to stable storage where the kernel takes the flag. Says whether it did.
    fn write_with(&self, file: &File, mut offset: u64, mut src: IoVecs, fua: bool) -> Result<bool, StoreError> {
        while !src.is_empty() {
            let durable = fua && self.dsync.load(Ordering::Relaxed);
            match sys::write_at(file, src.as_slice(), offset, if durable { libc::RWF_DSYNC } else { 0 }) {
                Ok(0) => {
                    return Err(StoreError::from_errno(libc::EIO, "write made no progress").at(offset));
                }
                Ok(count) => {
                    src.advance(count);
                    offset += count as u64;
                }
                Err(libc::EOPNOTSUPP | libc::ENOSYS) if durable => {
                    self.dsync.store(false, Ordering::Relaxed);
                }
                Err(errno) => return Err(self.write_failed(errno, offset, durable)),
            }
        }
        Ok(fua && self.dsync.load(Ordering::Relaxed))
    }

    fn write(&self, offset: u64, src: IoVecs, fua: bool) -> Outcome {
        if fua {
            self.check_nothing_lost()?;
        }
        let path = self.path(offset, src.as_slice(), src.len());
        let durable = if path == Path::Bounced {
            with_buffer(|buffer| {
                let (mut at, mut src, mut durable) = (offset, src, true);
                while !src.is_empty() {
                    let len = src.len().min(buffer.len());
                    src.copy_to(&mut buffer.bytes()[..len]);
                    let mut one = IoVecs::new();
                    one.push(buffer.piece(len));
                    durable &= self.write_with(self.descriptor(Path::Direct), at, one, fua)?;
                    src.advance(len);
                    at += len as u64;
                }
                Ok(durable)
            })?
        } else {
            self.write_with(self.descriptor(path), offset, src, fua)?
        };
        if fua && !durable { self.flush() } else { Ok(()) }
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Outcome {
        with_buffer(|buffer| {
            let room = buffer.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            buffer.bytes()[..room].fill(0);
            let mut done = 0;
            while done < len {
                let count = room.min(usize::try_from(len - done).unwrap_or(usize::MAX));
                let mut one = IoVecs::new();
                one.push(buffer.piece(count));
                self.write_with(&self.file, offset + done, one, false)?;
                done += count as u64;
            }
            Ok(())
        })
    }

    /// Punches what is whole logical blocks and writes zeros over the rest, or over all where punching is refused.
    fn punch(&self, offset: u64, len: u64) -> Outcome {
        let unit = self.logical_block;
        let (first, last) = (offset.next_multiple_of(unit), (offset + len) / unit * unit);
        if first >= last {
            return self.write_zeros(offset, len);
        }
        if first > offset {
            self.write_zeros(offset, first - offset)?;
        }
        match sys::fallocate(&self.file, PUNCH, first, last - first) {
            Ok(()) => {}
            // A device may take it back at any time, and EBUSY is what pages pinned by somebody else give.
            Err(libc::EOPNOTSUPP | libc::EINVAL | libc::EBUSY) => {
                self.write_zeros(first, last - first)?;
            }
            Err(errno) => {
                return Err(StoreError::from_errno(errno, "freeing space failed").at(first));
            }
        }
        if offset + len > last { self.write_zeros(last, offset + len - last) } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> Outcome {
        if may_unmap && self.can_punch {
            return self.punch(offset, len);
        }
        let whole = offset.is_multiple_of(self.logical_block) && len.is_multiple_of(self.logical_block);
        if whole && self.zero_range.load(Ordering::Relaxed) {
            match sys::fallocate(&self.file, ZERO, offset, len) {
                Ok(()) => return Ok(()),
                Err(libc::EOPNOTSUPP | libc::ENOSYS) => {
                    self.zero_range.store(false, Ordering::Relaxed);
                }
                Err(libc::EINVAL | libc::EBUSY) => {}
                Err(errno) => {
                    return Err(StoreError::from_errno(errno, "zeroing failed").at(offset));
                }
            }
        }
        self.write_zeros(offset, len)
    }

    fn copy(&self, from: u64, to: u64, len: u64) -> Outcome {
        let mut done = 0;
        if !self.is_device && from.abs_diff(to) >= len {
            while done < len {
                match sys::copy_range(&self.file, from + done, to + done, len - done) {
                    Ok(0) => return Err(changed(from + done)),
                    Ok(count) => done += count as u64,
                    Err(errno @ (libc::EIO | libc::ENOSPC | libc::EDQUOT)) => {
                        return Err(StoreError::from_errno(errno, "copy failed").at(to + done));
                    }
                    // Not on this file system or kernel; by hand, then.
                    Err(_) => break,
                }
            }
        }
        let (from, to, len) = (from + done, to + done, len - done);
        with_buffer(|buffer| {
            let step = buffer.len() as u64;
            let mut moved = 0;
            while moved < len {
                let count = step.min(len - moved);
                // As memmove does: upwards when the destination lies below, downwards when it lies above.
                let at = if to <= from { moved } else { len - moved - count };
                let (mut source, mut destination) = (IoVecs::new(), IoVecs::new());
                source.push(buffer.piece(count as usize));
                Self::read_with(&self.file, from + at, source)?;
                destination.push(buffer.piece(count as usize));
                self.write_with(&self.file, to + at, destination, false)?;
                moved += count;
            }
            Ok(())
        })
    }

    fn resize(&self, size: u64) -> Outcome {
        let old = self.size.load(Ordering::Acquire);
        if size < old {
            self.size.store(size, Ordering::Release); // first, so that nobody is let in behind the new end
        }
        if let Err(error) = self.file.set_len(size) {
            self.size.store(old, Ordering::Release);
            return Err(StoreError::from_errno(error.raw_os_error().unwrap_or(libc::EIO), "resizing failed"));
        }
        self.size.store(size, Ordering::Release);
        Ok(())
    }
}

impl Execute for OpenFile {
    fn execute(&self, op: Op) -> Outcome {
        match op {
            Op::Read { offset, dst } => self.read(offset, dst),
            Op::Write { offset, src, fua } => self.write(offset, src, fua),
            Op::Zero { offset, len, may_unmap, fua } => {
                if fua {
                    self.check_nothing_lost()?;
                }
                self.zero(offset, len, may_unmap)?;
                if fua { self.flush() } else { Ok(()) }
            }
            Op::Punch { offset, len } => self.punch(offset, len),
            Op::Copy { from, to, len } => self.copy(from, to, len),
            Op::Flush => self.flush(),
            Op::Resize { size } => self.resize(size),
        }
    }
}
