"""What a login or a logout that recovers a connection tells of the statuses there (RFC 7143 11.12.9, 11.14.4)."""

from __future__ import annotations

import asyncio

from blockwire.dataplane.api import AbortKind, AbortScope, TaskView
from blockwire.target.session import TargetSession
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.wire.constants import Opcode
from tests.pair.exchange import pattern
from tests.pair.recovery_exchange import recovery_pair


async def kept(pair: SteppedPair) -> list[TaskView]:
    """Frozen tasks of the target's only session."""
    (there,) = [session for session in pair.target.sessions if isinstance(session, TargetSession)]
    scope = AbortScope(AbortKind.NEXUS, session=there.id)
    found: tuple[TaskView, ...] = await pair.target_dispatch.op(pair.target_plane.query(scope))
    return [task for task in found if task.frozen]


def last_stat_sn(pair: SteppedPair, link: int) -> int:
    """StatSN of the last SCSI Response on a connection."""
    found = [pdu for pdu in pair.links[link].tap.pdus(TARGET) if pdu.opcode == Opcode.SCSI_RESPONSE]
    return int.from_bytes(found[-1].header[24:28], "big")


def test_a_login_that_reinstates_a_connection_acknowledges_what_came_there() -> None:
    with recovery_pair(1, 2, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await lun.pwrite(pattern(1, 512), 0)
                expected = last_stat_sn(pair, 0) + 1
                # The answer came, and nothing went out after it that would have acknowledged it.
                pair.links[0].cut_now()
                await asyncio.sleep(5)
                assert len(pair.links) == 2
                first = next(pdu for pdu in pair.links[1].tap.pdus(INITIATOR) if pdu.opcode == Opcode.LOGIN_REQUEST)
                assert int.from_bytes(first.header[28:32], "big") == expected
                assert not await kept(pair)
                assert await lun.pread(512, 0) == pattern(1, 512)
                assert (lun.session.reopened, lun.session.connections.recovered) == (0, 1)

        pair.run(body())


def test_a_leading_login_and_a_further_one_acknowledge_nothing() -> None:
    with recovery_pair(2, 2, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open():
                for link in pair.links:
                    first = link.tap.pdus(INITIATOR)[0]
                    assert first.header[28:32] == bytes(4)

        pair.run(body())


def test_a_recovery_logout_of_a_connection_that_is_gone_frees_its_answered_tasks() -> None:
    with recovery_pair(2, 2, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await asyncio.gather(*[lun.pwrite(pattern(n, 512), 512 * n) for n in range(4)])
                for link in pair.links[:2]:
                    link.cut_now()
                    await asyncio.sleep(5)
                    assert not await kept(pair)
                assert [await lun.pread(512, 512 * n) for n in range(4)] == [pattern(n, 512) for n in range(4)]
                assert lun.session.reopened == 0

        pair.run(body())
