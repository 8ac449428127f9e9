//! Any bytes in any pieces: the deframer agrees with a parser that sees everything at once, and never takes a byte that is
//! not there.

use blockwire_wire::bhs::padding;
use blockwire_wire::{BHS_LEN, Bhs, Deframer, Step, crc32c};

use super::input::{Input, Noise};

/// One PDU as both parsers report it.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    pub header: Vec<u8>,
    pub ahs: Vec<u8>,
    pub data: Vec<u8>,
    pub data_ok: bool,
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Boundary,
    Inside,
    HeaderDigestError,
}

/// The reference: whole stream at once, written from RFC 7143 11.2 and not from the deframer.
pub fn parse(stream: &[u8], header_digest: bool, data_digest: bool) -> (Vec<Parsed>, End) {
    let mut pdus = Vec::new();
    let mut rest = stream;
    loop {
        if rest.is_empty() {
            return (pdus, End::Boundary);
        }
        if rest.len() < BHS_LEN {
            return (pdus, End::Inside);
        }
        let ahs_len = 4 * usize::from(rest[4]);
        let length = (usize::from(rest[5]) << 16) | (usize::from(rest[6]) << 8) | usize::from(rest[7]);
        let mut at = BHS_LEN + ahs_len;
        if header_digest {
            let Some(digest) = rest.get(at..at + 4) else { return (pdus, End::Inside) };
            if crc32c::append(0, &rest[..at]).to_le_bytes() != digest {
                return (pdus, End::HeaderDigestError);
            }
            at += 4;
        }
        let padded = length.div_ceil(4) * 4;
        let Some(segment) = rest.get(at..at + padded) else { return (pdus, End::Inside) };
        at += padded;
        let mut data_ok = true;
        if data_digest && length > 0 {
            let Some(digest) = rest.get(at..at + 4) else { return (pdus, End::Inside) };
            data_ok = crc32c::append(0, segment).to_le_bytes() == digest;
            at += 4;
        }
        pdus.push(Parsed {
            header: rest[..BHS_LEN].to_vec(),
            ahs: rest[BHS_LEN..BHS_LEN + ahs_len].to_vec(),
            data: segment[..length].to_vec(),
            data_ok,
        });
        rest = &rest[at..];
    }
}

/// The deframer over the same stream, in pieces.
fn deframe(pieces: &[&[u8]], header_digest: bool, data_digest: bool) -> (Vec<Parsed>, End) {
    let mut deframer = Deframer::new(header_digest, data_digest);
    let mut pdus = Vec::new();
    let mut data = Vec::new();
    let mut announced = false;
    let report = |deframer: &Deframer, data: &mut Vec<u8>, data_ok| Parsed {
        header: deframer.bhs().0.to_vec(),
        ahs: deframer.ahs().to_vec(),
        data: std::mem::take(data),
        data_ok,
    };
    for piece in pieces {
        let mut at = 0;
        loop {
            let left = deframer.data_remaining() as usize;
            if left > 0 {
                let part = &piece[at..(at + left).min(piece.len())];
                if part.is_empty() {
                    break;
                }
                at += part.len();
                data.extend_from_slice(part);
                let crc = crc32c::append(deframer.data_crc(), part);
                if deframer.data_moved(part.len() as u32, crc) {
                    pdus.push(report(&deframer, &mut data, true));
                    announced = false;
                }
                continue;
            }
            let (n, step) = deframer.push(&piece[at..]);
            assert!(n <= piece.len() - at, "took bytes that are not there");
            at += n;
            match step {
                Step::NeedMore => {
                    assert_eq!(at, piece.len(), "wants more and left some");
                    break;
                }
                Step::Header => {
                    assert!(!announced, "one header, announced twice");
                    announced = true;
                    assert_eq!(deframer.ahs().len(), deframer.bhs().ahs_len());
                }
                Step::AhsError => unreachable!("this deframer takes any AHS"),
                Step::HeaderDigestError => return (pdus, End::HeaderDigestError),
                Step::Pdu | Step::DataDigestError => {
                    assert!(announced, "a PDU without its header");
                    announced = false;
                    pdus.push(report(&deframer, &mut data, step == Step::Pdu));
                }
            }
        }
    }
    // A PDU that ends with its header is complete only at the next push, which takes nothing.
    if announced && deframer.data_remaining() == 0 && data.is_empty() && deframer.bhs().data_segment_length() == 0 {
        let (n, step) = deframer.push(&[]);
        assert_eq!((n, step), (0, Step::Pdu));
        pdus.push(report(&deframer, &mut data, true));
    }
    (pdus, if deframer.at_boundary() { End::Boundary } else { End::Inside })
}

/// PDUs with right digests made of the input: without them a fuzzer finds no CRC in reasonable time.
fn well_formed(input: &mut Input<'_>, header_digest: bool, data_digest: bool) -> Vec<u8> {
    let mut stream = Vec::new();
    while !input.is_empty() && stream.len() < 1 << 16 {
        let mut header = [0; BHS_LEN];
        let given = input.take(BHS_LEN);
        header[..given.len()].copy_from_slice(given);
        let mut bhs = Bhs(header);
        let ahs_len = input.one_of(&[0, 0, 0, 4, 8, 1020]);
        let length = input.one_of(&[0u32, 1, 2, 3, 4, 5, 63, 64, 255, 300]);
        bhs.set_ahs_len(ahs_len);
        bhs.set_data_segment_length(length);
        let mut head = bhs.0.to_vec();
        head.resize(BHS_LEN + ahs_len, input.byte());
        let mut data = vec![input.byte(); length as usize];
        data.resize((length + padding(length)) as usize, 0);
        let damage = input.byte();
        let mut pdu = head.clone();
        if header_digest {
            pdu.extend(crc32c::append(0, &head).to_le_bytes());
        }
        pdu.extend(&data);
        if data_digest && length > 0 {
            pdu.extend(crc32c::append(0, &data).to_le_bytes());
        }
        if damage > 200 {
            let at = usize::from(damage) * 7 % pdu.len();
            pdu[at] ^= 1 << (damage & 7);
        }
        stream.extend(pdu);
    }
    stream
}

/// First byte: digests (bits 0, 1) and whether the rest is a stream as it is (bit 2 clear) or a description of PDUs; second:
/// how it is cut into pieces.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = input.byte();
    let cuts = input.byte();
    let (header_digest, data_digest) = (mode & 1 != 0, mode & 2 != 0);
    let stream = if mode & 4 != 0 {
        well_formed(&mut input, header_digest, data_digest)
    } else {
        input.take(usize::MAX).to_vec()
    };
    let expected = parse(&stream, header_digest, data_digest);

    let mut pieces = Vec::new();
    let mut noise = Noise::new(u64::from(cuts));
    let mut rest = &stream[..];
    while !rest.is_empty() {
        let n = match cuts {
            0 => rest.len(),
            1..=64 => usize::from(cuts),
            _ => noise.below(2 << (cuts % 11)),
        };
        let (piece, after) = rest.split_at(n.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    let seen = deframe(&pieces, header_digest, data_digest);
    if seen.1 == End::Inside {
        // the reference does not report what is not complete either
        assert_ne!(expected.1, End::Boundary, "complete, and not noticed");
    }
    assert_eq!(seen, expected);
}
