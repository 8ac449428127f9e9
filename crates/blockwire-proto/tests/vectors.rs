//! The golden vectors of `tests/vectors` as the send queue puts them on the wire.

#[path = "../../blockwire-wire/tests/vector_files/mod.rs"]
#[allow(dead_code)] // the tests of blockwire-wire use the rest
mod vector_files;

use blockwire_proto::{Payload, SendQueue};
use blockwire_wire::bhs::padding;
use blockwire_wire::{BHS_LEN, Bhs, crc32c};

/// All PDUs in one queue; lengths and digests are the queue's to fill in.
#[test]
fn the_queue_sends_these_bytes() {
    for (header_digest, data_digest) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut queue = SendQueue::new(header_digest, data_digest, 0);
        let mut expected = Vec::new();
        for vector in vector_files::pdus() {
            let (header, ahs, data) = (vector.block("bhs"), vector.block("ahs"), vector.block("data"));
            let mut bhs = Bhs(header.clone().try_into().expect("48 bytes"));
            bhs.0[4..8].fill(0);
            let payload = if data.is_empty() { Payload::None } else { Payload::Inline(data.clone()) };
            queue.push_with_ahs(bhs, ahs.clone(), payload, None, 0);

            let head = [header, ahs].concat();
            expected.extend_from_slice(&head);
            if header_digest {
                expected.extend(crc32c::append(0, &head).to_le_bytes());
            }
            let mut segment = data;
            let length = segment.len() as u32;
            segment.resize((length + padding(length)) as usize, 0);
            expected.extend_from_slice(&segment);
            if data_digest && length > 0 {
                expected.extend(crc32c::append(0, &segment).to_le_bytes());
            }
        }
        assert!(queue.len() > 30);
        assert_eq!(queue.unsent_bytes(), expected.len());
        let mut sent = Vec::new();
        for index in 0..queue.len() {
            let pdu = queue.get_mut(index).expect("queued");
            let data = match &pdu.payload {
                Payload::Inline(data) => data.clone(),
                _ => Vec::new(),
            };
            if pdu.digest_pending {
                pdu.set_data_digest(crc32c::append(0, &data));
            }
            assert_eq!(pdu.bhs().0.len(), BHS_LEN);
            for part in [pdu.header_bytes(), pdu.ahs_bytes(), &data, pdu.trailer_bytes()] {
                sent.extend_from_slice(part);
            }
        }
        assert!(sent == expected);
    }
}
