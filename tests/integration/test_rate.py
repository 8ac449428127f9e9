"""The rate of live sessions, limited and lifted without a new login. The one place where a test measures a rate by the
clock of the machine; what holds exactly is shown in virtual time (`tests/pair/test_rate.py`)."""

from __future__ import annotations

import time
from typing import Any

import pytest

import blockwire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SIZE = 64 << 20
PIECE = 64 * 1024
RATE = 10e6
SECONDS = 2.0


BUCKET = 0.05
"""Seconds of the rate that leave at once after silence."""
SLACK = 1 << 20
"""Bytes that may leave beyond it: a send call of each connection."""
TRIES = 40


def move(lun: blockwire.Lun, *, write: bool, seconds: float, depth: int = 8) -> tuple[int, float]:
    """The bytes of a stream of requests, and how long they took from the first beginning to the last end."""
    data = bytes(PIECE)
    moved = 0
    with lun.queue(depth=depth) as queue:
        offset, flying, began = 0, 0, time.monotonic()
        while time.monotonic() - began < seconds or flying:
            while flying < depth and time.monotonic() - began < seconds:
                if write:
                    queue.pwrite(data, offset)
                else:
                    queue.pread(PIECE, offset)
                offset = (offset + PIECE) % SIZE
                flying += 1
            for done in queue.completions():
                assert done.error is None
                flying -= 1
                moved += PIECE
    return moved, time.monotonic() - began


def held(lun: blockwire.Lun, **options: Any) -> None:
    """Never more than the rate, on any machine; and not much less, as soon as the machine has time for it.

    What exactly leaves is counted where time is virtual (tests/pair/test_rate.py).
    """
    seen = []
    for _ in range(TRIES):
        moved, passed = move(lun, seconds=SECONDS, **options)
        assert moved <= RATE * (passed + BUCKET) + SLACK
        seen.append(moved / passed)
        if seen[-1] >= RATE * 0.9:
            return
    raise AssertionError(f"too slow: {seen}")


def lifted(lun: blockwire.Lun, **options: Any) -> None:
    """Much more than the rate passes, as soon as the machine has time for it."""
    seen = []
    for _ in range(TRIES):
        moved, passed = move(lun, seconds=1.0, **options)
        seen.append(moved / passed)
        if seen[-1] > RATE * 3:
            return
    raise AssertionError(f"too slow: {seen}")


@pytest.mark.parametrize("connections", [1, 4])
def test_what_an_initiator_sends(connections: int) -> None:
    with (
        blockwire.Target(f"ram:{SIZE}") as target,
        blockwire.open(target.url, keys={"MaxConnections": str(connections)}) as lun,
    ):
        session = lun.session
        session.set_rate(RATE)
        held(lun, write=True, depth=8 * connections)
        session.set_rate(0)
        lifted(lun, write=True)
        assert session.reopened == 0


def test_what_a_target_sends() -> None:
    with blockwire.Target(f"ram:{SIZE}") as target, blockwire.open(target.url) as lun:
        target.set_rate(RATE)
        held(lun, write=False)
        target.set_rate(0)
        lifted(lun, write=False)


def test_what_a_target_sends_from_the_start() -> None:
    """As `serve --rate` begins it; several connections have one limit."""
    with (
        blockwire.Target(f"ram:{SIZE}", rate=int(RATE)) as target,
        blockwire.open(target.url, keys={"MaxConnections": "4"}) as lun,
    ):
        held(lun, write=False, depth=32)


def test_an_initiator_with_a_rate_in_its_url() -> None:
    with blockwire.Target(f"ram:{SIZE}") as target, blockwire.open(f"{target.url}?rate={int(RATE)}") as lun:
        held(lun, write=True)
