"""An initiator over the fake plane: no sockets, no login, the fake's disk as the device."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from blockwire.dataplane.api import Limits, TransportHandle, TransportKind
from blockwire.dataplane.fake import FakeDisk, FakePlane
from blockwire.initiator import connect
from blockwire.initiator.initiator import Initiator
from blockwire.initiator.options import Options, Timers
from blockwire.initiator.session import Session
from blockwire.names import Portal, Url
from blockwire.negotiate.parameters import Parameters
from blockwire.testing import virtual_time

URL = Url.parse("iscsi://127.0.0.1:3260/iqn.2025-01.org.test:t/0")
FAST = Timers(
    timeout=2.0, replacement_timeout=1.0, logout=0.2, reopen_first=0.01, reopen_longest=0.05, keep_alive_interval=0.0
)


class Nowhere:
    """A transport that goes nowhere."""

    peer = "127.0.0.1:3260"
    local = "127.0.0.1:50000"
    closed = 0

    def close(self) -> None:
        self.closed += 1

    def detach(self) -> TransportHandle:
        return TransportHandle(TransportKind.MEMORY, -1)


class Bench:
    """What a test works with."""

    def __init__(self) -> None:
        self.plane = FakePlane()
        self.disk = self.plane.disks[0] = FakeDisk()
        self.logins: list[Url] = []
        self.fail: list[Exception] = []
        self._tsih = itertools.count(1)
        self.initiator: Initiator

    async def log_in(
        self, runtime: Any, limits: Limits, url: Url, options: Options, *, initiator_name: str, isid: bytes
    ) -> connect.LoggedIn:
        self.logins.append(url)
        if self.fail:
            raise self.fail.pop(0)
        parameters = Parameters(default_time2wait=0)
        spec = connect.session_spec(
            parameters, initiator_name=initiator_name, target_name=url.target, isid=isid, tsih=next(self._tsih),
            portal_group_tag=1, cmd_sn=1, exp_cmd_sn=1, max_cmd_sn=32,
        )  # fmt: skip
        transport: Any = Nowhere()
        return connect.LoggedIn(transport, Portal("127.0.0.1"), parameters, spec, 0, 1, b"", options)

    async def session(self, timers: Timers = FAST) -> Session:
        self.initiator = Initiator(self.plane, name="iqn.2025-01.org.test:i")
        self.initiator.log_in = self.log_in
        return await self.initiator.connect(URL, Options(timers=timers))


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.plane.shutdown(0)


@pytest.fixture
def scenario() -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Runs a coroutine function on virtual time, with a time limit: nothing here waits for the machine."""

    def run(function: Callable[[], Awaitable[Any]]) -> Any:
        return virtual_time.run(asyncio.wait_for(function(), 600))  # type: ignore[arg-type]

    return run
