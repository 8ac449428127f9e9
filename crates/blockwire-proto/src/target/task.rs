//! The record of one task: what recovery needs is here from the start (tag, byte ranges, numbers), never payload.

use blockwire_wire::Bhs;

use crate::params::ConnIndex;
use crate::ranges::RangeSet;
use crate::sequence::DataSnLog;

/// What kind of request a record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// A SCSI Command.
    Scsi,
    /// Text, task management or logout: answered by the control plane.
    Control,
    /// A NOP-Out in command order: answered here.
    Nop,
}

/// Where a record is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Its PDU is being received.
    Receiving,
    /// Received; an earlier command is missing.
    Waiting,
    /// Delivered: whoever drives the session has to answer it.
    Active,
    /// Its response is queued or sent (and, at error recovery levels above 0, not yet acknowledged).
    Responded,
    /// Ended without a response; only bytes in transit still refer to it.
    Dying,
}

/// A CDB of any length (RFC 7143 11.2.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cdb {
    bytes: [u8; 16],
    extended: Option<Box<[u8]>>,
}

impl Cdb {
    #[must_use]
    pub fn new(bytes: [u8; 16], rest: &[u8]) -> Self {
        let extended = (!rest.is_empty()).then(|| {
            let mut all = Vec::with_capacity(16 + rest.len());
            all.extend_from_slice(&bytes);
            all.extend_from_slice(rest);
            all.into_boxed_slice()
        });
        Self { bytes, extended }
    }

    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.extended.as_deref().unwrap_or(&self.bytes)
    }
}

/// An iSCSI condition that ends a task with CHECK CONDITION (RFC 7143 11.4.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    UnexpectedUnsolicitedData,
    IncorrectAmountOfData,
    ProtocolServiceCrcError,
    SnackRejected,
}

impl Condition {
    /// (sense key, ASC, ASCQ) of the table in 11.4.7.2; the key is ABORTED COMMAND in every row.
    #[must_use]
    pub fn sense(self) -> (u8, u8, u8) {
        match self {
            Self::UnexpectedUnsolicitedData => (0x0b, 0x0c, 0x0c),
            Self::IncorrectAmountOfData => (0x0b, 0x0c, 0x0d),
            Self::ProtocolServiceCrcError => (0x0b, 0x47, 0x05),
            Self::SnackRejected => (0x0b, 0x11, 0x13),
        }
    }
}

/// Difference between what the initiator expected and what the command moves (11.4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residual {
    #[default]
    None,
    Overflow(u32),
    Underflow(u32),
}

impl Residual {
    /// Of a command that wanted to move `wanted` bytes where `expected` were announced.
    #[inline]
    #[must_use]
    pub fn of(expected: u32, wanted: u64) -> Self {
        let expected = u64::from(expected);
        if wanted == expected {
            Self::None
        } else if wanted > expected {
            Self::Overflow(u32::try_from(wanted - expected).unwrap_or(u32::MAX))
        } else {
            Self::Underflow((expected - wanted) as u32)
        }
    }
}

/// How a SCSI task ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finish {
    /// SCSI status.
    pub status: u8,
    /// iSCSI service response (11.4.3).
    pub response: u8,
    /// Sense data without SenseLength; empty for none.
    pub sense: Vec<u8>,
    /// Residual of the write of a bidirectional command, otherwise of the command.
    pub residual: Residual,
    /// Residual of the read of a bidirectional command.
    pub bidirectional_residual: Residual,
}

impl Finish {
    /// GOOD with a residual.
    #[inline]
    #[must_use]
    pub fn good(residual: Residual) -> Self {
        Self { residual, ..Self::default() }
    }
}

/// A request for data that is not completely answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct R2t {
    pub target_transfer_tag: u32,
    pub r2t_sn: u32,
    pub offset: u32,
    pub length: u32,
    /// Offset expected next (DataPDUInOrder=Yes), or bytes received + offset.
    pub next: u32,
    pub next_data_sn: u32,
}

/// Progress of the data from the initiator.
#[derive(Clone, Debug, Default)]
pub struct OutProgress {
    /// Byte ranges received with a right digest.
    pub received: RangeSet,
    /// Unsolicited Data-Out PDUs are still to come: no F bit was seen.
    pub unsolicited_open: bool,
    /// Offset of the next unsolicited byte.
    pub unsolicited_next: u32,
    pub unsolicited_data_sn: u32,
    /// R2Ts that wait for data.
    pub r2ts: Vec<R2t>,
    /// Tags of R2Ts that were given up after a timeout: data for them is ignored, it was asked for again.
    pub retired: Vec<u32>,
    /// Unsolicited data that still comes is ignored: it was given up after a timeout, or its command was sent again.
    pub unsolicited_retired: bool,
    /// When something of the data was heard last, or asked for.
    pub heard: u64,
    /// Sequences that ended with data missing since bytes came last, and the bytes there were then.
    pub recoveries: (u8, u64),
    /// Something about the data was wrong; the task ends with this once all expected data came (11.17.1).
    pub condition: Option<Condition>,
}

impl OutProgress {
    /// The initiator still owes PDUs.
    #[inline]
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.unsolicited_open || !self.r2ts.is_empty()
    }
}

/// Progress of the data to the initiator.
#[derive(Clone, Debug, Default)]
pub struct InProgress {
    /// DataSN of the next Data-In, R2TSN of the next R2T (they share the numbers, 4.2.2.4).
    pub data_sn: u32,
    /// R2Ts among these numbers.
    pub r2ts: u32,
    /// Bytes sent in the current sequence.
    pub burst: u32,
    /// Everything below this offset was queued.
    pub queued_to: u32,
    /// Which number carried what; kept at error recovery levels above 0 only.
    pub log: DataSnLog,
    /// What was sent cannot be sent again: the log had too many runs, or the data was dropped for want of room.
    pub forgotten: bool,
    /// DataSN and Target Transfer Tag of the Data-In whose A bit is not answered.
    pub ack_request: Option<(u32, u32)>,
    /// Bytes sent since the last A bit.
    pub unasked: u32,
    /// DataSN of the Data-In that carried the status.
    pub status_sn: Option<u32>,
}

/// One task.
#[derive(Debug)]
pub struct Task {
    pub kind: TaskKind,
    pub state: TaskState,
    /// Distinguishes the users of one slot over time.
    pub generation: u32,
    pub initiator_task_tag: u32,
    /// Its tag is another task's by now: only its answer is kept, by StatSN.
    pub nameless: bool,
    /// The connection it has allegiance to; meaningless while `frozen`.
    pub conn: ConnIndex,
    /// CID of that connection, kept when it is gone.
    pub cid: u16,
    /// Its connection is gone and it waits for reassignment.
    pub frozen: bool,
    pub lun: u64,
    pub cmd_sn: u32,
    pub immediate: bool,
    pub attribute: u8,
    pub read: bool,
    pub write: bool,
    pub cdb: Cdb,
    /// Expected Data Transfer Length: of the write if there is one, otherwise of the read.
    pub expected: u32,
    /// Expected Bidirectional Read Data Length (11.2.2.4).
    pub bidirectional_read: u32,
    pub out: OutProgress,
    pub data_in: InProgress,
    /// The answer, while it waits for data, for the fence or (above level 0) for its acknowledgement.
    pub finish: Option<Finish>,
    /// The response to a control request that waits for the fence.
    pub parked_control: Option<Box<(Bhs, Vec<u8>)>>,
    /// The answer raises the fence.
    pub fenced: bool,
    /// The answer gives another task a new allegiance.
    pub reassigns: bool,
    /// The connection is closed after the answer.
    pub close_after: bool,
    /// Its end was counted: the command window opened for it, or the bound of immediate commands.
    pub counted: bool,
    /// StatSN of the response.
    pub stat_sn: u32,
    /// SNACK Tag of the last R-Data SNACK, 0 for none (11.4.4).
    pub snack_tag: u32,
    /// PDUs of it were queued a second time.
    pub resent: bool,
    /// Header and data of a control request or ping.
    pub header: Bhs,
    pub control_data: Vec<u8>,
}

impl Task {
    /// Bytes the initiator expects to read.
    #[inline]
    #[must_use]
    pub fn expected_read(&self) -> u32 {
        if self.write {
            self.bidirectional_read
        } else if self.read {
            self.expected
        } else {
            0
        }
    }

    /// Data-In PDUs that were sent (11.4.8).
    #[must_use]
    pub fn data_ins(&self) -> u32 {
        self.data_in.data_sn.wrapping_sub(self.data_in.r2ts)
    }

    /// Bytes the initiator has to write.
    #[inline]
    #[must_use]
    pub fn expected_write(&self) -> u32 {
        if self.write { self.expected } else { 0 }
    }
}
