"""Sessions without a connection: they wait for their initiator, and are in nobody's way; with a fake plane."""

from __future__ import annotations

import asyncio

from blockwire.dataplane import api
from tests.unit.target.conftest import NAME, Bench, Run

ISID2 = bytes.fromhex("400001370002")


def test_a_session_whose_worker_broke_down_ends(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        _, other = await bench.log_in(isid=ISID2)
        bench.plane.inject(api.SessionLost(session, "worker-panic", "worker 0 panicked: why"))
        await bench.settle()
        (down,) = bench.told("session-down")
        assert (down.details["reason"], down.details["evidence"]) == ("worker-panic", "worker 0 panicked: why")
        assert set(bench.plane.sessions) == {other}
        assert (await bench.log_in())[1] not in (session, other)

    run(test)


def test_a_session_that_waits_for_its_initiator_makes_room_for_others(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, first = await bench.log_in()
        _, second = await bench.log_in(isid=ISID2)
        third = await bench.connect()
        assert (await third.log_in(NAME, isid=bytes.fromhex("400001370003"))).status == 0x0302
        bench.plane.lose(second, "reset")
        await bench.settle()
        assert set(bench.plane.sessions) == {first, second}
        _, session = await bench.log_in(isid=bytes.fromhex("400001370003"))
        assert set(bench.plane.sessions) == {first, session}
        (down,) = bench.told("session-down")
        assert down.details["reason"] == "evicted"

    run(test, limits={"sessions": 2})


def test_a_session_that_waits_for_its_initiator_does_not_hold_up_the_end(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        bench.plane.lose(session, "reset")
        await bench.settle()
        async with asyncio.timeout(3):
            await bench.server.stop(60.0)

    run(test)
