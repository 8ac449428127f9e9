//! CmdSN over several connections: the window, commands that did not arrive, numbers that died with their connection (RFC 7143
//! 4.2.2.1, 7.2.1, 7.11), byte by byte.

use super::super::{Command, Event, Outcome};
use super::connections::{SECOND, TIMEOUT, connection, logout, params, status, tag, two};
use super::peer::*;
use crate::SessionParams;
use blockwire_wire::{Bhs, Opcode};

#[test]
fn the_window_opens_from_any_connection() {
    // numbers at 2^32: CmdSN starts at 0xfffffffe
    let mut session = super::super::InitiatorSession::new(params(), 0xffff_fffe, 0xffff_fffe, 0xffff_ffff);
    session.add_connection(connection(1, 8192), STAT_SN, 0);
    session.add_connection(connection(2, 8192), SECOND, 0);
    let mut rig = Rig::of(session);
    for _ in 0..4 {
        rig.command(&[0; 6], 0, 0);
    }
    let (first, second) = (rig.sent(0), rig.sent(1));
    assert_eq!((split(&first).len(), split(&second).len()), (1, 1), "MaxCmdSN is 0xffffffff");
    // what one connection says counts for all; an older word on the other takes nothing back (4.2.2.1)
    rig.deliver(1, &pdu(0x21, 0x80, [0, 0], tag(&second, 0), [0, SECOND, 0, 1, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.ended(), good(0));
    let older = pdu(0x20, 0x80, [0, 0], 0xffff_ffff, [0xffff_ffff, STAT_SN, 0xffff_fffe, 0xffff_ffff, 0, 0, 0], &[]);
    rig.deliver(0, &older).unwrap();
    assert_eq!(rig.session.numbers(), (2, 0, 1));
    let numbers: Vec<u32> =
        [rig.sent(0), rig.sent(1)].iter().flat_map(|o| split(o)).map(|(h, _)| word(&h, 24)).collect();
    assert_eq!(numbers.len(), 2);
    assert!(numbers.contains(&0) && numbers.contains(&1));
}

#[test]
fn a_retry_stays_on_its_connection() {
    // 7.2.1: MUST be sent on the same connection as the original
    let mut rig = two();
    let command = |conn| Command {
        lun: 0,
        cdb: &[0; 6],
        attribute: 1,
        immediate: false,
        write_len: 0,
        read_len: 0,
        conn: Some(conn),
        context: 77,
    };
    rig.session.submit(&command(1)).unwrap();
    rig.session.submit(&command(0)).unwrap();
    let lost = rig.sent(1);
    rig.sent(0);
    // the other connection learns of the gap first, and leaves it alone
    for (conn, stat_sn) in [(0, STAT_SN), (1, SECOND)] {
        rig.session.on_timer(conn, TIMEOUT).unwrap();
        let ping = tag(&rig.sent(conn), 0);
        let answer = pdu(0x20, 0x80, [0, 0], ping, [0xffff_ffff, stat_sn, 0x10, MAX, 0, 0, 0], &[]);
        rig.deliver(conn, &answer).unwrap();
        let mut again = rig.sent(conn);
        if conn == 1 {
            again[28..32].copy_from_slice(&lost[28..32]);
            assert_eq!(again[..48], lost);
            assert_eq!(split(&again[48..]).len(), 1, "10.4: one numbered request follows it");
        } else {
            assert!(again.is_empty());
        }
    }
}

#[test]
fn several_numbers_are_filled_in_at_once() {
    // level 1 with two connections: tasks of a lost one end, and their numbers would stay open
    let params = SessionParams { error_recovery_level: 1, ..params() };
    let mut rig = Rig::new(params, connection(1, 8192));
    rig.session.set_recovery_timeout(TIMEOUT);
    for _ in 0..3 {
        rig.command(&[0; 6], 0, 0);
    }
    rig.sent(0);
    rig.session.add_connection(connection(2, 8192), SECOND, 0);
    rig.session.lose_connection(0, false);
    for _ in 0..3 {
        assert_eq!(rig.ended(), Some(Outcome::ConnectionLost));
    }
    // nothing is open here, and still the gap is looked after
    assert_eq!(rig.session.deadline(1), Some(TIMEOUT));
    rig.session.on_timer(1, TIMEOUT).unwrap();
    let ping = tag(&rig.sent(1), 1); // the first was sent when the connection was lost
    // one of the three had come
    rig.deliver(1, &pdu(0x20, 0x80, [0, 0], ping, [0xffff_ffff, SECOND, EXP, MAX, 0, 0, 0], &[])).unwrap();
    let out = split(&rig.sent(1));
    let numbers: Vec<(u8, u32)> = out.iter().map(|(h, _)| (h[0], word(h, 24))).collect();
    assert_eq!(numbers, [(0, 0x11), (0, 0x12), (0, 0x13)], "the last is new: 10.4");
    // the second had come as well by now: its NOP-Out is a duplicate to the target, and is not answered
    let first = word(&out[0].0, 16);
    rig.deliver(1, &pdu(0x20, 0x80, [0, 0], first, [0xffff_ffff, SECOND + 1, 0x13, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.session.unfinished(), 2);
    let last = word(&out[2].0, 16);
    rig.deliver(1, &pdu(0x20, 0x80, [0, 0], last, [0xffff_ffff, SECOND + 2, 0x14, MAX, 0, 0, 0], &[])).unwrap();
    rig.session.on_timer(1, 5 + TIMEOUT).unwrap();
    let ping = tag(&rig.sent(1), 0);
    rig.deliver(1, &pdu(0x20, 0x80, [0, 0], ping, [0xffff_ffff, SECOND + 3, 0x14, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.session.unfinished(), 0);
    assert_eq!(rig.session.deadline(1), None);
}

#[test]
fn a_number_that_died_with_its_connection_is_filled_in() {
    let mut rig = two();
    let mut text = Bhs::new(Opcode::TextRequest, 0x80);
    text.set_target_transfer_tag(0xffff_ffff);
    rig.session.submit_control(Some(0), &text, b"SendTargets=All\0", 5).unwrap();
    assert_eq!(word(&split(&rig.sent(0))[0].0, 24), 0x10);
    rig.session.lose_connection(0, true);
    assert_eq!(rig.session.poll_event(), Some(Event::ControlLost { context: 5 }));
    // a later command on the other connection waits at the target, which is asked what it lacks
    rig.command(&[0; 6], 0, 0);
    let out = rig.sent(1);
    assert_eq!(split(&out).iter().map(|pdu| pdu.0[0]).collect::<Vec<_>>(), [0x40, 0x01]);
    let (ping, waits) = (tag(&out, 0), tag(&out, 1));
    rig.session.submit_control(Some(1), &logout(2, 1), &[], 6).unwrap();
    let request = tag(&rig.sent(1), 0);
    rig.deliver(1, &pdu(0x26, 0x80, [0, 0], request, [0, SECOND, 0x10, MAX, 0, 0, 0], &[])).unwrap();
    rig.session.poll_event();
    let out = split(&rig.sent(1));
    assert_eq!((out.len(), out[0].0[0], word(&out[0].0, 24)), (1, 0x00, 0x10), "NOP-Out with the lost CmdSN");
    let nop = word(&out[0].0, 16);
    rig.deliver(1, &pdu(0x20, 0x80, [0, 0], nop, [0xffff_ffff, SECOND + 1, 0x12, MAX, 0, 0, 0], &[])).unwrap();
    rig.deliver(1, &status(waits, SECOND + 2, 0x12, 0)).unwrap();
    assert_eq!(rig.ended(), good(0));
    rig.deliver(1, &pdu(0x20, 0x80, [0, 0], ping, [0xffff_ffff, SECOND + 3, 0x12, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.session.unfinished(), 0);
}
