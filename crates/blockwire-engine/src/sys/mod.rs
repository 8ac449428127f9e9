//! System calls that only Linux has, or that std does not offer; nothing else in the workspace calls `libc` for sockets.

pub mod epoll;
pub mod eventfd;
pub mod fork;
pub mod socket;

use std::io;

/// The result of a system call that gives -1 on failure.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As `check`, for calls that give a length.
pub(crate) fn check_len(result: isize) -> io::Result<usize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result.cast_unsigned()) }
}
