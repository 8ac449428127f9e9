"""What crosses the boundary: plain, immutable values of stores, sessions, connections, logical units and answers.

Units: offsets, lengths and sizes are bytes unless the name says blocks; times are seconds (float).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

OpId: TypeAlias = int
"""Names one asynchronous call until its `OpDone`."""
StoreId: TypeAlias = int
SessionId: TypeAlias = int
"""A session of either role, unique within its plane, never reused."""
TaskTag: TypeAlias = int
"""Names a task or control PDU that the plane sent up and that waits for `reply`; unique within its session."""
Token: TypeAlias = int
"""Names one request of the initiator's side; unique within its plane, never reused, never 0."""
QueueId: TypeAlias = int
"""A completion queue of the initiator's side. Queue 0 is the plane's own event stream (`drain`)."""


class Role(enum.IntEnum):
    """Which end of the session this plane plays."""

    INITIATOR = 0
    TARGET = 1


class Digest(enum.IntEnum):
    """Negotiated digest of one kind (RFC 7143 13.1)."""

    NONE = 0
    CRC32C = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What the plane can serve. Asked before negotiation, so that nothing is offered that can't be kept."""

    max_recv_data_segment_length: int
    """Largest data segment the plane accepts on a connection, bytes (512 to 2**24-1)."""
    max_burst_length: int
    first_burst_length: int
    max_outstanding_r2t: int
    max_connections: int
    error_recovery_level: int
    command_window: int
    """How many commands a target's session may queue beyond ExpCmdSN (MaxCmdSN - ExpCmdSN + 1)."""
    max_transfer: int
    """Largest expected data transfer length of one task, bytes."""
    digests: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """How to open a store. The grammar was parsed by `config`; the plane sees its parts."""

    scheme: str
    """`ram`, `file`, `block`, `null`."""
    path: str = ""
    """Path of a file or device, empty for `ram` and `null`."""
    size: int | None = None
    """Size in bytes for `ram` and `null`; for a file: create it with this size if missing."""
    read_only: bool = False
    block_size: int = 512
    options: Mapping[str, str] = field(default_factory=dict)
    filters: tuple[tuple[str, Mapping[str, str]], ...] = ()
    """Filters from the store upwards: name and options."""


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Result of `open_store`."""

    store: StoreId
    size: int
    physical_block: int
    optimal_io: int
    read_only: bool
    can_punch: bool
    can_zero: bool
    can_flush: bool
    """Whether the store has a volatile cache that a flush empties (reported as WCE)."""
    identity: str
    """Stable key of the store on this host, the seed of serial number and NAA designator."""


class StoreOp(enum.IntEnum):
    """What `store_op` does on a byte range; stores know nothing of CDBs."""

    GEOMETRY = 0
    READ = 1
    WRITE = 2
    COPY = 3
    ZERO = 4
    PUNCH = 5
    FLUSH = 6
    RESIZE = 7


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """What a session is, for `create_session`. Keys are the negotiated ones of RFC 7143 section 13."""

    role: Role
    initiator_name: str
    target_name: str
    isid: bytes
    """6 bytes (RFC 7143 11.12.5)."""
    tsih: int
    target_portal_group_tag: int = 1
    initial_r2t: bool = True
    immediate_data: bool = True
    max_burst_length: int = 262144
    first_burst_length: int = 65536
    max_outstanding_r2t: int = 1
    data_pdu_in_order: bool = True
    data_sequence_in_order: bool = True
    error_recovery_level: int = 0
    max_connections: int = 1
    iscsi_protocol_level: int = 1
    fast_abort: bool = False
    """TaskReporting negotiated to FastAbort (RFC 7143 13.23)."""
    cmd_sn: int = 0
    """Initiator: the next CmdSN to send. Target: ExpCmdSN, the next one it expects."""
    exp_cmd_sn: int = 0
    """Initiator: ExpCmdSN of the last login response. Target: the same as `cmd_sn`."""
    max_cmd_sn: int = 0
    """Initiator: MaxCmdSN of the last login response. Target: ignored (its own window decides)."""
    quirks: tuple[str, ...] = ()
    """Initiator: departures of the target that it goes along with, by name."""


class TransportKind(enum.Enum):
    """What a transport handle is. Upper layers only carry it."""

    TCP = "tcp"
    """`descriptor` is a connected stream socket; its ownership passes with the handle."""
    MEMORY = "memory"
    """`descriptor` names one end of an in-memory pair of this process (`MemoryPair`)."""


@dataclass(frozen=True, slots=True)
class TransportHandle:
    """One connection below iSCSI. Whoever holds the handle owns it."""

    kind: TransportKind
    descriptor: int


@dataclass(frozen=True, slots=True)
class ConnectionHandoff:
    """A logged-in connection, on its way from the login machine to the plane."""

    transport: TransportHandle
    cid: int
    """Connection ID within the session (RFC 7143 11.12.7); names the connection from now on."""
    max_recv_data_segment_length: int
    """What this side declared: the most the peer may send in one data segment."""
    max_send_data_segment_length: int
    """What the peer declared: the most this side may send in one data segment."""
    header_digest: Digest = Digest.NONE
    data_digest: Digest = Digest.NONE
    stat_sn: int = 0
    """Target: the next StatSN to send on this connection. Initiator: ignored."""
    exp_stat_sn: int = 0
    """Initiator: the next StatSN expected (that of the last login response plus 1). Target, with `reassigned_from`:
    what the initiator expected next on the old connection, all below is acknowledged (11.12.9); otherwise ignored."""
    over_read: bytes = b""
    """Bytes after the last login PDU that were already read from the transport."""
    peer: str = ""
    """Address of the peer, for events and traces."""
    keep_alive_interval: float = 0.0
    """Seconds without traffic after which a NOP asks for a sign of life; 0 turns it off."""
    keep_alive_timeout: float = 0.0
    """Seconds to wait for the answer before the connection is given up."""
    reassigned_from: int | None = None
    """CID of a frozen connection whose place this one takes (implicit logout, RFC 7143 6.3.4). An initiator's tasks of
    it go on here; at the target each waits for its TASK REASSIGN."""


@dataclass(frozen=True, slots=True)
class SessionNumbers:
    """Live command numbering of a session, for the login of a further connection (RFC 7143 11.12.8)."""

    cmd_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int


class ReleaseMode(enum.Enum):
    """What happens to a connection's tasks when the plane gives it up."""

    DETACH = "detach"
    """Give the transport back, with the bytes over-read; only without tasks in flight."""
    FREEZE = "freeze"
    """Close the transport and keep the tasks for reassignment (ERL 2)."""
    TERMINATE = "terminate"
    """Close the transport and end its tasks."""


@dataclass(frozen=True, slots=True)
class ReleasedConnection:
    """Result of `release`."""

    transport: TransportHandle | None
    over_read: bytes
    stat_sn: int
    exp_stat_sn: int
    frozen_tasks: int


class CommandClass(enum.IntEnum):
    """Classes of commands that the plane can serve by itself; everything else always goes up."""

    READ = 0
    """READ 6/10/12/16."""
    WRITE = 1
    """WRITE 6/10/12/16, WRITE AND VERIFY, WRITE SAME."""
    VERIFY = 2
    FLUSH = 3
    """SYNCHRONIZE CACHE 10/16."""
    UNMAP = 4
    TEST_UNIT_READY = 5


class Gate(enum.IntEnum):
    """What the plane does with a command of a class on one nexus and logical unit."""

    PASS = 0
    """Serve it here."""
    HOLD = 1
    """Park it, in order, bounded; the next `set_gate` lets it go."""
    DIVERT = 2
    """Send every command up."""
    DIVERT_ONE = 3
    """Send the next command up (any class), then behave as HOLD until the next `set_gate`: how a unit attention is
    delivered to exactly one command."""


@dataclass(frozen=True, slots=True)
class LunMapping:
    """One logical unit as a nexus sees it."""

    store: StoreId
    block_size: int
    blocks: int
    read_only: bool = False
    write_cache: bool = True
    """WCE: with it off every write is made durable before its status."""
    descriptor_sense: bool = False
    """D_SENSE of the control mode page."""
    can_unmap: bool = False
    max_transfer_blocks: int = 0
    """Longest transfer of one command in blocks (VPD B0); 0 is no limit but the plane's own."""
    gates: Mapping[CommandClass, Gate] = field(default_factory=dict)
    """First gate of each class; a class that is not named passes."""


class AbortKind(enum.Enum):
    """What `abort` ends."""

    TASK = "task"
    """One task, by initiator task tag, on one session."""
    TASK_SET = "task-set"
    """All tasks of one session on one LU."""
    LOGICAL_UNIT = "logical-unit"
    """All tasks of all sessions on one store (CLEAR TASK SET, LU RESET)."""
    NEXUS = "nexus"
    """All tasks of one session."""


@dataclass(frozen=True, slots=True)
class AbortScope:
    """Which tasks `abort` ends."""

    kind: AbortKind
    session: SessionId = 0
    lun: int = 0
    initiator_task_tag: int = 0
    store: StoreId = 0
    ref_cmd_sn: int | None = None
    """ABORT TASK of a command that never arrived: its CmdSN counts as received (RFC 7143 11.5.5)."""
    before_cmd_sn: int | None = None
    """Of `session`, only tasks with a CmdSN below this one (those that came before the task management request); the
    abort waits for those that are still to come (4.2.3.3 b)."""
    keep: TaskTag = 0
    """This task survives."""
    plug: bool = False
    """Commands before `before_cmd_sn` that did not come count as received at once, instead of being waited for
    (target resets, RFC 7143 4.2.3.3 b)."""
    task_aborted: bool = False
    """Tasks of other sessions end with TASK ABORTED status (the TAS bit, SPC-4 7.5.8) instead of silently."""


@dataclass(frozen=True, slots=True)
class TaskView:
    """One task that is there, as `query` saw it."""

    session: SessionId
    initiator_task_tag: int
    cid: int
    """The connection it has allegiance to, or had while that was there."""
    lun: int
    """The LUN field as a number."""
    cmd_sn: int
    frozen: bool = False
    """Its connection is gone and it waits for reassignment (RFC 7143 7.2.2)."""
    control: bool = False
    """A text, task management or logout request, or a ping."""
    responded: bool = False
    """Target: its response is queued or sent, and kept until that is acknowledged."""
    token: Token = 0
    """Initiator: the request it belongs to."""


class AbortSemantics(enum.Enum):
    """Which of RFC 7143's multi-task abort semantics the plane keeps while it ends tasks."""

    CLARIFIED = "4.2.3.3"
    FAST = "4.2.3.4"


@dataclass(frozen=True, slots=True)
class AbortReport:
    """Result of `abort`."""

    affected: tuple[tuple[SessionId, int], ...]
    """Session and initiator task tag of every task that was ended."""
    found: bool
    complete: bool
    """False when a store operation could neither end nor be cancelled within the bound."""
    already_responded: bool = False
    """The task existed and its response is sent or queued; nothing was ended."""


@dataclass(frozen=True, slots=True)
class Collect:
    """Answer: fetch `length` bytes of the task's Data-Out first, then send the command up again with them."""

    length: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Answer: the plane runs the command itself after all."""


@dataclass(frozen=True, slots=True)
class Status:
    """Answer: a SCSI Response with status, sense and, with `data`, Data-In before it."""

    status: int
    sense: bytes = b""
    """Raw sense data, without the 2-byte SenseLength (RFC 7143 11.4.7)."""
    data: bytes = b""
    """Data-In payload; cut to the expected length, residuals are the plane's business."""
    response: int = 0
    """iSCSI service response (RFC 7143 11.4.3): 0 command completed at target, 1 target failure."""


@dataclass(frozen=True, slots=True)
class ResponsePdu:
    """Answer to a control PDU: a 48-byte header and its data segment. The plane fills StatSN, ExpCmdSN, MaxCmdSN and
    DataSegmentLength, and adds digests."""

    header: bytes
    data: bytes = b""


Answer: TypeAlias = Collect | Resume | Status | ResponsePdu


@dataclass(frozen=True, slots=True)
class Effects:
    """What happens together with an answer, in the same turn of the plane."""

    fence: bool = False
    """Response Fence (RFC 7143 4.2.2.3): wait until all earlier responses of the nexus are acknowledged."""
    apply: Mapping[str, int] = field(default_factory=dict)
    """Takes effect with this response: `max_recv_data_segment_length`, `max_send_data_segment_length`."""
    rebind: tuple[int, int | None] | None = None
    """(initiator task tag, CID it was allegiant to, or None for wherever it is frozen): TASK REASSIGN, the response
    first (RFC 7143 11.5.1)."""
    exp_data_sn: int = 0
    close: bool = False
    """Close the connection after this response was sent."""


NO_EFFECTS = Effects()
