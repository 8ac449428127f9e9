"""`blockwire cp`: the command. `copy_ends` are the things that can be copied, `copying` does it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from blockwire import errors
from blockwire.cli import output
from blockwire.cli.flags import SIZE, Login, login_flags, output_flags, set_up_logging
from blockwire.names import format_rate, format_size

if TYPE_CHECKING:
    from blockwire.cli.copy_ends import Destination, Source

EPILOG = """\b
Examples:
  blockwire cp big.img 'iscsi://HOST/IQN/0' --verify
  blockwire cp 'iscsi://HOST/IQN/0' backup.img
  blockwire cp big.img 'iscsi://HOST/IQN/0' --rate 50M
  zstdcat disk.zst | blockwire cp - 'iscsi://HOST/IQN/0'
  blockwire cp 'iscsi://HOST/IQN/0' 'iscsi://OTHER/IQN/0'"""

LONGEST_CHUNK = 64 << 20
"""Bytes; `--depth` of them are in memory at a time, and beyond one command of a device nothing is gained."""


@click.command(epilog=EPILOG)
@click.argument("source")
@click.argument("destination")
@click.option("--verify", is_flag=True, help="Read the destination again and compare.")
@click.option(
    "--depth", "--iodepth", type=click.IntRange(1, 1024), default=16, show_default=True, help="Requests in flight."
)
@click.option("--chunk", type=SIZE, default="512k", show_default=True, help="Bytes per request.")
@login_flags
@output_flags
def command(
    source: str,
    destination: str,
    verify: bool,
    depth: int,
    chunk: int,
    login: Login,
    as_json: bool,
    verbose: int,
    quiet: bool,
) -> None:
    """Copy SOURCE to DESTINATION: a file, '-' for a pipe, or a LUN's URL, on either side. A file whose name looks like
    a portal is written ./NAME.

    Holes and runs of zeros are not sent as data. Sizes are checked before the first byte. A copy that ends with exit
    code 0 is complete and on stable storage.
    """
    set_up_logging(verbose)
    from blockwire.cli import copying
    from blockwire.cli.copy_ends import is_pipe, open_destination, open_source

    in_order = is_pipe(destination)
    if verify and in_order:
        raise errors.UsageError("--verify cannot read a pipe again", next="copy to a file or a LUN")
    if chunk < 4096 or chunk % 4096 or chunk > LONGEST_CHUNK:
        raise errors.UsageError(
            f"--chunk {chunk} is no multiple of 4096 up to {format_size(LONGEST_CHUNK)}", next="give --chunk 64k to 1M"
        )
    say = (lambda text: None) if quiet or as_json else output.note
    with (
        open_source(source, login, chunk, depth, in_order) as origin,
        open_destination(destination, login, origin.size, depth) as target,
    ):
        check_different(origin, target)
        check_sizes(origin, target)
        if target.overwrites:
            say(f"overwriting {target.overwrites}")
        if origin.size is not None and target.capacity is not None and target.capacity > origin.size:
            say(f"{origin.name} fills the first {format_size(origin.size)} of {format_size(target.capacity)}")
        started = time.monotonic()
        progress = copying.Progress(origin.size, "copy", not (quiet or as_json) and sys.stderr.isatty())
        try:
            report = copying.copy(origin, target, chunk, progress, digests=verify)
        except KeyboardInterrupt:
            progress.close()
            output.note(f"{copying.left_behind(target)}: {progress.done} bytes were copied")
            raise
        except errors.Error as error:
            progress.close()
            raise copying.incomplete(error, target, progress.done, origin.size) from error
        finally:
            progress.close()
        seconds = time.monotonic() - started
        checked = 0.0
        if verify:
            again = time.monotonic()
            progress = copying.Progress(report.size, "verify", not (quiet or as_json) and sys.stderr.isatty())
            try:
                copying.verify(target, report, chunk, progress, login, depth)
            finally:
                progress.close()
            checked = time.monotonic() - again
        target.commit()
    rate = report.size / seconds if seconds > 0 else 0.0
    if as_json:
        output.document(
            "cp/1",
            {
                "source": origin.name,
                "destination": target.name,
                "bytes": report.size,
                "zero_bytes": report.zeros,
                "seconds": round(seconds, 6),
                "bytes_per_second": round(rate, 1),
                "verified": verify,
                "verify_seconds": round(checked, 6) if verify else None,
            },
        )
    elif not quiet:
        text = f"copied {format_size(report.size)} in {seconds:.2f} s, {format_rate(rate)}"
        if report.zeros:
            text += f", {format_size(report.zeros)} of it zeros"
        if verify:
            text += f"; verified in {checked:.2f} s"
        output.note(text)


def check_different(origin: Source, target: Destination) -> None:
    """A thing is not copied onto itself: at best nothing would change, at worst a copy cut short would."""
    if origin.identity is not None and origin.identity == target.identity:
        raise errors.UsageError(
            f"{origin.name} and {target.name} are the same", code="copy.same", next="name another destination"
        )


def check_sizes(origin: Source, target: Destination) -> None:
    """Before the first byte: a destination that cannot grow has to be as large as the source."""
    if origin.size is None or target.capacity is None or origin.size <= target.capacity:
        return
    raise errors.UsageError(
        f"{origin.name} does not fit into {target.name}", code="copy.too-large",
        evidence=f"{format_size(origin.size)} into {format_size(target.capacity)}",
        next="use a larger destination",
    )  # fmt: skip
