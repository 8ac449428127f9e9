"""`bench --verify` across the loss of its session: what was acknowledged before has to be there afterwards."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

import blockwire
import blockwire.initiator.load as module
from blockwire.dataplane.api import LoadReport
from blockwire.initiator.load import Load, run_load
from blockwire.initiator.options import Timers
from blockwire.testing.fault_proxy import Fault, FaultProxy
from tests.waiting import wait_until

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
            wait_until(lambda: proxy.connections[0].ended, "the end of the connection")
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


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("spoil", [False, True])
def test_what_is_left_is_compared_in_the_end(spoil: bool, cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place that was written once, whatever becomes of the session meanwhile, and those that nobody read too."""
    with blockwire.Target(f"ram:{SIZE}", keys=KEYS) as target, FaultProxy(target.portals[0]) as proxy:
        part = module._part
        sweeps = 0

        def before(lun: blockwire.Lun, load: Load, table: object, first: bool) -> tuple[LoadReport, bool]:
            nonlocal sweeps
            if load.read_percent == 100:
                sweeps += 1
                if sweeps == 1 and spoil:
                    with blockwire.open(target.url) as other:
                        other.zero(0, SIZE // 2)
                if sweeps == 1 and cut:
                    connection = proxy.connections[-1]
                    connection.set(cut_to_client=connection.to_client + 100_000)
            return part(lun, load, table, first)

        monkeypatch.setattr(module, "_part", before)
        with blockwire.open(through(proxy, target.url), timers=TIMERS, keys=KEYS) as lun:
            # two of three are writes: about 100 of the 256 places, of which many are not read
            report = run_load([lun], replace(LOAD, requests=150, read_percent=33, sweep=True))
        assert report.errors == 0
        assert 50 < report.swept <= report.writes
        assert (report.miscompares > 0) is spoil
        assert sweeps == (2 if cut else 1)


def test_writes_that_vanish_while_the_session_is_lost_are_seen() -> None:
    report, reopened = run(spoil=True)
    assert reopened == 1
    assert report.miscompares > 0
