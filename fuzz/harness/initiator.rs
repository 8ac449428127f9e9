//! A hostile target against the initiator's role. Nothing panics; no byte lands outside a buffer or leaves one; what it holds is
//! bounded; every command ends once, and GOOD means that the data is there.

use std::collections::{BTreeMap, HashMap};

use blockwire_proto::initiator::{Command, Event, InitiatorSession, Outcome};
use blockwire_proto::ranges::RangeSet;
use blockwire_proto::{
    ConnIndex, ConnectionParams, Destination, Direction, Endpoint, OutPdu, Payload, SessionParams, Slot,
};
use blockwire_wire::{BHS_LEN, Bhs, Opcode, RESERVED_TAG, serial};

use super::carry::{self, Driver, Receiving};
use super::input::Input;

const MOST_CONNECTIONS: usize = 3;
/// Commands in flight that the harness's application has.
const DEPTH: usize = 12;
/// PDUs of its own that the initiator may keep for a target that does not read: answers to pings, acknowledgements.
const MOST_ANSWERS: usize = 256;

struct Port {
    conn: ConnIndex,
    receiving: Receiving,
    digests: (bool, bool),
    sends: u32,
    partial: Vec<u8>,
    exp_stat_sn: u32,
}

struct Buffer {
    write_len: u32,
    read_len: u32,
    placed: RangeSet,
    context: u64,
}

/// What the hostile target remembers of a request, to get close to what is right.
#[derive(Clone, Copy, Default)]
struct Seen {
    opcode: u8,
    read_len: u32,
    write_len: u32,
    next: u32,
    data_sn: u32,
}

struct Initiator {
    session: InitiatorSession,
    ports: Vec<Port>,
    buffers: HashMap<Slot, Buffer>,
    controls: Vec<u64>,
    requests: BTreeMap<u32, Seen>,
    contexts: u64,
    cmd_sn: Option<u32>,
    now: u64,
    cids: u16,
    lost: Vec<u16>,
}

impl Driver for Initiator {
    type Role = InitiatorSession;

    fn role(&mut self) -> &mut InitiatorSession {
        &mut self.session
    }

    fn planned(&mut self, _conn: ConnIndex, destination: Destination, len: u32) {
        if let Destination::Task { slot, direction, offset } = destination {
            assert_eq!(direction, Direction::In);
            let buffer = self.buffers.get(&slot).expect("a destination in a task that is there");
            assert!(u64::from(offset) + u64::from(len) <= u64::from(buffer.read_len), "past the end of a buffer");
        }
    }

    fn place(&mut self, _conn: ConnIndex, slot: Slot, _direction: Direction, offset: u32, bytes: &[u8]) {
        let buffer = self.buffers.get_mut(&slot).expect("payload for a buffer that was given back");
        assert!(offset + bytes.len() as u32 <= buffer.read_len);
        let _ = buffer.placed.insert(u64::from(offset), bytes.len() as u64);
    }

    fn payload(&mut self, _conn: ConnIndex, slot: Slot, direction: Direction, offset: u32, len: u32) -> Vec<u8> {
        assert_eq!(direction, Direction::Out);
        let buffer = self.buffers.get(&slot).expect("a PDU names a buffer that was given back");
        assert!(u64::from(offset) + u64::from(len) <= u64::from(buffer.write_len), "bytes past the end of a buffer");
        vec![0; len as usize]
    }

    fn after_pdu(&mut self, _conn: ConnIndex) {
        self.drain();
    }

    fn sent(&mut self, _conn: ConnIndex, pdu: OutPdu) {
        if let Payload::Task { slot, .. } = pdu.payload {
            self.session.payload_sent(slot);
        }
        self.drain();
    }
}

impl Initiator {
    fn connect(&mut self, input: &mut Input<'_>) {
        if self.ports.len() >= MOST_CONNECTIONS {
            return;
        }
        let choice = input.byte();
        let digests = (choice & 1 != 0, choice & 2 != 0);
        let sends = [512, 700, 1024, 8192][usize::from(choice >> 2 & 3)];
        let exp_stat_sn = if choice & 0x20 != 0 { 0xffff_fffd } else { 7 };
        self.cids += 1;
        let params = ConnectionParams {
            cid: self.cids,
            max_recv_data_segment_length: [512, 8192][usize::from(choice >> 4 & 1)],
            max_send_data_segment_length: sends,
            header_digest: digests.0,
            data_digest: digests.1,
            keep_alive_interval: if choice & 0x40 != 0 { 50 } else { 0 },
            keep_alive_timeout: 100,
        };
        let conn = self.session.add_connection(params, exp_stat_sn, self.now);
        let receiving = Receiving::default();
        self.ports.push(Port { conn, receiving, digests, sends, partial: Vec::new(), exp_stat_sn });
        self.drain();
    }

    fn lose(&mut self, at: usize, freeze: bool) {
        if self.ports.is_empty() {
            return;
        }
        let port = self.ports.remove(at % self.ports.len());
        let freeze = freeze && self.session.params().error_recovery_level == 2;
        if let Some(params) = self.session.connection_params(port.conn).filter(|_| freeze) {
            self.lost.push(params.cid);
        }
        self.session.lose_connection(port.conn, freeze);
        // a command may have been lost with its number: a retry repeats it
        self.cmd_sn = None;
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::TaskEnded { slot, context, outcome } => {
                    let buffer = self.buffers.remove(&slot).expect("ended twice, or never submitted");
                    assert_eq!(buffer.context, context);
                    for port in &self.ports {
                        let queue = self.session.send_queue(port.conn);
                        let named =
                            queue.iter().any(|pdu| matches!(&pdu.payload, Payload::Task { slot: s, .. } if *s == slot));
                        assert!(!named, "a queued PDU names the buffer of a command that ended");
                    }
                    if let Outcome::Status { status: 0, residual, read_residual, .. } = outcome
                        && buffer.read_len > 0
                    {
                        let short = if buffer.write_len > 0 { read_residual } else { residual };
                        let came = i64::from(buffer.read_len) - short.max(0);
                        let whole = came <= 0 || buffer.placed.contains(0, came as u64);
                        assert!(whole, "GOOD for {came} bytes, and {:?} came", buffer.placed);
                    }
                }
                Event::Control { context, .. } | Event::ControlLost { context } => {
                    self.controls.retain(|c| *c != context);
                }
                Event::AbortRefused { .. } | Event::ReassignRefused { .. } => {}
            }
        }
    }

    // ------------------------------------------------------------------------------------ the application

    fn submit(&mut self, input: &mut Input<'_>) {
        if self.buffers.len() >= DEPTH {
            return;
        }
        let choice = input.byte();
        let length = input.one_of(&[0u32, 1, 512, 700, 1024, 3000, 4096]);
        let (write_len, read_len) = match choice & 3 {
            0 => (0, length),
            1 => (length, 0),
            2 => (length, 600),
            _ => (0, 2048),
        };
        self.contexts += 1;
        let conn = self.ports.get(usize::from(choice >> 4)).map(|p| p.conn);
        let cdb = [0x28; 32];
        let command = Command {
            lun: u64::from(choice & 4) << 46,
            cdb: if choice & 8 != 0 { &cdb } else { &cdb[..10] },
            attribute: 1,
            immediate: choice & 0xc0 == 0xc0,
            write_len,
            read_len,
            conn,
            context: self.contexts,
        };
        if let Ok(slot) = self.session.submit(&command) {
            let buffer = Buffer { write_len, read_len, placed: RangeSet::new(), context: self.contexts };
            assert!(self.buffers.insert(slot, buffer).is_none(), "a slot in use was given out");
        }
        self.drain();
    }

    fn control(&mut self, input: &mut Input<'_>) {
        if self.controls.len() >= DEPTH {
            return;
        }
        let choice = input.byte();
        let opcode = input.one_of(&[
            Opcode::NopOut,
            Opcode::TextRequest,
            Opcode::LogoutRequest,
            Opcode::TaskManagementRequest,
            Opcode::ScsiCommand,
        ]);
        let mut header = Bhs::new(opcode, 0x80 | (choice & 0x0f));
        header.set_target_transfer_tag(if choice & 0x10 != 0 { 5 } else { RESERVED_TAG });
        if choice & 0x20 != 0 {
            header.set_immediate();
        }
        if opcode == Opcode::TaskManagementRequest {
            let tags: Vec<u32> = self.requests.keys().copied().collect();
            header.set_referenced_task_tag(if tags.is_empty() { RESERVED_TAG } else { tags[input.below(tags.len())] });
        }
        self.contexts += 1;
        let data = vec![0; if opcode == Opcode::TextRequest { usize::from(choice) } else { 0 }];
        let conn = self.ports.get(usize::from(choice >> 6)).map(|p| p.conn);
        if self.session.submit_control(conn, &header, &data, self.contexts).is_ok() {
            self.controls.push(self.contexts);
        }
        self.drain();
    }

    fn some_slot(&self, input: &mut Input<'_>) -> Option<Slot> {
        let mut slots: Vec<Slot> = self.buffers.keys().copied().collect();
        slots.sort();
        (!slots.is_empty()).then(|| slots[input.below(slots.len())])
    }

    fn rebind(&mut self, input: &mut Input<'_>) {
        let Some(port) = self.ports.last() else { return };
        let conn = port.conn;
        let cid = if input.flag() { self.lost.pop() } else { None };
        for slot in self.session.frozen(cid) {
            assert!(self.buffers.contains_key(&slot));
            self.session.rebind(slot, conn);
        }
        self.drain();
    }

    fn transmit(&mut self, at: usize, most: usize) {
        if self.ports.is_empty() {
            return;
        }
        let at = at % self.ports.len();
        let conn = self.ports[at].conn;
        let bytes = carry::transmit(self, conn, most);
        let Some(port) = self.ports.iter_mut().find(|p| p.conn == conn) else { return };
        port.partial.extend_from_slice(&bytes);
        let several = self.cids > 1;
        let level = self.session.params().error_recovery_level;
        while let Some(header) = port.partial.first_chunk::<BHS_LEN>() {
            let bhs = Bhs(*header);
            let data = bhs.data_segment_length();
            let total = BHS_LEN
                + bhs.ahs_len()
                + if port.digests.0 { 4 } else { 0 }
                + data.next_multiple_of(4) as usize
                + if port.digests.1 && data > 0 { 4 } else { 0 };
            if port.partial.len() < total {
                break;
            }
            port.partial.drain(..total);
            let opcode = bhs.opcode().expect("an opcode of RFC 7143");
            assert!((opcode as u8) < 0x20, "{opcode:?} is a target's");
            assert!(data <= port.sends, "{data} bytes in {opcode:?}, {} declared", port.sends);
            if opcode != Opcode::DataOut || bhs.exp_stat_sn() != 0 {
                assert!(serial::less_or_equal(port.exp_stat_sn, bhs.exp_stat_sn()) || several, "ExpStatSN went back");
            }
            let numbered = !matches!(opcode, Opcode::DataOut | Opcode::Snack);
            // above level 0 a number may come again: a command retried to fill a gap (7.2.1)
            if numbered && !bhs.is_immediate() && !several && level == 0 {
                if let Some(expected) = self.cmd_sn {
                    assert_eq!(bhs.cmd_sn(), expected, "CmdSN leaves a hole (4.2.2.1)");
                }
                self.cmd_sn = Some(bhs.cmd_sn().wrapping_add(1));
            }
            if numbered && bhs.initiator_task_tag() != RESERVED_TAG {
                let mut seen = Seen { opcode: opcode as u8, ..Seen::default() };
                if opcode == Opcode::ScsiCommand {
                    let expected = bhs.expected_data_transfer_length();
                    (seen.write_len, seen.read_len) =
                        if bhs.flags() & 0x20 != 0 { (expected, 600) } else { (0, expected) };
                    seen.next = if seen.write_len > 0 { data } else { 0 };
                }
                self.requests.insert(bhs.initiator_task_tag(), seen);
                if self.requests.len() > 24 {
                    self.requests.pop_first();
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------ the target

    fn deliver(&mut self, at: usize, bytes: &[u8], pieces: u8) {
        if self.ports.is_empty() {
            return;
        }
        let conn = self.ports[at % self.ports.len()].conn;
        let size = if pieces < 200 { bytes.len().max(1) } else { usize::from(pieces - 199) };
        for piece in bytes.chunks(size) {
            let Some(at) = self.ports.iter().position(|p| p.conn == conn) else { return };
            let mut receiving = std::mem::take(&mut self.ports[at].receiving);
            let result = carry::receive(self, conn, &mut receiving, piece, self.now);
            self.ports[at].receiving = receiving;
            self.drain();
            if result.is_err() {
                return self.lose(at, true);
            }
        }
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        if self.ports.is_empty() {
            return;
        }
        let at = input.below(MOST_CONNECTIONS) % self.ports.len();
        let (conn, digests) = (self.ports[at].conn, self.ports[at].digests);
        let choice = input.byte();
        let tags: Vec<u32> = self.requests.keys().copied().collect();
        let tag = if tags.is_empty() || choice >= 0xf0 {
            input.one_of(&[RESERVED_TAG, 0, 0x1_0000, 0xffff])
        } else {
            tags[usize::from(choice) % tags.len()]
        };
        let seen = self.requests.get(&tag).copied().unwrap_or_default();
        let opcode = match input.byte() {
            0..=127 => match Opcode::from_bits(seen.opcode) {
                Some(Opcode::ScsiCommand) => {
                    input.one_of(&[Opcode::ScsiResponse, Opcode::DataIn, Opcode::DataIn, Opcode::R2t])
                }
                Some(Opcode::TextRequest) => Opcode::TextResponse,
                Some(Opcode::LogoutRequest) => Opcode::LogoutResponse,
                Some(Opcode::TaskManagementRequest) => Opcode::TaskManagementResponse,
                _ => Opcode::NopIn,
            },
            other => [
                Opcode::NopIn,
                Opcode::ScsiResponse,
                Opcode::TaskManagementResponse,
                Opcode::LoginResponse,
                Opcode::TextResponse,
                Opcode::DataIn,
                Opcode::LogoutResponse,
                Opcode::R2t,
                Opcode::AsyncMessage,
                Opcode::Reject,
                Opcode::NopIn,
                Opcode::R2t,
            ][usize::from(other) % 12],
        };
        let mut bhs = Bhs::new(opcode, 0x80);
        bhs.set_initiator_task_tag(tag);
        bhs.set_target_transfer_tag(RESERVED_TAG);
        bhs.set_stat_sn(self.session.exp_stat_sn(conn).expect("live"));
        let (cmd_sn, ..) = self.session.numbers();
        bhs.set_exp_cmd_sn(cmd_sn);
        bhs.set_max_cmd_sn(cmd_sn.wrapping_add(u32::from(choice & 7)).wrapping_sub(1));
        let mut data: Vec<u8> = Vec::new();
        let mut next = seen;
        match opcode {
            Opcode::DataIn => {
                let left = seen.read_len.saturating_sub(seen.next);
                let len = left.min(input.one_of(&[512, 512, 1, 0, 700]));
                let flags = input.byte() & 0xc7;
                let end = seen.next + len >= seen.read_len;
                bhs.set_flags(if end && flags & 4 != 0 { flags | 0x81 } else { flags & 0xfe });
                bhs.set_buffer_offset(seen.next);
                bhs.set_data_sn(seen.data_sn);
                data = vec![1; len as usize];
                next.next += len;
                next.data_sn += 1;
            }
            Opcode::R2t => {
                bhs.set_target_transfer_tag(u32::from(choice));
                bhs.set_buffer_offset(seen.next);
                bhs.set_data_sn(seen.data_sn);
                let len = seen.write_len.saturating_sub(seen.next).min(input.one_of(&[512, 100, 1024]));
                bhs.set_desired_data_transfer_length(len);
                next.next += len;
                next.data_sn += 1;
            }
            Opcode::ScsiResponse => {
                let flags = input.byte();
                bhs.set_flags(0x80 | flags & 0x1e);
                bhs.set_status(input.one_of(&[0, 0, 2, 8]));
                bhs.set_exp_data_sn(seen.data_sn);
                bhs.set_residual_count(u32::from(flags) * 8);
                if bhs.status() == 2 {
                    data = vec![0; 20];
                    data[1] = input.one_of(&[18, 18, 19, 0]);
                }
            }
            Opcode::NopIn => {
                if input.flag() {
                    bhs.set_initiator_task_tag(RESERVED_TAG);
                    bhs.set_target_transfer_tag(u32::from(choice));
                }
                data = vec![9; input.one_of(&[0, 0, 40, 512])];
            }
            Opcode::TaskManagementResponse | Opcode::LogoutResponse => {
                bhs.set_response(input.one_of(&[0, 0, 1, 5, 255]));
            }
            Opcode::TextResponse => {
                let choice = input.byte();
                if choice & 1 != 0 {
                    bhs.set_target_transfer_tag(5);
                    bhs.set_flags(choice & 0x80);
                }
                data = vec![0; usize::from(choice >> 1)];
            }
            Opcode::Reject => {
                bhs.set_response(input.one_of(&[2, 4, 9, 0]));
                bhs.set_initiator_task_tag(RESERVED_TAG);
                let mut rejected = Bhs::default();
                rejected.0[0] = seen.opcode;
                rejected.set_initiator_task_tag(tag);
                data = rejected.0.to_vec();
                data.truncate(input.one_of(&[48, 48, 48, 20]));
            }
            _ => {}
        }
        self.requests.insert(tag, next);
        let tweak = input.byte();
        match tweak {
            224.. => {
                let place = input.below(BHS_LEN);
                bhs.0[place] ^= input.byte();
            }
            200..=223 => bhs.set_stat_sn(bhs.stat_sn().wrapping_add(input.one_of(&[1, u32::MAX, 1 << 31]))),
            190..=199 => bhs.set_buffer_offset(input.word()),
            180..=189 => bhs.set_data_sn(input.word()),
            170..=179 => bhs.set_max_cmd_sn(bhs.max_cmd_sn().wrapping_add(input.one_of(&[64, 1 << 31, u32::MAX - 5]))),
            _ => {}
        }
        let bytes = carry::encode(bhs, &[], &data, digests, tweak & 0x1f);
        let pieces = input.byte();
        let keep = if tweak & 0xf0 == 0xa0 { usize::from(pieces) % bytes.len() } else { bytes.len() };
        self.deliver(at, &bytes[..keep], pieces);
    }

    fn tick(&mut self, by: u8) {
        self.now += u64::from(by);
        for conn in self.ports.iter().map(|p| p.conn).collect::<Vec<_>>() {
            if self.session.on_timer(conn, self.now).is_err() {
                let at = self.ports.iter().position(|p| p.conn == conn).expect("live");
                self.lose(at, true);
            }
        }
        self.drain();
    }

    fn check_bounds(&mut self) {
        let unfinished = self.session.unfinished();
        // each command may have an ABORT TASK and a TASK REASSIGN beside it, each connection a ping
        let bound = 3 * (DEPTH + MOST_CONNECTIONS) + 2 * DEPTH;
        assert!(unfinished <= bound, "{unfinished} requests, {} of the application", self.buffers.len());
        for port in &self.ports {
            let queue = self.session.send_queue(port.conn);
            let answers = queue.iter().filter(|pdu| pdu.slot.is_none()).count();
            assert!(answers <= MOST_ANSWERS, "{answers} PDUs for a target that does not read");
            assert!(queue.unsent_bytes() < 1 << 20, "{} bytes unsent", queue.unsent_bytes());
        }
    }
}

/// The first bytes are the negotiated parameters, then one operation after the other.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let more = input.byte();
    let max_burst = [512, 1024, 1500, 4096][usize::from(more & 3)];
    let params = SessionParams {
        initial_r2t: choice & 1 != 0,
        immediate_data: choice & 2 != 0,
        data_pdu_in_order: choice & 4 != 0,
        data_sequence_in_order: choice & 8 != 0,
        error_recovery_level: [0, 0, 1, 2][usize::from(choice >> 4 & 3)],
        max_burst_length: max_burst,
        first_burst_length: [512, 700, 1024][usize::from(more >> 2 & 3).min(2)].min(max_burst),
        max_outstanding_r2t: u32::from(more >> 4 & 3) + 1,
        ..SessionParams::default()
    };
    let start = if more & 0x40 != 0 { 0xffff_fffd } else { 1 };
    let mut initiator = Initiator {
        session: InitiatorSession::new(params, start, start, start.wrapping_add(3)),
        ports: Vec::new(),
        buffers: HashMap::new(),
        controls: Vec::new(),
        requests: BTreeMap::new(),
        contexts: 0,
        cmd_sn: Some(start),
        now: 1,
        cids: 0,
        lost: Vec::new(),
    };
    initiator.connect(&mut input);
    while !input.is_empty() {
        match input.byte() & 0x1f {
            0..=4 => initiator.submit(&mut input),
            5 | 6 => initiator.control(&mut input),
            7..=17 => initiator.answer(&mut input),
            18..=22 => {
                let (at, most) = (input.below(MOST_CONNECTIONS), input.one_of(&[1, 48, 100, 1000, 1 << 20, 1 << 20]));
                initiator.transmit(at, most);
            }
            23 | 24 => {
                if let Some(slot) = initiator.some_slot(&mut input) {
                    initiator.session.abort(slot);
                    initiator.drain();
                }
            }
            25 => initiator.tick(input.byte()),
            26 => {
                let choice = input.byte();
                initiator.lose(usize::from(choice >> 1), choice & 1 != 0);
            }
            27 | 28 => initiator.connect(&mut input),
            29 => initiator.rebind(&mut input),
            30 => {
                let at = input.below(MOST_CONNECTIONS);
                let n = input.below(128);
                let bytes = input.take(n);
                initiator.deliver(at, bytes, 0);
            }
            _ => {}
        }
        initiator.check_bounds();
    }
    while !initiator.ports.is_empty() {
        initiator.lose(0, false);
    }
    initiator.session.end_all();
    initiator.drain();
    assert!(initiator.buffers.is_empty(), "{} commands never ended", initiator.buffers.len());
    assert_eq!(initiator.session.unfinished(), 0);
}
