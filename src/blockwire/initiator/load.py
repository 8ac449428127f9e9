"""The plane's load generator on LUNs: several sessions, one thread each, their reports added up."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from blockwire.dataplane.api import LoadReport, LoadSpec
from blockwire.initiator.blocking import Lun


@dataclass(frozen=True, slots=True)
class Load:
    """What to run on a LUN. Sizes in bytes."""

    transfer: int = 4096
    depth: int = 32
    read_percent: int = 100
    random: bool = True
    seconds: float = 10.0
    requests: int = 0
    size: int = 0
    """Bytes from offset 0 that are used; 0 is the whole LUN."""
    verify: bool = False
    seed: int = 1
    fua: bool = False


def spec_for(lun: Lun, load: Load) -> LoadSpec:
    """The plane's form of it."""
    return LoadSpec(
        lun=lun.core._field,
        block_size=lun.block_size,
        size=min(load.size or lun.size, lun.size) // load.transfer * load.transfer,
        transfer=load.transfer,
        depth=load.depth,
        read_percent=load.read_percent,
        random=load.random,
        seconds=load.seconds,
        requests=load.requests,
        verify=load.verify,
        seed=load.seed,
        fua=load.fua,
    )


def run_load(luns: Sequence[Lun], load: Load) -> LoadReport:
    """Runs `load` on every LUN at the same time, one thread each; with one LUN on the caller's own thread."""
    if len(luns) == 1:
        return _run(luns[0], load)
    reports: list[LoadReport | BaseException] = []

    def work(number: int, lun: Lun) -> None:
        try:
            reports.append(_run(lun, replace(load, seed=load.seed + number)))
        except BaseException as error:
            reports.append(error)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(luns)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good: list[LoadReport] = []
    for report in reports:
        if isinstance(report, BaseException):
            raise report
        good.append(report)
    return add(good)


def _run(lun: Lun, load: Load) -> LoadReport:
    lun.core._check_open()
    session = lun.core.session
    return session.plane.run_load(session.id, spec_for(lun, load))


def add(reports: Sequence[LoadReport]) -> LoadReport:
    """Several runs of the same time as one."""
    histogram: Counter[int] = Counter()
    for report in reports:
        for bound, count in report.histogram_ns:
            histogram[bound] += count
    total = sum(report.reads + report.writes for report in reports)
    return LoadReport(
        reads=sum(report.reads for report in reports),
        writes=sum(report.writes for report in reports),
        bytes=sum(report.bytes for report in reports),
        errors=sum(report.errors for report in reports),
        miscompares=sum(report.miscompares for report in reports),
        seconds=max((report.seconds for report in reports), default=0.0),
        histogram_ns=tuple(sorted(histogram.items())),
        mean_ns=sum(report.mean_ns * (report.reads + report.writes) for report in reports) / total if total else 0.0,
        max_ns=max((report.max_ns for report in reports), default=0),
        first_error=next((report.first_error for report in reports if report.first_error), ""),
    )


def percentile(histogram: Sequence[tuple[int, int]], fraction: float) -> int:
    """Nanoseconds within which `fraction` of the requests ended: the upper bound of the bucket where that falls."""
    total = sum(count for _, count in histogram)
    seen = 0
    for bound, count in histogram:
        seen += count
        if seen >= fraction * total:
            return bound
    return 0
