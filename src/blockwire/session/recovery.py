"""What an initiator does about a command that does not end, with its timers, as one table; and how long it waits
between attempts to open a session again (RFC 7143 sections 7.1.4.4 and 7.5).

What is done about single PDUs at levels 1 and 2 belongs to the data plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final


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
