//! One connection below iSCSI, whatever carries it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::memory_pair::{self, MemoryEnd};
use crate::sys::socket::{self, Part, TcpInfo};

/// How a transport is named outside the plane (`api.TransportHandle`). Whoever holds it owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportHandle {
    Tcp(RawFd),
    Memory(i64),
}

/// A memory end that closes when its owner drops it, as a descriptor does.
#[derive(Debug)]
pub struct OwnedEnd(Option<MemoryEnd>);

impl OwnedEnd {
    fn end(&self) -> &MemoryEnd {
        self.0.as_ref().expect("present until it is given up")
    }
}

impl Drop for OwnedEnd {
    fn drop(&mut self) {
        if let Some(end) = &self.0 {
            end.close();
        }
    }
}

/// A connected byte stream.
#[derive(Debug)]
pub enum Transport {
    Tcp(OwnedFd),
    Memory(OwnedEnd),
}

impl From<MemoryEnd> for Transport {
    fn from(end: MemoryEnd) -> Self {
        Self::Memory(OwnedEnd(Some(end)))
    }
}

impl Transport {
    /// Takes a handle over.
    ///
    /// # Errors
    /// The handle names nothing.
    pub fn from_handle(handle: TransportHandle) -> io::Result<Self> {
        match handle {
            TransportHandle::Tcp(fd) if fd >= 0 => {
                // SAFETY: ownership of the descriptor comes with the handle.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                // A Unix or other stream socket has no Nagle to turn off.
                let _ = socket::set_no_delay(fd.as_raw_fd());
                Ok(Self::Tcp(fd))
            }
            TransportHandle::Tcp(_) => Err(io::ErrorKind::InvalidInput.into()),
            TransportHandle::Memory(id) => {
                memory_pair::take(id).map(Self::from).ok_or_else(|| io::ErrorKind::InvalidInput.into())
            }
        }
    }

    /// Gives it up as a handle.
    #[must_use]
    pub fn into_handle(self) -> TransportHandle {
        match self {
            Self::Tcp(fd) => TransportHandle::Tcp(fd.into_raw_fd()),
            Self::Memory(mut end) => {
                TransportHandle::Memory(end.0.take().map(memory_pair::publish).expect("present until it is given up"))
            }
        }
    }

    /// The descriptor to poll; a memory end has none and is asked every turn.
    #[must_use]
    pub fn fd(&self) -> Option<RawFd> {
        match self {
            Self::Tcp(fd) => Some(fd.as_raw_fd()),
            Self::Memory(_) => None,
        }
    }

    /// Receives into `parts`. 0 is the end of the stream. `wait` blocks as the socket's options say.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when nothing is there.
    ///
    /// # Safety
    /// Every part is writable memory that nothing else uses during the call.
    #[inline]
    pub unsafe fn recv(&self, parts: &mut [Part], wait: bool) -> io::Result<usize> {
        match self {
            // SAFETY: as the caller vouches.
            Self::Tcp(fd) => unsafe { socket::recv(fd.as_raw_fd(), parts, wait) },
            // SAFETY: as the caller vouches.
            Self::Memory(end) => unsafe { end.end().recv(parts) },
        }
    }

    /// Sends as much of `parts` as goes without waiting.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when nothing goes.
    ///
    /// # Safety
    /// Every part is readable memory.
    #[inline]
    pub unsafe fn send(&self, parts: &[Part]) -> io::Result<usize> {
        match self {
            // SAFETY: as the caller vouches.
            Self::Tcp(fd) => unsafe { socket::send(fd.as_raw_fd(), parts) },
            // SAFETY: as the caller vouches.
            Self::Memory(end) => unsafe { end.end().send(parts) },
        }
    }

    /// Ends both directions at once; the other side sees the end of the stream.
    pub fn shut_down(&self) {
        match self {
            Self::Tcp(fd) => socket::shut_down(fd.as_raw_fd()),
            Self::Memory(end) => end.end().close(),
        }
    }

    #[must_use]
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        self.fd().and_then(socket::tcp_info)
    }

    /// Whether `recv` of a memory end would give something; sockets are polled instead.
    #[must_use]
    pub fn memory_readable(&self) -> bool {
        matches!(self, Self::Memory(end) if end.end().readable())
    }
}
