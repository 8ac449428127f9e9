//! A worker that panics: its sessions end with a word, waiters get an error, and everybody else goes on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::time::Instant;

use blockwire_proto::{ConnectionParams, SessionParams};

use super::*;
use crate::calls::{Handoff, SessionSpec};
use crate::ending::BROKEN;
use crate::events::{Event, OpResult};
use crate::target::WORKER_PANIC;
use crate::transport::TransportHandle;

fn spec(target_name: &str) -> SessionSpec {
    SessionSpec {
        params: SessionParams::default(),
        initiator_name: "iqn.2026-01.example:a".to_owned(),
        target_name: target_name.to_owned(),
        isid: [0; 6],
        tsih: 1,
        max_connections: 1,
        cmd_sn: 1,
        exp_cmd_sn: 1,
        max_cmd_sn: 1,
    }
}

/// Events of a plane, until one is what is looked for.
fn find<T>(plane: &Plane, seen: &mut Vec<Event>, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = seen.iter().find_map(&mut pick) {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "it does not come: {seen:?}");
        seen.extend(plane.events().drain(64));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn ended(plane: &Plane, seen: &mut Vec<Event>, op: OpId) -> Result<OpResult, Failure> {
    find(plane, seen, |event| match event {
        Event::OpDone { op: o, result } if *o == op => Some(result.clone()),
        _ => None,
    })
}

/// A session of a target, and the initiator's end of its connection.
fn session(plane: &Plane, seen: &mut Vec<Event>, target_name: &str) -> (SessionId, TcpStream) {
    let id = plane.create_target_session(spec(target_name)).expect("created");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let near = TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
    let (far, _) = listener.accept().expect("accepted");
    far.set_nonblocking(true).expect("set");
    near.set_read_timeout(Some(Duration::from_secs(120))).expect("set");
    let handoff = Handoff {
        transport: TransportHandle::Tcp(far.into_raw_fd()),
        params: ConnectionParams { cid: 1, ..ConnectionParams::default() },
        stat_sn: 1,
        exp_stat_sn: 0,
        over_read: Vec::new(),
        peer: String::new(),
        reassigned_from: None,
    };
    let op = plane.adopt(id, handoff);
    ended(plane, seen, op).expect("adopted");
    (id, near)
}

/// An immediate NOP-Out and its answer (RFC 7143 11.18, 11.19).
fn ping(peer: &mut TcpStream) {
    let mut bhs = [0_u8; 48];
    bhs[..2].copy_from_slice(&[0x40, 0x80]);
    bhs[16..20].copy_from_slice(&7_u32.to_be_bytes());
    bhs[20..24].copy_from_slice(&[0xff; 4]);
    bhs[24..28].copy_from_slice(&1_u32.to_be_bytes());
    bhs[28..32].copy_from_slice(&1_u32.to_be_bytes());
    peer.write_all(&bhs).expect("sent");
    peer.read_exact(&mut bhs).expect("answered");
    assert_eq!((bhs[0], bhs[19]), (0x20, 7));
}

fn worker_of(plane: &Plane, id: SessionId) -> usize {
    match plane.session(id).expect("there") {
        Session::Target { worker, .. } => worker,
        Session::Initiator(_) => panic!("a target's"),
    }
}

#[test]
fn a_panic_ends_the_sessions_of_its_worker_with_a_word_and_no_others() {
    let plane =
        Plane::new(PlaneOptions { workers: 2, arena_bytes: 1 << 20, ..PlaneOptions::default() }).expect("plane");
    let mut seen = Vec::new();
    let (first, mut first_peer) = session(&plane, &mut seen, "iqn.2026-01.example:one");
    let (second, mut second_peer) = session(&plane, &mut seen, "iqn.2026-01.example:two");
    let (home, other) = (worker_of(&plane, first), worker_of(&plane, second));
    assert_ne!(home, other);
    ping(&mut first_peer);
    ping(&mut second_peer);
    // one that panics, and one that waits behind it
    let doomed = plane.run_op(home, |_| panic!("injected for the test"));
    let behind = plane.run_op(home, |_| Ok(OpResult::Count(3)));
    let evidence = find(&plane, &mut seen, |event| match event {
        Event::SessionLost { session, code: WORKER_PANIC, evidence } if *session == first => Some(evidence.clone()),
        _ => None,
    });
    assert!(evidence.contains("injected for the test"), "{evidence}");
    assert_eq!(ended(&plane, &mut seen, doomed).expect_err("broken").code, BROKEN);
    assert_eq!(ended(&plane, &mut seen, behind), Ok(OpResult::Count(3)));
    // its connection is cut, the other one knows of nothing
    assert_eq!(first_peer.read(&mut [0; 48]).unwrap_or(0), 0);
    ping(&mut second_peer);
    assert!(!seen.iter().any(|e| matches!(e, Event::SessionLost { session, .. } if *session == second)));
    let op = plane.close_session(first);
    assert_eq!(ended(&plane, &mut seen, op).expect_err("gone").code, "plane.unknown");
    // the worker takes new sessions
    let mut peers: Vec<_> = (0..4).map(|n| session(&plane, &mut seen, &format!("iqn.2026-01.example:n{n}"))).collect();
    assert!(peers.iter().any(|(id, _)| worker_of(&plane, *id) == home));
    for (_, peer) in &mut peers {
        ping(peer);
    }
    assert_eq!(plane.totals().breakdowns, 1);
    plane.shutdown(Duration::from_secs(5));
}

#[test]
fn a_worker_that_is_gone_gets_nothing_new_and_keeps_nobody_waiting() {
    let plane =
        Plane::new(PlaneOptions { workers: 2, arena_bytes: 1 << 20, ..PlaneOptions::default() }).expect("plane");
    let mut seen = Vec::new();
    plane.seats[0].mailbox.close();
    let op = plane.run_op(0, |_| Ok(OpResult::None));
    assert_eq!(ended(&plane, &mut seen, op).expect_err("nobody does it").code, BROKEN);
    for n in 0..4 {
        let (id, mut peer) = session(&plane, &mut seen, &format!("iqn.2026-01.example:n{n}"));
        assert_eq!(worker_of(&plane, id), 1);
        ping(&mut peer);
    }
    plane.shutdown(Duration::from_millis(100));
}
