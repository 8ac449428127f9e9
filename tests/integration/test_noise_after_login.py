"""Bytes that are no iSCSI, sent by hand to a served target after a login: what comes back, and what `serve` prints."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import loopback

SRC = str(Path(__file__).resolve().parents[2] / "src")
NAME = "iqn.2024-01.com.example:noise"
PATIENCE = 60
"""Seconds that a loaded machine may take for an answer, or for closing."""


class Served:
    """`blockwire serve` with its port; what it prints about peers is on stderr."""

    def __init__(self) -> None:
        # Without keep-alive nothing but what a peer sends ends its connection.
        words = ("serve", "ram:1M", "-p", loopback.ANY, "--target-name", NAME, "--quiet", "--keep-alive-interval", "0")
        self.child = subprocess.Popen(
            [sys.executable, "-m", "blockwire", *words], env={**os.environ, "PYTHONPATH": SRC}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.child.stdout is not None
        self.port = int(self.child.stdout.readline().split("/")[2].rpartition(":")[2])
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.lines.put(line)

    def printed(self, what: str) -> str:
        """The next line of stderr that has `what` in it."""
        while True:
            line = self.lines.get(timeout=PATIENCE)
            if what in line:
                return line

    def close(self) -> None:
        """Ends it."""
        self.child.terminate()
        self.reader.join(PATIENCE)
        self.child.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """One for all tests: each of them leaves it in use."""
    found = Served()
    try:
        yield found
    finally:
        found.close()


def log_in(port: int) -> socket.socket:
    """One Login Request by the figure of 11.12, straight to the full feature phase."""
    text = f"InitiatorName=iqn.2024-01.com.example:hand\0TargetName={NAME}\0".encode()
    header = bytes([0x43, 0x87, 0, 0]) + len(text).to_bytes(4, "big") + bytes.fromhex("400001370000 0000")
    header += (5).to_bytes(4, "big") + bytes([0, 1, 0, 0]) + (1).to_bytes(4, "big") + bytes(20)
    assert len(header) == 48
    peer = socket.create_connection((loopback.HOST, port), PATIENCE)
    peer.sendall(header + text + bytes(-len(text) % 4))
    answer = receive(peer)
    assert (answer[0], answer[36:38]) == (0x23, b"\0\0")
    return peer


def receive(peer: socket.socket) -> bytes:
    """One PDU; empty when the connection ends."""
    peer.settimeout(PATIENCE)
    found = b""
    need = 48
    while len(found) < need:
        try:
            part = peer.recv(need - len(found))
        except ConnectionError:
            return b""
        if not part:
            return b""
        found += part
        if len(found) == 48:
            need = 48 + (int.from_bytes(found[5:8], "big") + 3) // 4 * 4
    return found


@pytest.mark.parametrize(
    ("noise", "says"),
    [
        (b"\xff" * 480, "AHS"),  # a header alone would be enough; 1,020 bytes of AHS are not waited for
        (b"\xff" * 48, "AHS"),
        (bytes([0x01, 0xC1, 0, 0, 0, 0xFF, 0xFF, 0xFF]) + bytes(40), "MaxRecvDataSegmentLength"),
        (bytes([0x25, 0x80]) + bytes(46), "a target's opcode"),
    ],
    ids=["480 of ff", "48 of ff", "2^24-1 bytes of data", "Data-In"],
)
def test_noise_ends_the_connection_at_once(served: Served, noise: bytes, says: str) -> None:
    with log_in(served.port) as peer:
        peer.sendall(noise)
        assert receive(peer) == b""
    line = served.printed("protocol-violation")
    assert says in line
    assert "RFC 7143" in line
    log_in(served.port).close()  # others are served


def test_an_unknown_opcode_is_rejected_and_said(served: Served) -> None:
    with log_in(served.port) as peer:
        bad = bytes([0x1B, 0x80]) + bytes(14) + (7).to_bytes(4, "big") + bytes(28)
        peer.sendall(bad)
        answer = receive(peer)
        assert (answer[0], answer[2]) == (0x3F, 0x05)  # Reject, command not supported
        assert answer[48:] == bad  # 11.17.4: its complete header
        assert "an opcode that RFC 7143 does not define" in served.printed("protocol-violation")
        # the connection goes on: a ping is answered
        ping = (
            bytes([0x40, 0x80]) + bytes(14) + (9).to_bytes(4, "big") + b"\xff" * 4 + (1).to_bytes(4, "big") + bytes(20)
        )
        peer.sendall(ping)
        assert receive(peer)[0] == 0x20
