//! The system calls of file stores that std does not have, each behind a safe signature. Linux only; another system
//! gets a module of its own beside this one.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::iovecs::IoVec;

/// An `errno` number.
pub(crate) type Errno = i32;

/// The kernel's limit of pieces per call (UIO_MAXIOV).
const MAX_PIECES: usize = 1024;

pub(crate) fn errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn counted(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| errno())
}

fn checked(result: libc::c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(errno()) }
}

fn signed(value: u64) -> Result<i64, Errno> {
    i64::try_from(value).map_err(|_| libc::EFBIG)
}

/// Repeats a call that a signal interrupted.
fn restart<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(libc::EINTR) => {}
            other => return other,
        }
    }
}

/// `preadv2`: fills the pieces from `offset`; may be short.
pub(crate) fn read_at(file: &File, pieces: &[IoVec], offset: u64, flags: i32) -> Result<usize, Errno> {
    let count = pieces.len().min(MAX_PIECES) as libc::c_int;
    let offset = signed(offset)?;
    restart(|| {
        // SAFETY: IoVec has the layout of iovec; whoever made the pieces promised that their memory is writable and
        // unshared until the operation completes, and the operation is running.
        counted(unsafe { libc::preadv2(file.as_raw_fd(), pieces.as_ptr().cast(), count, offset, flags) })
    })
}

/// `pwritev2`: writes the pieces at `offset`; may be short.
pub(crate) fn write_at(file: &File, pieces: &[IoVec], offset: u64, flags: i32) -> Result<usize, Errno> {
    let count = pieces.len().min(MAX_PIECES) as libc::c_int;
    let offset = signed(offset)?;
    restart(|| {
        // SAFETY: as in `read_at`, the memory being only read.
        counted(unsafe { libc::pwritev2(file.as_raw_fd(), pieces.as_ptr().cast(), count, offset, flags) })
    })
}

/// `fallocate` with these mode bits.
pub(crate) fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> Result<(), Errno> {
    let (offset, len) = (signed(offset)?, signed(len)?);
    restart(|| {
        // SAFETY: plain numbers and an open descriptor.
        checked(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) })
    })
}

/// `fdatasync`.
pub(crate) fn sync_data(file: &File) -> Result<(), Errno> {
    restart(|| {
        // SAFETY: an open descriptor.
        checked(unsafe { libc::fdatasync(file.as_raw_fd()) })
    })
}

/// `copy_file_range` inside one file; the ranges must not overlap.
pub(crate) fn copy_range(file: &File, from: u64, to: u64, len: u64) -> Result<usize, Errno> {
    let (mut from, mut to) = (signed(from)?, signed(to)?);
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
    restart(|| {
        // SAFETY: both offsets are locals that outlive the call.
        counted(unsafe { libc::copy_file_range(file.as_raw_fd(), &mut from, file.as_raw_fd(), &mut to, len, 0) })
    })
}

/// Takes an advisory lock of the whole file (`flock`) without waiting. It ends when the last descriptor of this open
/// file is closed. False: somebody else has it.
pub(crate) fn lock(file: &File, exclusive: bool) -> Result<bool, Errno> {
    let how = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
    // SAFETY: an open descriptor.
    match restart(|| checked(unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) })) {
        Ok(()) => Ok(true),
        Err(libc::EWOULDBLOCK) => Ok(false),
        Err(other) => Err(other),
    }
}

/// What a block device says about itself, in bytes.
pub(crate) struct DeviceShape {
    pub(crate) size: u64,
    pub(crate) logical_block: u32,
    pub(crate) physical_block: u32,
    pub(crate) optimal_io: u32,
}

// <linux/fs.h>; libc has only some of them.
const BLKROGET: libc::c_ulong = 0x125e; // _IO(0x12, 94)
const BLKIOOPT: libc::c_ulong = 0x1279; // _IO(0x12, 121)
const BLKPBSZGET: libc::c_ulong = 0x127b; // _IO(0x12, 123)
const BLKSSZGET: libc::c_ulong = 0x1268; // _IO(0x12, 104)
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272; // _IOR(0x12, 114, size_t)

fn ioctl_number<T: Default>(file: &File, request: libc::c_ulong) -> Result<T, Errno> {
    let mut value = T::default();
    // SAFETY: every request above writes exactly one value of the type its caller names into `value`.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), request as _, &mut value as *mut T) })?;
    Ok(value)
}

/// Size and block sizes of a block device.
pub(crate) fn device_shape(file: &File) -> Result<DeviceShape, Errno> {
    Ok(DeviceShape {
        size: ioctl_number::<u64>(file, BLKGETSIZE64)?,
        logical_block: u32::try_from(ioctl_number::<i32>(file, BLKSSZGET)?).unwrap_or(512),
        physical_block: ioctl_number::<u32>(file, BLKPBSZGET)?,
        optimal_io: ioctl_number::<u32>(file, BLKIOOPT)?,
    })
}

/// True when the kernel has the device marked read-only.
pub(crate) fn device_is_read_only(file: &File) -> Result<bool, Errno> {
    ioctl_number::<i32>(file, BLKROGET).map(|value| value != 0)
}

/// Keeps signals away from the calling thread, so that they reach the program's own (Python's handlers rely on it).
pub(crate) fn block_signals() {
    // SAFETY: an all-zero sigset_t is a valid place for sigfillset to write to; the mask is a local.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}

/// Memory from the kernel, page aligned and full of zeros, for what O_DIRECT or a long copy needs in between.
pub(crate) struct Bounce {
    base: *mut u8,
    len: usize,
}

impl Bounce {
    /// Maps `len` bytes (a multiple of the page size).
    pub(crate) fn new(len: usize) -> Result<Self, Errno> {
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED { Err(errno()) } else { Ok(Self { base: base.cast(), len }) }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The first `len` bytes as a piece for one call; `&mut self` keeps it from being used twice at a time.
    pub(crate) fn piece(&mut self, len: usize) -> IoVec {
        assert!(len <= self.len);
        // SAFETY: the mapping is ours, at least `len` long, and outlives the call the piece is made for, because
        // the callers use it before they let go of their `&mut` to it.
        unsafe { IoVec::new(self.base, len) }
    }

    /// The bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped, initialised by the kernel, and exclusively borrowed through `self`.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; no piece outlives the call it was made for.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}
