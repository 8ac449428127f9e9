//! Gates and the answers of the control plane.

use super::*;
use crate::calls::{Answer as Reply, Effects};
use crate::events::TaskTag;

fn up(rig: &mut Rig) -> Vec<(TaskTag, Vec<u8>, bool)> {
    rig.events()
        .into_iter()
        .filter_map(|event| match event {
            Event::CommandForControl { tag, data, diverted, .. } => Some((tag, data, diverted)),
            _ => None,
        })
        .collect()
}

fn reply(rig: &mut Rig, tag: TaskTag, answer: Reply) {
    rig.worker.target.reply(&mut rig.worker.core, SESSION, tag, answer, Effects::default());
    rig.step();
}

fn status(status: u8, sense: &[u8], data: &[u8]) -> Reply {
    Reply::Status { status, response: 0, sense: sense.to_vec(), data: data.to_vec() }
}

#[test]
fn hold_parks_in_order_and_pass_lets_go() {
    let mut rig = Rig::new();
    rig.set_gate(Gate::Hold);
    let write = rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[7; 4096]);
    let read = rig.command(0xc0, &cdb10(0x28, 0, 8, 8), 4096, &[]);
    assert!(rig.pdus(0).is_empty());
    assert_eq!(rig.read_store(4096, 4096), [0; 4096]);
    rig.set_gate(Gate::Pass);
    let pdus = rig.pdus(0);
    assert_eq!(pdus.iter().map(|(b, _)| b.initiator_task_tag()).collect::<Vec<_>>(), [write, read]);
    assert_eq!(pdus[1].1, [7; 4096]);
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn one_command_is_diverted_and_the_rest_wait() {
    let mut rig = Rig::new();
    rig.set_gate(Gate::DivertOne);
    rig.command(0xa0, &cdb10(0x2a, 0, 8, 8), 4096, &[7; 4096]);
    let second = rig.command(0xc0, &cdb10(0x28, 0, 8, 8), 4096, &[]);
    let sent_up = up(&mut rig);
    assert_eq!(sent_up.len(), 1);
    assert!(sent_up[0].2);
    assert_eq!(sent_up[0].1, [7; 4096]);
    let sense = [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0];
    reply(&mut rig, sent_up[0].0, status(2, &sense, &[]));
    let pdus = rig.pdus(0);
    assert_eq!((pdus.len(), pdus[0].0.status(), &pdus[0].1[2..]), (1, 2, &sense[..]));
    rig.set_gate(Gate::Pass);
    let pdus = rig.pdus(0);
    assert_eq!((pdus[0].0.initiator_task_tag(), pdus[0].0.status()), (second, 0));
}

#[test]
fn when_the_picked_command_ends_before_it_goes_up_the_next_one_goes() {
    let mut rig = Rig::new();
    rig.set_gate(Gate::DivertOne);
    // F=0: unsolicited data is still to come, so it waits on its way up
    let picked = rig.command(0x20, &cdb10(0x2a, 0, 8, 16), 8192, &[7; 4096]);
    let second = rig.command(0xc0, &cdb10(0x28, 0, 8, 8), 4096, &[]);
    let third = rig.command(0xc0, &cdb10(0x28, 0, 16, 8), 4096, &[]);
    assert!(up(&mut rig).is_empty());
    rig.abort(AbortTarget::Task { session: SESSION, initiator_task_tag: picked, ref_cmd_sn: None }, None);
    rig.step();
    let sent_up = up(&mut rig);
    assert_eq!(sent_up.len(), 1, "one goes up in its place, the other one is held");
    reply(&mut rig, sent_up[0].0, status(0, &[], &[]));
    rig.set_gate(Gate::Pass);
    let tags: Vec<u32> = rig.pdus(0).iter().map(|(b, _)| b.initiator_task_tag()).collect();
    assert_eq!(tags, [second, third]);
}

#[test]
fn resume_runs_it_here_and_collect_fetches_first() {
    let mut rig = Rig::new();
    rig.set_gate(Gate::Divert);
    let tag = rig.command(0xa0, &cdb10(0x2a, 0, 8, 32), 16_384, &[1; 4096]);
    let [(task, ref data, true)] = up(&mut rig)[..] else { panic!() };
    assert_eq!(data.len(), 4096);
    reply(&mut rig, task, Reply::Collect { length: 16_384 });
    let all: Vec<u8> = (0..16_384).map(|i| if i < 4096 { 1 } else { (i / 64) as u8 }).collect();
    let r2t = rig.pdus(0)[0].0;
    assert_eq!((r2t.0[0], r2t.buffer_offset(), r2t.desired_data_transfer_length()), (0x31, 4096, 12_288));
    rig.send(0, &data_out(true, tag, r2t.target_transfer_tag(), 0, 4096, &all[4096..]));
    let [(task, ref data, true)] = up(&mut rig)[..] else { panic!() };
    assert!(*data == all);
    reply(&mut rig, task, Reply::Resume);
    assert_eq!(rig.pdus(0)[0].0.status(), 0);
    assert_eq!(rig.read_store(4096, 16_384), all);
    reply(&mut rig, task, Reply::Resume); // a task that is over needs no answer
    assert!(rig.pdus(0).is_empty());
}

#[test]
fn data_and_status_of_the_control_plane_are_cut_with_a_residual() {
    let mut rig = Rig::new();
    let inquiry: Vec<u8> = (0..96).collect();
    for (expected, flags, count, len) in [(36, 4, 60, 36), (96, 0, 0, 96), (255, 2, 159, 96)] {
        rig.command(0xc0, &[0x12, 0, 0, 0, 255, 0], expected, &[]);
        let task = up(&mut rig)[0].0;
        reply(&mut rig, task, status(0, &[], &inquiry));
        let (bhs, data) = rig.pdus(0).remove(0);
        assert_eq!((bhs.flags() & 6, bhs.residual_count(), &data[..]), (flags, count, &inquiry[..len]));
    }
    assert_eq!(rig.in_use(), 0);
}

#[test]
fn a_text_request_is_answered_and_changes_the_segment_length_with_its_answer() {
    let mut rig = Rig::new();
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x04, 0x80]);
    bhs[7] = 31;
    bhs[16..20].copy_from_slice(&9_u32.to_be_bytes());
    bhs[20..24].copy_from_slice(&[0xff; 4]);
    bhs[24..28].copy_from_slice(&1_u32.to_be_bytes());
    rig.peers[0].cmd_sn += 1;
    rig.send(0, &padded(&bhs, b"MaxRecvDataSegmentLength=1024\0\0"));
    let Some(Event::ControlPdu { tag, data, cid: 1, .. }) = rig.events().pop() else { panic!() };
    assert!(data.starts_with(b"MaxRecv"));
    let mut header = [0; BHS_LEN];
    header[..2].copy_from_slice(&[0x24, 0x80]);
    let effects = Effects { max_send_data_segment_length: Some(1024), ..Effects::default() };
    let answer = Reply::Pdu { header, data: b"x=y\0".to_vec() };
    rig.worker.target.reply(&mut rig.worker.core, SESSION, tag, answer, effects);
    let (bhs, data) = rig.pdus(0).remove(0);
    assert_eq!((bhs.0[0], bhs.initiator_task_tag(), bhs.stat_sn(), &data[..]), (0x24, 9, 100, &b"x=y\0"[..]));
    rig.command(0xc0, &cdb10(0x28, 0, 0, 8), 4096, &[]);
    assert!(rig.pdus(0).iter().all(|(b, _)| b.data_segment_length() == 1024));
}

#[test]
fn close_takes_effect_after_the_answer_left() {
    let mut rig = Rig::new();
    let mut bhs = [0; BHS_LEN];
    bhs[..2].copy_from_slice(&[0x46, 0x80]);
    bhs[16..20].copy_from_slice(&9_u32.to_be_bytes());
    rig.send(0, &bhs);
    let Some(Event::ControlPdu { tag, .. }) = rig.events().pop() else { panic!() };
    let mut header = [0; BHS_LEN];
    header[..2].copy_from_slice(&[0x26, 0x80]);
    let effects = Effects { close: true, ..Effects::default() };
    rig.worker.target.reply(&mut rig.worker.core, SESSION, tag, Reply::Pdu { header, data: Vec::new() }, effects);
    assert_eq!(rig.pdus(0)[0].0.0[0], 0x26);
    assert_eq!(rig.events(), [Event::ConnectionClosed { session: SESSION, cid: 1 }]);
}
