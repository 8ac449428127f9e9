//! Tasks that outlive their connection.

use super::super::{Event, Outcome};
use super::peer::*;
use crate::{ConnectionParams, SessionParams};

const TAG: u32 = 0x0001_0000;

fn level_2() -> Rig {
    let session = SessionParams { error_recovery_level: 2, immediate_data: false, ..SessionParams::default() };
    Rig::new(session, ConnectionParams { cid: 1, ..ConnectionParams::default() })
}

fn second(rig: &mut Rig, segment: u32) {
    let params = ConnectionParams {
        cid: 2,
        max_recv_data_segment_length: segment,
        max_send_data_segment_length: segment,
        ..ConnectionParams::default()
    };
    assert_eq!(rig.session.add_connection(params, 0x500, 0), 0);
}

#[test]
fn a_lost_connection_ends_its_tasks_at_level_0() {
    let mut rig = Rig::plain();
    rig.write(&pattern(4096));
    rig.session.lose_connection(0, false);
    assert_eq!(rig.ended(), Some(Outcome::ConnectionLost));
    assert!(rig.session.is_dead());
    assert_eq!(rig.session.unfinished(), 0);
}

#[test]
fn a_begun_pdu_keeps_the_buffer() {
    let mut rig = Rig::plain();
    let slot = rig.write(&pattern(4096));
    // half of the command with its immediate data is out when the target already answers
    use crate::Endpoint as _;
    rig.session.send_queue(0).sent(100, |_| ());
    rig.deliver(0, &response(TAG, 0x80, 0x28, STAT_SN, 0, 0, &[])).unwrap();
    assert_eq!(rig.session.poll_event(), None);
    let unsent = rig.session.send_queue(0).unsent_bytes();
    rig.session.send_queue(0).sent(unsent, |_| ());
    rig.session.payload_sent(slot);
    assert!(matches!(rig.ended(), Some(Outcome::Status { status: 0x28, .. })));
}

#[test]
fn a_read_goes_on_with_another_segment_length() {
    let mut rig = level_2();
    let slot = rig.read(4096);
    rig.sent(0);
    let data = pattern(4096);
    let mut bytes = data_in(TAG, 0, 0, 0, 0, 0, &data[..1024]);
    bytes.extend(data_in(TAG, 0, 0, 1, 1024, 0, &data[1024..2048]));
    // the third is cut in its middle
    let third = data_in(TAG, 0, 0, 2, 2048, 0, &data[2048..3072]);
    bytes.extend(&third[..500]);
    rig.deliver(0, &bytes).unwrap();
    rig.session.lose_connection(0, true);
    assert_eq!(rig.session.poll_event(), None);
    assert_eq!(rig.session.received_prefix(slot), 2048);
    second(&mut rig, 600);
    assert_eq!(rig.session.frozen(Some(1)), [slot]);
    assert!(rig.session.rebind(slot, 0));
    let out = split(&rig.sent(0));
    let header = &out[0].0;
    assert_eq!(header[..2], [0x42, 0x88], "immediate, TASK REASSIGN is 8 (11.5.1)");
    assert_eq!((word(header, 20), word(header, 36)), (TAG, 2), "tag, ExpDataSN");
    let mut bytes = pdu(0x22, 0x80, [0, 0], word(header, 16), [0, 0x500, EXP, MAX, 0, 0, 0], &[]);
    for (i, offset) in (2048..4096).step_by(512).enumerate() {
        let flags = if offset == 3584 { 0x81 } else { 0 };
        bytes.extend(data_in(TAG, flags, 0x501, 2 + i as u32, offset as u32, 0, &data[offset..offset + 512]));
    }
    for byte in bytes {
        rig.deliver(0, &[byte]).unwrap();
    }
    assert_eq!(rig.ended(), good(0));
    assert_eq!(rig.memory[&slot], data);
}

#[test]
fn a_write_is_asked_for_again() {
    let mut rig = level_2();
    let data = pattern(4096);
    let slot = rig.write(&data);
    rig.sent(0);
    rig.deliver(0, &r2t(TAG, 7, 0, 0, 4096)).unwrap();
    rig.session.lose_connection(0, true);
    second(&mut rig, 600);
    rig.session.rebind(slot, 0);
    let out = split(&rig.sent(0));
    let mut bytes = pdu(0x22, 0x80, [0, 0], word(&out[0].0, 16), [0, 0x500, EXP, MAX, 0, 0, 0], &[]);
    bytes.extend(r2t(TAG, 8, 1, 1000, 3096));
    rig.deliver(0, &bytes).unwrap();
    let sent: Vec<u8> = split(&rig.sent(0)).into_iter().flat_map(|(_, d)| d).collect();
    assert_eq!(sent, data[1000..]);
    rig.deliver(0, &response(TAG, 0x80, 0, 0x501, 0, 0, &[])).unwrap();
    assert_eq!(rig.ended(), good(0));
}

#[test]
fn an_unacknowledged_command_is_sent_again_with_its_number() {
    let mut rig = level_2();
    let slot = rig.read(512);
    rig.sent(0);
    rig.session.lose_connection(0, true);
    second(&mut rig, 8192);
    assert!(rig.session.rebind(slot, 0));
    let out = split(&rig.sent(0));
    // "task does not exist"; ExpCmdSN says that the command never came
    let unknown = pdu(0x22, 0x80, [1, 0], word(&out[0].0, 16), [0, 0x500, 0x10, 0x1f, 0, 0, 0], &[]);
    rig.deliver(0, &unknown).unwrap();
    let out = split(&rig.sent(0));
    let header = &out[0].0;
    assert_eq!((header[0], word(header, 16), word(header, 24), word(header, 28)), (0x01, TAG, 0x10, 0x501));
    assert_eq!((out.len(), out[1].0[0], word(&out[1].0, 24)), (2, 0x00, 0x11), "10.4: a numbered NOP-Out follows it");
    assert_eq!(rig.session.numbers().0, 0x12);
}

#[test]
fn a_refused_reassignment_leaves_the_task_frozen() {
    let mut rig = level_2();
    let slot = rig.read(512);
    rig.sent(0);
    rig.deliver(0, &data_in(TAG, 0, 0, 0, 0, 0, &pattern(8))).unwrap();
    rig.session.lose_connection(0, true);
    second(&mut rig, 8192);
    rig.session.rebind(slot, 0);
    let out = split(&rig.sent(0));
    rig.deliver(0, &pdu(0x22, 0x80, [3, 0], word(&out[0].0, 16), [0, 0x500, EXP, MAX, 0, 0, 0], &[])).unwrap();
    assert_eq!(rig.session.poll_event(), Some(Event::ReassignRefused { context: 77, response: 3 }));
    assert_eq!(rig.session.frozen(None), [slot]);
    rig.session.end_frozen(None);
    assert_eq!(rig.ended(), Some(Outcome::ConnectionLost));
}
