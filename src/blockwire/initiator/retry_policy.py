"""What the initiator does when a block request does not end with GOOD: one literal table, a reason beside each row.

Only block I/O (read, write, flush, unmap, zero) is repeated: each can be done twice with the same result. A command
that a caller wrote (`lun.scsi`) is answered as it came.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from blockwire import errors
from blockwire.scsi.layout import MalformedScsiData
from blockwire.scsi.sense import Sense, SenseKey, parse_sense
from blockwire.scsi.status import Status, status_name


class Verdict(enum.Enum):
    """What comes next for a request."""

    REPEAT = "repeat"
    """Send it again after a pause."""
    REOPEN = "reopen"
    """The session is gone: wait for the next one, then send it again."""
    FAIL = "fail"
    """The error is the caller's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way to end. `pause` and `longest_pause` are seconds, doubling from one to the other; `patience` their sum."""

    name: str
    status: int
    sense_key: int | None
    code: int | None
    """ASC << 8 | ASCQ; None is any."""
    pause: float
    longest_pause: float
    patience: float
    times: int
    """At most so many repeats; 0 is no limit but `patience`."""
    why: str


_BECOMING_READY: Final = 0x0401
_SPIN_UP: Final = 0x0402

POLICY: Final[tuple[Row, ...]] = (
    Row("unit-attention", Status.CHECK_CONDITION, SenseKey.UNIT_ATTENTION, None, 0.0, 0.0, 30.0, 64,
        "SAM-5 5.14: the command was not done; it is reported once for each cause, and causes queue up"),
    Row("becoming-ready", Status.CHECK_CONDITION, SenseKey.NOT_READY, _BECOMING_READY, 0.2, 2.0, 60.0, 0,
        "SPC-4 annex F: in process of becoming ready"),
    Row("aborted-command", Status.CHECK_CONDITION, SenseKey.ABORTED_COMMAND, None, 0.0, 0.5, 30.0, 5,
        "SPC-4 table 48: trying again may help (a digest error of one PDU, for example)"),
    Row("busy", Status.BUSY, None, None, 0.02, 1.0, 60.0, 0,
        "SAM-5 5.3.1: try again later"),
    Row("task-set-full", Status.TASK_SET_FULL, None, None, 0.002, 0.5, 60.0, 0,
        "SAM-5 5.3.1: room comes as earlier commands end; our target says it when no buffer is free"),
    Row("task-aborted", Status.TASK_ABORTED, None, None, 0.0, 0.5, 30.0, 5,
        "SAM-5 5.3.1: another initiator cleared the task set"),
)  # fmt: skip
"""Looked through in order; what fits no row is the caller's error."""

LOST_CODES: Final = frozenset(
    {"session.lost", "session.no-connection", "session.closed", "connection.lost", "plane.unknown"}
)
"""Codes that mean: no answer will come on this session any more. The last is of a session that is forgotten already."""


CONNECTION_CODES: Final = frozenset({"connection.lost", "session.no-connection"})
"""Those of them that may be about one connection of several."""

RESET: Final = "task.reset"
"""The code of a request that a reset of the recovery ladder ended."""
MAX_RESETS: Final = 2
"""So many resets that end a request make it the suspect: it is not sent again."""

MAX_LOSSES: Final = 8
"""So many sessions in a row that end with a request in flight make the request the suspect: it is not sent again."""


@dataclass(slots=True)
class Attempts:
    """What one request has been through. `started` is the runtime's clock when it was first sent, or first met the
    row of the table that it is at."""

    started: float
    repeats: int = 0
    pause: float = 0.0
    row: str = ""
    losses: int = 0
    """Sessions that ended while it was in flight."""
    resets: int = 0
    """Resets of the recovery ladder that ended it."""


def sense_of(raw: bytes) -> Sense | None:
    """Sense data as far as it can be read."""
    try:
        return parse_sense(raw) if raw else None
    except (MalformedScsiData, ValueError):
        return None


def judge(done: Any, attempts: Attempts, now: float) -> tuple[Verdict, float]:
    """What to do about a `TaskDone` that is not GOOD, and after which pause in seconds. Updates `attempts`."""
    if done.code == RESET:
        attempts.resets += 1
        return (Verdict.REPEAT if attempts.resets <= MAX_RESETS else Verdict.FAIL), 0.0
    if done.code:
        attempts.losses += 1
        again = done.code in LOST_CODES and attempts.losses <= MAX_LOSSES
        return (Verdict.REOPEN if again else Verdict.FAIL), 0.0
    sense = sense_of(done.sense)
    for row in POLICY:
        if row.status != done.status:
            continue
        if row.sense_key is not None and (sense is None or sense.key != row.sense_key):
            continue
        if row.code is not None and (sense is None or sense.asc << 8 | sense.ascq != row.code):
            continue
        if row.name != attempts.row:
            # The patience of a row begins when it is met: what recovery took before does not count.
            attempts.row, attempts.repeats, attempts.pause, attempts.started = row.name, 0, row.pause, now
        if (row.times and attempts.repeats >= row.times) or now - attempts.started >= row.patience:
            return Verdict.FAIL, 0.0
        pause = attempts.pause
        attempts.repeats += 1
        attempts.pause = min(row.longest_pause, max(pause * 2, row.pause, 0.01)) if row.longest_pause else 0.0
        return Verdict.REPEAT, pause
    return Verdict.FAIL, 0.0


def task_error(done: Any, what: str, loss: str = "") -> errors.Error:
    """The error of a request that failed for good; `what` names it with offset and length, `loss` is why its
    session ended."""
    if done.code:
        if done.code in LOST_CODES:
            return errors.ConnectionLostError(
                f"{what}: the connection to the target was lost", evidence=loss or done.code
            )
        if done.code in ("task.timeout", "task.timed-out", RESET):
            return errors.TimedOutError(
                f"{what}: no answer in time", code=done.code, next="raise the timeout, or look at the target's load"
            )
        if done.code == "task.aborted":
            return errors.CancelledError(f"{what}: aborted", code=done.code)
        if done.code == "plane.closed":
            return errors.ClosedError(f"{what}: the session is closed", code=done.code)
        return errors.Error(f"{what}: {done.code}", code=done.code)
    sense = sense_of(done.sense)
    details: dict[str, Any] = {"status": done.status, "sense": bytes(done.sense)}
    if sense is None:
        return errors.DeviceError(f"{what}: {status_name(done.status)}", **details)
    details |= {"sense_key": int(sense.key), "asc": sense.asc, "ascq": sense.ascq}
    message = f"{what}: {sense.describe()}"
    if sense.key == SenseKey.DATA_PROTECT and sense.asc == 0x27 and sense.ascq != 0x07:
        return errors.ReadOnlyError(message, **details)
    if sense.key == SenseKey.DATA_PROTECT and sense.asc == 0x27:
        details |= {"code": "device.no-space", "next": "free space where the target keeps its store"}
    elif sense.asc == 0x25:
        details |= {"code": "device.no-such-lun", "next": "list the LUNs with `blockwire ls`"}
    elif sense.key == SenseKey.ILLEGAL_REQUEST and sense.asc == 0x20:
        details |= {"code": "device.command-not-supported"}
    return errors.DeviceError(message, **details)
