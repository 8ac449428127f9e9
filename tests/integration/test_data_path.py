"""What the data path promises, by its counters: no copies, data placed at once, batches, no allocation, no needless
wake-ups, nothing done when there is nothing to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import blockwire
from blockwire.dataplane.native import allocations
from blockwire.initiator.load import Load, run_load

pytestmark = pytest.mark.slow
SRC = str(Path(__file__).parents[2] / "src")

SERVER = """
import json, sys
import asyncio
from blockwire.config import arguments
from blockwire.dataplane.native import allocations, new_plane
from blockwire.target.service import Service

async def main():
    plane = new_plane(workers=1, pdus_per_send=int(sys.argv[1]))
    configuration = arguments.build(["ram:64M"], portals=["127.0.0.1:0"])
    async with Service(configuration, plane=plane) as service:
        print(service.server.urls[0], flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            counters = dict(service.server.statistics()["plane"]["workers"]["0"])
            print(json.dumps(counters | {"allocations": allocations()}), flush=True)
    plane.shutdown(5.0)

asyncio.run(main())
"""


def switches(process: int) -> int:
    """Context switches of all threads of a process."""
    found = 0
    for thread in Path(f"/proc/{process}/task").iterdir():
        for line in (thread / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                found += int(line.split()[1])
    return found


def ticks(process: int) -> int:
    """Processor time, in clock ticks."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Apart:
    """A target in a process of its own, so that its counters are its own."""

    def __init__(self, pdus_per_send: int = 0) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(pdus_per_send)], env={**os.environ, "PYTHONPATH": SRC}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.child.stdout is not None
        self.url = self.child.stdout.readline().strip()

    def counters(self) -> dict[str, int]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        found: dict[str, int] = json.loads(self.child.stdout.readline())
        return found | {"switches": switches(self.child.pid), "own_switches": switches(os.getpid())}

    def processor_time(self) -> int:
        """Nanoseconds that its threads have had."""
        found = 0
        for thread in Path(f"/proc/{self.child.pid}/task").iterdir():
            found += int((thread / "schedstat").read_text().split()[0])
        return found

    def close(self) -> None:
        self.child.communicate(timeout=120)


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    target = Apart()
    yield target
    target.close()


def measure(apart: Apart, transfer: int, depth: int, requests: int, reads: int = 100) -> dict[str, Any]:
    """The differences of the target's counters over a run, after a warm-up; and ours."""
    with blockwire.open(apart.url) as lun:
        load = Load(transfer=transfer, depth=depth, read_percent=reads, random=True, seconds=0, requests=requests)
        run_load([lun], Load(transfer=transfer, depth=depth, read_percent=reads, random=True, seconds=0.2))
        before, mine = apart.counters(), allocations()
        report = run_load([lun], load)
        made, after = allocations() - mine, apart.counters()
    assert report.errors == 0
    assert report.reads + report.writes == requests
    return {name: after[name] - before[name] for name in after} | {"own_allocations": made}


def test_reads_of_a_ram_store_leave_from_its_memory(apart: Apart) -> None:
    for transfer in (4096, 65536):
        moved = measure(apart, transfer, 8, 2000)
        assert moved["bytes_sent_by_copy"] == 0
        assert moved["bytes_sent_from_store"] == 2000 * transfer


def test_large_writes_are_received_where_they_belong(apart: Apart) -> None:
    moved = measure(apart, 262144, 4, 400, reads=0)
    # what came in one call with a header is copied, at most a receive buffer a command; the rest is not
    assert moved["bytes_placed_directly"] > 0.75 * 400 * 262144


def test_large_reads_are_received_in_the_callers_memory() -> None:
    with blockwire.Target("ram:64M") as target, blockwire.open(target.url) as lun:
        buffer = bytearray(1 << 20)
        plane = lun.core.session.plane

        def placed() -> dict[str, int]:
            sessions: Any = plane.statistics()["sessions"]
            counters: dict[str, int] = sessions[str(lun.core.session.id)]
            return counters

        before = placed()
        for offset in range(0, 32 << 20, 1 << 20):
            lun.preadinto(buffer, offset)
        after = placed()
    direct = after["bytes_placed_directly"] - before["bytes_placed_directly"]
    assert direct > 0.9 * (32 << 20)


def test_many_pdus_share_a_system_call(apart: Apart) -> None:
    for reads in (100, 0):
        moved = measure(apart, 4096, 32, 64_000, reads)
        assert moved["pdus_sent"] / moved["send_calls"] > 4
        assert moved["pdus_received"] / moved["receive_calls"] > 4


def test_small_responses_that_share_segments_are_faster(apart: Apart) -> None:
    """512-byte random reads, against a target that sends each PDU at once; the machine's mood is halved by turns. How
    fast it is, is what a request costs both ends in processor time: that of others does not count."""

    def rate(target: Apart) -> float:
        with blockwire.open(target.url) as lun:
            before = target.processor_time() + time.process_time_ns()
            report = run_load([lun], Load(transfer=512, depth=32, random=True, seconds=0.4))
            spent = target.processor_time() + time.process_time_ns() - before
        return report.reads / spent

    single = Apart(pdus_per_send=1)
    try:
        gains = sorted(rate(apart) / rate(single) for _ in range(5))
    finally:
        single.close()
    assert gains[2] >= 1.3, gains


@pytest.mark.parametrize("depth", [8, 32, 128])
def test_fewer_context_switches_than_requests(apart: Apart, depth: int) -> None:
    moved = measure(apart, 4096, depth, 64_000)
    assert moved["switches"] < 64_000
    assert moved["own_switches"] < 64_000


def test_a_million_requests_without_an_allocation(apart: Apart) -> None:
    moved = measure(apart, 512, 32, 1_000_000)
    # the questions about the counters, and a timer's turn now and then, are all there is
    assert moved["allocations"] < 200
    assert moved["own_allocations"] < 400


def test_an_idle_target_does_nothing(apart: Apart) -> None:
    # The initiator does nothing either, not even ask for a sign of life.
    with blockwire.open(apart.url, timers=blockwire.Timers(keep_alive_interval=0.0)):
        time.sleep(0.3)
        seen = []
        # What others do to it (a debugger, a machine that is stopped for a moment) is not its own: one rest shows it.
        while not seen or seen[-1][0] > 1 or seen[-1][1] > 4:
            worked, woken = ticks(apart.child.pid), switches(apart.child.pid)
            time.sleep(2)
            seen.append((ticks(apart.child.pid) - worked, switches(apart.child.pid) - woken))
            assert len(seen) < 20, seen


def test_connections_show_their_tcp_info(blockwire_target: blockwire.Target) -> None:
    with blockwire.open(blockwire_target.url) as lun:
        lun.pread(4096, 0)
        (connection,) = blockwire_target.statistics()["plane"]["connections"].values()
    assert connection["segment_size"] > 0
    assert {"rtt_us", "retransmits", "congestion_window", "unacked"} <= set(connection)
