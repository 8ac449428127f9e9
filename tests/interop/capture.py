"""Captures of loopback traffic with tshark, and what tshark makes of them."""

from __future__ import annotations

import contextlib
import re
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.interop import peers
from tests.waiting import NeverCame, ending, wait_until

WARNING = 0x00600000
"""Wireshark's PI_WARN: expert severities are numbers in filters (chat, note, warning, error rising)."""

MALFORMED = "(_ws.malformed && !_ws.malformed.reassembly)"
"""A frame that tshark cannot dissect; not one that it cannot put in TCP's order, which a busy machine makes it do."""

PROBLEM = f"{MALFORMED} || ((iscsi || scsi) && _ws.expert.severity >= {WARNING} && !tcp.analysis.flags)"
"""A frame that is malformed, or whose iSCSI or SCSI content it complains about.

TCP's own remarks (window full, a reset at the end) are about load and timing, not about what we wrote.
"""

IN_ANY_ORDER = ("-o", "tcp.reassemble_out_of_order:TRUE")
"""Both processors write into the capture, so that on a busy machine frames stand in it in another order than TCP's."""


class Capture:
    """A capture file of one TCP port."""

    def __init__(self, path: Path, port: int) -> None:
        self.path = path
        self.port = port

    def frames(self, display_filter: str, *fields: str) -> list[str]:
        """The frames that match, one line each: tshark's summary, or the fields asked for, separated by tabs."""
        wanted = [part for field in fields for part in ("-e", field)]
        printed = peers.run(
            "tshark", "-r", str(self.path), "-n", "-d", f"tcp.port=={self.port},iscsi", *IN_ANY_ORDER,
            "-Y", display_filter,
            *(["-T", "fields", *wanted] if wanted else []),
            timeout=120,
        ).stdout  # fmt: skip
        return [line for line in printed.splitlines() if line.strip()]

    def problems(self, among: str = "frame") -> list[str]:
        """What tshark finds wrong in the frames that match `among`."""
        return self.frames(f"tcp && ({among}) && ({PROBLEM})", "frame.number", "_ws.col.Info", "_ws.expert.message")

    def iscsi_opcodes(self) -> set[int]:
        """The opcodes seen, to show that the traffic really was dissected as iSCSI."""
        values = ",".join(self.frames("iscsi", "iscsi.opcode")).split(",")
        return {int(value, 0) for value in values if value}


@contextlib.contextmanager
def capture(path: Path, port: int) -> Iterator[Capture]:
    """Capture everything on loopback's TCP `port` while the block runs, in the order of the frames' times.

    A frame lost fails the test: what tshark makes of the rest would say nothing. The buffer holds 256 MiB, so that a
    block that causes less traffic than that loses none, however late dumpcap comes to it.
    """
    peers.require("tshark", "reordercap")
    log_path = path.with_suffix(".log")
    raw_path = path.with_suffix(".raw")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            ["tshark", "-i", "lo", "-B", "256", "-q", "-f", f"port {port}", "-w", str(raw_path)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=peers.ENVIRONMENT,
        )  # fmt: skip
        with peers.killed_at_the_end(process):
            try:
                wait_until_captured(raw_path, port, process)
            except NeverCame:
                printed = log_path.read_text()
                if "permission" in printed.lower():
                    peers.absent(f"tshark may not capture here: {printed.strip().splitlines()[-1]}")
                raise peers.ToolFailure(f"tshark: {printed}") from None
            yield Capture(path, port)
            wait_until_captured(raw_path, port, process)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
    lost = re.search(r"(\d+) packets? dropped", log_path.read_text())
    assert lost is None, f"the capture lacks {lost[1]} frames"
    peers.run("reordercap", str(raw_path), str(path), timeout=60)


def wait_until_captured(raw_path: Path, port: int, process: subprocess.Popen[bytes]) -> None:
    """Send datagrams to the same port number until one stands in the file: so does everything before it."""
    sent: list[bytes] = []

    def arrived() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sent.append(secrets.token_bytes(16))
            sock.sendto(sent[-1], ("127.0.0.1", port))
        kept = raw_path.read_bytes() if raw_path.exists() else b""
        return any(mark in kept for mark in sent)

    wait_until(arrived, "tshark captures", useless=ending(process))
