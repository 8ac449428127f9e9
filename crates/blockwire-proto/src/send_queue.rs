//! What a connection has to send, in order, resumable at any byte.

use std::collections::VecDeque;

use blockwire_wire::bhs::{BHS_LEN, Bhs, padding};
use blockwire_wire::crc32c;

use crate::slab::Slot;

/// Which of a task's two buffers a payload belongs to (a bidirectional command has both).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From initiator to target (WRITE).
    Out,
    /// From target to initiator (READ).
    In,
}

/// Where the data segment of a queued PDU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    None,
    /// `len` bytes at `offset` of a task's transfer.
    Task {
        slot: Slot,
        direction: Direction,
        offset: u32,
        len: u32,
    },
    /// Bytes of the PDU's own: sense data, text, ping data.
    Inline(Vec<u8>),
}

impl Payload {
    #[inline]
    #[must_use]
    pub fn len(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Task { len, .. } => *len,
            Self::Inline(bytes) => bytes.len() as u32,
        }
    }

    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One PDU on its way out.
#[derive(Clone, Debug)]
pub struct OutPdu {
    /// BHS, then the header digest if there is one and no AHS.
    header: [u8; BHS_LEN + 4],
    header_len: u8,
    /// AHS (and then the header digest); empty for almost all PDUs.
    ahs: Vec<u8>,
    pub payload: Payload,
    /// Padding and data digest.
    trailer: [u8; 8],
    trailer_len: u8,
    /// The data digest still has to be put into the trailer by the engine, which alone sees payload.
    pub digest_pending: bool,
    /// The task this PDU belongs to, if any.
    pub slot: Option<Slot>,
    /// Free for the role (for example: a kind of PDU, or "this is the status PDU").
    pub mark: u32,
}

impl OutPdu {
    /// The header as it goes out.
    #[inline]
    #[must_use]
    pub fn bhs(&self) -> Bhs {
        let mut bhs = Bhs::default();
        bhs.0.copy_from_slice(&self.header[..BHS_LEN]);
        bhs
    }

    #[inline]
    #[must_use]
    pub fn header_bytes(&self) -> &[u8] {
        &self.header[..usize::from(self.header_len)]
    }

    #[inline]
    #[must_use]
    pub fn ahs_bytes(&self) -> &[u8] {
        &self.ahs
    }

    #[inline]
    #[must_use]
    pub fn trailer_bytes(&self) -> &[u8] {
        &self.trailer[..usize::from(self.trailer_len)]
    }

    /// Puts the data digest in: `crc` is the CRC32C of the payload without padding.
    pub fn set_data_digest(&mut self, crc: u32) {
        let pad = padding(self.payload.len()) as usize;
        let crc = crc32c::append(crc, &[0; 4][..pad]);
        self.trailer[pad..pad + 4].copy_from_slice(&crc.to_le_bytes());
        self.digest_pending = false;
    }

    /// Bytes on the wire.
    #[inline]
    #[must_use]
    pub fn wire_len(&self) -> usize {
        usize::from(self.header_len) + self.ahs.len() + self.payload.len() as usize + usize::from(self.trailer_len)
    }
}

/// FIFO of PDUs of one connection.
#[derive(Debug, Default)]
pub struct SendQueue {
    pdus: VecDeque<OutPdu>,
    /// Bytes of the front PDU that are sent.
    front_sent: usize,
    /// Bytes not sent yet, all PDUs.
    unsent: usize,
    header_digest: bool,
    data_digest: bool,
    /// PDUs that were handed over completely since the start.
    pub pdus_sent: u64,
}

impl SendQueue {
    /// An empty queue with room for `n` PDUs before it grows.
    #[must_use]
    pub fn new(header_digest: bool, data_digest: bool, n: usize) -> Self {
        Self { pdus: VecDeque::with_capacity(n), header_digest, data_digest, ..Self::default() }
    }

    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pdus.is_empty()
    }

    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.pdus.len()
    }

    /// Bytes that are queued and not sent.
    #[inline]
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.unsent
    }

    /// Bytes of the front PDU that are sent already.
    #[inline]
    #[must_use]
    pub fn front_sent(&self) -> usize {
        self.front_sent
    }

    /// Queues a PDU. DataSegmentLength and TotalAHSLength are filled in here; all other fields are the caller's, final.
    #[inline]
    pub fn push(&mut self, bhs: Bhs, payload: Payload, slot: Option<Slot>, mark: u32) {
        self.push_with_ahs(bhs, Vec::new(), payload, slot, mark);
    }

    /// Queues a PDU with an AHS (a multiple of four bytes).
    pub fn push_with_ahs(&mut self, mut bhs: Bhs, mut ahs: Vec<u8>, payload: Payload, slot: Option<Slot>, mark: u32) {
        let len = payload.len();
        bhs.set_ahs_len(ahs.len());
        bhs.set_data_segment_length(len);
        let mut header = [0; BHS_LEN + 4];
        header[..BHS_LEN].copy_from_slice(&bhs.0);
        let mut header_len = BHS_LEN as u8;
        if self.header_digest {
            let crc = crc32c::append(crc32c::append(0, &bhs.0), &ahs).to_le_bytes();
            if ahs.is_empty() {
                header[BHS_LEN..].copy_from_slice(&crc);
                header_len += 4;
            } else {
                ahs.extend_from_slice(&crc);
            }
        }
        let digest = self.data_digest && len > 0;
        let trailer_len = padding(len) as u8 + if digest { 4 } else { 0 };
        let pdu = OutPdu {
            header,
            header_len,
            ahs,
            payload,
            trailer: [0; 8],
            trailer_len,
            digest_pending: digest,
            slot,
            mark,
        };
        self.unsent += pdu.wire_len();
        self.pdus.push_back(pdu);
    }

    /// The queued PDUs, front first; the front one may be partly sent (`front_sent`).
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &OutPdu> {
        self.pdus.iter()
    }

    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut OutPdu> {
        self.pdus.get_mut(index)
    }

    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&OutPdu> {
        self.pdus.get(index)
    }

    /// `n` more bytes are sent; `on_pdu` sees each PDU that is complete with that, in order.
    #[inline]
    pub fn sent(&mut self, n: usize, mut on_pdu: impl FnMut(OutPdu)) {
        debug_assert!(n <= self.unsent);
        self.unsent -= n;
        self.front_sent += n;
        while let Some(front) = self.pdus.front() {
            let len = front.wire_len();
            if self.front_sent < len {
                break;
            }
            self.front_sent -= len;
            self.pdus_sent += 1;
            if let Some(pdu) = self.pdus.pop_front() {
                on_pdu(pdu);
            }
        }
    }

    /// Removes PDUs that were not begun and for which `drop` says true; `on_drop` sees them. A PDU of which a byte is
    /// sent has to be finished.
    pub fn drop_unsent(&mut self, mut drop: impl FnMut(&OutPdu) -> bool, mut on_drop: impl FnMut(&OutPdu)) {
        let begun = self.front_sent > 0;
        let mut index = 0;
        let mut gone = 0;
        self.pdus.retain(|pdu| {
            let keep = (index == 0 && begun) || !drop(pdu);
            index += 1;
            if !keep {
                gone += pdu.wire_len();
                on_drop(pdu);
            }
            keep
        });
        self.unsent -= gone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockwire_wire::Opcode;

    #[test]
    fn resumes_at_any_byte_and_counts_padding() {
        let mut queue = SendQueue::new(true, true, 4);
        queue.push(Bhs::new(Opcode::NopIn, 0x80), Payload::Inline(vec![1, 2, 3, 4, 5]), None, 7);
        queue.push(Bhs::new(Opcode::R2t, 0x80), Payload::None, Some(Slot(3)), 0);
        // 48 + 4 + 5 + 3 + 4, then 48 + 4
        assert_eq!(queue.unsent_bytes(), 64 + 52);
        assert!(queue.get(0).is_some_and(|p| p.digest_pending));
        let mut done = Vec::new();
        for _ in 0..63 {
            queue.sent(1, |pdu| done.push(pdu.mark));
        }
        assert!(done.is_empty());
        queue.sent(2, |pdu| done.push(pdu.mark));
        assert_eq!(done, [7]);
        assert_eq!(queue.front_sent(), 1);
        queue.drop_unsent(|_| true, |_| ());
        assert_eq!(queue.len(), 1, "a begun PDU is finished");
        queue.sent(51, |_| ());
        assert!(queue.is_empty() && queue.unsent_bytes() == 0);
    }
}
