//! Both roles against each other: partial deliveries, lost connections and damage in any order. The application of the initiator
//! compares every byte; a command ends once; with ErrorRecoveryLevel 2 and a path left nothing fails.

use std::collections::{HashMap, VecDeque};

use blockwire_proto::initiator::{Command, Event, InitiatorSession, Outcome};
use blockwire_proto::target::{Finish, Rebound, Residual, TargetEvent, TargetLimits, TargetSession, TaskState};
use blockwire_proto::{ConnIndex, ConnectionParams, Destination, Direction, OutPdu, Payload, SessionParams, Slot};
use blockwire_wire::opcode::{function, status};
use blockwire_wire::{Bhs, Opcode, serial};

use super::carry::{self, Driver, Receiving};
use super::input::{Input, Noise};

/// The disk is so many regions; a region is used by one command at a time, so that every answer has one right content.
const REGIONS: usize = 8;
const REGION: usize = 2048;
const DISK: usize = REGIONS * REGION;
const MOST_LINKS: usize = 3;

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    receiving: Receiving,
}

struct Link {
    cid: u16,
    initiator: ConnIndex,
    target: ConnIndex,
    digests: (bool, bool),
    up: Pipe,
    down: Pipe,
}

struct Job {
    at: usize,
    write: bool,
    buffer: Vec<u8>,
    aborted: bool,
}

struct InitiatorSide {
    session: InitiatorSession,
    jobs: HashMap<Slot, Job>,
}

impl Driver for InitiatorSide {
    type Role = InitiatorSession;

    fn role(&mut self) -> &mut InitiatorSession {
        &mut self.session
    }

    fn planned(&mut self, _: ConnIndex, _: Destination, _: u32) {}

    fn place(&mut self, _: ConnIndex, slot: Slot, _: Direction, offset: u32, bytes: &[u8]) {
        let buffer = &mut self.jobs.get_mut(&slot).expect("a buffer in use").buffer;
        buffer[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn payload(&mut self, _: ConnIndex, slot: Slot, _: Direction, offset: u32, len: u32) -> Vec<u8> {
        self.jobs[&slot].buffer[offset as usize..(offset + len) as usize].to_vec()
    }

    fn after_pdu(&mut self, _: ConnIndex) {}

    fn sent(&mut self, _: ConnIndex, pdu: OutPdu) {
        if let Payload::Task { slot, .. } = pdu.payload {
            self.session.payload_sent(slot);
        }
    }
}

struct TargetSide {
    session: TargetSession,
    disk: Vec<u8>,
    memory: HashMap<Slot, Vec<u8>>,
    /// Commands that the store has not looked at yet.
    pending: VecDeque<(Slot, u32)>,
    burst: u32,
    damaged: bool,
}

impl Driver for TargetSide {
    type Role = TargetSession;

    fn role(&mut self) -> &mut TargetSession {
        &mut self.session
    }

    fn planned(&mut self, _: ConnIndex, _: Destination, _: u32) {}

    fn place(&mut self, _: ConnIndex, slot: Slot, _: Direction, offset: u32, bytes: &[u8]) {
        let len = self.session.task(slot).expect("in use").expected_write() as usize;
        let memory = self.memory.entry(slot).or_insert_with(|| vec![0; len]);
        memory[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn payload(&mut self, _: ConnIndex, slot: Slot, _: Direction, offset: u32, len: u32) -> Vec<u8> {
        self.memory[&slot][offset as usize..(offset + len) as usize].to_vec()
    }

    fn after_pdu(&mut self, _: ConnIndex) {
        self.drain();
    }

    fn sent(&mut self, conn: ConnIndex, pdu: OutPdu) {
        self.session.sent_mark(conn, pdu.slot, pdu.mark);
    }
}

impl TargetSide {
    fn drain(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                TargetEvent::Command(slot) => {
                    let generation = self.session.task(slot).expect("delivered").generation;
                    self.pending.push_back((slot, generation));
                }
                TargetEvent::DataOut(slot) => self.go_on(slot),
                TargetEvent::Control(slot) => self.manage(slot),
                TargetEvent::Released(slot) => {
                    self.memory.remove(&slot);
                }
                TargetEvent::Acknowledged { .. } => {}
                TargetEvent::SnackRejected(_) => panic!("nothing was forgotten"),
                TargetEvent::CloseConnection { .. } => panic!("nothing asked for that"),
                TargetEvent::DigestFailure { .. } => assert!(self.damaged),
                TargetEvent::Violation { what, .. } => assert!(self.damaged, "our initiator broke a rule: {what}"),
            }
        }
    }

    fn at(&self, slot: Slot) -> usize {
        let cdb = self.session.task(slot).expect("in use").cdb.as_slice();
        u32::from_be_bytes(cdb[2..6].try_into().expect("four bytes")) as usize
    }

    /// The store gets to its oldest command.
    fn serve(&mut self) -> bool {
        let Some((slot, generation)) = self.pending.pop_front() else { return false };
        let Some(task) = self.session.task(slot).filter(|t| t.generation == generation) else { return true };
        if task.state != TaskState::Active || task.finish.is_some() {
            return true;
        }
        let len = task.expected_read();
        if len == 0 {
            self.go_on(slot);
        } else if !task.frozen {
            let at = self.at(slot);
            self.memory.insert(slot, self.disk[at..at + len as usize].to_vec());
            self.session.send_data(slot, 0, len, true, Some(Finish::good(Residual::None)));
        } else {
            // its connection is gone: it is read when it was reassigned
            self.pending.push_back((slot, generation));
            return false;
        }
        self.drain();
        true
    }

    /// A write: asks for what is missing, ends when nothing is.
    fn go_on(&mut self, slot: Slot) {
        loop {
            let Some(task) = self.session.task(slot) else { return };
            if task.state != TaskState::Active || task.finish.is_some() {
                return;
            }
            if task.expected_read() > 0 || self.pending.iter().any(|(s, _)| *s == slot) {
                return;
            }
            if let Some(condition) = task.out.condition {
                assert!(self.damaged, "{condition:?}");
                let (key, asc, ascq) = condition.sense();
                let mut sense = vec![0; 18];
                (sense[0], sense[2], sense[7], sense[12], sense[13]) = (0x70, key, 10, asc, ascq);
                let finish = Finish { status: status::CHECK_CONDITION, sense, ..Finish::default() };
                self.session.finish(slot, finish);
                return;
            }
            let expected = u64::from(task.expected_write());
            if task.out.received.contains(0, expected) {
                let at = self.at(slot);
                let data = self.memory.entry(slot).or_default();
                self.disk[at..at + data.len()].copy_from_slice(data);
                self.session.finish(slot, Finish::good(Residual::None));
                return;
            }
            if task.out.unsolicited_open || self.session.r2t_room(slot) == 0 {
                return;
            }
            let Some((start, len)) = self.session.next_to_solicit(slot, expected as u32) else { return };
            if !self.session.solicit(slot, start, len.min(self.burst)) {
                return;
            }
        }
    }

    fn manage(&mut self, slot: Slot) {
        let task = self.session.task(slot).expect("in use");
        let (header, conn) = (task.header, task.conn);
        let referenced = self.session.find(header.referenced_task_tag());
        let mut answer = Bhs::new(Opcode::TaskManagementResponse, 0x80);
        match (header.function(), referenced) {
            (function::TASK_REASSIGN, Some(moved)) => {
                let frozen = self.session.task(moved).is_some_and(|t| t.frozen);
                answer.set_response(if frozen { 0 } else { 2 });
                self.session.respond_control(slot, answer, Vec::new());
                if !frozen {
                    return;
                }
                match self.session.rebind(moved, conn, header.exp_data_sn()).expect("it can be moved") {
                    Rebound::Answered => {}
                    Rebound::Lost => panic!("nothing was forgotten"),
                    Rebound::GoesOn => self.go_on(moved),
                }
            }
            (function::ABORT_TASK, Some(gone)) => {
                self.session.abort_task(gone);
                self.session.respond_control(slot, answer, Vec::new());
            }
            (function::ABORT_TASK, None) => {
                // 11.6.1: a number that may still come counts as received, otherwise the task is not there
                let earlier = serial::less_than(header.ref_cmd_sn(), header.cmd_sn());
                let complete = earlier && self.session.consume_cmd_sn(header.ref_cmd_sn());
                answer.set_response(u8::from(!complete));
                self.session.respond_control(slot, answer, Vec::new());
            }
            _ => {
                answer.set_response(1);
                self.session.respond_control(slot, answer, Vec::new());
            }
        }
    }
}

struct Pair {
    params: SessionParams,
    initiator: InitiatorSide,
    target: TargetSide,
    links: Vec<Link>,
    lost: Vec<u16>,
    shadow: Vec<u8>,
    /// Bytes whose content is not known: a write to them failed.
    unknown: Vec<bool>,
    busy: [bool; REGIONS],
    noise: Noise,
    digests: (bool, bool),
    now: u64,
    cids: u16,
    ended: usize,
    started: usize,
    refused: bool,
}

impl Pair {
    fn sessions(params: &SessionParams, start: u32, disk: Vec<u8>, burst: u32) -> (InitiatorSide, TargetSide) {
        let limits = TargetLimits { command_window: 4, ..TargetLimits::default() };
        let initiator = InitiatorSide {
            session: InitiatorSession::new(params.clone(), start, start, start.wrapping_add(3)),
            jobs: HashMap::new(),
        };
        let target = TargetSide {
            session: TargetSession::new(params.clone(), limits, start),
            disk,
            memory: HashMap::new(),
            pending: VecDeque::new(),
            burst,
            damaged: false,
        };
        (initiator, target)
    }

    fn connect(&mut self, choice: u8) {
        if self.links.len() >= MOST_LINKS || (!self.links.is_empty() && self.params.error_recovery_level < 2) {
            return;
        }
        self.cids = self.cids.wrapping_add(1);
        let stat_sn = 0xffff_fffc_u32.wrapping_add(u32::from(choice & 7));
        let lengths = [512, 520, 700, 2048];
        let digests = self.digests;
        let params = ConnectionParams {
            cid: self.cids,
            max_recv_data_segment_length: lengths[usize::from(choice >> 3 & 3)],
            max_send_data_segment_length: lengths[usize::from(choice >> 5 & 3)],
            header_digest: digests.0,
            data_digest: digests.1,
            ..ConnectionParams::default()
        };
        let mirrored = ConnectionParams {
            max_recv_data_segment_length: params.max_send_data_segment_length,
            max_send_data_segment_length: params.max_recv_data_segment_length,
            ..params.clone()
        };
        let target = self.target.session.add_connection(mirrored, stat_sn, self.now);
        let initiator = self.initiator.session.add_connection(params, stat_sn, self.now);
        let (up, down) = (Pipe::default(), Pipe::default());
        self.links.push(Link { cid: self.cids, initiator, target, digests, up, down });
        self.drain();
    }

    /// Loses a link with everything in transit. Below level 2 the session goes with it.
    fn cut(&mut self, at: usize) {
        if self.links.is_empty() {
            return;
        }
        let link = self.links.remove(at % self.links.len());
        if self.params.error_recovery_level == 2 {
            self.initiator.session.lose_connection(link.initiator, true);
            self.target.session.freeze_connection(link.target);
            self.lost.push(link.cid);
            self.target.drain();
            self.drain();
            return;
        }
        self.links.push(link);
        self.give_up();
    }

    /// Ends the session with what is unfinished in it, and begins another.
    fn give_up(&mut self) {
        for link in std::mem::take(&mut self.links) {
            self.initiator.session.lose_connection(link.initiator, false);
            self.target.session.remove_connection(link.target);
        }
        self.target.drain();
        self.initiator.session.end_all();
        self.lost.clear();
        self.refused = false;
        self.drain();
        assert!(self.initiator.jobs.is_empty(), "a command outlives its session");
        let disk = std::mem::take(&mut self.target.disk);
        let start = self.noise.next() as u32;
        let (burst, damaged) = (self.target.burst, self.target.damaged);
        (self.initiator, self.target) = Self::sessions(&self.params, start, disk, burst);
        self.target.damaged = damaged;
    }

    fn reassign(&mut self) {
        let Some(link) = self.links.last() else { return };
        let conn = link.initiator;
        for cid in std::mem::take(&mut self.lost) {
            for slot in self.initiator.session.frozen(Some(cid)) {
                assert!(self.initiator.session.rebind(slot, conn));
            }
        }
    }

    fn submit(&mut self, choice: u8, length: u8) {
        let region = usize::from(choice & 7);
        if self.busy[region] || self.links.is_empty() {
            return;
        }
        let len = (usize::from(length) * 9 + 1).min(REGION);
        let at = region * REGION + (REGION - len) / 2;
        let write = choice & 8 != 0;
        let buffer: Vec<u8> = if write { (0..len).map(|_| self.noise.next() as u8).collect() } else { vec![0xee; len] };
        let mut cdb = [0; 16];
        cdb[0] = if write { 0x2a } else { 0x28 };
        cdb[2..6].copy_from_slice(&(at as u32).to_be_bytes());
        let (write_len, read_len) = if write { (len as u32, 0) } else { (0, len as u32) };
        // whether an immediate command was lost or has ended cannot be told apart at level 2: that one is up to the caller
        let immediate = choice & 0xf0 == 0xf0 && self.params.error_recovery_level < 2;
        let command =
            Command { lun: 0, cdb: &cdb, attribute: 1, immediate, write_len, read_len, conn: None, context: 0 };
        if let Ok(slot) = self.initiator.session.submit(&command) {
            self.busy[region] = true;
            self.started += 1;
            self.initiator.jobs.insert(slot, Job { at, write, buffer, aborted: false });
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.initiator.session.poll_event() {
            let (slot, outcome) = match event {
                Event::TaskEnded { slot, outcome, .. } => (slot, outcome),
                Event::ReassignRefused { response, .. } => {
                    assert!(self.target.damaged, "reassignment refused: {response}");
                    self.refused = true;
                    continue;
                }
                _ => continue,
            };
            let job = self.initiator.jobs.remove(&slot).expect("ended twice");
            self.busy[job.at / REGION] = false;
            self.ended += 1;
            let range = job.at..job.at + job.buffer.len();
            let good = matches!(outcome, Outcome::Status { status: 0, residual: 0, .. });
            if good && job.write {
                assert!(self.target.disk[range.clone()] == job.buffer, "GOOD, and other bytes are on the disk");
                self.shadow[range.clone()].copy_from_slice(&job.buffer);
                self.unknown[range].fill(false);
            } else if good {
                for (i, byte) in range.clone().zip(&job.buffer) {
                    assert!(self.unknown[i] || self.shadow[i] == *byte, "byte {i} of a read is wrong");
                }
            } else {
                let level = self.params.error_recovery_level;
                let excused = job.aborted || self.target.damaged || (level < 2 && outcome == Outcome::ConnectionLost);
                assert!(excused, "{outcome:?} at level {level}");
                if job.write {
                    self.unknown[range].fill(true);
                }
            }
        }
    }

    fn fill(&mut self, at: usize, most: usize) -> bool {
        let link = &mut self.links[at];
        let up = carry::transmit(&mut self.initiator, link.initiator, most);
        link.up.bytes.extend(&up);
        let down = carry::transmit(&mut self.target, link.target, most);
        link.down.bytes.extend(&down);
        self.target.drain();
        self.drain();
        !(up.is_empty() && down.is_empty())
    }

    /// Delivers `n` bytes one way.
    fn deliver(&mut self, at: usize, up: bool, n: usize) -> bool {
        let link = &mut self.links[at];
        let pipe = if up { &mut link.up } else { &mut link.down };
        let n = n.min(pipe.bytes.len());
        let bytes: Vec<u8> = pipe.bytes.drain(..n).collect();
        let result = if up {
            carry::receive(&mut self.target, link.target, &mut link.up.receiving, &bytes, self.now)
        } else {
            carry::receive(&mut self.initiator, link.initiator, &mut link.down.receiving, &bytes, self.now)
        };
        self.target.drain();
        self.drain();
        if let Err(fatal) = result {
            assert!(self.target.damaged, "{fatal:?} between our own ends");
            self.cut(at);
            return true;
        }
        n > 0
    }

    /// One bit, where both digests would notice.
    fn damage(&mut self, at: usize, place: u32) {
        let link = &mut self.links[at];
        if link.digests != (true, true) {
            return;
        }
        let pipe = if place & 1 != 0 { &mut link.up } else { &mut link.down };
        if pipe.bytes.is_empty() {
            return;
        }
        let bit = (place >> 1) as usize % (pipe.bytes.len() * 8);
        // a broken length or digest is found by the header digest: at the latest when the following bytes are there
        pipe.bytes[bit / 8] ^= 1 << (bit % 8);
        self.target.damaged = true;
    }

    /// Time passes until a timer of either side is due.
    fn wait(&mut self) {
        let due = |link: &Link| {
            let (ours, theirs) = (&self.initiator.session, &self.target.session);
            [ours.deadline(link.initiator), theirs.deadline(link.target)].into_iter().flatten().min()
        };
        self.now = self.now.max(self.links.iter().filter_map(due).min().unwrap_or(0));
        for at in (0..self.links.len()).rev() {
            let link = &self.links[at];
            let ours = self.initiator.session.on_timer(link.initiator, self.now);
            let theirs = self.target.session.tick(link.target, self.now);
            self.target.drain();
            self.drain();
            if let Err(fatal) = ours.and(theirs) {
                assert!(self.target.damaged, "{fatal:?} between our own ends");
                self.cut(at);
            }
        }
    }

    /// Everything gets through from here on; whatever is unfinished ends.
    fn settle(&mut self) {
        let mut quiet = 0;
        for round in 0.. {
            assert!(round < 2000, "{} of {} ended, then nothing more", self.ended, self.started);
            if self.links.is_empty() {
                self.connect(round as u8);
            }
            self.reassign();
            let mut moved = self.target.serve();
            for at in (0..self.links.len()).rev() {
                moved |= self.fill(at, 4096);
                moved |= self.deliver(at, true, 4096);
                if at < self.links.len() {
                    moved |= self.deliver(at, false, 4096);
                }
            }
            if !moved && self.initiator.session.unfinished() > 0 && !self.links.is_empty() {
                quiet += 1;
                if quiet > 40 {
                    // a damaged length makes the receiver wait for bytes that nobody sends
                    assert!(self.target.damaged, "{} commands wait for nothing", self.initiator.session.unfinished());
                    self.cut(0);
                    quiet = 0;
                } else {
                    self.wait();
                }
                moved = true;
            }
            if !moved && std::mem::take(&mut self.refused) {
                self.give_up();
                moved = true;
            }
            if !moved && self.target.pending.is_empty() && self.lost.is_empty() {
                break;
            }
        }
        assert_eq!(self.started, self.ended, "commands that never end");
        assert_eq!(self.initiator.session.unfinished(), 0);
    }
}

/// The first bytes are the parameters, then one operation after the other; at the end everything gets through.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (choice, more) = (input.byte(), input.byte());
    let max_burst = [512, 1024, 1500, 4096][usize::from(more & 3)];
    let params = SessionParams {
        initial_r2t: choice & 1 != 0,
        immediate_data: choice & 2 != 0,
        data_pdu_in_order: true,
        data_sequence_in_order: choice & 0x30 != 0x30,
        error_recovery_level: [0, 1, 2, 2][usize::from(choice >> 4 & 3)],
        max_burst_length: max_burst,
        first_burst_length: [512, 700, 1024][usize::from(more >> 2 & 3).min(2)].min(max_burst),
        max_outstanding_r2t: if choice & 0x30 == 0x20 { 1 } else { u32::from(more >> 4 & 3) + 1 },
        ..SessionParams::default()
    };
    let start = if more & 0x40 != 0 { 0xffff_fffd } else { 1 };
    let burst = [512, max_burst, 300, max_burst][usize::from(choice >> 6)].min(max_burst);
    let disk: Vec<u8> = (0..DISK).map(|i| (i * 31 + i / 97) as u8).collect();
    let (initiator, target) = Pair::sessions(&params, start, disk.clone(), burst);
    let mut pair = Pair {
        params,
        initiator,
        target,
        links: Vec::new(),
        lost: Vec::new(),
        shadow: disk,
        unknown: vec![false; DISK],
        busy: [false; REGIONS],
        noise: Noise::new(u64::from(more)),
        digests: (choice & 4 != 0, choice & 8 != 0),
        now: 1,
        cids: 0,
        ended: 0,
        started: 0,
        refused: false,
    };
    pair.connect(input.byte());
    while !input.is_empty() {
        pair.now += 1;
        let operation = input.byte();
        let at = usize::from(operation >> 5);
        let links = pair.links.len();
        match operation & 0x1f {
            0..=7 => pair.submit(input.byte(), input.byte()),
            8..=13 if links > 0 => {
                pair.fill(at % links, input.one_of(&[1, 48, 100, 700, 5000, 5000]));
            }
            14..=21 if links > 0 => {
                let n = input.one_of(&[1, 7, 48, 100, 700, 5000, 5000]);
                pair.deliver(at % links, operation & 1 != 0, n);
            }
            22..=24 => {
                pair.target.serve();
                pair.drain();
            }
            25 if links > 0 => pair.cut(at),
            26 => pair.connect(input.byte()),
            27 => pair.reassign(),
            28 if links > 0 => {
                let place = input.word();
                pair.damage(at % links, place);
            }
            29 => {
                let mut slots: Vec<Slot> = pair.initiator.jobs.keys().copied().collect();
                slots.sort();
                if !slots.is_empty() {
                    let slot = slots[input.below(slots.len())];
                    pair.initiator.jobs.get_mut(&slot).expect("in use").aborted = true;
                    pair.initiator.session.abort(slot);
                    pair.drain();
                }
            }
            _ => {}
        }
    }
    pair.settle();
}
