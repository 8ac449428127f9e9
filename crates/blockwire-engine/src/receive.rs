//! The receive loop of both roles: bytes from a transport to headers, and payload to where it belongs.

use std::io;

use blockwire_proto::{ConnIndex, Destination, Direction, Endpoint, Fatal, FatalCode, Slot};
use blockwire_wire::bhs::padding;
use blockwire_wire::{Step, crc32c};

use crate::clock::Nanos;
use crate::counters::Counters;
use crate::sys::socket::Part;
use crate::transport::Transport;

/// Payload rests of at least this many bytes are received straight into their task's memory.
const DIRECT_AT_LEAST: u32 = 1024;
/// While data segments of at least this many bytes come, one call takes no more than the rest of one and `AFTER_LARGE` bytes
/// behind it: the next header, so that the next payload goes where it belongs too instead of through the buffer.
/// Measured: a call costs less than copying this much.
const LARGE: u32 = 32 * 1024;
const AFTER_LARGE: usize = 4096;
/// Parts of a task's memory that one system call fills.
pub(crate) const DIRECT_PARTS: usize = 16;

/// A role as the receive loop needs it.
pub trait Role {
    type Endpoint: Endpoint;

    fn endpoint(&mut self) -> &mut Self::Endpoint;

    /// Writable memory of a task's transfer at `offset`: as many bytes as are contiguous, at most `len`, at least one.
    /// None throws the bytes away (the task is gone or its buffer was revoked).
    fn place(&mut self, slot: Slot, direction: Direction, offset: u32, len: u32) -> Option<Part>;

    /// Offers the whole data segment of the PDU at hand where it lies in the receive buffer; it stays valid until
    /// `after_pdu` of the same PDU returns. True takes it: nothing is copied.
    fn offer(&mut self, slot: Slot, direction: Direction, offset: u32, bytes: &[u8]) -> bool {
        let _ = (slot, direction, offset, bytes);
        false
    }

    /// A header was seen (for the trace ring).
    fn seen(&mut self, conn: ConnIndex, now: Nanos);

    /// A PDU was taken by the endpoint: act on its events.
    ///
    /// # Errors
    /// The connection has to be dropped.
    fn after_pdu(&mut self, conn: ConnIndex, now: Nanos) -> Result<(), Fatal>;
}

/// What the loop remembers of a connection between two calls.
#[derive(Debug)]
pub struct ReceiveState {
    destination: Destination,
    /// Bytes of the data segment that were moved.
    moved: u32,
    /// The last data segment was a large one.
    large: bool,
    control: Vec<u8>,
}

impl ReceiveState {
    /// Bytes of a receive buffer of `len` bytes to offer behind the direct parts.
    #[inline]
    pub(crate) fn room(&self, len: usize) -> usize {
        if self.large { len.min(AFTER_LARGE) } else { len }
    }
}

impl Default for ReceiveState {
    fn default() -> Self {
        Self { destination: Destination::None, moved: 0, large: false, control: Vec::new() }
    }
}

/// Why the loop came back.
#[derive(Debug)]
pub enum Received {
    /// The transport has no more for now.
    Drained,
    /// The budget is used up; there may be more.
    Budget,
    /// The peer closed the stream.
    Closed,
    /// The transport failed.
    Failed(io::Error),
    /// The peer did something after which the connection is dropped.
    Fatal(Fatal),
}

/// What one call works with besides the role.
#[derive(Debug)]
pub struct ReceiveContext<'a> {
    pub transport: &'a Transport,
    /// The worker's (or caller's) receive buffer; nothing stays in it between calls.
    pub buffer: &'a mut [u8],
    pub counters: &'a mut Counters,
    pub now: Nanos,
    /// Most bytes to take in this call.
    pub budget: usize,
    /// Blocks in the first receive call, as the socket's options say.
    pub wait: bool,
}

/// Takes in what the transport has, up to the budget.
pub fn receive<R: Role>(
    role: &mut R, conn: ConnIndex, state: &mut ReceiveState, cx: &mut ReceiveContext<'_>,
) -> Received {
    let mut taken = 0;
    loop {
        let mut parts = [Part::new(std::ptr::null_mut(), 0); DIRECT_PARTS + 1];
        let (count, direct) = direct_parts(role, conn, state, &mut parts);
        let room = state.room(cx.buffer.len());
        parts[count] = Part::new(cx.buffer.as_mut_ptr(), room);
        let asked = direct as usize + room;
        cx.counters.receive_calls += 1;
        // SAFETY: the direct parts are memory that the role gave for exactly this payload and that it keeps in place while the task
        // lives; the last part is the receive buffer, borrowed for this call.
        let received = unsafe { cx.transport.recv(&mut parts[..=count], std::mem::take(&mut cx.wait)) };
        let n = match received {
            Ok(0) => return Received::Closed,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::Drained,
            Err(error) => return Received::Failed(error),
        };
        taken += n;
        // SAFETY: at most `n` bytes of the buffer were just filled, and `cx.buffer` is not touched until `take_in` is back;
        // the slice is cut free of `cx` so that counters can move meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts(cx.buffer.as_ptr(), n.saturating_sub(direct as usize)) };
        if let Err(fatal) = take_in(role, conn, state, &parts[..count], n, bytes, cx.counters, cx.now) {
            return Received::Fatal(fatal);
        }
        if n < asked {
            return Received::Drained;
        }
        if taken >= cx.budget {
            return Received::Budget;
        }
    }
}

/// Feeds bytes that were read from the transport earlier (by the login).
///
/// # Errors
/// The connection has to be dropped.
pub fn feed<R: Role>(
    role: &mut R, conn: ConnIndex, state: &mut ReceiveState, bytes: &[u8], counters: &mut Counters, now: Nanos,
) -> Result<(), Fatal> {
    cut(role, conn, state, bytes, counters, now)
}

/// Takes in the `n` bytes that one receive call filled: first `direct` (the parts of `direct_parts`), the rest in `buffer`.
///
/// # Errors
/// The connection has to be dropped.
pub(crate) fn take_in<R: Role>(
    role: &mut R, conn: ConnIndex, state: &mut ReceiveState, direct: &[Part], n: usize, buffer: &[u8],
    counters: &mut Counters, now: Nanos,
) -> Result<(), Fatal> {
    counters.bytes_received += n as u64;
    let placed = n - buffer.len();
    if placed > 0 {
        account_direct(role, conn, state, direct, placed, counters, now)?;
    }
    cut(role, conn, state, buffer, counters, now)
}

/// The rest of a large data segment as parts to receive into, in front of the receive buffer: how many, how many bytes.
pub(crate) fn direct_parts<R: Role>(
    role: &mut R, conn: ConnIndex, state: &ReceiveState, parts: &mut [Part; DIRECT_PARTS + 1],
) -> (usize, u32) {
    let rest = role.endpoint().deframer(conn).data_remaining();
    let Destination::Task { slot, direction, offset } = state.destination else { return (0, 0) };
    if rest < DIRECT_AT_LEAST {
        return (0, 0);
    }
    let mut count = 0;
    let mut direct = 0;
    while direct < rest && count < DIRECT_PARTS {
        match role.place(slot, direction, offset + state.moved + direct, rest - direct) {
            Some(part) => {
                direct += part.len() as u32;
                parts[count] = part;
                count += 1;
            }
            None => break,
        }
    }
    // The receive buffer may only follow when the parts hold the whole rest.
    if direct < rest { (0, 0) } else { (count, direct) }
}

fn account_direct<R: Role>(
    role: &mut R, conn: ConnIndex, state: &mut ReceiveState, parts: &[Part], placed: usize, counters: &mut Counters,
    now: Nanos,
) -> Result<(), Fatal> {
    let deframer = role.endpoint().deframer(conn);
    let mut crc = deframer.data_crc();
    if deframer.data_digest() {
        let mut left = placed;
        for part in parts {
            let n = left.min(part.len());
            // SAFETY: `n` bytes of this part were just received.
            crc = crc32c::append(crc, unsafe { std::slice::from_raw_parts(part.base(), n) });
            left -= n;
            if left == 0 {
                break;
            }
        }
    }
    counters.bytes_placed_directly += placed as u64;
    state.moved += placed as u32;
    if deframer.data_moved(placed as u32, crc) {
        complete(role, conn, state, true, counters, now)?;
    }
    Ok(())
}

fn complete<R: Role>(
    role: &mut R, conn: ConnIndex, state: &mut ReceiveState, digest_ok: bool, counters: &mut Counters, now: Nanos,
) -> Result<(), Fatal> {
    counters.pdus_received += 1;
    if !digest_ok {
        counters.digest_errors += 1;
    }
    role.endpoint().pdu(conn, &state.control, digest_ok, now)?;
    if state.control.capacity() > 64 * 1024 {
        state.control = Vec::new(); // a long text must not stay with an idle connection
    } else {
        state.control.clear();
    }
    state.destination = Destination::None;
    role.after_pdu(conn, now)
}

/// Cuts `bytes` into PDUs.
fn cut<R: Role>(
    role: &mut R, conn: ConnIndex, state: &mut ReceiveState, bytes: &[u8], counters: &mut Counters, now: Nanos,
) -> Result<(), Fatal> {
    let mut at = 0;
    while at < bytes.len() {
        let deframer = role.endpoint().deframer(conn);
        let remaining = deframer.data_remaining();
        if remaining > 0 {
            let n = (remaining as usize).min(bytes.len() - at);
            let digest = deframer.data_digest();
            let crc = deframer.data_crc();
            let part = &bytes[at..at + n];
            let tail = padding(remaining) as usize + if digest { 4 } else { 0 };
            let whole = state.moved == 0 && n == remaining as usize && at + n + tail <= bytes.len();
            let crc = move_payload(role, state, part, whole, digest.then_some(crc), counters);
            at += n;
            state.moved += n as u32;
            if role.endpoint().deframer(conn).data_moved(n as u32, crc) {
                complete(role, conn, state, true, counters, now)?;
            }
            continue;
        }
        let (n, step) = deframer.push(&bytes[at..]);
        at += n;
        match step {
            Step::NeedMore => {}
            Step::Header => {
                let empty = deframer.data_remaining() == 0;
                if !empty {
                    state.large = deframer.data_remaining() >= LARGE;
                }
                role.seen(conn, now);
                state.destination = role.endpoint().header(conn, now)?;
                state.moved = 0;
                if empty {
                    let (_, step) = role.endpoint().deframer(conn).push(&[]);
                    debug_assert_eq!(step, Step::Pdu);
                    complete(role, conn, state, true, counters, now)?;
                }
            }
            Step::AhsError => return Err(Fatal::additional_headers()),
            Step::HeaderDigestError => {
                counters.digest_errors += 1;
                let what = "header digest error (RFC 7143 7.7)";
                return Err(Fatal { code: FatalCode::HeaderDigest, what });
            }
            Step::Pdu => complete(role, conn, state, true, counters, now)?,
            Step::DataDigestError => complete(role, conn, state, false, counters, now)?,
        }
    }
    Ok(())
}

/// Returns the CRC32C of the payload so far when it was given that before `part`, 0 otherwise.
fn move_payload<R: Role>(
    role: &mut R, state: &mut ReceiveState, part: &[u8], whole: bool, crc: Option<u32>, counters: &mut Counters,
) -> u32 {
    let continued = |crc: Option<u32>, rest: &[u8]| crc.map_or(0, |crc| crc32c::append(crc, rest));
    let Destination::Task { slot, direction, offset } = state.destination else {
        if let Destination::Control = state.destination {
            state.control.extend_from_slice(part);
        }
        return continued(crc, part);
    };
    if whole && role.offer(slot, direction, offset, part) {
        return continued(crc, part);
    }
    counters.bytes_placed_by_copy += part.len() as u64;
    let mut crc = crc;
    let mut done = 0;
    while done < part.len() {
        let rest = &part[done..];
        let Some(place) = role.place(slot, direction, offset + state.moved + done as u32, rest.len() as u32) else {
            return continued(crc, rest);
        };
        let n = place.len().min(rest.len());
        // SAFETY: the role gave `place` for this payload; it is not the receive buffer.
        unsafe {
            match &mut crc {
                Some(crc) => *crc = crc32c::copy(*crc, rest.as_ptr(), place.base(), n),
                None => std::ptr::copy_nonoverlapping(rest.as_ptr(), place.base(), n),
            }
        }
        done += n;
    }
    crc.unwrap_or(0)
}
