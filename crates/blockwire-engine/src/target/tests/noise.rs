//! Peers that break the protocol, as the engine tells of them: what is said, what is kept, when the connection goes.

use super::*;

fn told(rig: &mut Rig) -> Vec<String> {
    rig.events()
        .into_iter()
        .filter_map(|event| match event {
            Event::ProtocolViolation { what, .. } => Some(what),
            Event::ConnectionLost { code, evidence, .. } => Some(format!("{code}: {evidence}")),
            _ => None,
        })
        .collect()
}

#[test]
fn noise_after_the_login_ends_the_connection_at_its_first_header() {
    // 480 bytes of 0xff: an opcode that is none, 1,020 bytes of AHS, 2^24 - 1 bytes of data
    let mut rig = Rig::new();
    rig.send(0, &[0xff; 480]);
    let told = told(&mut rig);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("AHS") && told[1].starts_with("protocol-violation: an AHS"), "{told:?}");
    assert!(rig.pdus(0).is_empty());
    assert_eq!(rig.in_use(), 0);
    // a header without AHS is judged by its length
    let mut rig = Rig::new();
    let mut header = [0xff; 48];
    header[4] = 0;
    rig.send(0, &header);
    assert!(self::told(&mut rig)[1].contains("MaxRecvDataSegmentLength"));
}

#[test]
fn a_peer_that_is_rejected_without_end_fills_no_memory() {
    let mut rig = Rig::new();
    let mut bad = [0_u8; 48];
    bad[0] = 0x1b; // an opcode that is none
    bad[16..20].copy_from_slice(&7_u32.to_be_bytes());
    let mut rejects = 0;
    for _ in 0..400 {
        rig.send(0, &bad.repeat(50));
        rejects += rig.pdus(0).iter().filter(|(bhs, _)| bhs.0[0] == 0x3f).count();
    }
    assert_eq!(rejects, 20_000, "each is answered, since the peer reads the answers");
    let mut waiting = 0;
    loop {
        let some = rig.events().len();
        if some == 0 {
            break;
        }
        waiting += some;
    }
    assert!(waiting < 17_000, "{waiting}");
    assert_eq!(rig.worker.core.counters.protocol_violations, 20_000);
}
