//! Stream sockets: gathered and scattered transfer, options, TCP_INFO.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{check, check_len};

/// One part of a gathered or scattered transfer. Layout of `struct iovec`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Part(libc::iovec);

// SAFETY: an address and a length; using it is up to `recv` and `send`, whose callers vouch for the memory.
unsafe impl Send for Part {}

impl Part {
    #[inline]
    #[must_use]
    pub fn new(base: *mut u8, len: usize) -> Self {
        Self(libc::iovec { iov_base: base.cast(), iov_len: len })
    }

    #[inline]
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn grow(&mut self, more: usize) {
        self.0.iov_len += more;
    }
}

fn message(parts: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: msghdr is plain data for which all zeros is "no name, no control".
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts;
    message.msg_iovlen = count as _;
    message
}

/// Receives into `parts` in order. 0 is the end of the stream. With `wait` it blocks as the socket's options say.
///
/// # Errors
/// The system's; `WouldBlock` when nothing is there.
///
/// # Safety
/// Every part is writable memory that nothing else uses during the call.
#[inline]
pub unsafe fn recv(fd: RawFd, parts: &mut [Part], wait: bool) -> io::Result<usize> {
    let mut message = message(parts.as_mut_ptr().cast(), parts.len());
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    loop {
        // SAFETY: `message` names `parts`, which the caller vouches for.
        let result = check_len(unsafe { libc::recvmsg(fd, &raw mut message, flags) });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && !wait => {}
            other => return other,
        }
    }
}

/// Sends `parts` in order, as much as the socket takes without waiting.
///
/// # Errors
/// The system's; `WouldBlock` when the socket takes nothing. A closed peer is `BrokenPipe`, never a signal.
///
/// # Safety
/// Every part is readable memory.
#[inline]
pub unsafe fn send(fd: RawFd, parts: &[Part]) -> io::Result<usize> {
    let message = message(parts.as_ptr().cast_mut().cast(), parts.len());
    loop {
        // SAFETY: `message` names `parts`, which the caller vouches for; the kernel only reads them.
        let result = unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        match check_len(result) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn set_option<T>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `len` readable bytes.
    check(unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), len) })?;
    Ok(())
}

/// TCP_NODELAY: batching is the engine's own business.
///
/// # Errors
/// The system's.
pub fn set_no_delay(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32)
}

/// How long a waiting `recv` waits before it gives `WouldBlock`.
///
/// # Errors
/// The system's.
pub fn set_receive_timeout(fd: RawFd, timeout: Duration) -> io::Result<()> {
    let value = libc::timeval { tv_sec: timeout.as_secs().cast_signed(), tv_usec: i64::from(timeout.subsec_micros()) };
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &value)
}

/// SO_RCVLOWAT: bytes that have to be there before a waiter is woken; fewer do at the end of the stream, and when the
/// socket's buffer is full.
///
/// # Errors
/// The system's.
pub fn set_receive_mark(fd: RawFd, bytes: u32) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &i32::try_from(bytes.max(1)).unwrap_or(i32::MAX))
}

/// SO_MAX_PACING_RATE in bytes per second; 0 lifts it.
///
/// # Errors
/// The system's.
pub fn set_pacing_rate(fd: RawFd, bytes_per_second: u64) -> io::Result<()> {
    let rate = if bytes_per_second == 0 { u64::MAX } else { bytes_per_second };
    set_option(fd, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &rate)
}

/// Makes calls without MSG_DONTWAIT wait (or not).
///
/// # Errors
/// The system's.
pub fn set_nonblocking(fd: RawFd, nonblocking: bool) -> io::Result<()> {
    // SAFETY: no pointers.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    let flags = if nonblocking { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) })?;
    Ok(())
}

/// Ends both directions; a waiting `recv` of another thread returns.
pub fn shut_down(fd: RawFd) {
    // SAFETY: no pointers. A socket that is not connected any more needs nothing.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Waits until `fd` is readable or writable as asked, or `timeout_ms` passed. Gives (readable, writable).
///
/// # Errors
/// The system's; `Interrupted` when a signal came.
pub fn poll(fd: RawFd, readable: bool, writable: bool, timeout_ms: i32) -> io::Result<(bool, bool)> {
    let events = if readable { libc::POLLIN } else { 0 } | if writable { libc::POLLOUT } else { 0 };
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one entry, as said.
    check(unsafe { libc::poll(&raw mut entry, 1, timeout_ms) })?;
    let bad = entry.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
    Ok((bad || entry.revents & libc::POLLIN != 0, bad || entry.revents & libc::POLLOUT != 0))
}

/// Waits until `fd` is readable, as its low-water mark says, or `timeout` passed.
///
/// # Errors
/// The system's; `Interrupted` when a signal came.
pub fn wait_readable(fd: RawFd, timeout: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let limit = libc::timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
    // SAFETY: one entry, as said; no signal mask.
    check(unsafe { libc::ppoll(&raw mut entry, 1, &raw const limit, std::ptr::null()) })?;
    Ok(entry.revents != 0)
}

/// One descriptor of `poll_many`. Layout of `struct pollfd`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct PollEntry(libc::pollfd);

impl PollEntry {
    #[must_use]
    pub fn new(fd: RawFd, readable: bool, writable: bool) -> Self {
        let events = if readable { libc::POLLIN } else { 0 } | if writable { libc::POLLOUT } else { 0 };
        Self(libc::pollfd { fd, events, revents: 0 })
    }

    /// Input, an error or the end of the stream is there.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.0.revents & (libc::POLLIN | libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0
    }
}

/// Waits until one of `entries` is ready or `timeout` passed (rounded up to milliseconds).
///
/// # Errors
/// The system's; `Interrupted` when a signal came.
pub fn poll_many(entries: &mut [PollEntry], timeout: Duration) -> io::Result<()> {
    let ms = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: an array of pollfd of that length.
    check(unsafe { libc::poll(entries.as_mut_ptr().cast(), entries.len() as libc::nfds_t, ms) })?;
    Ok(())
}

/// What `ss -ti` shows and the statistics carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    pub rtt_us: u32,
    pub rtt_variance_us: u32,
    pub congestion_window: u32,
    pub retransmits: u32,
    pub unacked: u32,
    pub segment_size: u32,
}

/// TCP_INFO of a socket, None when it is no TCP socket.
#[must_use]
pub fn tcp_info(fd: RawFd) -> Option<TcpInfo> {
    // SAFETY: tcp_info is plain data.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len) };
    (result == 0).then_some(TcpInfo {
        rtt_us: info.tcpi_rtt,
        rtt_variance_us: info.tcpi_rttvar,
        congestion_window: info.tcpi_snd_cwnd,
        retransmits: info.tcpi_total_retrans,
        unacked: info.tcpi_unacked,
        segment_size: info.tcpi_snd_mss,
    })
}
