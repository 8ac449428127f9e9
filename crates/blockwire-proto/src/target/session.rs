//! A target's session: connections, command window, task records, and what happened to them.

use std::collections::VecDeque;

use blockwire_wire::{Bhs, Deframer};

use super::connection::Connection;
use super::late::LateTags;
use super::lifecycle::GoneNumbers;
use super::respond::SendMark;
use super::shuffle::Shuffle;
use super::tags::TagMap;
use super::task::{R2t, Task, TaskKind, TaskState};
use crate::endpoint::{Destination, Endpoint, Fatal};
use crate::fence::Fence;
use crate::order::{Entry, OrderQueue};
use crate::params::{ConnIndex, ConnectionParams, SessionParams};
use crate::send_queue::{OutPdu, SendQueue};
use crate::slab::{Slab, Slot};
use crate::window::{CommandWindow, Position};

/// Bounds on what a peer can make a session hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetLimits {
    /// Commands that may be unfinished (MaxCmdSN - ExpCmdSN + 1 when nothing is going on).
    pub command_window: u32,
    /// Unfinished immediate commands; more are rejected with reason 6 (11.17.1).
    pub immediate_commands: u32,
    /// Answers to pings and Rejects that wait to be sent on one connection.
    pub side_answers: u32,
    /// Bytes of text and ping data that are held for the control plane and for the peer.
    pub control_bytes: u32,
    /// Nanoseconds without Data-Out after which data is asked for again, at error recovery levels above 0; 0 is never.
    pub data_timeout: u64,
}

impl Default for TargetLimits {
    fn default() -> Self {
        Self {
            command_window: 256,
            immediate_commands: 32,
            side_answers: 256,
            control_bytes: 1 << 20,
            data_timeout: 10_000_000_000,
        }
    }
}

/// Live command numbering, for the login of a further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionNumbers {
    pub exp_cmd_sn: u32,
    pub max_cmd_sn: u32,
}

/// What happened. Drained by `poll_event` after every PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetEvent {
    /// A SCSI command is delivered, in command order (or at once when it is immediate).
    Command(Slot),
    /// A text, task management or logout request is delivered: `task(slot).header` and `control_data`.
    Control(Slot),
    /// A sequence of Data-Out PDUs ended: `task(slot).out` says what is there.
    DataOut(Slot),
    /// The record is about to be reused: nothing refers to the task's memory any more.
    Released(Slot),
    /// Data-In below this offset is acknowledged: its memory is free.
    Acknowledged { slot: Slot, offset: u32 },
    /// Data that was asked for again cannot be sent: the task has to end with `Condition::SnackRejected` (7.8).
    SnackRejected(Slot),
    /// A data digest was wrong; the PDU was rejected.
    DigestFailure { conn: ConnIndex, header: Bhs },
    /// The peer broke a rule and was told by Reject, or its task ends with CHECK CONDITION.
    Violation { conn: ConnIndex, what: &'static str, header: Bhs },
    /// The response after which the connection has to be closed is sent.
    CloseConnection { conn: ConnIndex },
}

/// Least value of MaxRecvDataSegmentLength (13.12); so the Data-Ins of a command are 2^23 at the most, and their numbers do not
/// come round (4.2.2.4).
const LEAST_SEGMENT: u32 = 512;

/// A session in the full feature phase.
#[derive(Debug)]
pub struct TargetSession {
    pub(super) params: SessionParams,
    pub(super) limits: TargetLimits,
    pub(super) window: CommandWindow,
    /// Commands that ended while their connection had too much to send: the window opens for them later.
    pub(super) window_debt: u32,
    pub(super) order: OrderQueue,
    pub(super) tasks: Slab<Task>,
    pub(super) tags: TagMap,
    pub(super) conns: Vec<Option<Box<Connection>>>,
    /// Of connections whose tasks were frozen; one entry a CID.
    pub(super) gone: Vec<GoneNumbers>,
    pub(super) events: VecDeque<TargetEvent>,
    pub(super) fence: Fence,
    /// The task whose answer raised the fence, and answers that wait for it in order.
    pub(super) fenced: Option<Slot>,
    pub(super) parked: VecDeque<Slot>,
    /// Answers that were decided before the fenced one and still wait for data: they go out before it.
    pub(super) ahead: Vec<Slot>,
    pub(super) immediate_commands: u32,
    pub(super) control_bytes: u32,
    pub(super) next_ttt: u32,
    pub(super) generation: u32,
    /// Room for R2Ts of tasks that ended, so that steady traffic allocates nothing.
    pub(super) spare_r2ts: Vec<Vec<R2t>>,
    /// Tags of tasks that ended while data was still to come for them; such data is ignored without a Reject.
    pub(super) late: LateTags,
    /// Time of the last header or tick.
    pub(super) now: u64,
    /// Data-In asks for acknowledgement (A bit, 11.7.2).
    pub(super) soliciting: bool,
    /// Order of Data-In and R2T when it is free, for testing initiators.
    pub(super) shuffle: Option<Shuffle>,
}

impl TargetSession {
    /// A session without connections that expects `exp_cmd_sn` next.
    #[must_use]
    pub fn new(params: SessionParams, limits: TargetLimits, exp_cmd_sn: u32) -> Self {
        Self {
            params,
            window: CommandWindow::new(exp_cmd_sn, limits.command_window),
            limits,
            window_debt: 0,
            order: OrderQueue::default(),
            tasks: Slab::default(),
            tags: TagMap::default(),
            conns: Vec::new(),
            gone: Vec::new(),
            events: VecDeque::new(),
            fence: Fence::default(),
            fenced: None,
            parked: VecDeque::new(),
            ahead: Vec::new(),
            immediate_commands: 0,
            control_bytes: 0,
            next_ttt: 0,
            generation: 0,
            spare_r2ts: Vec::new(),
            late: LateTags::default(),
            now: 0,
            soliciting: false,
            shuffle: None,
        }
    }

    #[must_use]
    pub fn params(&self) -> &SessionParams {
        &self.params
    }

    /// Adds a logged-in connection; `stat_sn` is the first StatSN it sends.
    pub fn add_connection(&mut self, mut params: ConnectionParams, stat_sn: u32, now: u64) -> ConnIndex {
        params.max_send_data_segment_length = params.max_send_data_segment_length.max(LEAST_SEGMENT);
        let connection = Some(Box::new(Connection::new(params, stat_sn, now)));
        if let Some(free) = self.conns.iter().position(Option::is_none) {
            self.conns[free] = connection;
            free
        } else {
            self.conns.push(connection);
            self.conns.len() - 1
        }
    }

    #[must_use]
    pub fn connection(&self, conn: ConnIndex) -> Option<&Connection> {
        self.conns.get(conn)?.as_deref()
    }

    #[inline]
    pub(super) fn conn(&mut self, conn: ConnIndex) -> &mut Connection {
        self.conns[conn].as_deref_mut().expect("connection in use")
    }

    pub(super) fn live_connections(&self) -> usize {
        self.conns.iter().flatten().count()
    }

    /// Index of the live connection with this CID.
    #[must_use]
    pub fn connection_by_cid(&self, cid: u16) -> Option<ConnIndex> {
        self.conns.iter().position(|c| c.as_ref().is_some_and(|c| c.params.cid == cid))
    }

    #[must_use]
    pub fn numbers(&self) -> SessionNumbers {
        SessionNumbers { exp_cmd_sn: self.window.exp_cmd_sn(), max_cmd_sn: self.window.max_cmd_sn() }
    }

    #[inline]
    #[must_use]
    pub fn task(&self, slot: Slot) -> Option<&Task> {
        self.tasks.get(slot)
    }

    /// The task with this Initiator Task Tag.
    #[must_use]
    pub fn find(&self, initiator_task_tag: u32) -> Option<Slot> {
        self.tags.get(initiator_task_tag)
    }

    /// All records, those included that only wait for bytes in transit.
    pub fn tasks(&self) -> impl Iterator<Item = (Slot, &Task)> {
        self.tasks.iter()
    }

    /// Next thing that happened.
    #[inline]
    pub fn poll_event(&mut self) -> Option<TargetEvent> {
        self.events.pop_front()
    }

    /// A data segment length changed by text negotiation (13.12), from the next PDU on.
    pub fn set_segment_lengths(&mut self, conn: ConnIndex, receive: Option<u32>, send: Option<u32>) {
        let params = &mut self.conn(conn).params;
        if let Some(length) = receive {
            params.max_recv_data_segment_length = length;
        }
        if let Some(length) = send {
            params.max_send_data_segment_length = length.max(LEAST_SEGMENT);
        }
    }

    /// Changes the keep-alive of a connection (nanoseconds; None leaves a value).
    pub fn set_keep_alive(&mut self, conn: ConnIndex, interval: Option<u64>, timeout: Option<u64>) {
        let params = &mut self.conn(conn).params;
        params.keep_alive_interval = interval.unwrap_or(params.keep_alive_interval);
        params.keep_alive_timeout = timeout.unwrap_or(params.keep_alive_timeout);
    }

    /// Whether Data-In asks for acknowledgement from now on (11.7.2); only above error recovery level 0.
    pub fn set_soliciting(&mut self, on: bool) {
        self.soliciting = on && self.params.error_recovery_level > 0;
    }

    /// Shuffles Data-In PDUs, sequences and R2Ts as far as DataPDUInOrder=No and DataSequenceInOrder=No allow (13.18, 13.19),
    /// from a seed; 0 sends in order again.
    pub fn set_shuffle(&mut self, seed: u64) {
        self.shuffle = Shuffle::new(seed);
    }

    /// How long Data-Out is waited for above error recovery level 0, nanoseconds; 0 is for ever.
    pub fn set_data_timeout(&mut self, timeout: u64) {
        self.limits.data_timeout = timeout;
    }

    /// Whether PDUs leave in another order than that of their data.
    #[must_use]
    pub fn shuffles(&self) -> bool {
        self.shuffle.is_some() && !(self.params.data_pdu_in_order && self.params.data_sequence_in_order)
    }

    // ------------------------------------------------------------------------------------ records

    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Forgets a record; its memory is free with the event.
    pub(super) fn release(&mut self, slot: Slot) {
        if let Some(mut task) = self.tasks.remove(slot) {
            if task.out.r2ts.capacity() > 0 && self.spare_r2ts.len() < self.limits.command_window as usize {
                task.out.r2ts.clear();
                self.spare_r2ts.push(std::mem::take(&mut task.out.r2ts));
            }
            if task.state != TaskState::Dying && !task.nameless {
                self.tags.remove(task.initiator_task_tag);
            }
            self.control_bytes -= task.control_data.len() as u32;
            if !self.parked.is_empty() {
                // the place may be another task's before the fence clears
                self.parked.retain(|parked| *parked != slot);
            }
            self.events.push_back(TargetEvent::Released(slot));
        }
    }

    /// A delivered or consumed command no longer counts against the window.
    pub(super) fn uncount(&mut self, slot: Slot, congested: bool) {
        let task = &mut self.tasks[slot];
        if std::mem::replace(&mut task.counted, true) {
            return;
        }
        if task.immediate {
            self.immediate_commands = self.immediate_commands.saturating_sub(1);
        } else if congested {
            self.window_debt += 1;
        } else {
            self.window.complete(1);
        }
    }

    /// Puts a complete request where it belongs: delivered at once, or behind an earlier one that is missing.
    pub(super) fn enter(&mut self, slot: Slot) {
        let task = &mut self.tasks[slot];
        if task.immediate {
            self.deliver(slot);
            return;
        }
        // It was in the window when its header came. When the same number came on another connection meanwhile, this one is
        // the duplicate (4.2.2.1), and its number may be below the window by now.
        let Position::Ahead(ahead) = self.window.position(task.cmd_sn) else {
            self.forget_request(slot);
            return;
        };
        if ahead == 0 && self.order.is_empty() {
            self.window.advance();
            self.deliver(slot);
            return;
        }
        if !self.order.insert(ahead, Entry::Task(slot)) {
            self.forget_request(slot);
            return;
        }
        task.state = TaskState::Waiting;
        self.deliver_waiting();
    }

    pub(super) fn deliver_waiting(&mut self) {
        while let Some(entry) = self.order.pop() {
            self.window.advance();
            match entry {
                Entry::Task(slot) => self.deliver(slot),
                Entry::Consumed | Entry::Missing => self.window.complete(1),
            }
        }
    }

    fn deliver(&mut self, slot: Slot) {
        let task = &mut self.tasks[slot];
        task.state = TaskState::Active;
        match task.kind {
            TaskKind::Scsi => self.events.push_back(TargetEvent::Command(slot)),
            TaskKind::Control => self.events.push_back(TargetEvent::Control(slot)),
            TaskKind::Nop => self.answer_nop_in_order(slot),
        }
    }

    /// A PDU was handed to the transport completely.
    #[inline]
    pub fn pdu_sent(&mut self, conn: ConnIndex, pdu: &OutPdu) {
        self.sent_mark(conn, pdu.slot, pdu.mark);
    }

    /// As `pdu_sent`, from what was noted of the PDU.
    #[inline]
    pub fn sent_mark(&mut self, conn: ConnIndex, slot: Option<Slot>, mark: u32) {
        if mark == SendMark::DATA || mark == SendMark::AGAIN {
            if let Some(slot) = slot
                && self.tasks.get(slot).is_some_and(|t| t.state == TaskState::Dying)
            {
                self.bury(slot);
            }
            return;
        }
        self.marked_pdu_sent(conn, slot, mark);
    }
}

impl Endpoint for TargetSession {
    #[inline]
    fn deframer(&mut self, conn: ConnIndex) -> &mut Deframer {
        &mut self.conn(conn).deframer
    }

    #[inline]
    fn header(&mut self, conn: ConnIndex, now: u64) -> Result<Destination, Fatal> {
        self.inbound_header(conn, now)
    }

    #[inline]
    fn pdu(&mut self, conn: ConnIndex, control: &[u8], data_digest_ok: bool, _now: u64) -> Result<(), Fatal> {
        self.inbound_pdu(conn, control, data_digest_ok)
    }

    #[inline]
    fn send_queue(&mut self, conn: ConnIndex) -> &mut SendQueue {
        &mut self.conn(conn).queue
    }
}
