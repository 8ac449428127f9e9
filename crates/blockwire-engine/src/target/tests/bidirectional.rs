//! Commands with data both ways, and long CDBs (RFC 7143 11.2.2, 11.4.6, 11.7.3).

use blockwire_store::filters::delay;

use super::*;
use crate::calls::{Answer as Reply, Effects};

/// A SCSI Command with additional header segments.
fn with_ahs(flags: u8, tag: u32, cmd_sn: u32, cdb: &[u8], expected: u32, ahs: &[u8], data: &[u8]) -> Vec<u8> {
    let plain = scsi_command(flags, tag, cmd_sn, &cdb[..cdb.len().min(16)], expected, data);
    let mut out = plain[..BHS_LEN].to_vec();
    out[4] = (ahs.len() / 4) as u8;
    out.extend_from_slice(ahs);
    out.extend_from_slice(&plain[BHS_LEN..]);
    out
}

/// Figure of 11.2.2.4: AHSLength 5, AHSType 2, the expected length.
fn read_length(bytes: u32) -> Vec<u8> {
    let mut ahs = vec![0, 5, 2, 0];
    ahs.extend(bytes.to_be_bytes());
    ahs
}

/// Figure of 11.2.2.3: AHSLength is the rest of the CDB and 1, AHSType 1.
fn extended(cdb: &[u8]) -> Vec<u8> {
    let mut ahs = (cdb.len() as u16 - 15).to_be_bytes().to_vec();
    ahs.extend([1, 0]);
    ahs.extend_from_slice(&cdb[16..]);
    ahs.resize(ahs.len().next_multiple_of(4), 0);
    ahs
}

/// Sends all that is asked for; gives the Data-In and the response.
fn exchange(rig: &mut Rig, peer: usize, tag: u32, out: &[u8]) -> (Vec<u8>, Bhs, Vec<u8>) {
    let mut read = Vec::new();
    for _ in 0..1000 {
        for (bhs, data) in rig.pdus(peer) {
            match bhs.0[0] {
                0x25 => {
                    assert_eq!((bhs.buffer_offset() as usize, bhs.flags() & 1), (read.len(), 0), "11.7.3: no status");
                    read.extend(data);
                }
                0x31 => {
                    let (from, len) = (bhs.buffer_offset() as usize, bhs.desired_data_transfer_length() as usize);
                    let ttt = bhs.target_transfer_tag();
                    for (sn, at) in (from..from + len).step_by(40_000).enumerate() {
                        let end = (at + 40_000).min(from + len);
                        rig.send(peer, &data_out(end == from + len, tag, ttt, sn as u32, at as u32, &out[at..end]));
                    }
                }
                0x21 => return (read, bhs, data),
                other => panic!("{other:#x}"),
            }
        }
    }
    panic!("no response");
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

#[test]
fn xdwriteread_gives_the_xor_and_writes() {
    for (blocks, disable_write) in [(8_u16, false), (1000, false), (8, true)] {
        let mut rig = Rig::new();
        let old = rig.fill_store();
        let len = usize::from(blocks) * BLOCK;
        let new: Vec<u8> = (0..len).map(|i| (i * 7 / 3) as u8).collect();
        let cdb = cdb10(0x53, if disable_write { 0x04 } else { 0 }, 40, blocks);
        let bytes = with_ahs(0xe0, 9, 1, &cdb, len as u32, &read_length(len as u32), &new[..1024]);
        rig.send(0, &bytes);
        let (read, response, sense) = exchange(&mut rig, 0, 9, &new);
        assert_eq!((response.status(), response.flags(), &sense[..]), (0, 0x80, &[][..]));
        let before = &old[40 * BLOCK..40 * BLOCK + len];
        assert!(read == xor(before, &new));
        assert!(rig.read_store(40 * BLOCK as u64, len) == if disable_write { before } else { &new[..] });
        assert_eq!(rig.in_use(), 0);
    }
}

#[test]
fn residuals_of_both_directions() {
    let mut rig = Rig::new();
    let old = rig.fill_store();
    let new = [0x5a; 8 * BLOCK];
    // 8 blocks; the initiator reads 1000 bytes only and announced a block more than it writes
    let bytes = with_ahs(0xe0, 9, 1, &cdb10(0x53, 0, 0, 8), 9 * BLOCK as u32, &read_length(1000), &[]);
    rig.send(0, &bytes);
    let (read, response, _) = exchange(&mut rig, 0, 9, &[new.to_vec(), vec![1; BLOCK]].concat());
    assert!(read == xor(&old[..1000], &new[..1000]));
    // 11.4.1: U and o
    assert_eq!(response.flags(), 0x80 | 0x02 | 0x10);
    assert_eq!((response.residual_count(), response.bidirectional_residual_count()), (512, 4096 - 1000));
}

#[test]
fn xdwriteread_with_every_loss_is_finished_elsewhere() {
    let level_2 = SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() };
    for cut in [0, 47, 48, 100, 1000, 8239, 8240, 8241, 20_000, 33_100] {
        let mut rig = Rig::with(ram(), level_2.clone(), PlaneOptions::default());
        let old = rig.fill_store();
        let len = 64 * BLOCK;
        let new: Vec<u8> = (0..len).map(|i| (i / 11) as u8).collect();
        let other = rig.connect(SESSION, ConnectionParams { max_send_data_segment_length: 1000, ..connection(2) });
        rig.send(0, &with_ahs(0xe0, 9, 1, &cdb10(0x53, 0, 2, 64), len as u32, &read_length(len as u32), &new[..8192]));
        let r2t = rig.pdus(0)[0].0;
        assert_eq!(r2t.0[0], 0x31);
        rig.peers[0].end.incoming().cut_after = Some(cut);
        rig.send(0, &data_out(true, 9, r2t.target_transfer_tag(), 0, 8192, &new[8192..]));
        let mut got = vec![0; len];
        let mut next_sn = 1;
        for (bhs, part) in rig.pdus(0) {
            if bhs.0[0] == 0x25 {
                assert_eq!(bhs.data_sn(), next_sn);
                next_sn += 1;
                let at = bhs.buffer_offset() as usize;
                got[at..at + part.len()].copy_from_slice(&part);
            }
        }
        if !rig.events().iter().any(|e| matches!(e, Event::ConnectionLost { .. })) {
            rig.release(1, ReleaseMode::Freeze);
        }
        recovery::reassign(&mut rig, other, 9, 1, next_sn);
        let pdus = rig.pdus(other);
        assert_eq!(pdus[0].0.0[0], 0x22);
        for (bhs, part) in &pdus[1..pdus.len() - 1] {
            assert_eq!(bhs.data_sn(), next_sn);
            next_sn += 1;
            let at = bhs.buffer_offset() as usize;
            got[at..at + part.len()].copy_from_slice(part);
        }
        let response = pdus.last().expect("some").0;
        assert_eq!((response.0[0], response.status()), (0x21, 0));
        assert!(got == xor(&old[1024..1024 + len], &new), "cut after {cut}");
        assert!(rig.read_store(1024, len) == new);
    }
}

#[test]
fn the_control_plane_answers_with_data_both_ways() {
    let mut rig = Rig::new();
    // a vendor's command of 24 bytes: it goes up
    let mut cdb = [0x11; 24];
    cdb[0] = 0xd0;
    let new: Vec<u8> = (0..5000).map(|i| i as u8).collect();
    let ahs = [extended(&cdb), read_length(3000)].concat();
    rig.send(0, &with_ahs(0xe0, 9, 1, &cdb, 5000, &ahs, &new[..100]));
    let up = |rig: &mut Rig| {
        let found = rig.events().into_iter().find_map(|e| match e {
            Event::CommandForControl { tag, cdb, data, bidirectional_read_length, expected_length, .. } => {
                Some((tag, cdb, data, bidirectional_read_length, expected_length))
            }
            _ => None,
        });
        found.expect("sent up")
    };
    let (tag, seen, data, read, write) = up(&mut rig);
    assert_eq!((seen, data, read, write), (cdb.to_vec(), new[..100].to_vec(), 3000, 5000));
    rig.worker.target.reply(&mut rig.worker.core, SESSION, tag, Reply::Collect { length: 5000 }, Effects::default());
    let r2t = rig.pdus(0)[0].0;
    assert_eq!((r2t.buffer_offset(), r2t.desired_data_transfer_length()), (100, 4900));
    rig.send(0, &data_out(true, 9, r2t.target_transfer_tag(), 0, 100, &new[100..]));
    let (tag, _, data, ..) = up(&mut rig);
    assert_eq!(data, new);
    let back: Vec<u8> = new[..2500].iter().rev().copied().collect();
    let answer = Reply::Status { status: 0, response: 0, sense: Vec::new(), data: back.clone() };
    rig.worker.target.reply(&mut rig.worker.core, SESSION, tag, answer, Effects::default());
    let (read, response, _) = exchange(&mut rig, 0, 9, &new);
    assert_eq!(read, back);
    // 11.4.8: one Data-In beside one R2T; 11.4.6: 500 bytes less than expected
    assert_eq!((response.flags(), response.bidirectional_residual_count()), (0x80 | 0x08, 500));
    assert_eq!((response.exp_data_sn(), rig.in_use()), (1, 0));
}

#[test]
fn an_answer_with_data_that_comes_while_the_task_is_frozen_is_sent_later() {
    let level_2 = SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() };
    let mut rig = Rig::with(ram(), level_2, PlaneOptions::default());
    let other = rig.connect(SESSION, connection(2));
    let inquiry = rig.command(0xc0, &[0x12, 0, 0, 0, 36, 0], 36, &[]);
    let tag = rig
        .events()
        .into_iter()
        .find_map(|e| if let Event::CommandForControl { tag, .. } = e { Some(tag) } else { None })
        .expect("sent up");
    assert_eq!(rig.release(1, ReleaseMode::Freeze).frozen_tasks, 1);
    let answer = Reply::Status { status: 0, response: 0, sense: Vec::new(), data: vec![7; 36] };
    rig.worker.target.reply(&mut rig.worker.core, SESSION, tag, answer, Effects::default());
    recovery::reassign(&mut rig, other, inquiry, 1, 0);
    let pdus = rig.pdus(other);
    assert_eq!((pdus.len(), pdus[1].0.flags(), &pdus[1].1[..]), (2, 0x81, &[7; 36][..]));
}

fn cdb32(action: u8, lba: u64, blocks: u32) -> [u8; 32] {
    let mut cdb = [0; 32];
    cdb[0] = 0x7f;
    cdb[7] = 0x18;
    cdb[9] = action;
    cdb[12..20].copy_from_slice(&lba.to_be_bytes());
    cdb[28..32].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

#[test]
fn read_32_and_write_32() {
    let mut rig = Rig::new();
    let data: Vec<u8> = (0..32_768).map(|i| (i / 13) as u8).collect();
    let cdb = cdb32(0x0b, 77, 64);
    rig.send(0, &with_ahs(0xa0, 0x100, 1, &cdb, 32_768, &extended(&cdb), &data[..8192]));
    rig.answer(0, 0x100, &data).good();
    assert!(rig.read_store(77 * BLOCK as u64, 32_768) == data);
    let cdb = cdb32(0x09, 77, 64);
    rig.send(0, &with_ahs(0xc0, 0x101, 2, &cdb, 32_768, &extended(&cdb), &[]));
    let answer = rig.answer(0, 0x101, &[]);
    answer.good();
    assert!(answer.data == data);
    // without its additional header there are 16 bytes only: it goes up
    rig.send(0, &scsi_command(0xc0, 0x102, 3, &cdb[..16], 512, &[]));
    assert!(matches!(rig.events()[..], [Event::CommandForControl { .. }]));
}

#[test]
fn the_longest_cdb_has_260_bytes() {
    let mut rig = Rig::new();
    let cdb: Vec<u8> = (0..260_usize).map(|i| if i == 0 { 0xd1 } else { i as u8 }).collect();
    rig.send(0, &with_ahs(0x80, 9, 1, &cdb, 0, &extended(&cdb), &[]));
    let seen = rig.events().into_iter().find_map(|e| match e {
        Event::CommandForControl { cdb, .. } => Some(cdb),
        _ => None,
    });
    assert_eq!(seen, Some(cdb.clone()));
    let longer = [cdb, vec![0; 4]].concat();
    rig.send(0, &with_ahs(0x80, 10, 2, &longer, 0, &extended(&longer), &[]));
    let events = rig.events();
    assert!(events.iter().any(|e| matches!(e, Event::ConnectionLost { code: "protocol-violation", .. })), "{events:?}");
}

fn xdwriteread(rig: &mut Rig, peer: usize, tag: u32, cmd_sn: u32, lba: u32, new: &[u8]) {
    let (len, blocks) = (new.len() as u32, (new.len() / BLOCK) as u16);
    rig.send(peer, &with_ahs(0xe0, tag, cmd_sn, &cdb10(0x53, 0, lba, blocks), len, &read_length(len), new));
}

/// Data-In and statuses of a peer, by tag.
fn collect(rig: &mut Rig, peer: usize, into: &mut BTreeMap<u32, (Vec<u8>, Option<u8>)>) {
    for (bhs, data) in rig.pdus(peer) {
        let entry = into.entry(bhs.initiator_task_tag()).or_default();
        match bhs.0[0] {
            0x25 => entry.0.extend(data),
            0x21 => entry.1 = Some(bhs.status()),
            other => panic!("{other:#x}"),
        }
    }
}

/// The blocks are a command's own from its read to its write: every XOR is with what the command has overwritten.
#[test]
fn xdwritereads_and_writes_of_the_same_blocks_do_not_mix() {
    let disk = ram();
    let (slow, held) = delay::manual(Arc::clone(&disk));
    let mut rig = Rig::with(slow, params(), PlaneOptions::default());
    rig.session(8, params());
    let other = rig.connect(8, connection(1));
    let old = [1; 8 * BLOCK];
    blockwire_store::write(&*disk, 0, &old, false).expect("written");
    let (first, second, third) = ([2; 8 * BLOCK], [4; 8 * BLOCK], [8; 4 * BLOCK]);
    // a write is out when the first one comes, and has to end before it reads
    rig.command_on(other, 0xa0, &cdb10(0x2a, 0, 0, 4), third.len() as u32, &third);
    assert_eq!(held.held(), 1);
    xdwriteread(&mut rig, 0, 1, 1, 0, &first);
    assert_eq!(held.held(), 1, "the write that came before it is out");
    assert_eq!(held.release(1), 1);
    rig.step();
    assert_eq!(held.held(), 1, "now it reads");
    xdwriteread(&mut rig, other, 2, 2, 0, &second);
    rig.peers[0].cmd_sn = 2;
    rig.command_on(0, 0xa0, &cdb10(0x2a, 0, 6, 1), BLOCK as u32, &[16; BLOCK]);
    // and what it has not locked is everybody's
    rig.command_on(0, 0xa0, &cdb10(0x2a, 0, 8, 1), BLOCK as u32, &[32; BLOCK]);
    assert_eq!(held.held(), 2);
    let mut seen = [BTreeMap::new(), BTreeMap::new()];
    for _ in 0..20 {
        held.release(1);
        collect(&mut rig, 0, &mut seen[0]);
        collect(&mut rig, other, &mut seen[1]);
    }
    assert_eq!((seen[0].len(), seen[1].len()), (3, 2));
    assert!(seen.iter().flat_map(BTreeMap::values).all(|(_, status)| *status == Some(0)), "{seen:?}");
    let before = [[8; 4 * BLOCK], [1; 4 * BLOCK]].concat();
    assert!(seen[0][&1].0 == xor(&before, &first));
    let mut between = first;
    let mut after = second;
    // the write waited for the first one; which of it and the second one came first is free
    let written = xor(&seen[1][&2].0, &second);
    if written[6 * BLOCK] == 16 {
        between[6 * BLOCK..7 * BLOCK].fill(16);
    } else {
        after[6 * BLOCK..7 * BLOCK].fill(16);
    }
    assert!(written == between);
    let mut found = [0; 8 * BLOCK];
    blockwire_store::read(&*disk, 0, &mut found).expect("read");
    assert!(found == after);
    assert_eq!(rig.in_use(), 0);
}

/// A command that ends in the middle gives its blocks back.
#[test]
fn an_aborted_xdwriteread_keeps_nobody_out() {
    let disk = ram();
    let (slow, held) = delay::manual(Arc::clone(&disk));
    let mut rig = Rig::with(slow, params(), PlaneOptions::default());
    xdwriteread(&mut rig, 0, 1, 1, 0, &[2; 8 * BLOCK]);
    rig.step();
    assert_eq!(held.held(), 1, "it reads");
    let target = AbortTarget::Task { session: SESSION, initiator_task_tag: 1, ref_cmd_sn: None };
    let report = rig.abort(target, None);
    rig.peers[0].cmd_sn = 2;
    let tag = rig.command(0xa0, &cdb10(0x2a, 0, 0, 8), 4096, &[7; 4096]);
    for _ in 0..4 {
        held.release(1);
        rig.step();
    }
    assert!(report.lock().expect("lock").as_ref().expect("over").found);
    assert_eq!(rig.pdus(0).last().expect("answered").0.initiator_task_tag(), tag);
    let mut found = [0; 4096];
    blockwire_store::read(&*disk, 0, &mut found).expect("read");
    assert_eq!(found, [7; 4096]);
    assert_eq!(rig.in_use(), 0);
}

/// Without its connection it is finished all the same, so that nobody waits for its initiator; the XOR comes later.
#[test]
fn a_frozen_xdwriteread_that_has_begun_goes_on() {
    let level_2 = SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() };
    let disk = ram();
    let (slow, held) = delay::manual(Arc::clone(&disk));
    let mut rig = Rig::with(slow, level_2, PlaneOptions::default());
    let other = rig.connect(SESSION, connection(2));
    blockwire_store::write(&*disk, 0, &[1; 8 * BLOCK], false).expect("written");
    xdwriteread(&mut rig, 0, 1, 1, 0, &[2; 8 * BLOCK]);
    rig.step();
    rig.release(1, ReleaseMode::Freeze);
    rig.peers[other].cmd_sn = 2;
    let tag = rig.command_on(other, 0xa0, &cdb10(0x2a, 0, 0, 8), 4096, &[7; 4096]);
    for _ in 0..4 {
        held.release(1);
        rig.step();
    }
    assert_eq!(rig.pdus(other)[0].0.initiator_task_tag(), tag);
    rig.events();
    recovery::reassign(&mut rig, other, 1, 1, 0);
    let mut seen = BTreeMap::new();
    for (bhs, data) in rig.pdus(other).into_iter().skip(1) {
        let entry: &mut (Vec<u8>, Option<u8>) = seen.entry(bhs.initiator_task_tag()).or_default();
        match bhs.0[0] {
            0x25 => entry.0.extend(data),
            0x21 => entry.1 = Some(bhs.status()),
            other => panic!("{other:#x}"),
        }
    }
    assert_eq!(seen[&1], (vec![3; 8 * BLOCK], Some(0)));
}
