"""Recovery by ErrorRecoveryLevel, as tables (RFC 7143 sections 7.1.4 and 7.1.5).

Each level has all classes of the lower ones. The ladder of level 0 is what an initiator does about a command that
does not end; what is done about single PDUs at levels 1 and 2 belongs to the data plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final


class RecoveryClass(Enum):
    """The classes of 7.1.4."""

    WITHIN_COMMAND = "7.1.4.1"
    WITHIN_CONNECTION = "7.1.4.2"
    CONNECTION = "7.1.4.3"
    SESSION = "7.1.4.4"


# 7.1.5: the error recovery hierarchy.
CLASSES: Final[dict[int, frozenset[RecoveryClass]]] = {
    0: frozenset({RecoveryClass.SESSION}),
    1: frozenset({RecoveryClass.SESSION, RecoveryClass.WITHIN_COMMAND, RecoveryClass.WITHIN_CONNECTION}),
    2: frozenset(RecoveryClass),
}


class Fault(Enum):
    """What can go wrong."""

    HEADER_DIGEST = "header digest error"
    DATA_DIGEST_IN = "data digest error in a Data-In or a response"
    DATA_DIGEST_OUT = "data digest error in a Data-Out or immediate data"
    SEQUENCE_GAP = "a gap in DataSN, R2TSN or StatSN"
    CONNECTION_LOST = "the transport connection failed"
    PROTOCOL = "a protocol error"


class Remedy(Enum):
    """What is done about it."""

    RESEND_BY_SNACK = "ask for the missing PDUs by SNACK"
    RECOVERY_R2T = "the target asks for the data again by R2T, or ends the command with sense"
    DROP_CONNECTION = "drop the connection and recover it"
    REASSIGN = "log the connection out for recovery and reassign its tasks"
    REOPEN_SESSION = "open the session again; its tasks are sent anew or failed"


# (fault, level) -> remedy, with the section that asks for it or allows it.
REMEDIES: Final[dict[tuple[Fault, int], tuple[Remedy, str]]] = {
    # There are no markers to find the next header by, so the connection goes at every level.
    (Fault.HEADER_DIGEST, 0): (Remedy.REOPEN_SESSION, "7.8"),
    (Fault.HEADER_DIGEST, 1): (Remedy.DROP_CONNECTION, "7.8"),
    (Fault.HEADER_DIGEST, 2): (Remedy.DROP_CONNECTION, "7.8"),
    (Fault.DATA_DIGEST_IN, 0): (Remedy.REOPEN_SESSION, "7.8"),
    (Fault.DATA_DIGEST_IN, 1): (Remedy.RESEND_BY_SNACK, "7.8"),
    (Fault.DATA_DIGEST_IN, 2): (Remedy.RESEND_BY_SNACK, "7.8"),
    (Fault.DATA_DIGEST_OUT, 0): (Remedy.RECOVERY_R2T, "7.8"),
    (Fault.DATA_DIGEST_OUT, 1): (Remedy.RECOVERY_R2T, "7.8"),
    (Fault.DATA_DIGEST_OUT, 2): (Remedy.RECOVERY_R2T, "7.8"),
    (Fault.SEQUENCE_GAP, 0): (Remedy.REOPEN_SESSION, "7.9"),
    (Fault.SEQUENCE_GAP, 1): (Remedy.RESEND_BY_SNACK, "7.9"),
    (Fault.SEQUENCE_GAP, 2): (Remedy.RESEND_BY_SNACK, "7.9"),
    (Fault.CONNECTION_LOST, 0): (Remedy.REOPEN_SESSION, "7.14"),
    (Fault.CONNECTION_LOST, 1): (Remedy.REOPEN_SESSION, "7.14"),
    (Fault.CONNECTION_LOST, 2): (Remedy.REASSIGN, "7.14"),
    (Fault.PROTOCOL, 0): (Remedy.REOPEN_SESSION, "7.13"),
    (Fault.PROTOCOL, 1): (Remedy.REOPEN_SESSION, "7.13"),
    (Fault.PROTOCOL, 2): (Remedy.REOPEN_SESSION, "7.13"),
}


class Rung(Enum):
    """The steps of the level 0 ladder, in order."""

    ABORT_TASK = "ABORT TASK"
    LOGICAL_UNIT_RESET = "LOGICAL UNIT RESET"
    TARGET_RESET = "TARGET WARM RESET"
    REOPEN_SESSION = "session re-open"
    FAIL = "fail the queued I/O"


@dataclass(frozen=True, slots=True)
class LadderStep:
    """One rung: how long it may take before the next one is tried, and why so."""

    rung: Rung
    seconds: float
    why: str


LADDER: Final = (
    LadderStep(Rung.ABORT_TASK, 15.0, "one stuck command should cost nobody else anything"),
    LadderStep(Rung.LOGICAL_UNIT_RESET, 30.0, "the target has to wait for operations on the medium"),
    LadderStep(Rung.TARGET_RESET, 30.0, "hits every logical unit of the target, so it comes late"),
    LadderStep(Rung.REOPEN_SESSION, 120.0, "replacement timeout: queued I/O waits this long for a new session"),
    LadderStep(Rung.FAIL, 0.0, "a clear error is better than waiting for ever"),
)
"""What an initiator at level 0 does about a command that does not end, with default timers in seconds."""


def ladder_with(seconds: Mapping[Rung, float]) -> tuple[LadderStep, ...]:
    """The ladder with other timers, in seconds, for some rungs."""
    return tuple(replace(step, seconds=seconds.get(step.rung, step.seconds)) for step in LADDER)


def ladder_seconds(rung: Rung) -> float:
    """The default timer of a rung."""
    return next(step.seconds for step in LADDER if step.rung is rung)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts to open a session again: exponential, with a bound."""

    first: float = 0.5
    factor: float = 2.0
    longest: float = 30.0

    def pause(self, attempt: int, time2wait: float = 0.0) -> float:
        """Seconds before attempt number ``attempt`` (from 0); never less than Time2Wait (7.5)."""
        return max(time2wait, min(self.longest, self.first * self.factor ** min(attempt, 32)))


def next_rung(rung: Rung | None) -> LadderStep:
    """The step after ``rung``; the first one for ``None``, the last one stays."""
    if rung is None:
        return LADDER[0]
    position = next(index for index, step in enumerate(LADDER) if step.rung is rung)
    return LADDER[min(position + 1, len(LADDER) - 1)]
