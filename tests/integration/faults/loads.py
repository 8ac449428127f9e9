"""A verified load that runs until something was seen, however long that takes on a loaded machine."""

from __future__ import annotations

import threading
from collections.abc import Callable

import blockwire
from blockwire.dataplane.api import LoadReport
from blockwire.initiator.load import Load, run_load
from blockwire.initiator.session import State
from blockwire.testing.fault_proxy import FaultProxy
from tests.waiting import wait_until

SLICE = 3.0
"""Seconds of one run."""
ROUNDS = 40
"""Runs until what was waited for counts as missing; the time limit of the test comes first on a slow machine."""


def load_until(lun: blockwire.Lun, enough: Callable[[], bool], transfer: int = 4096) -> tuple[int, int]:
    """Reads and writes in equal parts, verified, one run at least; how many of each. Errors and miscompares fail."""
    reads = writes = 0
    for _ in range(ROUNDS):
        load = Load(transfer=transfer, depth=16, read_percent=50, seconds=SLICE, verify=True)
        report = run_load([lun], load)
        good(report)
        reads, writes = reads + report.reads, writes + report.writes
        if reads > 100 and writes > 100 and enough():
            return reads, writes
    raise AssertionError(f"not within {ROUNDS} runs; {reads} reads, {writes} writes")


def stall_what_is_alive(lun: blockwire.Lun, proxy: FaultProxy) -> int:
    """Stalls the connection that the session has at this moment; how often the session had been re-opened before."""
    wait_until(lambda: lun.session.core.state is State.OPEN, "an open session")
    before = lun.session.reopened
    for connection in list(proxy.connections):
        if not connection.ended:
            connection.stall()
    return before


def good(report: LoadReport) -> None:
    """Every answer was one, and the right one."""
    assert (report.errors, report.miscompares) == (0, 0), report.first_error


class Disturbance:
    """Calls `disturb` again and again, each time when `ready` says so and at least `every` seconds after the last one,
    while the block runs."""

    def __init__(self, disturb: Callable[[], object], ready: Callable[[], bool], every: float) -> None:
        self.count = 0
        """Calls so far."""
        self._disturb = disturb
        self._ready = ready
        self._every = every
        self._stop = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        wait = self._every
        try:
            while not self._stop.wait(wait):
                if self._ready():
                    self._disturb()
                    self.count += 1
                    wait = self._every
                else:
                    wait = 0.01
        except BaseException as fault:
            self._fault = fault

    def __enter__(self) -> Disturbance:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault
