//! What follows a command retry (RFC 7143 4.2.2.1, 10.4).

use super::super::{Command, InitiatorSession};
use super::peer::*;
use crate::{ConnectionParams, SessionParams};

const TAG: u32 = 0x0001_0000;
const TIMEOUT: u64 = 1000;

fn rig() -> Rig {
    let session = SessionParams { error_recovery_level: 1, ..SessionParams::default() };
    let mut rig = Rig::new(session, ConnectionParams::default());
    rig.session.set_recovery_timeout(TIMEOUT);
    rig
}

/// The target says to a ping that it still waits for CmdSN 0x10.
fn retried(rig: &mut Rig, max: u32) -> Vec<([u8; 48], Vec<u8>)> {
    rig.session.on_timer(0, TIMEOUT).unwrap();
    let ping = word(&split(&rig.sent(0))[0].0, 16);
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], ping, [0xffff_ffff, STAT_SN, 0x10, max, 0, 0, 0], &[])).unwrap();
    split(&rig.sent(0))
}

#[test]
fn a_new_numbered_request_follows_it_on_its_connection() {
    // CmdSN MUST NOT get 2^31 past that of the retry unless such a request is acknowledged; it goes out at once
    let mut rig = rig();
    rig.read(512);
    rig.sent(0);
    let sent = retried(&mut rig, 0x1f);
    let seen: Vec<(u8, u32)> = sent.iter().map(|(h, _)| (h[0], word(h, 24))).collect();
    assert_eq!(seen, [(0x01, 0x10), (0x00, 0x11)], "the retry, then a NOP-Out that is not immediate");
    assert_eq!(word(&sent[0].0, 16), TAG);
    // its answer is nobody's business
    let nop = word(&sent[1].0, 16);
    rig.deliver(0, &data_in(TAG, 0x81, STAT_SN + 1, 0, 0, 0, &pattern(512))).unwrap();
    assert_eq!(rig.ended(), good(0));
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], nop, [0xffff_ffff, STAT_SN + 2, 0x12, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.session.poll_event(), None);
    assert_eq!(rig.session.unfinished(), 0);
}

#[test]
fn a_closed_window_delays_it_before_anything_else_gets_a_number() {
    let mut rig = rig();
    for _ in 0..16 {
        rig.read(512);
    }
    rig.sent(0);
    let waiting = rig.read(512);
    let sent = retried(&mut rig, 0x1f);
    assert_eq!(sent.len(), 1, "the window is closed");
    // the window opens by two: what waited before it goes first, then the NOP-Out, and nothing overtakes it
    rig.read(512);
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], 0xffff_ffff, [0xffff_ffff, STAT_SN + 1, 0x11, 0x21, 0, 0, 0], &[]))
        .unwrap();
    let seen: Vec<(u8, u32)> = split(&rig.sent(0)).iter().map(|(h, _)| (h[0], word(h, 24))).collect();
    assert_eq!(seen, [(0x01, 0x20), (0x00, 0x21)]);
    assert!(rig.memory.contains_key(&waiting));
}

#[test]
fn it_is_sent_as_soon_as_a_tag_is_free() {
    let mut rig = rig();
    rig.read(512);
    let first = rig.sent(0);
    let command = Command {
        lun: 0,
        cdb: &[0; 6],
        attribute: 1,
        immediate: false,
        write_len: 0,
        read_len: 0,
        conn: None,
        context: 77,
    };
    while rig.session.submit(&command).is_ok() {}
    let second = word(&split(&rig.sent(0))[0].0, 16);
    let requests = |session: &InitiatorSession| {
        let mut control = 0;
        session.look(|task| control += u32::from(task.control));
        control
    };
    // Reject, data digest error: the command is sent again, and all 65,536 tags are in use
    let reject = pdu(0x3f, 0x80, [2, 0], 0xffff_ffff, [0, STAT_SN, 0x10, 0x1f, 0, 0, 0], &first[..48]);
    rig.deliver(0, &reject).unwrap();
    assert_eq!((split(&rig.sent(0)).len(), requests(&rig.session)), (1, 0));
    rig.session.poll_event();
    // one of the commands ends: with the next PDU the NOP-Out is there, and waits for the window like everything else
    rig.deliver(0, &response(second, 0x80, 0, STAT_SN + 1, 0, 0, &[])).unwrap();
    assert_eq!(rig.ended(), good(0));
    let numbers = pdu(0x20, 0x80, [0, 0], 0xffff_ffff, [0xffff_ffff, STAT_SN + 2, 0x12, 0x1f, 0, 0, 0], &[]);
    rig.deliver(0, &numbers).unwrap();
    assert_eq!(requests(&rig.session), 1);
}

#[test]
fn the_answer_to_an_earlier_ping_says_nothing_of_what_was_sent_after_it() {
    // two pings are out, a command between them: the answer to the first tells that the target had not got the command then
    let mut rig = rig();
    rig.read(512);
    rig.sent(0);
    rig.session.on_timer(0, TIMEOUT).unwrap();
    let first = word(&split(&rig.sent(0))[0].0, 16);
    // its own command came
    rig.deliver(0, &data_in(TAG, 0, 0, 0, 0, 0, &pattern(8))).unwrap();
    rig.read(512);
    rig.session.on_timer(0, 10 * TIMEOUT).unwrap();
    let second = word(&split(&rig.sent(0))[1].0, 16);
    let answer = |ping, exp| pdu(0x20, 0x80, [0, 0], ping, [0xffff_ffff, STAT_SN, exp, MAX, 0, 0, 0], &[]);
    rig.deliver(0, &answer(first, 0x11)).unwrap();
    let sent = split(&rig.sent(0));
    assert!(sent.iter().all(|(h, _)| h[0] != 0x01), "nothing is sent again");
    // the answer to the second tells that it was lost
    let mut lost = answer(second, 0x11);
    lost[24..28].copy_from_slice(&(STAT_SN + 1).to_be_bytes());
    rig.deliver(0, &lost).unwrap();
    assert_eq!(split(&rig.sent(0))[0].0[0], 0x01);
}
