//! When answers leave: by quarters of what the initiator keeps in flight, so that both ends work at the same time.

use super::*;
use crate::sys::socket::Part;

/// READs of 512 bytes of an initiator that knows every answer so far, as one piece of input.
fn reads(rig: &mut Rig, count: u32) -> Vec<u8> {
    let exp_stat_sn = rig.peers[0].cmd_sn + 99; // StatSN begins at 100, CmdSN at 1
    let mut bytes = Vec::new();
    for _ in 0..count {
        let Peer { cmd_sn, next_tag, .. } = &mut rig.peers[0];
        let mut pdu = scsi_command(0xc0, *next_tag, *cmd_sn, &cdb10(0x28, 0, 0, 1), 512, &[]);
        pdu[28..32].copy_from_slice(&exp_stat_sn.to_be_bytes());
        bytes.extend(pdu);
        *next_tag += 1;
        *cmd_sn += 1;
    }
    bytes
}

/// Send calls that it takes to answer `count` READs.
fn calls(rig: &mut Rig, count: u32) -> u64 {
    let before = rig.worker.core.counters.send_calls;
    let bytes = reads(rig, count);
    let part = Part::new(bytes.as_ptr().cast_mut(), bytes.len());
    // SAFETY: the part is a slice that outlives the call.
    let sent = unsafe { rig.peers[0].end.send(&[part]) };
    assert_eq!(sent.expect("room"), bytes.len());
    assert_eq!(rig.pdus(0).len(), count as usize);
    rig.worker.core.counters.send_calls - before
}

#[test]
fn answers_leave_by_quarters() {
    let mut rig = Rig::new();
    calls(&mut rig, 32); // from now on it is known how many are in flight
    assert_eq!(calls(&mut rig, 32), 4);
    assert_eq!(calls(&mut rig, 1), 1);
    calls(&mut rig, 4);
    assert!((4..10).contains(&calls(&mut rig, 32)), "a short pause does not make it forget");
    for _ in 0..40 {
        calls(&mut rig, 4);
    }
    assert_eq!(calls(&mut rig, 4), 4, "a long one does");
}

#[test]
fn answers_leave_together_while_another_connection_waits() {
    let mut rig = Rig::new();
    rig.session(SESSION + 1, params());
    rig.connect(SESSION + 1, connection(1));
    calls(&mut rig, 32);
    let waiting = (0..).zip(&rig.worker.target.shared.connections).find_map(|(n, c)| (*c == Some((1, 0))).then_some(n));
    rig.worker.target.shared.ready.push_back(waiting.expect("the other session's"));
    assert_eq!(calls(&mut rig, 32), 1);
    assert_eq!(calls(&mut rig, 32), 4);
}
