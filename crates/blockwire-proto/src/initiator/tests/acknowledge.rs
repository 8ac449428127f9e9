//! Acknowledging on connections that get no commands at the moment: RFC 7143 4.2.2.2, 11.18.

use std::collections::VecDeque;

use super::super::{Command, Distribution};
use super::connections::{SECOND, connection, two};
use super::peer::*;

const WINDOW: u32 = 64;
const CONNECTIONS: usize = 4;

/// Four connections, a window of 64, all commands from CmdSN 0x10 on still to be sent.
fn four() -> Rig {
    let mut rig = two();
    for cid in [3, 4] {
        rig.session.add_connection(connection(cid, 1024), SECOND, 0);
    }
    rig.deliver(0, &nop_in(u32::MAX, STAT_SN, 0x10, 0x10 + WINDOW - 1)).unwrap();
    rig
}

fn nop_in(tag: u32, stat_sn: u32, exp: u32, max: u32) -> Vec<u8> {
    pdu(0x20, 0x80, [0, 0], tag, [u32::MAX, stat_sn, exp, max, 0, 0, 0], &[])
}

fn good_status(tag: u32, stat_sn: u32, exp: u32, max: u32) -> Vec<u8> {
    pdu(0x21, 0x80, [0, 0], tag, [0, stat_sn, exp, max, 0, 0, 0], &[])
}

#[test]
fn what_the_turn_left_behind_is_acknowledged_by_a_ping() {
    let mut rig = four();
    rig.session.set_one_machine(true);
    let mut stat_sn = [STAT_SN, SECOND, SECOND, SECOND];
    let mut exp = 0x10;
    // all of a window is answered at once, and as much follows
    for round in 0..100 {
        let before = stat_sn;
        for _ in 0..WINDOW {
            rig.command(&[0; 6], 0, 0);
            exp += 1;
        }
        let mut commands = [0; CONNECTIONS];
        let mut pings = Vec::new();
        for conn in 0..CONNECTIONS {
            for (header, data) in split(&rig.sent(conn)) {
                let tag = word(&header, 16);
                assert_ne!(tag, u32::MAX, "Linux acknowledges nothing by a NOP-Out that wants no answer");
                if header[0] & 0x3f == 1 {
                    commands[conn] += 1;
                    rig.deliver(conn, &good_status(tag, stat_sn[conn], exp, exp + WINDOW - 1)).unwrap();
                    rig.ended().unwrap();
                } else {
                    // immediate, no data; ExpStatSN is all that came there
                    assert_eq!((header[0], header[1], word(&header, 20), data.len()), (0x40, 0x80, u32::MAX, 0));
                    assert_eq!(word(&header, 28), before[conn]);
                    rig.deliver(conn, &nop_in(tag, stat_sn[conn], exp, exp + WINDOW - 1)).unwrap();
                    pings.push(conn);
                }
                stat_sn[conn] += 1;
            }
        }
        assert_eq!(rig.session.poll_event(), None, "the answer to a ping is nobody else's business");
        if !pings.is_empty() {
            let turn = (0..CONNECTIONS).max_by_key(|conn| commands[*conn]).unwrap();
            assert!(round > 0 && !pings.contains(&turn), "{pings:?} {commands:?}");
            return;
        }
    }
    panic!("no ping");
}

#[test]
fn a_single_connection_acknowledges_by_its_commands() {
    let mut rig = Rig::plain();
    let mut stat_sn = STAT_SN;
    for round in 0..20 {
        for _ in 0..16 {
            rig.command(&[0; 6], 0, 0);
        }
        for (header, _) in split(&rig.sent(0)) {
            assert_eq!(header[0] & 0x3f, 1);
            let exp = 0x20 + round * 16;
            rig.deliver(0, &good_status(word(&header, 16), stat_sn, exp, exp + 15)).unwrap();
            stat_sn += 1;
            rig.ended().unwrap();
        }
    }
}

/// As Linux's target: `2 * WINDOW + 8` records in a session, for commands and pings alike; a record is free again when ExpStatSN on
/// its connection acknowledged its status. A connection whose next PDU gets no record is not read.
struct Linux {
    inbound: [VecDeque<[u8; 48]>; CONNECTIONS],
    outbound: [VecDeque<Vec<u8>>; CONNECTIONS],
    stat_sn: [u32; CONNECTIONS],
    acknowledged: [u32; CONNECTIONS],
    /// Commands that came: connection, tag and CmdSN.
    taken: Vec<(usize, u32, u32)>,
    exp: u32,
    max: u32,
    most: u32,
}

impl Linux {
    fn records(&self) -> u32 {
        let answered: u32 = (0..CONNECTIONS).map(|conn| self.stat_sn[conn] - self.acknowledged[conn]).sum();
        self.taken.len() as u32 + answered
    }

    /// Takes the next PDU of a connection in; false when it cannot.
    fn read(&mut self, conn: usize) -> bool {
        if self.records() >= 2 * WINDOW + 8 {
            return false;
        }
        let Some(header) = self.inbound[conn].pop_front() else { return false };
        self.most = self.most.max(self.records() + 1);
        self.acknowledged[conn] = word(&header, 28);
        let tag = word(&header, 16);
        if header[0] & 0x3f == 0 {
            self.outbound[conn].push_back(nop_in(tag, self.stat_sn[conn], self.exp, self.max));
            self.stat_sn[conn] += 1;
            return true;
        }
        self.taken.push((conn, tag, word(&header, 24)));
        while self.taken.iter().any(|(_, _, number)| *number == self.exp) {
            self.exp += 1;
        }
        true
    }

    /// Answers a command that had its turn.
    fn answer(&mut self, which: u32) -> bool {
        let ready: Vec<usize> = (0..self.taken.len()).filter(|at| self.taken[*at].2 < self.exp).collect();
        if ready.is_empty() {
            return false;
        }
        let (conn, tag, _) = self.taken.remove(ready[which as usize % ready.len()]);
        self.max += 1;
        self.outbound[conn].push_back(good_status(tag, self.stat_sn[conn], self.exp, self.max));
        self.stat_sn[conn] += 1;
        true
    }
}

/// Runs `count` commands, `depth` at a time, against Linux with everything in random order. Gives the most records it needed and
/// the pings.
fn against_linux(policy: Distribution, one_machine: bool, depth: usize, count: usize, seed: u32) -> (u32, usize) {
    let mut rig = four();
    rig.session.set_distribution(policy);
    rig.session.set_one_machine(one_machine);
    let mut linux = Linux {
        inbound: Default::default(),
        outbound: Default::default(),
        stat_sn: [STAT_SN, SECOND, SECOND, SECOND],
        acknowledged: [STAT_SN, SECOND, SECOND, SECOND],
        taken: Vec::new(),
        exp: 0x10,
        max: 0x10 + WINDOW - 1,
        most: 0,
    };
    let (mut started, mut ended, mut pings, mut idle) = (0, 0, 0, 0);
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    while ended < count {
        // both sides read, answer and send in lumps of any size, as system calls and schedulers make them
        let (conn, lump) = (random() as usize % CONNECTIONS, 1 + random() % 64);
        let mut moved = false;
        match random() % 3 {
            0 => moved = (0..lump).filter(|_| linux.read(conn)).count() > 0,
            1 => moved = (0..lump).filter(|_| linux.answer(random())).count() > 0,
            _ => {
                for _ in 0..lump {
                    let Some(answer) = linux.outbound[conn].pop_front() else { break };
                    rig.deliver(conn, &answer).unwrap();
                    moved = true;
                    ended += usize::from(rig.ended().is_some());
                }
                while started < count && started - ended < depth {
                    rig.command(&[0; 6], 0, 0);
                    started += 1;
                    moved = true;
                }
                for conn in 0..CONNECTIONS {
                    let sent = split(&rig.sent(conn));
                    pings += sent.iter().filter(|(header, _)| header[0] & 0x3f == 0).count();
                    linux.inbound[conn].extend(sent.iter().map(|(header, _)| *header));
                }
            }
        }
        idle = if moved { 0 } else { idle + 1 };
        assert!(
            idle < 1000,
            "{policy:?} {one_machine} {depth} {seed}: stuck after {ended} with {} records",
            linux.records()
        );
    }
    (linux.most, pings)
}

#[test]
fn a_target_with_room_for_two_windows_is_never_full() {
    for seed in 0..4 {
        for depth in [8, 48, 64] {
            for (policy, one_machine) in [
                (Distribution::LeastQueued, true),
                (Distribution::LeastQueued, false),
                (Distribution::RoundRobin, false),
            ] {
                let (most, pings) = against_linux(policy, one_machine, depth, 8_000, seed);
                println!("{policy:?} {one_machine} {depth} {seed}: {most} records, {pings} pings");
                assert!(pings <= 600, "{policy:?} {one_machine} {depth} {seed}: {pings} pings for 8000 commands");
                assert!(depth > 8 || pings == 0, "{policy:?} {one_machine} {seed}: {pings} pings where there is room");
            }
        }
    }
}

/// Twelve commands with CmdSN 0x10 to 0x1b on a connection that is lost; their tags.
fn frozen() -> (Rig, Vec<u32>) {
    let mut rig = two();
    for _ in 0..12 {
        let command = Command { conn: Some(0), ..plain_command() };
        rig.session.submit(&command).unwrap();
    }
    let tags = split(&rig.sent(0)).iter().map(|(header, _)| word(header, 16)).collect();
    rig.session.lose_connection(0, true);
    (rig, tags)
}

fn plain_command() -> Command<'static> {
    Command { lun: 0, cdb: &[0; 6], attribute: 1, immediate: false, write_len: 0, read_len: 0, conn: None, context: 77 }
}

/// Tags of the requests, and of the tasks that they are about.
fn reassigns(rig: &mut Rig, conn: usize) -> Vec<(u32, u32)> {
    split(&rig.sent(conn))
        .iter()
        .map(|(header, _)| {
            assert_eq!(header[..2], [0x42, 0x88], "TASK REASSIGN, immediate (11.5.1)");
            (word(header, 16), word(header, 20))
        })
        .collect()
}

#[test]
fn tasks_are_reassigned_a_few_at_a_time() {
    let (mut rig, tags) = frozen();
    for slot in rig.session.frozen(None) {
        assert!(rig.session.rebind(slot, 1));
    }
    let mut asked = reassigns(&mut rig, 1);
    assert_eq!(asked.iter().map(|(_, task)| *task).collect::<Vec<_>>(), tags[..8]);
    for answered in 0..12 {
        let complete =
            pdu(0x22, 0x80, [0, 0], asked[answered].0, [0, SECOND + answered as u32, 0x1c, 0x40, 0, 0, 0], &[]);
        rig.deliver(1, &complete).unwrap();
        asked.extend(reassigns(&mut rig, 1));
        assert_eq!(asked.len(), (answered + 9).min(12), "one answered, one more asked");
    }
    assert_eq!(asked.iter().map(|(_, task)| *task).collect::<Vec<_>>(), tags);
    assert_eq!((rig.session.recovery_counters().reassigned, rig.session.frozen(None).len()), (12, 0));
    for (at, task) in tags.iter().enumerate() {
        rig.deliver(1, &good_status(*task, SECOND + 12 + at as u32, 0x1c, 0x40)).unwrap();
        assert_eq!(rig.ended(), good(0));
    }
}

#[test]
fn what_waited_for_its_reassignment_is_frozen_again_with_its_connection() {
    let (mut rig, tags) = frozen();
    for slot in rig.session.frozen(None) {
        rig.session.rebind(slot, 1);
    }
    assert_eq!(reassigns(&mut rig, 1).len(), 8);
    rig.session.lose_connection(1, true);
    let third = rig.session.add_connection(connection(3, 1024), SECOND, 0);
    let slots = rig.session.frozen(None);
    assert_eq!(slots.len(), 12);
    for slot in slots {
        assert!(rig.session.rebind(slot, third));
    }
    let mut asked = reassigns(&mut rig, third);
    for answered in 0..12 {
        let stat_sn = SECOND + answered as u32;
        rig.deliver(third, &pdu(0x22, 0x80, [0, 0], asked[answered].0, [0, stat_sn, 0x1c, 0x40, 0, 0, 0], &[]))
            .unwrap();
        asked.extend(reassigns(&mut rig, third));
    }
    assert_eq!(asked.iter().map(|(_, task)| *task).collect::<Vec<_>>(), tags, "each once, in the order of CmdSN");
}
