"""One thing begins at every step of another: a cut, a cancellation, an end, while something is opened, used or closed.

Whatever comes of the work itself, it ends, and when all is closed neither end keeps anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from blockwire.errors import Error
from blockwire.initiator.discovery import discover
from blockwire.initiator.options import Options
from blockwire.testing.stepped_pair import SteppedPair
from tests.pair.test_cancelled_logins import MOST, AfterSteps, nothing_is_left

KEYS = {
    "one": {"MaxConnections": "1"},
    "several": {"MaxConnections": "3"},
    "level 2": {"MaxConnections": "2", "ErrorRecoveryLevel": "2"},
}


async def opening(pair: SteppedPair) -> None:
    await (await pair.open()).close()


async def using(pair: SteppedPair) -> None:
    lun = await pair.open()
    try:
        await lun.pwrite(bytes(range(256)) * 32, 0)
        assert await lun.pread(8192, 0) == bytes(range(256)) * 32
        await lun.session.renegotiate({"MaxRecvDataSegmentLength": "8192"})
        await lun.reset()
        assert await lun.pread(8192, 0) == bytes(range(256)) * 32
    finally:
        await lun.close()


async def connecting(pair: SteppedPair) -> None:
    lun = await pair.open()
    session = lun.session
    try:
        if len(session.cids) > 1:
            await session.remove_connection(session.cids[-1])
            await session.add_connection()
        await lun.flush()
    finally:
        await lun.close()


async def asking(pair: SteppedPair) -> None:
    found = await discover(pair.initiator, pair.url, Options(initiator_name=pair.initiator.name))
    assert [target.name for target in found] == [pair.url.target]


WORK = {"opening": opening, "using": using, "connecting": connecting, "asking": asking}


async def cut(pair: SteppedPair) -> None:
    for link in pair.links:
        link.cut_now()


async def cut_the_last(pair: SteppedPair) -> None:
    if pair.links:
        pair.link.cut_now()


async def close_all(pair: SteppedPair) -> None:
    for session in list(pair.initiator.sessions):
        await session.close()


async def end_sessions(pair: SteppedPair) -> None:
    for session in list(pair.target.sessions):
        await session.end("target-reset")  # type: ignore[attr-defined]


async def ask_logout(pair: SteppedPair) -> None:
    for session in list(pair.target.sessions):
        if hasattr(session, "ask_logout"):
            session.ask_logout(3.0)


async def drop(pair: SteppedPair) -> None:
    for session in list(pair.target.sessions):
        if hasattr(session, "drop"):
            session.drop()


EVENTS: dict[str, Callable[[SteppedPair], Awaitable[None]]] = {
    "cut": cut, "cut the last": cut_the_last, "close": close_all, "end": end_sessions, "logout": ask_logout,
    "drop": drop,
}  # fmt: skip


class Beside(AfterSteps):
    """Starts a second task at the step, in place of cancelling the first."""

    def __init__(self, pair: SteppedPair, work: Any, steps: int, event: Callable[[SteppedPair], Awaitable[None]]):
        super().__init__(pair, work, steps)
        self._event = event
        self.beside: asyncio.Future[None] | None = None

    def step(self, now: float) -> bool:
        self._left -= 1
        if self._left == 0:
            self.beside = asyncio.ensure_future(self._event(self._pair))
            return True
        return False


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("event", [*EVENTS, "cancel"])
@pytest.mark.parametrize("work", list(WORK))
@pytest.mark.parametrize("keys", list(KEYS))
def test_crossings(keys: str, work: str, event: str, stride: int) -> None:
    with SteppedPair("ram:1M", keys=KEYS[keys]) as pair:

        async def once(steps: int) -> bool:
            if event == "cancel":
                crossing = AfterSteps(pair, WORK[work](pair), steps)
            else:
                crossing = Beside(pair, WORK[work](pair), steps, EVENTS[event])
            try:
                ended = await crossing.end()
            except (Error, OSError):
                ended = False
            began = True
            if isinstance(crossing, Beside):
                began = crossing.beside is not None
                if crossing.beside is not None:
                    await crossing.beside
            pair.network.restore()
            await nothing_is_left(pair)
            return not began if event != "cancel" else ended

        steps = 1
        while not pair.run(once(steps)):
            steps += stride
            assert steps < 3 * MOST


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("who", ["initiator", "target"])
@pytest.mark.parametrize("work", list(WORK))
@pytest.mark.parametrize("keys", list(KEYS))
def test_the_end_of_either_side(keys: str, work: str, who: str, stride: int) -> None:
    async def end(pair: SteppedPair) -> None:
        await (pair.initiator.close() if who == "initiator" else pair.target.stop(1.0))

    async def once(pair: SteppedPair, steps: int) -> bool:
        crossing = Beside(pair, WORK[work](pair), steps, end)
        started = pair.now
        with contextlib.suppress(Error, OSError):
            await crossing.end()
        if crossing.beside is None:
            return False
        await crossing.beside
        # Neither the work nor the end waits for ever; a lost session is waited for as long as its replacement may take.
        assert pair.now - started < 300
        assert len(pair.target.sessions if who == "target" else pair.initiator.sessions) == 0
        return True

    steps, again = 1, True
    while again:
        with SteppedPair("ram:1M", keys=KEYS[keys]) as pair:
            again = pair.run(once(pair, steps))
        steps += stride
        assert steps < 3 * MOST
