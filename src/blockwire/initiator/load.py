"""The plane's load generator on LUNs: several sessions, one thread each, their reports added up."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blockwire.dataplane.api import LoadReport, LoadSpec
from blockwire.initiator.blocking import Lun
from blockwire.initiator.retry_policy import LOST_CODES, MAX_LOSSES
from blockwire.scsi.cdb import TestUnitReady

if TYPE_CHECKING:
    from blockwire.initiator.session import Session


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
    sweep: bool = False
    """With `verify`: in the end every place that was written is read and compared once more."""
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
            reports.append(_run(lun, replace(load, seed=(load.seed + number) % (1 << 64))))
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
    """One run, over as many sessions as it takes: what was in flight when one was lost is not counted as an error, for
    the load is at rest until the session is back, and goes on for the rest of its time."""
    lun.core._check_open()
    loop = lun.control.loop
    began = loop.time()
    parts: list[LoadReport] = []
    left = load
    # What was written before a loss has to be there after it.
    table = lun.core.session.plane.load_table()
    while True:
        part, lost = _part(lun, left, table, first=not parts)
        parts.append(part)
        done = part.reads + part.writes
        elapsed = loop.time() - began
        if not lost or (load.seconds and elapsed >= load.seconds) or (left.requests and done >= left.requests):
            break
        left = replace(
            left,
            seconds=load.seconds and load.seconds - elapsed,
            requests=left.requests and left.requests - done,
        )
    report = parts[0] if len(parts) == 1 else replace(add(parts), seconds=loop.time() - began)
    return _sweep(lun, load, table, report) if load.verify and load.sweep else report


def _part(lun: Lun, load: Load, table: object, first: bool) -> tuple[LoadReport, bool]:
    """What was done on one session, and whether that was lost. Every error of such a part is a request that the loss
    took along."""
    session = lun.core.session
    lun.control.run(_settled(lun, first))
    number = session.id
    part = session.plane.run_load(number, spec_for(lun, load), table)
    if not (part.errors > 0 and part.first_error in LOST_CODES):
        return part, False
    lun.control.loop.call_soon_threadsafe(_tell, session, number, part.first_error)
    return replace(part, errors=0, first_error=""), True


def _sweep(lun: Lun, load: Load, table: object, report: LoadReport) -> LoadReport:
    """Compares what the run left, each place that was written once; begins anew when the session is lost."""
    places = spec_for(lun, load).size // load.transfer
    reads = replace(load, read_percent=100, random=False, seconds=0.0, requests=places)
    miscompares = 0
    for _ in range(MAX_LOSSES):
        part, lost = _part(lun, reads, table, first=False)
        miscompares += part.miscompares
        if not lost:
            return replace(
                report, errors=report.errors + part.errors, miscompares=report.miscompares + miscompares,
                first_error=report.first_error or part.first_error, swept=part.reads,
            )  # fmt: skip
    return replace(
        report, errors=report.errors + 1, miscompares=report.miscompares + miscompares,
        first_error=report.first_error or "session.lost",
    )  # fmt: skip


async def _settled(lun: Lun, first: bool) -> None:
    """Waits for the session. A new one has unit attentions to report, which no request of the load shall get."""
    session = lun.core.session
    await session.ready()
    if not first:
        await session.ask(lun.lun, TestUnitReady().encode(), 0)


def _tell(session: Session, number: int, code: str) -> None:
    if session.id == number:
        session.request_lost(code, number)


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
        swept=sum(report.swept for report in reports),
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
