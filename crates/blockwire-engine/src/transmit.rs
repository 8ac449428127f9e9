//! Gathers queued PDUs into one send call.

use std::io;

use blockwire_proto::{Direction, OutPdu, Payload, SendQueue, Slot};
use blockwire_wire::crc32c;

use crate::counters::Counters;
use crate::sys::socket::Part;
use crate::transport::Transport;

/// Parts of one send call: one for each of 32 headers and payloads, and one for what stands behind the last payload (padding, digest),
/// which would otherwise be a call of its own.
const PARTS: usize = 65;
/// Bytes of one send call: output leaves at this mark so that both ends overlap.
pub const BATCH_BYTES: usize = 128 * 1024;
/// PDUs that are worth a send call however many are in flight.
const BATCH_PDUS: usize = 32;
/// Headers, digests, padding and short payloads are laid side by side here.
const SCRATCH: usize = 16 * 1024;
/// Payloads up to this length are laid beside the headers instead of taking a part of their own.
const INLINE: usize = 256;

/// How many PDUs leave together when `in_flight` requests keep both ends busy: a quarter. All at once would have each end wait
/// for the other in turn; one by one costs a call each.
#[inline]
pub fn batch_of(in_flight: usize) -> usize {
    (in_flight / 4).clamp(1, BATCH_PDUS)
}

/// Finds the memory of payload.
pub trait Resolve {
    /// Readable memory of a task's transfer at `offset`: as many bytes as are contiguous, at most `len`, at least one.
    fn payload(&self, slot: Slot, direction: Direction, offset: u32, len: u32) -> Part;

    /// Before the digest of a payload is taken: the chance to copy it, so that its bytes stay as they are until it is sent, whoever
    /// writes where they came from. The CRC32C of the payload, when copying told it.
    fn settle(&mut self, slot: Slot, direction: Direction, offset: u32, len: u32) -> Option<u32> {
        let _ = (slot, direction, offset, len);
        None
    }
}

/// Memory that is used again for each call; belongs to a worker or a session.
#[derive(Debug)]
pub struct Scratch {
    bytes: Box<[u8; SCRATCH]>,
    parts: Box<[Part; PARTS]>,
    /// Most PDUs of one send call.
    pdus: usize,
}

impl Scratch {
    /// For send calls of at most `pdus` PDUs.
    #[must_use]
    pub fn new(pdus: usize) -> Self {
        Self {
            bytes: Box::new([0; SCRATCH]),
            parts: Box::new([Part::new(std::ptr::null_mut(), 0); PARTS]),
            pdus: pdus.max(1),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

/// Why `transmit` came back.
#[derive(Debug)]
pub enum Sent {
    /// The queue is empty.
    All,
    /// The transport takes no more for now.
    Full,
    /// The budget is used up; there is more.
    Budget,
    Failed(io::Error),
}

struct Gather<'a> {
    scratch: &'a mut Scratch,
    used: usize,
    count: usize,
    bytes: usize,
}

impl Gather<'_> {
    fn full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.count >= PARTS
    }

    /// Lays bytes into the scratch memory; they join the part before them when that ends there. False: no room.
    fn copy(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if self.used + bytes.len() > SCRATCH {
            return false;
        }
        // SAFETY: inside the scratch memory, as just checked.
        let to = unsafe { self.scratch.bytes.as_mut_ptr().add(self.used) };
        // SAFETY: as above; the source is not the scratch memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        let joins = self.count > 0 && {
            let last = &self.scratch.parts[self.count - 1];
            last.base().wrapping_add(last.len()) == to
        };
        if joins {
            self.scratch.parts[self.count - 1].grow(bytes.len());
        } else {
            if self.count == PARTS {
                return false;
            }
            self.scratch.parts[self.count] = Part::new(to, bytes.len());
            self.count += 1;
        }
        self.used += bytes.len();
        self.bytes += bytes.len();
        true
    }

    fn refer(&mut self, part: Part) -> bool {
        if self.count == PARTS {
            return false;
        }
        self.scratch.parts[self.count] = part;
        self.count += 1;
        self.bytes += part.len();
        true
    }

    /// As much of one PDU as fits, from byte `skip` on. False: not all of it fitted.
    fn pdu<R: Resolve>(&mut self, pdu: &OutPdu, mut skip: usize, resolve: &R) -> bool {
        for fixed in [pdu.header_bytes(), pdu.ahs_bytes()] {
            let from = skip.min(fixed.len());
            skip -= from;
            if !self.copy(&fixed[from..]) {
                return false;
            }
        }
        let len = pdu.payload.len() as usize;
        let mut at = skip.min(len);
        skip -= at;
        match &pdu.payload {
            Payload::None => {}
            Payload::Inline(bytes) => {
                if len <= INLINE {
                    if !self.copy(&bytes[at..]) {
                        return false;
                    }
                } else if at < len && !self.refer(Part::new(bytes[at..].as_ptr().cast_mut(), len - at)) {
                    return false;
                }
            }
            Payload::Task { slot, direction, offset, .. } => {
                while at < len {
                    let part = resolve.payload(*slot, *direction, offset + at as u32, (len - at) as u32);
                    at += part.len();
                    if !self.refer(part) {
                        return false;
                    }
                }
            }
        }
        self.copy(&pdu.trailer_bytes()[skip..])
    }
}

fn data_digest<R: Resolve>(pdu: &OutPdu, resolve: &mut R) -> u32 {
    match &pdu.payload {
        Payload::None => 0,
        Payload::Inline(bytes) => crc32c::append(0, bytes),
        Payload::Task { slot, direction, offset, len } => {
            if let Some(crc) = resolve.settle(*slot, *direction, *offset, *len) {
                return crc;
            }
            let mut crc = 0;
            let mut at = 0;
            while at < *len {
                let part = resolve.payload(*slot, *direction, offset + at, len - at);
                // SAFETY: the role keeps a queued payload in place until it is sent.
                crc = crc32c::append(crc, unsafe { std::slice::from_raw_parts(part.base(), part.len()) });
                at += part.len() as u32;
            }
            crc
        }
    }
}

/// What one call works with besides queue and memory.
#[derive(Debug)]
pub struct TransmitContext<'a> {
    pub transport: &'a Transport,
    pub scratch: &'a mut Scratch,
    pub counters: &'a mut Counters,
    /// Most bytes to send in this call.
    pub budget: usize,
}

/// Sends what is queued, up to the budget; `on_pdu` sees each PDU that left completely, in order.
pub fn transmit<R: Resolve>(
    queue: &mut SendQueue, resolve: &mut R, cx: &mut TransmitContext<'_>, mut on_pdu: impl FnMut(OutPdu),
) -> Sent {
    let mut total = 0;
    while !queue.is_empty() {
        if total >= cx.budget {
            return Sent::Budget;
        }
        let most = cx.scratch.pdus;
        let mut gather = Gather { scratch: cx.scratch, used: 0, count: 0, bytes: 0 };
        let mut skip = queue.front_sent();
        for index in 0..queue.len().min(most) {
            if let Some(pdu) = queue.get_mut(index)
                && pdu.digest_pending
            {
                let crc = data_digest(pdu, resolve);
                pdu.set_data_digest(crc);
            }
            let Some(pdu) = queue.get(index) else { break };
            if !gather.pdu(pdu, skip, resolve) || gather.full() {
                break;
            }
            skip = 0;
        }
        let (count, bytes) = (gather.count, gather.bytes);
        cx.counters.send_calls += 1;
        // SAFETY: every part is scratch memory, an inline payload of a queued PDU, or payload that the role keeps in place while its
        // PDU is queued; the queue is not touched before the call returns.
        match unsafe { cx.transport.send(&cx.scratch.parts[..count]) } {
            Ok(n) => {
                cx.counters.bytes_sent += n as u64;
                let before = queue.pdus_sent;
                queue.sent(n, &mut on_pdu);
                cx.counters.pdus_sent += queue.pdus_sent - before;
                total += n;
                if n < bytes {
                    return Sent::Full;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Full,
            Err(error) => return Sent::Failed(error),
        }
    }
    Sent::All
}
