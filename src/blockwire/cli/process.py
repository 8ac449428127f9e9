"""The process around a command: signals and standard streams, from before the first import until after the last word.

It imports nothing that is slow to load: Ctrl-C while the rest is being loaded must not show where in that it was.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from types import FrameType
from typing import IO, NoReturn

INTERRUPTED = 130
"""Exit code of Ctrl-C, 128 and the signal's number, as shells have it for every signal."""


class EndedBySignal(KeyboardInterrupt):
    """SIGTERM or SIGHUP: cleaned up after like Ctrl-C, with an exit code of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number


def main() -> NoReturn:
    """The console script."""
    signal.signal(signal.SIGINT, _end_at_once)
    fill_places()
    # A closed pipe is reported by write(); the signal would end us without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    from blockwire.cli.main import run

    # In the background of a script SIGINT arrives ignored; Ctrl-C must work for those who send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has SIGHUP ignored
            signal.signal(number, _raise)
    try:
        code = run()
    except KeyboardInterrupt:  # once more, while the first was being told of
        code = INTERRUPTED
    signal.signal(signal.SIGINT, _end_at_once)
    settle(sys.stdout)
    settle(sys.stderr)
    sys.exit(code)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    # Nothing was begun yet, or everything has ended.
    with contextlib.suppress(OSError):
        os.write(2, b"blockwire: interrupted\n")
    os._exit(INTERRUPTED)


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough; the clean-up must not be cut short by the next one
    raise EndedBySignal(number)


def fill_places() -> None:
    """Descriptors 0 to 2 that were closed get one whose use fails. Left free they would go to the next file or
    connection, and what is printed would go into that."""
    for number, way in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, way)  # the lowest free number is this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    # A name that the terminal's encoding lacks is no reason to fail.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def settle(stream: IO[str]) -> None:
    """What `stream` holds and cannot get rid of goes nowhere: it was told, and the interpreter would tell again."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
