"""Several connections at error recovery level 2 on sockets, with the fault proxy between, under a verified load."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import blockwire
from blockwire import errors
from blockwire.initiator.options import Timers
from blockwire.testing.fault_proxy import FaultProxy
from tests.integration.faults.loads import Disturbance, load_until
from tests.waiting import wait_until

SIZE = 16 << 20
TIMERS = Timers(
    timeout=60.0, replacement_timeout=120.0, keep_alive_interval=0.5, keep_alive_timeout=0.5, reopen_first=0.02,
    reopen_longest=0.5, logout=0.5,
)  # fmt: skip
RETAIN = {"DefaultTime2Wait": "0", "DefaultTime2Retain": "600"}
"""A loaded machine may be slow: it is not for lack of time that a session is opened anew here."""


def keys(connections: int, level: int = 2) -> dict[str, str]:
    return {"MaxConnections": str(connections), "ErrorRecoveryLevel": str(level), **RETAIN}


@pytest.fixture
def target() -> Iterator[blockwire.Target]:
    with blockwire.Target(f"ram:{SIZE}", keys=RETAIN) as target:
        yield target


@pytest.fixture
def proxy(target: blockwire.Target) -> Iterator[FaultProxy]:
    with FaultProxy(target.portals[0]) as proxy:
        yield proxy


def url(proxy: FaultProxy, target: blockwire.Target, query: str = "") -> str:
    return f"iscsi://{proxy.address}/{target.name}/0{query}"


def test_connections_by_url(target: blockwire.Target) -> None:
    with blockwire.open(f"{target.url}?MaxConnections=4&ErrorRecoveryLevel=2") as lun:
        session = lun.session
        assert (session.keys["MaxConnections"], session.keys["ErrorRecoveryLevel"]) == ("4", "2")
        assert session.cids == (1, 2, 3, 4)
        with lun.queue(depth=16) as queue:
            for number in range(64):
                queue.pwrite(bytes([number]) * 4096, 4096 * number)
        for number in range(64):
            assert lun.pread(4096, 4096 * number) == bytes([number]) * 4096
        session.remove_connection(2)
        assert session.cids == (1, 3, 4)
        assert session.add_connection() == 2
        with pytest.raises(errors.UsageError):
            session.add_connection()


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 2, 4])
def test_load_over_cuts_at_level_2(target: blockwire.Target, proxy: FaultProxy, connections: int) -> None:
    """No error, no miscompare, and the session is the same one all the time."""
    with blockwire.open(url(proxy, target), timers=TIMERS, keys=keys(connections)) as lun:
        session = lun.session

        def cut() -> None:
            alive = [connection for connection in proxy.connections if not connection.ended]
            if alive:
                alive[int(time.monotonic() * 1000) % len(alive)].cut()

        # What has just begun to log in is cut too, but never all there is: nobody could get through.
        with Disturbance(cut, lambda: bool(session.cids), 0.25):
            load_until(lun, lambda: session.core.connections.recovered >= 3, transfer=8192)
        wait_until(lambda: len(session.cids) == connections, "all connections")
        assert session.reopened == 0


@pytest.mark.slow
@pytest.mark.parametrize("connections", [2, 4])
def test_load_over_all_connections_cut_at_once(target: blockwire.Target, proxy: FaultProxy, connections: int) -> None:
    with blockwire.open(url(proxy, target), timers=TIMERS, keys=keys(connections)) as lun:
        session = lun.session
        with Disturbance(proxy.cut_all, lambda: len(session.cids) == connections, 0.5):
            load_until(lun, lambda: session.core.connections.recovered >= 3, transfer=8192)
        assert session.reopened == 0


@pytest.mark.slow
def test_load_while_connections_come_and_go(target: blockwire.Target) -> None:
    with blockwire.open(target.url, timers=TIMERS, keys=keys(4)) as lun:
        session = lun.session

        def change() -> None:
            session.remove_connection(session.cids[0])
            session.add_connection()

        with Disturbance(change, lambda: len(session.cids) == 4, 0.1) as changes:
            load_until(lun, lambda: changes.count >= 3, transfer=8192)
        assert session.reopened == 0


@pytest.mark.slow
def test_load_with_a_silent_connection_goes_on(target: blockwire.Target, proxy: FaultProxy) -> None:
    """Keep-alive finds it, its tasks go on elsewhere; nothing but time is lost."""
    with blockwire.open(url(proxy, target), timers=TIMERS, keys=keys(3)) as lun:
        timer = threading.Timer(0.5, proxy.connections[1].stall)
        timer.start()
        load_until(lun, lambda: lun.session.core.connections.recovered >= 1, transfer=8192)
        timer.join()
        assert lun.session.reopened == 0
