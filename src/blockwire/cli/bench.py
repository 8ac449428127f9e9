"""`blockwire bench`: IOPS, throughput and latency of a LUN by the data plane's own load generator."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import replace
from typing import Any

import click

from blockwire import errors
from blockwire.cli import output
from blockwire.cli.flags import SIZE, Login, Seconds, login_flags, output_flags, set_up_logging
from blockwire.names import format_rate, format_size

EPILOG = """\b
Examples:
  blockwire bench 'iscsi://HOST/IQN/0' --rw randread --bs 4k --qd 32 --time 10
  blockwire bench 'iscsi://HOST/IQN/0' --rw randwrite --bs 64k --overwrite --verify
  blockwire bench 'iscsi://HOST/IQN/0' --iodepth 8 --runtime 30 --numjobs 4 --json"""

PATTERNS = {
    "read": (100, False), "write": (0, False), "randread": (100, True), "randwrite": (0, True),
    "rw": (50, False), "readwrite": (50, False), "randrw": (50, True),
}  # fmt: skip

VERIFY_SECONDS = 5.0
"""The longest that the comparing pass after a workload of reads or writes alone takes."""

PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999))


@click.command(epilog=EPILOG)
@click.argument("url", metavar="URL", required=False)
@click.option("--rw", type=click.Choice(list(PATTERNS)), default="randread", show_default=True, help="What to do.")
@click.option("--rwmixread", type=click.IntRange(0, 100), help="Percent of reads of rw and randrw [50].")
@click.option("--bs", "--blocksize", "transfer", type=SIZE, default="4k", show_default=True, help="Bytes per request.")
@click.option(
    "--qd",
    "--iodepth",
    "depth",
    type=click.IntRange(1, 4096),
    default=32,
    show_default=True,
    help="Requests in flight.",
)
@click.option("--time", "--runtime", "seconds", type=Seconds(0.01), default=10.0, show_default=True, help="Seconds.")
@click.option("--numjobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Sessions, a thread each.")
@click.option("--size", type=SIZE, help="Use the first SIZE bytes only.")
@click.option("--overwrite", is_flag=True, help="Needed for writes: the LUN's data will be lost.")
@click.option("--verify", is_flag=True, help="Compare data: in rw and randrw as they run, else in a pass of its own.")
@click.option("--fua", is_flag=True, help="Force unit access: writes are durable before they end.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), default=1, help="Of the random offsets [1].")
@login_flags
@output_flags
def command(
    url: str | None, rw: str, rwmixread: int | None, transfer: int, depth: int, seconds: float, numjobs: int,
    size: int | None, overwrite: bool, verify: bool, fua: bool, seed: int, login: Login, as_json: bool, verbose: int,
    quiet: bool,
) -> None:  # fmt: skip
    """Measure a LUN. Reads harm nothing; anything that writes needs --overwrite."""
    set_up_logging(verbose)
    import blockwire
    from blockwire.initiator.load import Load, run_load

    reads, random = PATTERNS[rw]
    if rwmixread is not None:
        if reads in (0, 100):
            raise errors.UsageError(f"--rwmixread means nothing with --rw {rw}", next="use --rw rw or --rw randrw")
        reads = rwmixread
    if (reads < 100 or verify) and not overwrite:
        what = "--verify writes its pattern first" if reads == 100 else f"--rw {rw} writes"
        raise errors.UsageError(
            f"{what}, and the LUN's data would be lost", code="usage.overwrite",
            next="give --overwrite if that is meant, or use --rw randread",
        )  # fmt: skip
    if verify and numjobs > 1:
        raise errors.UsageError(
            "--verify compares with what one session wrote, and several would overwrite each other's data",
            next="use --numjobs 1 with --verify",
        )
    # Only a mix writes a pattern and reads it again. A workload of reads alone has nothing to compare with, and one of
    # writes alone never looks: those are measured as they are, and a mixed pass does the comparing.
    inline = verify and 0 < reads < 100
    where = login.url(url)
    load = Load(
        transfer=transfer, depth=depth, read_percent=reads, random=random, seconds=seconds, size=size or 0,
        verify=inline, sweep=True, seed=seed, fua=fua,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        luns = [
            stack.enter_context(blockwire.open(where, read_only=reads == 100 and not verify, **login.timed))
            for _ in range(numjobs)
        ]
        first = luns[0]
        check(first.block_size, first.size, first.geometry.max_transfer, load.transfer, size)
        if (reads < 100 or verify) and first.read_only:
            raise errors.ReadOnlyError(
                f"{where} is read-only", status=0, evidence="MODE SENSE, WP", next="use --rw randread, or another LUN"
            )
        name = str(first.core.session.url)
        if not (as_json or quiet):
            output.note(
                f"{rw}, {format_size(transfer)}, depth {depth}" + (f", {numjobs} sessions" if numjobs > 1 else "")
                + f", {seconds:g} s on {name}"
            )  # fmt: skip
        report = run_load(luns, load)
        checked = report
        if verify and not inline:
            checked = run_load(
                luns, replace(load, read_percent=50, random=True, verify=True, seconds=min(seconds, VERIFY_SECONDS))
            )
    values = figures(report)
    if verify:
        values["verified_reads"] = checked.reads
        values["verified_places"] = checked.swept
        values["miscompares"] = checked.miscompares
    if as_json:
        parameters = {
            "rw": rw, "read_percent": reads, "transfer_bytes": transfer, "depth": depth, "numjobs": numjobs,
            "seconds": seconds, "size": size or first.size, "verify": verify, "fua": fua, "seed": seed,
        }  # fmt: skip
        output.document("bench/1", {"url": name, "parameters": parameters, **values})
    else:
        show(values, report.histogram_ns, quiet)
    if verify and not checked.reads:
        raise errors.Error("nothing was compared", code="bench.not-verified", next="give --time more seconds")
    if checked.miscompares:
        raise errors.DataDiffersError(
            f"{checked.miscompares} of {checked.reads + checked.swept} reads did not give what was written",
            evidence=checked.first_error or "pattern of offset and generation",
        )
    if report.errors:
        raise failed(report.errors, "requests", report.first_error)
    if checked.errors:
        raise failed(checked.errors, "requests of the comparison", checked.first_error)


def failed(count: int, what: str, first: str) -> errors.Error:
    """The error of a run whose requests failed, from the load generator's words about the first of them."""
    from blockwire.dataplane.events import TaskDone
    from blockwire.initiator.retry_policy import task_error

    answer = re.search(r"status 0x([0-9a-f]+), residual (-?\d+), sense \[([0-9a-f, ]*)\]", first)
    if answer is None:
        done = TaskDone(0, 0, code=first or "task.failed")
    else:
        done = TaskDone(0, int(answer[1], 16), bytes.fromhex(answer[3].replace(",", " ")), int(answer[2]))
    return task_error(done, f"{count} {what} failed, the first")


def check(block: int, whole: int, longest: int, transfer: int, size: int | None) -> None:
    """Usage errors before the first request."""
    if transfer % block or not transfer:
        raise errors.UsageError(
            f"--bs {transfer} is no multiple of the block size {block}", next=f"give a multiple of {block}"
        )
    if transfer > longest:
        raise errors.UsageError(
            f"--bs {transfer} is more than one command can carry ({longest} bytes)", next=f"give at most {longest}"
        )
    if size is not None and (size > whole or size < transfer):
        raise errors.UsageError(
            f"--size {size} must be between --bs and the LUN's {format_size(whole)}", next="give less"
        )


def figures(report: Any) -> dict[str, Any]:
    """The results as `--json` prints them; latencies in microseconds."""
    from blockwire.initiator.load import percentile

    count = report.reads + report.writes
    seconds = report.seconds or 1e-9
    latency = {"mean": round(report.mean_ns / 1000, 2)}
    for name, fraction in PERCENTILES:
        latency[name] = round(min(percentile(report.histogram_ns, fraction), report.max_ns) / 1000, 2)
    latency["max"] = round(report.max_ns / 1000, 2)
    return {
        "iops": round(count / seconds, 1),
        "bytes_per_second": round(report.bytes / seconds, 1),
        "reads": report.reads,
        "writes": report.writes,
        "bytes": report.bytes,
        "seconds": round(report.seconds, 6),
        "errors": report.errors,
        "miscompares": report.miscompares,
        "latency_us": latency,
        "histogram_us": [[round(bound / 1000, 3), count] for bound, count in report.histogram_ns],
    }


def show(values: dict[str, Any], histogram: Any, quiet: bool) -> None:
    """For people."""
    latency = values["latency_us"]
    output.plain(f"{values['iops']:.0f} IOPS, {format_rate(values['bytes_per_second'])}, {values['errors']} errors")
    names = ("mean", *(name for name, _ in PERCENTILES), "max")
    output.plain("latency us  " + "  ".join(f"{name} {latency[name]:.1f}" for name in names))
    if "verified_reads" in values:
        places = f"and in the end the {values['verified_places']} places that were written"
        output.plain(f"compared {values['verified_reads']} reads {places}, {values['miscompares']} differ")
    if not quiet and histogram:
        output.plain(draw(histogram, fine=output.can_show(EIGHTHS)))


EIGHTHS = " ▏▎▍▌▋▊▉█"
"""How an eighth of a character's width and its multiples look."""


def draw(histogram: Any, width: int = 40, *, fine: bool = True) -> str:
    """A histogram with a row per power of two; without `fine` in whole ASCII characters."""
    rows: dict[int, int] = {}
    for bound, count in histogram:
        power = max(0, math.ceil(math.log2(max(bound, 1) / 1000)))
        rows[power] = rows.get(power, 0) + count
    total = sum(rows.values())
    most = max(rows.values())
    lines = []
    for power in range(min(rows), max(rows) + 1):
        count = rows.get(power, 0)
        length = count / most * width
        bar = EIGHTHS[-1] * int(length) + EIGHTHS[int(length % 1 * 8)].strip() if fine else "#" * round(length)
        bound = 1 << power
        text = (
            f"{bound} us" if bound < 1000 else f"{bound / 1000:.0f} ms" if bound < 1_000_000 else f"{bound / 1e6:.0f} s"
        )
        lines.append(f"  < {text:>7}  {100 * count / total:6.2f} %  {bar}".rstrip())
    return "\n".join(lines)
