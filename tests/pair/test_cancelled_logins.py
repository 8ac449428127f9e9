"""An opening and a closing that are cancelled each time something has moved: neither end keeps anything of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from blockwire.testing.stepped_pair import SteppedPair

MOST = 400
"""More steps of the virtual world than an opening or closing takes."""


class AfterSteps:
    """A source of the loop that cancels a task once the world was stepped so often."""

    def __init__(self, pair: SteppedPair, work: Coroutine[Any, Any, Any], steps: int) -> None:
        self._pair = pair
        self._left = steps
        self.task = asyncio.ensure_future(work)
        pair.loop.add_source(self)

    def step(self, now: float) -> bool:
        self._left -= 1
        return self._left == 0 and self.task.cancel()

    def next_deadline(self) -> float | None:
        return None

    def describe(self) -> str:
        return ""

    async def end(self) -> bool:
        """Whether the work ended by itself; its result is closed then."""
        try:
            with contextlib.suppress(asyncio.CancelledError):
                result = await self.task
                if result is not None:
                    await result.close()
                return True
            return False
        finally:
            self._pair.loop.remove_source(self)


async def nothing_is_left(pair: SteppedPair) -> None:
    # The target has to notice, and Time2Wait and Time2Retain to pass.
    await asyncio.sleep(60)
    assert not pair.initiator.sessions
    assert not pair.initiator.challenges
    assert len(pair.target.sessions) == 0
    assert len(pair.target.half_open) == 0
    assert not pair.target.challenges
    # The ISID was given back: the next session gets the lowest again.
    isid = pair.initiator.isids.take(pair.initiator.name, pair.url.target)
    assert isid.d == 0
    pair.initiator.isids.release(pair.initiator.name, pair.url.target, isid)


def every_step(pair: SteppedPair, cancelled: Callable[[int], Coroutine[Any, Any, bool]]) -> int:
    """Cancels after one step, after two, until it ends by itself; gives the steps that takes."""
    steps = 1
    while not pair.run(cancelled(steps)):
        steps += 1
        assert steps < MOST
    return steps


@pytest.mark.parametrize(("connections", "level"), [(1, 0), (1, 2), (3, 2), (3, 0)])
def test_an_opening_that_is_cancelled_at_every_step(connections: int, level: int) -> None:
    keys = {"MaxConnections": str(connections), "ErrorRecoveryLevel": str(level)}
    with SteppedPair("ram:1M", keys=keys) as pair:

        async def cancelled(steps: int) -> bool:
            ended = await AfterSteps(pair, pair.open(), steps).end()
            await nothing_is_left(pair)
            return ended

        assert every_step(pair, cancelled) > 10


@pytest.mark.parametrize("level", [0, 2])
def test_a_closing_that_is_cancelled_at_every_step(level: int) -> None:
    with SteppedPair("ram:1M", keys={"ErrorRecoveryLevel": str(level), "MaxConnections": "2"}) as pair:

        async def cancelled(steps: int) -> bool:
            lun = await pair.open()
            ended = await AfterSteps(pair, lun.close(), steps).end()
            await nothing_is_left(pair)
            return ended

        assert every_step(pair, cancelled) > 2
