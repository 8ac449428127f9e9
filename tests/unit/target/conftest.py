"""A target with a fake plane under virtual time, and an initiator's end made of raw PDUs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
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
from blockwire.testing.memory_link import take
from blockwire.testing.virtual_network import MemoryTransport, Network, VirtualRuntime
from blockwire.testing.virtual_time import VirtualLoop
from tests.unit.target.raw_initiator import RawInitiator

NAME = "iqn.2024-01.com.example:disk"


class Stream:
    """An end of an in-memory connection, as the reader and the writer of a `RawInitiator`."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self._unsent = b""

    async def read(self, most: int) -> bytes:
        return await self.transport.recv(most)

    def write(self, data: bytes) -> None:
        self._unsent += data

    async def drain(self) -> None:
        data, self._unsent = self._unsent, b""
        await self.transport.send(data)

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        """The connection breaks: both ends see a reset."""
        self.transport.link.cut_now()


class Plane(FakePlane):
    """A fake plane that ends in-memory connections too."""

    @staticmethod
    def _close_transport(transport: api.TransportHandle) -> None:
        if transport.kind is not api.TransportKind.MEMORY:
            FakePlane._close_transport(transport)
            return
        pair, end = take(transport)
        pair.close(end)


class Bench:
    """A started server, its fake plane, what it told: over in-memory connections, or over TCP without a network."""

    def __init__(self, configuration: Configuration, network: Network | None = None) -> None:
        self.plane = Plane()
        self.dispatch = Dispatch(self.plane)
        self.events: list[TargetEvent] = []
        self.network = network
        self.server = TargetServer(
            configuration, self.plane, self.dispatch, AsyncioRuntime() if network is None else VirtualRuntime(network),
            host_id="host", revision="0001", observe=self.events.append,
        )  # fmt: skip

    async def connect(self, portal: int = 0) -> RawInitiator:
        where = self.server.portals[portal]
        if self.network is None:
            return RawInitiator(*await asyncio.open_connection(where.host, where.port))
        stream = Stream(await self.network.dial(where))
        return RawInitiator(stream, stream)

    async def log_in(self, **options: Any) -> tuple[RawInitiator, int]:
        """A logged-in raw initiator, and the plane's number of its session."""
        initiator = await self.connect()
        response = await initiator.log_in(target=NAME, **options)
        assert response.status == 0, f"{response.status:04x}"
        await self.settle()
        return initiator, max(self.plane.sessions)

    async def replied(self, session: int, tag: int) -> None:
        """Waits until Python has answered `tag`, and for what follows from the answer."""
        async with asyncio.timeout(60):
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


def on_virtual_time(network: Network, coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs `coroutine` where waiting takes no time, and load and scheduling cannot make a difference."""
    loop = VirtualLoop()
    loop.add_source(network)
    try:
        loop.run(asyncio.wait_for(coroutine, 600))
    finally:
        loop.close()


@pytest.fixture
def run() -> Run:
    """Runs a coroutine function with a started bench and stops it afterwards. With `tcp` on real sockets and the real
    clock, for what only they have."""

    def start(test: Callable[[Bench], Awaitable[None]], *stores: str, tcp: bool = False, **options: Any) -> None:
        network = None if tcp else Network()

        async def main() -> None:
            options.setdefault("portals", ["127.0.0.1:0"])
            options.setdefault("target_name", NAME)
            limits = options.pop("limits", {})
            configuration = arguments.build(stores or ("ram:1M?serial=A1",), host="host", **options)
            changed = configuration.limits.model_copy(update={"drain_seconds": 0.0, **limits})
            bench = Bench(configuration.model_copy(update={"limits": changed}), network)
            bench.dispatch.attach()
            await bench.server.start()
            try:
                await test(bench)
            finally:
                async with asyncio.timeout(60):
                    await bench.server.stop()
                bench.dispatch.close()
                bench.plane.shutdown(1)

        if network is None:
            asyncio.run(asyncio.wait_for(main(), 150))
        else:
            on_virtual_time(network, main())

    return start
