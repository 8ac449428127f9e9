//! What can go wrong in a store, in words a SCSI layer can map to sense data without parsing text.

use std::borrow::Cow;
use std::fmt;

/// What kind of failure it was. The SCSI layer maps this, never the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The range does not lie inside the store.
    OutOfRange,
    /// The store, or the filter in front of it, does not accept changes.
    ReadOnly,
    /// No room left behind a sparse store (ENOSPC, EDQUOT, EFBIG).
    NoSpace,
    /// The medium failed under the operation, or acknowledged writes were lost.
    Medium,
    /// Any other failure of the operating system.
    Io,
    /// The device is gone.
    Offline,
    /// The store cannot do this operation; its [`crate::Capabilities`] say so beforehand.
    Unsupported,
    /// An existing file has another size than the one asked for; a store is never resized by opening it.
    WouldResize,
    /// What lies behind the store changed under it (a file that was truncated by somebody else).
    Changed,
    /// The data read are not the data written (only from the `check` filter).
    Corrupt,
    /// Somebody else has the file open in a way that excludes this use.
    Locked,
    /// No such file or device.
    NotFound,
    /// The operating system refuses access.
    Permission,
    /// The caller's options make no sense; the message names the option.
    Invalid,
}

/// A failure with its evidence. Cloning is cheap unless the message was made for this one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// What kind of failure it was.
    pub kind: ErrorKind,
    /// The operating system's number, or 0 where none was involved.
    pub errno: i32,
    /// Byte offset in the store, where it is known.
    pub offset: Option<u64>,
    /// One line for a person: what was seen.
    pub message: Cow<'static, str>,
}

impl StoreError {
    /// An error that no system call reported.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, errno: 0, offset: None, message: message.into() }
    }

    /// An error of a system call during I/O; `what` is the action that failed.
    pub fn from_errno(errno: i32, what: &'static str) -> Self {
        let kind = match errno {
            libc::ENOSPC | libc::EDQUOT | libc::EFBIG => ErrorKind::NoSpace,
            libc::EIO | libc::EREMOTEIO | libc::EUCLEAN | libc::EILSEQ | libc::ENODATA => ErrorKind::Medium,
            libc::ENODEV | libc::ENXIO | libc::ESTALE | libc::ENOMEDIUM | libc::ENOTCONN => ErrorKind::Offline,
            libc::EROFS => ErrorKind::ReadOnly,
            libc::EOPNOTSUPP | libc::ENOSYS => ErrorKind::Unsupported,
            libc::ENOENT | libc::ENOTDIR => ErrorKind::NotFound,
            libc::EACCES | libc::EPERM => ErrorKind::Permission,
            _ => ErrorKind::Io,
        };
        Self { kind, errno, offset: None, message: Cow::Borrowed(what) }
    }

    /// The same error with the place where it happened.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// The same error with the text put before its message (a path, a filter's name).
    #[must_use]
    pub fn context(mut self, prefix: &str) -> Self {
        self.message = Cow::Owned(format!("{prefix}: {}", self.message));
        self
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)?;
        if let Some(offset) = self.offset {
            write!(out, " at byte {offset}")?;
        }
        if self.errno != 0 {
            write!(out, ": {}", std::io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for StoreError {}
