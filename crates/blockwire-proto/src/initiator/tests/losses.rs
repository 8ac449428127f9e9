//! Data, R2Ts and commands that are lost on a connection that goes on: RFC 7143 7.8, 7.9, 11.16, byte by byte.

use super::super::Outcome;
use super::peer::*;
use crate::{ConnectionParams, FatalCode, SessionParams};

const TAG: u32 = 0x0001_0000;
const TIMEOUT: u64 = 1000;

fn level_1() -> Rig {
    with(SessionParams { error_recovery_level: 1, data_sequence_in_order: false, ..SessionParams::default() })
}

fn with(params: SessionParams) -> Rig {
    let mut rig = Rig::new(params, ConnectionParams::default());
    rig.session.set_recovery_timeout(TIMEOUT);
    rig
}

/// One SNACK (11.16): type, ITT, TTT, ExpStatSN, BegRun, RunLength; everything else is checked to be as the figure says.
fn snacks(bytes: &[u8]) -> Vec<(u8, u32, u32, u32, u32, u32)> {
    let list = split(bytes).into_iter().map(|(h, data)| {
        assert_eq!((h[0], h[1] & 0xf0, h[2], h[3]), (0x10, 0x80, 0, 0), "opcode, F");
        assert_eq!((word(&h, 4), word(&h, 24), word(&h, 32), word(&h, 36)), (0, 0, 0, 0), "reserved");
        assert!(data.is_empty());
        (h[1] & 0x0f, word(&h, 16), word(&h, 20), word(&h, 28), word(&h, 40), word(&h, 44))
    });
    list.collect()
}

fn part(data: &[u8], number: u32) -> Vec<u8> {
    data[number as usize * 512..][..512].to_vec()
}

/// Data-In `number` of `data` in PDUs of 512 bytes, without status.
fn numbered(data: &[u8], number: u32, flags: u8) -> Vec<u8> {
    data_in(TAG, flags, STAT_SN, number, number * 512, 0, &part(data, number))
}

/// SCSI Response with SNACK Tag and ExpDataSN (11.4).
fn tagged(tag: u32, snack_tag: u32, stat_sn: u32, exp_data_sn: u32) -> Vec<u8> {
    pdu(0x21, 0x80, [0, 0], tag, [snack_tag, stat_sn, EXP, MAX, exp_data_sn, 0, 0], &[])
}

#[test]
fn only_the_missing_run_is_asked_for() {
    let mut rig = level_1();
    let slot = rig.read(4096);
    rig.sent(0);
    let data = pattern(4096);
    for number in [0, 1, 4, 5] {
        rig.deliver(0, &numbered(&data, number, 0)).unwrap();
    }
    assert_eq!(snacks(&rig.sent(0)), [(0, TAG, 0xffff_ffff, STAT_SN, 2, 2)], "11.16.4, 11.16.5, BegRun, RunLength");
    // the status comes with the last data and waits; it is not acknowledged (7.9)
    rig.deliver(0, &numbered(&data, 6, 0)).unwrap();
    rig.deliver(0, &numbered(&data, 7, 0x81)).unwrap();
    assert_eq!((rig.session.poll_event(), rig.session.exp_stat_sn(0)), (None, Some(STAT_SN)));
    assert!(rig.sent(0).is_empty(), "asked for once");
    rig.deliver(0, &numbered(&data, 3, 0)).unwrap();
    rig.deliver(0, &numbered(&data, 3, 0)).unwrap(); // 7.9: duplicates are discarded
    assert_eq!(rig.session.poll_event(), None);
    rig.deliver(0, &numbered(&data, 2, 0)).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.session.exp_stat_sn(0), Some(STAT_SN + 1));
    assert_eq!(rig.memory[&slot], data);
    // a repetition after the end is thrown away
    rig.deliver(0, &numbered(&data, 2, 0)).unwrap();
    let counters = *rig.session.recovery_counters();
    assert_eq!((counters.snacks, counters.runs_lost, counters.data_recovered), (1, 1, 2));
    assert!(counters.duplicates >= 2);
}

#[test]
fn level_0_has_no_answer() {
    let mut rig = Rig::plain();
    rig.read(4096);
    let fatal = rig.deliver(0, &numbered(&pattern(4096), 1, 0)).unwrap_err();
    assert_eq!(fatal.code, FatalCode::SequenceGap);
}

#[test]
fn a_gap_is_asked_for_once_per_timeout_and_not_for_ever() {
    let mut rig = level_1();
    rig.read(4096);
    rig.sent(0);
    rig.deliver(0, &numbered(&pattern(4096), 1, 0)).unwrap();
    assert_eq!(snacks(&rig.sent(0)).len(), 1);
    for i in 1..4 {
        let at = rig.session.deadline(0).unwrap();
        assert!(at <= 5 + i * TIMEOUT);
        rig.session.on_timer(0, 5 + i * TIMEOUT - 1).unwrap();
        let early: Vec<_> = split(&rig.sent(0)).into_iter().filter(|(h, _)| h[0] == 0x10).collect();
        assert!(early.is_empty());
        rig.session.on_timer(0, 5 + i * TIMEOUT).unwrap();
        let again: Vec<_> = split(&rig.sent(0)).into_iter().filter(|(h, _)| h[0] == 0x10).collect();
        assert_eq!((again.len(), word(&again[0].0, 40), word(&again[0].0, 44)), (1, 0, 1));
    }
    assert_eq!(rig.session.on_timer(0, 5 + 4 * TIMEOUT).unwrap_err().code, FatalCode::SequenceGap);
}

#[test]
fn more_than_256_runs_are_not_kept() {
    let mut rig = level_1();
    rig.command(&[0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0], 0, 600 * 4);
    rig.memory.insert(crate::Slot(0), vec![0; 600 * 4]);
    let mut refused = None;
    for i in 0..300u32 {
        let bytes = data_in(TAG, 0, 0, 1 + 2 * i, 4 + 8 * i, 0, &[1; 4]);
        if rig.deliver(0, &bytes).is_err() {
            refused = Some(i);
            break;
        }
        rig.sent(0);
    }
    assert!(refused.is_some_and(|i| (200..=256).contains(&i)), "{refused:?}");
}

#[test]
fn with_sequences_in_order_only_the_last_one_may_be_asked_for() {
    // 13.19: an earlier sequence cannot be asked for, so the connection is given up
    let params = SessionParams { error_recovery_level: 1, max_burst_length: 1024, ..SessionParams::default() };
    let data = pattern(4096);
    let mut rig = with(params.clone());
    rig.read(4096);
    rig.sent(0);
    for (number, flags) in [(0, 0), (1, 0x80), (3, 0x80)] {
        rig.deliver(0, &numbered(&data, number, flags)).unwrap();
    }
    assert_eq!(snacks(&rig.sent(0)), [(0, TAG, 0xffff_ffff, STAT_SN, 2, 1)], "the last sequence");
    let mut rig = with(params);
    rig.read(4096);
    rig.sent(0);
    rig.deliver(0, &numbered(&data, 1, 0x80)).unwrap();
    assert_eq!(snacks(&rig.sent(0)).len(), 1);
    rig.deliver(0, &numbered(&data, 2, 0)).unwrap();
    rig.deliver(0, &numbered(&data, 3, 0x80)).unwrap();
    let fatal = rig.session.on_timer(0, 5 + TIMEOUT).unwrap_err();
    assert!(fatal.what.contains("13.19"), "{}", fatal.what);
}

#[test]
fn the_tail_is_known_by_the_status() {
    // 11.4.8: ExpDataSN larger than what came; the response is held
    let mut rig = level_1();
    let slot = rig.read(2048);
    rig.sent(0);
    let data = pattern(2048);
    rig.deliver(0, &numbered(&data, 0, 0)).unwrap();
    rig.deliver(0, &tagged(TAG, 0, STAT_SN, 4)).unwrap();
    assert_eq!(snacks(&rig.sent(0)), [(0, TAG, 0xffff_ffff, STAT_SN, 1, 3)]);
    // another task meanwhile: its status comes through, acknowledged is neither
    rig.command(&[0; 6], 0, 0);
    let out = split(&rig.sent(0));
    let other = word(&out[0].0, 16);
    rig.deliver(0, &pdu(0x21, 0x80, [0, 0], other, [0, STAT_SN + 1, EXP + 1, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.session.exp_stat_sn(0), Some(STAT_SN));
    for number in [3, 2, 1] {
        rig.deliver(0, &numbered(&data, number, 0)).unwrap();
    }
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.session.exp_stat_sn(0), Some(STAT_SN + 2));
    assert_eq!(rig.memory[&slot], data);
    // back on the short way: the next status is plain
    rig.command(&[0; 6], 0, 0);
    let out = split(&rig.sent(0));
    let other = word(&out[0].0, 16);
    rig.deliver(0, &pdu(0x21, 0x80, [0, 0], other, [0, STAT_SN + 2, EXP + 2, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!((rig.ended(), rig.session.exp_stat_sn(0)), (good(0), Some(STAT_SN + 3)));
    assert_eq!(rig.session.unfinished(), 0);
}

#[test]
fn a_status_without_its_data_is_no_loss_when_it_says_so() {
    let mut rig = level_1();
    rig.read(2048);
    rig.sent(0);
    let data = pattern(2048);
    rig.deliver(0, &numbered(&data, 0, 0)).unwrap();
    // U bit: 1536 bytes were never there; one Data-In was sent
    rig.deliver(0, &pdu(0x21, 0x82, [0, 0], TAG, [0, STAT_SN, EXP, MAX, 1, 0, 1536], &[])).unwrap();
    assert_eq!(rig.ended(), good(1536));
    assert!(rig.sent(0).is_empty());
}

#[test]
fn data_ack_waits_for_the_holes() {
    // 11.7.2, 11.16.2: A bit; LUN and TTT are copied, BegRun is the next DataSN, RunLength 0, ITT reserved
    let asking = |data: &[u8], number: u32| {
        let mut bytes = numbered(data, number, 0xc0);
        bytes[9] = 3;
        bytes[20..24].copy_from_slice(&[0, 0, 0x77, number as u8]);
        bytes
    };
    let mut rig = level_1();
    rig.read(4096);
    rig.sent(0);
    let data = pattern(4096);
    rig.deliver(0, &asking(&data, 0)).unwrap();
    let out = rig.sent(0);
    assert_eq!(out[8..16], [0, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(snacks(&out), [(2, 0xffff_ffff, 0x7700, STAT_SN, 1, 0)]);
    rig.deliver(0, &asking(&data, 2)).unwrap();
    assert_eq!(snacks(&rig.sent(0)), [(0, TAG, 0xffff_ffff, STAT_SN, 1, 1)], "the hole, no acknowledgement");
    rig.deliver(0, &numbered(&data, 1, 0)).unwrap();
    assert_eq!(snacks(&rig.sent(0)), [(2, 0xffff_ffff, 0x7702, STAT_SN, 3, 0)]);
    // 11.7.2: with the status it must not follow the status' acknowledgement
    rig.deliver(0, &numbered(&data, 3, 0)).unwrap();
    let mut last = data_in(TAG, 0xc1, STAT_SN, 4, 2048, 0, &data[2048..]);
    last[9] = 3;
    last[23] = 9;
    rig.deliver(0, &last).unwrap();
    assert_eq!(snacks(&rig.sent(0))[0].3, STAT_SN, "ExpStatSN of the DataACK");
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.session.exp_stat_sn(0), Some(STAT_SN + 1));
    // at level 0 the A bit MUST be ignored
    let mut rig = Rig::plain();
    rig.read(4096);
    rig.sent(0);
    rig.deliver(0, &asking(&data, 0)).unwrap();
    assert!(rig.sent(0).is_empty());
}

#[test]
fn another_segment_length_needs_r_data() {
    let mut rig = level_1();
    let slot = rig.read(4096);
    rig.sent(0);
    let data = pattern(4096);
    rig.deliver(0, &numbered(&data, 0, 0)).unwrap();
    rig.session.set_max_recv_data_segment_length(0, 1024);
    rig.deliver(0, &numbered(&data, 2, 0)).unwrap();
    // 11.16.3, 11.16.5 to 11.16.7: SNACK Tag neither 0 nor reserved, BegRun and RunLength 0
    assert_eq!(snacks(&rig.sent(0)), [(3, TAG, 1, STAT_SN, 0, 0)]);
    // what was on its way with the old length still comes, and a status that does not count (11.4.4)
    for number in 3..7 {
        rig.deliver(0, &numbered(&data, number, 0)).unwrap();
    }
    rig.deliver(0, &numbered(&data, 7, 0x81)).unwrap();
    rig.deliver(0, &tagged(TAG, 0, STAT_SN, 8)).unwrap();
    assert_eq!((rig.session.poll_event(), rig.session.exp_stat_sn(0)), (None, Some(STAT_SN)));
    // all of it again, in other pieces, numbers from 0
    for number in 0..4u32 {
        let at = number as usize * 1024;
        let flags = if number == 3 { 0x80 } else { 0 };
        rig.deliver(0, &data_in(TAG, flags, 0, number, at as u32, 0, &data[at..at + 1024])).unwrap();
    }
    assert_eq!(rig.session.poll_event(), None, "only the tagged response counts");
    rig.deliver(0, &tagged(TAG, 1, STAT_SN, 4)).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.session.exp_stat_sn(0), Some(STAT_SN + 1));
    assert_eq!(rig.memory[&slot], data);
}

#[test]
fn r_data_is_lost_too() {
    let mut rig = level_1();
    rig.read(1024);
    rig.sent(0);
    let data = pattern(1024);
    rig.session.set_max_recv_data_segment_length(0, 512);
    rig.deliver(0, &tagged(TAG, 0, STAT_SN, 1)).unwrap();
    assert_eq!(snacks(&rig.sent(0))[0].2, 1);
    rig.deliver(0, &numbered(&data, 1, 0x80)).unwrap();
    rig.deliver(0, &tagged(TAG, 1, STAT_SN, 2)).unwrap();
    assert_eq!(rig.session.poll_event(), None);
    rig.session.on_timer(0, 5 + TIMEOUT).unwrap();
    let again: Vec<_> = split(&rig.sent(0)).into_iter().filter(|(h, _)| h[0] == 0x10 && h[1] == 0x83).collect();
    assert_eq!(word(&again[0].0, 20), 2, "a tag that is unique for the task");
    rig.deliver(0, &tagged(TAG, 1, STAT_SN, 2)).unwrap();
    rig.deliver(0, &numbered(&data, 0, 0)).unwrap();
    rig.deliver(0, &numbered(&data, 1, 0x80)).unwrap();
    assert_eq!(rig.session.poll_event(), None);
    rig.deliver(0, &tagged(TAG, 2, STAT_SN, 2)).unwrap();
    assert_eq!(rig.ended(), good(0));
}

#[test]
fn an_r2t_is_missing() {
    let params = SessionParams {
        error_recovery_level: 1,
        immediate_data: false,
        data_sequence_in_order: false,
        max_outstanding_r2t: 4,
        ..SessionParams::default()
    };
    let mut rig = with(params);
    let data = pattern(2048);
    rig.write(&data);
    rig.sent(0);
    rig.deliver(0, &r2t(TAG, 0xbb, 1, 1024, 1024)).unwrap();
    let out = rig.sent(0);
    assert_eq!(snacks(&out[..48]), [(0, TAG, 0xffff_ffff, STAT_SN, 0, 1)]);
    assert_eq!(split(&out[48..])[0].1, data[1024..], "what was asked for goes out meanwhile");
    rig.deliver(0, &r2t(TAG, 0xaa, 0, 0, 1024)).unwrap();
    rig.deliver(0, &r2t(TAG, 0xaa, 0, 0, 1024)).unwrap(); // 7.9: discarded
    let out = split(&rig.sent(0));
    assert_eq!((out.len(), word(&out[0].0, 20), &out[0].1[..]), (1, 0xaa, &data[..1024]));
    // a recovery R2T (11.8): the next number, part of what was sent
    rig.deliver(0, &r2t(TAG, 0xcc, 2, 512, 100)).unwrap();
    assert_eq!(split(&rig.sent(0))[0].1, data[512..612]);
    rig.deliver(0, &response(TAG, 0x80, 0, STAT_SN, 0, 0, &[])).unwrap();
    assert_eq!(rig.ended(), good(0));
}

#[test]
fn a_silent_connection_is_asked() {
    let params = SessionParams {
        error_recovery_level: 1,
        immediate_data: false,
        data_sequence_in_order: false,
        ..SessionParams::default()
    };
    let mut rig = with(params);
    rig.write(&pattern(1024));
    rig.sent(0);
    // the first sign of life acknowledges the command
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], 0xffff_ffff, [0xffff_ffff, STAT_SN, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.session.deadline(0), Some(5 + TIMEOUT));
    rig.session.on_timer(0, 5 + TIMEOUT).unwrap();
    let out = split(&rig.sent(0));
    assert_eq!((out.len(), out[0].0[0], word(&out[0].0, 20)), (1, 0x40, 0xffff_ffff), "NOP-Out, immediate");
    let ping = word(&out[0].0, 16);
    rig.now = 5 + TIMEOUT + 1;
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], ping, [0xffff_ffff, STAT_SN, EXP, MAX, 0, 0, 0], &[])).unwrap();
    // no R2T was seen, and nothing else came: it is asked for, once
    assert_eq!(snacks(&rig.sent(0)), [(0, TAG, 0xffff_ffff, STAT_SN + 1, 0, 0)]);
    // that there is none is no harm
    let mut snack = vec![0x10, 0x80];
    snack.extend([0; 14]);
    snack.extend(TAG.to_be_bytes());
    snack.extend([0xff; 4]);
    snack.extend([0; 24]);
    rig.deliver(0, &pdu(0x3f, 0x80, [4, 0], 0xffff_ffff, [0, STAT_SN + 1, EXP, MAX, 0, 0, 0], &snack)).unwrap();
    assert!(rig.sent(0).is_empty());
}

#[test]
fn a_command_that_did_not_arrive_is_sent_again() {
    // 7.2.1: same tag, CmdSN and attributes, same connection; only the one that the target waits for
    let mut rig = level_1();
    rig.read(512);
    let first = rig.sent(0);
    rig.session.on_timer(0, TIMEOUT).unwrap();
    let ping = word(&split(&rig.sent(0))[0].0, 16);
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], ping, [0xffff_ffff, STAT_SN, 0x10, MAX, 0, 0, 0], &[])).unwrap();
    let mut again = rig.sent(0);
    again[28..32].copy_from_slice(&first[28..32]); // ExpStatSN is today's
    let (again, follows) = again.split_at(48);
    assert_eq!(again, first);
    assert_eq!(
        (follows[0], word(&split(follows)[0].0, 24)),
        (0x00, 0x11),
        "10.4: a numbered NOP-Out follows the retry"
    );
    rig.deliver(0, &data_in(TAG, 0x81, STAT_SN + 1, 0, 0, 0, &pattern(512))).unwrap();
    assert_eq!(rig.ended(), good(0));
}

#[test]
fn a_rejected_command_is_retried_or_its_gap_filled() {
    // 7.8: data digest error on a command: the immediate data is recovered when the task is retried
    let mut rig = level_1();
    let data = pattern(1024);
    rig.write(&data);
    let command = rig.sent(0);
    let reject = |reason: u8, stat_sn, exp| {
        pdu(0x3f, 0x80, [reason, 0], 0xffff_ffff, [0, stat_sn, exp, 0x1f, 0, 0, 0], &command[..48])
    };
    rig.deliver(0, &reject(2, STAT_SN, 0x10)).unwrap();
    let again = split(&rig.sent(0));
    assert_eq!((again[0].0[0], word(&again[0].0, 24), &again[0].1), (0x01, 0x10, &data));
    let follows = word(&again[1].0, 16);
    assert_eq!((word(&again[0].0, 16), rig.session.unfinished()), (TAG, 2), "with the NOP-Out that follows");
    rig.session.poll_event();
    // any other reason ends it; the gap MUST be plugged (7.3), here by a NOP-Out with the CmdSN
    rig.deliver(0, &reject(5, STAT_SN + 1, 0x10)).unwrap();
    assert_eq!(rig.ended(), Some(Outcome::Rejected(5)));
    let out = split(&rig.sent(0));
    assert_eq!((out[0].0[0], word(&out[0].0, 24)), (0x00, 0x10), "not immediate");
    let nop = word(&out[0].0, 16);
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], nop, [0xffff_ffff, STAT_SN + 2, EXP, MAX, 0, 0, 0], &[])).unwrap();
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], follows, [0xffff_ffff, STAT_SN + 3, 0x12, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.session.unfinished(), 0);
    assert_eq!(rig.session.numbers(), (0x12, 0x12, 0x20));
}

#[test]
fn a_rejected_snack_ends_the_connection_when_something_is_missing() {
    let mut rig = level_1();
    rig.read(2048);
    rig.sent(0);
    let data = pattern(2048);
    rig.deliver(0, &numbered(&data, 1, 0)).unwrap();
    let snack = rig.sent(0);
    let reject = pdu(0x3f, 0x80, [3, 0], 0xffff_ffff, [0, STAT_SN, EXP, MAX, 0, 0, 0], &snack[..48]);
    let fatal = rig.deliver(0, &reject).unwrap_err();
    assert_eq!(fatal.code, FatalCode::SequenceGap);
    // and is no matter when it came meanwhile
    let mut rig = level_1();
    rig.read(2048);
    rig.sent(0);
    rig.deliver(0, &numbered(&data, 1, 0)).unwrap();
    rig.sent(0);
    rig.deliver(0, &numbered(&data, 0, 0)).unwrap();
    rig.deliver(0, &reject).unwrap();
}
