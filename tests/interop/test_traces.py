"""tshark reads the traces that both roles write when a session breaks."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests import loopback
from tests.interop import peers
from tests.interop.serving import Events, command, has_served, serve
from tests.waiting import wait_until

SCSI_COMMAND, DATA_IN = 0x01, 0x25


def trace_in(directory: Path) -> Path:
    """The file that appears there."""
    wait_until(lambda: any(directory.glob("*.pcapng")), "a trace is written")
    return next(directory.glob("*.pcapng"))


def opcodes(path: Path) -> set[int]:
    """The opcodes of a trace; nothing in it may be malformed."""
    peers.require("tshark")
    assert peers.run("tshark", "-r", str(path), "-Y", "_ws.malformed").stdout.strip() == ""
    printed = peers.run("tshark", "-r", str(path), "-T", "fields", "-e", "iscsi.opcode").stdout
    return {int(word, 16) for word in printed.split()}


@contextlib.contextmanager
def reading(url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`blockwire bench`, which reads until it is ended."""
    child = subprocess.Popen(
        command("bench", url, "--time", "600", "--qd", "4", *arguments), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with peers.killed_at_the_end(child):
        assert child.stderr is not None
        assert "randread" in child.stderr.readline()
        yield child


def test_the_target_writes_what_came_last_from_an_initiator_that_went(tmp_path: Path) -> None:
    with (
        serve("ram:16M", "--trace", str(tmp_path), "--statistics", "0.2") as served,
        reading(served.url) as child,
    ):
        served.events.wait("statistics", has_served)
        child.kill()
        child.communicate(timeout=60)
        path = trace_in(tmp_path)
    assert opcodes(path) >= {SCSI_COMMAND, DATA_IN}


def test_the_initiator_writes_what_came_last_from_a_target_that_went(tmp_path: Path) -> None:
    target = subprocess.Popen(
        command("serve", "ram:16M", "--portal", loopback.ANY, "--json", "--statistics", "0.2"),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with peers.killed_at_the_end(target):
        assert target.stdout is not None
        events = Events(target.stdout)
        reader = threading.Thread(target=events.read, daemon=True)
        reader.start()
        url = events.wait("ready")["luns"][0]["url"]
        with reading(url, "--timeout", "4", "--trace", str(tmp_path)) as child:
            events.wait("statistics", has_served)
            target.kill()
            target.wait(timeout=60)
            reader.join(timeout=60)
            _, said = child.communicate(timeout=150)
    assert child.returncode == 3
    path = trace_in(tmp_path)
    assert str(path) in said
    assert opcodes(path) >= {SCSI_COMMAND, DATA_IN}
