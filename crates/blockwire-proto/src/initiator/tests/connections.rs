//! Several connections and what survives one of them: RFC 7143 4.2.2, 7.2, 11.5.1, 11.14, byte by byte.

use super::super::{Command, Event, Outcome};
use super::peer::*;
use crate::{ConnectionParams, Quirks, SessionParams};
use blockwire_wire::{Bhs, Opcode};

pub const TIMEOUT: u64 = 1000;
/// First StatSN of the second and third connection: each has its own (4.2.2.2).
pub const SECOND: u32 = 0x500;
const THIRD: u32 = 0xffff_ffff;

pub fn params() -> SessionParams {
    SessionParams {
        error_recovery_level: 2,
        immediate_data: false,
        data_sequence_in_order: false,
        max_outstanding_r2t: 4,
        ..SessionParams::default()
    }
}

pub fn connection(cid: u16, segment: u32) -> ConnectionParams {
    ConnectionParams {
        cid,
        max_recv_data_segment_length: segment,
        max_send_data_segment_length: segment,
        ..ConnectionParams::default()
    }
}

fn rig() -> Rig {
    let mut rig = Rig::new(params(), connection(1, 8192));
    rig.session.set_recovery_timeout(TIMEOUT);
    rig
}

pub fn two() -> Rig {
    let mut rig = rig();
    assert_eq!(rig.session.add_connection(connection(2, 1024), SECOND, 0), 1);
    rig
}

pub fn tag(bytes: &[u8], at: usize) -> u32 {
    word(&split(bytes)[at].0, 16)
}

/// Task Management Function Response (11.6).
fn managed(request: u32, response: u8, stat_sn: u32, exp: u32) -> Vec<u8> {
    pdu(0x22, 0x80, [response, 0], request, [0, stat_sn, exp, MAX, 0, 0, 0], &[])
}

pub fn status(tag: u32, stat_sn: u32, exp: u32, exp_data_sn: u32) -> Vec<u8> {
    pdu(0x21, 0x80, [0, 0], tag, [0, stat_sn, exp, MAX, exp_data_sn, 0, 0], &[])
}

pub fn logout(reason: u8, cid: u16) -> Bhs {
    let mut bhs = Bhs::new(Opcode::LogoutRequest, 0x80 | reason);
    bhs.set_immediate();
    bhs.0[20..22].copy_from_slice(&cid.to_be_bytes());
    bhs
}

/// The TASK REASSIGN at `at` of what was sent: its tag, the task's, ExpDataSN.
fn reassign(bytes: &[u8], at: usize) -> (u32, u32, u32) {
    let header = &split(bytes)[at].0;
    // 11.5.1: MUST be issued as an immediate command; function 8
    assert_eq!(header[..2], [0x42, 0x88]);
    (word(header, 16), word(header, 20), word(header, 36))
}

#[test]
fn a_logout_for_another_connection_leaves_its_carrier_open() {
    let mut rig = two();
    let slot = rig.read(512);
    let task = tag(&rig.sent(0), 0);
    rig.session.lose_connection(0, true);
    rig.session.submit_control(Some(1), &logout(2, 1), &[], 5).unwrap();
    let out = rig.sent(1);
    assert_eq!((out[0], out[1], &out[20..22]), (0x46, 0x82, &[0, 1][..]));
    let request = tag(&out, 0);
    rig.deliver(1, &pdu(0x26, 0x80, [0, 0], request, [0, SECOND, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert!(matches!(rig.session.poll_event(), Some(Event::Control { context: 5, .. })));
    // the carrier goes on, and takes the task over
    assert!(rig.session.rebind(slot, 1));
    let (request, referenced, number) = reassign(&rig.sent(1), 0);
    assert_eq!((referenced, number), (task, 0));
    rig.deliver(1, &managed(request, 0, SECOND + 1, EXP)).unwrap();
    rig.deliver(1, &data_in(task, 0x81, SECOND + 2, 0, 0, 0, &pattern(512))).unwrap();
    assert_eq!(rig.ended(), good(0));
    rig.command(&[0; 6], 0, 0);
    assert!(!rig.sent(1).is_empty());
}

#[test]
fn closing_ends_tasks_and_recovery_keeps_them() {
    for (reason, kept) in [(1, false), (2, true)] {
        let mut rig = two();
        let command = Command {
            lun: 0,
            cdb: &[0; 6],
            attribute: 1,
            immediate: false,
            write_len: 0,
            read_len: 0,
            conn: Some(0),
            context: 77,
        };
        rig.session.submit(&command).unwrap();
        rig.sent(0);
        rig.session.submit_control(Some(0), &logout(reason, 1), &[], 5).unwrap();
        assert!(rig.session.submit(&command).is_err(), "11.14: no new request on a connection that is closing");
        let request = tag(&rig.sent(0), 0);
        rig.deliver(0, &pdu(0x26, 0x80, [0, 0], request, [0, STAT_SN, EXP, MAX, 0, 0, 0], &[])).unwrap();
        assert!(matches!(rig.session.poll_event(), Some(Event::Control { context: 5, .. })));
        rig.session.lose_connection(0, true);
        if kept {
            assert_eq!(rig.session.frozen(Some(1)).len(), 1);
        } else {
            assert_eq!(rig.ended(), Some(Outcome::ConnectionLost));
        }
    }
}

#[test]
fn a_connection_whose_logout_was_refused_goes_on() {
    // 11.15.1: CID not found, recovery not supported, cleanup failed
    for response in 1..=3 {
        let mut rig = rig();
        rig.session.submit_control(Some(0), &logout(2, 1), &[], 5).unwrap();
        rig.command(&[0; 6], 0, 0);
        let out = rig.sent(0);
        assert_eq!(split(&out).len(), 1, "nothing follows it");
        let request = tag(&out, 0);
        rig.deliver(0, &pdu(0x26, 0x80, [response, 0], request, [0, STAT_SN, 0x10, 0x1f, 0, 0, 0], &[])).unwrap();
        assert_eq!(rig.sent(0)[0], 0x01, "response {response}: what waited starts, although the window is as it was");
    }
}

#[test]
fn reassignment_acknowledges_only_what_came_without_holes() {
    // 11.5.6: data beyond ExpDataSN MUST be discarded, and comes again
    let mut rig = rig();
    let slot = rig.read(4096);
    let task = tag(&rig.sent(0), 0);
    let data = pattern(4096);
    for number in [0usize, 1, 3, 4] {
        let at = number * 512;
        rig.deliver(0, &data_in(task, 0, 0, number as u32, at as u32, 0, &data[at..at + 512])).unwrap();
    }
    rig.session.lose_connection(0, true);
    assert_eq!(rig.session.received_prefix(slot), 1024);
    rig.session.add_connection(connection(1, 1024), THIRD, 0);
    rig.session.rebind(slot, 0);
    let (request, _, number) = reassign(&rig.sent(0), 0);
    assert_eq!(number, 2);
    rig.deliver(0, &managed(request, 0, THIRD, EXP)).unwrap();
    // one of the new ones is lost as well: SNACK on the new connection, for a number at or above ExpDataSN (7.2.2)
    let cut = |number: u32| {
        let at = 1024 + (number as usize - 2) * 1024;
        let flags = if number == 4 { 0x81 } else { 0 };
        data_in(task, flags, 0, number, at as u32, 0, &data[at..at + 1024])
    };
    rig.deliver(0, &cut(3)).unwrap();
    let out = split(&rig.sent(0));
    assert_eq!((out[0].0[0], word(&out[0].0, 40), word(&out[0].0, 44)), (0x10, 2, 1));
    rig.deliver(0, &cut(4)).unwrap();
    assert_eq!(rig.session.poll_event(), None);
    rig.deliver(0, &cut(2)).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!((rig.memory[&slot].clone(), rig.session.exp_stat_sn(0)), (data, Some(1)));
}

#[test]
fn all_of_the_data_again_is_fine_too() {
    // 7.2.2: "targets may choose to send all of the data on a reassignment"
    let mut rig = rig();
    let slot = rig.read(2048);
    let task = tag(&rig.sent(0), 0);
    let data = pattern(2048);
    rig.deliver(0, &data_in(task, 0, 0, 0, 0, 0, &data[..512])).unwrap();
    rig.deliver(0, &data_in(task, 0, 0, 1, 512, 0, &data[512..1024])).unwrap();
    rig.session.lose_connection(0, true);
    rig.session.add_connection(connection(2, 1024), SECOND, 0);
    rig.session.rebind(slot, 0);
    let (request, ..) = reassign(&rig.sent(0), 0);
    rig.deliver(0, &managed(request, 0, SECOND, EXP)).unwrap();
    rig.deliver(0, &data_in(task, 0, 0, 0, 0, 0, &data[..1024])).unwrap();
    rig.deliver(0, &data_in(task, 0x81, SECOND + 1, 1, 1024, 0, &data[1024..])).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.memory[&slot], data);
}

#[test]
fn the_response_to_a_reassignment_is_lost() {
    let mut rig = rig();
    let slot = rig.read(1024);
    let task = tag(&rig.sent(0), 0);
    let data = pattern(1024);
    rig.session.lose_connection(0, true);
    rig.session.add_connection(connection(2, 8192), SECOND, 0);
    rig.session.rebind(slot, 0);
    let (request, ..) = reassign(&rig.sent(0), 0);
    // data of a task that is not known to be here yet is not taken; the status tells of the gap
    rig.deliver(0, &data_in(task, 0, 0, 0, 0, 0, &data[..512])).unwrap();
    rig.deliver(0, &data_in(task, 0x81, SECOND + 1, 1, 512, 0, &data[512..])).unwrap();
    let out = split(&rig.sent(0));
    assert_eq!((out[0].0[..2].to_vec(), word(&out[0].0, 40), word(&out[0].0, 44)), (vec![0x10, 0x81], SECOND, 1));
    rig.deliver(0, &managed(request, 0, SECOND, EXP)).unwrap();
    let out = split(&rig.sent(0));
    assert_eq!((out[0].0[..2].to_vec(), word(&out[0].0, 40), word(&out[0].0, 44)), (vec![0x10, 0x80], 0, 2));
    rig.deliver(0, &data_in(task, 0, 0, 0, 0, 0, &data[..512])).unwrap();
    rig.deliver(0, &data_in(task, 0x81, SECOND + 1, 1, 512, 0, &data[512..])).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!((rig.memory[&slot].clone(), rig.session.exp_stat_sn(0)), (data, Some(SECOND + 2)));
}

#[test]
fn the_request_for_a_reassignment_is_lost() {
    let mut rig = rig();
    let slot = rig.read(512);
    let task = tag(&rig.sent(0), 0);
    rig.session.lose_connection(0, true);
    rig.session.add_connection(connection(2, 8192), SECOND, 0);
    rig.session.rebind(slot, 0);
    let first = reassign(&rig.sent(0), 0);
    rig.session.on_timer(0, TIMEOUT).unwrap();
    let ping = tag(&rig.sent(0), 0);
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], ping, [0xffff_ffff, SECOND, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(reassign(&rig.sent(0), 0), first);
    rig.deliver(0, &managed(first.0, 0, SECOND + 1, EXP)).unwrap();
    rig.deliver(0, &data_in(task, 0x81, SECOND + 2, 0, 0, 0, &pattern(512))).unwrap();
    assert_eq!(rig.ended(), good(0));
}

#[test]
fn a_half_sent_write_goes_on_twice() {
    let params = SessionParams { initial_r2t: false, immediate_data: true, first_burst_length: 2048, ..params() };
    let mut rig = Rig::new(params, connection(1, 1024));
    let data = pattern(6000);
    let slot = rig.write(&data);
    // command, immediate data, and the first bytes of the unsolicited rest
    use crate::Endpoint as _;
    let mut gone = Vec::new();
    rig.session.send_queue(0).sent(48 + 1024 + 100, |pdu| gone.push(pdu.slot));
    for slot in gone.into_iter().flatten() {
        rig.session.payload_sent(slot);
    }
    rig.session.lose_connection(0, true);
    rig.session.add_connection(connection(2, 512), SECOND, 0);
    rig.session.rebind(slot, 0);
    let (request, task, number) = reassign(&rig.sent(0), 0);
    assert_eq!(number, 0, "11.5.6: of reads and bidirectional commands only");
    let mut bytes = managed(request, 0, SECOND, EXP);
    bytes.extend(r2t(task, 0x71, 0, 1024, 1024));
    bytes.extend(r2t(task, 0x72, 1, 2048, 3952));
    rig.deliver(0, &bytes).unwrap();
    let out = split(&rig.sent(0));
    assert!(out.iter().all(|(_, d)| d.len() <= 512));
    let sent: Vec<u8> = out.into_iter().flat_map(|(_, d)| d).collect();
    assert_eq!(sent, data[1024..]);
    // lost again, with the numbers of R2Ts that never came (7.2.2)
    rig.session.lose_connection(0, true);
    rig.session.add_connection(connection(3, 4096), THIRD, 0);
    rig.session.rebind(slot, 0);
    let (request, ..) = reassign(&rig.sent(0), 0);
    let mut bytes = managed(request, 0, THIRD, EXP);
    bytes.extend(r2t(task, 0x73, 5, 3000, 3000));
    rig.deliver(0, &bytes).unwrap();
    let sent: Vec<u8> = split(&rig.sent(0)).into_iter().flat_map(|(_, d)| d).collect();
    assert_eq!(sent, data[3000..]);
    rig.deliver(0, &status(task, 0, EXP, 0)).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.session.recovery_counters().reassigned, 2);
}

#[test]
fn only_the_status_was_lost() {
    let mut rig = two();
    let slot = rig.read(512);
    let task = tag(&rig.sent(0), 0);
    rig.deliver(0, &data_in(task, 0x80, 0, 0, 0, 0, &pattern(512))).unwrap();
    rig.session.lose_connection(0, true);
    rig.session.rebind(slot, 1);
    let (request, _, number) = reassign(&rig.sent(1), 0);
    assert_eq!(number, 1);
    rig.deliver(1, &managed(request, 0, SECOND, EXP)).unwrap();
    // 7.2.2: the status PDU MUST come again; no data does
    rig.deliver(1, &status(task, SECOND + 1, EXP, 1)).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.memory[&slot], pattern(512));
}

#[test]
fn a_snack_tag_does_not_outlive_its_connection() {
    // 7.2.2: any SNACK Tag is deleted, and 0 MUST be used instead
    let mut rig = rig();
    let slot = rig.read(1024);
    let task = tag(&rig.sent(0), 0);
    let data = pattern(1024);
    rig.session.set_max_recv_data_segment_length(0, 512);
    rig.deliver(0, &data_in(task, 0, 0, 1, 512, 0, &data[512..])).unwrap();
    assert_eq!(split(&rig.sent(0))[0].0[1], 0x83, "R-Data");
    rig.session.lose_connection(0, true);
    rig.session.add_connection(connection(2, 8192), SECOND, 0);
    rig.session.rebind(slot, 0);
    let (request, _, number) = reassign(&rig.sent(0), 0);
    assert_eq!(number, 0);
    rig.deliver(0, &managed(request, 0, SECOND, EXP)).unwrap();
    rig.deliver(0, &data_in(task, 0x80, 0, 0, 0, 0, &data)).unwrap();
    rig.deliver(0, &status(task, SECOND + 1, EXP, 1)).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.memory[&slot], data);
}

#[test]
fn a_bidirectional_command_with_a_long_cdb_is_reassigned() {
    let mut rig = rig();
    let mut cdb = vec![0x7f; 32];
    cdb[31] = 0xee;
    let slot = rig.command(&cdb, 512, 1024);
    rig.memory.insert(slot, pattern(1024));
    let out = rig.sent(0);
    assert_eq!(out[48..52], [0, 17, 1, 0]);
    let task = u32::from_be_bytes([out[16], out[17], out[18], out[19]]);
    // R2TSN 0, DataSN 1 share the numbering (4.2.2.4); DataSN 2 is lost with the connection
    rig.deliver(0, &r2t(task, 0x70, 0, 0, 512)).unwrap();
    assert_eq!(split(&rig.sent(0))[0].1, pattern(1024)[..512]);
    let data = pattern(1024).into_iter().map(|b| b ^ 0x55).collect::<Vec<u8>>();
    rig.deliver(0, &data_in(task, 0, 0, 1, 0, 0, &data[..512])).unwrap();
    rig.session.lose_connection(0, true);
    rig.session.add_connection(connection(2, 8192), SECOND, 0);
    rig.session.rebind(slot, 0);
    let (request, _, number) = reassign(&rig.sent(0), 0);
    assert_eq!(number, 2);
    rig.deliver(0, &managed(request, 0, SECOND, EXP)).unwrap();
    rig.deliver(0, &data_in(task, 0x80, 0, 2, 512, 0, &data[512..])).unwrap();
    rig.deliver(0, &status(task, SECOND + 1, EXP, 2)).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.memory[&slot], data);
}

#[test]
fn a_lost_piece_of_a_bidirectional_command() {
    // 11.4.8 counts Data-In only, the numbers are shared
    let params = SessionParams { error_recovery_level: 1, ..params() };
    let mut rig = Rig::new(params, connection(1, 8192));
    let slot = rig.command(&[0x7f; 32], 512, 1024);
    rig.memory.insert(slot, vec![0; 1024]);
    let out = rig.sent(0);
    let task = u32::from_be_bytes([out[16], out[17], out[18], out[19]]);
    let data = pattern(1024);
    rig.deliver(0, &data_in(task, 0, 0, 0, 0, 0, &data[..512])).unwrap();
    rig.deliver(0, &r2t(task, 0x70, 1, 0, 512)).unwrap();
    rig.sent(0);
    rig.deliver(0, &status(task, STAT_SN, EXP, 2)).unwrap();
    let out = split(&rig.sent(0));
    assert_eq!((out[0].0[0], word(&out[0].0, 40), word(&out[0].0, 44)), (0x10, 2, 1));
    rig.deliver(0, &data_in(task, 0x80, 0, 2, 512, 0, &data[512..])).unwrap();
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.memory[&slot], data);
}

#[test]
fn without_a_connection_commands_wait() {
    let mut rig = rig();
    let slot = rig.read(512);
    rig.sent(0);
    rig.session.lose_connection(0, true);
    rig.command(&[0; 6], 0, 0); // taken: the session is not dead
    assert_eq!(rig.session.unfinished(), 2);
    rig.session.add_connection(connection(2, 8192), SECOND, 0);
    rig.session.rebind(slot, 0);
    let out = split(&rig.sent(0));
    assert_eq!((word(&out[0].0, 24), out[1].0[1] & 0x7f), (0x11, 8));
}

#[test]
fn nothing_new_after_the_logout_of_the_session() {
    // 11.14: new requests MUST NOT be sent on any of the connections
    let mut rig = two();
    rig.session.submit_control(Some(0), &logout(0, 1), &[], 5).unwrap();
    let request = tag(&rig.sent(0), 0);
    rig.command(&[0; 6], 0, 0);
    assert!(rig.sent(0).is_empty() && rig.sent(1).is_empty());
    rig.deliver(0, &pdu(0x26, 0x80, [0, 0], request, [0, STAT_SN, 0x10, MAX, 0, 0, 0], &[])).unwrap();
    assert!(rig.sent(0).is_empty() && rig.sent(1).is_empty());
    rig.session.poll_event();
    rig.session.lose_connection(0, true);
    rig.session.lose_connection(1, true);
    assert_eq!(rig.ended(), Some(Outcome::ConnectionLost), "closed for good, whatever the level");
}

/// Connection 1 is lost with a read of `lun` on it; its reassignment on connection 2, as it was sent.
fn moved(quirks: Quirks, lun: u64) -> (Rig, Vec<u8>) {
    let mut rig = Rig::new(SessionParams { quirks, ..params() }, connection(1, 8192));
    assert_eq!(rig.session.add_connection(connection(2, 8192), SECOND, 0), 1);
    let command = Command {
        lun,
        cdb: &[0; 6],
        attribute: 1,
        immediate: false,
        write_len: 0,
        read_len: 512,
        conn: Some(0),
        context: 77,
    };
    let slot = rig.session.submit(&command).unwrap();
    rig.memory.insert(slot, vec![0; 512]);
    rig.sent(0);
    rig.session.lose_connection(0, true);
    assert!(rig.session.rebind(slot, 1));
    let out = rig.sent(1);
    (rig, out)
}

#[test]
fn a_quirk_puts_the_lun_into_a_reassignment() {
    let field = 0x0003_0000_0000_0000;
    let (_, out) = moved(Quirks::default(), field);
    assert_eq!(out[8..16], [0; 8], "11.5.4: reserved");
    let (_, out) = moved(Quirks { reassign_lun: true, ..Quirks::default() }, field);
    assert_eq!((out[1], &out[8..16]), (0x88, &[0, 3, 0, 0, 0, 0, 0, 0][..]));
}

#[test]
fn a_quirk_reads_the_answers_to_a_reassignment_as_linux_means_them() {
    let quirks = Quirks { reassign_answer: true, ..Quirks::default() };
    // "rejected": the task goes on
    let (mut rig, out) = moved(quirks, 0);
    let (request, task, _) = reassign(&out, 0);
    rig.deliver(1, &managed(request, 255, SECOND, EXP)).unwrap();
    rig.deliver(1, &data_in(task, 0x81, SECOND + 1, 0, 0, 0, &pattern(512))).unwrap();
    assert_eq!(rig.ended(), good(0));
    // "complete": there is no such task
    let (mut rig, out) = moved(quirks, 0);
    rig.deliver(1, &managed(reassign(&out, 0).0, 0, SECOND, EXP)).unwrap();
    assert!(matches!(rig.session.poll_event(), Some(Event::ReassignRefused { context: 77, response: 1 })));
    // without it they are what 11.6.1 says
    let (mut rig, out) = moved(Quirks::default(), 0);
    rig.deliver(1, &managed(reassign(&out, 0).0, 255, SECOND, EXP)).unwrap();
    assert!(matches!(rig.session.poll_event(), Some(Event::ReassignRefused { context: 77, response: 255 })));
}

/// ExpStatSN of a Logout Request for CID 1 with this reason, sent on connection 2.
fn exp_stat_sn_of_logout(reason: u8, lost: bool) -> u32 {
    let mut rig = two();
    rig.command(&[0; 6], 0, 0);
    let task = tag(&rig.sent(0), 0);
    rig.deliver(0, &status(task, STAT_SN, EXP, 0)).unwrap();
    if lost {
        rig.session.lose_connection(0, true);
    }
    rig.session.submit_control(Some(1), &logout(reason, 1), &[], 5).unwrap();
    word(&split(&rig.sent(1))[0].0, 28)
}

#[test]
fn a_logout_tells_the_exp_stat_sn_of_the_connection_that_it_closes() {
    // 11.14.4: "the last ExpStatSN value for the connection to be closed", lost or not
    assert_eq!(exp_stat_sn_of_logout(2, true), STAT_SN + 1);
    assert_eq!(exp_stat_sn_of_logout(2, false), STAT_SN + 1);
    assert_eq!(exp_stat_sn_of_logout(1, false), STAT_SN + 1);
    // the session's logout closes the one that carries it, too
    assert_eq!(exp_stat_sn_of_logout(0, false), SECOND);
}

/// Numbers that were lost with a connection hold up what the target got on the others: it is asked at once, not when they
/// have been silent for long.
#[test]
fn gaps_that_a_lost_connection_leaves_are_looked_for_at_once() {
    let mut rig = Rig::new(SessionParams { error_recovery_level: 0, ..params() }, connection(1, 8192));
    rig.session.set_recovery_timeout(TIMEOUT);
    rig.session.add_connection(connection(2, 1024), SECOND, 0);
    rig.read(512);
    rig.read(512);
    let (first, second) = (rig.sent(0), rig.sent(1));
    let lost = word(&split(&first)[0].0, 24);
    assert_eq!(split(&second).len(), 1);
    rig.session.lose_connection(0, false);
    assert_eq!(rig.ended(), Some(Outcome::ConnectionLost));
    let ping = split(&rig.sent(1));
    assert_eq!((ping.len(), ping[0].0[0]), (1, 0x40), "an immediate NOP-Out");
    let itt = word(&ping[0].0, 16);
    // the target waits for the first number
    rig.deliver(1, &pdu(0x20, 0x80, [0, 0], itt, [0xffff_ffff, SECOND, lost, MAX, 0, 0, 0], &[])).expect("fine");
    let plug = split(&rig.sent(1));
    assert_eq!(
        (plug.len(), plug[0].0[0], word(&plug[0].0, 24)),
        (1, 0x00, lost),
        "a NOP-Out with the number that is missing"
    );
}

#[test]
fn without_a_gap_nothing_is_asked() {
    let mut rig = two();
    rig.session.lose_connection(0, false);
    assert!(rig.sent(1).is_empty());
}

#[test]
fn immediate_commands_end_with_their_connection() {
    // 7.14: the target ends them; nobody asks to have them reassigned
    let session = SessionParams { error_recovery_level: 2, ..SessionParams::default() };
    let mut rig = Rig::new(session, ConnectionParams::default());
    rig.immediate();
    let numbered = rig.command(&[0; 6], 0, 0);
    rig.sent(0);
    rig.session.lose_connection(0, true);
    assert_eq!(rig.ended(), Some(Outcome::ConnectionLost));
    assert_eq!(rig.session.frozen(None), [numbered]);
    assert_eq!(rig.session.unfinished(), 1);
}

#[test]
fn a_quirk_ends_reads_that_lack_only_their_status() {
    // 7.2.2 has the status sent again; Linux's target closes the connection instead
    for (quirk, came, kept) in [(false, 512, true), (true, 511, true), (true, 512, false)] {
        let quirks = Quirks { reassign_answer: quirk, ..Quirks::default() };
        let mut rig = Rig::new(SessionParams { quirks, ..params() }, connection(1, 8192));
        rig.session.add_connection(connection(2, 8192), SECOND, 0);
        let read = rig.read(512);
        let task = tag(&rig.sent(0), 0);
        rig.deliver(0, &data_in(task, 0x80, 0, 0, 0, 0, &pattern(came))).unwrap();
        rig.session.lose_connection(0, true);
        let (ended, frozen) = if kept { (None, vec![read]) } else { (Some(Outcome::ConnectionLost), vec![]) };
        assert_eq!((rig.ended(), rig.session.frozen(None)), (ended, frozen));
    }
}
