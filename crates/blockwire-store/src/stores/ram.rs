//! `ram:`: memory, anonymous or mapped from a file. Reads and writes are copies on the caller's thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{ErrorKind, StoreError};
use crate::memory::Region;
use crate::op::{Op, Outcome, Submitted};
use crate::options::{OpenOptions, Params};
use crate::pool::{Execute, Job, Pool};
use crate::stores::backing::{Backing, size_from_options};
use crate::stores::file_io::lost_writes;
use crate::sys;
use crate::{Capabilities, CompletionSink, Geometry, Mapping, Store, StoreIdentity, check_op};

/// Clearing, freeing or copying more than this goes to the pool: at memory speed it is about half a millisecond.
const INLINE_LIMIT: u64 = 2 << 20;
/// Address space (not memory) kept behind an anonymous store for resizing.
const GROWTH: usize = 64 << 30;

struct Inner {
    region: Region,
    size: AtomicU64,
    /// Only for a mapped file: keeps it open, and with it its lock.
    backing: Option<Backing>,
    /// Writing back failed. The kernel tells that once and calls the lost pages clean, so that a later flush would succeed.
    lost_writes: AtomicBool,
}

struct RamStore {
    inner: Arc<Inner>,
    pool: Pool,
    capabilities: Capabilities,
    identity: StoreIdentity,
}

/// Opens `ram:` with `create_size`, or `file=PATH` in `extra`; `name` tells several anonymous stores apart.
pub(crate) fn open(
    name: &str, options: &OpenOptions, extra: &BTreeMap<String, String>,
) -> Result<Arc<dyn Store>, StoreError> {
    let params = Params::new("ram:", extra, &["file"])?;
    let (inner, identity) = match params.text("file") {
        None => {
            let size = size_from_options("ram:", options)?;
            let no_memory = |errno| {
                let mut error = StoreError::from_errno(errno, "ram: that much memory cannot be mapped");
                error.kind = ErrorKind::NoSpace;
                error
            };
            let len = usize::try_from(size).map_err(|_| no_memory(libc::ENOMEM))?;
            let region = Region::anonymous(len, GROWTH).map_err(no_memory)?;
            (Inner::new(region, size, None), ("ram", name.to_string()))
        }
        Some(path) => {
            let backing = Backing::open(path, options)?;
            let inner = map_backing(backing, options)?;
            let key = inner.backing.as_ref().map_or(String::new(), |backing| backing.path.display().to_string());
            (inner, ("ram", key))
        }
    };
    let anonymous = inner.backing.is_none();
    Ok(Arc::new(RamStore {
        inner: Arc::new(inner),
        // Long clears and flushes only; two keep one flush from holding up everything else.
        pool: Pool::new("blockwire-ram", 2),
        capabilities: Capabilities {
            read_only: options.read_only,
            can_zero: true,
            // Never through a file's mapping: writing into a hole of a full disk would kill the process.
            can_punch: anonymous,
            can_flush: !anonymous,
            stable_memory: true,
            can_resize: anonymous,
        },
        identity: StoreIdentity { kind: identity.0, key: identity.1, serial: options.serial.clone() },
    }))
}

fn map_backing(backing: Backing, options: &OpenOptions) -> Result<Inner, StoreError> {
    let shown = backing.path.display().to_string();
    let map = || -> Result<Region, StoreError> {
        if backing.is_device {
            return Err(StoreError::new(ErrorKind::Invalid, "is a device; only a file can be mapped (use file:)"));
        }
        if !options.read_only {
            sys::fallocate(&backing.file, 0, 0, backing.size).map_err(|errno| {
                StoreError::from_errno(errno, "cannot be allocated in full, which a mapped file must be (use file:)")
            })?;
        }
        let len = usize::try_from(backing.size).map_err(|_| StoreError::from_errno(libc::ENOMEM, "is too large"))?;
        Region::shared(&backing.file, len, !options.read_only)
            .map_err(|errno| StoreError::from_errno(errno, "cannot be mapped"))
    };
    match map() {
        Ok(region) => Ok(Inner::new(region, backing.size, Some(backing))),
        Err(error) => {
            backing.undo();
            Err(error.context(&shown))
        }
    }
}

impl Inner {
    fn new(region: Region, size: u64, backing: Option<Backing>) -> Self {
        Self { region, size: AtomicU64::new(size), backing, lost_writes: AtomicBool::new(false) }
    }

    fn sync(&self, offset: u64, len: u64) -> Outcome {
        if self.backing.is_none() {
            return Ok(());
        }
        if self.lost_writes.load(Ordering::Acquire) {
            return Err(lost_writes());
        }
        self.region.sync(offset, len as usize).map_err(|errno| {
            self.lost_writes.store(true, Ordering::Release);
            StoreError::from_errno(errno, "writing the mapping back to its file failed").at(offset)
        })
    }

    fn resize(&self, size: u64) -> Outcome {
        let refused = |errno| {
            let mut error = StoreError::from_errno(errno, "more address space than was reserved for growing");
            error.kind = ErrorKind::NoSpace;
            error
        };
        let old = self.size.load(Ordering::Acquire);
        if size > self.region.reserved() as u64 {
            return Err(refused(libc::ENOMEM));
        }
        if size > old {
            self.region.grow(size as usize).map_err(refused)?;
        }
        self.size.store(size, Ordering::Release);
        if size < old {
            // Cut off is cut off: it reads as zeros if the store grows again. It stays mapped for late readers.
            self.region.discard(size, (old - size) as usize);
        }
        Ok(())
    }

    /// Runs an operation whose ranges have been checked; may wait only for `fua` and `Flush` of a mapped file.
    #[inline]
    fn run(&self, op: &Op) -> Outcome {
        match op {
            Op::Read { offset, dst } => self.region.read(*offset, dst),
            Op::Write { offset, src, fua } => {
                self.region.write(*offset, src);
                if *fua {
                    return self.sync(*offset, src.len() as u64);
                }
            }
            Op::Zero { offset, len, may_unmap, fua } => {
                if *may_unmap {
                    self.region.discard(*offset, *len as usize);
                } else {
                    self.region.fill_zero(*offset, *len as usize);
                }
                if *fua {
                    return self.sync(*offset, *len);
                }
            }
            Op::Punch { offset, len } => self.region.discard(*offset, *len as usize),
            Op::Copy { from, to, len } => self.region.copy_within(*from, *to, *len as usize),
            Op::Flush => return self.sync(0, self.size.load(Ordering::Acquire)),
            Op::Resize { size } => return self.resize(*size),
        }
        Ok(())
    }
}

impl Execute for Inner {
    fn execute(&self, op: Op) -> Outcome {
        // The size may have changed while this was queued; what was cut off stays mapped, so this is harmless.
        self.run(&op)
    }
}

impl RamStore {
    fn is_quick(&self, op: &Op) -> bool {
        let waits = self.inner.backing.is_some();
        match op {
            Op::Read { .. } => true,
            Op::Write { fua, .. } => !(waits && *fua),
            Op::Zero { len, fua, .. } => *len <= INLINE_LIMIT && !(waits && *fua),
            Op::Punch { len, .. } | Op::Copy { len, .. } => *len <= INLINE_LIMIT,
            Op::Flush => !waits,
            Op::Resize { .. } => false,
        }
    }
}

impl Store for RamStore {
    fn geometry(&self) -> Geometry {
        Geometry { size: self.inner.size.load(Ordering::Acquire), physical_block: 4096, optimal_io: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn mapping(&self) -> Option<Mapping> {
        Some(Mapping { base: self.inner.region.base(), len: self.inner.size.load(Ordering::Acquire) as usize })
    }

    fn identity(&self) -> StoreIdentity {
        self.identity.clone()
    }

    #[inline]
    fn submit(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>) -> Submitted {
        if let Err(error) = check_op(&op, self.inner.size.load(Ordering::Acquire), &self.capabilities) {
            return Submitted::Done(Err(error));
        }
        if self.is_quick(&op) {
            return Submitted::Done(self.inner.run(&op));
        }
        self.pool.submit(Job { target: self.inner.clone(), op, token, sink: sink.clone() });
        Submitted::Pending
    }

    fn try_cancel(&self, token: u64) -> bool {
        self.pool.try_cancel(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_called_durable_after_writes_were_lost() {
        let path = std::env::temp_dir().join(format!("blockwire-ram-lost-{}", std::process::id()));
        let options = OpenOptions { create_size: Some(8192), ..OpenOptions::default() };
        let backing = Backing::open(path.to_str().expect("text"), &options).expect("created");
        let inner = map_backing(backing, &options).expect("mapped");
        std::fs::remove_file(&path).expect("there");
        let zero = || Op::Zero { offset: 0, len: 512, may_unmap: false, fua: true };
        assert_eq!((inner.run(&Op::Flush), inner.run(&zero())), (Ok(()), Ok(())));
        inner.lost_writes.store(true, Ordering::Release);
        for op in [Op::Flush, zero()] {
            assert_eq!(inner.run(&op).map_err(|error| error.kind), Err(ErrorKind::Medium), "{op:?}");
        }
    }
}
