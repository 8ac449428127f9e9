//! Wrong data digests (RFC 7143 7.8) and statuses that are lost (7.9), byte by byte.

use super::super::Event;
use super::peer::*;
use crate::{ConnectionParams, FatalCode, SessionParams};
use blockwire_wire::crc32c;

const TAG: u32 = 0x0001_0000;
const TIMEOUT: u64 = 1000;

fn rig(level: u8) -> Rig {
    let params =
        SessionParams { error_recovery_level: level, data_sequence_in_order: false, ..SessionParams::default() };
    let mut rig = Rig::new(params, ConnectionParams { data_digest: true, ..ConnectionParams::default() });
    rig.session.set_recovery_timeout(TIMEOUT);
    rig
}

/// The PDU with its data digest (11.2.3: over data and padding), right or wrong.
fn digested(mut bytes: Vec<u8>, right: bool) -> Vec<u8> {
    if bytes.len() > 48 {
        let crc = crc32c::append(0, &bytes[48..]) ^ u32::from(!right);
        bytes.extend(crc.to_le_bytes());
    }
    bytes
}

fn snacks(bytes: &[u8]) -> Vec<(u8, u32, u32, u32)> {
    let list = split(bytes).into_iter().filter(|(h, _)| h[0] == 0x10);
    list.map(|(h, _)| (h[1] & 0x0f, word(&h, 16), word(&h, 40), word(&h, 44))).collect()
}

fn nop_in(stat_sn: u32) -> Vec<u8> {
    pdu(0x20, 0x80, [0, 0], 0xffff_ffff, [0xffff_ffff, stat_sn, EXP, MAX, 0, 0, 0], &[])
}

#[test]
fn data() {
    for last in [false, true] {
        let mut rig = rig(1);
        let slot = rig.read(1024);
        rig.sent(0);
        let data = pattern(1024);
        let first = data_in(TAG, 0, 0, 0, 0, 0, &data[..512]);
        let second = data_in(TAG, 0x81, STAT_SN, 1, 512, 0, &data[512..]);
        let mut spoiled = if last { second.clone() } else { first.clone() };
        spoiled[100] ^= 0x10;
        if last {
            rig.deliver(0, &digested(first, true)).unwrap();
            rig.deliver(0, &digested(spoiled, false)).unwrap();
            // the status was in it: both come with its exact replica (11.16)
            assert_eq!(snacks(&rig.sent(0)), [(0, TAG, 1, 1)]);
            rig.deliver(0, &digested(second, true)).unwrap();
        } else {
            rig.deliver(0, &digested(spoiled, false)).unwrap();
            assert_eq!(snacks(&rig.sent(0)), [(0, TAG, 0, 1)], "at once");
            rig.deliver(0, &digested(second, true)).unwrap();
            assert!(snacks(&rig.sent(0)).is_empty());
            rig.deliver(0, &digested(first, true)).unwrap();
        }
        assert_eq!(rig.ended(), good(0));
        assert_eq!((rig.memory[&slot].clone(), rig.session.exp_stat_sn(0)), (data, Some(STAT_SN + 1)));
    }
}

#[test]
fn a_spoiled_repetition_does_no_harm() {
    let mut rig = rig(1);
    let slot = rig.read(1024);
    let data = pattern(1024);
    rig.deliver(0, &digested(data_in(TAG, 0, 0, 0, 0, 0, &data[..512]), true)).unwrap();
    let mut spoiled = data_in(TAG, 0, 0, 0, 0, 0, &data[..512]);
    spoiled[60] ^= 1;
    rig.deliver(0, &digested(spoiled, false)).unwrap();
    rig.deliver(0, &digested(data_in(TAG, 0x81, STAT_SN, 1, 512, 0, &data[512..]), true)).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.memory[&slot], data);
}

#[test]
fn level_0_drops_the_connection() {
    let mut rig = rig(0);
    rig.read(512);
    let fatal = rig.deliver(0, &digested(data_in(TAG, 0x80, 0, 0, 0, 0, &[1; 512]), false)).unwrap_err();
    assert_eq!(fatal.code, FatalCode::DataDigest);
}

#[test]
fn a_response() {
    // a response with sense: Status SNACK for its StatSN, and what comes behind it waits (7.9)
    let mut rig = rig(1);
    rig.command(&[0; 6], 0, 0);
    rig.command(&[0; 6], 0, 0);
    let out = split(&rig.sent(0));
    let (one, two) = (word(&out[0].0, 16), word(&out[1].0, 16));
    let sense = pdu(0x21, 0x80, [0, 2], one, [0, STAT_SN, EXP, MAX, 0, 0, 0], &[0, 4, 0x70, 0, 5, 0]);
    rig.deliver(0, &digested(sense.clone(), false)).unwrap();
    assert_eq!(snacks(&rig.sent(0)), [(1, 0xffff_ffff, STAT_SN, 1)]);
    rig.deliver(0, &pdu(0x21, 0x80, [0, 0], two, [0, STAT_SN + 1, EXP + 1, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!((rig.session.poll_event(), rig.session.exp_stat_sn(0)), (None, Some(STAT_SN)));
    rig.deliver(0, &digested(sense, true)).unwrap();
    assert!(matches!(rig.ended(), Some(super::super::Outcome::Status { status: 2, .. })));
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.session.exp_stat_sn(0), Some(STAT_SN + 2));
    assert!(snacks(&rig.sent(0)).is_empty());
}

#[test]
fn an_asynchronous_message() {
    let mut rig = rig(1);
    let message = pdu(0x32, 0x80, [0, 0], 0xffff_ffff, [0xffff_ffff, STAT_SN, 0x10, MAX, 0, 0, 0], &[0, 0, 1, 2]);
    rig.deliver(0, &digested(message.clone(), false)).unwrap();
    assert_eq!(snacks(&rig.sent(0)), [(1, 0xffff_ffff, STAT_SN, 1)]);
    assert_eq!(rig.session.poll_event(), None);
    rig.deliver(0, &digested(message, true)).unwrap();
    assert!(matches!(rig.session.poll_event(), Some(Event::Control { context: 0, .. })));
}

#[test]
fn statuses_lost_without_a_trace() {
    // numbers at 2^32: StatSN starts at 0xfffffffe
    let params = SessionParams { error_recovery_level: 1, ..SessionParams::default() };
    let mut rig = Rig::new(params, ConnectionParams::default());
    rig.session.set_recovery_timeout(TIMEOUT);
    rig.session.lose_connection(0, true);
    rig.session.add_connection(ConnectionParams::default(), 0xffff_fffe, 0);
    let tags: Vec<u32> = (0..4)
        .map(|_| {
            rig.command(&[0; 6], 0, 0);
            word(&split(&rig.sent(0))[0].0, 16)
        })
        .collect();
    let status = |i: usize| {
        let stat_sn = 0xffff_fffe_u32.wrapping_add(i as u32);
        pdu(0x21, 0x80, [0, 0], tags[i], [0, stat_sn, 0x14, MAX, 0, 0, 0], &[])
    };
    rig.deliver(0, &status(0)).unwrap();
    assert_eq!(rig.ended(), good(0));
    rig.deliver(0, &status(3)).unwrap();
    assert_eq!(snacks(&rig.sent(0)), [(1, 0xffff_ffff, 0xffff_ffff, 2)], "BegRun, RunLength of the run");
    // asked again after a timeout, as one run
    rig.session.on_timer(0, 5 + TIMEOUT).unwrap();
    assert_eq!(snacks(&rig.sent(0)), [(1, 0xffff_ffff, 0xffff_ffff, 2)]);
    rig.deliver(0, &status(2)).unwrap();
    assert_eq!(rig.session.poll_event(), None);
    rig.deliver(0, &status(1)).unwrap();
    for _ in 0..3 {
        assert_eq!(rig.ended(), good(0));
    }
    assert_eq!(rig.session.exp_stat_sn(0), Some(2));
    // repeated once too often: discarded
    rig.deliver(0, &status(1)).unwrap();
    assert_eq!(rig.session.recovery_counters().duplicates, 1);
}

#[test]
fn a_nop_in_tells_of_a_lost_tail() {
    // 7.1.4.2, 11.19.2: an unsolicited NOP-In carries the next StatSN without taking it
    let mut rig = rig(1);
    rig.command(&[0; 6], 0, 0);
    let tag = word(&split(&rig.sent(0))[0].0, 16);
    rig.deliver(0, &nop_in(STAT_SN)).unwrap();
    assert!(rig.sent(0).is_empty());
    rig.deliver(0, &nop_in(STAT_SN + 1)).unwrap();
    assert_eq!(snacks(&rig.sent(0)), [(1, 0xffff_ffff, STAT_SN, 1)]);
    rig.deliver(0, &nop_in(STAT_SN + 1)).unwrap();
    assert!(rig.sent(0).is_empty(), "asked for once");
    rig.deliver(0, &pdu(0x21, 0x80, [0, 0], tag, [0, STAT_SN, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.ended(), good(0));
}

#[test]
fn our_ping_tells_of_it_too() {
    let mut rig = rig(1);
    rig.command(&[0; 6], 0, 0);
    let tag = word(&split(&rig.sent(0))[0].0, 16);
    rig.session.on_timer(0, TIMEOUT).unwrap();
    let ping = word(&split(&rig.sent(0))[0].0, 16);
    let answer = pdu(0x20, 0x80, [0, 0], ping, [0xffff_ffff, STAT_SN + 1, EXP, MAX, 0, 0, 0], &[]);
    rig.deliver(0, &answer).unwrap();
    assert_eq!(snacks(&rig.sent(0)), [(1, 0xffff_ffff, STAT_SN, 1)]);
    rig.deliver(0, &pdu(0x21, 0x80, [0, 0], tag, [0, STAT_SN, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!((rig.session.exp_stat_sn(0), rig.session.unfinished()), (Some(STAT_SN + 2), 0));
}

#[test]
fn a_stat_sn_from_nowhere_ends_the_connection() {
    // 4.2.2.2: a bound of our own on the distance
    let mut rig = rig(1);
    rig.command(&[0; 6], 0, 0);
    let tag = word(&split(&rig.sent(0))[0].0, 16);
    let far = pdu(0x21, 0x80, [0, 0], tag, [0, STAT_SN + 100_000, EXP, MAX, 0, 0, 0], &[]);
    assert_eq!(rig.deliver(0, &far).unwrap_err().code, FatalCode::SequenceGap);
}
