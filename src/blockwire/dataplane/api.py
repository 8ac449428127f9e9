"""The one explicit interface between the control plane and the data plane.

A call that has to reach a worker returns an operation id at once and ends in `OpDone`. Nothing blocks
except `wait` and `execute`, which drive a session on the caller's own thread. There are no callbacks:
control events are frozen dataclasses fetched in batches by `drain`, after the descriptor `event_fd()`
became readable. Per-I/O traffic (`submit_io`, `TaskDone`) is integers and one payload object.

Every value here is plain data, so that a plane in a process of its own stays possible.

Units: offsets, lengths and sizes are bytes unless the name says blocks; times are seconds (float).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from blockwire.dataplane.events import (
    CommandForControl,
    ConnectionClosed,
    ConnectionLost,
    ControlPdu,
    DigestFailure,
    Event,
    Failure,
    OpDone,
    ProtocolViolation,
    SessionLost,
    StoreChanged,
    StoreFault,
    TaskDone,
)
from blockwire.dataplane.requests import IoKind, LoadReport, LoadSpec
from blockwire.dataplane.values import (
    NO_EFFECTS,
    AbortKind,
    AbortReport,
    AbortScope,
    AbortSemantics,
    Answer,
    Collect,
    CommandClass,
    ConnectionHandoff,
    Digest,
    Effects,
    Gate,
    Limits,
    LunMapping,
    OpId,
    QueueId,
    ReleasedConnection,
    ReleaseMode,
    ResponsePdu,
    Resume,
    Role,
    SessionId,
    SessionNumbers,
    SessionSpec,
    Status,
    StoreId,
    StoreInfo,
    StoreOp,
    StoreSpec,
    TaskTag,
    TaskView,
    Token,
    TransportHandle,
    TransportKind,
)

__all__ = [
    "NO_EFFECTS",
    "AbortKind",
    "AbortReport",
    "AbortScope",
    "AbortSemantics",
    "Answer",
    "Collect",
    "CommandClass",
    "CommandForControl",
    "ConnectionClosed",
    "ConnectionHandoff",
    "ConnectionLost",
    "ControlPdu",
    "DataPlane",
    "Digest",
    "DigestFailure",
    "Effects",
    "Event",
    "Failure",
    "Gate",
    "IoKind",
    "Limits",
    "LoadReport",
    "LoadSpec",
    "LunMapping",
    "OpDone",
    "OpId",
    "ProtocolViolation",
    "QueueId",
    "ReleaseMode",
    "ReleasedConnection",
    "ResponsePdu",
    "Resume",
    "Role",
    "SessionId",
    "SessionLost",
    "SessionNumbers",
    "SessionSpec",
    "Status",
    "StoreChanged",
    "StoreFault",
    "StoreId",
    "StoreInfo",
    "StoreOp",
    "StoreSpec",
    "TaskDone",
    "TaskTag",
    "TaskView",
    "Token",
    "TransportHandle",
    "TransportKind",
]


class DataPlane(Protocol):
    """Everything the control plane may ask of the data plane."""

    def limits(self) -> Limits: ...

    def event_fd(self) -> int:
        """Descriptor that polls readable while `drain` has something; owned by the plane. -1 without threads."""
        ...

    def drain(self, maximum: int = 256) -> list[Event]:
        """Takes up to `maximum` waiting events, oldest first; drops the pins of buffers whose requests ended."""
        ...

    # stores
    def open_store(self, spec: StoreSpec) -> OpId:
        """Ends in `OpDone` with a `StoreInfo`."""
        ...

    def close_store(self, store: StoreId) -> OpId: ...

    def store_op(
        self, store: StoreId, kind: StoreOp, offset: int = 0, length: int = 0, data: bytes = b"", to: int = 0
    ) -> OpId:
        """READ ends with bytes, GEOMETRY with a `StoreInfo`, the others with None."""
        ...

    # sessions and connections
    def create_session(self, spec: SessionSpec) -> SessionId:
        """Makes a session without connections and gives its id at once."""
        ...

    def close_session(self, session: SessionId) -> OpId:
        """Terminates what is left of it and forgets it."""
        ...

    def adopt(self, session: SessionId, handoff: ConnectionHandoff) -> OpId:
        """The connection enters the full feature phase. Ends with None."""
        ...

    def release(self, session: SessionId, cid: int, mode: ReleaseMode) -> OpId:
        """Ends with a `ReleasedConnection`. TERMINATE also ends the frozen tasks of a connection that is gone."""
        ...

    def numbers(self, session: SessionId) -> SessionNumbers: ...
    def exp_stat_sn(self, session: SessionId, cid: int) -> int:
        """Initiator: the StatSN that is expected next on connection `cid`, or was when it was lost (RFC 7143 11.12.9).
        0 when there never was one."""
        ...

    def configure(self, session: SessionId, cid: int | None, changes: Mapping[str, float]) -> OpId:
        """Live changes: `max_recv_data_segment_length`, `max_send_data_segment_length`, `keep_alive_interval`,
        `keep_alive_timeout`, `rate` (bytes per second, 0 lifts it), `exp_stat_sn`;
        `recovery_timeout` (seconds until what is missing is asked for again, RFC 7143 7.1.4, above level 0);
        of an initiator's session also `round_robin` (1: commands go to the connections in turn; 0: to the one with the
        fewest); of a target's session also `shuffle_seed` (order of Data-In and R2Ts where DataPDUInOrder=No and
        DataSequenceInOrder=No leave it free, for testing initiators; 0 is in order)."""
        ...

    # target
    def map_lun(self, session: SessionId, lun: int, mapping: LunMapping) -> OpId: ...

    def unmap_lun(self, session: SessionId, lun: int) -> OpId:
        """Later commands to it go up to Python."""
        ...

    def set_gate(self, nexuses: Sequence[tuple[SessionId, int]], gates: Mapping[CommandClass, Gate]) -> OpId:
        """Classes that are not named keep their gate. Parked commands are looked at again, in order."""
        ...

    def abort(self, scope: AbortScope, semantics: AbortSemantics = AbortSemantics.CLARIFIED) -> OpId:
        """Ends with an `AbortReport` when nothing of the affected tasks can touch the medium any more."""
        ...

    def query(self, scope: AbortScope) -> OpId:
        """Ends with a tuple of `TaskView`: the tasks under `scope` that are there now, either role. A scope of one
        task finds control requests too."""
        ...

    def reply(self, session: SessionId, tag: TaskTag, answer: Answer, effects: Effects = NO_EFFECTS) -> None: ...

    def send_unsolicited(self, session: SessionId, cid: int, pdu: ResponsePdu, effects: Effects = NO_EFFECTS) -> None:
        """Target: asynchronous message. StatSN advances for it (RFC 7143 11.9)."""
        ...

    # initiator
    def open_queue(self, session: SessionId) -> QueueId: ...

    def close_queue(self, queue: QueueId) -> None:
        """Cancels what is in flight; its buffers are released as the answers come."""
        ...

    def submit(
        self,
        session: SessionId,
        lun: int,
        cdb: bytes,
        data_out: object = None,
        data_in: object = 0,
        *,
        attribute: int = 1,
        immediate: bool = False,
        cid: int | None = None,
        queue: QueueId = 0,
        borrow: bool = False,
    ) -> Token:
        """Any SCSI command. `data_out` exports the buffer protocol; `data_in` is a length (the result carries `bytes`)
        or a writable buffer. Read-only exporters are used in place; a writable one is copied unless `borrow`."""
        ...

    def submit_io(
        self, session: SessionId, lun: int, kind: IoKind, lba: int, blocks: int, block_size: int, buffer: object = None,
        *, fua: bool = False, queue: QueueId = 0, borrow: bool = False,
    ) -> Token:  # fmt: skip
        """A block request; READ without a buffer gives `bytes`. It may wait in the plane for the command window."""
        ...

    def execute(
        self,
        session: SessionId,
        lun: int,
        cdb: bytes,
        data_out: object = None,
        data_in: object = 0,
        *,
        attribute: int = 1,
        timeout: float = 0.0,
    ) -> TaskDone:
        """`submit` and `wait` in one call, on the caller's thread, without the GIL while it waits. A signal or the
        timeout (0 is none) aborts the task first; its buffer stays pinned until the answer."""
        ...

    def execute_io(
        self, session: SessionId, lun: int, kind: IoKind, lba: int, blocks: int, block_size: int, buffer: object = None,
        *, fua: bool = False, timeout: float = 0.0,
    ) -> TaskDone: ...  # fmt: skip

    def wait(self, queue: QueueId, minimum: int, timeout: float = -1.0) -> list[TaskDone]:
        """Waits on the caller's thread for at least `minimum` ended requests of `queue` (0: just polls). Returns
        earlier when the timeout passes or nothing is in flight."""
        ...

    def cancel(self, token: Token) -> bool:
        """Aborts a request: ABORT TASK on its own connection; it still ends in `TaskDone` with `task.aborted`, or with
        its result if that came first. False when it is not in flight."""
        ...

    def send_pdu(self, session: SessionId, cid: int | None, header: bytes, data: bytes = b"") -> Token:
        """A control request (text, logout, task management, NOP-Out). The plane fills InitiatorTaskTag, CmdSN,
        ExpStatSN, DataSegmentLength and digests; the I bit of the header is kept. The answer is a `ControlPdu` with
        this token."""
        ...

    def reassign(self, session: SessionId, from_cid: int, to_cid: int) -> OpId:
        """TASK REASSIGN on the connection `to_cid` for the frozen tasks that were allegiant to `from_cid`, which has
        to be logged out (RFC 7143 7.2.2). Ends with how many were asked for. A task that the target does not take over
        ends with `connection.lost`."""
        ...

    def load_table(self) -> object:
        """An empty table of what verifying runs wrote, for `run_load`. It belongs to one LUN, one `size` and one
        `transfer`."""
        ...

    def run_load(self, session: SessionId, spec: LoadSpec, table: object | None = None) -> LoadReport:
        """Drives the session on the caller's thread until done; a signal ends it early with what was measured. With
        the `table` of earlier runs what those wrote is compared too; what they sent and nobody acknowledged may be
        there or not."""
        ...

    # everything
    def statistics(self) -> dict[str, object]:
        """Counters: `workers`, `sessions`, `connections`, `stores`, each a mapping of names to integers; connections
        carry TCP_INFO."""
        ...

    def trace(self, session: SessionId | None = None) -> bytes:
        """The ring of PDU headers as a pcapng file."""
        ...

    def shutdown(self, deadline: float) -> None:
        """Stops the workers within `deadline` seconds; later calls fail with `plane.closed`."""
        ...
