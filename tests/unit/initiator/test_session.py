"""A session's life over the fake plane: loss, re-opening, replay, asynchronous messages, logout."""

from __future__ import annotations

import asyncio
import struct

import pytest

from blockwire import errors
from blockwire.dataplane import api
from blockwire.initiator.options import Timers
from blockwire.initiator.session import State
from blockwire.session import SessionState, UndefinedTransitionError
from blockwire.wire.text import TextResponse
from tests.waiting import until


def test_logout_is_sent_once_and_the_session_is_forgotten(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        number = session.id
        await session.close()
        await session.close()
        # RFC 7143 11.14: opcode 06h with the I bit, F bit, reason 0 "close the session".
        headers = [header for _, _, header, _ in bench.plane.sent]
        assert [(h[0], h[1]) for h in headers] == [(0x46, 0x80)]
        assert number not in bench.plane.sessions
        with pytest.raises(errors.ClosedError):
            await session.luns()

    scenario(work)


def test_a_target_that_does_not_answer_the_logout_holds_nothing_up(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        bench.plane.on_pdu = lambda *_: None
        started = asyncio.get_running_loop().time()
        await session.close()
        assert asyncio.get_running_loop().time() - started < 1
        assert not bench.plane.sessions

    scenario(work)


def test_io_in_flight_is_replayed_on_the_next_session(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        lun = await session.lun(0)
        disk, answer = bench.plane.on_request, bench.plane.on_request
        bench.plane.on_request = lambda request: None
        writing = asyncio.create_task(lun.pwrite(b"replayed" * 64, 0))
        await asyncio.sleep(0.01)
        first = session.id
        bench.plane.on_request = answer
        bench.plane.lose(first)
        assert await writing == 512
        assert session.id != first
        assert first not in bench.plane.sessions
        assert session.reopened == 1
        assert await lun.pread(512, 0) == b"replayed" * 64
        assert disk is answer

    scenario(work)


def test_attempts_go_on_while_the_target_is_away(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        lun = await session.lun(0)
        bench.fail.extend([errors.RefusedError("refused")] * 4)
        bench.plane.lose(session.id)
        assert await lun.pread(512, 0) == bytes(512)
        assert len(bench.logins) == 6

    scenario(work)


def test_io_fails_after_the_replacement_timeout_and_the_attempts_go_on(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session(
            Timers(replacement_timeout=0.15, reopen_first=0.01, reopen_longest=0.03, logout=0.1)
        )
        lun = await session.lun(0)
        bench.fail.extend([errors.RefusedError("refused")] * 20)
        bench.plane.lose(session.id)
        with pytest.raises(errors.ConnectionLostError) as caught:
            await lun.pread(512, 0)
        assert "0.15 s" in str(caught.value)
        bench.fail.clear()
        await asyncio.sleep(0.1)
        assert session.state is State.OPEN
        assert await lun.pread(512, 0) == bytes(512)

    scenario(work)


def test_a_refused_login_is_not_repeated(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        lun = await session.lun(0)
        bench.fail.append(errors.login_error(0x0201))
        bench.plane.lose(session.id)
        with pytest.raises(errors.ConnectionLostError) as caught:
            await lun.pread(512, 0)
        assert isinstance(caught.value.__cause__, errors.AuthenticationError)
        assert session.state is State.FAILED
        session.retry_now()
        assert await lun.pread(512, 0) == bytes(512)

    scenario(work)


@pytest.mark.parametrize("event", [1])
def test_a_requested_logout_is_done_and_the_session_comes_back(bench, scenario, event: int) -> None:
    async def work() -> None:
        session = await bench.session()
        first = session.id
        # RFC 7143 11.9: opcode 32h, F; AsyncEvent in byte 36, Parameter3 (seconds) in bytes 42-43.
        header = bytearray(48)
        header[0], header[1], header[36] = 0x32, 0x80, event
        struct.pack_into(">H", header, 42, 3)
        bench.plane.inject(api.ControlPdu(first, 0, bytes(header), b""))
        await asyncio.sleep(0.15)
        assert [h[0] for _, _, h, _ in bench.plane.sent] == [0x46]
        assert session.state is State.OPEN
        assert session.id != first

    scenario(work)


def test_a_session_dropped_by_the_target_waits_time2wait(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        header = bytearray(48)
        header[0], header[1], header[36] = 0x32, 0x80, 3  # drops all connections; Parameter2: Time2Wait
        struct.pack_into(">HH", header, 40, 1, 20)
        started = asyncio.get_running_loop().time()
        bench.plane.inject(api.ControlPdu(session.id, 0, bytes(header), b""))
        await asyncio.sleep(0.05)
        assert session.state is State.REOPENING
        await until(lambda: session.state is State.OPEN, "an open session")
        assert asyncio.get_running_loop().time() - started >= 1

    scenario(work)


def test_a_command_that_is_never_answered_is_aborted(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session(Timers(timeout=0.05, logout=0.1))
        lun = await session.lun(0)
        bench.plane.on_request = lambda request: None
        with pytest.raises(errors.TimedOutError):
            await lun.pread(512, 0)
        assert not bench.plane.in_flight

    scenario(work)


def test_closing_while_it_reopens_ends_the_attempts(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        bench.fail.extend([errors.RefusedError("refused")] * 1000)
        bench.plane.lose(session.id)
        await asyncio.sleep(0.03)
        await session.close()
        count = len(bench.logins)
        await asyncio.sleep(0.2)
        assert len(bench.logins) <= count + 1
        assert session.state is State.CLOSED

    scenario(work)


def test_two_initiators_in_one_process_share_nothing(scenario) -> None:
    async def work() -> None:
        from tests.unit.initiator.conftest import Bench

        one, two = Bench(), Bench()
        first = await (await one.session()).lun(0)
        second = await (await two.session()).lun(0)
        await first.pwrite(b"1" * 512, 0)
        assert await second.pread(512, 0) == bytes(512)
        await one.initiator.close()
        assert await second.pread(512, 0) == bytes(512)
        await two.initiator.close()

    scenario(work)


def test_a_text_exchange_without_end_ends_in_time(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session(Timers(timeout=0.3, logout=0.1))
        answered = 0
        send, loop = bench.plane.send_pdu, asyncio.get_running_loop()

        def drip(number: int, cid: int | None, header: bytes, data: bytes = b"") -> int:
            # One byte in each answer, a while after its question, and never the last.
            nonlocal answered
            token: int = send(number, cid, header, data)
            if header[0] & 0x3F == 0x04:
                answered += 1
                pdu = TextResponse(
                    final=False, continued=True, initiator_task_tag=1, target_transfer_tag=answered, data=b"X"
                )
                event = api.ControlPdu(number, cid or 0, pdu.encode(), pdu.data, token=token)
                loop.call_later(0.02, bench.plane.inject, event)
            return token

        bench.plane.on_pdu = lambda *_: None
        bench.plane.send_pdu = drip
        async with asyncio.timeout(2):
            with pytest.raises(errors.Error) as caught:
                await session.renegotiate({"MaxRecvDataSegmentLength": "4096"})
        assert answered > 1
        assert caught.value.code == "text.timeout"
        await session.close()

    scenario(work)


def test_a_session_is_reinstated_from_failed(bench, scenario) -> None:
    # RFC 7143 6.3.5: the session state MUST be FAILED when the reinstatement is attempted, every time.
    async def work() -> None:
        session = await bench.session()
        assert session.phase is SessionState.LOGGED_IN
        seen, log_in = [], bench.initiator.log_in

        async def watched(*arguments, **named):
            seen.append((session.phase, bench.plane.sessions.copy()))
            return await log_in(*arguments, **named)

        bench.initiator.log_in = watched
        bench.fail.extend([errors.RefusedError("refused")] * 2)
        bench.plane.lose(session.id)
        await until(lambda: session.reopened, "a session opened again")
        assert [phase for phase, _ in seen] == [SessionState.FAILED] * 3
        assert not any(sessions for _, sessions in seen), "nothing is left of the old one here"
        assert session.phase is SessionState.LOGGED_IN
        # Where it is not lost there is nothing to reinstate: no Login Request leaves.
        with pytest.raises(UndefinedTransitionError):
            await session._establish()
        assert len(seen) == 3
        await session.close()
        assert session.phase is SessionState.FREE

    scenario(work)
