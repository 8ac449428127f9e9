"""Several connections at error recovery level 2 on sockets, with the fault proxy between, under a verified load."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import blockwire
from blockwire import errors
from blockwire.initiator.load import Load, run_load
from blockwire.initiator.options import Timers
from blockwire.testing.fault_proxy import FaultProxy

SIZE = 16 << 20
TIMERS = Timers(
    timeout=20.0, replacement_timeout=20.0, keep_alive_interval=0.5, keep_alive_timeout=0.5, reopen_first=0.02,
    reopen_longest=0.5, logout=0.5,
)  # fmt: skip


def keys(connections: int, level: int = 2) -> dict[str, str]:
    return {"MaxConnections": str(connections), "ErrorRecoveryLevel": str(level), "DefaultTime2Wait": "0"}


@pytest.fixture
def target() -> Iterator[blockwire.Target]:
    with blockwire.Target(f"ram:{SIZE}", keys={"DefaultTime2Wait": "0"}) as target:
        yield target


@pytest.fixture
def proxy(target: blockwire.Target) -> Iterator[FaultProxy]:
    with FaultProxy(target.portals[0]) as proxy:
        yield proxy


def url(proxy: FaultProxy, target: blockwire.Target, query: str = "") -> str:
    return f"iscsi://{proxy.address}/{target.name}/0{query}"


def run_with(lun: blockwire.Lun, seconds: float, disturb: object, every: float) -> blockwire.initiator.load.LoadReport:
    """A verifying mix of reads and writes while `disturb` is called again and again."""
    stop = threading.Event()
    faults: list[BaseException] = []

    def run() -> None:
        while not stop.wait(every):
            try:
                disturb()  # type: ignore[operator]
            except BaseException as error:
                faults.append(error)
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        load = Load(transfer=8192, depth=16, read_percent=50, seconds=seconds, verify=True)
        return run_load([lun], load)
    finally:
        stop.set()
        thread.join()
        assert not faults


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

        report = run_with(lun, 4.0, cut, 0.25)
        assert (report.errors, report.miscompares) == (0, 0), report.first_error
        assert report.reads > 100
        assert report.writes > 100
        assert session.reopened == 0
        assert session.core.connections.recovered >= 3
        deadline = time.monotonic() + 5
        while len(session.cids) < connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(session.cids) == connections


@pytest.mark.slow
@pytest.mark.parametrize("connections", [2, 4])
def test_load_over_all_connections_cut_at_once(target: blockwire.Target, proxy: FaultProxy, connections: int) -> None:
    with blockwire.open(url(proxy, target), timers=TIMERS, keys=keys(connections)) as lun:
        report = run_with(lun, 4.0, proxy.cut_all, 0.5)
        assert (report.errors, report.miscompares) == (0, 0), report.first_error
        assert report.writes > 100
        assert lun.session.reopened == 0


@pytest.mark.slow
def test_load_while_connections_come_and_go(target: blockwire.Target) -> None:
    with blockwire.open(target.url, timers=TIMERS, keys=keys(4)) as lun:
        session = lun.session

        def change() -> None:
            session.remove_connection(session.cids[0])
            session.add_connection()

        report = run_with(lun, 3.0, change, 0.1)
        assert (report.errors, report.miscompares) == (0, 0), report.first_error
        assert report.writes > 100
        assert session.reopened == 0


@pytest.mark.slow
def test_load_with_a_silent_connection_goes_on(target: blockwire.Target, proxy: FaultProxy) -> None:
    """Keep-alive finds it, its tasks go on elsewhere; nothing but time is lost."""
    with blockwire.open(url(proxy, target), timers=TIMERS, keys=keys(3)) as lun:
        timer = threading.Timer(0.5, proxy.connections[1].stall)
        timer.start()
        report = run_load([lun], Load(transfer=8192, depth=16, read_percent=50, seconds=4.0, verify=True))
        timer.join()
        assert (report.errors, report.miscompares) == (0, 0), report.first_error
        assert lun.session.reopened == 0
        assert lun.session.core.connections.recovered >= 1
