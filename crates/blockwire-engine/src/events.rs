//! What the plane tells the control plane (`api.Event`), and the queue it waits in.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

use blockwire_wire::bhs::BHS_LEN;

use crate::sys::eventfd::EventFd;
use crate::transport::TransportHandle;

pub type SessionId = u64;
pub type StoreId = u64;
pub type OpId = u64;
pub type TaskTag = u64;
pub type Token = u64;
pub type QueueId = u64;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Stable code, such as `store.no-space`.
    pub code: String,
    pub message: String,
    pub errno: i32,
}

impl Failure {
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), errno: 0 }
    }

    #[must_use]
    pub fn io(code: &str, error: &io::Error) -> Self {
        Self { code: code.to_owned(), message: error.to_string(), errno: error.raw_os_error().unwrap_or(0) }
    }
}

/// `api.StoreInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    pub store: StoreId,
    pub size: u64,
    pub physical_block: u32,
    pub optimal_io: u32,
    pub read_only: bool,
    pub can_punch: bool,
    pub can_zero: bool,
    pub can_flush: bool,
    pub identity: String,
}

/// `api.ReleasedConnection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    pub transport: Option<TransportHandle>,
    pub over_read: Vec<u8>,
    pub stat_sn: u32,
    pub exp_stat_sn: u32,
    pub frozen_tasks: u32,
}

/// `api.AbortReport`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbortReport {
    pub affected: Vec<(SessionId, u32)>,
    pub found: bool,
    pub complete: bool,
    pub already_responded: bool,
}

/// `api.TaskView`: one task that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskView {
    pub session: SessionId,
    pub initiator_task_tag: u32,
    pub cid: u16,
    pub lun: u64,
    pub cmd_sn: u32,
    pub frozen: bool,
    pub control: bool,
    pub responded: bool,
    pub token: Token,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum OpResult {
    None,
    Bytes(Vec<u8>),
    Store(StoreInfo),
    Released(Released),
    Aborted(AbortReport),
    Tasks(Vec<TaskView>),
    Count(u32),
}

/// `api.TaskDone`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskDone {
    pub token: Token,
    pub status: u8,
    pub sense: Vec<u8>,
    /// Positive underflow, negative overflow (RFC 7143 11.4.5); of a bidirectional command that of the write, if it has one.
    pub residual: i64,
    /// Bytes at the end of the read's buffer that did not come.
    pub short: u64,
    /// Empty when the target answered.
    pub code: &'static str,
}

/// `api.Event`, except that payload objects of Python are added by the binding.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    OpDone {
        op: OpId,
        result: Result<OpResult, Failure>,
    },
    CommandForControl {
        session: SessionId,
        cid: u16,
        tag: TaskTag,
        lun: u64,
        cdb: Vec<u8>,
        attribute: u8,
        initiator_task_tag: u32,
        cmd_sn: u32,
        expected_length: u32,
        read: bool,
        write: bool,
        data: Vec<u8>,
        diverted: bool,
        bidirectional_read_length: u32,
        immediate: bool,
    },
    ControlPdu {
        session: SessionId,
        cid: u16,
        header: [u8; BHS_LEN],
        data: Vec<u8>,
        tag: TaskTag,
        token: Token,
    },
    TaskDone(TaskDone),
    ConnectionLost {
        session: SessionId,
        cid: u16,
        code: &'static str,
        evidence: String,
        errno: i32,
        /// Tasks that wait for another connection (0 below error recovery level 2).
        frozen_tasks: u32,
    },
    ConnectionClosed {
        session: SessionId,
        cid: u16,
    },
    /// The worker of a session broke down: all its connections are cut, and the plane knows nothing of it any more.
    SessionLost {
        session: SessionId,
        code: &'static str,
        evidence: String,
    },
    DigestFailure {
        session: SessionId,
        cid: u16,
        header_digest: bool,
        header: [u8; BHS_LEN],
    },
    ProtocolViolation {
        session: SessionId,
        cid: u16,
        what: String,
        header: [u8; BHS_LEN],
    },
    StoreFault {
        store: StoreId,
        failure: Failure,
    },
    StoreChanged {
        store: StoreId,
        size: u64,
    },
}

impl Event {
    /// Nobody waits for it, and a peer can cause as many as it likes.
    fn only_tells(&self) -> bool {
        match self {
            Self::DigestFailure { .. } | Self::ProtocolViolation { .. } | Self::StoreFault { .. } => true,
            // an unsolicited PDU at an initiator; requests and answers are bounded by their tasks
            Self::ControlPdu { tag, token, .. } => *tag == 0 && *token == 0,
            _ => false,
        }
    }

    /// Bytes of data in an event that only tells something.
    fn told_bytes(&self) -> usize {
        match self {
            Self::ControlPdu { data, .. } if self.only_tells() => data.len(),
            _ => 0,
        }
    }
}

/// While so many events wait, those that only tell something are dropped: a peer that breaks rules faster than anybody
/// reads about it must not fill the memory.
const MOST_TOLD: usize = 16_384;
/// The same for the data in them: an unsolicited PDU may be as long as MaxRecvDataSegmentLength.
const MOST_TOLD_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    told_bytes: usize,
}

/// Events of a plane, oldest first, with a descriptor that polls readable while there are some.
#[derive(Debug)]
pub struct EventQueue {
    waiting: Mutex<Waiting>,
    ready: EventFd,
}

impl EventQueue {
    /// # Errors
    /// The system's, when no descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { waiting: Mutex::default(), ready: EventFd::new()? })
    }

    pub fn push(&self, event: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = event.told_bytes();
        if (waiting.events.len() >= MOST_TOLD || waiting.told_bytes + bytes > MOST_TOLD_BYTES) && event.only_tells() {
            return;
        }
        waiting.told_bytes += bytes;
        waiting.events.push_back(event);
        if waiting.events.len() == 1 {
            self.ready.signal();
        }
    }

    /// Ends an operation.
    pub fn done(&self, op: OpId, result: Result<OpResult, Failure>) {
        self.push(Event::OpDone { op, result });
    }

    /// Takes up to `maximum` events.
    #[must_use]
    pub fn drain(&self, maximum: usize) -> Vec<Event> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let n = maximum.min(waiting.events.len());
        let out: Vec<Event> = waiting.events.drain(..n).collect();
        waiting.told_bytes -= out.iter().map(Event::told_bytes).sum::<usize>();
        if waiting.events.is_empty() {
            self.ready.clear();
        }
        out
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.ready.raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_bounded_and_what_somebody_waits_for_is_not_lost() {
        let queue = EventQueue::new().expect("descriptor");
        let header = [0; BHS_LEN];
        let pdu = |token| Event::ControlPdu { session: 1, cid: 0, header, data: vec![0; 64], tag: 0, token };
        for _ in 0..MOST_TOLD {
            queue.push(Event::ProtocolViolation { session: 1, cid: 0, what: "again".to_owned(), header });
            queue.push(pdu(0));
        }
        queue.done(9, Ok(OpResult::None));
        queue.push(pdu(8));
        let events = queue.drain(usize::MAX);
        assert_eq!(events.len(), MOST_TOLD + 2);
        assert!(matches!(events[MOST_TOLD..], [Event::OpDone { op: 9, .. }, Event::ControlPdu { token: 8, .. }]));
    }

    #[test]
    fn unsolicited_data_is_bounded_by_its_bytes() {
        let queue = EventQueue::new().expect("descriptor");
        let pdu = |token| Event::ControlPdu {
            session: 1,
            cid: 0,
            header: [0; BHS_LEN],
            data: vec![0; 100_000],
            tag: 0,
            token,
        };
        for _ in 0..100 {
            queue.push(pdu(0));
        }
        queue.push(pdu(8)); // an answer
        assert_eq!(queue.drain(5).len(), 5);
        queue.push(pdu(0)); // there is room again
        let rest = queue.drain(usize::MAX);
        assert_eq!(rest.len(), 5 + 2);
        assert!(matches!(rest[5..], [Event::ControlPdu { token: 8, .. }, Event::ControlPdu { token: 0, .. }]));
    }
}
