"""A rate for a session, in virtual time: what leaves is counted, the clock says what was allowed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from blockwire.initiator.logical_unit import Lun
from blockwire.target.session import TargetSession
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair

RATE = 2_000_000
SECONDS = 10.0
LARGE, SMALL = 128 << 10, 512


def sent(pair: SteppedPair, end: int) -> list[int]:
    """Bytes that left one end, by connection."""
    return [link.sent(end) for link in pair.links]


def far(pair: SteppedPair) -> TargetSession:
    """The target's end of the only session."""
    (session,) = [session for session in pair.target.sessions if isinstance(session, TargetSession)]
    return session


async def load(pair: SteppedPair, lun: Lun, write: bool, seconds: float, depth: int) -> None:
    """Keeps `depth` requests in flight. One in four is large: in turn over four connections, all of those go on one."""
    end = pair.now + seconds
    issued = 0

    async def worker() -> None:
        nonlocal issued
        while pair.now < end:
            length = SMALL if issued % 4 else LARGE
            issued += 1
            if write:
                await lun.pwrite(bytes(length), 0)
            else:
                await lun.pread(length, 0)

    await asyncio.gather(*[worker() for _ in range(depth)])


async def in_turn(pair: SteppedPair, lun: Lun) -> None:
    """Commands go to the connections in turn."""
    session = lun.session
    await session.dispatch.op(session.plane.configure(session.id, None, {"round_robin": 1.0}))


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("connections", [1, 4])
def test_the_rate_of_a_session_holds_when_one_connection_carries_nearly_all(connections: int, write: bool) -> None:
    end = INITIATOR if write else TARGET
    with SteppedPair("ram:1M", keys={"MaxConnections": str(connections), "InitialR2T": "Yes"}) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await in_turn(pair, lun)
                if write:
                    await lun.session.set_rate(RATE)
                else:
                    await far(pair).set_rate(RATE)
                before, began = sent(pair, end), pair.now
                await load(pair, lun, write, SECONDS, 16)
                moved = [after - at for after, at in zip(sent(pair, end), before, strict=True)]
                passed = pair.now - began
                assert passed >= SECONDS
                assert sum(moved) == pytest.approx(RATE * passed, rel=0.05)
                if connections > 1:
                    assert max(moved) > 0.9 * sum(moved)  # the traffic was uneven
                # lifted: no time passes at all
                if write:
                    await lun.session.set_rate(0)
                else:
                    await far(pair).set_rate(0)
                began = pair.now
                for _ in range(32):
                    await (lun.pwrite(bytes(LARGE), 0) if write else lun.pread(LARGE, 0))
                assert pair.now - began < 0.1
                assert lun.session.reopened == 0

        pair.run(body())


@pytest.mark.parametrize("write", [True, False])
def test_no_connection_starves(write: bool) -> None:
    end = INITIATOR if write else TARGET
    with SteppedPair("ram:1M", keys={"MaxConnections": "4", "InitialR2T": "No"}) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await in_turn(pair, lun)
                await (lun.session.set_rate(RATE) if write else far(pair).set_rate(RATE))
                before, began = sent(pair, end), pair.now
                while pair.now < began + SECONDS:
                    await asyncio.gather(
                        *[lun.pwrite(bytes(LARGE), 0) if write else lun.pread(LARGE, 0) for _ in range(32)]
                    )
                moved = [after - at for after, at in zip(sent(pair, end), before, strict=True)]
                assert sum(moved) == pytest.approx(RATE * (pair.now - began), rel=0.05)
                assert min(moved) > 0.2 * sum(moved)

        pair.run(body())


def test_the_rate_outlives_a_loss_and_holds_for_connections_that_come_later() -> None:
    with SteppedPair("ram:1M", keys={"MaxConnections": "3"}) as pair:
        pair.options = replace(pair.options, rate=RATE)

        async def body() -> None:
            async with await pair.open() as lun:
                session = lun.session
                for link in pair.links:
                    link.cut(INITIATOR)
                await lun.pread(512, 0)
                assert session.reopened == 1
                await session.remove_connection(session.cids[-1])
                await session.add_connection()
                before, began = sum(sent(pair, INITIATOR)), pair.now
                await load(pair, lun, True, SECONDS, 16)
                moved = sum(sent(pair, INITIATOR)) - before
                assert moved == pytest.approx(RATE * (pair.now - began), rel=0.05)

        pair.run(body())


def test_a_slow_rate_passes_whole_commands() -> None:
    """Less than a PDU in the time that the bucket holds: nothing gets stuck, and the keep-alive does not strike."""
    with SteppedPair("ram:1M") as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await lun.session.set_rate(20_000)
                began = pair.now
                for _ in range(4):
                    await lun.pwrite(bytes(65536), 0)
                assert await lun.pread(65536, 0) == bytes(65536)
                assert 4 * 65536 / 20_000 - 4 < pair.now - began < 4 * 65536 / 20_000 + 1
                assert lun.session.reopened == 0

        pair.run(body())
