//! Buffers and back-pressure: slow readers, full arenas, changes under data that is on its way.

use super::*;
use crate::clock::SECOND;

#[test]
fn an_overlapping_write_does_not_reach_a_read_that_is_on_its_way() {
    let mut rig = Rig::new();
    let old = rig.fill_store();
    rig.peers[0].end.incoming().capacity = 1000; // a reader that takes little at a time
    let read = rig.command(0xc0, &cdb10(0x28, 0, 0, 128), 65_536, &[]);
    let write = rig.command(0xa0, &cdb10(0x2a, 0, 64, 8), 4096, &[0xee; 4096]);
    assert_eq!(rig.read_store(64 * 512, 4096), [0xee; 4096], "the write is done");
    let pdus = rig.pdus(0);
    let data: Vec<u8> =
        pdus.iter().filter(|(b, _)| b.initiator_task_tag() == read).flat_map(|(_, d)| d.clone()).collect();
    assert!(data == old[..65_536], "the read is of one moment");
    assert_eq!(pdus.last().expect("some").0.initiator_task_tag(), write);
    assert_eq!(rig.in_use(), 0);
    let counters = rig.worker.core.counters;
    assert!(counters.bytes_sent_by_copy >= 32_768 && counters.bytes_sent_from_store == 65_536);
}

#[test]
fn reads_of_a_slow_reader_are_pulled() {
    let mut rig = Rig::new();
    let data = rig.fill_store();
    rig.peers[0].end.incoming().capacity = 1;
    let tags: Vec<u32> = (0..16).map(|i| rig.command(0xc0, &cdb10(0x28, 0, i * 2048, 2048), 1 << 20, &[])).collect();
    let session = rig.worker.target.shared_for_tests();
    assert!(session.unsent < 1024 * 1024, "{}", session.unsent);
    rig.peers[0].end.incoming().capacity = 300_000;
    let pdus = rig.pdus(0);
    for (i, tag) in tags.iter().enumerate() {
        let got: Vec<u8> =
            pdus.iter().filter(|(b, _)| b.initiator_task_tag() == *tag).flat_map(|(_, d)| d.clone()).collect();
        assert!(got == data[i << 20..(i + 1) << 20]);
    }
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn unsolicited_data_without_room_ends_in_task_set_full() {
    let options = PlaneOptions { arena_bytes: 4 * 65_536, ..PlaneOptions::default() };
    let mut rig = Rig::with(ram(), params(), options);
    rig.set_gate(Gate::Hold);
    for _ in 0..6 {
        rig.command(0xa0, &cdb10(0x2a, 0, 0, 128), 65_536, &[1; 40_000]);
    }
    rig.set_gate(Gate::Pass);
    let pdus = rig.pdus(0);
    let full = pdus.iter().filter(|(b, _)| b.0[0] == 0x21 && b.status() == 0x28).count();
    assert!(full >= 2, "{full}");
    // what had room is asked for the rest
    assert_eq!(pdus.iter().filter(|(b, _)| b.0[0] == 0x31).count() + full, 6);
    for (bhs, _) in pdus {
        if bhs.0[0] == 0x31 {
            let (offset, len) = (bhs.buffer_offset(), bhs.desired_data_transfer_length() as usize);
            let (tag, ttt) = (bhs.initiator_task_tag(), bhs.target_transfer_tag());
            rig.send(0, &data_out(true, tag, ttt, 0, offset, &vec![1; len]));
        }
    }
    assert!(rig.pdus(0).iter().all(|(b, _)| b.status() == 0));
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn writes_whose_data_never_comes_leave_room_for_others() {
    let options = PlaneOptions { arena_bytes: 64 * 65_536, ..PlaneOptions::default() };
    let mut rig = Rig::with(ram(), params(), options);
    rig.session(8, params());
    let other = rig.connect(8, connection(1));
    for i in 0..200 {
        rig.command(0xa0, &cdb10(0x2a, 0, i * 128, 128), 65_536, &[]);
    }
    let asked = rig.pdus(0).iter().filter(|(b, _)| b.0[0] == 0x31).count();
    assert!(asked <= 17, "a quarter of the arena: {asked}");
    let data = vec![5; 300_000 / BLOCK * BLOCK];
    let blocks = (data.len() / BLOCK) as u16;
    let tag = rig.command_on(other, 0xa0, &cdb10(0x2a, 0, 0, blocks), data.len() as u32, &[]);
    assert_eq!(rig.answer(other, tag, &data).status, 0);
    // a NOP passes
    let mut nop = [0; BHS_LEN];
    nop[..2].copy_from_slice(&[0x40, 0x80]);
    nop[16..20].copy_from_slice(&1_u32.to_be_bytes());
    nop[20..24].copy_from_slice(&[0xff; 4]);
    rig.send(0, &nop);
    assert_eq!(rig.pdus(0)[0].0.0[0], 0x20);
}

/// Sessions with eight WRITEs of 64 KiB each, none of whose data comes.
fn silent_writers(rig: &mut Rig, numbers: std::ops::Range<u64>, params: &SessionParams) {
    for silent in numbers {
        rig.session(silent, params.clone());
        let peer = rig.connect(silent, connection(1));
        for i in 0..8 {
            rig.command_on(peer, 0xa0, &cdb10(0x2a, 0, i * 128, 128), 65_536, &[]);
        }
    }
}

#[test]
fn a_few_whose_data_never_comes_are_not_noticed_by_who_has_nothing() {
    let options = PlaneOptions { arena_bytes: 16 * 65_536, ..PlaneOptions::default() };
    let mut rig = Rig::with(ram(), params(), options);
    silent_writers(&mut rig, 20..24, &params());
    rig.session(50, params());
    let honest = rig.connect(50, connection(1));
    let data = vec![7; 65_536];
    for _ in 0..20 {
        let tag = rig.command_on(honest, 0xa0, &cdb10(0x2a, 0, 0, 128), 65_536, &[]);
        assert_eq!(rig.answer(honest, tag, &data).status, 0);
    }
    // a longer burst leaves an eighth to others, and waits for them to go
    let long = rig.command_on(honest, 0xa0, &cdb10(0x2a, 0, 0, 512), 262_144, &[]);
    assert_eq!(rig.pdus(honest).len(), 0);
    rig.at(5 * SECOND);
    assert_eq!(rig.answer(honest, long, &vec![9; 262_144]).status, 0);
}

#[test]
fn who_keeps_memory_for_data_that_never_comes_is_dropped_when_others_wait() {
    let options = PlaneOptions { arena_bytes: 16 * 65_536, ..PlaneOptions::default() };
    for level in [0, 2] {
        let params = SessionParams { error_recovery_level: level, ..params() };
        let mut rig = Rig::with(ram(), params.clone(), options.clone());
        silent_writers(&mut rig, 20..40, &params);
        rig.session(50, params);
        let honest = rig.connect(50, connection(1));
        let data = vec![7; 65_536];
        let tag = rig.command_on(honest, 0xa0, &cdb10(0x2a, 0, 0, 128), 65_536, &[]);
        assert_eq!(rig.pdus(honest).len(), 0, "there is no memory");
        rig.events();
        rig.at(5 * SECOND);
        let lost: Vec<u64> = rig
            .events()
            .iter()
            .filter_map(|e| match e {
                Event::ConnectionLost { session, code: "data-out-timeout", frozen_tasks: 0, .. } => Some(*session),
                _ => None,
            })
            .collect();
        assert!(!lost.is_empty() && !lost.contains(&50), "{lost:?}");
        assert_eq!(rig.answer(honest, tag, &data).status, 0);
    }
}

#[test]
fn every_cut_of_the_stream_gives_the_same_answers() {
    for chunk in [1, 3, 47, 48, 49, 1000, 5000] {
        let mut rig = Rig::new();
        rig.peers[0].end.outgoing().chunk = chunk;
        let data: Vec<u8> = (0..16_384).map(|i| (i / 5) as u8).collect();
        rig.run(&cdb10(0x2a, 0, 7, 32), &data, 0).good();
        let answer = rig.run(&cdb10(0x28, 0, 7, 32), &[], 16_384);
        answer.good();
        assert!(answer.data == data);
        assert_eq!(rig.in_use(), 0);
    }
}

#[test]
fn digests_are_checked_and_made() {
    let mut rig = Rig::new();
    let data = rig.fill_store();
    let peer = rig.connect(SESSION, ConnectionParams { data_digest: true, ..connection(2) });
    rig.peers[peer].next_tag = 0x900;
    rig.command_on(peer, 0xc0, &cdb10(0x28, 0, 9, 1), 512, &[]);
    rig.take(peer);
    let bytes = std::mem::take(&mut rig.peers[peer].bytes);
    assert_eq!(bytes.len(), 48 + 512 + 4);
    assert_eq!(bytes[48..560], data[9 * BLOCK..10 * BLOCK]);
    assert_eq!(bytes[560..], blockwire_wire::crc32c::append(0, &bytes[48..560]).to_le_bytes());
}

/// Reads of 4 KiB, at one's ease, by a slow reader with data digests: some are copied when what they read changes, some when they are
/// sent.
fn slow_digested_reads(rig: &mut Rig, reads: u32) -> usize {
    let peer = rig.connect(SESSION, ConnectionParams { data_digest: true, ..connection(2) });
    rig.peers[peer].end.incoming().capacity = 1000;
    rig.peers[peer].next_tag = 0x900;
    for n in 0..reads {
        rig.command_on(peer, 0xc0, &cdb10(0x28, 0, n * 8, 8), 4096, &[]);
    }
    rig.peers[0].cmd_sn = reads + 1;
    peer
}

/// The data of those reads in order; every digest is checked.
fn digested_data(rig: &mut Rig, peer: usize) -> Vec<u8> {
    rig.take(peer);
    let bytes = std::mem::take(&mut rig.peers[peer].bytes);
    let mut data = Vec::new();
    for pdu in bytes.chunks(48 + 4096 + 4) {
        assert_eq!((pdu[0], pdu.len()), (0x25, 4148));
        assert_eq!(pdu[4144..], blockwire_wire::crc32c::append(0, &pdu[48..4144]).to_le_bytes());
        data.extend_from_slice(&pdu[48..4144]);
    }
    data
}

#[test]
fn a_write_of_another_connection_reaches_neither_digested_reads_nor_their_digests() {
    let mut rig = Rig::new();
    let old = rig.fill_store();
    let peer = slow_digested_reads(&mut rig, 60);
    let waiting = rig.worker.target.shared.direct.len();
    assert!((1..60).contains(&waiting), "{waiting} are copied when they are sent");
    rig.command(0xa0, &cdb10(0x2a, 0, 0, 480), 480 * 512, &[]);
    let (r2t, _) = rig.pdus(0).pop().expect("R2T");
    let (tag, ttt) = (r2t.initiator_task_tag(), r2t.target_transfer_tag());
    let len = r2t.desired_data_transfer_length() as usize;
    for (sn, at) in (0..len).step_by(49_152).enumerate() {
        let n = (len - at).min(49_152);
        rig.send(0, &data_out(at + n == len, tag, ttt, sn as u32, at as u32, &vec![0xee; n]));
    }
    assert_eq!(rig.worker.target.shared.direct.len(), 0);
    assert!(rig.read_store(0, 480 * 512).iter().all(|b| *b == 0xee), "the write is done");
    assert!(digested_data(&mut rig, peer) == old[..60 * 4096]);
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn digests_are_those_of_what_is_sent_whoever_changes_the_memory_and_whenever() {
    let mut rig = Rig::new();
    let old = rig.fill_store();
    let peer = slow_digested_reads(&mut rig, 60);
    // nobody said that it would change: a long clear in the store's own threads that was running before
    blockwire_store::write(&*rig.store.store, 0, &[0xee; 60 * 4096], false).expect("written");
    let data = digested_data(&mut rig, peer);
    assert_eq!(data.len(), 60 * 4096);
    let changed = data.chunks(4096).zip(old.chunks(4096)).filter(|(new, old)| new != old).count();
    assert!((1..60).contains(&changed), "{changed}");
    assert_eq!((rig.in_use(), rig.worker.target.shared.direct.len()), (0, 0));
}

#[test]
fn closing_a_store_lets_go_of_it_and_copies_out_what_is_on_its_way() {
    let mut rig = Rig::new();
    let data = rig.fill_store();
    rig.peers[0].end.incoming().capacity = 1000;
    let read = rig.command(0xc0, &cdb10(0x28, 0, 0, 128), 65_536, &[]);
    let store = Arc::clone(&rig.store.store);
    rig.store = StoreHandle::new(99, ram());
    let before = Arc::strong_count(&store);
    rig.worker.target.store_closing(&mut rig.worker.core, 3);
    assert!(Arc::strong_count(&store) < before && Arc::strong_count(&store) == 1);
    drop(store);
    let pdus = rig.pdus(0);
    let got: Vec<u8> = pdus.iter().flat_map(|(_, d)| d.clone()).collect();
    assert!(pdus.iter().all(|(b, _)| b.initiator_task_tag() == read) && got == data[..65_536]);
    rig.command(0xc0, &cdb10(0x28, 0, 0, 128), 65_536, &[]);
    assert!(matches!(rig.events()[..], [Event::CommandForControl { diverted: false, .. }]));
}

#[test]
fn a_connection_that_is_alone_is_served_until_it_has_nothing_left() {
    // without the stepped driver, which asks every memory transport: only the list of what is ready counts
    let mut rig = Rig::new();
    rig.peers[0].end.outgoing().capacity = 16 << 20;
    rig.peers[0].end.incoming().capacity = 16 << 20;
    rig.step();
    let mut stream = Vec::new();
    for n in 0..64_u32 {
        stream.extend(scsi_command(0xa0, n, n + 1, &cdb10(0x2a, 0, n * 128, 128), 65_536, &vec![n as u8 + 1; 65_536]));
    }
    // more than eight turns of 256 KiB
    let part = Part::new(stream.as_mut_ptr(), stream.len());
    // SAFETY: the part is a vector that outlives the call.
    assert_eq!(unsafe { rig.peers[0].end.send(&[part]) }.expect("room"), stream.len());
    let ready = crate::sys::epoll::Ready { key: 0, readable: true, writable: false, hangup: false };
    let (target, core) = (&mut rig.worker.target, &mut rig.worker.core);
    target.ready(core, 0, ready);
    let mut turns = 1;
    while target.run(core) {
        turns += 1;
        assert!(turns < 100);
    }
    assert!(turns > 1);
    for n in 0..64_u8 {
        assert_eq!(rig.read_store(u64::from(n) * 65_536, 512), [n + 1; 512], "{n}");
    }
}
