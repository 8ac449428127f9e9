"""Blockwire's own command line as one end of an interop test: a target that serves, commands that run to their end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from tests import loopback
from tests.interop import peers

READY_WITHIN = 90.0
"""Seconds; a fresh machine compiles its byte code first, and a busy one takes its time."""
ENDS_WITHIN = 60.0
"""Seconds from SIGTERM to the end."""


def _environment() -> dict[str, str]:
    # The source tree stands first, whether or not the package is installed in this environment.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.environ | {"PYTHONPATH": os.path.join(root, "src"), "NO_COLOR": "1"}


def command(*arguments: str) -> list[str]:
    """How `blockwire ARGUMENTS` is started from a test."""
    return [sys.executable, "-m", "blockwire", *arguments]


def blockwire(*arguments: str, timeout: float = 150, expect: int = 0) -> str:
    """Run a command to its end; anything but the exit code expected is a `ToolFailure` with all it printed."""
    try:
        done = subprocess.run(
            command(*arguments), capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL, env=_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        raise peers.ToolFailure(
            f"blockwire {' '.join(arguments)}: no end within {timeout} s\n{late.stdout!r}\n{late.stderr!r}"
        ) from None
    if done.returncode != expect:
        raise peers.ToolFailure(
            f"blockwire {' '.join(arguments)}: exit {done.returncode}, expected {expect}\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout


def blockwire_json(*arguments: str, timeout: float = 150) -> dict[str, Any]:
    """Run a command with `--json` and return its one object."""
    value = json.loads(blockwire(*arguments, "--json", timeout=timeout))
    assert isinstance(value, dict)
    assert value["schema"].startswith("blockwire."), value
    return value


class Events:
    """What a `serve --json` tells, read by a thread."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue()

    def read(self) -> None:
        """Reads to the end."""
        for line in self._stream:
            self._lines.put(line)
        self._lines.put(None)

    def wait(self, event: str, fits: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The next `event` that fits; what comes before it is forgotten."""
        deadline = time.monotonic() + READY_WITHIN
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise peers.ToolFailure(f"no {event} event within {READY_WITHIN} s") from None
            if line is None:
                raise peers.ToolFailure(f"the target ended before its {event} event")
            told = json.loads(line)
            assert isinstance(told, dict)
            if told.get("event") == event and fits(told):
                return told


def has_served(told: dict[str, Any]) -> bool:
    """Whether statistics show reads that were answered."""
    return any(worker["reads"] > 64 for worker in told["plane"]["workers"].values())


@dataclass
class Served:
    """A running `blockwire serve`."""

    pid: int
    ready: dict[str, Any]
    events: Events

    @property
    def urls(self) -> list[str]:
        """One URL per LUN."""
        return [lun["url"] for lun in self.ready["luns"]]

    @property
    def url(self) -> str:
        """The URL of the first LUN."""
        return self.urls[0]

    @property
    def iqn(self) -> str:
        """The target's name."""
        name = self.ready["luns"][0]["target"]
        assert isinstance(name, str)
        return name

    @property
    def portal(self) -> str:
        """HOST:PORT of the first LUN's URL."""
        return urlsplit(self.url).netloc.rsplit("@", 1)[-1]

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.portal.rsplit(":", 1)[1])


@contextlib.contextmanager
def serve(
    *arguments: str, portal: str = loopback.ANY, placement: Sequence[str] = (), check_exit: bool = True
) -> Iterator[Served]:
    """Start `blockwire serve ARGUMENTS` on a free port; yields when its `ready` event has come.

    Leaving the block sends SIGTERM; a target that does not then end in order within a minute fails the test.
    """
    process = subprocess.Popen(
        [*placement, *command("serve", *arguments, "--portal", portal, "--json")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    events = Events(process.stdout)
    complaints: list[str] = []
    readers = [
        threading.Thread(target=events.read, daemon=True),
        threading.Thread(target=complaints.extend, args=(process.stderr,), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        try:
            ready = events.wait("ready")
        except peers.ToolFailure as failure:
            process.kill()
            readers[1].join(timeout=ENDS_WITHIN)  # take what was said last
            raise peers.ToolFailure(f"{failure}\n{''.join(complaints)}") from None
        yield Served(process.pid, ready, events)
        assert process.poll() is None, f"the target ended by itself: {process.returncode}\n{''.join(complaints)}"
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            raise peers.ToolFailure(f"the target did not end within {ENDS_WITHIN} s of SIGTERM") from None
        for reader in readers:
            reader.join(timeout=ENDS_WITHIN)
        text = "".join(complaints)
        if check_exit:
            assert process.returncode in (0, 130, -signal.SIGTERM), f"exit {process.returncode}\n{text}"
        assert "Traceback" not in text, text
        assert "panicked" not in text, text
    finally:
        process.kill()
        process.wait(timeout=ENDS_WITHIN)
        for reader in readers:
            reader.join(timeout=ENDS_WITHIN)
