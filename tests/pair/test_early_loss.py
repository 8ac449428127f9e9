"""Connections that are lost as soon as they are there, and what the others do then (RFC 7143 7.2.1, 7.14)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from blockwire.initiator.options import Timers
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.virtual_network import Faults
from blockwire.wire.constants import Opcode
from tests.pair.exchange import pattern
from tests.pair.recovery_exchange import one_round, recovery_pair, streams

SILENT = Timers(timeout=30.0, replacement_timeout=60.0, keep_alive_interval=0.0)
"""Without pings of the control plane: nothing but the loss itself tells of it."""


def login_end(connections: int, level: int, link: int) -> int:
    """Bytes to the initiator of a login without CHAP: two responses."""
    return streams(connections, level)[link][TARGET][1][2]


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(("connections", "link"), [(1, 0), (2, 0), (2, 1)])
def test_a_loss_that_comes_with_the_end_of_adopt_is_not_dropped(level: int, connections: int, link: int) -> None:
    """`ConnectionLost` is drained together with the `OpDone` of `adopt`, before who waits for that goes on."""
    together: list[bool] = []
    with recovery_pair(connections, level, timers=SILENT) as pair:
        plane: Any = pair.initiator_plane
        drain = plane.drain

        class Watching:
            """The plane, and what it gives in one drain."""

            def __getattr__(self, name: str) -> Any:
                return getattr(plane, name)

            def drain(self, maximum: int) -> list[Any]:
                events: list[Any] = drain(maximum)
                kinds = [type(event).__name__ for event in events]
                together.append("OpDone" in kinds and "ConnectionLost" in kinds)
                return events

        pair.initiator.dispatch.plane = Watching()  # type: ignore[assignment]
        pair.network.plan(*[Faults()] * link, Faults(cut_to_initiator=login_end(connections, level, link)))
        began = pair.now

        async def body() -> None:
            async with await pair.open() as lun:
                await one_round(lun, 0)
                await asyncio.sleep(1)
                assert len(lun.session.cids) == connections

        pair.run(body())
        assert any(together)
        assert pair.now - began < 5


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("connections", [2, 3, 4])
@pytest.mark.parametrize("number", range(6))
def test_commands_of_a_lost_connection_hold_nobody_up(level: int, connections: int, number: int) -> None:
    """The gaps that its commands leave in CmdSN are filled at once, while the others' commands wait behind them."""
    with recovery_pair(connections, level, timers=SILENT, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                seen = 0
                victim = pair.links[-1]

                def intercept(pdu: Any) -> list[bytes]:
                    nonlocal seen
                    if pdu.end != INITIATOR or pdu.opcode != Opcode.SCSI_COMMAND:
                        return [pdu.raw]
                    seen += 1
                    if seen <= number:
                        return [pdu.raw]
                    victim.cut_now()  # this command never comes, and those on the other connections do
                    return []

                victim.tap.intercept = intercept
                began = pair.now
                work = [asyncio.ensure_future(lun.pwrite(pattern(n, 512), 512 * n)) for n in range(64)]
                await asyncio.gather(*work)
                assert seen > number
                assert pair.now - began < 2.0
                assert lun.session.reopened == 0
                assert await lun.pread(512 * 64, 0) == b"".join(pattern(n, 512) for n in range(64))

        pair.run(body())
