//! The last PDU headers of a worker or session, and their form as a pcapng file that Wireshark reads.

use blockwire_wire::bhs::{BHS_LEN, Bhs};

use crate::clock::Nanos;

/// One header, with when and where it was seen.
#[derive(Clone, Copy, Debug)]
pub struct TraceEntry {
    pub time: Nanos,
    pub session: u64,
    pub cid: u16,
    /// True when this side sent it.
    pub sent: bool,
    pub bhs: Bhs,
}

/// A ring of headers, overwritten from its oldest.
#[derive(Debug)]
pub struct TraceRing {
    entries: Vec<TraceEntry>,
    next: usize,
    capacity: usize,
}

impl TraceRing {
    /// A ring of `capacity` headers (a power of two is not needed); 0 records nothing.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity), next: 0, capacity }
    }

    #[inline]
    pub fn record(&mut self, entry: TraceEntry) {
        if self.entries.len() < self.capacity {
            self.entries.push(entry);
        } else if self.capacity > 0 {
            self.entries[self.next] = entry;
            self.next += 1;
            if self.next == self.capacity {
                self.next = 0;
            }
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &TraceEntry> {
        self.entries[self.next..].iter().chain(&self.entries[..self.next])
    }
}

/// LINKTYPE_WIRESHARK_UPPER_PDU: packets that name their dissector.
const LINK_TYPE: u16 = 252;
const TAG_DISSECTOR_NAME: u16 = 12;
const TAG_IPV4_SOURCE: u16 = 20;
const TAG_IPV4_DESTINATION: u16 = 21;
const TAG_PORT_TYPE: u16 = 24;
const TAG_SOURCE_PORT: u16 = 25;
const TAG_DESTINATION_PORT: u16 = 26;
const PORT_TYPE_TCP: u32 = 2;

fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let padded = body.len().next_multiple_of(4);
    let total = (padded + 12) as u32;
    out.extend(kind.to_le_bytes());
    out.extend(total.to_le_bytes());
    out.extend(body);
    out.resize(out.len() + padded - body.len(), 0);
    out.extend(total.to_le_bytes());
}

fn tag(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(kind.to_be_bytes());
    out.extend((value.len().next_multiple_of(4) as u16).to_be_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A pcapng file (section header, interface with nanosecond times, a packet per header). `target_is_self` tells which
/// end is port 3260. Sessions and connections become addresses: 10.S.S.C of the initiator, 10.255.255.255 of the target.
#[must_use]
pub fn pcapng<'a>(entries: impl Iterator<Item = &'a TraceEntry>, target_is_self: bool, epoch_offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut body = Vec::new();
    body.extend(0x1a2b_3c4d_u32.to_le_bytes());
    body.extend(1u16.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    body.extend((-1i64).to_le_bytes());
    block(&mut out, 0x0a0d_0d0a, &body);
    body.clear();
    body.extend(LINK_TYPE.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    body.extend([9, 0, 1, 0, 9, 0, 0, 0]); // if_tsresol = 10^-9
    body.extend([0, 0, 0, 0]);
    block(&mut out, 1, &body);
    for entry in entries {
        let initiator = [10, (entry.session >> 8) as u8, entry.session as u8, entry.cid as u8];
        let target = [10, 255, 255, 255];
        let from_target = entry.sent == target_is_self;
        let client_port = 49152 + u32::from(entry.cid);
        let (source, destination) = if from_target { (target, initiator) } else { (initiator, target) };
        let (source_port, destination_port) = if from_target { (3260, client_port) } else { (client_port, 3260) };
        let mut packet = Vec::with_capacity(160);
        tag(&mut packet, TAG_DISSECTOR_NAME, b"iscsi");
        tag(&mut packet, TAG_IPV4_SOURCE, &source);
        tag(&mut packet, TAG_IPV4_DESTINATION, &destination);
        tag(&mut packet, TAG_PORT_TYPE, &PORT_TYPE_TCP.to_be_bytes());
        tag(&mut packet, TAG_SOURCE_PORT, &source_port.to_be_bytes());
        tag(&mut packet, TAG_DESTINATION_PORT, &destination_port.to_be_bytes());
        tag(&mut packet, 0, &[]);
        packet.extend(entry.bhs.0);
        let original =
            packet.len() + entry.bhs.ahs_len() + entry.bhs.data_segment_length().next_multiple_of(4) as usize;
        debug_assert_eq!(entry.bhs.0.len(), BHS_LEN);
        let time = epoch_offset + entry.time;
        body.clear();
        body.extend(0u32.to_le_bytes());
        body.extend(((time >> 32) as u32).to_le_bytes());
        body.extend((time as u32).to_le_bytes());
        body.extend((packet.len() as u32).to_le_bytes());
        body.extend((original as u32).to_le_bytes());
        body.extend(&packet);
        block(&mut out, 6, &body);
    }
    out
}
