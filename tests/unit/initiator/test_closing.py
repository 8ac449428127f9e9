"""Closing at the wrong moment: cancelled, twice, during a re-opening. Nothing stays behind in the plane."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from pathlib import Path
from typing import Any

import pytest

from blockwire import aio, errors
from blockwire.dataplane import api, native
from blockwire.dataplane.fake import FakePlane
from blockwire.initiator.initiator import Initiator
from blockwire.initiator.options import Options
from blockwire.initiator.session import State
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import LogoutReason
from tests.unit.initiator.conftest import FAST, URL
from tests.unit.initiator.test_connections import Several
from tests.waiting import until


def test_a_close_that_is_cancelled_closes_all_the_same(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        asked = asyncio.Event()

        def no_answer(*_: Any) -> None:
            asked.set()

        bench.plane.on_pdu = no_answer
        closing = asyncio.create_task(session.close())
        await asked.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not bench.plane.sessions
        assert not bench.plane.connections

    scenario(work)


def test_an_initiator_whose_close_is_cancelled_ends_its_plane(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        bench.initiator._owns_plane = True
        asked = asyncio.Event()

        def no_answer(*_: Any) -> None:
            asked.set()

        bench.plane.on_pdu = no_answer
        closing = asyncio.create_task(bench.initiator.close())
        await asked.wait()
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        assert bench.plane.closed
        assert session.state is State.CLOSED

    scenario(work)


def test_many_sessions_are_closed_side_by_side(bench, scenario) -> None:
    async def work() -> None:
        await bench.session()
        for _ in range(4):
            await bench.initiator.connect(URL, Options(timers=FAST))
        bench.plane.on_pdu = lambda *_: None
        started = asyncio.get_running_loop().time()
        await bench.initiator.close()
        # Each of them waits for an answer to its logout as long as it may.
        assert asyncio.get_running_loop().time() - started < 2 * FAST.logout
        assert not bench.plane.sessions

    scenario(work)


def test_a_session_closed_while_it_is_opened_again_stays_closed(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        adopt, closing = bench.plane.adopt, []

        def adopted(*arguments: Any) -> int:
            op: int = adopt(*arguments)
            closing.append(asyncio.ensure_future(session.close()))
            return op

        bench.plane.adopt = adopted
        bench.plane.lose(session.id)
        await until(lambda: closing, "the closing")
        await asyncio.gather(*closing)
        await asyncio.sleep(0.05)
        assert session.state is State.CLOSED
        assert not bench.plane.sessions

    scenario(work)


def test_a_second_close_does_not_stop_what_the_first_one_needs(bench, scenario) -> None:
    async def work() -> None:
        bench.initiator = Initiator(bench.plane, name="iqn.2025-01.org.test:i", ends_when_idle=True)
        bench.initiator.log_in = bench.log_in
        bench.initiator._owns_plane = True
        session = await bench.initiator.connect(URL, Options(timers=FAST))
        # The plane is shut down with the last session; the fake refuses every call from then on.
        await asyncio.gather(session.close(), session.close())
        assert not bench.plane.sessions
        assert bench.initiator.closed

    scenario(work)


# ---------------------------------------------------------------------------------------------- connections
def test_a_connection_that_is_dropped_and_lost_at_once(scenario, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        bench = Several(2, level=1)
        session = await bench.open()
        session.runtime.spawn(session.connections.dropped(2, 0, 2), "dropped")
        session.connections.on_lost(2, "reset")
        await until(lambda: session.connections.replaced == 1, "the replacement of a connection")
        await session.close()

    scenario(body)
    assert "failed" not in caplog.text


def test_a_removal_that_is_cancelled_or_refused_leaves_no_connection_in_the_plane(scenario) -> None:
    async def body() -> None:
        bench = Several(3, level=0)
        session = await bench.open()
        asked = asyncio.Event()

        def no_answer(*_: Any) -> None:
            asked.set()

        answer, bench.plane.on_pdu = bench.plane.on_pdu, no_answer
        removing = asyncio.create_task(session.remove_connection(3))
        await asked.wait()
        removing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await removing
        assert (session.id, 3, api.ReleaseMode.TERMINATE) in bench.calls("release")
        bench.plane.on_pdu = rejected
        with pytest.raises(errors.ProtocolError):
            await session.remove_connection(2)
        assert (session.id, 2, api.ReleaseMode.TERMINATE) in bench.calls("release")
        bench.plane.on_pdu = answer
        await session.close()

    scenario(body)


def rejected(session: int, header: bytes, data: bytes) -> tuple[bytes, bytes]:
    """RFC 7143 11.17: opcode 3Fh, reason 04h protocol error; the data is the header that was refused."""
    return b"\x3f\x80\x04\x00\x00\x00\x00\x30" + bytes(8) + b"\xff" * 4 + bytes(28), header


def test_a_target_that_rejects_the_logout_for_recovery_does_not_stop_the_recovery(scenario) -> None:
    async def body() -> None:
        bench = Several(2, retain=1)
        session = await bench.open()
        answer, bench.plane.on_pdu = bench.plane.on_pdu, rejected
        await bench.lose(session, 2)
        # Time2Retain is over: the tasks end. Another connection has come in the lost one's place.
        await until(lambda: not session.connections.lost and len(session.cids) == 2, "both connections")
        bench.plane.on_pdu = answer
        await session.close()

    scenario(body)


def test_a_rejected_task_management_function_is_an_error_of_ours(scenario) -> None:
    async def body() -> None:
        bench = Several(1)
        session = await bench.open()
        answer, bench.plane.on_pdu = bench.plane.on_pdu, rejected
        with pytest.raises(errors.ProtocolError, match="rejected"):
            await session.target_reset()
        bench.plane.on_pdu = answer
        await session.close()

    scenario(body)


def test_a_target_that_asks_for_a_logout_gets_that_one(scenario) -> None:
    # 11.9.1, event 1: "MUST send a Logout with a reason code of 'close the connection' or 'close the session'", on the
    # same connection; also where tasks could be moved to another one first.
    async def body() -> None:
        bench = Several(2, level=2)
        session = await bench.open()
        message = AsyncMessage(async_event=1, parameter3=3)
        bench.plane.inject(api.ControlPdu(session.id, 2, message.encode(), b""))
        await until(lambda: session.cids == (1,), "one connection")
        ((on, request),) = bench.logouts
        assert (on, request.reason, request.cid) == (2, LogoutReason.CLOSE_CONNECTION, 2)
        assert not bench.calls("reassign")
        await session.close()

    scenario(body)


def test_loops_that_have_ended_are_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "new_plane", lambda workers=1: FakePlane())

    async def once() -> None:
        with (await aio._initiator()).busy():
            await asyncio.sleep(0)
        assert aio._initiators[asyncio.get_running_loop()][0].closed

    before = len(aio._initiators)
    for _ in range(3):
        asyncio.run(once())
    gc.collect()
    assert len(aio._initiators) <= before
