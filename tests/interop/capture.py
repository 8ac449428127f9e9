"""Captures of loopback traffic with tshark, and what tshark makes of them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.interop import peers

WARNING = 0x00600000
"""Wireshark's PI_WARN: expert severities are numbers in filters (chat, note, warning, error rising)."""

PROBLEM = f"_ws.malformed || ((iscsi || scsi) && _ws.expert.severity >= {WARNING} && !tcp.analysis.flags)"
"""A frame that tshark cannot dissect, or whose iSCSI or SCSI content it complains about.

TCP's own remarks (window full, a reset at the end) are about load and timing, not about what we wrote.
"""


class Capture:
    """A capture file of one TCP port."""

    def __init__(self, path: Path, port: int) -> None:
        self.path = path
        self.port = port

    def frames(self, display_filter: str, *fields: str) -> list[str]:
        """The frames that match, one line each: tshark's summary, or the fields asked for, separated by tabs."""
        wanted = [part for field in fields for part in ("-e", field)]
        printed = peers.run(
            "tshark", "-r", str(self.path), "-n", "-d", f"tcp.port=={self.port},iscsi", "-Y", display_filter,
            *(["-T", "fields", *wanted] if wanted else []),
            timeout=120,
        ).stdout  # fmt: skip
        return [line for line in printed.splitlines() if line.strip()]

    def problems(self, among: str = "frame") -> list[str]:
        """What tshark finds wrong in the frames that match `among`."""
        return self.frames(f"({among}) && ({PROBLEM})", "frame.number", "_ws.col.Info", "_ws.expert.message")

    def iscsi_opcodes(self) -> set[int]:
        """The opcodes seen, to show that the traffic really was dissected as iSCSI."""
        values = ",".join(self.frames("iscsi", "iscsi.opcode")).split(",")
        return {int(value, 0) for value in values if value}


@contextlib.contextmanager
def capture(path: Path, port: int) -> Iterator[Capture]:
    """Capture everything on loopback's TCP `port` while the block runs."""
    peers.require("tshark")
    log_path = path.with_suffix(".log")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            ["tshark", "-i", "lo", "-B", "64", "-q", "-f", f"tcp port {port}", "-w", str(path)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=peers.ENVIRONMENT,
        )  # fmt: skip
        with peers.killed_at_the_end(process):
            # The first block of the file is written when dumpcap has the interface open.
            def open_for_capture() -> bool:
                return path.exists() and path.stat().st_size > 0

            def ended() -> str:
                return "" if process.poll() is None else "ended"

            try:
                peers.wait_until(open_for_capture, "tshark captures", alive=[ended])
            except peers.ToolFailure:
                printed = log_path.read_text()
                if "permission" in printed.lower():
                    peers.absent(f"tshark may not capture here: {printed.strip().splitlines()[-1]}")
                raise peers.ToolFailure(f"tshark: {printed}") from None
            time.sleep(0.3)
            yield Capture(path, port)
            time.sleep(1.0)  # the kernel hands packets to dumpcap in blocks, up to half a second late
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)
