//! Bytes in and out of either role, as the engine's receive and transmit loops do it, without a transport.

use blockwire_proto::{ConnIndex, Destination, Direction, Endpoint, Fatal, FatalCode, OutPdu, Payload, Slot};
use blockwire_wire::bhs::padding;
use blockwire_wire::{Bhs, Step, crc32c};

/// What the receive loop remembers of a connection.
#[derive(Default)]
pub struct Receiving {
    destination: Option<Destination>,
    moved: u32,
    control: Vec<u8>,
}

/// What the roles have in common for a harness: who takes payload, and who looks at events after each PDU.
pub trait Driver {
    type Role: Endpoint;

    fn role(&mut self) -> &mut Self::Role;

    /// Payload arrived for a task.
    fn place(&mut self, conn: ConnIndex, slot: Slot, direction: Direction, offset: u32, bytes: &[u8]);

    /// The payload that a queued PDU names.
    fn payload(&mut self, conn: ConnIndex, slot: Slot, direction: Direction, offset: u32, len: u32) -> Vec<u8>;

    /// A header got a destination for its data segment of `len` bytes.
    fn planned(&mut self, conn: ConnIndex, destination: Destination, len: u32);

    /// A PDU took effect.
    fn after_pdu(&mut self, conn: ConnIndex);

    /// A PDU left the queue.
    fn sent(&mut self, conn: ConnIndex, pdu: OutPdu);
}

/// Gives `bytes` to a connection.
pub fn receive<D: Driver>(
    driver: &mut D, conn: ConnIndex, state: &mut Receiving, bytes: &[u8], now: u64,
) -> Result<(), Fatal> {
    let mut at = 0;
    loop {
        let remaining = driver.role().deframer(conn).data_remaining() as usize;
        if remaining > 0 {
            let part = &bytes[at..(at + remaining).min(bytes.len())];
            if part.is_empty() {
                return Ok(());
            }
            match state.destination {
                Some(Destination::Task { slot, direction, offset }) => {
                    driver.place(conn, slot, direction, offset + state.moved, part);
                }
                Some(Destination::Control) => state.control.extend_from_slice(part),
                Some(Destination::Discard) => {}
                Some(Destination::None) | None => panic!("a data segment without a destination"),
            }
            at += part.len();
            state.moved += part.len() as u32;
            let deframer = driver.role().deframer(conn);
            let crc = if deframer.data_digest() { crc32c::append(deframer.data_crc(), part) } else { 0 };
            if deframer.data_moved(part.len() as u32, crc) {
                complete(driver, conn, state, true, now)?;
            }
            continue;
        }
        let (n, step) = driver.role().deframer(conn).push(&bytes[at..]);
        at += n;
        match step {
            Step::NeedMore => return Ok(()),
            Step::Header => {
                let length = driver.role().deframer(conn).bhs().data_segment_length();
                let destination = driver.role().header(conn, now)?;
                assert!(destination != Destination::None || length == 0, "no destination for {length} bytes");
                state.destination = Some(destination);
                state.moved = 0;
                state.control.clear();
                driver.planned(conn, destination, length);
            }
            Step::Pdu => complete(driver, conn, state, true, now)?,
            Step::DataDigestError => complete(driver, conn, state, false, now)?,
            Step::AhsError => return Err(Fatal::additional_headers()),
            Step::HeaderDigestError => {
                return Err(Fatal { code: FatalCode::HeaderDigest, what: "header digest (RFC 7143 7.7)" });
            }
        }
    }
}

fn complete<D: Driver>(
    driver: &mut D, conn: ConnIndex, state: &mut Receiving, digest_ok: bool, now: u64,
) -> Result<(), Fatal> {
    let control = std::mem::take(&mut state.control);
    driver.role().pdu(conn, &control, digest_ok, now)?;
    state.destination = None;
    driver.after_pdu(conn);
    Ok(())
}

/// Takes up to `most` bytes out of a connection's send queue.
pub fn transmit<D: Driver>(driver: &mut D, conn: ConnIndex, most: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let skip = driver.role().send_queue(conn).front_sent();
    let mut index = 0;
    while out.len() < skip.saturating_add(most) {
        let Some(pdu) = driver.role().send_queue(conn).get(index) else { break };
        let payload = pdu.payload.clone();
        let data = match payload {
            Payload::None => Vec::new(),
            Payload::Inline(bytes) => bytes,
            Payload::Task { slot, direction, offset, len } => driver.payload(conn, slot, direction, offset, len),
        };
        let queue = driver.role().send_queue(conn);
        let pdu = queue.get_mut(index).expect("still in the queue");
        assert_eq!(data.len(), pdu.payload.len() as usize);
        if pdu.digest_pending {
            pdu.set_data_digest(crc32c::append(0, &data));
        }
        for part in [pdu.header_bytes(), pdu.ahs_bytes(), &data, pdu.trailer_bytes()] {
            out.extend_from_slice(part);
        }
        index += 1;
    }
    let out: Vec<u8> = out.into_iter().skip(skip).take(most).collect();
    let mut done = Vec::new();
    driver.role().send_queue(conn).sent(out.len(), |pdu| done.push(pdu));
    for pdu in done {
        driver.sent(conn, pdu);
    }
    out
}

/// A PDU on the wire. `damage` 1 breaks the header digest, 2 the data digest (where there are any).
pub fn encode(mut bhs: Bhs, ahs: &[u8], data: &[u8], digests: (bool, bool), damage: u8) -> Vec<u8> {
    bhs.set_ahs_len(ahs.len());
    bhs.set_data_segment_length(data.len() as u32);
    let mut out = bhs.0.to_vec();
    out.extend_from_slice(ahs);
    if digests.0 {
        let crc = crc32c::append(0, &out) ^ u32::from(damage == 1);
        out.extend(crc.to_le_bytes());
    }
    let mut segment = data.to_vec();
    segment.resize(data.len() + padding(data.len() as u32) as usize, 0);
    out.extend_from_slice(&segment);
    if digests.1 && !data.is_empty() {
        let crc = crc32c::append(0, &segment) ^ u32::from(damage == 2);
        out.extend(crc.to_le_bytes());
    }
    out
}
