//! Logout with the reason "remove the connection for recovery" (RFC 7143 11.14): what becomes of the connection's requests.

use super::*;

#[test]
fn what_is_not_acknowledged_is_discarded_and_what_is_is_suspended() {
    let mut rig = Rig::new(SessionParams { error_recovery_level: 2, ..params() });
    rig.connect(connection(0, 4096));
    rig.connect(connection(1, 4096));
    let on =
        |rig: &mut Rig, conn: ConnIndex, pdu: &Pdu| rig.feed(conn, &pdu.bytes((false, false)), 48).expect("goes on");
    // CmdSN 1 and 2 are acknowledged: a read with data queued, a write with an R2T queued
    on(&mut rig, 0, &command(0xc0, 3, 1, 8192));
    on(&mut rig, 0, &command(0xa0, 4, 2, 4096));
    let slots = rig.delivered();
    rig.session.send_data(slots[0], 0, 4096, false, None);
    assert!(rig.session.solicit(slots[1], 0, 4096));
    // CmdSN 4 waits for 3, CmdSN 5 is half received: neither is acknowledged
    on(&mut rig, 0, &command(0xc0, 5, 4, 512));
    let half = command(0xa0, 6, 5, 512).with(&[1; 512]).bytes((false, false));
    rig.feed(0, &half[..200], 200).expect("goes on");
    assert_eq!(rig.session.numbers().exp_cmd_sn, 3);

    assert_eq!(rig.session.freeze_connection(0), 2, "those that are acknowledged");
    rig.drain();
    assert_eq!(rig.session.numbers().exp_cmd_sn, 3);
    for tag in [5, 6] {
        assert!(rig.session.find(tag).is_none(), "{tag} is discarded");
    }
    // suspended: neither data nor status nor R2T goes out anywhere
    assert!(!rig.session.solicit(slots[1], 0, 4096));
    rig.session.finish(slots[0], Finish::default());
    assert!(rig.sent(1).is_empty());
    // the numbers are free again: the initiator fills the gap on the other connection (7.2.1)
    rig.events();
    for (tag, cmd_sn) in [(7, 3), (8, 4), (9, 5)] {
        on(&mut rig, 1, &command(0xc0, tag, cmd_sn, 512));
    }
    let tags: Vec<u32> =
        rig.delivered().iter().map(|s| rig.session.task(*s).expect("there").initiator_task_tag).collect();
    assert_eq!(tags, [7, 8, 9]);
    assert_eq!(rig.session.numbers().exp_cmd_sn, 6);
}
