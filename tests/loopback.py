"""The loopback address that the tests serve on: 127.0.0.1, or what BLOCKWIRE_TEST_HOST says (`::1`)."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path

HOST = os.environ.get("BLOCKWIRE_TEST_HOST", "127.0.0.1")
AUTHORITY = f"[{HOST}]" if ":" in HOST else HOST
"""As it stands in URLs and portals."""
FAMILY = socket.AF_INET6 if ":" in HOST else socket.AF_INET
ANY = f"{AUTHORITY}:0"
"""A free port of it."""


def free_port(host: str = HOST) -> int:
    """A TCP port that was free a moment ago, for who cannot ask for port 0: a foreign daemon, a target that comes back.

    Taken from below the range that the kernel gives ports from by itself, so that nobody who asks for any port, or just
    connects somewhere, gets it meanwhile.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.randrange(min(10240, first - 1), first)
        with contextlib.suppress(OSError), socket.create_server((host, port), family=family):
            return port
