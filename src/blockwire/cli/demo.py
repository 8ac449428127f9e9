"""`blockwire demo`: everything once, on this machine, on free ports, in temporary files."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from blockwire import errors
from blockwire.cli import bench, output
from blockwire.cli.flags import Seconds, output_flags, set_up_logging
from blockwire.names import format_rate, format_size

EPILOG = """\b
Examples:
  blockwire demo
  blockwire demo --time 1 --json"""

RAM_SIZE = 64 << 20
FILE_SIZE = 64 << 20
PIECE = 256 << 10


@click.command(epilog=EPILOG)
@click.option("--time", "--runtime", "seconds", type=Seconds(0.1, 60), default=2.0, help="Seconds per measurement [2].")
@output_flags
def command(seconds: float, as_json: bool, verbose: int, quiet: bool) -> None:
    """Serve a RAM disk and a file disk, discover them, write, read back, verify and measure. Leaves nothing behind."""
    set_up_logging(verbose)
    import blockwire

    started = time.monotonic()
    say = (lambda text="": None) if as_json or quiet else output.plain
    steps: list[dict[str, Any]] = []

    def done(step: str, text: str, **values: Any) -> None:
        steps.append({"step": step, **values})
        say(f"  ok  {text}")

    with tempfile.TemporaryDirectory(prefix="blockwire-demo-") as directory:
        path = Path(directory) / "disk.img"
        with path.open("wb") as file:
            file.truncate(FILE_SIZE)
        say("serving a RAM disk and a file on a free port")
        with blockwire.Target(f"ram:{RAM_SIZE}", str(path)) as target:
            portal = target.portals[0]
            done("serve", f"{target.name} at {portal}", target=target.name, portal=portal, urls=list(target.urls))

            say("discovering it as an initiator does")
            found = blockwire.discover(portal)
            if [entry.name for entry in found] != [target.name]:
                raise errors.NothingFoundError("discovery did not find the target", evidence=str(found))
            done("discover", f"{len(found)} target, portal group {found[0].addresses[0].portal_group_tag}")
            with blockwire.connect(target.url) as session:
                for unit in session.luns():
                    text = (
                        f"LUN {unit.lun}: {unit.vendor} {unit.product}, {format_size(unit.size)}, serial {unit.serial}"
                    )
                    done("ls", text, lun=unit.lun, size=unit.size, serial=unit.serial)

            say("writing random data, reading it back, comparing")
            for url, what in zip(target.urls, ("RAM disk", "file disk"), strict=True):
                values = _write_and_verify(url, what)
                done("verify", f"{what}: {format_size(values['bytes'])}, "
                     f"write {format_rate(values['write_bytes_per_second'])}, "
                     f"read {format_rate(values['read_bytes_per_second'])}, all equal", lun=what, **values)  # fmt: skip
            say("looking into the file behind the second LUN")
            _check_file(target.urls[1], path)
            done("file", "the file holds what was written through iSCSI")

            say(f"measuring, {seconds:g} s each")
            for rw, transfer, depth in (("randread", 4096, 32), ("randwrite", 4096, 32), ("read", 262144, 8)):
                values = _measure(target.url, rw, transfer, depth, seconds)
                latency = values["latency_us"]
                done("bench", f"{rw} {format_size(transfer).split(' (')[0]} depth {depth}: {values['iops']:.0f} IOPS, "
                     f"{format_rate(values['bytes_per_second'])}, p50 {latency['p50']:.0f} us, "
                     f"p99 {latency['p99']:.0f} us", rw=rw, transfer_bytes=transfer, depth=depth,
                     iops=values["iops"], bytes_per_second=values["bytes_per_second"], latency_us=latency)  # fmt: skip
    elapsed = time.monotonic() - started
    if as_json:
        output.document("demo/1", {"steps": steps, "seconds": round(elapsed, 3)})
        return
    say(f"done in {elapsed:.1f} s; nothing was left behind")
    say()
    say("next steps")
    say("  blockwire serve disk.img --size 10G            share a file; prints how to attach it")
    say("  blockwire ls 127.0.0.1:3260                    what is there")
    say("  blockwire cp image.raw 'iscsi://HOST/IQN/0'    copy onto it")
    say("  python -c 'import blockwire; help(blockwire.open)'")


def _write_and_verify(url: str, what: str) -> dict[str, Any]:
    import blockwire

    with blockwire.open(url) as lun:
        amount = min(lun.size, 32 << 20)
        blocks = {offset: secrets.token_bytes(PIECE) for offset in range(0, amount, PIECE)}
        begin = time.perf_counter()
        with lun.queue(depth=16) as queue:
            for offset, data in blocks.items():
                queue.pwrite(data, offset)
        lun.flush()
        written = time.perf_counter()
        different = 0
        with lun.queue(depth=16) as queue:
            tags: dict[int, int] = {}
            waiting = iter(blocks)
            more = True
            while more or tags:
                while more and len(tags) < 16:
                    offset = next(waiting, -1)
                    if offset < 0:
                        more = False
                        break
                    tags[queue.pread(PIECE, offset)] = offset
                for finished in queue.completions():
                    if finished.error is not None:
                        raise finished.error
                    different += finished.data != blocks[tags.pop(finished.tag)]
        end = time.perf_counter()
    if different:
        raise errors.DataDiffersError(f"{what}: {different} pieces of {len(blocks)} differ")
    return {
        "bytes": amount,
        "write_bytes_per_second": round(amount / (written - begin), 1),
        "read_bytes_per_second": round(amount / (end - written), 1),
    }


def _check_file(url: str, path: Path) -> None:
    import blockwire

    word = b"blockwire demo " + os.urandom(16).hex().encode()
    with blockwire.open(url) as lun, lun.makefile("r+b") as file:
        file.seek(12345)
        file.write(word)
    with path.open("rb") as behind:
        behind.seek(12345)
        if behind.read(len(word)) != word:
            raise errors.DataDiffersError("the file does not hold what was written")


def _measure(url: str, rw: str, transfer: int, depth: int, seconds: float) -> dict[str, Any]:
    import blockwire
    from blockwire.initiator.load import Load, run_load

    reads, random = bench.PATTERNS[rw]
    with blockwire.open(url) as lun:
        report = run_load(
            [lun], Load(transfer=transfer, depth=depth, read_percent=reads, random=random, seconds=seconds)
        )
    if report.errors:
        raise errors.DeviceError(f"{report.errors} requests failed", evidence=report.first_error)
    return bench.figures(report)
