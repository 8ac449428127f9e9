"""ERL 0 on real sockets: load with verification through a fault proxy, a target that is restarted, silence.

How long it takes is looked at where time is virtual (tests/pair). Here every timer that could also end a wait is out of
reach, so that what ends in the time of the test ended for the right reason.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import blockwire
from blockwire import errors
from blockwire.initiator.load import Load, run_load
from blockwire.initiator.options import Timers
from blockwire.initiator.session import State
from blockwire.session.recovery import Rung, ladder_with
from blockwire.testing.fault_proxy import Fault, FaultProxy
from tests import loopback
from tests.integration.faults.loads import Disturbance, load_until, stall_what_is_alive

TIMERS = Timers(
    timeout=600.0, replacement_timeout=600.0, keep_alive_interval=0.5, keep_alive_timeout=0.5, reopen_first=0.02,
    reopen_longest=0.5, logout=0.5,
)  # fmt: skip
CALM = replace(TIMERS, keep_alive_interval=0.0)
KEYS = {"DefaultTime2Wait": "0"}
SIZE = 16 << 20


def be_impatient(lun: blockwire.Lun, timeout: float) -> None:
    """Requests are late after `timeout` from now on, and each rung of the ladder has half a second. Logins keep the
    patience that they had."""
    ladder = ladder_with({Rung.ABORT_TASK: 0.5, Rung.LOGICAL_UNIT_RESET: 0.5, Rung.TARGET_RESET: 0.5})
    lun.session.core.timers = replace(lun.session.core.timers, timeout=timeout, ladder=ladder)
    lun._timeout = timeout


def url(proxy: FaultProxy, target: blockwire.Target) -> str:
    return f"iscsi://{proxy.address}/{target.name}/0"


@pytest.mark.slow
def test_load_goes_on_over_cuts() -> None:
    """No error, no miscompare."""
    with (
        blockwire.Target(f"ram:{SIZE}", keys=KEYS) as target,
        FaultProxy(target.portals[0]) as proxy,
        blockwire.open(url(proxy, target), timers=TIMERS, keys=KEYS) as lun,
    ):
        core = lun.session.core
        with Disturbance(proxy.cut_all, lambda: core.state is State.OPEN, 0.4):
            load_until(lun, lambda: core.reopened >= 3)


@pytest.mark.slow
def test_load_goes_on_over_a_silence_that_only_the_keep_alive_notices() -> None:
    """The requests may take ten minutes, and so may whatever else could end the silence."""
    with (
        blockwire.Target(f"ram:{SIZE}", keys=KEYS) as target,
        FaultProxy(target.portals[0]) as proxy,
        blockwire.open(url(proxy, target), timers=TIMERS, keys=KEYS) as lun,
    ):
        before: list[int] = []
        timer = threading.Timer(0.7, lambda: before.append(stall_what_is_alive(lun, proxy)))
        timer.daemon = True  # it waits for a session that is open
        timer.start()
        load_until(lun, lambda: bool(before) and lun.session.reopened > before[0])
        timer.join()


@pytest.mark.slow
def test_load_fails_with_a_clear_error_when_the_target_stays_away() -> None:
    timers = replace(TIMERS, replacement_timeout=1.5)
    with (
        blockwire.Target(f"ram:{SIZE}", keys=KEYS) as target,
        FaultProxy(target.portals[0]) as proxy,
        blockwire.open(url(proxy, target), timers=timers, keys=KEYS) as lun,
    ):

        def away() -> None:
            proxy.always = Fault(refuse=True)
            proxy.cut_all()

        timer = threading.Timer(0.5, away)
        timer.start()
        with pytest.raises(errors.ConnectionLostError) as caught:
            run_load([lun], Load(transfer=4096, depth=16, read_percent=50, seconds=600.0, verify=True))
        assert caught.value.exit_code == errors.EXIT_UNREACHABLE
        timer.join()


def test_a_target_that_is_restarted_is_found_again(tmp_path: Path) -> None:
    """Its sessions are gone with it; a unit attention tells of it, and nothing of that reaches the program."""
    disk = str(tmp_path / "disk.img")
    portal = f"{loopback.AUTHORITY}:{loopback.free_port()}"
    target = blockwire.Target(
        disk, size=SIZE, keys=KEYS, portals=[portal], target_name="iqn.2025-01.org.blockwire:restarted"
    )
    name = target.url
    with blockwire.open(name, timers=CALM, keys=KEYS) as lun:
        isid = lun.session.core.isid
        lun.pwrite(b"before" + bytes(506), 0)
        target.close()
        done: list[bytes | errors.Error] = []

        def read() -> None:
            try:
                done.append(lun.pread(512, 0))
            except errors.Error as error:
                done.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.5)
        assert not done
        again = blockwire.Target(disk, keys=KEYS, portals=[portal], target_name="iqn.2025-01.org.blockwire:restarted")
        try:
            lun.session.retry_now()
            reader.join(120)
            assert done == [b"before" + bytes(506)]
            with lun.queue(depth=4) as queue:
                for number in range(8):
                    queue.pwrite(bytes([number]) * 512, number * 512)
            assert lun.session.core.isid == isid
            assert lun.session.reopened == 1
        finally:
            lun.close()
            again.close()


@pytest.mark.slow
def test_a_queue_whose_requests_stall_does_not_wait_for_ever() -> None:
    """What flies when the line goes silent, without keep-alive: the queue's own watch finds it. Nothing else does."""
    with (
        blockwire.Target(f"ram:{SIZE}", keys=KEYS) as target,
        FaultProxy(target.portals[0]) as proxy,
        blockwire.open(url(proxy, target), timers=CALM, keys=KEYS) as lun,
    ):
        lun.pwrite(b"\x77" * 4096, 0)
        be_impatient(lun, 1.0)
        proxy.connections[0].stall()
        with lun.queue(depth=8) as queue:
            for _ in range(8):
                queue.pread(4096, 0)
            left = 8
            while left:
                for done in queue.completions():
                    left -= 1
                    assert done.error is None, done.error
                    assert done.data == b"\x77" * 4096
        assert lun.session.reopened >= 1


@pytest.mark.slow
def test_a_call_on_a_silent_line_climbs_the_ladder() -> None:
    """The blocking calls wait on their own thread; what the plane gives up goes on where the policy is."""
    with (
        blockwire.Target(f"ram:{SIZE}", keys=KEYS) as target,
        FaultProxy(target.portals[0]) as proxy,
        blockwire.open(url(proxy, target), timers=CALM, keys=KEYS) as lun,
    ):
        lun.pwrite(b"\x78" * 4096, 0)
        be_impatient(lun, 0.5)
        proxy.connections[0].stall()
        assert lun.pread(4096, 0) == b"\x78" * 4096
        climbed = lun.session.core.ladder.climbed
        for rung in (Rung.LOGICAL_UNIT_RESET, Rung.TARGET_RESET, Rung.REOPEN_SESSION):
            assert climbed[rung] >= 1, rung
