//! Two ends of an in-memory stream, for the stepped driver and for tests.
//!
//! What one end sends waits in a pipe until the other receives it. A pipe can deliver less than is there (`chunk`), take
//! less than is offered (`capacity`) and end after a given byte (`cut_after`), so that every prefix of an exchange can
//! be tried.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::sys::socket::Part;

/// One direction.
#[derive(Debug)]
pub struct Pipe {
    bytes: VecDeque<u8>,
    /// Bytes that were taken in since the start.
    pub sent: u64,
    /// Bytes that were delivered since the start.
    pub delivered: u64,
    /// Most bytes that wait at a time.
    pub capacity: usize,
    /// Most bytes of one delivery.
    pub chunk: usize,
    /// The link is lost when this many bytes were delivered.
    pub cut_after: Option<u64>,
    /// Bits to flip: (byte of the stream, mask).
    pub damage: Vec<(u64, u8)>,
    /// Nothing is delivered while it is set.
    pub stalled: bool,
    closed: bool,
}

impl Default for Pipe {
    fn default() -> Self {
        Self {
            bytes: VecDeque::new(),
            sent: 0,
            delivered: 0,
            capacity: 256 * 1024,
            chunk: usize::MAX,
            cut_after: None,
            damage: Vec::new(),
            stalled: false,
            closed: false,
        }
    }
}

impl Pipe {
    fn is_cut(&self) -> bool {
        self.cut_after.is_some_and(|at| self.delivered >= at)
    }
}

/// One end; sends into one pipe and receives from the other.
#[derive(Clone, Debug)]
pub struct MemoryEnd {
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryEnd {
    /// Two connected ends.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (a, b) = (Arc::default(), Arc::default());
        (Self { incoming: Arc::clone(&a), outgoing: Arc::clone(&b) }, Self { incoming: b, outgoing: a })
    }

    /// The pipe towards this end, to set faults.
    pub fn incoming(&self) -> MutexGuard<'_, Pipe> {
        lock(&self.incoming)
    }

    /// The pipe away from this end, to set faults.
    pub fn outgoing(&self) -> MutexGuard<'_, Pipe> {
        lock(&self.outgoing)
    }

    /// As `recv` of a socket that never waits.
    ///
    /// # Errors
    /// `WouldBlock`, or `ConnectionReset` after a cut.
    ///
    /// # Safety
    /// Every part is writable memory that nothing else uses during the call.
    pub unsafe fn recv(&self, parts: &mut [Part]) -> io::Result<usize> {
        let mut pipe = self.incoming();
        if pipe.is_cut() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if pipe.stalled {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut most = pipe.chunk.min(pipe.bytes.len());
        if let Some(at) = pipe.cut_after {
            most = most.min(usize::try_from(at - pipe.delivered).unwrap_or(usize::MAX));
        }
        if most == 0 {
            return if pipe.closed && pipe.bytes.is_empty() { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut n = 0;
        for part in parts {
            let take = part.len().min(most - n);
            for i in 0..take {
                let at = pipe.delivered;
                let mut byte = pipe.bytes.pop_front().unwrap_or(0);
                for (place, mask) in &pipe.damage {
                    if *place == at {
                        byte ^= mask;
                    }
                }
                // SAFETY: `i < part.len()`, and the caller vouches for the part.
                unsafe { part.base().add(i).write(byte) };
                pipe.delivered += 1;
            }
            n += take;
            if n == most {
                break;
            }
        }
        Ok(n)
    }

    /// As `send` of a socket that never waits.
    ///
    /// # Errors
    /// `WouldBlock`, or `BrokenPipe` when the other end is gone.
    ///
    /// # Safety
    /// Every part is readable memory.
    pub unsafe fn send(&self, parts: &[Part]) -> io::Result<usize> {
        let gone = self.incoming().closed;
        let mut pipe = self.outgoing();
        if gone || pipe.closed || pipe.is_cut() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut n = 0;
        for part in parts {
            let room = pipe.capacity.saturating_sub(pipe.bytes.len());
            let take = part.len().min(room);
            // SAFETY: the caller vouches for the part.
            let bytes = unsafe { std::slice::from_raw_parts(part.base(), take) };
            pipe.bytes.extend(bytes);
            pipe.sent += take as u64;
            n += take;
            if take < part.len() {
                break;
            }
        }
        if n == 0 && parts.iter().any(|p| !p.is_empty()) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    /// Closes both directions.
    pub fn close(&self) {
        self.incoming().closed = true;
        self.outgoing().closed = true;
    }

    /// Whether a `recv` would give something (bytes, end or error).
    #[must_use]
    pub fn readable(&self) -> bool {
        let pipe = self.incoming();
        pipe.is_cut() || (!pipe.stalled && (!pipe.bytes.is_empty() || pipe.closed))
    }
}

type Registry = Mutex<(i64, HashMap<i64, MemoryEnd>)>;

fn registry() -> &'static Registry {
    static ENDS: OnceLock<Registry> = OnceLock::new();
    ENDS.get_or_init(Registry::default)
}

/// Gives an end a number, so that a transport handle can name it.
#[must_use]
pub fn publish(end: MemoryEnd) -> i64 {
    let mut registry = registry().lock().unwrap_or_else(PoisonError::into_inner);
    registry.0 += 1;
    let id = registry.0;
    registry.1.insert(id, end);
    id
}

/// Takes the end with this number, once.
#[must_use]
pub fn take(id: i64) -> Option<MemoryEnd> {
    registry().lock().unwrap_or_else(PoisonError::into_inner).1.remove(&id)
}
