"""`bench --verify` across the loss of its session: what was acknowledged before has to be there afterwards."""

from __future__ import annotations

import threading

import blockwire
from blockwire.dataplane.api import LoadReport
from blockwire.initiator.load import Load, run_load
from blockwire.initiator.options import Timers
from blockwire.testing.fault_proxy import FaultProxy

SIZE = 1 << 20
TIMERS = Timers(
    timeout=5.0, replacement_timeout=30.0, keep_alive_interval=0.5, keep_alive_timeout=0.5, reopen_first=0.3
)
LOAD = Load(transfer=4096, depth=8, read_percent=50, seconds=3.0, verify=True)


def through(proxy: FaultProxy, url: str) -> str:
    """The URL with the proxy's address."""
    return f"iscsi://{proxy.address}/" + url.split("/", 3)[3]


def run(spoil: bool) -> tuple[LoadReport, int]:
    """A run whose session is lost once in the middle; with `spoil` somebody zeroes the disk before it is back."""
    with (
        blockwire.Target(f"ram:{SIZE}", keys={"DefaultTime2Wait": "1"}) as target,
        FaultProxy(target.portals[0]) as proxy,
        blockwire.open(through(proxy, target.url), timers=TIMERS, keys={"DefaultTime2Wait": "1"}) as lun,
    ):

        def lose() -> None:
            proxy.connections[-1].cut()
            if spoil:
                with blockwire.open(target.url) as other:
                    other.zero(0, SIZE)

        timer = threading.Timer(1.0, lose)
        timer.start()
        try:
            report = run_load([lun], LOAD)
        finally:
            timer.join()
        return report, lun.session.reopened


def test_a_loss_alone_differs_nowhere() -> None:
    report, reopened = run(spoil=False)
    assert reopened == 1
    assert (report.errors, report.miscompares) == (0, 0)
    assert report.reads > 0


def test_writes_that_vanish_while_the_session_is_lost_are_seen() -> None:
    report, reopened = run(spoil=True)
    assert reopened == 1
    assert report.miscompares > 0
