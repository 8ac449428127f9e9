//! A hostile initiator against the target's role: PDUs with any field wrong, damaged digests, pieces, lost connections, between
//! any calls of the engine. Nothing panics; what it holds is bounded; what it sends is right (`target_watch`) and provided.

use std::collections::HashMap;

use blockwire_proto::target::{
    Finish, Rebound, Residual, SendMark, TargetEvent, TargetLimits, TargetSession, TaskKind, TaskState,
};
use blockwire_proto::{
    ConnIndex, ConnectionParams, Destination, Direction, Endpoint, OutPdu, Payload, SessionParams, Slot,
};
use blockwire_wire::opcode::function;
use blockwire_wire::{Bhs, Opcode};

use super::carry::{self, Driver, Receiving};
use super::input::Input;
use super::target_watch::{Watch, Window};

const LIMITS: TargetLimits =
    TargetLimits { command_window: 4, immediate_commands: 3, side_answers: 8, control_bytes: 2048, data_timeout: 100 };
/// Connections of one session.
pub(super) const MOST_CONNECTIONS: usize = 3;
/// The largest transfer a command announces.
pub(super) const TRANSFER: u32 = 4096;

pub(super) struct Port {
    pub(super) conn: ConnIndex,
    pub(super) receiving: Receiving,
    pub(super) watch: Watch,
    pub(super) digests: (bool, bool),
    pub(super) receives: u32,
}

#[derive(Default)]
pub(super) struct Work {
    /// Bytes of the read that were given to `send_data`; PDUs may name no others.
    provided: u32,
    /// Below this the initiator has everything: its memory is gone.
    freed: u32,
    last: bool,
    delivered: bool,
}

pub(super) struct Target {
    pub(super) session: TargetSession,
    pub(super) ports: Vec<Port>,
    pub(super) work: HashMap<Slot, Work>,
    pub(super) window: Window,
    pub(super) now: u64,
    pub(super) cids: u16,
    /// The in-order part of MaxCmdSN that several connections show can only be compared on one.
    pub(super) closing: Vec<ConnIndex>,
}

impl Driver for Target {
    type Role = TargetSession;

    fn role(&mut self) -> &mut TargetSession {
        &mut self.session
    }

    fn planned(&mut self, conn: ConnIndex, destination: Destination, len: u32) {
        match destination {
            Destination::Task { slot, direction, offset } => {
                let task = self.session.task(slot).expect("a destination in a task that is there");
                assert_eq!(direction, Direction::Out);
                assert!(
                    u64::from(offset) + u64::from(len) <= u64::from(task.expected_write()),
                    "past the end of a task"
                );
                assert!(!task.frozen && task.conn == conn);
            }
            Destination::Control => assert!(len <= self.port(conn).receives.max(8192), "a long control segment"),
            Destination::None | Destination::Discard => {}
        }
    }

    fn place(&mut self, _conn: ConnIndex, slot: Slot, direction: Direction, offset: u32, bytes: &[u8]) {
        // the engine looks the task up again: one that is dying takes nothing
        let Some(task) = self.session.task(slot) else { panic!("payload for a record that is gone") };
        assert_eq!(direction, Direction::Out);
        assert!(offset + bytes.len() as u32 <= task.expected_write());
    }

    fn payload(&mut self, _conn: ConnIndex, slot: Slot, direction: Direction, offset: u32, len: u32) -> Vec<u8> {
        assert_eq!(direction, Direction::In);
        assert!(self.session.task(slot).is_some(), "a PDU names memory of a record that is gone");
        let (freed, provided) = self.work.get(&slot).map_or((0, 0), |w| (w.freed, w.provided));
        assert!(offset + len <= provided, "bytes {offset}+{len} of {provided} provided");
        assert!(offset >= freed, "bytes {offset}+{len}, and below {freed} they are acknowledged and gone");
        vec![0; len as usize]
    }

    fn after_pdu(&mut self, _conn: ConnIndex) {
        self.drain();
    }

    fn sent(&mut self, conn: ConnIndex, pdu: OutPdu) {
        self.session.sent_mark(conn, pdu.slot, pdu.mark);
    }
}

impl Target {
    fn port(&self, conn: ConnIndex) -> &Port {
        self.ports.iter().find(|p| p.conn == conn).expect("connection in use")
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        if self.ports.len() >= MOST_CONNECTIONS {
            return;
        }
        let choice = input.byte();
        let digests = (choice & 1 != 0, choice & 2 != 0);
        let sends = [512, 700, 1024, 8192][usize::from(choice >> 2 & 3)];
        let receives = [512, 8192][usize::from(choice >> 4 & 1)];
        let stat_sn = if choice & 0x20 != 0 { 0xffff_fffd } else { 7 };
        self.cids += 1;
        let params = ConnectionParams {
            cid: self.cids,
            max_recv_data_segment_length: receives,
            max_send_data_segment_length: sends,
            header_digest: digests.0,
            data_digest: digests.1,
            keep_alive_interval: if choice & 0x40 != 0 { 50 } else { 0 },
            keep_alive_timeout: 100,
        };
        let conn = self.session.add_connection(params, stat_sn, self.now);
        let watch = Watch::new(digests, stat_sn, sends);
        self.ports.push(Port { conn, receiving: Receiving::default(), watch, digests, receives });
    }

    pub(super) fn drop_connection(&mut self, at: usize, freeze: bool) {
        if self.ports.is_empty() {
            return;
        }
        let port = self.ports.remove(at % self.ports.len());
        self.closing.retain(|c| *c != port.conn);
        if freeze && self.session.params().error_recovery_level == 2 {
            self.session.freeze_connection(port.conn);
        } else {
            self.session.remove_connection(port.conn);
        }
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                TargetEvent::Command(slot) | TargetEvent::Control(slot) => {
                    let work = self.work.entry(slot).or_default();
                    assert!(!std::mem::replace(&mut work.delivered, true), "delivered twice");
                }
                // the task may have ended since
                TargetEvent::DataOut(_) => {}
                TargetEvent::Released(slot) => {
                    self.work.remove(&slot);
                    for port in &self.ports {
                        let queue = self.session.send_queue(port.conn);
                        let named =
                            queue.iter().any(|pdu| matches!(&pdu.payload, Payload::Task { slot: s, .. } if *s == slot));
                        assert!(!named, "a released record is named by a queued PDU");
                    }
                }
                TargetEvent::Acknowledged { slot, offset } => {
                    if let Some(work) = self.work.get_mut(&slot) {
                        work.freed = work.freed.max(offset);
                    }
                }
                TargetEvent::SnackRejected(slot) => self.snack_rejected(slot),
                TargetEvent::CloseConnection { conn } => self.closing.push(conn),
                TargetEvent::DigestFailure { .. } | TargetEvent::Violation { .. } => {}
            }
        }
        for conn in std::mem::take(&mut self.closing) {
            if let Some(at) = self.ports.iter().position(|p| p.conn == conn) {
                self.drop_connection(at, false);
            }
        }
    }

    fn snack_rejected(&mut self, slot: Slot) {
        if self.session.task(slot).is_some_and(|t| !t.frozen) {
            self.session.finish(slot, Finish { status: 2, sense: vec![0x70; 18], ..Finish::default() });
        }
    }

    /// Any of the records there are, delivered ones first.
    fn some_task(&self, input: &mut Input<'_>, kind: TaskKind) -> Option<Slot> {
        let of_kind = |(slot, task): (Slot, &blockwire_proto::target::Task)| {
            (task.kind == kind && task.state == TaskState::Active).then_some(slot)
        };
        let mut all: Vec<Slot> = self.session.tasks().filter_map(of_kind).collect();
        all.sort();
        (!all.is_empty()).then(|| all[input.below(all.len())])
    }

    // ------------------------------------------------------------------------------------ the engine

    fn solicit(&mut self, input: &mut Input<'_>) {
        let Some(slot) = self.some_task(input, TaskKind::Scsi) else { return };
        let task = self.session.task(slot).expect("active");
        if task.out.unsolicited_open || self.session.r2t_room(slot) == 0 {
            return;
        }
        let most = 1 + 4 * u32::from(input.byte());
        let total = task.expected_write().min(TRANSFER);
        if let Some((start, len)) = self.session.next_to_solicit(slot, total) {
            self.session.solicit(slot, start, len.min(most));
        }
    }

    fn send_data(&mut self, input: &mut Input<'_>) {
        let Some(slot) = self.some_task(input, TaskKind::Scsi) else { return };
        let task = self.session.task(slot).expect("active");
        if task.frozen || task.finish.is_some() || self.session.connection(task.conn).is_none() {
            return;
        }
        let (conn, expected, from) = (task.conn, task.expected_read(), task.data_in.queued_to);
        let forgotten = task.data_in.forgotten;
        if self.session.send_queue(conn).unsent_bytes() > 16 * 1024 {
            return;
        }
        let work = self.work.entry(slot).or_default();
        if work.last || !work.delivered || forgotten {
            return;
        }
        let choice = input.byte();
        let len = expected.saturating_sub(from).min(TRANSFER).min(1 + 16 * u32::from(choice & 0x7f) * 8);
        let last = from + len == expected.min(TRANSFER) || choice & 0x80 != 0;
        work.provided = work.provided.max(from + len);
        work.last = last;
        let residual = Residual::of(expected, u64::from(from + len));
        let finish = (last && input.byte() & 3 != 0).then(|| Finish::good(residual));
        self.session.send_data(slot, from, len, last, finish);
    }

    fn finish(&mut self, input: &mut Input<'_>) {
        let Some(slot) = self.some_task(input, TaskKind::Scsi) else { return };
        if !self.work.get(&slot).is_some_and(|w| w.delivered) {
            return;
        }
        let choice = input.byte();
        if choice & 0x20 != 0 {
            self.session.set_effects(slot, choice & 0x40 != 0, choice & 0x80 != 0);
        }
        let finish = Finish {
            status: if choice & 1 != 0 { 2 } else { 0 },
            response: choice >> 1 & 1,
            sense: vec![0x70; usize::from(choice & 1) * 18],
            residual: if choice & 4 != 0 { Residual::Underflow(4) } else { Residual::None },
            bidirectional_residual: if choice & 8 != 0 { Residual::Overflow(9) } else { Residual::None },
        };
        self.session.finish(slot, finish);
    }

    fn respond(&mut self, input: &mut Input<'_>) {
        let Some(slot) = self.some_task(input, TaskKind::Control) else { return };
        let task = self.session.task(slot).expect("active");
        let (header, conn, frozen) = (task.header, task.conn, task.frozen);
        if frozen {
            return;
        }
        let choice = input.byte();
        let answer = match header.opcode() {
            Some(Opcode::TextRequest) => Opcode::TextResponse,
            Some(Opcode::LogoutRequest) => Opcode::LogoutResponse,
            _ => Opcode::TaskManagementResponse,
        };
        if choice & 0x20 != 0 {
            self.session.set_effects(slot, choice & 0x40 != 0, choice & 0x80 != 0 && choice & 0x1f == 0);
        }
        let data = if answer == Opcode::TextResponse { vec![0; usize::from(choice & 0x1f)] } else { Vec::new() };
        let referenced = self.session.find(header.referenced_task_tag());
        let answered = self.session.respond_control(slot, Bhs::new(answer, 0x80), data);
        if !answered || answer != Opcode::TaskManagementResponse {
            return;
        }
        match (header.function(), referenced) {
            (function::TASK_REASSIGN, Some(moved)) if moved != slot => {
                let tag = header.referenced_task_tag();
                match self.session.rebind(moved, conn, header.exp_data_sn()) {
                    Ok(what) => {
                        for port in &mut self.ports {
                            port.watch.forget(tag);
                        }
                        if what == Rebound::Lost {
                            self.snack_rejected(moved);
                        }
                    }
                    Err(_) => assert!(self.session.task(moved).is_some()),
                }
            }
            (function::ABORT_TASK, Some(gone)) if gone != slot => {
                self.abort(gone);
            }
            (function::ABORT_TASK, None) => {
                self.session.consume_cmd_sn(header.ref_cmd_sn());
            }
            _ => {}
        }
    }

    fn abort(&mut self, slot: Slot) {
        let Some(tag) = self.session.task(slot).map(|t| t.initiator_task_tag) else { return };
        if self.session.abort_task(slot) {
            for port in &mut self.ports {
                port.watch.aborted(tag);
            }
        }
    }

    fn transmit(&mut self, at: usize, most: usize) {
        if self.ports.is_empty() {
            return;
        }
        let conn = self.ports[at % self.ports.len()].conn;
        let bytes = carry::transmit(self, conn, most);
        let one = self.session.connection(conn).is_some() && self.cids == 1;
        let level = self.session.params().error_recovery_level;
        if let Some(port) = self.ports.iter_mut().find(|p| p.conn == conn) {
            port.watch.take(&bytes, &mut self.window, LIMITS.command_window, one, level > 0);
        }
        self.drain();
    }

    fn tick(&mut self, by: u8) {
        self.now += u64::from(by);
        for conn in self.ports.iter().map(|p| p.conn).collect::<Vec<_>>() {
            let _ = self.session.deadline(conn);
            if self.session.tick(conn, self.now).is_err() {
                let at = self.ports.iter().position(|p| p.conn == conn).expect("live");
                self.drop_connection(at, true);
            }
        }
    }

    fn check_bounds(&mut self) {
        let level = self.session.params().error_recovery_level;
        let window = LIMITS.command_window as usize;
        // commands in the window; those whose answers are not read (the window stays shut above four windows of them); immediate
        // ones likewise; bytes in transit
        let answers = 4 * window + window + LIMITS.immediate_commands as usize;
        let tasks = self.session.tasks().count();
        let kept = if level > 0 { 2 * answers } else { 0 };
        let bound = (window + LIMITS.immediate_commands as usize) * 2 + MOST_CONNECTIONS * (answers + 2) + kept;
        assert!(tasks <= bound, "{tasks} records, at most {bound} expected");
        for port in &self.ports {
            let queue = self.session.send_queue(port.conn);
            let of = |mark| queue.iter().filter(|pdu| pdu.mark == mark).count();
            assert!(of(SendMark::SIDE) <= LIMITS.side_answers as usize + 1, "answers to pings and Rejects pile up");
            assert!(of(SendMark::PING) <= 2 + window, "{} pings pile up", of(SendMark::PING));
            let status = of(SendMark::STATUS) + of(SendMark::STATUS_AND_CLOSE);
            assert!(status <= bound, "{status} answers wait to be sent");
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
    let mut target = Target {
        session: TargetSession::new(params, LIMITS, start),
        ports: Vec::new(),
        work: HashMap::new(),
        window: Window::default(),
        now: 1,
        cids: 0,
        closing: Vec::new(),
    };
    target.session.set_soliciting(more & 0x80 != 0);
    target.connect(&mut input);
    while !input.is_empty() {
        match input.byte() & 0x1f {
            0..=4 => target.request(&mut input, Opcode::ScsiCommand),
            5..=8 => target.request(&mut input, Opcode::DataOut),
            9 => target.request(&mut input, Opcode::NopOut),
            10 | 11 => target.request(&mut input, Opcode::TaskManagementRequest),
            12 => target.request(&mut input, Opcode::TextRequest),
            13 => target.request(&mut input, Opcode::LogoutRequest),
            14 => target.request(&mut input, Opcode::Snack),
            15 => {
                let at = input.below(MOST_CONNECTIONS);
                let n = input.below(128);
                let bytes = input.take(n);
                target.deliver(at, bytes, 0);
            }
            16..=18 => target.solicit(&mut input),
            19 | 20 => target.send_data(&mut input),
            21 | 22 => target.finish(&mut input),
            23 => target.respond(&mut input),
            24 => {
                let kind = if input.flag() { TaskKind::Scsi } else { TaskKind::Control };
                if let Some(slot) = target.some_task(&mut input, kind) {
                    target.abort(slot);
                }
            }
            25 | 26 => {
                let (at, most) = (input.below(MOST_CONNECTIONS), input.one_of(&[1, 48, 100, 1000, 1 << 20, 1 << 20]));
                target.transmit(at, most);
            }
            27 => {
                let choice = input.byte();
                match choice {
                    250.. => target.session.set_soliciting(choice & 1 != 0),
                    248.. => target.session.solicit_status(),
                    240.. => {
                        if let Some(slot) = target.some_task(&mut input, TaskKind::Scsi)
                            && target.session.params().error_recovery_level > 0
                        {
                            target.session.forget_data(slot);
                        }
                    }
                    _ => target.tick(choice),
                }
            }
            28 => {
                let choice = input.byte();
                target.drop_connection(usize::from(choice >> 1), choice & 1 != 0);
            }
            29 => target.connect(&mut input),
            30 => {
                let at = input.below(MOST_CONNECTIONS);
                let length = input.one_of(&[512, 2048, 16_384]);
                if !target.ports.is_empty() {
                    let at = at % target.ports.len();
                    target.session.set_segment_lengths(target.ports[at].conn, None, Some(length));
                    target.ports[at].watch.declare(length);
                }
            }
            _ => {
                let at = input.below(MOST_CONNECTIONS);
                if !target.ports.is_empty() {
                    let conn = target.ports[at % target.ports.len()].conn;
                    if target.session.send_queue(conn).len() < 16 {
                        let header = Bhs::new(Opcode::AsyncMessage, 0x80);
                        target.session.send_unsolicited(conn, header, Vec::new(), input.byte() == 0xff);
                    }
                }
            }
        }
        target.drain();
        target.check_bounds();
    }
    // what is left goes out, then everything is released
    for at in 0..target.ports.len() {
        target.transmit(at, usize::MAX >> 1);
    }
    while !target.ports.is_empty() {
        target.drop_connection(0, false);
    }
    let frozen: Vec<Slot> = target.session.frozen_tasks().map(|(slot, _)| slot).collect();
    for slot in frozen {
        target.session.abort_task(slot);
    }
    target.drain();
    let left = target.session.tasks().filter(|(_, t)| !t.frozen).count();
    assert_eq!(left, 0, "records outlive their connections");
}
