"""The copy itself, its progress bar, and the comparison afterwards."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blockwire import errors
from blockwire.cli.copy_ends import is_zero

if TYPE_CHECKING:
    from blockwire.cli.copy_ends import Destination, Source
    from blockwire.cli.flags import Login

_DIGEST_SIZE = 16


@dataclass
class Report:
    """What was copied. `digests`: offset of each piece with data -> (length, digest)."""

    size: int = 0
    """Bytes."""
    zeros: int = 0
    digests: dict[int, tuple[int, bytes]] = field(default_factory=dict)


class Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, total: int | None, what: str, show: bool) -> None:
        self.done = 0
        self._bar: Any = None
        self._shown = 0.0
        if show:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True),
                TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(what, total=total)
            self._bar.start()

    def add(self, count: int) -> None:
        """`count` bytes more."""
        self.done += count
        if self._bar is not None and (now := time.monotonic()) - self._shown > 0.1:
            self._shown = now
            self._bar.update(self._task, completed=self.done)

    def close(self) -> None:
        """Takes the bar away; idempotent."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.update(self._task, completed=self.done)
            bar.stop()


def digest(data: bytes) -> bytes:
    """What pieces are compared by."""
    return hashlib.blake2b(data, digest_size=_DIGEST_SIZE).digest()


def copy(origin: Source, target: Destination, chunk: int, progress: Progress, *, digests: bool) -> Report:
    """Copies everything. Any error is the caller's; then nothing is complete."""
    report = Report()
    pending: list[int] = []  # start and length of a run of zeros, joined over pieces

    def put_zeros() -> None:
        if pending:
            target.zero(pending[0], pending[1])
            pending.clear()

    try:
        for offset, piece in origin.pieces():
            length = piece if isinstance(piece, int) else len(piece)
            if target.capacity is not None and offset + length > target.capacity:
                raise errors.UsageError(
                    f"{origin.name} does not fit into {target.name}", code="copy.too-large",
                    evidence=f"more than {target.capacity} bytes came",
                )  # fmt: skip
            if isinstance(piece, int):
                report.zeros += length
                if pending and pending[0] + pending[1] == offset:
                    pending[1] += length
                else:
                    put_zeros()
                    pending[:] = [offset, length]
            else:
                # A pipe takes what comes in order; elsewhere the order does not matter.
                put_zeros()
                target.write(offset, piece)
                if digests:
                    report.digests[offset] = (length, digest(piece))
            report.size += length
            progress.add(length)
        put_zeros()
        target.finish(report.size)
    except errors.Error:
        raise
    except OSError as error:
        raise errors.from_os_error(error, f"copying {origin.name} to {target.name}") from error
    return report


def verify(target: Destination, report: Report, chunk: int, progress: Progress, login: Login, depth: int) -> None:
    """Reads the destination again; DataDiffersError at the first piece that is not what was written."""
    starts = sorted(report.digests)
    index = 0
    buffered: dict[int, bytes] = {}
    # The pieces of the source may have been cut otherwise than those read now (holes, short reads), so both are
    # walked by offset.
    position = 0
    window = b""
    window_start = 0
    for start, data in target.read_back(report.size, chunk, depth):
        buffered[start] = data
        while position in buffered:
            part = buffered.pop(position)
            position += len(part)
            window += part
            window, window_start, index = _compare(report, starts, index, window, window_start, target.name)
            progress.add(len(part))
    if position < report.size:
        raise errors.DataDiffersError(
            f"{target.name} ends early", evidence=f"{position} bytes instead of {report.size}", code="data.short"
        )


def _compare(
    report: Report, starts: list[int], index: int, window: bytes, begin: int, name: str
) -> tuple[bytes, int, int]:
    """Compares as far as `window` (the destination from `begin`) reaches; gives what is left of it."""
    while window:
        if index < len(starts) and starts[index] == begin:
            length, expected = report.digests[begin]
            if len(window) < length:
                break
            if digest(window[:length]) != expected:
                raise errors.DataDiffersError(
                    f"{name} is not what was written", evidence=f"bytes {begin} to {begin + length}",
                    next="copy again; if it stays, check the device and turn on DataDigest=CRC32C",
                )  # fmt: skip
            index += 1
        else:
            following = starts[index] if index < len(starts) else report.size
            length = min(following - begin, len(window))
            if not is_zero(window[:length]):
                raise errors.DataDiffersError(
                    f"{name} is not zero where the source is", evidence=f"bytes {begin} to {begin + length}"
                )
        begin += length
        window = window[length:]
    return window, begin, index


def left_behind(target: Destination) -> str:
    """What a copy that did not end leaves: part of it, or nothing at all."""
    return f"{target.name} is incomplete" if target.in_place else f"{target.name} was left as it was"


def incomplete(error: errors.Error, target: Destination, done: int, total: int | None) -> errors.Error:
    """The same error, saying what it means for the copy."""
    if done:
        of = f" of {total}" if total is not None else ""
        error.message = f"{error.message}; {left_behind(target)}"
        error.evidence = (f"{error.evidence}; " if error.evidence else "") + f"{done}{of} bytes were copied"
        error.next = error.next or "copy again from the start"
    return error
