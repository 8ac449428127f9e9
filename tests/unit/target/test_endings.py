"""Logins, discovery sessions and servers that do not come to a good end: nothing of them is kept."""

from __future__ import annotations

import asyncio
import functools

import pytest

from blockwire import errors
from blockwire.config import arguments
from blockwire.config.authentication import chap
from blockwire.dataplane.dispatch import Dispatch
from blockwire.dataplane.fake import FakePlane
from blockwire.net.asyncio_runtime import AsyncioRuntime
from blockwire.target import discovery_session
from blockwire.target.server import TargetServer
from blockwire.wire.keys import join_pairs
from blockwire.wire.login import LoginRequest
from blockwire.wire.nop import NopOut
from tests.unit.target.conftest import NAME, Bench, Run
from tests.unit.target.raw_initiator import INITIATOR
from tests.unit.target.test_discovery import ask_targets
from tests.unit.target.test_sessions import ISID2
from tests.waiting import until


@pytest.mark.parametrize("evicted", [False, True])
def test_challenges_of_logins_that_break_off_are_forgotten(run: Run, evicted: bool) -> None:
    # 9.2.1: the registry of outstanding challenges is the target's; who resets the connection must not fill it.
    async def test(bench: Bench) -> None:
        for _ in range(3):
            initiator = await bench.connect()
            await initiator.send(
                LoginRequest(
                    csg=0, isid=ISID2, initiator_task_tag=5,
                    data=join_pairs([
                        ("InitiatorName", INITIATOR), ("TargetName", NAME), ("AuthMethod", "CHAP"),
                    ]),
                )
            )  # fmt: skip
            await initiator.receive()
            await initiator.send(
                LoginRequest(csg=0, isid=ISID2, initiator_task_tag=5, data=join_pairs([("CHAP_A", "5")]))
            )
            await initiator.receive()
            assert len(bench.server.challenges) == 1
            if evicted:
                bench.server.half_open.close()
            else:
                initiator.writer.reset()
            await until(lambda: not bench.server.half_open, "the end of the login")
            await until(functools.partial(bench.told, "evicted" if evicted else "login-failed"), "the event of it")
            await bench.settle()
            assert len(bench.server.challenges) == 0

    run(test, authentication=chap("lab", secret="a secret of sixteen"))


def test_discovery_that_names_a_target_is_told_of_all(run: Run) -> None:
    # Appendix C: SendTargets=All "MUST be supported on a Discovery session", and one may name a target (13.4).
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        assert (await initiator.log_in(NAME, keys=[("SessionType", "Discovery")])).status == 0
        assert ("TargetName", NAME) in await ask_targets(initiator, "All")
        assert ("TargetName", NAME) in await ask_targets(initiator, NAME, 2)

    run(test)


def test_a_discovery_session_that_does_not_read_ends(run: Run) -> None:
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        assert (await initiator.log_in()).status == 0
        ping = NopOut(initiator_task_tag=3, immediate=True, data=bytes(8192)).to_bytes()
        sending = asyncio.ensure_future(initiator.send(ping * 4096))
        async with asyncio.timeout(2 * discovery_session.IDLE_SECONDS):
            await until(lambda: bench.told("discovery"), "the event of the discovery", step=5.0)
        with pytest.raises(ConnectionError):
            await sending
        assert bench.told("discovery")[0].details["reason"] == "idle"
        assert len(bench.server.half_open) == 0

    run(test)


def test_stop_after_a_start_that_failed_returns() -> None:
    async def main() -> None:
        plane = FakePlane()
        dispatch = Dispatch(plane)
        dispatch.attach()
        configuration = arguments.build(("missing.img",), host="host", portals=["127.0.0.1:0"])
        server = TargetServer(configuration, plane, dispatch, AsyncioRuntime(), host_id="host")
        with pytest.raises(errors.ConfigurationError):
            await server.start()
        async with asyncio.timeout(60):
            await server.stop()

    asyncio.run(main())
