//! Aborts that wait, lost connections, reassignment, keep-alive, stores that answer late.

use blockwire_store::filters::delay;

use super::*;
use crate::calls::{Answer as Reply, Effects};
use crate::clock::SECOND;

#[test]
fn a_slow_store_answers_later_and_fails_with_sense() {
    let (store, held) = delay::manual(ram());
    let mut rig = Rig::with(store, params(), PlaneOptions::default());
    let write = rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[7; 4096]);
    assert!(rig.pdus(0).is_empty());
    assert_eq!(held.release(10), 1);
    assert_eq!(rig.pdus(0)[0].0.initiator_task_tag(), write);
    let read = rig.command(0xc0, &cdb10(0x28, 0, 8, 2048), 1 << 20, &[]);
    let mut got = Vec::new();
    for _ in 0..10 {
        held.release(1);
        for (bhs, data) in rig.pdus(0) {
            assert_eq!(bhs.initiator_task_tag(), read);
            got.extend(data);
        }
    }
    assert_eq!((got.len(), &got[..4096]), (1 << 20, &[7; 4096][..]));
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn an_abort_takes_back_what_has_not_begun() {
    let memory = ram();
    let (store, held) = delay::manual(Arc::clone(&memory));
    let mut rig = Rig::with(store, params(), PlaneOptions::default());
    let tag = rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[7; 4096]);
    let task = AbortTarget::Task { session: SESSION, initiator_task_tag: tag, ref_cmd_sn: None };
    let report = rig.abort(task.clone(), None);
    let report = report.lock().expect("lock").clone().expect("at once");
    assert_eq!((report.affected, report.found, report.complete), (vec![(SESSION, tag)], true, true));
    held.release(10);
    rig.step();
    assert!(rig.pdus(0).is_empty());
    let mut stored = [1; 4096];
    blockwire_store::read(&*memory, 4096, &mut stored).expect("read");
    assert_eq!(stored, [0; 4096], "an aborted write never touches the store");
    assert_eq!(rig.in_use(), 0);
    let report = rig.abort(task, None);
    assert!(!report.lock().expect("lock").as_ref().expect("at once").found);
}

/// A store whose operations begin at once, end when told, and cannot be taken back.
struct Stuck {
    inner: Arc<dyn Store>,
    waiting: Mutex<Vec<(u64, Arc<dyn blockwire_store::CompletionSink>)>>,
}

impl Store for Stuck {
    fn geometry(&self) -> blockwire_store::Geometry {
        self.inner.geometry()
    }
    fn capabilities(&self) -> blockwire_store::Capabilities {
        self.inner.capabilities()
    }
    fn mapping(&self) -> Option<blockwire_store::Mapping> {
        None
    }
    fn identity(&self) -> blockwire_store::StoreIdentity {
        self.inner.identity()
    }
    fn submit(
        &self, _op: blockwire_store::Op, token: u64, sink: &Arc<dyn blockwire_store::CompletionSink>,
    ) -> blockwire_store::Submitted {
        self.waiting.lock().expect("lock").push((token, Arc::clone(sink)));
        blockwire_store::Submitted::Pending
    }
    fn try_cancel(&self, _token: u64) -> bool {
        false
    }
}

#[test]
fn an_abort_waits_for_an_operation_that_can_change_the_medium_up_to_a_bound() {
    let store = Arc::new(Stuck { inner: ram(), waiting: Mutex::default() });
    let mut rig = Rig::with(Arc::clone(&store) as Arc<dyn Store>, params(), PlaneOptions::default());
    rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[7; 4096]);
    let first = rig.abort(AbortTarget::LogicalUnit { store: 3 }, None);
    assert!(first.lock().expect("lock").is_none(), "it waits");
    let (token, sink) = store.waiting.lock().expect("lock").pop().expect("one");
    sink.complete(&[(token, Ok(()))]);
    rig.step();
    assert!(first.lock().expect("lock").as_ref().expect("over").complete);
    assert!(rig.pdus(0).is_empty(), "no response for an aborted task");
    assert_eq!(rig.in_use(), 0);
    // a read cannot change anything: nobody waits
    rig.command(0xc0, &cdb10(0x28, 0, 8, 8), 4096, &[]);
    let second = rig.abort(AbortTarget::LogicalUnit { store: 3 }, None);
    assert!(second.lock().expect("lock").as_ref().expect("over").complete);
    // and what never ends is never called complete
    rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[7; 4096]);
    let third = rig.abort(AbortTarget::Nexus { session: SESSION }, None);
    rig.at(14 * SECOND);
    assert!(third.lock().expect("lock").is_none());
    rig.at(16 * SECOND);
    assert!(!third.lock().expect("lock").as_ref().expect("over").complete);
}

#[test]
fn abort_task_set_waits_for_data_of_the_session_that_asks_and_of_nobody_else() {
    let mut rig = Rig::new();
    rig.session(8, params());
    let other = rig.connect(8, connection(1));
    let tag = rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[]);
    rig.command_on(other, 0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[]);
    let ttt = rig.pdus(0)[0].0.target_transfer_tag();
    let lun = rig.abort(AbortTarget::LogicalUnit { store: 3 }, None);
    let report = lun.lock().expect("lock").clone().expect("at once");
    assert_eq!(report.affected.len(), 2);
    rig.send(0, &data_out(true, tag, ttt, 0, 0, &[1; 4096]));
    assert!(rig.pdus(0).is_empty() && rig.events().is_empty(), "late data is nobody's fault");

    let tag = rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[]);
    let ttt = rig.pdus(0)[0].0.target_transfer_tag();
    let set = rig.abort(AbortTarget::TaskSet { session: SESSION, lun: 0 }, None);
    assert!(set.lock().expect("lock").is_none(), "4.2.3.3 a");
    rig.send(0, &data_out(true, tag, ttt, 0, 0, &[1; 4096]));
    rig.step();
    assert_eq!(set.lock().expect("lock").as_ref().expect("over").affected, [(SESSION, tag)]);
    assert_eq!(rig.read_store(4096, 4096), [0; 4096]);
    assert!(rig.pdus(0).is_empty());
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn a_task_set_is_aborted_with_the_commands_that_come_late() {
    let mut rig = Rig::new();
    let late = scsi_command(0xc0, 0x77, 1, &cdb10(0x28, 0, 0, 1), 512, &[]);
    rig.peers[0].cmd_sn = 2;
    rig.command(0xc0, &cdb10(0x28, 0, 0, 1), 512, &[]); // waits for the late one
    let report = rig.abort(AbortTarget::TaskSet { session: SESSION, lun: 0 }, Some(3));
    assert!(report.lock().expect("lock").is_none(), "4.2.3.3 b");
    rig.send(0, &late);
    rig.step();
    let report = report.lock().expect("lock").clone().expect("over");
    assert_eq!(report.affected.len(), 2);
    assert!(rig.pdus(0).is_empty());
}

#[test]
fn abort_task_of_a_command_that_never_came() {
    let mut rig = Rig::new();
    let task = AbortTarget::Task { session: SESSION, initiator_task_tag: 0x99, ref_cmd_sn: Some(1) };
    assert!(rig.abort(task, None).lock().expect("lock").as_ref().expect("at once").found);
    rig.peers[0].cmd_sn = 2;
    rig.run(&[0; 6], &[], 0).good();
}

#[test]
fn keep_alive_drops_a_silent_peer() {
    let mut rig = Rig::new();
    let silent = ConnectionParams { keep_alive_interval: SECOND, keep_alive_timeout: SECOND / 2, ..connection(2) };
    let peer = rig.connect(SESSION, silent);
    rig.at(SECOND);
    assert_eq!(rig.pdus(peer)[0].0.0[0], 0x20);
    rig.at(2 * SECOND);
    let events = rig.events();
    assert!(matches!(events[..], [Event::ConnectionLost { cid: 2, code: "keep-alive-timeout", .. }]), "{events:?}");
}

#[test]
fn detach_gives_an_idle_connection_back() {
    let mut rig = Rig::new();
    rig.run(&[0; 6], &[], 0).good();
    let tag = rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[]);
    let busy = rig.worker.target.release(&mut rig.worker.core, SESSION, 1, ReleaseMode::Detach);
    assert_eq!(busy.expect_err("busy").code, "connection.busy");
    rig.answer(0, tag, &[1; 4096]).good();
    let released = rig.release(1, ReleaseMode::Detach);
    assert_eq!((released.stat_sn, released.exp_stat_sn), (102, 100));
    assert!(released.transport.is_some());
}

fn level_2() -> SessionParams {
    SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() }
}

/// TASK REASSIGN for `tag`, answered by the control plane with "function complete" and the rebinding.
pub(super) fn reassign(rig: &mut Rig, peer: usize, tag: u32, from: u16, exp_data_sn: u32) {
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x42, 0x88]);
    bhs[16..20].copy_from_slice(&0x5555_u32.to_be_bytes());
    bhs[20..24].copy_from_slice(&tag.to_be_bytes());
    rig.send(peer, &bhs);
    let task = rig
        .events()
        .into_iter()
        .find_map(|e| if let Event::ControlPdu { tag, .. } = e { Some(tag) } else { None })
        .expect("sent up");
    let mut header = [0; BHS_LEN];
    header[..2].copy_from_slice(&[0x22, 0x80]);
    let effects = Effects { rebind: Some((tag, Some(from))), exp_data_sn, ..Effects::default() };
    let answer = Reply::Pdu { header, data: Vec::new() };
    rig.worker.target.reply(&mut rig.worker.core, SESSION, task, answer, effects);
}

#[test]
fn tasks_of_a_cut_connection_go_on_on_another_one_with_another_segment_length() {
    // cut the connection after every so many bytes of the answers to a read
    for cut in [0, 47, 48, 5000, 8240, 20_000, 70_000, 66_000] {
        let mut rig = Rig::with(ram(), level_2(), PlaneOptions::default());
        let data = rig.fill_store();
        let other = rig.connect(SESSION, ConnectionParams { max_send_data_segment_length: 1000, ..connection(2) });
        rig.peers[0].end.incoming().cut_after = Some(cut);
        let tag = rig.command(0xc0, &cdb10(0x28, 0, 5, 128), 65_536, &[]);
        let mut got = vec![0; 65_536];
        let mut next_sn = 0;
        for (bhs, part) in rig.pdus(0) {
            assert_eq!(bhs.data_sn(), next_sn);
            next_sn += 1;
            let at = bhs.buffer_offset() as usize;
            got[at..at + part.len()].copy_from_slice(&part);
        }
        if rig.events().is_empty() {
            rig.release(1, ReleaseMode::Freeze);
        }
        reassign(&mut rig, other, tag, 1, next_sn);
        let pdus = rig.pdus(other);
        assert_eq!(pdus[0].0.0[0], 0x22, "the response first (11.5.1)");
        for (bhs, part) in &pdus[1..] {
            if bhs.0[0] == 0x25 {
                assert_eq!(bhs.data_sn(), next_sn);
                assert!(part.len() <= 1000);
                next_sn += 1;
                let at = bhs.buffer_offset() as usize;
                got[at..at + part.len()].copy_from_slice(part);
            }
        }
        let last = pdus.last().expect("some").0;
        assert!(last.0[0] == 0x21 || last.flags() & 1 != 0, "{last:?}");
        assert_eq!(last.status(), 0);
        assert!(got == data[5 * BLOCK..133 * BLOCK], "cut after {cut}");
    }
}

#[test]
fn a_write_cut_anywhere_is_finished_elsewhere() {
    let data: Vec<u8> = (0..32_768).map(|i| (i / 9) as u8).collect();
    for cut in [48, 3000, 8240, 8241, 8300, 12_000, 20_000, 30_000] {
        let mut rig = Rig::with(ram(), level_2(), PlaneOptions::default());
        let other = rig.connect(SESSION, connection(2));
        let mut stream = scsi_command(0xa0, 0x100, 1, &cdb10(0x2a, 0, 5, 64), 32_768, &data[..8192]);
        let first = stream.clone();
        rig.send(0, &first[..first.len().min(cut)]);
        if cut < stream.len() {
            // the command never came: nothing to reassign
            rig.release(1, ReleaseMode::Freeze);
            assert!(rig.pdus(0).is_empty());
            continue;
        }
        let r2t = rig.pdus(0)[0].0;
        let ttt = r2t.target_transfer_tag();
        stream.clear();
        for (sn, at) in (8192..32_768).step_by(4096).enumerate() {
            stream.extend(data_out(at + 4096 == 32_768, 0x100, ttt, sn as u32, at as u32, &data[at..at + 4096]));
        }
        rig.send(0, &stream[..cut - first.len()]);
        assert_eq!(rig.release(1, ReleaseMode::Freeze).frozen_tasks, 1);
        reassign(&mut rig, other, 0x100, 1, 0);
        let mut answered = false;
        for (bhs, _) in rig.pdus(other) {
            if bhs.0[0] == 0x31 {
                let (from, len) = (bhs.buffer_offset() as usize, bhs.desired_data_transfer_length() as usize);
                let ttt = bhs.target_transfer_tag();
                rig.send(other, &data_out(true, 0x100, ttt, 0, from as u32, &data[from..from + len]));
                answered = true;
            }
        }
        assert!(answered);
        assert_eq!(rig.pdus(other)[0].0.status(), 0);
        assert!(rig.read_store(5 * 512, 32_768) == data);
    }
}

#[test]
fn a_lost_connection_frees_everything() {
    let mut rig = Rig::new();
    rig.set_gate(Gate::Hold);
    rig.command(0xa0, &cdb10(0x2a, 0, 0, 16), 8192, &[1; 8192]);
    rig.set_gate(Gate::Pass);
    rig.command(0xa0, &cdb10(0x2a, 0, 0, 128), 65_536, &[1; 8192]);
    rig.peers[0].end.close();
    rig.step();
    let events = rig.events();
    assert!(matches!(events[..], [Event::ConnectionLost { code: "closed-by-peer", .. }]), "{events:?}");
    assert_eq!(rig.in_use(), 0);
    rig.worker.target.close_session(&mut rig.worker.core, SESSION).expect("closed");
    assert_eq!(rig.worker.target.session_count(), 0);
}
