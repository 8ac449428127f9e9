"""The loopback address that the tests serve on: 127.0.0.1, or what BLOCKWIRE_TEST_HOST says (`::1`)."""

from __future__ import annotations

import errno
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
LOWEST = 10240
"""The lowest port that `free_port` looks at; below are those of well-known services."""
TRIES = 1000


def free_port(host: str = HOST) -> int:
    """A TCP port that was free a moment ago, for who cannot ask for port 0: a foreign daemon, a target that comes back.

    Taken from below the range that the kernel gives ports from by itself, so that nobody who asks for any port, or just
    connects somewhere, gets it meanwhile. Where hardly anything is below it, it is a port of that range.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(TRIES):
        port = random.randrange(LOWEST, first) if first > LOWEST else 0
        try:
            with socket.create_server((host, port), family=family) as server:
                return int(server.getsockname()[1])
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"none of {TRIES} ports of {host} is free")
