//! Both sessions on links that deliver any prefix, with memory on both sides and a disk behind the target.

use std::collections::{HashMap, VecDeque};

use blockwire_proto::initiator::{Command, Event, InitiatorSession, Outcome};
use blockwire_proto::target::{Finish, Rebound, Residual, TargetEvent, TargetLimits, TargetSession};
use blockwire_proto::{
    ConnIndex, ConnectionParams, Destination, Direction, Endpoint, Fatal, FatalCode, Payload, SessionParams, Slot,
};
use blockwire_wire::opcode::{function, status};
use blockwire_wire::{BHS_LEN, Bhs, Opcode, Step, crc32c};

use crate::faults::Faults;

pub const BLOCK: usize = 16;

/// One direction of a link.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    delivered: usize,
    destination: Option<Destination>,
    moved: u32,
    control: Vec<u8>,
}

pub struct Link {
    pub cid: u16,
    initiator: ConnIndex,
    target: ConnIndex,
    digests: (bool, bool),
    up: Pipe,
    down: Pipe,
}

#[derive(Clone, Copy)]
enum Request {
    Read(usize),
    Write,
}

pub struct Pair {
    pub initiator: InitiatorSession,
    pub target: TargetSession,
    pub links: Vec<Link>,
    pub disk: Vec<u8>,
    /// Buffers of the initiator's tasks.
    buffers: HashMap<Slot, Vec<u8>>,
    requests: HashMap<Slot, Request>,
    memory: HashMap<Slot, Vec<u8>>,
    /// Finished reads (start, data) and outcomes.
    pub reads: Vec<(usize, Vec<u8>)>,
    pub outcomes: Vec<Outcome>,
    /// Bytes of one delivery.
    pub chunk: usize,
    /// Bytes that a pipe holds.
    pub capacity: usize,
    /// The target asks for this much at a time.
    pub burst: u32,
    /// Seed of the order in which links have their turns; 0 is one after the other.
    pub order: u64,
    now: u64,
    cids: u16,
    /// What the links do to PDUs.
    pub faults: Option<Faults>,
    failed: usize,
    pub digest_failures: u32,
    /// Writes whose data the target did not get in spite of asking again and again (RFC 7143 7.8 b).
    pub gave_up: u32,
    /// What the target held against the initiator.
    pub violations: Vec<&'static str>,
}

impl Pair {
    pub fn new(params: &SessionParams, disk: usize) -> Self {
        let limits = TargetLimits { command_window: 8, data_timeout: 5_000_000, ..TargetLimits::default() };
        Self {
            initiator: InitiatorSession::new(params.clone(), 0xffff_fffc, 0xffff_fffc, 3),
            target: TargetSession::new(params.clone(), limits, 0xffff_fffc),
            links: Vec::new(),
            disk: vec![0; disk],
            buffers: HashMap::new(),
            requests: HashMap::new(),
            memory: HashMap::new(),
            reads: Vec::new(),
            outcomes: Vec::new(),
            chunk: usize::MAX,
            capacity: 4096,
            burst: params.max_burst_length,
            order: 0,
            now: 0,
            cids: 0,
            faults: None,
            failed: 0,
            digest_failures: 0,
            gave_up: 0,
            violations: Vec::new(),
        }
    }

    /// A new link: what the initiator accepts, what the target accepts, digests.
    pub fn connect(&mut self, initiator_accepts: u32, target_accepts: u32, digests: (bool, bool)) {
        self.cids += 1;
        let stat_sn = 0xffff_fff0_u32.wrapping_add(u32::from(self.cids));
        let params = ConnectionParams {
            cid: self.cids,
            max_recv_data_segment_length: initiator_accepts,
            max_send_data_segment_length: target_accepts,
            header_digest: digests.0,
            data_digest: digests.1,
            ..ConnectionParams::default()
        };
        let mirrored = ConnectionParams {
            max_recv_data_segment_length: target_accepts,
            max_send_data_segment_length: initiator_accepts,
            ..params.clone()
        };
        let target = self.target.add_connection(mirrored, stat_sn, self.now);
        let initiator = self.initiator.add_connection(params, stat_sn, self.now);
        let (cid, up, down) = (self.cids, Pipe::default(), Pipe::default());
        self.links.push(Link { cid, initiator, target, digests, up, down });
    }

    /// Loses a link with everything in transit; the tasks freeze. Gives its CID.
    pub fn cut(&mut self, at: usize) -> u16 {
        let link = self.links.remove(at);
        self.initiator.lose_connection(link.initiator, true);
        self.target.freeze_connection(link.target);
        self.drain();
        link.cid
    }

    /// The initiator declared another segment length in the middle (13.12); longer, so that what is in transit fits.
    pub fn resegment(&mut self, at: usize, bytes: u32) {
        let link = &self.links[at];
        self.target.set_segment_lengths(link.target, None, Some(bytes));
        self.initiator.set_max_recv_data_segment_length(link.initiator, bytes);
    }

    /// Reassigns what froze with connection `cid` to the newest link.
    pub fn reassign(&mut self, cid: u16) {
        let conn = self.links.last().expect("a link").initiator;
        for slot in self.initiator.frozen(Some(cid)) {
            assert!(self.initiator.rebind(slot, conn));
        }
    }

    fn command(&mut self, opcode: u8, at: usize, write_len: u32, read_len: u32) -> Slot {
        let mut cdb = [0; 10];
        cdb[0] = opcode;
        cdb[2..6].copy_from_slice(&(at as u32).to_be_bytes());
        let command =
            Command { lun: 0, cdb: &cdb, attribute: 1, immediate: false, write_len, read_len, conn: None, context: 1 };
        self.initiator.submit(&command).expect("taken")
    }

    pub fn read(&mut self, at: usize, len: usize) {
        let slot = self.command(0x28, at, 0, len as u32);
        self.buffers.insert(slot, vec![0xee; len]);
        self.requests.insert(slot, Request::Read(at));
    }

    pub fn write(&mut self, at: usize, data: &[u8]) {
        let slot = self.command(0x2a, at, data.len() as u32, 0);
        self.buffers.insert(slot, data.to_vec());
        self.requests.insert(slot, Request::Write);
    }

    /// Bytes that moved on all links so far.
    pub fn delivered(&self) -> usize {
        self.links.iter().map(|l| l.up.delivered + l.down.delivered).sum()
    }

    /// Moves bytes until nothing moves, or until `limit` bytes of all links were delivered. False: a limit stopped it.
    pub fn run(&mut self, limit: usize) -> Result<bool, Fatal> {
        loop {
            self.now += 1;
            let mut moved = false;
            for at in self.turns() {
                moved |= self.fill_up(at) | self.fill_down(at);
                self.failed = at;
                for down in [false, true] {
                    let left = limit - self.delivered().min(limit);
                    if left == 0 {
                        return Ok(false);
                    }
                    let n = self.chunk.min(left);
                    moved |= if down { self.deliver_down(at, n)? } else { self.deliver_up(at, n)? };
                }
            }
            if !moved {
                return Ok(true);
            }
        }
    }

    /// The links in the order of their next turns: one after the other, or mixed by `order`.
    fn turns(&mut self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.links.len()).collect();
        if self.order != 0 {
            for i in (1..all.len()).rev() {
                self.order = self.order.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                all.swap(i, (self.order >> 33) as usize % (i + 1));
            }
            self.order |= 1 << 63;
        }
        all
    }

    /// As `run`, and lets time pass while requests are unfinished. The error comes with the place of its link.
    pub fn run_with_time(&mut self) -> Result<(), (Fatal, usize)> {
        for _ in 0..2000 {
            self.run(usize::MAX).map_err(|fatal| (fatal, self.failed))?;
            if self.initiator.unfinished() == 0 {
                return Ok(());
            }
            let mut due: Option<(u64, usize, bool)> = None;
            for (index, link) in self.links.iter().enumerate() {
                let ours = self.initiator.deadline(link.initiator).map(|at| (at, index, true));
                let theirs = self.target.deadline(link.target).map(|at| (at, index, false));
                due = [due, ours, theirs].into_iter().flatten().min();
            }
            let (at, index, ours) = due.expect("nothing moves and nothing will");
            self.now = self.now.max(at);
            let link = &self.links[index];
            let result = if ours {
                self.initiator.on_timer(link.initiator, self.now)
            } else {
                self.target.tick(link.target, self.now)
            };
            result.map_err(|fatal| (fatal, index))?;
            self.drain();
        }
        panic!("it never ends");
    }

    fn fill_up(&mut self, at: usize) -> bool {
        let link = &mut self.links[at];
        let buffers = &self.buffers;
        let mut sent = Vec::new();
        let room = self.capacity.saturating_sub(link.up.bytes.len());
        let bytes = gather(
            &mut self.initiator,
            link.initiator,
            room,
            |slot, offset, len| buffers[&slot][offset..offset + len].to_vec(),
            &mut sent,
        );
        match &mut self.faults {
            None => link.up.bytes.extend(&bytes),
            Some(faults) => {
                for pdu in faults.cut(&bytes, link.digests) {
                    let (up, down) = faults.up(link.cid, pdu);
                    link.up.bytes.extend(up);
                    link.down.bytes.extend(down);
                }
            }
        }
        for slot in sent {
            self.initiator.payload_sent(slot);
        }
        self.drain();
        !bytes.is_empty()
    }

    fn fill_down(&mut self, at: usize) -> bool {
        let link = &mut self.links[at];
        let memory = &self.memory;
        let room = self.capacity.saturating_sub(link.down.bytes.len());
        let queue = self.target.send_queue(link.target);
        let mut marks = Vec::new();
        let bytes = serialize(
            queue,
            room,
            |slot, offset, len| memory[&slot][offset..offset + len].to_vec(),
            |pdu| {
                marks.push((pdu.slot, pdu.mark));
            },
        );
        match &mut self.faults {
            None => link.down.bytes.extend(&bytes),
            Some(faults) => {
                for pdu in faults.cut(&bytes, link.digests) {
                    link.down.bytes.extend(faults.down(link.cid, pdu));
                }
            }
        }
        let conn = link.target;
        for (slot, mark) in marks {
            self.target.sent_mark(conn, slot, mark);
        }
        self.drain();
        !bytes.is_empty()
    }

    fn deliver_up(&mut self, at: usize, n: usize) -> Result<bool, Fatal> {
        let link = &mut self.links[at];
        let n = n.min(link.up.bytes.len());
        let bytes: Vec<u8> = link.up.bytes.drain(..n).collect();
        link.up.delivered += n;
        let conn = link.target;
        let mut pipe = std::mem::take(&mut link.up);
        let memory = &mut self.memory;
        let result = receive(&mut self.target, conn, &mut pipe, &bytes, self.now, |target, slot, offset, part| {
            let len = target.task(slot).expect("in use").expected_write() as usize;
            let place = memory.entry(slot).or_insert_with(|| vec![0; len]);
            place[offset..offset + part.len()].copy_from_slice(part);
        });
        self.links[at].up = pipe;
        self.drain();
        result.map(|()| n > 0)
    }

    fn deliver_down(&mut self, at: usize, n: usize) -> Result<bool, Fatal> {
        let link = &mut self.links[at];
        let n = n.min(link.down.bytes.len());
        let bytes: Vec<u8> = link.down.bytes.drain(..n).collect();
        link.down.delivered += n;
        let conn = link.initiator;
        let mut pipe = std::mem::take(&mut link.down);
        let buffers = &mut self.buffers;
        let result = receive(&mut self.initiator, conn, &mut pipe, &bytes, self.now, |_, slot, offset, part| {
            buffers.get_mut(&slot).expect("in use")[offset..offset + part.len()].copy_from_slice(part);
        });
        self.links[at].down = pipe;
        self.drain();
        result.map(|()| n > 0)
    }

    fn drain(&mut self) {
        while let Some(event) = self.initiator.poll_event() {
            if let Event::TaskEnded { slot, outcome, .. } = event {
                let data = self.buffers.remove(&slot).expect("a buffer");
                if let Some(Request::Read(at)) = self.requests.remove(&slot) {
                    self.reads.push((at, data));
                }
                self.outcomes.push(outcome);
            }
        }
        while let Some(event) = self.target.poll_event() {
            match event {
                TargetEvent::Command(slot) => self.serve(slot),
                TargetEvent::DataOut(slot) => self.go_on(slot),
                TargetEvent::Control(slot) => self.manage(slot),
                TargetEvent::Released(slot) => {
                    self.memory.remove(&slot);
                }
                TargetEvent::Acknowledged { .. } => {}
                TargetEvent::DigestFailure { .. } => self.digest_failures += 1,
                TargetEvent::Violation { what, .. } => self.violations.push(what),
                other => panic!("{other:?}"),
            }
        }
    }

    fn at(&self, slot: Slot) -> usize {
        let task = self.target.task(slot).expect("in use");
        u32::from_be_bytes(task.cdb.as_slice()[2..6].try_into().expect("four bytes")) as usize
    }

    fn serve(&mut self, slot: Slot) {
        let at = self.at(slot);
        let len = self.target.task(slot).expect("in use").expected_read();
        if len == 0 {
            return self.go_on(slot);
        }
        self.memory.insert(slot, self.disk[at..at + len as usize].to_vec());
        self.target.send_data(slot, 0, len, true, Some(Finish::good(Residual::None)));
    }

    /// A write: asks for what is missing, ends when nothing is.
    fn go_on(&mut self, slot: Slot) {
        loop {
            let Some(task) = self.target.task(slot) else { return };
            let expected = u64::from(task.expected_write());
            if task.out.condition.is_some() {
                self.gave_up += 1;
                let check = Finish { status: status::CHECK_CONDITION, ..Finish::good(Residual::None) };
                self.target.finish(slot, check);
                return;
            }
            if task.out.received.contains(0, expected) {
                let at = self.at(slot);
                let data = self.memory.entry(slot).or_default();
                self.disk[at..at + data.len()].copy_from_slice(data);
                self.target.finish(slot, Finish::good(Residual::None));
                return;
            }
            if task.out.unsolicited_open || self.target.r2t_room(slot) == 0 {
                return;
            }
            let Some((start, len)) = self.target.next_to_solicit(slot, expected as u32) else { return };
            let len = len.min(self.burst);
            self.memory.entry(slot).or_insert_with(|| vec![0; expected as usize]);
            assert!(self.target.solicit(slot, start, len));
        }
    }

    fn manage(&mut self, slot: Slot) {
        let task = self.target.task(slot).expect("in use");
        let (header, conn) = (task.header, task.conn);
        let referenced = self.target.find(header.referenced_task_tag());
        let mut answer = Bhs::new(Opcode::TaskManagementResponse, 0x80);
        match (header.function(), referenced) {
            (function::TASK_REASSIGN, Some(task)) => {
                self.target.respond_control(slot, answer, Vec::new());
                match self.target.rebind(task, conn, header.exp_data_sn()).expect("it can be moved") {
                    Rebound::Answered => {}
                    Rebound::Lost => panic!("nothing is dropped here"),
                    Rebound::GoesOn => {
                        if self.target.task(task).is_some_and(|t| t.state == blockwire_proto::target::TaskState::Active)
                        {
                            self.go_on(task);
                        }
                    }
                }
            }
            (function::ABORT_TASK, Some(task)) => {
                self.target.abort_task(task);
                self.target.respond_control(slot, answer, Vec::new());
            }
            _ => {
                answer.set_response(1);
                self.target.respond_control(slot, answer, Vec::new());
            }
        }
    }
}

fn gather<E: Endpoint>(
    endpoint: &mut E, conn: ConnIndex, room: usize, read: impl Fn(Slot, usize, usize) -> Vec<u8>, sent: &mut Vec<Slot>,
) -> Vec<u8> {
    serialize(endpoint.send_queue(conn), room, read, |pdu| {
        if let Payload::Task { slot, .. } = pdu.payload {
            sent.push(slot);
        }
    })
}

fn serialize(
    queue: &mut blockwire_proto::SendQueue, room: usize, read: impl Fn(Slot, usize, usize) -> Vec<u8>,
    on_sent: impl FnMut(blockwire_proto::OutPdu),
) -> Vec<u8> {
    let mut out = Vec::new();
    let skip = queue.front_sent();
    for index in 0..queue.len() {
        if out.len() >= skip + room {
            break;
        }
        let pdu = queue.get_mut(index).expect("in the queue");
        let data = match &pdu.payload {
            Payload::None => Vec::new(),
            Payload::Inline(bytes) => bytes.clone(),
            Payload::Task { slot, offset, len, .. } => read(*slot, *offset as usize, *len as usize),
        };
        if pdu.digest_pending {
            pdu.set_data_digest(crc32c::append(0, &data));
        }
        for part in [pdu.header_bytes(), pdu.ahs_bytes(), &data, pdu.trailer_bytes()] {
            out.extend_from_slice(part);
        }
    }
    let out: Vec<u8> = out.into_iter().skip(skip).take(room).collect();
    queue.sent(out.len(), on_sent);
    out
}

fn receive<E: Endpoint>(
    endpoint: &mut E, conn: ConnIndex, pipe: &mut Pipe, bytes: &[u8], now: u64,
    mut place: impl FnMut(&E, Slot, usize, &[u8]),
) -> Result<(), Fatal> {
    let mut at = 0;
    loop {
        let remaining = endpoint.deframer(conn).data_remaining() as usize;
        if remaining > 0 {
            if at == bytes.len() {
                return Ok(());
            }
            let n = remaining.min(bytes.len() - at);
            let part = &bytes[at..at + n];
            match pipe.destination {
                Some(Destination::Task { slot, direction, offset }) => {
                    debug_assert!(matches!(direction, Direction::In | Direction::Out));
                    place(endpoint, slot, (offset + pipe.moved) as usize, part);
                }
                Some(Destination::Control) => pipe.control.extend_from_slice(part),
                _ => {}
            }
            pipe.moved += n as u32;
            at += n;
            let deframer = endpoint.deframer(conn);
            let crc = crc32c::append(deframer.data_crc(), part);
            if deframer.data_moved(n as u32, crc) {
                endpoint.pdu(conn, &std::mem::take(&mut pipe.control), true, now)?;
            }
            continue;
        }
        let (n, step) = endpoint.deframer(conn).push(&bytes[at..]);
        at += n;
        match step {
            Step::NeedMore => return Ok(()),
            Step::Header => {
                pipe.destination = Some(endpoint.header(conn, now)?);
                pipe.moved = 0;
            }
            Step::Pdu => {
                endpoint.pdu(conn, &std::mem::take(&mut pipe.control), true, now)?;
                if at == bytes.len() {
                    return Ok(());
                }
            }
            Step::DataDigestError => endpoint.pdu(conn, &std::mem::take(&mut pipe.control), false, now)?,
            Step::AhsError => return Err(Fatal::additional_headers()),
            Step::HeaderDigestError => {
                return Err(Fatal { code: FatalCode::HeaderDigest, what: "header digest error (RFC 7143 7.7)" });
            }
        }
    }
}

const _: () = assert!(BHS_LEN == 48);
