//! The order that a testing initiator has to cope with (RFC 7143 13.18, 13.19).

use super::*;

const LEN: u32 = 100_000;

fn run(pdus: bool, sequences: bool, level: u8, seed: u64) -> Vec<Bhs> {
    let params = SessionParams {
        data_pdu_in_order: pdus,
        data_sequence_in_order: sequences,
        error_recovery_level: level,
        max_burst_length: 16_384,
        ..params()
    };
    let mut rig = Rig::new(params);
    rig.connect(connection(0, 2048));
    rig.session.set_shuffle(seed);
    rig.ok(&command(0xc0, 3, 1, LEN));
    let slot = rig.delivered()[0];
    rig.session.send_data(slot, 0, LEN / 2, false, None);
    rig.session.send_data(slot, LEN / 2, LEN / 2, true, Some(Finish::good(Residual::None)));
    let sent: Vec<Bhs> = rig.sent(0).into_iter().map(|(bhs, _)| bhs).collect();
    rig.sent(0); // word of the window
    if level > 0 {
        // each number can be asked for again, whatever the order
        for bhs in &sent {
            let sn = bhs.data_sn();
            rig.ok(&Pdu::new(0x10, 0x80).u32(16, 3).u32(20, NO_TAG).u32(28, 100).u32(40, sn).u32(44, 1));
            let again = rig.sent(0)[0].0;
            assert_eq!((again.buffer_offset(), again.flags()), (bhs.buffer_offset(), bhs.flags()));
        }
    }
    sent
}

#[test]
fn every_byte_comes_once_and_sequences_are_what_the_keys_say() {
    for level in [0, 1] {
        for (pdus, sequences) in [(true, true), (false, true), (true, false), (false, false)] {
            let sent = run(pdus, sequences, level, 77);
            let mut bytes = vec![0; LEN as usize];
            let mut sequence: Vec<(u32, u32)> = Vec::new();
            let mut starts = Vec::new();
            let mut mixed = false;
            for (i, bhs) in sent.iter().enumerate() {
                assert_eq!(bhs.data_sn(), i as u32, "numbers are in order of sending");
                let (at, len) = (bhs.buffer_offset(), bhs.data_segment_length());
                bytes[at as usize..(at + len) as usize].iter_mut().for_each(|b| *b += 1);
                sequence.push((at, at + len));
                if bhs.is_final() {
                    mixed |= sequence.windows(2).any(|w| w[1].0 < w[0].0);
                    sequence.sort_unstable();
                    assert!(sequence.windows(2).all(|w| w[0].1 == w[1].0), "a sequence is one range");
                    starts.push(sequence[0].0);
                    assert!(sequence.last().expect("some").1 - sequence[0].0 <= 16_384, "13.13");
                    sequence.clear();
                }
            }
            assert!(sequence.is_empty() && bytes.iter().all(|b| *b == 1));
            assert_eq!(mixed, !pdus, "13.18");
            assert_eq!(starts.windows(2).any(|w| w[1] < w[0]), !sequences, "13.19");
            assert_eq!(sent.last().expect("some").flags() & 0x81, 0x81);
            assert!(sent[..sent.len() - 1].iter().all(|b| b.flags() & 1 == 0));
        }
    }
}

#[test]
fn the_seed_decides() {
    let order = |seed| run(false, false, 0, seed).iter().map(Bhs::buffer_offset).collect::<Vec<_>>();
    assert_eq!(order(5), order(5));
    assert_ne!(order(5), order(6));
    let in_order = order(0);
    assert!(in_order.windows(2).all(|w| w[0] < w[1]), "off by default");
}

#[test]
fn r2ts_are_mixed_and_cover_everything_once() {
    let params = SessionParams { data_sequence_in_order: false, max_outstanding_r2t: 3, ..params() };
    let mut rig = Rig::new(SessionParams { max_burst_length: 4096, ..params });
    rig.connect(connection(0, 4096));
    rig.session.set_shuffle(9);
    rig.ok(&command(0xa0, 3, 1, 60_000));
    let slot = rig.delivered()[0];
    let mut offsets = Vec::new();
    loop {
        let mut most = 0;
        while rig.session.r2t_room(slot) > 0
            && let Some((offset, length)) = rig.session.next_to_solicit(slot, 60_000)
        {
            assert!(length <= 4096 && rig.session.solicit(slot, offset, length));
            most += 1;
        }
        let r2ts = rig.sent(0);
        if most == 0 {
            break;
        }
        for (r2t, _) in r2ts.iter().rev() {
            let (at, len) = (r2t.buffer_offset(), r2t.desired_data_transfer_length());
            offsets.push(at);
            let data = vec![1; len as usize];
            rig.ok(&data_out(true, 3, r2t.target_transfer_tag(), 0, at, &data));
        }
    }
    assert!(rig.session.task(slot).expect("there").out.received.contains(0, 60_000));
    assert!(offsets.windows(2).any(|w| w[1] < w[0]));
}
