//! Commands, the command window, connections, and the ends of tasks.

use std::collections::VecDeque;

use blockwire_wire::bhs::{FINAL, READ, WRITE, padding};
use blockwire_wire::{Bhs, Opcode, serial};

use super::acknowledge::Room;
use super::connection::Connection;
use super::data_out::Burst;
use super::distribution::Spread;
use super::recovery::{DEFAULT_TIMEOUT, RecoveryCounters};
use super::task::{Kind, Outcome, Purpose, State, Task, TaskTable};
use crate::params::{ConnIndex, SessionParams};
use crate::send_queue::Payload;
use crate::slab::Slot;

/// A SCSI command to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// LUN field (RFC 7143 11.3.3), most significant byte first.
    pub lun: u64,
    /// 1 to 260 bytes; what exceeds 16 goes into an AHS (11.2.2.3).
    pub cdb: &'a [u8],
    /// Task attribute (11.3.1.2).
    pub attribute: u8,
    pub immediate: bool,
    /// Expected data transfer lengths, bytes; both set make a bidirectional command.
    pub write_len: u32,
    pub read_len: u32,
    /// The connection, or None for the least loaded one.
    pub conn: Option<ConnIndex>,
    /// Comes back with the event.
    pub context: u64,
}

/// Why a request could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// 65,536 requests are unfinished.
    Full,
    /// The last connection is lost and the session cannot go on.
    Dead,
    /// The connection asked for does not exist or is being logged out.
    NoConnection,
    /// No CDB, or one longer than 260 bytes; a control header that is no request.
    Invalid,
}

/// What a session tells whoever drives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A SCSI command ended; its slot is free for another one once this event was taken.
    TaskEnded { slot: Slot, context: u64, outcome: Outcome },
    /// The answer to a control request (`context` of the request), or an unsolicited PDU (context 0).
    Control { conn: ConnIndex, context: u64, bhs: Bhs, data: Vec<u8> },
    /// A control request ended without an answer: its connection is gone.
    ControlLost { context: u64 },
    /// The target did not abort the task with this context (task management response, 11.6.1).
    AbortRefused { context: u64, response: u8 },
    /// The target did not reassign the task with this context; it stays frozen.
    ReassignRefused { context: u64, response: u8 },
}

/// The initiator's side of one session, with all its connections.
#[derive(Debug)]
pub struct InitiatorSession {
    pub(super) params: SessionParams,
    pub(super) cmd_sn: u32,
    pub(super) exp_cmd_sn: u32,
    pub(super) max_cmd_sn: u32,
    pub(super) connections: Vec<Option<Connection>>,
    pub(super) tasks: TaskTable,
    pub(super) waiting: VecDeque<Slot>,
    pub(super) events: VecDeque<Event>,
    pub(super) dead: bool,
    /// The time of the call at hand.
    pub(super) now: u64,
    pub(super) recovery_timeout: u64,
    pub(super) recovered: RecoveryCounters,
    /// Data-In sequences that went beyond MaxBurstLength.
    pub(super) long_sequences: u64,
    /// CmdSNs of requests that ended here without the target having acknowledged them.
    pub(super) holes: Vec<u32>,
    /// ExpStatSN of connections that are gone, by CID: a logout for recovery tells it (RFC 7143 11.14.4).
    pub(super) gone: Vec<(u16, u32)>,
    /// A task has `missed` set.
    pub(super) any_missed: bool,
    /// Connections with a command retry that no numbered request follows yet (`retry_cover`).
    pub(super) uncovered: Vec<ConnIndex>,
    /// Tasks being reassigned whose TASK REASSIGN waits for the answers to earlier ones.
    pub(super) to_reassign: VecDeque<Slot>,
    pub(super) spread: Spread,
    pub(super) room: Room,
}

/// Room for this many PDUs in a send queue before it grows.
pub(super) const QUEUE_ROOM: usize = 256;
/// Longest CDB: AHSLength has 16 bits, SCSI's variable-length CDBs end at 260 bytes (SPC-4 4.2.3).
const LONGEST_CDB: usize = 260;
const AHS_EXTENDED_CDB: u8 = 1;
const AHS_BIDI_READ_LENGTH: u8 = 2;

impl InitiatorSession {
    /// A session without connections. `cmd_sn` is the next to send, the others are those of the last login response.
    #[must_use]
    pub fn new(params: SessionParams, cmd_sn: u32, exp_cmd_sn: u32, max_cmd_sn: u32) -> Self {
        Self {
            params,
            cmd_sn,
            exp_cmd_sn,
            max_cmd_sn,
            connections: Vec::new(),
            tasks: TaskTable::default(),
            waiting: VecDeque::new(),
            events: VecDeque::with_capacity(QUEUE_ROOM),
            dead: false,
            now: 0,
            recovery_timeout: DEFAULT_TIMEOUT,
            recovered: RecoveryCounters::default(),
            long_sequences: 0,
            holes: Vec::new(),
            gone: Vec::new(),
            any_missed: false,
            uncovered: Vec::new(),
            to_reassign: VecDeque::new(),
            spread: Spread::default(),
            room: Room::new(exp_cmd_sn, max_cmd_sn),
        }
    }

    /// CmdSN, ExpCmdSN, MaxCmdSN, for the login of a further connection (RFC 7143 11.12.8).
    #[must_use]
    pub fn numbers(&self) -> (u32, u32, u32) {
        (self.cmd_sn, self.exp_cmd_sn, self.max_cmd_sn)
    }

    /// Nanoseconds that a lost PDU is waited for before it is asked for (again); 5 s unless told.
    pub fn set_recovery_timeout(&mut self, nanos: u64) {
        self.recovery_timeout = nanos.max(1);
    }

    /// What recovery did so far.
    #[must_use]
    pub fn recovery_counters(&self) -> &RecoveryCounters {
        &self.recovered
    }

    /// Data-In sequences of the target that went beyond MaxBurstLength (RFC 7143 13.13). They were taken.
    #[must_use]
    pub fn long_sequences(&self) -> u64 {
        self.long_sequences
    }

    #[must_use]
    pub fn params(&self) -> &SessionParams {
        &self.params
    }

    /// Requests that did not end yet.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.tasks.len()
    }

    /// No connection is left and the error recovery level cannot bring one back.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Takes a SCSI command. It starts now, or when the command window allows (RFC 7143 4.2.2.1); immediate ones do
    /// not wait for the window. Allocates nothing once the tables have their size.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn submit(&mut self, command: &Command<'_>) -> Result<Slot, SubmitError> {
        if command.cdb.is_empty() || command.cdb.len() > LONGEST_CDB {
            return Err(SubmitError::Invalid);
        }
        self.check_connection(command.conn)?;
        let slot = self.tasks.take().ok_or(SubmitError::Full)?;
        let task = &mut self.tasks[slot];
        task.kind = Kind::Scsi;
        task.context = command.context;
        task.wanted = command.conn;
        task.write_len = command.write_len;
        task.read_len = command.read_len;
        let bhs = &mut task.bhs;
        bhs.0[0] = Opcode::ScsiCommand as u8;
        if command.immediate {
            bhs.set_immediate();
        }
        let read = if command.read_len > 0 { READ } else { 0 };
        let write = if command.write_len > 0 { WRITE } else { 0 };
        bhs.set_flags(read | write | (command.attribute & 0x07));
        bhs.set_lun(command.lun);
        // of a bidirectional command this is the write's length, the read's is in an AHS (11.3.4, 11.2.2.4)
        bhs.set_expected_data_transfer_length(if write != 0 { command.write_len } else { command.read_len });
        bhs.set_cdb(command.cdb);
        if command.cdb.len() > 16 {
            let rest = &command.cdb[16..];
            task.ahs.extend_from_slice(&((rest.len() + 1) as u16).to_be_bytes());
            task.ahs.extend_from_slice(&[AHS_EXTENDED_CDB, 0]);
            task.ahs.extend_from_slice(rest);
            task.ahs.resize(task.ahs.len() + padding(rest.len() as u32) as usize, 0);
        }
        if read != 0 && write != 0 {
            task.ahs.extend_from_slice(&[0, 5, AHS_BIDI_READ_LENGTH, 0]);
            task.ahs.extend_from_slice(&command.read_len.to_be_bytes());
        }
        self.start_or_wait(slot);
        Ok(slot)
    }

    /// Takes a control request (text, logout, task management, NOP-Out): a 48-byte header whose tag, CmdSN, ExpStatSN
    /// and lengths are filled here, and its data segment. A Text Request with a Target Transfer Tag continues the
    /// exchange under its tag (RFC 7143 11.10.4).
    ///
    /// # Errors
    /// The request was not taken.
    pub fn submit_control(
        &mut self, conn: Option<ConnIndex>, header: &Bhs, data: &[u8], context: u64,
    ) -> Result<Slot, SubmitError> {
        let kind = match header.opcode() {
            Some(Opcode::NopOut) => Kind::Nop,
            Some(Opcode::TextRequest) => Kind::Text,
            Some(Opcode::LogoutRequest) => Kind::Logout,
            Some(Opcode::TaskManagementRequest) => Kind::TaskManagement,
            _ => return Err(SubmitError::Invalid),
        };
        self.check_connection(conn)?;
        let continued = kind == Kind::Text && header.target_transfer_tag() != blockwire_wire::RESERVED_TAG;
        let conn = if conn.is_none() { self.pick_connection(0) } else { conn };
        let paused = if kind == Kind::Text { conn.and_then(|c| self.connection(c).text.take()) } else { None };
        let slot = match paused {
            Some(slot) if continued => {
                self.detach(slot);
                slot
            }
            other => {
                if let Some(old) = other {
                    self.free(old); // a new exchange ends the old one (11.10.4)
                }
                self.tasks.take().ok_or(SubmitError::Full)?
            }
        };
        let task = &mut self.tasks[slot];
        let tag = task.tag();
        task.kind = kind;
        task.purpose = Purpose::Caller;
        task.context = context;
        task.wanted = conn;
        task.bhs = *header;
        task.bhs.set_initiator_task_tag(tag);
        task.inline.clear();
        task.inline.extend_from_slice(data);
        self.start_or_wait(slot);
        Ok(slot)
    }

    fn check_connection(&self, conn: Option<ConnIndex>) -> Result<(), SubmitError> {
        if self.dead {
            return Err(SubmitError::Dead);
        }
        match conn {
            None => Ok(()),
            Some(conn) => match self.connections.get(conn) {
                Some(Some(c)) if !c.logging_out => Ok(()),
                _ => Err(SubmitError::NoConnection),
            },
        }
    }

    #[inline]
    fn may_send(&self) -> bool {
        serial::less_or_equal(self.cmd_sn, self.max_cmd_sn)
    }

    pub(super) fn start_or_wait(&mut self, slot: Slot) {
        let task = &self.tasks[slot];
        let allowed = task.bhs.is_immediate() || (self.waiting.is_empty() && self.may_send());
        let (wanted, length) = (task.wanted, task.write_len.max(task.read_len));
        let conn = if allowed { wanted.or_else(|| self.pick_connection(length)) } else { None };
        match conn {
            Some(conn) => self.start(slot, conn),
            _ => {
                self.tasks[slot].state = State::Waiting;
                self.waiting.push_back(slot);
            }
        }
    }

    /// Starts waiting requests, oldest first, as far as the window and the connections allow.
    pub(super) fn release_waiting(&mut self) {
        while let Some(&slot) = self.waiting.front() {
            let task = &self.tasks[slot];
            if !task.bhs.is_immediate() && !self.may_send() {
                break;
            }
            let length = task.write_len.max(task.read_len);
            let conn = match task.wanted {
                Some(conn) if self.check_connection(Some(conn)).is_err() => {
                    self.waiting.pop_front();
                    self.end(slot, Outcome::ConnectionLost);
                    continue;
                }
                Some(conn) => conn,
                None => match self.pick_connection(length) {
                    Some(conn) => conn,
                    None => break,
                },
            };
            self.waiting.pop_front();
            self.start(slot, conn);
        }
    }

    /// Gives a request its CmdSN and queues it on `conn`.
    pub(super) fn start(&mut self, slot: Slot, conn: ConnIndex) {
        let task = &mut self.tasks[slot];
        task.bhs.set_cmd_sn(self.cmd_sn);
        if !task.bhs.is_immediate() {
            self.cmd_sn = self.cmd_sn.wrapping_add(1);
        }
        self.queue_request(slot, conn);
    }

    /// Queues a request that has its CmdSN (the first time, or as a command retry, RFC 7143 7.2.1).
    pub(super) fn queue_request(&mut self, slot: Slot, conn: ConnIndex) {
        self.keep_room(conn);
        let task = &mut self.tasks[slot];
        let connection = self.connections[conn].as_mut().expect("connection in use");
        task.state = State::Active;
        task.conn = conn;
        task.bhs.set_exp_stat_sn(connection.exp_stat_sn);
        connection.acknowledged = connection.exp_stat_sn;
        task.epoch = connection.epoch;
        connection.tasks += 1;
        match task.kind {
            Kind::Scsi => return self.queue_command(slot, conn),
            Kind::Logout => self.number_logout(slot),
            _ => {}
        }
        let task = &mut self.tasks[slot];
        let connection = self.connections[conn].as_mut().expect("connection in use");
        let payload = if task.inline.is_empty() { Payload::None } else { Payload::Inline(task.inline.clone()) };
        connection.queue.push(task.bhs, payload, Some(slot), 0);
        if task.kind == Kind::Logout {
            let request = task.bhs;
            self.begin_logout(&request);
        } else if task.kind == Kind::TaskManagement {
            self.sort_data_out(conn);
        }
    }

    fn queue_command(&mut self, slot: Slot, conn: ConnIndex) {
        let task = &mut self.tasks[slot];
        let connection = self.connections[conn].as_mut().expect("connection in use");
        let plan = super::data_out::plan_unsolicited(&self.params, &connection.params, task.write_len);
        let flags = task.bhs.flags() & !FINAL;
        task.bhs.set_flags(if plan.end > plan.immediate { flags } else { flags | FINAL });
        task.asked.clear();
        let _ = task.asked.insert(0, u64::from(plan.end));
        let payload = if plan.immediate > 0 {
            task.holds += 1;
            Payload::Task { slot, direction: crate::Direction::Out, offset: 0, len: plan.immediate }
        } else {
            Payload::None
        };
        if task.ahs.is_empty() {
            connection.queue.push(task.bhs, payload, Some(slot), 0);
        } else {
            connection.queue.push_with_ahs(task.bhs, task.ahs.clone(), payload, Some(slot), 0);
        }
        if plan.end > plan.immediate {
            connection.add_burst(Burst::unsolicited(slot, task, plan.immediate, plan.end), task.is_quiet);
        }
    }

    /// The next event, oldest first.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::TaskEnded { slot, .. } = &event {
            self.tasks.give_back(*slot);
        }
        Some(event)
    }

    /// A PDU with payload of this task left the send queue. Call it for each such PDU that `SendQueue::sent` hands out.
    #[inline]
    pub fn payload_sent(&mut self, slot: Slot) {
        self.release_hold(slot);
    }

    #[inline]
    pub(super) fn release_hold(&mut self, slot: Slot) {
        let task = &mut self.tasks[slot];
        debug_assert!(task.holds > 0);
        task.holds -= 1;
        if task.holds == 0 && task.state == State::Ended {
            self.report(slot);
        }
    }

    /// Ends a SCSI task: data not begun is dropped; the event comes when nothing refers to its buffer any more.
    pub(super) fn end(&mut self, slot: Slot, outcome: Outcome) {
        if matches!(outcome, Outcome::ConnectionLost | Outcome::Rejected(_)) {
            self.note_hole(slot);
        }
        if self.tasks[slot].recovery.is_some() {
            self.forget_recovery(slot);
        }
        let task = &mut self.tasks[slot];
        if task.kind != Kind::Scsi {
            let context = task.context;
            let told = task.purpose == Purpose::Caller;
            self.detach(slot);
            self.tasks.give_back(slot);
            if told {
                self.events.push_back(Event::ControlLost { context });
            }
            return;
        }
        task.outcome = Some(outcome);
        let sending = task.write_len > 0 && task.state == State::Active;
        if sending {
            self.drop_data_out(slot);
        }
        self.detach(slot);
        self.tasks[slot].state = State::Ended;
        if self.tasks[slot].holds == 0 {
            self.report(slot);
        }
    }

    fn report(&mut self, slot: Slot) {
        let task = &mut self.tasks[slot];
        let outcome = task.outcome.take().unwrap_or(Outcome::Aborted);
        // a stale PDU with this tag finds nothing from here on
        let context = task.context;
        self.events.push_back(Event::TaskEnded { slot, context, outcome });
    }

    /// Ends a control task whose answer came.
    pub(super) fn free(&mut self, slot: Slot) {
        self.detach(slot);
        let task = &self.tasks[slot];
        let (kind, conn) = (task.kind, task.conn);
        self.tasks.give_back(slot);
        if kind == Kind::TaskManagement {
            self.sort_data_out(conn);
        }
    }

    pub(super) fn detach(&mut self, slot: Slot) {
        let task = &self.tasks[slot];
        if matches!(task.state, State::Active | State::Paused | State::Reassigning) {
            let conn = task.conn;
            if let Some(Some(connection)) = self.connections.get_mut(conn) {
                connection.tasks -= 1;
            }
        }
    }

    /// Ends every request that is left, for the end of the session. The connections must be gone.
    pub fn end_all(&mut self) {
        self.dead = true;
        self.waiting.clear();
        for slot in self.tasks.slots(|t| t.state != State::Ended) {
            self.end(slot, Outcome::ConnectionLost);
        }
        self.holes.clear();
    }

    /// Finds the SCSI task with this context. Walks all tasks: for cancelling, not for the data path.
    #[must_use]
    pub fn find_task(&self, context: u64) -> Option<Slot> {
        let wanted = |t: &Task| t.kind == Kind::Scsi && t.context == context && t.state != State::Ended;
        self.tasks.slots(wanted).first().copied()
    }

    /// Bytes of a task's read that arrived, if they are its first ones.
    #[must_use]
    pub fn received_prefix(&self, slot: Slot) -> u64 {
        self.tasks[slot].received.first_gap(0, u64::MAX).map_or(0, |(start, _)| start)
    }
}
