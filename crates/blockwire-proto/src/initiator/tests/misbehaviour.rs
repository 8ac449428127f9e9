//! What a target can do wrong across connections and tasks, and with numbers that run ahead (RFC 7143 section 7): the error
//! names it, and what it makes us keep is bounded. Single PDUs that are wrong are in `hostile` and `fields`.

use blockwire_wire::{Bhs, Opcode};

use super::peer::*;
use crate::{ConnectionParams, FatalCode, SessionParams};

const TAG: u32 = 0x0001_0000;
const NO_TAG: u32 = 0xffff_ffff;

fn refused(rig: &mut Rig, conn: usize, bytes: &[u8], code: FatalCode, what: &str) {
    let fatal = rig.deliver(conn, bytes).expect_err(what);
    assert_eq!(fatal.code, code, "{}", fatal.what);
    assert!(fatal.what.contains(what), "{} does not say {what}", fatal.what);
}

#[test]
fn what_comes_on_a_connection_that_its_task_is_not_allegiant_to() {
    for level in [0, 2] {
        let session = SessionParams { error_recovery_level: level, immediate_data: false, ..SessionParams::default() };
        let mut rig = Rig::new(session, ConnectionParams::default());
        rig.session.add_connection(ConnectionParams { cid: 1, ..ConnectionParams::default() }, STAT_SN, 0);
        let slot = rig.read(512); // on connection 0
        rig.write(&pattern(512)); // on connection 1
        rig.sent(0);
        rig.sent(1);
        let data = data_in(TAG, 0x80, 0, 0, 0, 0, &pattern(512));
        refused(&mut rig, 1, &data, FatalCode::ProtocolViolation, "Data-In on a connection");
        assert_eq!(rig.memory[&slot], [0; 512], "no byte was placed");
        let session = SessionParams { error_recovery_level: level, immediate_data: false, ..SessionParams::default() };
        let mut rig = Rig::new(session, ConnectionParams::default());
        rig.session.add_connection(ConnectionParams { cid: 1, ..ConnectionParams::default() }, STAT_SN, 0);
        rig.write(&pattern(512));
        rig.read(512);
        rig.sent(0);
        rig.sent(1);
        refused(&mut rig, 1, &r2t(TAG, 1, 0, 0, 512), FatalCode::ProtocolViolation, "R2T on a connection");
        assert!(rig.sent(1).is_empty(), "nothing is sent for it");
        let status = response(TAG, 0x80, 0, STAT_SN, 0, 0, &[]);
        let mut rig = Rig::new(
            SessionParams { error_recovery_level: level, ..SessionParams::default() },
            ConnectionParams::default(),
        );
        rig.session.add_connection(ConnectionParams { cid: 1, ..ConnectionParams::default() }, STAT_SN, 0);
        rig.read(512);
        rig.sent(0);
        refused(&mut rig, 1, &status, FatalCode::ProtocolViolation, "SCSI Response on a connection");
        assert_eq!(rig.session.poll_event(), None, "the task goes on");
    }
}

#[test]
fn a_status_for_what_is_no_command() {
    let mut rig = Rig::plain();
    let mut text = Bhs::new(Opcode::TextRequest, 0x80);
    text.set_target_transfer_tag(NO_TAG);
    rig.session.submit_control(None, &text, b"A=b\0", 5).unwrap();
    rig.sent(0);
    let status = response(TAG, 0x80, 0, STAT_SN, 0, 0, &[]);
    refused(&mut rig, 0, &status, FatalCode::ProtocolViolation, "no SCSI command");
}

#[test]
fn good_status_over_a_hole() {
    let session = SessionParams { data_pdu_in_order: false, data_sequence_in_order: false, ..SessionParams::default() };
    let mut rig = Rig::new(session, ConnectionParams::default());
    rig.read(1024);
    rig.sent(0);
    rig.deliver(0, &data_in(TAG, 0x80, 0, 0, 0, 0, &pattern(100))).unwrap();
    rig.deliver(0, &data_in(TAG, 0x80, 0, 1, 200, 0, &pattern(100))).unwrap();
    let status = response(TAG, 0x82, 0, STAT_SN, 0, 824, &[]);
    refused(&mut rig, 0, &status, FatalCode::ProtocolViolation, "hole in the data");
    assert_eq!(rig.session.poll_event(), None, "nobody takes it for data");
}

#[test]
fn statuses_that_run_ahead_are_kept_within_a_bound() {
    let session = || SessionParams { error_recovery_level: 1, ..SessionParams::default() };
    let mut rig = Rig::new(session(), ConnectionParams::default());
    rig.read(512);
    rig.sent(0);
    let far = response(TAG, 0x80, 0, STAT_SN + 5000, 0, 0, &[]);
    refused(&mut rig, 0, &far, FatalCode::SequenceGap, "far ahead");
    // one status is missing; what follows it is kept, but not for ever
    let mut rig = Rig::new(session(), ConnectionParams::default());
    let mut kept = 0;
    for ahead in 1..4000 {
        let message = pdu(0x32, 0x80, [0, 0], NO_TAG, [0, STAT_SN + ahead, 0x10, 0x1f, 0, 0, 0], &[7; 8192]);
        match rig.deliver(0, &message) {
            Ok(()) => kept += 8192,
            Err(fatal) => {
                assert_eq!(fatal.code, FatalCode::SequenceGap);
                assert!(fatal.what.contains("too much waits"), "{}", fatal.what);
                break;
            }
        }
    }
    assert!((500_000..2_000_000).contains(&kept), "{kept}");
    assert_eq!(rig.session.poll_event(), None);
}
