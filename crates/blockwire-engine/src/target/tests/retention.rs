//! What is kept for retransmission, its budget, and what can be asked for again (RFC 7143 11.7.2, 11.16).

use super::*;
use crate::calls::Change;

const BUDGET: u32 = 1 << 20;

/// Level 1 or 2; one session may keep 1 MiB, the worker 4 MiB.
fn rig(level: u8) -> Rig {
    let options = PlaneOptions { arena_bytes: 8 * BUDGET as usize, ..PlaneOptions::default() };
    let params = SessionParams {
        error_recovery_level: level,
        data_sequence_in_order: false,
        max_burst_length: 65_536,
        ..params()
    };
    Rig::with(ram(), params, options)
}

fn snack(kind: u8, itt: u32, tag: u32, exp_stat_sn: u32, begin: u32, length: u32) -> Vec<u8> {
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x10, 0x80 | kind]);
    for (at, value) in [(16, itt), (20, tag), (28, exp_stat_sn), (40, begin), (44, length)] {
        bhs[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    bhs.to_vec()
}

/// NOP-Out without a task tag that acknowledges.
fn ack(ttt: u32, exp_stat_sn: u32) -> Vec<u8> {
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x40, 0x80]);
    for (at, value) in [(16, u32::MAX), (20, ttt), (28, exp_stat_sn)] {
        bhs[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    bhs.to_vec()
}

#[test]
fn what_is_sent_again_is_what_was_sent_whatever_the_store_holds_by_now() {
    // of a store that this worker alone serves the bytes are kept where they are until they change, otherwise in a copy
    for others in [false, true] {
        let mut rig = rig(1);
        if others {
            let another = Arc::new(Mailbox::new().expect("descriptor"));
            rig.store.serve_on(1, &another);
        }
        let data = rig.fill_store();
        let tag = rig.command(0xc0, &cdb10(0x28, 0, 16, 128), 65_536, &[]);
        let sent = rig.pdus(0);
        assert!(sent.iter().flat_map(|(_, d)| d.clone()).eq(data[8192..8192 + 65_536].iter().copied()));
        assert_eq!(rig.worker.core.counters.bytes_sent_by_copy, if others { 65_536 } else { 0 });
        // in the middle of it, by a command of the same session, whose answer is not acknowledged either
        rig.command(0xa0, &cdb10(0x2a, 0, 24, 8), 4096, &[0xff; 4096]);
        assert_eq!(rig.pdus(0)[0].0.0[0], 0x21);
        assert_eq!(rig.read_store(24 * 512, 4096), [0xff; 4096]);
        assert_eq!(rig.worker.core.counters.bytes_sent_by_copy, 65_536);
        rig.send(0, &snack(0, tag, u32::MAX, 100, 0, 0));
        let again = rig.pdus(0);
        let same = |a: &(Bhs, Vec<u8>), b: &(Bhs, Vec<u8>)| {
            a.0.0[..28] == b.0.0[..28] && a.0.0[36..] == b.0.0[36..] && a.1 == b.1
        };
        assert_eq!(sent.len(), again.len());
        assert!(sent.iter().zip(&again).all(|(a, b)| same(a, b)), "the same bytes, status and all");
        rig.send(0, &snack(1, u32::MAX, u32::MAX, 100, 100, 1));
        assert!(same(&rig.pdus(0)[0], &sent[sent.len() - 1]), "status in the last Data-In");
        rig.send(0, &ack(u32::MAX, 102));
        assert_eq!(rig.in_use(), 0);
        rig.send(0, &snack(0, tag, u32::MAX, 102, 0, 0));
        assert_eq!(rig.pdus(0)[0].0.0[..3], [0x3f, 0x80, 4]);
    }
}

#[test]
fn what_is_kept_in_the_store_is_let_go_with_its_acknowledgement_and_outlives_its_connection() {
    let mut rig = rig(2);
    let data = rig.fill_store();
    rig.command(0xc0, &cdb10(0x28, 0, 0, 64), 32_768, &[]);
    rig.command(0xc0, &cdb10(0x28, 0, 64, 64), 32_768, &[]);
    rig.pdus(0);
    assert_eq!(rig.worker.target.shared.direct.len(), 2);
    rig.send(0, &ack(u32::MAX, 101));
    assert_eq!(rig.worker.target.shared.direct.len(), 1);
    rig.peers[0].end.close();
    rig.step();
    // somebody else writes over what the frozen task keeps
    let store = rig.store.id;
    rig.worker.target.about_to_change(&mut rig.worker.core, store, 40_000, 512);
    blockwire_store::write(&*rig.store.store, 32_768, &[0xee; 32_768], false).expect("written");
    assert_eq!((rig.worker.core.arena.in_use(), rig.worker.target.shared.direct.len()), (1, 0), "copied out");
    let peer = rig.connect(SESSION, connection(2));
    let pdus = reassigned(&mut rig, SESSION, peer, 0x101);
    let got: Vec<u8> = pdus.iter().filter(|(b, _)| b.0[0] == 0x25).flat_map(|(_, d)| d.clone()).collect();
    assert!(got == data[32_768..65_536], "as it was sent");
    rig.worker.target.close_session(&mut rig.worker.core, SESSION).expect("closed");
    assert_eq!((rig.in_use(), rig.worker.target.shared.direct.len()), (0, 0));
}

/// Has a frozen task reassigned to the connection of `peer`; everything that came then, the answer first.
fn reassigned(rig: &mut Rig, id: SessionId, peer: usize, tag: u32) -> Vec<(Bhs, Vec<u8>)> {
    reassign(rig, id, peer, tag);
    rig.pdus(peer)
}

fn reassign(rig: &mut Rig, id: SessionId, peer: usize, tag: u32) {
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x42, 0x88]);
    bhs[16..20].copy_from_slice(&0x5555_u32.to_be_bytes());
    bhs[20..24].copy_from_slice(&tag.to_be_bytes());
    rig.events();
    rig.send(peer, &bhs);
    let task = rig
        .events()
        .into_iter()
        .find_map(|e| if let Event::ControlPdu { tag, .. } = e { Some(tag) } else { None })
        .expect("sent up");
    let mut header = [0; BHS_LEN];
    header[..2].copy_from_slice(&[0x22, 0x80]);
    // wherever it is frozen
    let effects = crate::calls::Effects { rebind: Some((tag, None)), ..Default::default() };
    let answer = crate::calls::Answer::Pdu { header, data: Vec::new() };
    rig.worker.target.reply(&mut rig.worker.core, id, task, answer, effects);
}

#[test]
fn what_is_kept_in_the_store_is_copied_when_it_moves_to_a_connection_with_digests() {
    let mut rig = rig(2);
    let data = rig.fill_store();
    let tag = rig.command(0xc0, &cdb10(0x28, 0, 0, 128), 65_536, &[]);
    rig.pdus(0);
    assert_eq!((rig.worker.target.shared.direct.len(), rig.worker.core.arena.in_use()), (1, 0));
    rig.peers[0].end.close();
    rig.step();
    let peer = rig.connect(SESSION, ConnectionParams { data_digest: true, ..connection(2) });
    rig.peers[peer].end.incoming().capacity = 1000;
    reassign(&mut rig, SESSION, peer, tag);
    rig.step();
    // nobody said that it would change: a long clear in the store's own threads that was running before
    blockwire_store::write(&*rig.store.store, 0, &[0xee; 65_536], false).expect("written");
    rig.take(peer);
    let bytes = std::mem::take(&mut rig.peers[peer].bytes);
    let (mut at, mut got) = (48, Vec::new()); // behind the answer to TASK REASSIGN
    while bytes[at] == 0x25 {
        let length = u32::from_be_bytes([0, bytes[at + 5], bytes[at + 6], bytes[at + 7]]) as usize;
        let (part, digest) = bytes[at + 48..].split_at(length);
        assert_eq!(digest[..4], blockwire_wire::crc32c::append(0, part).to_le_bytes(), "at {}", got.len());
        got.extend_from_slice(part);
        at += 48 + length + 4;
    }
    assert!(got == data[..65_536], "as it was sent the first time");
    assert_eq!(rig.worker.target.shared.direct.len(), 0);
    rig.send(peer, &ack(u32::MAX, 102));
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn r_data_after_another_segment_length() {
    let mut rig = rig(1);
    let data = rig.fill_store();
    let tag = rig.command(0xc0, &cdb10(0x28, 0, 0, 1024), 524_288, &[]);
    rig.pdus(0);
    let change = [Change::MaxSendDataSegmentLength(1000)];
    rig.worker.target.configure(&mut rig.worker.core, SESSION, Some(1), &change).expect("configured");
    rig.send(0, &snack(3, tag, 5, 100, 0, 0));
    let mut got = Vec::new();
    let again = rig.pdus(0);
    for (bhs, part) in &again[..again.len() - 1] {
        assert!(bhs.buffer_offset() as usize == got.len() && part.len() <= 1000);
        got.extend_from_slice(part);
    }
    assert!(got == data[..524_288], "pieces of the old length are cut anew");
    let response = again.last().expect("some").0;
    assert_eq!((response.0[0], response.snack_tag(), response.stat_sn()), (0x21, 5, 100));
}

#[test]
fn at_half_of_the_budget_acknowledgement_is_asked_for_and_at_all_of_it_reads_wait() {
    let mut rig = rig(1);
    let data = rig.fill_store();
    // 3 MiB in one READ: three times the budget
    let tag = rig.command(0xc0, &cdb10(0x28, 0, 0, 6144), 3 << 20, &[]);
    let mut got = vec![0; 3 << 20];
    let mut most = 0;
    let mut asked = 0;
    let mut ended = false;
    let mut next_sn = 0;
    for _ in 0..1000 {
        let pdus = rig.pdus(0);
        most = most.max(rig.worker.core.arena.in_use());
        if pdus.is_empty() || ended {
            break;
        }
        let mut answers = Vec::new();
        for (bhs, part) in &pdus {
            if bhs.0[0] == 0x20 {
                if bhs.target_transfer_tag() != u32::MAX {
                    answers.push(ack(bhs.target_transfer_tag(), 100));
                }
                continue;
            }
            assert_eq!((bhs.0[0], bhs.data_sn()), (0x25, next_sn));
            next_sn += 1;
            let at = bhs.buffer_offset() as usize;
            got[at..at + part.len()].copy_from_slice(part);
            if bhs.flags() & 0x40 != 0 {
                asked += 1;
                assert!(
                    at + part.len() >= BUDGET as usize / 4,
                    "not before half of it is in use, with the piece at hand"
                );
                answers.push(snack(2, u32::MAX, bhs.target_transfer_tag(), 100, next_sn, 0));
            }
            ended |= bhs.flags() & 1 != 0;
        }
        for answer in answers {
            rig.send(0, &answer);
        }
    }
    assert!(ended && got == data[..3 << 20], "tag {tag:#x}");
    assert!(asked > 2, "{asked}");
    // the budget and one piece, in segments of 64 KiB
    assert!(most <= (BUDGET as usize + 300_000) / 65_536 + 4, "{most} segments");
    rig.send(0, &ack(u32::MAX, 101));
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn answers_that_are_not_acknowledged_hold_reads_up_and_a_nop_in_asks() {
    let mut rig = rig(2);
    rig.fill_store();
    // 256 KiB each
    for _ in 0..8 {
        rig.command(0xc0, &cdb10(0x28, 0, 0, 512), 262_144, &[]);
    }
    let pdus = rig.pdus(0);
    let statuses = pdus.iter().filter(|(b, _)| b.0[0] == 0x25 && b.flags() & 1 != 0).count() as u32;
    assert!((3..8).contains(&statuses), "{statuses} of 8 went out");
    let ping = pdus.iter().find(|(b, _)| b.0[0] == 0x20).expect("acknowledgement is asked for").0;
    assert_ne!(ping.target_transfer_tag(), u32::MAX);
    let mut done = statuses;
    let mut ttt = ping.target_transfer_tag();
    while done < 8 {
        rig.send(0, &ack(ttt, 100 + done));
        let pdus = rig.pdus(0);
        assert!(!pdus.is_empty(), "{done}");
        for (bhs, _) in pdus {
            if bhs.0[0] == 0x20 {
                ttt = bhs.target_transfer_tag();
            }
            done += u32::from(bhs.0[0] == 0x25 && bhs.flags() & 1 != 0);
        }
    }
    rig.send(0, &ack(u32::MAX, 108));
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn the_oldest_frozen_session_gives_its_data_up_first() {
    let mut rig = rig(2);
    let data = rig.fill_store();
    let level_2 = SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() };
    let mut peers = vec![0];
    for id in 8..14 {
        rig.session(id, level_2.clone());
        peers.push(rig.connect(id, connection(1)));
    }
    // each session leaves 1 MiB unacknowledged and loses its connection
    for (n, &peer) in peers.iter().take(5).enumerate() {
        rig.at(n as u64 * 1000);
        let tag = rig.command_on(peer, 0xc0, &cdb10(0x28, 0, 0, 1792), 917_504, &[]);
        assert!(rig.pdus(peer).iter().any(|(b, _)| b.initiator_task_tag() == tag && b.flags() & 1 != 0));
        rig.peers[peer].end.close();
        rig.step();
    }
    // the fifth went over what the worker keeps: the first gave way
    let peer = rig.connect(SESSION, connection(1));
    let pdus = reassigned(&mut rig, SESSION, peer, 0x100);
    assert_eq!((pdus[0].0.0[0], pdus[0].0.response()), (0x22, 0));
    let last = pdus.last().expect("some");
    assert_eq!((pdus.len(), last.0.0[0], last.0.status()), (2, 0x21, 2), "nothing is left to send: CHECK CONDITION");
    assert_eq!((last.1[4], last.1[14], last.1[15]), (0x0b, 0x11, 0x13), "SNACK rejected (11.4.7.2)");
    let peer = rig.connect(11, connection(1));
    let pdus = reassigned(&mut rig, 11, peer, 0x100);
    let got: Vec<u8> = pdus.iter().filter(|(b, _)| b.0[0] == 0x25).flat_map(|(_, d)| d.clone()).collect();
    assert!(got == data[..917_504], "a later one still has all of it");
    for id in [SESSION, 8, 9, 10, 11, 12, 13] {
        rig.worker.target.close_session(&mut rig.worker.core, id).expect("closed");
    }
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn level_0_keeps_nothing_and_copies_nothing() {
    let mut rig = Rig::new();
    rig.fill_store();
    let before = rig.worker.core.counters.bytes_sent_by_copy;
    rig.run(&cdb10(0x28, 0, 0, 2048), &[], 1 << 20).good();
    assert_eq!(rig.worker.core.counters.bytes_sent_by_copy, before);
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn shuffled_reads_and_writes_keep_their_data() {
    for level in [0, 1, 2] {
        let params = SessionParams {
            error_recovery_level: level,
            data_pdu_in_order: false,
            data_sequence_in_order: false,
            max_outstanding_r2t: 4,
            ..params()
        };
        let mut rig = Rig::with(ram(), params, PlaneOptions::default());
        let data = rig.fill_store();
        rig.worker.target.configure(&mut rig.worker.core, SESSION, None, &[Change::Shuffle(1234)]).expect("configured");
        rig.command(0xc0, &cdb10(0x28, 0, 3, 2000), 1_024_000, &[]);
        let mut got = vec![0; 1_024_000];
        let (mut ended, mut mixed, mut last) = (false, false, 0);
        while !ended {
            let pdus = rig.pdus(0);
            assert!(!pdus.is_empty());
            for (bhs, part) in pdus {
                let at = bhs.buffer_offset() as usize;
                mixed |= at < last;
                last = at;
                got[at..at + part.len()].copy_from_slice(&part);
                ended |= bhs.flags() & 1 != 0;
            }
        }
        assert!(mixed && got == data[1536..1536 + 1_024_000], "level {level}");
        rig.send(0, &ack(u32::MAX, 101));
        assert_eq!(rig.in_use(), 0);
        let new: Vec<u8> = (0..300_032).map(|i| (i / 5) as u8).collect();
        let tag = rig.command(0xa0, &cdb10(0x2a, 0, 7, 586), 300_032, &[]);
        let mut offsets = Vec::new();
        'outer: loop {
            let pdus = rig.pdus(0);
            assert!(!pdus.is_empty());
            let mut answers = Vec::new();
            for (bhs, _) in pdus {
                if bhs.0[0] == 0x21 {
                    break 'outer;
                }
                let (from, len) = (bhs.buffer_offset() as usize, bhs.desired_data_transfer_length() as usize);
                offsets.push(from);
                answers.insert(0, (bhs.target_transfer_tag(), from, len));
            }
            for (ttt, from, len) in answers {
                let half = from + len / 2;
                rig.send(0, &data_out(false, tag, ttt, 0, half as u32, &new[half..from + len]));
                rig.send(0, &data_out(true, tag, ttt, 1, from as u32, &new[from..half]));
            }
        }
        assert!(offsets.windows(2).any(|w| w[1] < w[0]), "{offsets:?}");
        assert!(rig.read_store(3584, 300_032) == new, "level {level}");
    }
}
