"""The programs that are measured: how each client is run for one cell, and how its result is read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.interop import peers

ROOT = Path(__file__).resolve().parents[1]
CEILING = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "blockwire-bench-ceiling"
DIGESTS = "?HeaderDigest=CRC32C&DataDigest=CRC32C"
DISK_SIZE = 64 << 20
SECTOR = 512


@dataclass(frozen=True)
class Cell:
    """One load: `randread` 4096 bytes at depth 32."""

    rw: str
    block: int
    depth: int

    @property
    def name(self) -> str:
        unit = f"{self.block >> 10} KiB"
        return f"{unit} {self.rw} qd {self.depth}"

    @property
    def writes(self) -> bool:
        return self.rw.endswith("write")

    @property
    def key(self) -> str:
        return f"{self.rw}-{self.block}-{self.depth}"


CELLS = [
    *(Cell(rw, 4096, depth) for depth in (1, 32, 128) for rw in ("randread", "randwrite")),
    *(Cell(rw, size, 8) for size in (65536, 262144) for rw in ("read", "write")),
]


@dataclass(frozen=True)
class Sample:
    """One run of a client against a target."""

    iops: float
    ios: float
    client_cpu: float
    """Seconds of the client's whole life."""
    target_cpu: float
    """Seconds of the target during that life."""
    p50_us: float | None = None
    p99_us: float | None = None
    ceiling_cpu_us: tuple[float, float] | None = None


class BenchFailure(Exception):
    """A client failed, reported errors, or did not end."""


def cpu_of(pid: int) -> float:
    """User and system seconds of a process with all its threads, /proc/PID/stat fields 14 and 15."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text.rsplit(")", 1)[1].split()  # the name may hold blanks and parentheses
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spend(
    command: Sequence[str], placement: Sequence[str], timeout: float, target: int | None = None
) -> tuple[str, float, float]:
    """Run a client; its standard output, its CPU seconds, and those of the process `target` meanwhile."""
    environment = peers.ENVIRONMENT | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "NO_COLOR": "1"}
    before = cpu_of(target) if target is not None else 0.0
    usage_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        # The children's times of this process grow by exactly this client's: nothing else is waited for here.
        done = subprocess.run(
            [*placement, *command], capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
            stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchFailure(f"{' '.join(command)}: no end within {timeout} s") from None
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = usage.ru_utime + usage.ru_stime - usage_before.ru_utime - usage_before.ru_stime
    target_cpu = cpu_of(target) - before if target is not None else 0.0
    if done.returncode != 0:
        raise BenchFailure(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout, client, target_cpu


def run_ceiling(cell: Cell, seconds: float, pinned: bool) -> Sample:
    """The raw exchange in the shape of a cell."""
    command = [
        str(CEILING), "--rw", "write" if cell.writes else "read", "--bs", str(cell.block), "--qd", str(cell.depth),
        "--time", str(seconds), *(["--server-cpu", "1"] if pinned else []),
    ]  # fmt: skip
    printed, _, _ = spend(command, ["taskset", "-c", "0"] if pinned else [], seconds + 20)
    value = json.loads(printed)
    cpu = (value["client_cpu_us_per_io"], value["server_cpu_us_per_io"])
    return Sample(
        value["iops"], value["ios"], value["client_cpu_seconds"], value["server_cpu_seconds"], ceiling_cpu_us=cpu
    )


def run_ours(url: str, target: int, cell: Cell, seconds: float, placement: Sequence[str], keys: str = "") -> Sample:
    """`blockwire bench`."""
    command = [
        sys.executable, "-m", "blockwire", "bench", url + keys, "--rw", cell.rw, "--bs", str(cell.block),
        "--qd", str(cell.depth), "--time", str(seconds), "--json", *(["--overwrite"] if cell.writes else []),
    ]  # fmt: skip
    printed, client, target_cpu = spend(command, placement, seconds + 30, target)
    value = json.loads(printed)
    if value["errors"]:
        raise BenchFailure(f"{' '.join(command)}: {value['errors']} errors")
    latency = value["latency_us"]
    return Sample(value["iops"], value["reads"] + value["writes"], client, target_cpu, latency["p50"], latency["p99"])


def run_libiscsi(url: str, target: int, cell: Cell, seconds: float, placement: Sequence[str]) -> Sample:
    """`iscsi-perf` for reads, `qemu-img bench -w` for writes (iscsi-perf cannot)."""
    if cell.writes:
        return _run_qemu(url, target, cell, seconds, placement)
    whole = max(1, round(seconds))  # its clock counts whole seconds
    command = [
        "iscsi-perf", *(["-r"] if cell.rw == "randread" else []), "-m", str(cell.depth),
        "-b", str(cell.block // SECTOR), "-t", str(whole), url,
    ]  # fmt: skip
    printed, client, target_cpu = spend(command, placement, whole + 30, target)
    found = re.findall(r"iops average\s+(\d+)", printed)
    if not found:
        raise BenchFailure(f"{' '.join(command)}: no rate in {printed[-500:]!r}")
    iops = float(found[-1])
    return Sample(iops, iops * whole, client, target_cpu)


_qemu_rates: dict[tuple[str, str], float] = {}
"""I/Os per second seen last, by URL and cell: qemu-img bench is told a count, not a time."""


def _run_qemu(url: str, target: int, cell: Cell, seconds: float, placement: Sequence[str]) -> Sample:
    key = (url, cell.key)
    if key not in _qemu_rates:
        _qemu_rates[key] = _qemu_once(url, target, cell, 1000, placement).iops
    sample = _qemu_once(url, target, cell, max(200, int(_qemu_rates[key] * seconds)), placement)
    _qemu_rates[key] = sample.iops
    return sample


def _qemu_once(url: str, target: int, cell: Cell, count: int, placement: Sequence[str]) -> Sample:
    command = [
        "qemu-img", "bench", "-f", "raw", "-t", "none", "-w", "-c", str(count), "-d", str(cell.depth),
        "-s", str(cell.block), url,
    ]  # fmt: skip
    printed, client, target_cpu = spend(command, placement, 120, target)
    found = re.search(r"Run completed in ([\d.]+) seconds", printed)
    if not found:
        raise BenchFailure(f"{' '.join(command)}: no time in {printed[-500:]!r}")
    return Sample(count / max(float(found.group(1)), 1e-3), count, client, target_cpu)


def run_python(url: str, target: int, cell: Cell, seconds: float, placement: Sequence[str]) -> Sample:
    """The public Python API: a loop at depth 1, a queue above."""
    command = [
        sys.executable, "-m", "bench.python_load", url, "--rw", cell.rw, "--bs", str(cell.block),
        "--qd", str(cell.depth), "--time", str(seconds),
    ]  # fmt: skip
    printed, client, target_cpu = spend(command, placement, seconds + 30, target)
    value = json.loads(printed)
    if value["errors"]:
        raise BenchFailure(f"{' '.join(command)}: {value['errors']} errors")
    return Sample(value["iops"], value["reads"] + value["writes"], client, target_cpu)


def start_up_cost(url: str, placement: Sequence[str]) -> float:
    """CPU seconds of our client's start and login: a run so short that its I/O hardly counts, best of three."""
    cell = Cell("randread", 4096, 1)
    command = [
        sys.executable, "-m", "blockwire", "bench", url, "--rw", cell.rw, "--bs", "4096", "--qd", "1",
        "--time", "0.01", "--json",
    ]  # fmt: skip
    return min(spend(command, placement, 30)[1] for _ in range(3))


def versions() -> dict[str, str]:
    """What was measured with what, for the JSON."""
    found: dict[str, str] = {"python": sys.version.split()[0], "kernel": os.uname().release}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                found["cpu"] = line.split(":", 1)[1].strip()
                break
    for package in ("libiscsi-bin", "tgt", "istgt", "qemu-utils"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                ["dpkg-query", "-W", "-f", "${Version}", package],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
            found[package] = done.stdout
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        found["blockwire"] = done.stdout.strip()
    return found
