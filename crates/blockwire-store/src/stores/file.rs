//! `file:`: a regular file or a block device, by what the path turns out to be.

use std::collections::BTreeMap;
use std::fs::OpenOptions as StdOpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{ErrorKind, StoreError};
use crate::iovecs::IoVecs;
use crate::op::{Op, Submitted};
use crate::options::{OpenOptions, Params, invalid};
use crate::pool::{Job, Pool};
use crate::stores::backing::Backing;
use crate::stores::blockdev;
use crate::stores::file_io::OpenFile;
use crate::stores::uring::{Ring, RingJob};
use crate::sys::{self, Bounce};
use crate::{Capabilities, CompletionSink, Geometry, Mapping, Store, StoreIdentity, check_op};

/// Threads that wait for the device at most: a guess for devices with some parallelism, not a measured optimum
/// (docs/decisions/0010-file-io.md).
const THREADS: usize = 8;
/// A longer read is not tried inline: copying it would keep the reactor from everybody else for too long.
const INLINE_READ: usize = 1 << 20;

struct FileStore {
    open: Arc<OpenFile>,
    pool: Arc<Pool>,
    ring: Option<Ring>,
    physical_block: u32,
    optimal_io: u32,
    capabilities: Capabilities,
    identity: StoreIdentity,
}

/// Who carries operations out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Pool,
    /// Where the system allows it; measured to be worth it with `direct` only.
    RingIfPossible,
    Ring,
}

/// Opens or creates; `extra`: `io=auto|pool|uring` (auto: uring with `direct` where allowed, else pool), `threads=N`.
pub(crate) fn open(
    path: &str, options: &OpenOptions, extra: &BTreeMap<String, String>,
) -> Result<Arc<dyn Store>, StoreError> {
    let params = Params::new("file:", extra, &["io", "threads"])?;
    let threads = params.number::<usize>("threads")?.unwrap_or(THREADS);
    if !(1..=64).contains(&threads) {
        return Err(invalid(format!("file: threads={threads} is not between 1 and 64")));
    }
    let way = match params.text("io").unwrap_or("auto") {
        "auto" if options.direct => Way::RingIfPossible,
        "auto" | "pool" => Way::Pool,
        "uring" => Way::Ring,
        other => {
            return Err(invalid(format!("file: io={other} is none of auto, pool, uring")));
        }
    };
    let backing = Backing::open(path, options)?;
    let shown = backing.path.display().to_string();
    // What `undo` would need is moved into the store, so remember it here.
    let created = backing.created.then(|| backing.path.clone());
    build(backing, options, threads, way).map_err(|error| {
        if let Some(path) = created {
            let _ = std::fs::remove_file(path);
        }
        error.context(&shown)
    })
}

fn build(backing: Backing, options: &OpenOptions, threads: usize, way: Way) -> Result<Arc<dyn Store>, StoreError> {
    let direct = if options.direct {
        let opened = StdOpenOptions::new()
            .read(true)
            .write(!options.read_only)
            .custom_flags(libc::O_DIRECT)
            .open(&backing.path)
            .map_err(|error| {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                let mut refused = StoreError::from_errno(errno, "cannot be opened with direct=1 (no O_DIRECT here?)");
                refused.kind = ErrorKind::Unsupported;
                refused
            })?;
        Some(opened)
    } else {
        None
    };
    // Behind the end of the file there is nothing to lose, and the file system answers as it would inside.
    let can_punch = !options.read_only
        && if backing.is_device {
            blockdev::can_punch(&backing.file)
        } else {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            sys::fallocate(&backing.file, mode, backing.size, 4096).is_ok()
        };
    let ring = match (way, (way != Way::Pool).then(Ring::start)) {
        (_, Some(Ok(ring))) => Some(ring),
        (Way::Ring, Some(Err(errno))) => {
            let text = "io_uring is not allowed or not complete here (leave out io=uring)";
            return Err(StoreError { kind: ErrorKind::Unsupported, ..StoreError::from_errno(errno, text) });
        }
        _ => None,
    };
    let open = OpenFile {
        // A direct read with RWF_NOWAIT would still wait for the device.
        nowait: AtomicBool::new(direct.is_none() && probe_nowait(&backing)),
        dsync: AtomicBool::new(true),
        zero_range: AtomicBool::new(true),
        lost_writes: AtomicBool::new(false),
        direct,
        direct_align: u64::from(if backing.is_device { backing.logical_block } else { 4096 }),
        is_device: backing.is_device,
        can_punch,
        logical_block: u64::from(backing.logical_block),
        size: AtomicU64::new(backing.size),
        file: backing.file,
    };
    Ok(Arc::new(FileStore {
        open: Arc::new(open),
        pool: Arc::new(Pool::new("blockwire-file", threads)),
        ring,
        physical_block: backing.physical_block,
        optimal_io: backing.optimal_io,
        capabilities: Capabilities {
            read_only: options.read_only,
            can_zero: true,
            can_punch,
            can_flush: !options.read_only,
            stable_memory: false,
            can_resize: !backing.is_device && !options.read_only,
        },
        identity: StoreIdentity {
            kind: if backing.is_device { "block" } else { "file" },
            key: backing.path.display().to_string(),
            serial: options.serial.clone(),
        },
    }))
}

/// Whether a read that must not wait is understood at all (tmpfs refuses it); EAGAIN is an answer, too.
fn probe_nowait(backing: &Backing) -> bool {
    let Ok(mut page) = Bounce::new(4096) else {
        return false;
    };
    let piece = page.piece(512);
    matches!(sys::read_at(&backing.file, &[piece], 0, libc::RWF_NOWAIT), Ok(_) | Err(libc::EAGAIN))
}

impl FileStore {
    /// Reads what is cached without waiting and moves `offset` and `dst` on to what remains.
    fn read_now(&self, offset: &mut u64, dst: &mut IoVecs) {
        if dst.len() > INLINE_READ || !self.open.nowait.load(Ordering::Relaxed) {
            return;
        }
        match sys::read_at(&self.open.file, dst.as_slice(), *offset, libc::RWF_NOWAIT) {
            Ok(count) => {
                dst.advance(count);
                *offset += count as u64;
            }
            Err(libc::EOPNOTSUPP) => self.open.nowait.store(false, Ordering::Relaxed),
            // Not cached (EAGAIN), or an error that the pool will meet again and report.
            Err(_) => {}
        }
    }
}

impl Store for FileStore {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.open.size.load(Ordering::Acquire),
            physical_block: self.physical_block,
            optimal_io: self.optimal_io,
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn mapping(&self) -> Option<Mapping> {
        None
    }

    fn identity(&self) -> StoreIdentity {
        self.identity.clone()
    }

    fn submit(&self, op: Op, token: u64, sink: &Arc<dyn CompletionSink>) -> Submitted {
        if let Err(error) = check_op(&op, self.open.size.load(Ordering::Acquire), &self.capabilities) {
            return Submitted::Done(Err(error));
        }
        let mut op = op;
        if let Op::Read { offset, dst } = &mut op {
            self.read_now(offset, dst);
        }
        let nothing_left = op.range().is_some_and(|(_, len)| len == 0);
        if nothing_left || matches!(op, Op::Flush) && self.capabilities.read_only {
            return Submitted::Done(Ok(()));
        }
        match &self.ring {
            Some(ring) if Ring::takes(&self.open, &op) => {
                let (open, pool) = (self.open.clone(), self.pool.clone());
                ring.submit(RingJob { open, pool, op, token, sink: sink.clone() });
            }
            _ => self.pool.submit(Job { target: self.open.clone(), op, token, sink: sink.clone() }),
        }
        Submitted::Pending
    }

    fn try_cancel(&self, token: u64) -> bool {
        self.pool.try_cancel(token) || self.ring.as_ref().is_some_and(|ring| ring.try_cancel(token))
    }
}
