//! Arguments of the boundary's calls (`api.py`), in this crate's types.

use std::sync::atomic::{AtomicU32, Ordering};

use blockwire_proto::{ConnectionParams, SessionParams};
use blockwire_wire::bhs::BHS_LEN;

use crate::events::{AbortReport, SessionId, StoreId, TaskTag};
use crate::stores::StoreHandle;
use crate::transport::TransportHandle;

/// `api.SessionSpec`, without what only Python reads.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    pub params: SessionParams,
    pub initiator_name: String,
    pub target_name: String,
    pub isid: [u8; 6],
    pub tsih: u16,
    pub max_connections: u16,
    pub cmd_sn: u32,
    pub exp_cmd_sn: u32,
    pub max_cmd_sn: u32,
}

/// `api.ConnectionHandoff`.
#[derive(Clone, Debug)]
pub struct Handoff {
    pub transport: TransportHandle,
    pub params: ConnectionParams,
    pub stat_sn: u32,
    pub exp_stat_sn: u32,
    pub over_read: Vec<u8>,
    pub peer: String,
    pub reassigned_from: Option<u16>,
}

/// `api.SessionNumbers` as a live snapshot that any thread may read.
#[derive(Debug, Default)]
pub struct Numbers {
    cmd_sn: AtomicU32,
    exp_cmd_sn: AtomicU32,
    max_cmd_sn: AtomicU32,
}

impl Numbers {
    #[inline]
    pub fn set(&self, cmd_sn: u32, exp_cmd_sn: u32, max_cmd_sn: u32) {
        self.cmd_sn.store(cmd_sn, Ordering::Relaxed);
        self.exp_cmd_sn.store(exp_cmd_sn, Ordering::Relaxed);
        self.max_cmd_sn.store(max_cmd_sn, Ordering::Relaxed);
    }

    /// CmdSN, ExpCmdSN, MaxCmdSN.
    #[must_use]
    pub fn get(&self) -> (u32, u32, u32) {
        let load = |cell: &AtomicU32| cell.load(Ordering::Relaxed);
        (load(&self.cmd_sn), load(&self.exp_cmd_sn), load(&self.max_cmd_sn))
    }
}

/// `api.ReleaseMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseMode {
    Detach,
    Freeze,
    Terminate,
}

/// `api.CommandClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CommandClass {
    Read = 0,
    Write = 1,
    Verify = 2,
    Flush = 3,
    Unmap = 4,
    TestUnitReady = 5,
}

impl CommandClass {
    pub const COUNT: usize = 6;

    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Read, Self::Write, Self::Verify, Self::Flush, Self::Unmap, Self::TestUnitReady]
            .get(usize::from(number))
            .copied()
    }
}

/// `api.Gate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    #[default]
    Pass,
    Hold,
    Divert,
    DivertOne,
}

/// `api.LunMapping`.
#[derive(Clone, Debug)]
pub struct LunMapping {
    pub store: StoreHandle,
    pub block_size: u32,
    pub blocks: u64,
    pub read_only: bool,
    pub write_cache: bool,
    pub descriptor_sense: bool,
    pub can_unmap: bool,
    pub max_transfer_blocks: u32,
    pub gates: [Gate; CommandClass::COUNT],
}

/// Which tasks to end (`api.AbortScope`).
#[derive(Clone, Debug)]
pub enum AbortTarget {
    Task { session: SessionId, initiator_task_tag: u32, ref_cmd_sn: Option<u32> },
    TaskSet { session: SessionId, lun: u64 },
    LogicalUnit { store: StoreId },
    Nexus { session: SessionId },
}

#[derive(Clone, Debug)]
pub struct AbortScope {
    pub target: AbortTarget,
    /// Only tasks with a CmdSN before this one.
    pub before_cmd_sn: Option<u32>,
    /// This task survives (0: none).
    pub keep: TaskTag,
    /// TaskReporting=FastAbort semantics (RFC 7143 4.2.3.4) instead of the clarified ones (4.2.3.3).
    pub fast: bool,
    /// The session that asked (0: none): `before_cmd_sn` is one of its numbers.
    pub issuer: SessionId,
    /// Commands of the issuer before `before_cmd_sn` that did not come count as received (4.2.3.3 b, target resets).
    pub plug: bool,
    /// Tasks of other sessions end with TASK ABORTED status (TAS, SPC-4 7.5.8) instead of silently.
    pub task_aborted: bool,
}

impl AbortScope {
    /// All of `target`.
    #[must_use]
    pub fn of(target: AbortTarget) -> Self {
        let issuer = match target {
            AbortTarget::Task { session, .. }
            | AbortTarget::TaskSet { session, .. }
            | AbortTarget::Nexus { session } => session,
            AbortTarget::LogicalUnit { .. } => 0,
        };
        Self { target, before_cmd_sn: None, keep: 0, fast: false, issuer, plug: false, task_aborted: false }
    }
}

/// Called once, on the worker's thread, when an abort is complete there.
pub type AbortDone = Box<dyn FnOnce(AbortReport) + Send>;

/// `api.Answer`.
#[derive(Clone, Debug)]
pub enum Answer {
    Collect { length: u32 },
    Resume,
    Status { status: u8, response: u8, sense: Vec<u8>, data: Vec<u8> },
    Pdu { header: [u8; BHS_LEN], data: Vec<u8> },
}

/// `api.Effects`.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    pub fence: bool,
    pub max_recv_data_segment_length: Option<u32>,
    pub max_send_data_segment_length: Option<u32>,
    /// Initiator task tag and the CID that the task was allegiant to; None takes it wherever it is frozen.
    pub rebind: Option<(u32, Option<u16>)>,
    pub exp_data_sn: u32,
    pub close: bool,
}

/// `api.DataPlane.configure`: a live change of one connection or of all of a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    MaxRecvDataSegmentLength(u32),
    MaxSendDataSegmentLength(u32),
    KeepAliveInterval(u64),
    KeepAliveTimeout(u64),
    /// Bytes per second that the session sends, or with a CID one of its connections; 0 lifts it.
    Rate(u64),
    ExpStatSn(u32),
    /// Nanoseconds until a PDU that is missing is asked for again (target: Data-Out, above error recovery level 0; 0 is never).
    RecoveryTimeout(u64),
    /// Initiator: commands go to the connections in turn, or to the one with the fewest.
    RoundRobin(bool),
    /// Target: seed of the order of Data-In and R2Ts where the keys leave it free (RFC 7143 13.18, 13.19), for testing
    /// initiators; 0 is in order.
    Shuffle(u64),
}
