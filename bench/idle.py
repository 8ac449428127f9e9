"""What an idle target costs: CPU with a session open, memory for each of many sessions. One JSON object.

    python -m bench.idle [--sessions 1000] [--seconds 5]

CPU is that of the target's process over the seconds, with one session logged in and doing nothing. Memory is the
growth of its resident set while the sessions are opened, divided by their number, after ten that were opened first
(so that what is allocated once is not counted); the sessions' other end is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from bench.subjects import ROOT, cpu_of
from tests.interop import peers
from tests.interop.serving import serve

CLIENT = """
import contextlib, sys
import blockwire
url = sys.argv[1]
first, more = int(sys.argv[2]), int(sys.argv[3])
with contextlib.ExitStack() as stack:
    for count in (first, more):
        for _ in range(count):
            stack.enter_context(blockwire.connect(url))
        print("open", flush=True)
        sys.stdin.readline()
"""


def resident(pid: int) -> int:
    """VmRSS in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise peers.ToolFailure(f"no VmRSS for {pid}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    environment = peers.ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")}
    with serve("ram:64M", check_exit=False) as served:
        url = served.url.rsplit("/", 1)[0]  # the target, not the LUN
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, url, "10", str(options.sessions)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            assert client.stdout.readline() == "open\n", "the sessions were not opened"
            time.sleep(1)
            cpu = cpu_of(served.pid)
            time.sleep(options.seconds)
            cpu = cpu_of(served.pid) - cpu
            before = resident(served.pid)
            client.stdin.write("\n")
            client.stdin.flush()
            begun = time.monotonic()
            assert client.stdout.readline() == "open\n", "the sessions were not opened"
            opening = time.monotonic() - begun
            time.sleep(1)
            after = resident(served.pid)
            idle = cpu_of(served.pid)
            time.sleep(options.seconds)
            idle = cpu_of(served.pid) - idle
        finally:
            client.kill()
            client.wait(timeout=10)
    print(
        json.dumps(
            {
                "schema": "blockwire.bench.idle/1",
                "sessions": options.sessions,
                "idle_cpu_percent": 100 * cpu / options.seconds,
                "idle_cpu_percent_all_sessions": 100 * idle / options.seconds,
                "bytes_per_session": (after - before) / options.sessions,
                "logins_per_second": options.sessions / opening,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
