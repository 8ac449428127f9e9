"""The retry table row by row, under a clock that the test moves."""

from __future__ import annotations

import pytest

from blockwire.dataplane.api import TaskDone
from blockwire.dataplane.fake_disk import fixed_sense
from blockwire.initiator.retry_policy import POLICY, Attempts, Verdict, judge


def answers(row):
    sense = b"" if row.sense_key is None else fixed_sense(row.sense_key, (row.code or 0) >> 8, (row.code or 0) & 0xFF)
    return TaskDone(1, row.status, sense)


@pytest.mark.parametrize("row", POLICY, ids=lambda row: row.name)
def test_every_row_repeats_and_ends(row) -> None:
    attempts, now, repeats, longest = Attempts(0.0), 0.0, 0, 0.0
    while repeats < 100_000:
        verdict, pause = judge(answers(row), attempts, now)
        if verdict is Verdict.FAIL:
            break
        assert verdict is Verdict.REPEAT
        repeats += 1
        longest = max(longest, pause)
        now += pause + 0.001
    assert repeats > 1
    assert longest <= row.longest_pause
    assert now <= row.patience + row.longest_pause + 0.01
    if row.times:
        assert repeats <= row.times


def test_every_row_has_its_reason_and_cites_a_standard() -> None:
    assert all("SAM-5" in row.why or "SPC-4" in row.why for row in POLICY)
    assert len({row.name for row in POLICY}) == len(POLICY)


@pytest.mark.parametrize(
    ("done", "verdict"),
    [
        (TaskDone(1, 0, code="session.lost"), Verdict.REOPEN),
        (TaskDone(1, 0, code="connection.lost"), Verdict.REOPEN),
        (TaskDone(1, 0, code="task.aborted"), Verdict.FAIL),
        (TaskDone(1, 0, code="task.timeout"), Verdict.FAIL),
        (TaskDone(1, 0x18), Verdict.FAIL),  # RESERVATION CONFLICT
        (TaskDone(1, 2, fixed_sense(3, 0x11, 0)), Verdict.FAIL),
        (TaskDone(1, 2, fixed_sense(2, 0x3A, 0)), Verdict.FAIL),  # MEDIUM NOT PRESENT
        (TaskDone(1, 2, b""), Verdict.FAIL),
        (TaskDone(1, 2, b"\x13\x37"), Verdict.FAIL),  # sense that nobody can read
    ],
)
def test_what_is_not_repeated(done: TaskDone, verdict: Verdict) -> None:
    assert judge(done, Attempts(0.0), 0.0)[0] is verdict
