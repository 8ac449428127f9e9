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

/// Four connections of one machine, `depth` READs of `length` bytes in flight; connection `stuck` never answers, the others in the
/// order of the commands, `batch` at a time. Returns who got the commands of `rounds` answers after the first fill, as
/// runs, and what each connection has at the end.
fn in_one_machine(
    depth: u32, length: u32, batch: u32, stuck: Option<usize>, rounds: u32,
) -> (Vec<(usize, usize)>, [u32; 4]) {
    let mut rig = two();
    for cid in [3, 4] {
        rig.session.add_connection(connection(cid, 1024), SECOND, 0);
    }
    rig.session.set_one_machine(true);
    let (mut waiting, mut turns) = (Vec::new(), Vec::new());
    let mut stat_sn = [STAT_SN, SECOND, SECOND, SECOND];
    let (mut exp, mut answered) = (0x10, 0);
    // the window has to hold them all
    rig.deliver(0, &pdu(0x20, 0x80, [0, 0], u32::MAX, [u32::MAX, STAT_SN, exp, exp + 0x100, 0, 0, 0], &[])).unwrap();
    loop {
        while waiting.len() < depth as usize {
            rig.command(&[0; 6], 0, length);
            exp += 1;
            for (conn, stat_sn) in stat_sn.iter_mut().enumerate() {
                for (header, _) in split(&rig.sent(conn)) {
                    let tag = word(&header, 16);
                    if header[0] & 0x3f == 0x01 {
                        turns.push(conn);
                        waiting.push((conn, tag));
                    } else if Some(conn) != stuck {
                        let nop_in = [u32::MAX, *stat_sn, exp, exp + 0x100, 0, 0, 0];
                        rig.deliver(conn, &pdu(0x20, 0x80, [0, 0], tag, nop_in, &[])).unwrap();
                        *stat_sn += 1;
                    }
                }
            }
        }
        if answered >= rounds {
            break;
        }
        for _ in 0..batch {
            let next = waiting.iter().position(|(conn, _)| Some(*conn) != stuck);
            let (conn, tag) = waiting.remove(next.unwrap_or_else(|| panic!("all is stuck after {answered} answers")));
            let busy = pdu(0x21, 0x80, [0, 8], tag, [0, stat_sn[conn], exp, exp + 0x100, 0, 0, 0], &[]);
            rig.deliver(conn, &busy).unwrap();
            rig.ended();
            stat_sn[conn] += 1;
            answered += 1;
        }
    }
    let runs = turns.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
    (runs, [0, 1, 2, 3].map(|conn| rig.session.tasks_on(conn)))
}

#[test]
fn within_one_machine_runs_are_many_times_what_is_in_flight() {
    // also when each batch of answers leaves only a few in flight
    for (depth, batch) in [(8, 1), (8, 4), (8, 8), (128, 1), (128, 32), (128, 128)] {
        let (runs, _) = in_one_machine(depth, 4096, batch, None, depth * 400);
        let long: Vec<_> = runs.iter().filter(|(_, length)| *length > depth as usize * 8).collect();
        assert!((0..4).all(|conn| long.iter().any(|(who, _)| *who == conn)), "{runs:?}");
        let in_long = long.iter().map(|(_, length)| length).sum::<usize>();
        assert!(in_long > depth as usize * 380, "{depth} {batch} {runs:?}");
    }
}

#[test]
fn within_one_machine_a_few_are_spread_one_by_one_and_much_data_by_halves() {
    for depth in 2..=5 {
        let (runs, at_the_end) = in_one_machine(depth, 4096, 1, None, 100);
        assert!(runs.iter().all(|(_, length)| *length == 1), "{runs:?}");
        assert!(at_the_end.iter().all(|tasks| *tasks <= depth.div_ceil(4)), "{at_the_end:?}");
    }
    // five one by one, then runs until half of all ahead
    assert_eq!(in_one_machine(12, 256 * 1024, 1, None, 0).1, [5, 5, 1, 1]);
    let (runs, _) = in_one_machine(8, 256 * 1024, 1, None, 1000);
    assert!(runs.iter().all(|(_, length)| *length <= 8), "{runs:?}");
}

#[test]
fn within_one_machine_one_at_a_time_stays_on_its_connection_until_there_is_another() {
    let (runs, _) = in_one_machine(1, 4096, 1, None, 5000);
    assert!(runs.len() > 4 && runs[..4].iter().all(|(_, length)| *length == 1024), "{runs:?}");
    assert!((0..4).all(|conn| runs.iter().any(|(who, _)| *who == conn)), "{runs:?}");
    let mut rig = two();
    rig.session.set_one_machine(true);
    let mut stat_sn = [STAT_SN, SECOND];
    for exp in 0x11..0x1b {
        rig.command(&[0; 6], 0, 0);
        let conn = usize::from(rig.session.tasks_on(1) == 1);
        let tag = tag(&rig.sent(conn), 0);
        rig.deliver(conn, &status(tag, stat_sn[conn], exp, 0)).unwrap();
        stat_sn[conn] += 1;
        assert_eq!(rig.ended(), good(0));
    }
    for expected in [1, 2, 3, 4] {
        rig.command(&[0; 6], 0, 0);
        let on = [rig.session.tasks_on(0), rig.session.tasks_on(1)];
        assert!(on[0] + on[1] == expected && on[0].abs_diff(on[1]) <= 1, "{on:?}");
    }
}

#[test]
fn within_one_machine_a_connection_that_is_stuck_does_not_get_everything() {
    for (depth, stuck) in [8, 9, 12, 16, 17, 128].into_iter().flat_map(|depth| (0..4).map(move |stuck| (depth, stuck)))
    {
        let (_, at_the_end) = in_one_machine(depth, 4096, 1, Some(stuck), depth * 400);
        assert!(at_the_end[stuck] < depth, "{at_the_end:?}");
    }
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
