"""Our initiator and our target on real sockets with the fault proxy between: what a program sees is right data, or a
clear error in bounded time."""

from __future__ import annotations

import hashlib
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

import blockwire
from blockwire import errors
from blockwire.initiator.options import Timers
from blockwire.initiator.session import State
from blockwire.target.events import TargetEvent
from blockwire.testing.fault_proxy import Fault, FaultProxy
from tests.integration.faults.loads import Disturbance, stall_what_is_alive
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SIZE = 8 << 20
PIECE = 128 * 1024
TIMERS = Timers(
    timeout=600.0, replacement_timeout=600.0, keep_alive_interval=0.5, keep_alive_timeout=0.5, reopen_first=0.02
)
"""Only the keep-alive ends a silence: what waited for another timer would wait longer than the test may take."""
DIGESTS = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}


@pytest.fixture
def target() -> Iterator[blockwire.Target]:
    # Without Time2Wait a lost session is back at once, which keeps these tests short.
    seen: list[TargetEvent] = []
    with blockwire.Target(f"ram:{SIZE}", keys={"DefaultTime2Wait": "0"}, observe=seen.append) as target:
        target.seen = seen  # type: ignore[attr-defined]
        yield target


@pytest.fixture
def proxy(target: blockwire.Target) -> Iterator[FaultProxy]:
    with FaultProxy(target.portals[0]) as proxy:
        yield proxy


def url(proxy: FaultProxy, target: blockwire.Target) -> str:
    return f"iscsi://{proxy.address}/{target.name}/0"


KEYS = {"DefaultTime2Wait": "0"}


def write_and_compare(lun: blockwire.Lun, target: blockwire.Target, seed: int = 1) -> None:
    """Writes all of the LUN, reads it back through the same session, then through one without a proxy."""
    data = random.Random(seed).randbytes(SIZE)
    for offset in range(0, SIZE, PIECE):
        lun.pwrite(data[offset : offset + PIECE], offset)
    seen = hashlib.sha256()
    for offset in range(0, SIZE, PIECE):
        seen.update(lun.pread(PIECE, offset))
    assert seen.digest() == hashlib.sha256(data).digest()
    with blockwire.open(target.url, read_only=True) as straight:
        assert straight.pread(SIZE, 0) == data


def test_cut_connections_are_repaired(target: blockwire.Target, proxy: FaultProxy) -> None:
    proxy.plan(*[Fault(cut_to_server=1_500_000 * n) for n in (1, 2)], *[Fault(cut_to_client=900_000)] * 3)
    with blockwire.open(url(proxy, target), timers=TIMERS, keys=KEYS) as lun:
        write_and_compare(lun, target)
    assert len(proxy.connections) >= 5


def test_cut_from_outside_while_many_requests_fly(target: blockwire.Target, proxy: FaultProxy) -> None:
    with blockwire.open(url(proxy, target), timers=TIMERS, keys=KEYS) as lun:
        core = lun.session.core
        with Disturbance(proxy.cut_all, lambda: core.state is State.OPEN, 0.15):
            for round_ in itertools.count():
                generation = random.Random(round_).randbytes(4096)
                with lun.queue(depth=32) as queue:
                    for block in range(256):
                        queue.pwrite(generation, block * 4096)
                with lun.queue(depth=32) as queue:
                    for block in range(256):
                        queue.pread(4096, block * 4096)
                    left = 256
                    while left:
                        for done in queue.completions(min=1):
                            left -= 1
                            assert done.error is None
                            assert done.data == generation
                if round_ >= 7 and core.reopened >= 2:
                    break
                time.sleep(0.05)
    assert len(proxy.connections) > 2


@pytest.mark.parametrize("side", ["server", "client"])
def test_damage_is_found_by_the_digests(target: blockwire.Target, proxy: FaultProxy, side: str) -> None:
    faults = [Fault(**{f"damage_to_{side}": (at,)}) for at in (3_000, 300_017, 700_041)]  # type: ignore[arg-type]
    proxy.plan(*faults)
    with blockwire.open(url(proxy, target), timers=TIMERS, keys=KEYS | DIGESTS) as lun:
        write_and_compare(lun, target)
    if side == "server":
        assert "digest-error" in [event.event for event in target.seen]  # type: ignore[attr-defined]
    else:
        assert len(proxy.connections) > 1


def test_small_pieces_slow_line(target: blockwire.Target, proxy: FaultProxy) -> None:
    proxy.plan(Fault(chunk=1000, delay=0.001))
    with blockwire.open(url(proxy, target), timers=replace(TIMERS, keep_alive_interval=0.0)) as lun:
        data = random.Random(3).randbytes(PIECE)
        lun.pwrite(data, 0)
        assert lun.pread(PIECE, 0) == data


def test_a_read_over_a_stalled_line_is_answered_after_a_re_open(target: blockwire.Target, proxy: FaultProxy) -> None:
    with blockwire.open(url(proxy, target), timers=TIMERS, keys=KEYS) as lun:
        lun.pwrite(b"\x5a" * 4096, 0)
        before = stall_what_is_alive(lun, proxy)
        assert lun.pread(4096, 0) == b"\x5a" * 4096
        wait_until(lambda: lun.session.reopened > before, "a session opened again")
        assert lun.pread(4096, 0) == b"\x5a" * 4096


def test_a_line_that_stays_dead_ends_in_a_clear_error(target: blockwire.Target, proxy: FaultProxy) -> None:
    timers = replace(TIMERS, replacement_timeout=2.0)
    with blockwire.open(url(proxy, target), timers=timers, keys=KEYS) as lun:
        proxy.always = Fault(refuse=True)
        proxy.cut_all()
        with pytest.raises(errors.ConnectionLostError) as caught:
            lun.pread(4096, 0)
        assert caught.value.next
