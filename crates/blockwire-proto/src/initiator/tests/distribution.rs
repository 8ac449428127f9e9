//! Which connection gets which command, and how they are numbered across: RFC 7143 4.2.2.1.

use super::super::Distribution;
use super::connections::{SECOND, connection, status, tag, two};
use super::peer::*;

#[test]
fn commands_are_spread_and_numbered_across() {
    for (policy, expected) in [(Distribution::LeastQueued, [2, 2]), (Distribution::RoundRobin, [2, 2])] {
        let mut rig = two();
        rig.session.set_distribution(policy);
        for _ in 0..4 {
            rig.command(&[0; 6], 0, 0);
        }
        let out = [rig.sent(0), rig.sent(1)];
        let numbers: Vec<Vec<u32>> = out.iter().map(|o| split(o).iter().map(|(h, _)| word(h, 24)).collect()).collect();
        assert_eq!([numbers[0].len(), numbers[1].len()], expected);
        // one numbering of the session, ascending on each connection (4.2.2.1)
        assert_eq!(numbers, [[0x10, 0x12], [0x11, 0x13]]);
        // 4.2.2.2: ExpStatSN is the connection's
        assert_eq!((word(&split(&out[0])[0].0, 28), word(&split(&out[1])[0].0, 28)), (STAT_SN, SECOND));
        // 4.2.2: the answer comes on the task's own connection
        let on_second = tag(&out[1], 0);
        assert!(rig.deliver(0, &status(on_second, STAT_SN, 0x14, 0)).is_err());
    }
    // least queued prefers the one that is done, round robin does not care
    let mut rig = two();
    rig.command(&[0; 6], 0, 0);
    rig.command(&[0; 6], 0, 0);
    let done = tag(&rig.sent(1), 0);
    rig.sent(0);
    rig.deliver(1, &status(done, SECOND, 0x12, 0)).unwrap();
    rig.command(&[0; 6], 0, 0);
    assert!(rig.sent(0).is_empty() && !rig.sent(1).is_empty());
}

#[test]
fn no_connection_runs_dry_while_another_has_its_turn() {
    let mut rig = two();
    for cid in [3, 4] {
        rig.session.add_connection(connection(cid, 1024), SECOND, 0);
    }
    let mut waiting: [Vec<u32>; 4] = Default::default();
    let mut stat_sn = [STAT_SN, SECOND, SECOND, SECOND];
    let mut exp = 0x10;
    let submit = |rig: &mut Rig, waiting: &mut [Vec<u32>; 4]| {
        rig.command(&[0; 6], 0, 0);
        for (conn, tags) in waiting.iter_mut().enumerate() {
            tags.extend(split(&rig.sent(conn)).iter().map(|(header, _)| word(header, 16)));
        }
    };
    for _ in 0..12 {
        submit(&mut rig, &mut waiting);
        exp += 1;
    }
    assert_eq!([0, 1, 2, 3].map(|conn| rig.session.tasks_on(conn)), [2, 2, 3, 5]);
    // links of the same speed: each ends a command, and a new one follows at once
    for step in 0..400 {
        let conn = step % 4;
        assert!(!waiting[conn].is_empty(), "connection {conn} has nothing to do at {step}");
        let done = waiting[conn].remove(0);
        let good = pdu(0x21, 0x80, [0, 0], done, [0, stat_sn[conn], exp, exp + 0x40, 0, 0, 0], &[]);
        rig.deliver(conn, &good).unwrap();
        stat_sn[conn] += 1;
        rig.ended();
        submit(&mut rig, &mut waiting);
        exp += 1;
    }
}

#[test]
fn within_one_machine_runs_are_longer() {
    let mut rig = two();
    for cid in [3, 4] {
        rig.session.add_connection(connection(cid, 1024), SECOND, 0);
    }
    rig.session.set_one_machine(true);
    // one request at a time: the connections take turns of 64
    let (mut turns, mut exp) = (Vec::new(), 0x10);
    let mut stat_sn = [STAT_SN, SECOND, SECOND, SECOND];
    for _ in 0..5 * 64 {
        rig.command(&[0; 6], 0, 0);
        exp += 1;
        let conn = (0..4).find(|conn| rig.session.tasks_on(*conn) == 1).expect("it is somewhere");
        let done = tag(&rig.sent(conn), 0);
        let good = pdu(0x21, 0x80, [0, 0], done, [0, stat_sn[conn], exp, exp + 0x40, 0, 0, 0], &[]);
        rig.deliver(conn, &good).unwrap();
        stat_sn[conn] += 1;
        rig.ended();
        turns.push(conn);
    }
    let runs: Vec<(usize, usize)> = turns.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
    assert_eq!(runs, [(1, 64), (2, 64), (3, 64), (0, 64), (1, 64)]);
    // a connection that is lost has its turn no more
    rig.command(&[0; 6], 0, 0);
    assert_eq!(rig.session.tasks_on(2), 1);
    rig.session.lose_connection(2, false);
    rig.command(&[0; 6], 0, 0);
    assert_eq!(rig.session.tasks_on(3), 1);
}

#[test]
fn long_queues_are_spread_in_runs_and_short_ones_one_by_one() {
    let mut rig = two();
    for expected in [[1, 0], [1, 1], [2, 1], [2, 2]] {
        rig.command(&[0; 6], 0, 0);
        assert_eq!([rig.session.tasks_on(0), rig.session.tasks_on(1)], expected);
    }
    for _ in 4..12 {
        rig.command(&[0; 6], 0, 0);
    }
    assert_eq!([rig.session.tasks_on(0), rig.session.tasks_on(1)], [6, 6]);
    let out = [rig.sent(0), rig.sent(1)];
    for (conn, stat_sn) in [(0, STAT_SN), (1, SECOND)] {
        for n in 0..4 {
            rig.deliver(conn, &status(tag(&out[conn], n), stat_sn + n as u32, 0x1c, 0)).unwrap();
            assert_eq!(rig.ended(), good(0));
        }
    }
    // a run, up to an even share of them ahead: half, with two
    for expected in [[3, 2], [4, 2], [5, 2], [6, 2]] {
        rig.command(&[0; 6], 0, 0);
        assert_eq!([rig.session.tasks_on(0), rig.session.tasks_on(1)], expected);
    }
    // a connection that is lost has its turn no more
    rig.session.lose_connection(0, false);
    let before = rig.session.tasks_on(1);
    rig.command(&[0; 6], 0, 0);
    assert_eq!(rig.session.tasks_on(1), before + 1);
}
