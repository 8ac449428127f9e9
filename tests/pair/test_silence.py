"""Links that say nothing: keep-alive of both sides, a reader that does not read, Data-Out that never comes, NOP."""

from __future__ import annotations

import asyncio

import pytest

from blockwire import errors
from blockwire.config.model import Limits
from blockwire.initiator.options import Timers
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.testing.tap import PassingPdu
from blockwire.wire.constants import Opcode
from tests.pair.exchange import SMALL, TARGET_SMALL, pattern, small_pair, write_and_read

KEEP_ALIVE = Timers(keep_alive_interval=5.0, keep_alive_timeout=10.0)
PATIENT = Timers(timeout=1e6, replacement_timeout=1e6, keep_alive_interval=0.0)
QUIET_TARGET = Limits(keep_alive_seconds=0)


def test_a_dead_link_is_found_and_the_session_comes_back() -> None:
    """Within interval and timeout, a second of tolerance (features row B14), and no error reaches the caller."""
    with SteppedPair("ram:1M", timers=KEEP_ALIVE, target_keys=TARGET_SMALL, limits=QUIET_TARGET) as pair:

        async def body() -> float:
            async with await pair.open() as lun:
                await lun.pwrite(pattern(1, 4096), 0)
                pair.link.stall()
                began = pair.now
                assert await lun.pread(4096, 0) == pattern(1, 4096)
                return pair.now - began

        seconds = pair.run(body())
        # Interval, timeout, and Time2Wait before the new login (13.15).
        assert 5.0 <= seconds <= 15.0 + 2.0 + 1.0
        assert len(pair.links) == 2


def test_the_target_gives_up_a_dead_initiator() -> None:
    limits = Limits(keep_alive_seconds=4.0, keep_alive_timeout=3.0)
    with SteppedPair("ram:1M", timers=PATIENT, limits=limits) as pair:

        async def body() -> float:
            await pair.connect()
            pair.link.stall()
            began = pair.now
            while not any(event.event == "connection-lost" for event in pair.events):  # noqa: ASYNC110
                await asyncio.sleep(0.25)
            seconds = pair.now - began
            while not any(event.event == "session-down" for event in pair.events):  # noqa: ASYNC110
                await asyncio.sleep(0.25)
            assert 22.0 <= pair.now - began - seconds <= 22.5  # Time2Wait and Time2Retain (13.16)
            return seconds

        assert 4.0 <= pair.run(body()) <= 8.0
        assert pair.target.statistics()["sessions"] == 0


def test_nop_both_ways_keeps_an_idle_session() -> None:
    limits = Limits(keep_alive_seconds=7.0, keep_alive_timeout=3.0)
    timers = Timers(keep_alive_interval=11.0, keep_alive_timeout=3.0)
    with SteppedPair("ram:1M", timers=timers, limits=limits, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await asyncio.sleep(300)
                await write_and_read(lun)

        pair.run(body())
        assert len(pair.links) == 1
        tap = pair.link.tap
        asked = [p for p in tap.pdus(TARGET) if p.opcode == Opcode.NOP_IN and p.header[20:24] != b"\xff" * 4]
        answered = [p for p in tap.pdus(INITIATOR) if p.opcode == Opcode.NOP_OUT and p.header[20:24] != b"\xff" * 4]
        assert len(asked) >= 20
        # 11.18: the answer to a NOP-In carries its Target Transfer Tag, and the initiator task tag is reserved.
        assert [p.header[20:24] for p in answered] == [p.header[20:24] for p in asked]
        assert all(p.header[16:20] == b"\xff" * 4 for p in answered)


def test_the_initiator_asks_when_nobody_else_does() -> None:
    timers = Timers(keep_alive_interval=5.0, keep_alive_timeout=3.0)
    with SteppedPair("ram:1M", timers=timers, limits=QUIET_TARGET, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await asyncio.sleep(120)
                await write_and_read(lun)

        pair.run(body())
        assert len(pair.links) == 1
        tap = pair.link.tap
        pings = [p for p in tap.pdus(INITIATOR) if p.opcode == Opcode.NOP_OUT]
        echoes = [p for p in tap.pdus(TARGET) if p.opcode == Opcode.NOP_IN]
        assert len(pings) >= 20
        # 11.19: the answer copies the Initiator Task Tag and the data.
        assert [(p.header[16:20], p.data) for p in echoes] == [(p.header[16:20], p.data) for p in pings]


@pytest.mark.slow
def test_a_reader_that_does_not_read_costs_nobody_else_anything() -> None:
    """Deep READs are queued and nothing is taken from the link; another session goes on; at the end all is right."""
    with SteppedPair("ram:32M", timers=PATIENT, limits=QUIET_TARGET) as pair:
        for number in range(32):
            pair.store(number << 20, pattern(number, 4096))

        async def body() -> None:
            slow = await pair.open()
            link = pair.link
            link.pair.shape(TARGET, None, 64 * 1024)
            link.stall_from(TARGET)
            reads = [asyncio.create_task(slow.pread(1 << 20, number << 20)) for number in range(32)]
            await asyncio.sleep(100)
            assert not any(task.done() for task in reads)
            assert link.sent(TARGET) - link.delivered(TARGET) <= 64 * 1024
            async with await pair.open() as other:
                await other.pwrite(pattern(77, 8192), 512 * 1024)
                assert await other.pread(8192, 512 * 1024) == pattern(77, 8192)
            link.stall_from(TARGET, False)
            for number, data in enumerate(await asyncio.gather(*reads)):
                assert data[:4096] == pattern(number, 4096)
            await slow.close()

        pair.run(body())


def test_data_out_that_never_comes() -> None:
    """The write times out at the initiator and is aborted; the store is untouched; others go on; the session too."""
    timers = Timers(timeout=20.0, keep_alive_interval=0.0)
    with small_pair(tapped=True, limits=QUIET_TARGET) as pair:

        def swallow(pdu: PassingPdu) -> list[bytes]:
            return [] if pdu.opcode == Opcode.DATA_OUT and pdu.end == INITIATOR else [pdu.raw]

        async def body() -> None:
            lun = await pair.open(timers=timers)
            pair.link.tap.intercept = swallow
            stuck = asyncio.create_task(lun.pwrite(pattern(3, 16384), 0))
            await asyncio.sleep(1)
            async with await pair.open() as other:
                await write_and_read(other)
            with pytest.raises(errors.Error) as caught:
                await stuck
            assert isinstance(caught.value, TimeoutError)
            pair.links[0].tap.intercept = None
            assert await lun.pread(512, 65536) == bytes(512)
            await lun.close()

        pair.run(body())
        assert pair.stored(10240, 6144) == bytes(6144)


@pytest.mark.slow
def test_deep_writes_without_data_leave_room_for_others() -> None:
    """A session that asks for more buffer than there is and never fills it must not starve another one."""
    with SteppedPair("ram:64M", tapped=True, timers=PATIENT, keys=SMALL, limits=QUIET_TARGET) as pair:

        async def body() -> None:
            greedy = await pair.open()
            link = pair.link
            link.tap.intercept = lambda pdu: [] if pdu.opcode == Opcode.DATA_OUT else [pdu.raw]
            writes = [asyncio.create_task(greedy.pwrite(bytes(1 << 20), number << 20)) for number in range(32)]
            await asyncio.sleep(10)
            async with await pair.open() as other:
                await write_and_read(other)
            link.cut_now()
            link.tap.intercept = None
            await asyncio.gather(*writes)
            await greedy.close()

        pair.run(body())


@pytest.mark.parametrize("opcode", [Opcode.SCSI_RESPONSE, Opcode.DATA_IN, Opcode.R2T])
def test_a_pdu_that_is_lost_at_erl_0_costs_a_timeout_and_no_data(opcode: Opcode) -> None:
    """Without recovery in the connection a lost PDU is found by the initiator's own timer or by a gap in StatSN."""
    timers = Timers(timeout=8.0, keep_alive_interval=5.0, keep_alive_timeout=5.0)
    with small_pair(tapped=True) as pair:

        async def body() -> None:
            async with await pair.open(timers=timers) as lun:
                lost = 0

                def lose_one(pdu: PassingPdu) -> list[bytes]:
                    nonlocal lost
                    if pdu.opcode == opcode and not lost:
                        lost += 1
                        return []
                    return [pdu.raw]

                pair.link.tap.intercept = lose_one
                for _ in range(3):
                    try:
                        await write_and_read(lun)
                    except errors.Error:
                        continue
                    break
                else:
                    raise AssertionError("it never worked again")
                assert lost == 1

        pair.run(body())
