"""A thousand sessions from one host to one target, and what an idle one costs each process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

SESSIONS = 1000
BOUND = 64 * 1024
"""Resident bytes that one idle session may cost, both ends together."""

TARGET = """
    import sys
    import blockwire
    with blockwire.Target("ram:1M", workers=2, target_name="iqn.2025-01.org.blockwire:many") as target:
        print(target.url, flush=True)
        for line in sys.stdin:
            if line.strip() == "statistics":
                print(target.statistics()["sessions"], flush=True)
"""

INITIATOR = """
    import asyncio, json, os, sys
    from dataclasses import dataclass
    from blockwire import aio

    def resident(pid):
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return int(next(line for line in file if line.startswith("Rss:")).split()[1]) * 1024

    async def main(url, other, count):
        gate = asyncio.Semaphore(32)
        async def one():
            async with gate:
                return await aio.connect(url)
        # The first sessions pay for what every process needs once.
        sessions = [await one() for _ in range(20)]
        before = resident("self"), resident(other)
        sessions += await asyncio.gather(*[one() for _ in range(count - len(sessions))])
        after = resident("self"), resident(other)
        isids = len({str(session.isid) for session in sessions})
        lun = await sessions[-1].lun(0)
        await lun.pwrite(bytes(4096), 0)
        print(json.dumps({"initiator": after[0] - before[0], "target": after[1] - before[1], "isids": isids,
                          "states": [session.state.value for session in sessions].count("open")}), flush=True)
        sys.stdin.readline()
        await asyncio.gather(*[session.close() for session in sessions])

    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.slow
def test_a_thousand_sessions_from_one_host(tmp_path: object) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path), "XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path),
    }  # fmt: skip

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        limits = ["sh", "-c", 'ulimit -n $(ulimit -H -n); exec "$@"', "sh"]
        command = [*limits, sys.executable, "-c", textwrap.dedent(code)]
        return subprocess.Popen(
            [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    target = start(TARGET)
    initiator: subprocess.Popen[str] | None = None
    try:
        assert target.stdin is not None
        assert target.stdout is not None
        url = target.stdout.readline().strip().rsplit("/", 1)[0]
        initiator = start(INITIATOR, url, str(target.pid), str(SESSIONS))
        assert initiator.stdin is not None
        assert initiator.stdout is not None
        report = json.loads(initiator.stdout.readline())
        target.stdin.write("statistics\n")
        target.stdin.flush()
        assert int(target.stdout.readline()) == SESSIONS
        assert (report["isids"], report["states"]) == (SESSIONS, SESSIONS)
        each = {end: report[end] / (SESSIONS - 20) for end in ("initiator", "target")}
        print("bytes per session:", {end: round(value) for end, value in each.items()})
        assert sum(each.values()) <= BOUND, {end: round(value) for end, value in each.items()}
        initiator.stdin.write("\n")
        initiator.stdin.flush()
        assert initiator.wait(150) == 0
        target.stdin.close()
        assert target.wait(150) == 0
    finally:
        for process in (initiator, target):
            if process is not None:
                process.kill()
                process.wait(10)
