"""`make bench`: every cell of the table, each subject in pairs with the raw loopback ceiling. Method: bench/README.md.

python -m bench.run [--quick] [--pairs N] [--seconds T] [--cells randread-4096-32,…] [--subjects ours/ours,…]
                    [--placement pinned|unpinned|both] [--output FILE.json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.subjects import (
    CEILING,
    CELLS,
    DIGESTS,
    DISK_SIZE,
    ROOT,
    BenchFailure,
    Cell,
    Sample,
    run_ceiling,
    run_libiscsi,
    run_ours,
    run_python,
    spend,
    start_up_cost,
    versions,
)
from tests.interop import peers
from tests.interop.peer_targets import filled, istgt, tgt
from tests.interop.serving import serve

SUBJECTS = [
    "ours/ours",
    "digests/ours",
    "level2/ours",
    "connections/ours",
    "python/ours",
    "libiscsi/ours",
    "libiscsi/tgt",
    "libiscsi/istgt",
    "ours/tgt",
    "ours/istgt",
]
"""Client/target. `digests`, `level2` and `connections` are ours with those keys, `python` the public API."""

KEYS = {
    "digests": DIGESTS,
    "level2": "?ErrorRecoveryLevel=2",
    "connections": "?MaxConnections=4",
}
LABELS = {
    "digests": "ours, digests",
    "level2": "ours, ERL 2",
    "connections": "ours, 4 connections",
    "python": "ours, Python API",
}
OURS = {"ours", "python", *KEYS}


def applies(subject: str, cell: Cell) -> bool:
    """The Python API is measured at 4 KiB, depth 1 and 32."""
    return not subject.startswith("python/") or (cell.block == 4096 and cell.depth in (1, 32))


@dataclass(frozen=True)
class Endpoint:
    """A running target."""

    pid: int
    url: str


def run_client(client: str, endpoint: Endpoint, cell: Cell, seconds: float, placement: list[str]) -> Sample:
    """One run of a client against a target."""
    if client == "libiscsi":
        return run_libiscsi(endpoint.url, endpoint.pid, cell, seconds, placement)
    if client == "python":
        return run_python(endpoint.url, endpoint.pid, cell, seconds, placement)
    return run_ours(endpoint.url, endpoint.pid, cell, seconds, placement, KEYS.get(client, ""))


@dataclass
class Row:
    """A subject in a cell: what each pair gave."""

    subject: str
    cell: str
    placement: str
    block_size: int
    client: str
    ratios: list[float] = field(default_factory=list)
    iops: list[float] = field(default_factory=list)
    ceiling_iops: list[float] = field(default_factory=list)
    client_cpu_us: list[float] = field(default_factory=list)
    target_cpu_us: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)

    def add(self, sample: Sample, ceiling: Sample, start_up: float) -> None:
        self.ratios.append(sample.iops / ceiling.iops)
        self.iops.append(sample.iops)
        self.ceiling_iops.append(ceiling.iops)
        self.client_cpu_us.append(max(0.0, sample.client_cpu - start_up) / sample.ios * 1e6)
        self.target_cpu_us.append(sample.target_cpu / sample.ios * 1e6)
        if sample.p50_us is not None and sample.p99_us is not None:
            self.p50_us.append(sample.p50_us)
            self.p99_us.append(sample.p99_us)

    def markdown(self) -> str:
        median = statistics.median
        rate = median(self.iops)
        latency = f"{median(self.p50_us):.0f} / {median(self.p99_us):.0f}" if self.p50_us else ""
        return (
            f"| {self.cell} | {self.client} → {self.subject.split('/')[1]} | {rate:,.0f} | "
            f"{rate * self.block_size / 1e6:,.0f} | {median(self.client_cpu_us):.2f} | "
            f"{median(self.target_cpu_us):.2f} | {latency} | {median(self.ratios):.2f} "
            f"({min(self.ratios):.2f}–{max(self.ratios):.2f}) |"
        )


HEADER = (
    "| cell | client → target | IOPS | MB/s | client µs | target µs | p50 / p99 µs | ratio to ceiling (spread) |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|"
)


@contextlib.contextmanager
def endpoints(names: set[str], pinned: bool) -> Iterator[dict[str, Endpoint]]:
    """Start the targets that are wanted, each with a filled disk of memory."""
    placement = ["taskset", "-c", "1"] if pinned else []
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bw-bench-", dir=memory)))
        found: dict[str, Endpoint] = {}
        if "ours" in names:
            served = stack.enter_context(serve(f"ram:{DISK_SIZE}", placement=placement, check_exit=False))
            found["ours"] = Endpoint(served.pid, served.url)
            fill = filled(directory / "fill", DISK_SIZE)
            spend([sys.executable, "-m", "blockwire", "cp", str(fill), served.url], [], 60)
        # libiscsi offers "None,CRC32C" for HeaderDigest, and tgt takes its own last value: no digests is no digests
        for name, start in (("tgt", partial(tgt, digests="None")), ("istgt", istgt)):
            if name in names:
                place = directory / name
                place.mkdir()
                target = stack.enter_context(start(place, DISK_SIZE, placement))
                found[name] = Endpoint(target.pid, target.url)
        yield found


def present(subjects: list[str]) -> list[str]:
    """Drop the subjects whose programs are missing, and say so."""
    needed = {"libiscsi": ["iscsi-perf", "qemu-img"], "tgt": ["tgtd", "tgtadm"], "istgt": ["istgt"]}
    kept = []
    for subject in subjects:
        tools = [tool for part in subject.split("/") for tool in needed.get(part, [])]
        missing = [tool for tool in tools if shutil.which(tool, path=peers.SEARCH_PATH) is None]
        if missing:
            print(f"left out: {subject} ({', '.join(missing)} not installed: make peers)", file=sys.stderr)
        else:
            kept.append(subject)
    return kept


def measure(options: argparse.Namespace, pinned: bool, say: Callable[[str], None]) -> tuple[list[Row], list[Row]]:
    """One table: the subjects' rows and the ceiling's own."""
    subjects: list[str] = options.subjects
    name = "pinned" if pinned else "unpinned"
    client_placement = ["taskset", "-c", "0"] if pinned else []
    rows: list[Row] = []
    ceilings: list[Row] = []
    with endpoints({subject.split("/")[1] for subject in subjects}, pinned) as targets:
        start_up = (
            start_up_cost(next(iter(targets.values())).url, client_placement)
            if any(subject.split("/")[0] in OURS for subject in subjects)
            else 0.0
        )
        for cell in options.cells:
            ceiling_row = Row("ceiling/ceiling", cell.name, name, cell.block, "raw loopback")
            ceilings.append(ceiling_row)
            for subject in subjects:
                if not applies(subject, cell):
                    continue
                client, target = subject.split("/")
                label = LABELS.get(client, client)
                if client == "libiscsi" and cell.writes:
                    label = "qemu (libiscsi)"
                row = Row(subject, cell.name, name, cell.block, label)
                endpoint = targets[target]
                for pair in range(options.pairs):
                    if pair % 2:
                        ceiling = run_ceiling(cell, options.ceiling_seconds, pinned)
                        sample = run_client(client, endpoint, cell, options.seconds, client_placement)
                    else:
                        sample = run_client(client, endpoint, cell, options.seconds, client_placement)
                        ceiling = run_ceiling(cell, options.ceiling_seconds, pinned)
                    row.add(sample, ceiling, start_up if client in OURS else 0.0)
                    ceiling_row.ratios.append(1.0)
                    ceiling_row.iops.append(ceiling.iops)
                    assert ceiling.ceiling_cpu_us is not None
                    ceiling_row.client_cpu_us.append(ceiling.ceiling_cpu_us[0])
                    ceiling_row.target_cpu_us.append(ceiling.ceiling_cpu_us[1])
                rows.append(row)
                say(row.markdown())
            say(ceiling_row.markdown())
    return rows, ceilings


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed beside the raw loopback ceiling and the peers.")
    parser.add_argument("--quick", action="store_true", help="short cells: shows that it works, nothing to quote")
    parser.add_argument("--pairs", type=int, help="pairs per cell and subject (5, quick: 2)")
    parser.add_argument("--seconds", type=float, help="of a subject's run (2, quick: 0.4)")
    parser.add_argument("--cells", help="comma-separated, as randread-4096-32")
    parser.add_argument("--subjects", help=f"comma-separated client/target of {', '.join(SUBJECTS)}")
    parser.add_argument("--placement", choices=["pinned", "unpinned", "both"], default="both")
    parser.add_argument("--output", type=Path, help="JSON file (bench/results/TIME.json)")
    options = parser.parse_args(arguments)
    options.pairs = options.pairs or (2 if options.quick else 5)
    options.seconds = options.seconds or (0.4 if options.quick else 2.0)
    options.ceiling_seconds = min(options.seconds, 1.0)
    by_key = {cell.key: cell for cell in CELLS}
    wanted = options.cells.split(",") if options.cells else list(by_key)
    if unknown := [key for key in wanted if key not in by_key]:
        parser.error(f"unknown cell {unknown[0]}: one of {', '.join(by_key)}")
    options.cells = [by_key[key] for key in wanted]
    subjects = options.subjects.split(",") if options.subjects else SUBJECTS
    if odd := [subject for subject in subjects if subject not in SUBJECTS]:
        parser.error(f"unknown subject {odd[0]}: one of {', '.join(SUBJECTS)}")
    options.subjects = present(subjects)
    return options


def main() -> int:
    options = parse()
    if not CEILING.exists():
        print(f"{CEILING} is missing: cargo build --release -p blockwire-bench-ceiling", file=sys.stderr)
        return 2
    if len(os.sched_getaffinity(0)) < 2 and options.placement != "unpinned":
        print("the pinned table needs two cores: --placement unpinned", file=sys.stderr)
        return 2
    placements = {"pinned": [True], "unpinned": [False], "both": [True, False]}[options.placement]
    result: dict[str, Any] = {
        "schema": "blockwire.bench.table/1",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "pairs": options.pairs,
        "seconds": options.seconds,
        "load_before": os.getloadavg()[0],
        "versions": versions(),
        "rows": [],
        "ceilings": [],
    }
    begun = time.monotonic()
    try:
        for pinned in placements:
            title = "client on core 0, target on core 1" if pinned else "unpinned"
            print(f"\n### {title}\n\n{HEADER}", flush=True)
            rows, ceilings = measure(options, pinned, lambda line: print(line, flush=True))
            result["rows"] += [asdict(row) for row in rows]
            result["ceilings"] += [asdict(row) for row in ceilings]
    except (BenchFailure, peers.ToolFailure) as failure:
        print(f"\nbench: {failure}", file=sys.stderr)
        return 1
    result["took_seconds"] = round(time.monotonic() - begun, 1)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    output = options.output or ROOT / "bench" / "results" / f"{stamp}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{output} ({result['took_seconds']:.0f} s, load before: {result['load_before']:.1f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
