//! What a unit attention that is fenced waits for (RFC 7143 4.2.3.6).

use super::*;

const UNIT_ATTENTION: u8 = 2;

/// A write of LUN 0 on `conn` that was asked for and then ended with TASK ABORTED, as a reset does it.
fn aborted(rig: &mut Rig, conn: ConnIndex, itt: u32, cmd_sn: u32) -> u32 {
    rig.feed(conn, &command(0xa0, itt, cmd_sn, 1000).bytes((false, false)), 48).expect("goes on");
    let slot = rig.delivered()[0];
    assert!(rig.session.solicit(slot, 0, 1000));
    let ttt = rig.sent(conn)[0].0.target_transfer_tag();
    assert!(rig.session.finish(slot, Finish { status: 0x40, ..Finish::default() }));
    ttt
}

/// The next command of the unit, answered by the unit attention.
fn attention(rig: &mut Rig, conn: ConnIndex, itt: u32, cmd_sn: u32) -> Slot {
    rig.feed(conn, &command(0x80, itt, cmd_sn, 0).bytes((false, false)), 48).expect("goes on");
    let slot = rig.delivered()[0];
    rig.session.set_effects(slot, true, false);
    rig.session.finish(slot, Finish { status: UNIT_ATTENTION, ..Finish::default() });
    slot
}

fn data(rig: &mut Rig, conn: ConnIndex, itt: u32, ttt: u32) {
    rig.feed(conn, &data_out(true, itt, ttt, 0, 0, &[1; 1000]).bytes((false, false)), 48).expect("goes on");
}

/// Tags and statuses of the SCSI Responses.
fn responses(rig: &mut Rig, conn: ConnIndex) -> Vec<(u32, u8)> {
    let sent = rig.sent(conn);
    sent.iter().filter(|(b, _)| b.0[0] == 0x21).map(|(b, _)| (b.initiator_task_tag(), b.status())).collect()
}

#[test]
fn it_does_not_pass_the_responses_of_affected_tasks() {
    let mut rig = Rig::simple();
    let ttts = [aborted(&mut rig, 0, 1, 1), aborted(&mut rig, 0, 2, 2)];
    attention(&mut rig, 0, 3, 3);
    assert!(responses(&mut rig, 0).is_empty());
    // another command's answer comes behind it
    rig.ok(&command(0x80, 4, 4, 0));
    let later = rig.delivered()[0];
    rig.session.finish(later, Finish::default());
    data(&mut rig, 0, 2, ttts[1]);
    assert_eq!(responses(&mut rig, 0), [(2, 0x40)]);
    data(&mut rig, 0, 1, ttts[0]);
    assert_eq!(responses(&mut rig, 0), [(1, 0x40), (3, UNIT_ATTENTION), (4, 0)]);
    assert!(rig.session.fence.is_clear());
}

#[test]
fn on_no_connection() {
    let mut rig = Rig::new(params());
    rig.connect(connection(0, 4096));
    rig.connect(connection(1, 4096));
    let ttt = aborted(&mut rig, 1, 1, 1);
    attention(&mut rig, 0, 2, 2);
    assert!(responses(&mut rig, 0).is_empty());
    data(&mut rig, 1, 1, ttt);
    assert_eq!(responses(&mut rig, 1), [(1, 0x40)]);
    assert!(responses(&mut rig, 0).is_empty(), "sent, and not known to have arrived");
    let ack = Pdu::new(0x40, 0x80).u32(16, NO_TAG).u32(20, NO_TAG).u32(24, 3).u32(28, 101).bytes((false, false));
    rig.feed(1, &ack, 48).expect("goes on");
    assert_eq!(responses(&mut rig, 0), [(2, UNIT_ATTENTION)]);
}

#[test]
fn it_waits_for_no_other_unit_and_no_longer_than_the_task_lives() {
    // another unit
    let mut rig = Rig::simple();
    aborted(&mut rig, 0, 1, 1);
    let mut other = command(0x80, 2, 2, 0);
    other.bhs[9] = 7;
    rig.ok(&other);
    let slot = rig.delivered()[0];
    rig.session.set_effects(slot, true, false);
    rig.session.finish(slot, Finish { status: UNIT_ATTENTION, ..Finish::default() });
    assert_eq!(responses(&mut rig, 0), [(2, UNIT_ATTENTION)]);
    // ABORT TASK ends the one that it waits for
    attention(&mut rig, 0, 3, 3);
    assert!(responses(&mut rig, 0).is_empty());
    let owed = rig.session.find(1).expect("there");
    assert!(rig.session.abort_task(owed));
    assert_eq!(responses(&mut rig, 0), [(3, UNIT_ATTENTION)]);
    // or its own end
    aborted(&mut rig, 0, 4, 4);
    let slot = attention(&mut rig, 0, 5, 5);
    assert!(rig.session.abort_task(slot));
    rig.ok(&command(0x80, 6, 6, 0));
    let slot = rig.session.find(6).expect("there");
    rig.session.finish(slot, Finish::default());
    assert_eq!(responses(&mut rig, 0), [(6, 0)]);
}

#[test]
fn a_lost_connection_takes_what_it_waits_for_along() {
    for freeze in [false, true] {
        let level = if freeze { 2 } else { 0 };
        let mut rig =
            Rig::new(SessionParams { error_recovery_level: level, data_sequence_in_order: false, ..params() });
        rig.connect(connection(0, 4096));
        rig.connect(connection(1, 4096));
        aborted(&mut rig, 1, 1, 1);
        attention(&mut rig, 0, 2, 2);
        assert!(responses(&mut rig, 0).is_empty());
        if freeze {
            assert_eq!(rig.session.freeze_connection(1), 1);
        } else {
            assert_eq!(rig.session.remove_connection(1), 1);
        }
        rig.drain();
        assert_eq!(responses(&mut rig, 0), [(2, UNIT_ATTENTION)]);
    }
}
