"""Sessions between our own ends under virtual time: reinstatement, logout, asynchronous messages, ISIDs, drain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from blockwire import errors
from blockwire.config.model import Limits
from blockwire.initiator.options import Timers
from blockwire.initiator.session import Session, State
from blockwire.target.session import TargetSession
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import AsyncEvent, LogoutReason, LogoutResult, Opcode
from tests.pair.exchange import pattern, write_and_read

TIMERS = Timers(timeout=30.0, replacement_timeout=60.0, keep_alive_interval=0.0)
QUIET = Limits(keep_alive_seconds=0)


def pair_of(**options: Any) -> SteppedPair:
    options.setdefault("limits", QUIET)
    return SteppedPair("ram:1M", timers=TIMERS, tapped=True, **options)


def far(pair: SteppedPair) -> TargetSession:
    """The target's side of the newest session."""
    found = [session for session in pair.target.sessions if isinstance(session, TargetSession)]
    return found[-1]


def sent(pair: SteppedPair, end: int, opcode: int, link: int = -1) -> list[bytes]:
    return [pdu.header for pdu in pair.links[link].tap.pdus(end) if pdu.opcode == opcode]


# ---------------------------------------------------------------------- reinstatement
def test_reinstatement_ends_the_old_session_and_its_tasks() -> None:
    """RFC 7143 6.3.5: the same ISID to the same portal group with TSIH 0."""
    with pair_of(keys={"InitialR2T": "Yes", "ImmediateData": "No"}) as pair:

        async def body() -> None:
            lun = await pair.open()
            before = far(pair)
            pair.link.tap.intercept = lambda pdu: [] if pdu.opcode == Opcode.DATA_OUT else [pdu.raw]
            writing = asyncio.create_task(lun.pwrite(pattern(1, 16384), 0))
            await asyncio.sleep(1)
            # The initiator's end of the old connection is dead without knowing: it logs in again.
            old = pair.link
            old.stall()
            lun.session.lost("somebody says so")
            assert await writing == 16384
            after = far(pair)
            assert before.ended.is_set()
            assert (after.name, after.tsih != before.tsih) == (before.name, True)
            assert pair.target.statistics()["sessions"] == 1
            downs = [event.details for event in pair.events if event.event == "session-down"]
            assert downs[0]["reason"] == "reinstated"
            assert await lun.pread(16384, 0) == pattern(1, 16384)
            await lun.close()

        pair.run(body())


def test_other_isids_and_other_initiators_are_left_alone() -> None:
    with pair_of() as pair:

        async def body() -> None:
            one, two = await pair.open(), await pair.open()
            assert one.session.isid != two.session.isid
            assert pair.target.statistics()["sessions"] == 2
            one.session.lost("test")
            await write_and_read(one)
            await write_and_read(two)
            assert two.session.reopened == 0
            await one.close()
            again = await pair.open()
            assert again.session.isid == one.session.isid  # conservative reuse, 10.1.1

        pair.run(body())


# ---------------------------------------------------------------------- logout
@pytest.mark.parametrize(
    ("reason", "cid", "result", "ends"),
    [
        (LogoutReason.CLOSE_SESSION, 0, LogoutResult.SUCCESS, True),
        (LogoutReason.CLOSE_CONNECTION, 1, LogoutResult.SUCCESS, True),
        (LogoutReason.CLOSE_CONNECTION, 9, LogoutResult.CID_NOT_FOUND, False),
        (LogoutReason.REMOVE_FOR_RECOVERY, 1, LogoutResult.RECOVERY_NOT_SUPPORTED, False),
    ],
)
def test_logout_of_every_reason(reason: LogoutReason, cid: int, result: LogoutResult, ends: bool) -> None:
    """RFC 7143 11.14.1 and 11.15.1."""
    with pair_of() as pair:

        async def body() -> None:
            session = await pair.connect()
            there = far(pair)
            response = await session.log_out(reason, cid)
            assert response.response == result
            assert response.time2wait == 2
            await asyncio.sleep(0.1)
            assert there.ended.is_set() == ends
            if not ends:
                assert await session.luns()

        pair.run(body())


def test_a_logout_while_requests_fly() -> None:
    with pair_of() as pair:

        async def body() -> None:
            session = await pair.connect()
            lun = await session.lun(0)
            writes = [asyncio.create_task(lun.pwrite(pattern(n, 4096), n * 4096)) for n in range(16)]
            await asyncio.sleep(0)
            await session.close()
            results = await asyncio.gather(*writes, return_exceptions=True)
            assert all(result == 4096 or isinstance(result, errors.Error) for result in results)
            assert pair.target.statistics()["sessions"] == 0 or far(pair).ended.is_set()

        pair.run(body())


# ---------------------------------------------------------------------- asynchronous messages
async def came_back(session: Session, at: float, pair: SteppedPair) -> float:
    while session.state is State.OPEN and session.reopened == 0:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.01)
    await session.ready()
    return pair.now - at


def test_event_1_a_logout_is_asked_for_and_done() -> None:
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                far(pair).ask_logout(5)
                seconds = await came_back(lun.session, pair.now, pair)
                assert 2.0 <= seconds <= 2.5  # DefaultTime2Wait
                (request,) = sent(pair, INITIATOR, Opcode.LOGOUT_REQUEST, 0)
                assert request[1] & 0x7F == 0
                await write_and_read(lun)

        pair.run(body())


@pytest.mark.parametrize("event", [2, 3])
def test_events_2_and_3_say_that_it_is_dropped_and_when_to_come_back(event: int) -> None:
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                there = far(pair)
                if event == 2:
                    there.drop_connection(1, time2wait=7)
                else:
                    there.drop(time2wait=7)
                seconds = await came_back(lun.session, pair.now, pair)
                assert 7.0 <= seconds <= 7.5
                (header,) = sent(pair, TARGET, Opcode.ASYNC_MESSAGE, 0)
                assert header[36] == event
                assert header[38:44] == bytes([0, 1 if event == 2 else 0, 0, 7, 0, 0])
                assert there.ended.is_set()
                await write_and_read(lun)

        pair.run(body())


def test_event_4_is_answered_by_a_text_request() -> None:
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                far(pair).ask_negotiation(5)
                await asyncio.sleep(1)
                assert len(sent(pair, INITIATOR, Opcode.TEXT_REQUEST)) == 1
                assert lun.session.reopened == 0
                await write_and_read(lun)

        pair.run(body())


def test_event_0_reaches_who_listens() -> None:
    sense = bytes([0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x3F, 0x0E, 0, 0, 0, 0])
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                seen: list[AsyncMessage] = []
                lun.session.observers.append(seen.append)
                far(pair).report(0, sense)
                await asyncio.sleep(0.1)
                assert [(m.async_event, m.sense) for m in seen] == [(AsyncEvent.SCSI_EVENT, sense)]
                await write_and_read(lun)

        pair.run(body())


def test_event_5_only_where_fast_abort_was_negotiated() -> None:
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                far(pair).tell_termination(0)
                await asyncio.sleep(0.1)
                assert not sent(pair, TARGET, Opcode.ASYNC_MESSAGE)
                await write_and_read(lun)

        pair.run(body())


@pytest.mark.parametrize("value", ["512", "1000", "262144"])
def test_the_segment_length_is_declared_anew_on_a_live_connection(value: str) -> None:
    with pair_of(keys={"MaxRecvDataSegmentLength": "8192"}) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await lun.pwrite(pattern(6, 65536), 65536)
                await lun.session.renegotiate({"MaxRecvDataSegmentLength": value})
                seen = len(pair.link.tap.pdus(TARGET))
                assert await lun.pread(65536, 65536) == pattern(6, 65536)
                longest = max(len(pdu.data) for pdu in pair.link.tap.pdus(TARGET)[seen:])
                assert longest == min(int(value), 65536)
                await write_and_read(lun)
                assert lun.session.reopened == 0

        pair.run(body())


# ---------------------------------------------------------------------- the end of a target
def test_a_target_that_shuts_down_asks_then_tells_then_closes() -> None:
    with pair_of(limits=Limits(keep_alive_seconds=0, drain_seconds=2.0)) as pair:

        async def body() -> None:
            lun = await pair.open()
            # An initiator that does not listen: what it sends is lost.
            pair.link.tap.intercept = lambda pdu: [] if pdu.end == INITIATOR else [pdu.raw]
            began = pair.now
            await pair.target.stop()
            assert 2.0 <= pair.now - began <= 3.0
            assert [header[36] for header in sent(pair, TARGET, Opcode.ASYNC_MESSAGE, 0)] == [1, 3]
            pair.network.listeners.clear()
            await lun.close()

        pair.run(body())


def test_a_target_that_shuts_down_waits_no_longer_than_it_has_to() -> None:
    with pair_of(limits=Limits(keep_alive_seconds=0, drain_seconds=30.0)) as pair:

        async def body() -> None:
            lun = await pair.open()
            began = pair.now
            await pair.target.stop()
            assert pair.now - began < 1.0
            await lun.close()

        pair.run(body())
