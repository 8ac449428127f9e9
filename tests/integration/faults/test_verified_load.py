"""`bench --verify` across the loss of its session: what was acknowledged before has to be there afterwards."""

from __future__ import annotations

import threading
import time

import blockwire
from blockwire.dataplane.api import LoadReport
from blockwire.initiator.load import Load, run_load
from blockwire.initiator.options import Timers
from blockwire.testing.fault_proxy import Fault, FaultProxy

SIZE = 1 << 20
TIMERS = Timers(timeout=600.0, replacement_timeout=600.0, keep_alive_interval=0.0, reopen_first=0.02)
KEYS = {"DefaultTime2Wait": "0"}
LOAD = Load(transfer=4096, depth=8, read_percent=50, seconds=0, requests=6000, verify=True)


def through(proxy: FaultProxy, url: str) -> str:
    """The URL with the proxy's address."""
    return f"iscsi://{proxy.address}/" + url.split("/", 3)[3]


def run(spoil: bool) -> tuple[LoadReport, int]:
    """A run whose session is lost once in the middle; with `spoil` somebody zeroes the disk before it is back."""
    with blockwire.Target(f"ram:{SIZE}", keys=KEYS) as target, FaultProxy(target.portals[0]) as proxy:
        # A third of the writes passes; then nobody gets in until the disk was spoilt.
        proxy.plan(Fault(cut_to_server=LOAD.requests * LOAD.transfer // 6))
        proxy.always = Fault(refuse=True)

        def lose() -> None:
            while not proxy.connections[0].ended:
                time.sleep(0.01)
            if spoil:
                with blockwire.open(target.url) as other:
                    other.zero(0, SIZE)
            proxy.always = Fault()

        with blockwire.open(through(proxy, target.url), timers=TIMERS, keys=KEYS) as lun:
            losing = threading.Thread(target=lose)
            losing.start()
            try:
                report = run_load([lun], LOAD)
            finally:
                losing.join()
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
