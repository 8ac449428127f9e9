//! Random orders of Data-In and R2T as DataPDUInOrder and DataSequenceInOrder allow, with the data compared.

use proptest::prelude::*;

use super::super::Event;
use super::peer::*;
use crate::{ConnectionParams, SessionParams};

const TAG: u32 = 0x0001_0000;

/// Cuts `[0, len)` at the given places.
fn pieces(len: u32, cuts: &[u32]) -> Vec<(u32, u32)> {
    let mut at: Vec<u32> = cuts.iter().map(|c| c % len).chain([0, len]).collect();
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|w| (w[0], w[1] - w[0])).collect()
}

fn shuffle<T>(list: &mut [T], seed: u64) {
    let mut state = seed | 1;
    for i in (1..list.len()).rev() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(99);
        list.swap(i, (state >> 33) as usize % (i + 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn data_in(
        len in 1u32..6000, sequences in prop::collection::vec(any::<u32>(), 0..4),
        cuts in prop::collection::vec(any::<u32>(), 0..12), seed in any::<u64>(),
        pdus_in_order in any::<bool>(), sequences_in_order in any::<bool>(), status_in_data in any::<bool>(), chunk in 1usize..700,
    ) {
        let params = SessionParams {
            data_pdu_in_order: pdus_in_order, data_sequence_in_order: sequences_in_order, ..SessionParams::default()
        };
        let mut rig = Rig::new(params, ConnectionParams::default());
        let slot = rig.read(len);
        rig.sent(0);
        let data = pattern(len as usize);
        let mut order = pieces(len, &sequences);
        if !sequences_in_order {
            shuffle(&mut order, seed);
        }
        let mut plan = Vec::new();
        for (start, length) in order {
            let mut inner: Vec<_> = pieces(length, &cuts).into_iter().map(|(o, n)| (start + o, n)).collect();
            if !pdus_in_order {
                shuffle(&mut inner, seed.rotate_left(7));
            }
            let last = inner.len() - 1;
            plan.extend(inner.into_iter().enumerate().map(|(i, (o, n))| (o, n, i == last)));
        }
        let mut bytes = Vec::new();
        let count = plan.len();
        for (number, (offset, length, last)) in plan.into_iter().enumerate() {
            let status = status_in_data && number + 1 == count;
            let flags = if last { 0x80 } else { 0 } | u8::from(status);
            let part = &data[offset as usize..(offset + length) as usize];
            bytes.extend(super::peer::data_in(TAG, flags, STAT_SN, number as u32, offset, 0, part));
        }
        if !status_in_data {
            bytes.extend(response(TAG, 0x80, 0, STAT_SN, 0, 0, &[]));
        }
        for part in bytes.chunks(chunk) {
            rig.deliver(0, part).unwrap();
        }
        prop_assert_eq!(rig.ended(), good(0));
        prop_assert_eq!(&rig.memory[&slot], &data);
    }

    #[test]
    fn r2t(
        len in 1u32..9000, cuts in prop::collection::vec(any::<u32>(), 0..6), seed in any::<u64>(),
        segment in 512u32..3000, first in 512u32..2000, initial_r2t in any::<bool>(), immediate_data in any::<bool>(),
        in_order in any::<bool>(),
    ) {
        let params = SessionParams {
            initial_r2t, immediate_data, first_burst_length: first, max_outstanding_r2t: 8,
            data_sequence_in_order: in_order, ..SessionParams::default()
        };
        let connection = ConnectionParams { max_send_data_segment_length: segment, ..ConnectionParams::default() };
        let mut rig = Rig::new(params, connection);
        let data = pattern(len as usize);
        rig.write(&data);
        let mut got = vec![None; len as usize];
        let mut place = |bytes: &[u8]| {
            for (header, part) in split(bytes) {
                assert!(part.len() <= segment as usize);
                let offset = if header[0] == 0x01 { 0 } else { word(&header, 40) as usize };
                for (i, byte) in part.iter().enumerate() {
                    assert!(got[offset + i].replace(*byte).is_none(), "a byte was sent twice");
                }
            }
            got.iter().take_while(|b| b.is_some()).count() as u32
        };
        let done = place(&rig.sent(0));
        let unsolicited = if initial_r2t { if immediate_data { first.min(segment & !3) } else { 0 } }
            else if immediate_data || !initial_r2t { first } else { 0 };
        prop_assert_eq!(done, unsolicited.min(len));
        if done < len {
            let mut asks: Vec<_> = pieces(len - done, &cuts).into_iter().map(|(o, n)| (done + o, n)).collect();
            if !in_order {
                shuffle(&mut asks, seed);
            }
            let mut bytes = Vec::new();
            for (number, (offset, length)) in asks.into_iter().enumerate() {
                bytes.extend(super::peer::r2t(TAG, 100 + number as u32, number as u32, offset, length));
            }
            rig.deliver(0, &bytes).unwrap();
            place(&rig.sent(0));
        }
        let got: Vec<u8> = got.into_iter().map(Option::unwrap).collect();
        prop_assert_eq!(got, data);
        rig.deliver(0, &response(TAG, 0x80, 0, STAT_SN, 0, 0, &[])).unwrap();
        prop_assert_eq!(rig.ended(), good(0));
    }

    /// No bytes of a target do harm.
    #[test]
    fn noise(bytes in prop::collection::vec(any::<u8>(), 48..400), opcode in 0usize..10) {
        let mut rig = Rig::plain();
        let slot = rig.read(1024);
        rig.write(&pattern(2048));
        let mut bytes = bytes;
        bytes[0] = [0x20, 0x21, 0x22, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f, 0x23][opcode];
        bytes[4..7].copy_from_slice(&[0, 0, 0]);
        if bytes[40] & 1 == 0 {
            bytes[16..20].copy_from_slice(&TAG.to_be_bytes());
        }
        let _ = rig.deliver(0, &bytes);
        prop_assert_eq!(rig.memory[&slot].len(), 1024);
    }
}

#[test]
fn tasks_terminated_in_one_unit_leave_those_of_another_alone() {
    let params = SessionParams { fast_abort: true, immediate_data: false, ..SessionParams::default() };
    let mut rig = Rig::new(params, ConnectionParams::default());
    let slot = rig.command(&[0x2a; 10], 8192, 0);
    rig.memory.insert(slot, pattern(8192));
    let tag = word(&split(&rig.sent(0))[0].0, 16);
    rig.deliver(0, &super::peer::r2t(tag, 0x77, 0, 0, 8192)).unwrap();
    let mut message = pdu(0x32, 0x80, [0, 0], 0xffff_ffff, [0, STAT_SN, 0x11, MAX, 0x0500_0000, 0, 0], &[]);
    message[8..16].copy_from_slice(&[0, 4, 0, 0, 0, 0, 0, 0]);
    rig.deliver(0, &message).unwrap();
    let sent = split(&rig.sent(0));
    assert!(sent.iter().any(|(header, _)| header[0] == 0x40), "acknowledged");
    let data: Vec<u8> = sent.into_iter().filter(|(h, _)| h[0] == 0x05).flat_map(|(_, d)| d).collect();
    assert_eq!(data, pattern(8192));
}

#[test]
fn tasks_terminated_under_fast_abort() {
    // RFC 7143 11.9.1, event 5: stop Data-Out for the LUN, then acknowledge with a non-ping NOP-Out that carries the LUN
    for fast_abort in [true, false] {
        let params = SessionParams { fast_abort, immediate_data: false, ..SessionParams::default() };
        let mut rig = Rig::new(params, ConnectionParams::default());
        let slot = rig.command(&[0x2a; 10], 65_536, 0);
        rig.memory.insert(slot, pattern(65_536));
        let tag = word(&split(&rig.sent(0))[0].0, 16);
        let mut r2t = pdu(0x31, 0x80, [0, 0], tag, [0x77, STAT_SN, 0x11, MAX, 0, 0, 32_768], &[]);
        r2t[8..16].copy_from_slice(&[0, 3, 0, 0, 0, 0, 0, 0]);
        rig.deliver(0, &r2t).unwrap();
        let mut message = pdu(0x32, 0x80, [0, 0], 0xffff_ffff, [0, STAT_SN, 0x11, MAX, 0x0500_0000, 0, 0], &[]);
        message[8..16].copy_from_slice(&[0, 3, 0, 0, 0, 0, 0, 0]);
        rig.deliver(0, &message).unwrap();
        assert!(matches!(rig.session.poll_event(), Some(Event::Control { context: 0, .. })));
        let sent = split(&rig.sent(0));
        if !fast_abort {
            assert!(sent.iter().all(|(header, _)| header[0] == 0x05) && sent.len() == 4);
            continue;
        }
        assert_eq!(sent.len(), 1, "no Data-Out any more");
        let header = &sent[0].0;
        assert_eq!((header[0], header[1]), (0x40, 0x80));
        assert_eq!(header[8..16], [0, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!((word(header, 16), word(header, 20)), (0xffff_ffff, 0xffff_ffff));
        assert_eq!(word(header, 28), STAT_SN + 1, "its StatSN is acknowledged");
    }
}
