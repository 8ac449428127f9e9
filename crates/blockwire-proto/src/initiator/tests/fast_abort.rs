//! Data-Out around functions that end several tasks, under both semantics (RFC 7143 4.2.3.3, 4.2.3.4).

use blockwire_wire::{Bhs, Opcode};

use super::super::{Command, Event, Outcome};
use super::peer::*;
use crate::{ConnectionParams, SessionParams, Slot};

const LUN: u64 = 0x0003_0000_0000_0000;

/// Headers and data of what was sent.
type Sent = Vec<([u8; 48], Vec<u8>)>;

const OTHER: u64 = 0x0004_0000_0000_0000;

fn params(fast_abort: bool) -> SessionParams {
    SessionParams { fast_abort, immediate_data: false, max_outstanding_r2t: 4, ..SessionParams::default() }
}

fn write(rig: &mut Rig, lun: u64, data: &[u8]) -> Slot {
    let write_len = data.len() as u32;
    let command = Command {
        lun,
        cdb: &[0x2a; 10],
        attribute: 1,
        immediate: false,
        write_len,
        read_len: 0,
        conn: Some(0),
        context: 77,
    };
    let slot = rig.session.submit(&command).unwrap();
    rig.memory.insert(slot, data.to_vec());
    slot
}

/// ABORT TASK SET is 2, LOGICAL UNIT RESET 5, TARGET WARM RESET 6 (11.5.1). Gives the tag of the request.
fn manage(rig: &mut Rig, function: u8, lun: u64) -> (u32, Sent) {
    let mut request = Bhs::new(Opcode::TaskManagementRequest, 0x80 | function);
    request.set_immediate();
    request.set_lun(lun);
    request.set_referenced_task_tag(0xffff_ffff);
    rig.session.submit_control(Some(0), &request, &[], 9).unwrap();
    let mut sent = split(&rig.sent(0));
    let at = sent.iter().position(|(h, _)| h[0] == 0x42).expect("the function");
    let tag = word(&sent[at].0, 16);
    let after = sent.split_off(at + 1);
    (tag, after)
}

fn asks(lun: u64, tag: u32, ttt: u32, number: u32, offset: u32, length: u32) -> Vec<u8> {
    let mut pdu = r2t(tag, ttt, number, offset, length);
    pdu[8..16].copy_from_slice(&lun.to_be_bytes());
    pdu
}

fn answer(tag: u32, response: u8) -> Vec<u8> {
    pdu(0x22, 0x80, [response, 0], tag, [0, STAT_SN, 0x11, 0x20, 0, 0, 0], &[])
}

/// Target Transfer Tags of the Data-Outs.
fn data(sent: &Sent) -> Vec<u32> {
    let mut tags: Vec<u32> = sent.iter().filter(|(h, _)| h[0] == 5).map(|(h, _)| word(h, 20)).collect();
    tags.dedup();
    tags
}

#[test]
fn every_transfer_tag_is_answered_until_the_function_is() {
    // 4.2.3.3 a
    let mut rig = Rig::new(params(false), ConnectionParams::default());
    write(&mut rig, LUN, &pattern(40_000));
    rig.sent(0);
    rig.deliver(0, &asks(LUN, 0x0001_0000, 0xa, 0, 0, 10_000)).unwrap();
    let (_, after) = manage(&mut rig, 2, LUN);
    assert_eq!(data(&after), [0xa]);
    rig.deliver(0, &asks(LUN, 0x0001_0000, 0xb, 1, 10_000, 10_000)).unwrap();
    let sent = split(&rig.sent(0));
    assert_eq!(data(&sent), [0xb], "asked for after the function was sent");
    let bytes: usize = sent.iter().map(|(_, d)| d.len()).sum();
    assert_eq!((bytes, sent.last().unwrap().0[1]), (10_000, 0x80), "to the end of the sequence");
}

#[test]
fn no_data_of_affected_tasks_follows_the_function_under_fast_abort() {
    // 4.2.3.4 a
    for (function, affects_other) in [(2, false), (5, false), (6, true)] {
        let mut rig = Rig::new(params(true), ConnectionParams::default());
        write(&mut rig, LUN, &pattern(400_000));
        write(&mut rig, OTHER, &pattern(40_000));
        rig.sent(0);
        // 400,000 bytes: more than the queue takes at a time, so that part of the sequence is still to be made
        rig.deliver(0, &asks(LUN, 0x0001_0000, 0xa, 0, 0, 262_144)).unwrap();
        rig.deliver(0, &asks(OTHER, 0x0001_0001, 0xb, 0, 0, 10_000)).unwrap();
        let (request, after) = manage(&mut rig, function, LUN);
        let expected: &[u32] = if affects_other { &[] } else { &[0xb] };
        assert_eq!(data(&after), expected, "function {function}");
        // and neither for what is asked from here on
        rig.deliver(0, &asks(LUN, 0x0001_0000, 0xc, 1, 262_144, 10_000)).unwrap();
        assert!(data(&split(&rig.sent(0))).is_empty());
        // a command behind the function is none of its business
        write(&mut rig, LUN, &pattern(512));
        let tag = word(&split(&rig.sent(0))[0].0, 16);
        rig.deliver(0, &asks(LUN, tag, 0xd, 0, 0, 512)).unwrap();
        assert_eq!(data(&split(&rig.sent(0))), [0xd]);
        rig.deliver(0, &answer(request, 0)).unwrap();
        let mut ended = 0;
        while let Some(event) = rig.session.poll_event() {
            ended += u32::from(matches!(event, Event::TaskEnded { outcome: Outcome::Aborted, .. }));
        }
        assert_eq!(ended, if affects_other { 2 } else { 1 });
        assert!(data(&split(&rig.sent(0))).is_empty());
    }
}

#[test]
fn data_goes_on_when_the_function_is_refused() {
    let mut rig = Rig::new(params(true), ConnectionParams::default());
    let bytes = pattern(300_000);
    write(&mut rig, LUN, &bytes);
    rig.sent(0);
    rig.deliver(0, &asks(LUN, 0x0001_0000, 0xa, 0, 0, 262_144)).unwrap();
    // part of it is on its way when the function is sent
    let first = rig.session_sends(0);
    assert!(first.len() > 10);
    let mut request = Bhs::new(Opcode::TaskManagementRequest, 0x82);
    request.set_immediate();
    request.set_lun(LUN);
    rig.session.submit_control(Some(0), &request, &[], 9).unwrap();
    let mut sent = first;
    let behind = split(&rig.sent(0));
    assert_eq!((behind.len(), behind[0].0[0]), (1, 0x42), "and none follows it");
    let tag = word(&behind[0].0, 16);
    rig.deliver(0, &asks(LUN, 0x0001_0000, 0xb, 1, 262_144, 300_000 - 262_144)).unwrap();
    assert!(rig.sent(0).is_empty());
    // 255: function rejected
    rig.deliver(0, &answer(tag, 255)).unwrap();
    sent.extend(split(&rig.sent(0)));
    let all: Vec<u8> = sent.iter().filter(|(h, _)| h[0] == 5).flat_map(|(_, d)| d.clone()).collect();
    assert_eq!(data(&sent), [0xa, 0xb]);
    assert!(all == bytes, "nothing is missing or twice");
}

#[test]
fn unsolicited_data_keeps_its_order_when_the_function_is_refused() {
    // 4.2.5.2: what is put by is not overtaken by the unsolicited data of a later command
    let session =
        SessionParams { initial_r2t: false, first_burst_length: 600_000, max_burst_length: 600_000, ..params(true) };
    let mut rig = Rig::new(session, ConnectionParams::default());
    write(&mut rig, LUN, &pattern(600_000));
    let mut request = Bhs::new(Opcode::TaskManagementRequest, 0x82);
    request.set_immediate();
    request.set_lun(LUN);
    let first = rig.session_sends(0);
    rig.session.submit_control(Some(0), &request, &[], 9).unwrap();
    write(&mut rig, OTHER, &pattern(9000));
    let mut sent = first;
    sent.extend(split(&rig.sent(0)));
    let tag = sent.iter().find(|(h, _)| h[0] == 0x42).map(|(h, _)| word(h, 16)).unwrap();
    assert!(sent.iter().all(|(h, _)| h[0] != 5 || word(h, 16) == 0x0001_0000), "the later one waits");
    rig.deliver(0, &answer(tag, 255)).unwrap();
    sent.extend(split(&rig.sent(0)));
    let mut order: Vec<u32> = sent.iter().filter(|(h, _)| h[0] == 5).map(|(h, _)| word(h, 16)).collect();
    let total: usize = sent.iter().filter(|(h, _)| h[0] == 5).map(|(_, d)| d.len()).sum();
    assert_eq!(total, 609_000);
    order.dedup();
    assert_eq!(order.len(), 2);
    assert_eq!(order[0], 0x0001_0000);
}
