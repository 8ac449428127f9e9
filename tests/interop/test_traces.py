"""tshark reads the traces that both roles write when a session breaks."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from tests import loopback
from tests.interop import peers
from tests.interop.serving import command, serve

SCSI_COMMAND, DATA_IN = 0x01, 0x25


def trace_in(directory: Path) -> Path:
    """The file that appears there."""
    deadline = time.monotonic() + 20
    while not (found := list(directory.glob("*.pcapng"))):
        assert time.monotonic() < deadline, "no trace was written"
        time.sleep(0.05)
    time.sleep(0.3)  # it may still be written to
    return found[0]


def opcodes(path: Path) -> set[int]:
    """The opcodes of a trace; nothing in it may be malformed."""
    peers.require("tshark")
    assert peers.run("tshark", "-r", str(path), "-Y", "_ws.malformed").stdout.strip() == ""
    printed = peers.run("tshark", "-r", str(path), "-T", "fields", "-e", "iscsi.opcode").stdout
    return {int(word, 16) for word in printed.split()}


def reading(url: str, *arguments: str) -> subprocess.Popen[str]:
    """`blockwire bench`, which reads until it is ended; it runs when this comes back."""
    child = subprocess.Popen(
        command("bench", url, "--time", "60", "--qd", "4", *arguments), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    assert "randread" in child.stderr.readline()
    time.sleep(0.5)
    return child


def test_the_target_writes_what_came_last_from_an_initiator_that_went(tmp_path: Path) -> None:
    with serve("ram:16M", "--trace", str(tmp_path)) as served:
        child = reading(served.url)
        child.kill()
        child.communicate(timeout=20)
        path = trace_in(tmp_path)
    assert opcodes(path) >= {SCSI_COMMAND, DATA_IN}


def test_the_initiator_writes_what_came_last_from_a_target_that_went(tmp_path: Path) -> None:
    target = subprocess.Popen(
        command("serve", "ram:16M", "--portal", loopback.ANY, "--json"), stdout=subprocess.PIPE, text=True
    )
    assert target.stdout is not None
    url = json.loads(target.stdout.readline())["luns"][0]["url"]
    child = reading(url, "--timeout", "1", "--trace", str(tmp_path))
    target.kill()
    target.communicate(timeout=20)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 3
    path = trace_in(tmp_path)
    assert str(path) in said
    assert opcodes(path) >= {SCSI_COMMAND, DATA_IN}
