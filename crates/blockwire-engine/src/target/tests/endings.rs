//! What a connection leaves behind: its last words, answers that are known on the other side, tasks that are asked about.

use super::*;
use crate::calls::{Answer as Reply, Effects};

fn level(error_recovery_level: u8) -> SessionParams {
    SessionParams { error_recovery_level, data_sequence_in_order: false, ..params() }
}

fn digests(cid: u16) -> ConnectionParams {
    ConnectionParams { data_digest: true, ..connection(cid) }
}

/// A WRITE of a block with immediate data and a data digest that is wrong.
fn damaged_write() -> Vec<u8> {
    let mut bytes = scsi_command(0xa0, 0x100, 1, &cdb10(0x2a, 0, 0, 1), 512, &[7; 512]);
    bytes.extend([1, 2, 3, 4]);
    bytes
}

/// RFC 7143 7.8, 7.1.5: the Reject goes out, then the connection ends; its CmdSN would stay open for ever.
#[test]
fn damaged_immediate_data_at_level_0_is_rejected_before_the_connection_ends() {
    let mut rig = Rig::new();
    let peer = rig.connect(SESSION, digests(2));
    rig.send(peer, &damaged_write());
    rig.take(peer);
    let reject = rig.peers[peer].bytes.clone();
    assert_eq!((reject[0], reject[2], reject[48]), (0x3f, 0x02, 0x01), "the header that was wrong is its data");
    let events = rig.events();
    let expected = matches!(
        events[..],
        [Event::DigestFailure { header_digest: false, .. }, Event::ConnectionLost { cid: 2, code: "data-digest", .. }]
    );
    assert!(expected, "{events:?}");
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn so_it_is_with_what_came_behind_the_login() {
    let mut rig = Rig::new();
    let (here, there) = MemoryEnd::pair();
    let handoff = Handoff {
        transport: TransportHandle::Memory(memory_pair::publish(there)),
        params: digests(2),
        stat_sn: 100,
        exp_stat_sn: 0,
        over_read: damaged_write(),
        peer: String::new(),
        reassigned_from: None,
    };
    rig.worker.target.adopt(&mut rig.worker.core, SESSION, handoff).expect("adopted");
    rig.peers.push(Peer { end: here, bytes: Vec::new(), cmd_sn: 1, next_tag: 0x100 });
    rig.take(1);
    assert_eq!(rig.peers[1].bytes[..3], [0x3f, 0x80, 0x02]);
    assert!(matches!(rig.events()[..], [_, Event::ConnectionLost { cid: 2, code: "data-digest", .. }]));
}

fn reinstate(rig: &mut Rig, exp_stat_sn: u32) -> usize {
    let (here, there) = MemoryEnd::pair();
    let handoff = Handoff {
        transport: TransportHandle::Memory(memory_pair::publish(there)),
        params: connection(1),
        stat_sn: 500,
        exp_stat_sn,
        over_read: Vec::new(),
        peer: String::new(),
        reassigned_from: Some(1),
    };
    rig.worker.target.adopt(&mut rig.worker.core, SESSION, handoff).expect("adopted");
    rig.peers.push(Peer { end: here, bytes: Vec::new(), cmd_sn: 1, next_tag: 0x100 });
    rig.step();
    rig.peers.len() - 1
}

fn tasks(rig: &mut Rig) -> Vec<u32> {
    let scope = AbortScope::of(AbortTarget::Nexus { session: SESSION });
    let mut found: Vec<u32> =
        rig.worker.target.query(&mut rig.worker.core, &scope).iter().map(|t| t.initiator_task_tag).collect();
    found.sort_unstable();
    found
}

/// 11.12.9: the ExpStatSN of a login that reinstates its connection is that of the old one.
#[test]
fn a_reinstating_login_acknowledges_the_answers_of_the_old_connection() {
    for (exp_stat_sn, left) in [(102, vec![0x102]), (100, vec![0x100, 0x101, 0x102]), (104, vec![0x100, 0x101, 0x102])]
    {
        let mut rig = Rig::with(ram(), level(2), PlaneOptions::default());
        rig.fill_store();
        for _ in 0..3 {
            rig.command(0xc0, &cdb10(0x28, 0, 0, 1), 512, &[]);
        }
        assert_eq!(rig.pdus(0).len(), 3);
        let at = rig.in_use();
        let peer = reinstate(&mut rig, exp_stat_sn);
        assert_eq!(tasks(&mut rig), left, "ExpStatSN {exp_stat_sn}");
        assert!(rig.in_use() <= at);
        assert!(rig.pdus(peer).is_empty(), "each task waits for its TASK REASSIGN");
    }
}

/// RFC 7144 6.3: QUERY TASK of a task whose connection was logged out establishes a new allegiance.
#[test]
fn the_answer_of_query_task_comes_before_what_the_task_sends_on_its_new_connection() {
    let mut rig = Rig::with(ram(), level(2), PlaneOptions::default());
    let data = rig.fill_store();
    let other = rig.connect(SESSION, connection(2));
    rig.peers[0].end.incoming().cut_after = Some(20_000);
    let tag = rig.command(0xc0, &cdb10(0x28, 0, 5, 128), 65_536, &[]);
    rig.pdus(0);
    rig.release(1, ReleaseMode::Freeze);
    rig.events();
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x42, 0x89]);
    bhs[16..20].copy_from_slice(&0x5555_u32.to_be_bytes());
    bhs[20..24].copy_from_slice(&tag.to_be_bytes());
    rig.send(other, &bhs);
    let query = rig
        .events()
        .into_iter()
        .find_map(|e| if let Event::ControlPdu { tag, .. } = e { Some(tag) } else { None })
        .expect("sent up");
    let mut header = [0; BHS_LEN];
    header[..3].copy_from_slice(&[0x22, 0x80, 7]);
    let effects = Effects { rebind: Some((tag, Some(1))), ..Effects::default() };
    rig.worker.target.reply(&mut rig.worker.core, SESSION, query, Reply::Pdu { header, data: Vec::new() }, effects);
    let pdus = rig.pdus(other);
    assert_eq!((pdus[0].0.0[0], pdus[0].0.response()), (0x22, 7));
    let mut got = vec![0; 65_536];
    for (bhs, part) in pdus.iter().filter(|(bhs, _)| bhs.0[0] == 0x25) {
        let at = bhs.buffer_offset() as usize;
        got[at..at + part.len()].copy_from_slice(part);
    }
    assert!(got == data[5 * BLOCK..133 * BLOCK], "without an ExpDataSN all of it comes again");
}
