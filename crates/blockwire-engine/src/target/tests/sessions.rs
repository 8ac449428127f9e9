//! Sessions of several connections, and recovery of what goes in (RFC 7143 4.2.2, 4.2.3, 7.1.4.1, 7.2).

use blockwire_store::filters::delay;

use super::*;
use crate::calls::{Answer as Reply, Change, Effects};
use crate::clock::SECOND;

fn level(error_recovery_level: u8) -> SessionParams {
    SessionParams { error_recovery_level, data_sequence_in_order: false, ..params() }
}

/// `connections` connections of one session.
fn session(connections: u16) -> Rig {
    let mut rig = Rig::with(ram(), level(2), PlaneOptions::default());
    for cid in 2..=connections {
        rig.connect(SESSION, connection(cid));
    }
    rig
}

/// Task management: function, referenced tag; sent up, and the tag to answer it with.
fn manage(rig: &mut Rig, peer: usize, function: u8, referenced: u32, cmd_sn: u32) -> u64 {
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x42, 0x80 | function]);
    bhs[16..20].copy_from_slice(&0x7777_u32.to_be_bytes());
    bhs[20..24].copy_from_slice(&referenced.to_be_bytes());
    bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
    bhs[28..32].copy_from_slice(&100_u32.to_be_bytes());
    rig.events();
    rig.send(peer, &bhs);
    let found =
        rig.events().into_iter().find_map(|e| if let Event::ControlPdu { tag, .. } = e { Some(tag) } else { None });
    found.expect("sent up")
}

fn answer(rig: &mut Rig, task: u64, effects: Effects) {
    let mut header = [0; BHS_LEN];
    header[..2].copy_from_slice(&[0x22, 0x80]);
    rig.worker.target.reply(&mut rig.worker.core, SESSION, task, Reply::Pdu { header, data: Vec::new() }, effects);
}

fn acknowledge(rig: &mut Rig, peer: usize, exp_stat_sn: u32, ttt: u32) {
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x40, 0x80]);
    bhs[16..20].copy_from_slice(&[0xff; 4]);
    bhs[20..24].copy_from_slice(&ttt.to_be_bytes());
    bhs[28..32].copy_from_slice(&exp_stat_sn.to_be_bytes());
    rig.send(peer, &bhs);
}

#[test]
fn commands_over_four_connections_run_in_order_each_on_its_own() {
    let mut rig = session(4);
    // numbers 8 to 1, so that all wait for the last one sent; each writes the same block
    for cmd_sn in (1..=8).rev() {
        let peer = cmd_sn as usize % 4;
        rig.send(peer, &scsi_command(0xa0, cmd_sn, cmd_sn, &cdb10(0x2a, 0, 5, 1), 512, &[cmd_sn as u8; 512]));
    }
    assert_eq!(rig.read_store(5 * 512, 512), [8; 512], "4.2.2.1: delivered in the order of CmdSN");
    for peer in 0..4 {
        let seen: Vec<(u32, u32)> = rig.pdus(peer).iter().map(|(b, _)| (b.initiator_task_tag(), b.stat_sn())).collect();
        let first = if peer == 0 { 4 } else { peer as u32 };
        assert_eq!(seen, [(first, 100), (first + 4, 101)]);
    }
}

#[test]
fn numbers_go_round_at_2_to_the_32_on_all_connections() {
    let mut rig = session(1);
    let mut spec_params = level(2);
    spec_params.max_outstanding_r2t = 1;
    let spec = SessionSpec {
        params: spec_params,
        initiator_name: String::new(),
        target_name: String::new(),
        isid: [0; 6],
        tsih: 2,
        max_connections: 2,
        cmd_sn: 0xffff_fffd,
        exp_cmd_sn: 0xffff_fffd,
        max_cmd_sn: 0xffff_fffd,
    };
    rig.worker.target.create_session(&mut rig.worker.core, 9, spec, Arc::new(Numbers::default()));
    let mapping = rig.mapping();
    rig.worker.target.map_lun(&mut rig.worker.core, 9, 0, mapping).expect("mapped");
    let peers = [rig.connect(9, connection(1)), rig.connect(9, connection(2))];
    for n in 0..8_u32 {
        let cmd_sn = 0xffff_fffd_u32.wrapping_add(n ^ 1); // each pair the wrong way round
        let bytes = scsi_command(0xa0, n, cmd_sn, &cdb10(0x2a, 0, n, 1), 512, &[n as u8 + 1; 512]);
        rig.send(peers[n as usize % 2], &bytes);
    }
    for n in 0..8_u8 {
        assert_eq!(rig.read_store(u64::from(n) * 512, 512), [n + 1; 512]);
    }
    let last = rig.pdus(peers[0]).pop().expect("some").0;
    assert_eq!((last.exp_cmd_sn(), last.status()), (5, 0));
}

#[test]
fn a_damaged_data_out_is_asked_for_again() {
    let mut rig = Rig::with(ram(), level(1), PlaneOptions::default());
    let peer = rig.connect(SESSION, ConnectionParams { data_digest: true, ..connection(2) });
    let data: Vec<u8> = (0..65_536).map(|i| (i / 7) as u8).collect();
    let tag = rig.command_on(peer, 0xa0, &cdb10(0x2a, 0, 9, 128), 65_536, &[]);
    let mut damaged = 3;
    let mut r2ts = Vec::new();
    let mut rejects = 0;
    let response = 'outer: loop {
        let pdus = digested(&mut rig, peer);
        assert!(!pdus.is_empty());
        for bhs in pdus {
            match bhs.0[0] {
                0x31 => {
                    r2ts.push((bhs.data_sn(), bhs.buffer_offset(), bhs.desired_data_transfer_length()));
                    let (from, len) = (bhs.buffer_offset() as usize, bhs.desired_data_transfer_length() as usize);
                    for (sn, at) in (from..from + len).step_by(8192).enumerate() {
                        let end = (at + 8192).min(from + len);
                        let ttt = bhs.target_transfer_tag();
                        let mut pdu = data_out(end == from + len, tag, ttt, sn as u32, at as u32, &data[at..end]);
                        let crc = blockwire_wire::crc32c::append(0, &pdu[BHS_LEN..]).to_le_bytes();
                        pdu.extend(crc);
                        if damaged > 0 && sn % 3 == 1 {
                            damaged -= 1;
                            pdu[BHS_LEN + 77] ^= 0x40;
                        }
                        rig.send(peer, &pdu);
                    }
                }
                0x3f => rejects += 1,
                0x21 => break 'outer bhs,
                other => panic!("{other:#x}"),
            }
        }
    };
    assert_eq!((response.status(), rejects), (0, 3));
    // 11.8: recovery R2Ts with the next numbers, for what was lost and nothing else
    assert_eq!(r2ts, [(0, 0, 65_536), (1, 8192, 8192), (2, 32_768, 8192), (3, 57_344, 8192)]);
    assert!(rig.read_store(9 * 512, 65_536) == data);
    acknowledge(&mut rig, peer, response.stat_sn() + 1, u32::MAX);
    assert_eq!(rig.in_use(), 0);
}

/// Headers of what came on a connection with data digests.
fn digested(rig: &mut Rig, peer: usize) -> Vec<Bhs> {
    rig.take(peer);
    let bytes = std::mem::take(&mut rig.peers[peer].bytes);
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let bhs = Bhs(bytes[at..at + BHS_LEN].try_into().expect("48 bytes"));
        let len = bhs.data_segment_length();
        at += BHS_LEN + (len + padding(len)) as usize + if len > 0 { 4 } else { 0 };
        out.push(bhs);
    }
    out
}

#[test]
fn data_that_does_not_come_is_asked_for_again_and_then_given_up() {
    let mut rig = Rig::with(ram(), level(1), PlaneOptions::default());
    let change = [Change::RecoveryTimeout(2 * SECOND)];
    rig.worker.target.configure(&mut rig.worker.core, SESSION, None, &change).expect("configured");
    let tag = rig.command(0xa0, &cdb10(0x2a, 0, 9, 16), 8192, &[]);
    let ttt = rig.pdus(0)[0].0.target_transfer_tag();
    rig.send(0, &data_out(false, tag, ttt, 0, 0, &[1; 4096]));
    rig.at(SECOND);
    assert!(rig.pdus(0).is_empty());
    let mut r2ts = Vec::new();
    let mut now = SECOND;
    let response = loop {
        now += SECOND;
        assert!(now < 60 * SECOND);
        rig.at(now);
        let mut ended = None;
        for (bhs, data) in rig.pdus(0) {
            if bhs.0[0] == 0x31 {
                r2ts.push((bhs.data_sn(), bhs.buffer_offset(), bhs.desired_data_transfer_length()));
            } else {
                ended = Some((bhs, data));
            }
        }
        if let Some(ended) = ended {
            break ended;
        }
    };
    assert_eq!(r2ts[0], (1, 4096, 4096), "what came is not asked for again");
    assert!(r2ts.len() < 10);
    // 7.8 b, 11.4.7.2: "Protocol Service CRC error"
    assert_eq!((response.0.status(), response.1[4] & 15, response.1[14], response.1[15]), (2, 0x0b, 0x47, 0x05));
    acknowledge(&mut rig, 0, 101, u32::MAX);
    assert_eq!(rig.in_use(), 0);
    // level 0 waits for ever, as it did
    let mut rig = Rig::new();
    rig.command(0xa0, &cdb10(0x2a, 0, 9, 16), 8192, &[]);
    rig.pdus(0);
    rig.at(1000 * SECOND);
    assert!(rig.pdus(0).is_empty());
}

#[test]
fn abort_task_of_a_frozen_task_sends_its_status_first() {
    let mut rig = session(2);
    let data = rig.fill_store();
    let tag = rig.command(0xc0, &cdb10(0x28, 0, 8, 8), 4096, &[]);
    assert_eq!(rig.pdus(0).len(), 1);
    assert_eq!(rig.release(1, ReleaseMode::Freeze).frozen_tasks, 1);
    let request = manage(&mut rig, 1, 1, tag, 2);
    let task = AbortTarget::Task { session: SESSION, initiator_task_tag: tag, ref_cmd_sn: Some(1) };
    let report = rig.abort(task, None).lock().expect("lock").clone().expect("at once");
    assert!(report.already_responded && report.affected.is_empty());
    answer(&mut rig, request, Effects::default());
    let pdus = rig.pdus(1);
    let seen: Vec<u8> = pdus.iter().map(|(b, _)| b.0[0]).collect();
    assert_eq!(seen, [0x25, 0x21, 0x22], "11.5.1: followed by the task management response");
    assert_eq!((pdus[0].1.as_slice(), pdus[1].0.initiator_task_tag()), (&data[4096..8192], tag));
}

#[test]
fn frozen_tasks_are_aborted_with_the_others() {
    let mut rig = session(2);
    let held = rig.command(0xa0, &cdb10(0x2a, 0, 8, 32), 16_384, &[1; 4096]);
    let answered = rig.command(0xc0, &cdb10(0x28, 0, 8, 8), 4096, &[]);
    rig.pdus(0);
    rig.release(1, ReleaseMode::Freeze);
    for target in [AbortTarget::TaskSet { session: SESSION, lun: 0 }, AbortTarget::LogicalUnit { store: 3 }] {
        let report = rig.abort(target, None).lock().expect("lock").clone().expect("no data is waited for");
        assert!(report.complete && report.affected.len() <= 2);
    }
    assert_eq!(rig.in_use(), 0);
    for tag in [held, answered] {
        let request = manage(&mut rig, 1, 8, tag, 3);
        answer(&mut rig, request, Effects { rebind: Some((tag, None)), ..Effects::default() });
        let pdus = rig.pdus(1);
        assert_eq!((pdus.len(), pdus[0].0.response()), (1, 1), "task does not exist");
    }
    assert_eq!(rig.read_store(4096, 16_384), [0; 16_384]);
}

#[test]
fn what_can_be_reassigned_and_what_cannot() {
    let mut rig = session(3);
    let here = rig.command_on(1, 0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[]);
    let other = manage(&mut rig, 1, 5, u32::MAX, 2);
    for (tag, response) in [(here, 3), (0x7777, 255), (0x1234, 1)] {
        // 11.6.1: still allegiant; 11.5.1: a task management request MUST NOT be reassigned; no such task
        let mut bhs = [0; BHS_LEN];
        bhs[..2].copy_from_slice(&[0x42, 0x88]);
        bhs[16..20].copy_from_slice(&0x8888_u32.to_be_bytes());
        bhs[20..24].copy_from_slice(&tag.to_be_bytes());
        rig.events();
        rig.send(2, &bhs);
        let Some(Event::ControlPdu { tag: request, .. }) = rig.events().pop() else { panic!("sent up") };
        answer(&mut rig, request, Effects { rebind: Some((tag, None)), ..Effects::default() });
        let pdus = rig.pdus(2);
        assert_eq!((pdus.len(), pdus[0].0.response()), (1, response));
    }
    answer(&mut rig, other, Effects::default());
}

#[test]
fn a_connection_takes_the_place_of_the_one_with_its_cid() {
    let mut rig = session(1);
    let data: Vec<u8> = (0..32_768).map(|i| (i / 3) as u8).collect();
    let tag = rig.command(0xa0, &cdb10(0x2a, 0, 8, 64), 32_768, &data[..8192]);
    rig.pdus(0);
    // without a word of the loss: the same CID again (6.3.4)
    let again = rig.connect(SESSION, ConnectionParams { max_recv_data_segment_length: 4096, ..connection(1) });
    let request = manage(&mut rig, again, 8, tag, 2);
    answer(&mut rig, request, Effects { rebind: Some((tag, Some(1))), ..Effects::default() });
    rig.peers[again].next_tag = tag;
    let pdus = rig.pdus(again);
    assert_eq!((pdus[0].0.0[0], pdus[0].0.response(), pdus[1].0.0[0]), (0x22, 0, 0x31));
    let (from, ttt) = (pdus[1].0.buffer_offset() as usize, pdus[1].0.target_transfer_tag());
    assert_eq!(from, 8192);
    for (sn, at) in (8192..32_768).step_by(4096).enumerate() {
        rig.send(again, &data_out(at + 4096 == 32_768, tag, ttt, sn as u32, at as u32, &data[at..at + 4096]));
    }
    assert_eq!(rig.pdus(again)[0].0.status(), 0);
    assert!(rig.read_store(4096, 32_768) == data);
}

#[test]
fn a_write_that_is_at_the_store_when_its_connection_goes_is_answered_on_the_next() {
    let (store, held) = delay::manual(ram());
    let mut rig = Rig::with(store, level(2), PlaneOptions::default());
    let other = rig.connect(SESSION, connection(2));
    let write = rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[7; 4096]);
    let read = rig.command(0xc0, &cdb10(0x28, 0, 100, 8), 4096, &[]);
    rig.peers[0].end.close();
    rig.step();
    held.release(10);
    rig.step();
    for tag in [read, write] {
        let request = manage(&mut rig, other, 8, tag, 3);
        answer(&mut rig, request, Effects { rebind: Some((tag, None)), ..Effects::default() });
        held.release(10);
        let pdus = rig.pdus(other);
        assert_eq!((pdus.len(), pdus[0].0.0[0], pdus[1].0.status()), (2, 0x22, 0));
        assert_eq!(pdus[1].0.initiator_task_tag(), tag);
    }
    acknowledge(&mut rig, other, 104, u32::MAX);
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn frozen_tasks_end_with_their_session_or_their_time() {
    for close in [true, false] {
        let mut rig = session(2);
        rig.command(0xa0, &cdb10(0x2a, 0, 8, 32), 16_384, &[1; 4096]);
        rig.command(0xc0, &cdb10(0x28, 0, 8, 128), 65_536, &[]);
        rig.pdus(0);
        rig.peers[0].end.close();
        rig.step();
        assert_eq!((rig.worker.core.arena.in_use(), rig.worker.target.shared.direct.len()), (1, 1));
        if close {
            rig.worker.target.close_session(&mut rig.worker.core, SESSION).expect("closed");
        } else {
            let released = rig.release(1, ReleaseMode::Terminate);
            assert_eq!(released.frozen_tasks, 0);
        }
        assert_eq!((rig.in_use(), rig.worker.target.shared.direct.len()), (0, 0));
        assert_eq!(rig.read_store(4096, 4096), [0; 4096]);
    }
}

#[test]
fn clarified_and_fast_abort() {
    for fast in [false, true] {
        let mut rig = session(1);
        let tag = rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[]);
        let ttt = rig.pdus(0)[0].0.target_transfer_tag();
        let report = Arc::new(Mutex::new(None));
        let scope = AbortScope { issuer: SESSION, fast, ..AbortScope::of(AbortTarget::LogicalUnit { store: 3 }) };
        let to = Arc::clone(&report);
        let done = Box::new(move |report| *to.lock().expect("lock") = Some(report));
        rig.worker.target.abort(&mut rig.worker.core, scope, done);
        rig.step();
        // 4.2.3.3 a: MUST wait for the data of the session that asked; 4.2.3.4: MUST NOT have to
        assert_eq!(report.lock().expect("lock").is_some(), fast);
        rig.send(0, &data_out(true, tag, ttt, 0, 0, &[1; 4096]));
        rig.step();
        assert!(report.lock().expect("lock").as_ref().is_some_and(|r: &AbortReport| r.complete));
        assert!(rig.pdus(0).is_empty(), "4.2.3.4 c: the tag was valid, its data is ignored");
        assert_eq!(rig.read_store(4096, 4096), [0; 4096], "nothing is written after the answer");
        assert_eq!(rig.in_use(), 0);
    }
}

#[test]
fn an_abort_does_not_wait_for_ever_for_data() {
    let mut rig = session(1);
    rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[]);
    let report = rig.abort(AbortTarget::TaskSet { session: SESSION, lun: 0 }, Some(5));
    rig.at(4 * SECOND);
    assert!(report.lock().expect("lock").is_none());
    rig.at(6 * SECOND);
    assert!(report.lock().expect("lock").as_ref().is_some_and(|r| r.complete));
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn a_fenced_response_waits_for_all_connections() {
    let mut rig = session(3);
    rig.command_on(0, 0xc0, &cdb10(0x28, 0, 0, 1), 512, &[]);
    assert_eq!(rig.pdus(0).len(), 1);
    rig.peers[1].cmd_sn = 2;
    let request = manage(&mut rig, 1, 2, u32::MAX, 2);
    answer(&mut rig, request, Effects { fence: true, ..Effects::default() });
    assert!(rig.pdus(1).is_empty(), "4.2.2.3.3 b");
    let ping = rig.pdus(0)[0].0;
    assert_eq!(ping.0[0], 0x20);
    rig.command_on(2, 0xc0, &[0; 6], 0, &[]);
    rig.peers[2].cmd_sn = 3;
    let tag = rig.peers[2].next_tag + 50;
    rig.send(2, &scsi_command(0x80, tag, 2, &[0; 6], 0, &[]));
    assert!(rig.pdus(2).iter().all(|(b, _)| b.0[0] != 0x21), "4.2.2.3.3 d: held");
    acknowledge(&mut rig, 0, 101, ping.target_transfer_tag());
    let sent = rig.pdus(1);
    assert_eq!(sent[0].0.0[0], 0x22);
    assert!(rig.pdus(2).iter().all(|(b, _)| b.0[0] != 0x21), "4.2.2.3.3 c: until it is acknowledged itself");
    acknowledge(&mut rig, 1, 101, u32::MAX);
    assert_eq!(rig.pdus(2).iter().filter(|(b, _)| b.0[0] == 0x21).count(), 1);
}

#[test]
fn a_logout_of_another_connection_acknowledges_nothing_on_its_own() {
    let mut rig = session(2);
    rig.send(0, &scsi_command(0xc0, 1, 1, &[0; 6], 0, &[]));
    rig.pdus(0);
    // 11.14.4: ExpStatSN is of the connection to be closed, CID 2; on this one it would acknowledge 100
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x46, 0x82]);
    bhs[16..20].copy_from_slice(&0x55_u32.to_be_bytes());
    bhs[20..22].copy_from_slice(&[0, 2]);
    bhs[24..28].copy_from_slice(&2_u32.to_be_bytes());
    bhs[28..32].copy_from_slice(&101_u32.to_be_bytes());
    rig.send(0, &bhs);
    assert_eq!(rig.release(1, ReleaseMode::Freeze).exp_stat_sn, 100);
}

#[test]
fn what_one_connection_lets_go_leaves_on_another_at_once() {
    let mut rig = Rig::new();
    let second = rig.connect(SESSION, connection(2));
    // CmdSN 1 comes in halves on the first connection; a ping with CmdSN 2 waits for it on the second
    let first = scsi_command(0x80, 5, 1, &cdb10(0x00, 0, 0, 0), 0, &[1; 64]);
    rig.send(0, &first[..60]);
    let mut ping = [0; BHS_LEN];
    ping[1] = 0x80;
    for (at, value) in [(16, 9_u32), (20, u32::MAX), (24, 2), (28, 100)] {
        ping[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    rig.send(second, &ping);
    assert!(rig.pdus(second).is_empty());
    rig.release(1, ReleaseMode::Terminate);
    // without a poll of the transports, which would find it by itself
    rig.worker.target.run(&mut rig.worker.core);
    let mut buffer = [0; BHS_LEN];
    let mut parts = [Part::new(buffer.as_mut_ptr(), BHS_LEN)];
    // SAFETY: the part is an array that outlives the call.
    let n = unsafe { rig.peers[second].end.recv(&mut parts) }.expect("the answer left");
    assert_eq!((n, buffer[0]), (BHS_LEN, 0x20));
}
