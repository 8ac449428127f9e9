//! The task record: everything about one initiator task tag, in byte ranges, so that it outlives its connection.

use blockwire_wire::Bhs;

use super::recovery::TaskRecovery;
use crate::params::ConnIndex;
use crate::ranges::RangeSet;
use crate::slab::Slot;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered. Residuals: positive is underflow, negative overflow (RFC 7143 11.4.5).
    Status { status: u8, residual: i64, read_residual: i64, sense: Vec<u8> },
    /// Service response other than "command completed at target" (11.4.3).
    TargetFailure(u8),
    /// Ended by task management.
    Aborted,
    /// The command PDU was rejected for this reason (11.17.1); it was never active (7.3).
    Rejected(u8),
    /// Its connection was lost and it was not kept.
    ConnectionLost,
}

/// What the initiator task tag stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scsi,
    Nop,
    Text,
    Logout,
    TaskManagement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    /// Waits for the command window or for a connection; has no CmdSN.
    Waiting,
    /// Sent, or in the send queue, on `conn`.
    Active,
    /// Its connection is gone; waits for `rebind` or the end.
    Frozen,
    /// TASK REASSIGN is on its way.
    Reassigning,
    /// A text exchange that the target wants to go on with (a TTT was given); waits for the next request.
    Paused,
    /// Over, but a begun PDU still refers to its buffer; the event follows.
    Ended,
}

/// What the plane itself wants with a control task, beyond handing the answer up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The answer goes up with the task's context.
    Caller,
    /// A keep-alive ping.
    KeepAlive,
    /// ABORT TASK for the task with this tag.
    Abort(u32),
    /// TASK REASSIGN of the task with this tag.
    Reassign(u32),
    /// A ping that acknowledges statuses.
    Acknowledge,
    /// A ping that finds out what was lost.
    Probe,
    /// A ping that fills a gap in CmdSN.
    Plug,
}

#[derive(Debug)]
pub(super) struct Task {
    generation: u16,
    pub state: State,
    pub kind: Kind,
    pub purpose: Purpose,
    pub conn: ConnIndex,
    /// While frozen: the CID of the connection that is gone.
    pub cid: u16,
    /// The connection the caller asked for.
    pub wanted: Option<ConnIndex>,
    /// The request as it is sent; CmdSN and ExpStatSN are those of the last time.
    pub bhs: Bhs,
    pub ahs: Vec<u8>,
    /// Data segment of a control request.
    pub inline: Vec<u8>,
    pub context: u64,
    pub write_len: u32,
    pub read_len: u32,
    /// Next DataSN or R2TSN; one numbering for both (RFC 7143 11.7.5).
    pub exp_data_sn: u32,
    /// Bytes may come or be asked for again: the task was reassigned.
    pub replay: bool,
    /// The next number is taken as it is: what was sent on the lost connection is not known here.
    pub renumber: bool,
    pub aborting: bool,
    /// Its data is put by: a function that ends it is on its way (`fast_abort`).
    pub is_quiet: bool,
    /// Data or R2Ts came before the response to its TASK REASSIGN, and were not taken.
    pub missed: bool,
    /// A probe went out after it.
    pub pinged: bool,
    /// Bytes of the read that arrived.
    pub received: RangeSet,
    /// Bytes of the write that were sent unsolicited or asked for.
    pub asked: RangeSet,
    /// Data-In sequence at hand: bytes so far and the next offset.
    pub sequence_bytes: u32,
    pub sequence_next: u32,
    pub outstanding_r2t: u32,
    /// The number after the last Data-In with the F bit.
    pub sequence_sn: u32,
    /// Data-In PDUs that came.
    pub data_ins: u32,
    /// What DataACK told the target: numbers below this one, and the bytes they carried.
    pub acknowledged_sn: u32,
    pub acknowledged: RangeSet,
    /// Which MaxRecvDataSegmentLength of the connection its data was asked for with.
    pub epoch: u32,
    /// Command retries.
    pub retries: u8,
    /// What is missing, and was; made with the first loss.
    pub recovery: Option<Box<TaskRecovery>>,
    /// PDUs in a send queue and in reception that refer to the buffer.
    pub holds: u32,
    pub outcome: Option<Outcome>,
}

impl Task {
    fn new() -> Self {
        Self {
            generation: 0,
            state: State::Free,
            kind: Kind::Scsi,
            purpose: Purpose::Caller,
            conn: 0,
            cid: 0,
            wanted: None,
            bhs: Bhs::default(),
            ahs: Vec::new(),
            inline: Vec::new(),
            context: 0,
            write_len: 0,
            read_len: 0,
            exp_data_sn: 0,
            replay: false,
            renumber: false,
            aborting: false,
            is_quiet: false,
            missed: false,
            pinged: false,
            received: RangeSet::default(),
            asked: RangeSet::default(),
            sequence_bytes: 0,
            sequence_next: 0,
            outstanding_r2t: 0,
            sequence_sn: 0,
            data_ins: 0,
            acknowledged_sn: 0,
            acknowledged: RangeSet::default(),
            epoch: 0,
            retries: 0,
            recovery: None,
            holds: 0,
            outcome: None,
        }
    }

    #[inline]
    pub fn tag(&self) -> u32 {
        self.bhs.initiator_task_tag()
    }

    /// Numbering goes on at `number` after a reassignment.
    pub fn restart(&mut self, number: u32) {
        self.exp_data_sn = number;
        self.renumber = false;
        self.recovery = None;
    }

    /// On the way with this connection.
    #[inline]
    pub fn is_active_on(&self, conn: ConnIndex) -> bool {
        self.conn == conn && matches!(self.state, State::Active | State::Ended)
    }
}

/// Tasks by slot. The tag is slot and generation, so that finding a task is one look and a stale tag is noticed.
#[derive(Debug, Default)]
pub(super) struct TaskTable {
    tasks: Vec<Task>,
    free: Vec<u32>,
}

const SLOT_BITS: u32 = 16;
/// Tags of this many tasks at a time; requests beyond it are refused.
const MOST: usize = 1 << SLOT_BITS;

impl TaskTable {
    /// A free record with a fresh tag in its header, all counters at their start; None when all tags are taken.
    pub fn take(&mut self) -> Option<Slot> {
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.tasks.len() < MOST => {
                self.tasks.push(Task::new());
                self.tasks.len() as u32 - 1
            }
            None => return None,
        };
        let task = &mut self.tasks[at as usize];
        // 0xffff is left out: with it the tag could be the reserved one (11.2.1.8)
        task.generation = if task.generation >= 0xfffe { 0 } else { task.generation + 1 };
        let tag = u32::from(task.generation) << SLOT_BITS | at;
        task.bhs = Bhs::default();
        task.bhs.set_initiator_task_tag(tag);
        task.purpose = Purpose::Caller;
        task.wanted = None;
        task.ahs.clear();
        task.inline.clear();
        task.write_len = 0;
        task.read_len = 0;
        task.exp_data_sn = 0;
        task.replay = false;
        task.renumber = false;
        task.aborting = false;
        task.is_quiet = false;
        task.missed = false;
        task.pinged = false;
        task.received.clear();
        task.asked.clear();
        task.sequence_bytes = 0;
        task.sequence_next = 0;
        task.outstanding_r2t = 0;
        task.sequence_sn = 0;
        task.data_ins = 0;
        task.acknowledged_sn = 0;
        task.acknowledged.clear();
        task.retries = 0;
        task.recovery = None;
        task.holds = 0;
        task.outcome = None;
        Some(Slot(at))
    }

    pub fn give_back(&mut self, slot: Slot) {
        let task = &mut self.tasks[slot.0 as usize];
        debug_assert!(task.state != State::Free);
        task.state = State::Free;
        self.free.push(slot.0);
    }

    /// The task with this tag, if it is in use and of this generation.
    #[inline]
    pub fn find(&self, tag: u32) -> Option<Slot> {
        let at = tag & (MOST as u32 - 1);
        let task = self.tasks.get(at as usize)?;
        (task.state != State::Free && task.tag() == tag).then_some(Slot(at))
    }

    pub fn len(&self) -> usize {
        self.tasks.len() - self.free.len()
    }

    /// Slots in use for which `wanted` is true, lowest first.
    pub fn slots(&self, mut wanted: impl FnMut(&Task) -> bool) -> Vec<Slot> {
        let used = self.tasks.iter().enumerate().filter(|(_, t)| t.state != State::Free && wanted(t));
        used.map(|(i, _)| Slot(i as u32)).collect()
    }
}

impl std::ops::Index<Slot> for TaskTable {
    type Output = Task;
    #[inline]
    fn index(&self, slot: Slot) -> &Task {
        &self.tasks[slot.0 as usize]
    }
}

impl std::ops::IndexMut<Slot> for TaskTable {
    #[inline]
    fn index_mut(&mut self, slot: Slot) -> &mut Task {
        &mut self.tasks[slot.0 as usize]
    }
}
