"""A target with a fake plane under virtual time, and an initiator's end made of raw PDUs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from blockwire.config import arguments
from blockwire.config.model import Configuration
from blockwire.dataplane import api
from blockwire.dataplane.dispatch import Dispatch
from blockwire.dataplane.fake import FakePlane
from blockwire.net.asyncio_runtime import AsyncioRuntime
from blockwire.target.events import TargetEvent
from blockwire.target.server import TargetServer
from tests.unit.target.raw_initiator import RawInitiator

NAME = "iqn.2024-01.com.example:disk"


class Bench:
    """A started server, its fake plane, what it told."""

    def __init__(self, configuration: Configuration) -> None:
        self.plane = FakePlane()
        self.dispatch = Dispatch(self.plane)
        self.events: list[TargetEvent] = []
        self.server = TargetServer(
            configuration, self.plane, self.dispatch, AsyncioRuntime(), host_id="host", revision="0001",
            observe=self.events.append,
        )  # fmt: skip

    async def connect(self) -> RawInitiator:
        portal = self.server.portals[0]
        reader, writer = await asyncio.open_connection(portal.host, portal.port)
        return RawInitiator(reader, writer)

    async def log_in(self, **options: Any) -> tuple[RawInitiator, int]:
        """A logged-in raw initiator, and the plane's number of its session."""
        initiator = await self.connect()
        response = await initiator.log_in(target=NAME, **options)
        assert response.status == 0, f"{response.status:04x}"
        await self.settle()
        return initiator, max(self.plane.sessions)

    async def replied(self, session: int, tag: int) -> None:
        """Waits until Python has answered `tag`, and for what follows from the answer."""
        async with asyncio.timeout(5):
            while not any((where, number) == (session, tag) for where, number, _, _ in self.plane.replies):
                await self.settle()
        await self.settle()

    async def settle(self) -> None:
        """Lets everything that is ready happen."""
        for _ in range(20):
            await asyncio.sleep(0)
            self.dispatch.pump()
        await asyncio.sleep(0.01)

    async def command(self, session: int, cdb: bytes, *, lun: int = 0, data: bytes = b"", out: int = 0,
                      diverted: bool = False, attribute: int = 1) -> api.Answer:  # fmt: skip
        """What Python answers to a command."""
        tag = 1000 + len(self.plane.replies)
        self.plane.inject(
            api.CommandForControl(
                session,
                0,
                tag,
                lun << 48,
                cdb.ljust(16, b"\0"),
                attribute,
                7,
                1,
                out,
                not out,
                bool(out),
                data,
                diverted,
            )
        )
        await self.replied(session, tag)
        found = [answer for where, number, answer, _ in self.plane.replies if (where, number) == (session, tag)]
        assert len(found) == 1
        return found[0]

    async def control(self, session: int, pdu: Any, cid: int = 1) -> tuple[api.ResponsePdu, api.Effects]:
        """What Python answers to a control PDU that comes on connection `cid`."""
        tag = 2000 + len(self.plane.replies)
        self.plane.inject(api.ControlPdu(session, cid, pdu.encode(), pdu.data, tag))
        await self.replied(session, tag)
        found = [
            (answer, effects)
            for where, number, answer, effects in self.plane.replies
            if (where, number) == (session, tag)
        ]
        assert len(found) == 1
        assert isinstance(found[0][0], api.ResponsePdu)
        return found[0]  # type: ignore[return-value]

    def gate(self, session: int, lun: int = 0) -> set[api.Gate]:
        """Gates of a nexus as the plane knows them."""
        gates = self.plane.gates[session, lun << 48]
        return set(gates.values())

    def told(self, event: str) -> list[TargetEvent]:
        return [item for item in self.events if item.event == event]


Run = Callable[..., None]


@pytest.fixture
def run() -> Run:
    """Runs a coroutine function with a started bench and stops it afterwards."""

    def start(test: Callable[[Bench], Awaitable[None]], *stores: str, **options: Any) -> None:
        async def main() -> None:
            options.setdefault("portals", ["127.0.0.1:0"])
            options.setdefault("target_name", NAME)
            limits = options.pop("limits", {})
            configuration = arguments.build(stores or ("ram:1M?serial=A1",), host="host", **options)
            changed = configuration.limits.model_copy(update={"drain_seconds": 0.0, **limits})
            bench = Bench(configuration.model_copy(update={"limits": changed}))
            bench.dispatch.attach()
            await bench.server.start()
            try:
                await test(bench)
            finally:
                async with asyncio.timeout(5):
                    await bench.server.stop()
                bench.dispatch.close()
                bench.plane.shutdown(1)

        asyncio.run(asyncio.wait_for(main(), 20))

    return start
