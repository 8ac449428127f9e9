"""The recovery ladder as a table: its order, its timers, and that the initiator's timers come from it."""

from __future__ import annotations

from blockwire.initiator.options import Timers
from blockwire.session.recovery import LADDER, Backoff, Rung, ladder_seconds, ladder_with


def test_the_order_of_the_rungs() -> None:
    assert [step.rung for step in LADDER] == [
        Rung.ABORT_TASK, Rung.LOGICAL_UNIT_RESET, Rung.TARGET_RESET, Rung.REOPEN_SESSION, Rung.FAIL,
    ]  # fmt: skip
    assert all(step.why for step in LADDER)


def test_the_timers_come_from_the_table() -> None:
    assert Timers().replacement_timeout == ladder_seconds(Rung.REOPEN_SESSION) == 120.0
    assert Timers().ladder is LADDER
    changed = ladder_with({Rung.ABORT_TASK: 1.5})
    assert [step.seconds for step in changed] == [1.5, 30.0, 30.0, 120.0, 0.0]


def test_pauses_double_up_to_a_bound_and_never_less_than_time2wait() -> None:
    backoff = Backoff(first=0.1, longest=10.0)
    assert [backoff.pause(n) for n in (0, 1, 2, 6, 7, 1000)] == [0.1, 0.2, 0.4, 6.4, 10.0, 10.0]
    assert backoff.pause(0, 2.0) == 2.0
