"""Connections cut at every PDU boundary, inside every header and in payloads, with one to four connections at each
error recovery level: reads, writes with several R2Ts, status, task management, logins, logouts and
reassignments in progress.

At level 2 the application sees no error and the session is never opened again; below that it sees none either, for
block I/O is sent again. The data are compared every time, and nothing waits longer than the timers allow.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from blockwire import errors
from blockwire.initiator.options import Timers
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.testing.tap import PassingPdu
from blockwire.testing.virtual_network import Faults, Link
from blockwire.wire.constants import LogoutReason, Opcode
from tests.pair.exchange import pattern
from tests.pair.recovery_exchange import (
    boundaries,
    data_of,
    expected_after,
    inside,
    one_round,
    recovery_pair,
    rounds,
    streams,
    use,
)

LONGEST = 60.0
"""Virtual seconds with one cut: a login that is cut in one direction waits out its 30 s, and there may be two."""

CONFIGURATIONS = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 2), (4, 2)]
"""(connections, error recovery level)."""

each = pytest.mark.parametrize(("connections", "level"), CONFIGURATIONS)
each_end = pytest.mark.parametrize("end", [INITIATOR, TARGET], ids=["to target", "to initiator"])


def faults(end: int, at: int) -> Faults:
    return Faults(cut_to_target=at) if end == INITIATOR else Faults(cut_to_initiator=at)


def run_with_cut(connections: int, level: int, link: int, end: int, at: int, digests: bool = False) -> None:
    with recovery_pair(connections, level, digests) as pair:
        pair.network.plan(*[Faults()] * link, faults(end, at))
        began = pair.now
        reopened, _ = pair.run(use(pair))
        where = f"connection {link + 1} cut after {at}"
        assert pair.stored(0, 32768) == expected_after(3), where
        assert pair.now - began < LONGEST, where
        if level == 2:
            assert reopened == 0, where


@each
@each_end
def test_cut_at_boundaries(connections: int, level: int, end: int) -> None:
    for link in range(len(streams(connections, level))):
        for at in boundaries(connections, level, link, end)[link % 5 :: 5]:
            run_with_cut(connections, level, link, end, at)


@pytest.mark.slow
@each
@each_end
def test_cut_at_every_boundary_and_inside(connections: int, level: int, end: int) -> None:
    for link in range(len(streams(connections, level))):
        for at in boundaries(connections, level, link, end) + inside(connections, level, link, end)[::3]:
            run_with_cut(connections, level, link, end, at)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(16))
@pytest.mark.parametrize(("connections", "level"), [(1, 2), (2, 2), (4, 2)])
@each_end
def test_cut_after_every_byte(connections: int, level: int, end: int, part: int) -> None:
    for link in range(len(streams(connections, level))):
        last = streams(connections, level)[link][end][-1][2]
        for at in range(part, last, 16):
            run_with_cut(connections, level, link, end, at)


@pytest.mark.parametrize("digests", [False, True], ids=["", "digests"])
@pytest.mark.parametrize(("connections", "level"), [(1, 2), (2, 2), (4, 2), (2, 0), (3, 1)])
def test_cut_again_and_again(connections: int, level: int, digests: bool) -> None:
    """Several connections in a row are cut, also those that take the place of others, while tasks are reassigned."""
    for seed in range(12):
        chance = random.Random(seed)
        layout = streams(connections, level, digests)
        plan = []
        for link in range(connections + 3):
            end = chance.choice((INITIATOR, TARGET))
            pdus = layout[min(link, len(layout) - 1)][end]
            start, header, stop = pdus[chance.randrange(3 if link == 0 else 1, len(pdus))]
            at = chance.choice((start, start + 1, start + 20, start + header, (start + header + stop) // 2))
            plan.append(faults(end, at) if chance.random() < 0.75 else Faults())
        with recovery_pair(connections, level, digests) as pair:
            pair.network.plan(*plan)
            began = pair.now
            reopened, _ = pair.run(use(pair))
            assert pair.stored(0, 32768) == expected_after(3), f"seed {seed}"
            assert pair.now - began < LONGEST * 4, f"seed {seed}"
            if level == 2:
                assert reopened == 0, f"seed {seed}"


# ---------------------------------------------------------------------- one thing at a time
def cut_at(pair: SteppedPair, end: int, opcode: Opcode, number: int = 0) -> list[int]:
    """Cuts a connection at the PDU `number` of this opcode, once; the list gets its link's number."""
    seen: list[int] = []
    count = 0

    def prepare(link: object) -> None:
        def intercept(pdu: PassingPdu) -> list[bytes]:
            nonlocal count
            if pdu.end != end or pdu.opcode != opcode or seen:
                return [pdu.raw]
            count += 1
            if count <= number:
                return [pdu.raw]
            seen.append(link.number)  # type: ignore[attr-defined]
            link.cut_now()  # type: ignore[attr-defined]
            return []

        link.tap.intercept = intercept  # type: ignore[attr-defined]

    for link in pair.links:
        prepare(link)
    pair.network.on_link = prepare
    return seen


@pytest.mark.parametrize("connections", [1, 2, 3])
@pytest.mark.parametrize(
    ("end", "opcode", "number"),
    [
        (INITIATOR, Opcode.SCSI_COMMAND, 1),
        (INITIATOR, Opcode.DATA_OUT, 2),
        (TARGET, Opcode.R2T, 1),
        (TARGET, Opcode.DATA_IN, 5),
        (TARGET, Opcode.SCSI_RESPONSE, 0),
        (INITIATOR, Opcode.TASK_MANAGEMENT_REQUEST, 0),
        (TARGET, Opcode.TASK_MANAGEMENT_RESPONSE, 0),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Opcode) else None,
)
def test_lost_with_its_connection(connections: int, end: int, opcode: Opcode, number: int) -> None:
    with recovery_pair(connections, 2, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                seen = cut_at(pair, end, opcode, number)
                await rounds(lun)
                assert seen
                assert lun.session.reopened == 0
                assert lun.session.connections.recovered + lun.session.connections.replaced >= 1

        pair.run(body())
        assert pair.stored(0, 32768) == expected_after(3)


@pytest.mark.parametrize("end", [INITIATOR, TARGET], ids=["request", "response"])
@pytest.mark.parametrize("connections", [1, 2, 4])
def test_cut_again_while_tasks_are_reassigned(connections: int, end: int) -> None:
    """The second cut takes the TASK REASSIGN, or its response, away."""
    with recovery_pair(connections, 2, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                work = asyncio.ensure_future(rounds(lun))
                await asyncio.sleep(0)
                pair.links[0].cut_now()
                function = Opcode.TASK_MANAGEMENT_REQUEST if end == INITIATOR else Opcode.TASK_MANAGEMENT_RESPONSE
                seen = cut_at(pair, end, function)
                await work
                assert seen
                assert lun.session.reopened == 0

        pair.run(body())
        assert pair.stored(0, 32768) == expected_after(3)


@pytest.mark.parametrize("connections", [1, 2])
def test_a_connection_that_is_logged_out_for_recovery_on_itself(connections: int) -> None:
    """11.14: the target answers, closes it, and keeps its tasks."""
    with recovery_pair(connections, 2) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                work = asyncio.ensure_future(rounds(lun))
                await asyncio.sleep(0)
                answer = await lun.session.log_out(LogoutReason.REMOVE_FOR_RECOVERY, 1, on=1)
                assert answer.response == 0
                await work
                assert lun.session.reopened == 0
                assert lun.session.connections.recovered >= 1

        pair.run(body())
        assert pair.stored(0, 32768) == expected_after(3)


# ---------------------------------------------------------------------- when there is no path, and how long
@pytest.mark.parametrize("connections", [1, 3])
def test_without_a_path_the_session_is_opened_again(connections: int) -> None:
    """Time2Retain passes: the tasks end, the session is opened anew, and what was unfinished is sent again."""
    with recovery_pair(connections, 2, timers=Timers(timeout=5.0, replacement_timeout=300.0)) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await one_round(lun, 0)
                pair.network.always(Faults(cut_to_target=0))
                for link in pair.links:
                    link.cut_now()
                work = asyncio.ensure_future(one_round(lun, 1))
                await asyncio.sleep(60)
                assert not work.done()
                pair.network.restore()
                await work
                assert lun.session.reopened == 1
                assert len(lun.session.cids) == connections

        pair.run(body())
        reasons = [event.details["reason"] for event in pair.events if event.event == "session-down"]
        assert "timeout" in reasons


def test_a_target_keeps_a_session_for_time2wait_and_time2retain() -> None:
    with recovery_pair(2, 2) as pair:

        async def body() -> None:
            session = await pair.connect({"DefaultTime2Wait": "3", "DefaultTime2Retain": "7"})
            pair.network.always(Faults(cut_to_target=0))
            began = pair.now
            for link in pair.links:
                link.cut_now()
            await asyncio.sleep(9.9)
            assert not [event for event in pair.events if event.event == "session-down"]
            await asyncio.sleep(0.2)
            (down,) = [event for event in pair.events if event.event == "session-down"]
            assert down.details["reason"] == "timeout"
            assert pair.now - began < 10.2
            pair.network.restore()
            await session.close()

        pair.run(body())


def test_without_time2retain_nothing_is_kept() -> None:
    """11.15.4: with Time2Retain 0 the target has discarded everything; the session is opened again at once."""
    with recovery_pair(2, 2) as pair:

        async def body() -> None:
            async with await pair.open(keys={"DefaultTime2Retain": "0"}) as lun:
                pair.links[0].cut_now()
                pair.links[1].cut_now()
                await one_round(lun, 0)
                assert lun.session.reopened == 1
                assert lun.session.connections.recovered == 0

        pair.run(body())


def test_commands_of_another_length_go_on_on_another_connection() -> None:
    """The connection that takes over has digests and another MaxRecvDataSegmentLength (7.2.2, 11.5.6)."""
    with recovery_pair(1, 2) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                session = lun.session
                work = [
                    asyncio.ensure_future(lun.pwrite(data_of(0, 1), 8192)),
                    asyncio.ensure_future(lun.pread(8192, 0)),
                ]
                await asyncio.sleep(0)
                changed = {**session.options.keys, "MaxRecvDataSegmentLength": "4096", "HeaderDigest": "CRC32C"}
                login = session.connections.live[1].login
                login.options = session.options = type(session.options)(
                    keys=changed, initiator_name=session.options.initiator_name, timers=session.timers
                )
                pair.links[0].cut_now()
                await asyncio.gather(*work)
                assert await lun.pread(6144, 8192) == data_of(0, 1)
                now = session.connections.live[1].login.parameters
                assert (now.initiator_max_recv_data_segment_length, now.header_digest) == (4096, "CRC32C")
                assert session.reopened == 0

        pair.run(body())
        assert pair.stored(8192, 6144) == data_of(0, 1)


@pytest.mark.parametrize("connections", [1, 2])
def test_a_request_that_no_connection_survives_ends(connections: int) -> None:
    """Neither for ever nor without a pause: each time that it is sent, or reassigned, its connection is lost."""
    timers = Timers(timeout=5.0, replacement_timeout=60.0)
    with recovery_pair(connections, 2, tapped=True, timers=timers) as pair:
        lost: list[float] = []

        def prepare(link: Link) -> None:
            def intercept(pdu: PassingPdu) -> list[bytes]:
                reassigns = pdu.opcode == Opcode.TASK_MANAGEMENT_REQUEST and pdu.raw[1] & 0x7F == 8
                if pdu.end == INITIATOR and (pdu.opcode == Opcode.SCSI_COMMAND or reassigns):
                    lost.append(pair.now)
                    link.cut_now()
                    return []
                return [pdu.raw]

            assert link.tap is not None
            link.tap.intercept = intercept

        async def body() -> None:
            async with await pair.open() as lun:
                for link in pair.links:
                    prepare(link)
                pair.network.on_link = prepare
                began = pair.now
                with pytest.raises((errors.TimedOutError, errors.ConnectionLostError)):
                    await lun.pread(512, 0)
                assert pair.now - began < 3600
                # within any minute no more than the pauses of two connections allow
                assert max(sum(at <= other < at + 60 for other in lost) for at in lost) <= 40
                pair.network.on_link = None
                for link in pair.links:
                    link.tap.intercept = None  # type: ignore[union-attr]
                await lun.pread(512, 0)

        pair.run(body())


# ---------------------------------------------------------------------- connections of a live session
def test_connections_come_and_go() -> None:
    with recovery_pair(3, 2) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                session = lun.session
                assert session.cids == (1, 2, 3)
                with pytest.raises(errors.UsageError, match="may have 3"):
                    await session.add_connection()
                await session.remove_connection(1)
                assert session.cids == (2, 3)
                await one_round(lun, 0)
                assert await session.add_connection() == 1
                for cid in (3, 2):
                    await session.remove_connection(cid)
                with pytest.raises(errors.UsageError, match="only one"):
                    await session.remove_connection(1)
                with pytest.raises(errors.UsageError, match="no connection 9"):
                    await session.remove_connection(9)
                await one_round(lun, 1)
                assert session.reopened == 0

        pair.run(body())


@pytest.mark.parametrize("level", [0, 2])
def test_a_connection_is_removed_under_load(level: int) -> None:
    with recovery_pair(4, level) as pair:

        async def body() -> None:
            async with await pair.open() as lun:

                async def load() -> None:
                    for number in range(12):
                        await lun.pwrite(pattern(number, 4096), 4096 * number)
                        assert await lun.pread(4096, 4096 * number) == pattern(number, 4096)

                work = [asyncio.ensure_future(load()) for _ in range(4)]
                for cid in (4, 3, 2):
                    await asyncio.sleep(0)
                    await lun.session.remove_connection(cid)
                await asyncio.gather(*work)
                assert (lun.session.cids, lun.session.reopened) == ((1,), 0)

        pair.run(body())


def test_a_target_admits_no_more_connections_than_negotiated() -> None:
    """13.2, login status 0206: also when two logins come at the same time."""
    with recovery_pair(2, 0) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                connections = lun.session.connections
                found = await asyncio.gather(connections._add(7), connections._add(8), return_exceptions=True)
                assert [error.status for error in found if isinstance(error, errors.LoginError)] == [0x0206, 0x0206]
                assert lun.session.cids == (1, 2)

        pair.run(body())
