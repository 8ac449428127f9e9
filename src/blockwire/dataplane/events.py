"""What the data plane tells the control plane: frozen events, fetched in batches by `DataPlane.drain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from blockwire.dataplane.values import OpId, SessionId, StoreId, TaskTag, Token


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an operation failed, for `errors` to dress."""

    code: str
    """Stable code such as `store.no-space`."""
    message: str
    errno: int = 0


@dataclass(frozen=True, slots=True)
class OpDone:
    """An asynchronous call ended: `result` is what its docstring names, or `failure` is set."""

    op: OpId
    result: object = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class CommandForControl:
    """Target: a SCSI command that Python answers with `reply(session, tag, …)`."""

    session: SessionId
    cid: int
    tag: TaskTag
    lun: int
    """The LUN field as a 64-bit number, most significant byte first (RFC 7143 11.3.5)."""
    cdb: bytes
    attribute: int
    """Task attribute (RFC 7143 11.3.1.2): 0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA."""
    initiator_task_tag: int
    cmd_sn: int
    expected_length: int
    """Expected Data Transfer Length; of a bidirectional command, that of its write."""
    read: bool
    write: bool
    data: bytes = b""
    """Data-Out received so far (immediate data, or what `Collect` asked for)."""
    diverted: bool = False
    """True when the plane would have served it and a gate sent it up: `Resume` is possible."""
    bidirectional_read_length: int = 0
    immediate: bool = False


@dataclass(frozen=True, slots=True)
class ControlPdu:
    """A PDU that is not SCSI traffic. Target: text, task management, logout requests in command order.
    Initiator: asynchronous messages, rejects, and answers to `send_pdu` (then `token` is set)."""

    session: SessionId
    cid: int
    header: bytes
    """48 bytes."""
    data: bytes
    tag: TaskTag = 0
    token: Token = 0


@dataclass(frozen=True, slots=True)
class TaskDone:
    """Initiator: one request ended."""

    token: Token
    status: int
    """SCSI status, meaningful when `code` is empty."""
    sense: bytes = b""
    residual: int = 0
    """Positive: underflow, bytes not transferred; negative: overflow (RFC 7143 11.4.5)."""
    data: bytes | None = None
    """Payload read, for a request that brought no buffer of its own."""
    code: str = ""
    """Empty when the target answered; else why no answer came (`task.aborted`, `session.lost`, …)."""


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """A connection ended without being asked to. Its tasks ended too, unless the session's ERL is 2 (then frozen)."""

    session: SessionId
    cid: int
    code: str
    """`closed-by-peer`, `reset`, `keep-alive-timeout`, `header-digest`, `data-digest`, `data-out-timeout`,
    `protocol-violation`, `io-error`."""
    evidence: str = ""
    errno: int = 0
    frozen_tasks: int = 0
    """Tasks that wait for another connection (error recovery level 2)."""


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """A connection ended as it was asked to (`Effects.close`, `release`)."""

    session: SessionId
    cid: int


@dataclass(frozen=True, slots=True)
class SessionLost:
    """What ran a session in the plane broke down: its connections are cut, its requests ended, and the plane does not
    know it any more. Sessions elsewhere go on, and new ones can be made."""

    session: SessionId
    code: str
    """`worker-panic`."""
    evidence: str = ""
    """What the panic said."""


@dataclass(frozen=True, slots=True)
class DigestFailure:
    """A digest of a received PDU was wrong (RFC 7143 7.7, 7.8)."""

    session: SessionId
    cid: int
    kind: str
    """`header` or `data`."""
    header: bytes = b""


@dataclass(frozen=True, slots=True)
class ProtocolViolation:
    """The peer broke RFC 7143; `what` names the rule, `header` is the evidence."""

    session: SessionId
    cid: int
    what: str
    header: bytes = b""


@dataclass(frozen=True, slots=True)
class StoreFault:
    """A store failed outside any request that could carry the error."""

    store: StoreId
    failure: Failure


@dataclass(frozen=True, slots=True)
class StoreChanged:
    """A store has another size now, in bytes."""

    store: StoreId
    size: int


Event: TypeAlias = (
    OpDone | CommandForControl | ControlPdu | TaskDone | ConnectionLost | ConnectionClosed | SessionLost
    | DigestFailure | ProtocolViolation | StoreFault | StoreChanged
)  # fmt: skip
