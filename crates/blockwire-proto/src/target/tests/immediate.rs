//! Immediate commands and lost connections (RFC 7143 7.14).

use super::*;

#[test]
fn immediate_commands_end_with_their_connection() {
    // whatever the level: they MUST be ended, and MUST NOT be there to be reassigned
    let level_2 = SessionParams { error_recovery_level: 2, data_sequence_in_order: false, ..params() };
    let mut rig = Rig::new(level_2);
    rig.connect(connection(0, 4096));
    rig.connect(connection(1, 4096));
    let mut immediate = command(0xc0, 1, 1, 100);
    immediate.bhs[0] |= 0x40;
    rig.ok(&immediate);
    let mut answered = command(0xc0, 2, 1, 0);
    answered.bhs[0] |= 0x40;
    rig.ok(&answered);
    rig.ok(&command(0xc0, 3, 1, 100));
    let slots = rig.delivered();
    rig.session.finish(slots[1], Finish::default());
    rig.sent(0);
    assert_eq!(rig.session.freeze_connection(0), 1, "the numbered one alone waits for reassignment");
    rig.drain();
    let released = rig.events();
    assert!(released.contains(&TargetEvent::Released(slots[0])) && released.contains(&TargetEvent::Released(slots[1])));
    let left: Vec<u32> = rig.session.frozen_tasks().map(|(_, t)| t.initiator_task_tag).collect();
    assert_eq!(left, [3]);
    assert_eq!(rig.session.rebind(slots[0], 1, 0), Err(RebindError::NoTask));
    assert_eq!(rig.session.tasks().count(), 1);
    // they no longer count against the bound of immediate commands, which is two in this rig
    for tag in [5, 6] {
        let mut again = command(0xc0, tag, 2, 0);
        again.bhs[0] |= 0x40;
        rig.feed(1, &again.bytes((false, false)), 48).expect("goes on");
    }
    assert_eq!(rig.delivered().len(), 2);
    assert!(rig.sent(1).is_empty(), "no Reject");
}
