//! The rules for opening what lies in the file system: create or not, which sizes are accepted, who may have it open.

use std::fs::{File, OpenOptions as StdOpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{ErrorKind, StoreError};
use crate::options::{OpenOptions, invalid};
use crate::sys;

/// An opened, locked file or block device whose size has been accepted.
pub(crate) struct Backing {
    pub(crate) file: File,
    /// Absolute; resolved for files, as given for devices (`/dev/disk/by-id/…` is more stable than what it points to).
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    /// Bytes; what the file system or device reports.
    pub(crate) physical_block: u32,
    pub(crate) optimal_io: u32,
    /// Smallest unit of the device itself; 1 for files.
    pub(crate) logical_block: u32,
    pub(crate) is_device: bool,
    /// Made by this call, so that a failure further on removes it again.
    pub(crate) created: bool,
}

impl Backing {
    /// Opens by the rules; on failure nothing is left behind that was not there before.
    pub(crate) fn open(path: &str, options: &OpenOptions) -> Result<Self, StoreError> {
        if path.is_empty() {
            return Err(invalid("a file store needs a path".into()));
        }
        let shown = Path::new(path);
        match shown.metadata() {
            Ok(found) if found.is_file() => Self::existing_file(shown, options),
            Ok(found) if found.file_type().is_block_device() => Self::device(shown, options),
            Ok(found) => {
                let what = if found.is_dir() { "a directory" } else { "neither a file nor a block device" };
                Err(invalid(format!("{path} is {what}")))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match options.create_size {
                Some(size) if !options.read_only => Self::create(shown, size, options),
                _ if options.read_only => Err(failed(shown, &error, "does not exist, and read-only creates nothing")),
                _ => Err(failed(shown, &error, "does not exist (give a size to create it)")),
            },
            Err(error) => Err(failed(shown, &error, "cannot be opened")),
        }
    }

    fn create(path: &Path, size: u64, options: &OpenOptions) -> Result<Self, StoreError> {
        check_size(path, size, options)?;
        let file = StdOpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|error| failed(path, &error, "cannot be created"))?;
        let finish = || -> Result<Self, StoreError> {
            take_lock(&file, path, options.read_only, Duration::ZERO)?;
            file.set_len(size).map_err(|error| failed(path, &error, "cannot be given its size"))?;
            // The directory entry must survive a crash as well as what is flushed into the file later.
            sync_parent(path).map_err(|error| failed(path, &error, "its directory cannot be flushed"))?;
            Self::of_file(file.try_clone().map_err(|error| failed(path, &error, "cannot be opened"))?, path, size, true)
        };
        finish().inspect_err(|_| {
            // Best effort: the first error is the one worth telling.
            let _ = std::fs::remove_file(path);
        })
    }

    fn existing_file(path: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        let file = open_existing(path, options, 0)?;
        take_lock(&file, path, options.read_only, Duration::ZERO)?;
        // Under the lock, so that a creator in another process has finished.
        let size = file.metadata().map_err(|error| failed(path, &error, "cannot be examined"))?.len();
        if size == 0 {
            return Err(invalid(format!("{} is empty (remove it and give a size to create it)", path.display())));
        }
        check_existing_size(path, size, options)?;
        Self::of_file(file, path, size, false)
    }

    fn of_file(file: File, path: &Path, size: u64, created: bool) -> Result<Self, StoreError> {
        let block = file.metadata().map_or(4096, |found| found.blksize());
        let path = path.canonicalize().map_err(|error| failed(path, &error, "cannot be resolved"))?;
        let physical_block = u32::try_from(block).ok().filter(|block| block.is_power_of_two()).unwrap_or(4096);
        Ok(Self {
            file,
            path,
            size,
            physical_block: physical_block.min(4096),
            optimal_io: 0,
            logical_block: 1,
            is_device: false,
            created,
        })
    }

    fn device(path: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        // O_EXCL without O_CREAT on a block device: refused while it is mounted or claimed by the kernel.
        let exclusive = if options.read_only { 0 } else { libc::O_EXCL };
        let file = open_existing(path, options, exclusive)?;
        // udev holds the lock for moments after every change of the device.
        take_lock(&file, path, options.read_only, Duration::from_millis(500))?;
        let told = |errno| StoreError::from_errno(errno, "cannot be asked for its size").context(&shown(path));
        let shape = sys::device_shape(&file).map_err(told)?;
        if !options.read_only && sys::device_is_read_only(&file).map_err(told)? {
            let error = StoreError::new(ErrorKind::ReadOnly, "the device is read-only (open it read-only)");
            return Err(error.context(&shown(path)));
        }
        check_existing_size(path, shape.size, options)?;
        Ok(Self {
            file,
            path: std::path::absolute(path).unwrap_or_else(|_| path.into()),
            size: shape.size,
            physical_block: shape.physical_block.max(shape.logical_block),
            optimal_io: shape.optimal_io,
            logical_block: shape.logical_block,
            is_device: true,
            created: false,
        })
    }

    /// Removes the file again if this call made it; for failures behind `open`.
    pub(crate) fn undo(&self) {
        if self.created {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn open_existing(path: &Path, options: &OpenOptions, flags: i32) -> Result<File, StoreError> {
    StdOpenOptions::new().read(true).write(!options.read_only).custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM | libc::EROFS) if !options.read_only => {
                failed(path, &error, "cannot be opened for writing (it may be possible read-only)")
            }
            Some(libc::EBUSY) => {
                let mut taken = failed(path, &error, "is mounted or in use by the system");
                taken.kind = ErrorKind::Locked;
                taken
            }
            _ => failed(path, &error, "cannot be opened"),
        }
    })
}

/// One writer or many readers, over all processes that ask (`flock`).
fn take_lock(file: &File, path: &Path, read_only: bool, patience: Duration) -> Result<(), StoreError> {
    let mut waited = Duration::ZERO;
    loop {
        match sys::lock(file, !read_only) {
            Ok(true) => return Ok(()),
            // A file system without locks cannot protect anything; that is no reason to refuse its files.
            Err(libc::EOPNOTSUPP | libc::ENOLCK | libc::ENOSYS) => return Ok(()),
            Err(errno) => {
                return Err(StoreError::from_errno(errno, "cannot be locked").context(&shown(path)));
            }
            Ok(false) if waited >= patience => {
                let what = if read_only {
                    "somebody else has it open for writing"
                } else {
                    "somebody else has it open (one writer, or several readers)"
                };
                let mut error = StoreError::new(ErrorKind::Locked, what).context(&shown(path));
                error.errno = libc::EWOULDBLOCK;
                return Err(error);
            }
            Ok(false) => {
                let pause = Duration::from_millis(20);
                std::thread::sleep(pause);
                waited += pause;
            }
        }
    }
}

fn check_existing_size(path: &Path, size: u64, options: &OpenOptions) -> Result<(), StoreError> {
    if let Some(wanted) = options.create_size.filter(|wanted| *wanted != size) {
        return Err(StoreError::new(
            ErrorKind::WouldResize,
            format!("{} exists with {size} bytes, not {wanted}; it is never resized by opening it", path.display()),
        ));
    }
    check_size(path, size, options)
}

fn check_size(path: &Path, size: u64, options: &OpenOptions) -> Result<(), StoreError> {
    check_multiple(&shown(path), size, options.block_size)
}

fn check_multiple(what: &str, size: u64, block_size: u32) -> Result<(), StoreError> {
    if !block_size.is_power_of_two() || block_size < 512 {
        return Err(invalid(format!("{what}: a block size of {block_size} is not a power of two from 512 on")));
    }
    if size == 0 || !size.is_multiple_of(u64::from(block_size)) || i64::try_from(size).is_err() {
        return Err(invalid(format!(
            "{what}: a size of {size} bytes is no positive multiple of {block_size}-byte blocks"
        )));
    }
    Ok(())
}

/// The size of a store that has nothing but its options to take it from.
pub(crate) fn size_from_options(what: &str, options: &OpenOptions) -> Result<u64, StoreError> {
    let size = options.create_size.ok_or_else(|| invalid(format!("{what} needs a size")))?;
    check_multiple(what, size, options.block_size)?;
    Ok(size)
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent)?.sync_all() {
        // Some file systems have no fsync for directories; some directories may be written but not read.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EROFS)) => Ok(()),
        other => other,
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn failed(path: &Path, error: &std::io::Error, what: &'static str) -> StoreError {
    StoreError::from_errno(error.raw_os_error().unwrap_or(libc::EIO), what).context(&shown(path))
}
