"""What is stable per machine: the host id, and the target name made from it."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Sequence
from pathlib import Path

_MACHINE_ID = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
NAMING_AUTHORITY = "iqn.2025-01.org.blockwire"
"""Prefix of default target names (RFC 7143 4.2.7.5)."""


def host_id() -> str:
    """Text that stays with this machine: its machine-id (hashed, as machine-id(5) asks), else its host name."""
    for path in _MACHINE_ID:
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if re.fullmatch(r"[0-9a-f]{32}", text):
            return hashlib.sha256(b"blockwire:" + text.encode()).hexdigest()
    return f"name:{socket.gethostname()}"


def default_target_name(host: str, stores: Sequence[str], host_name: str | None = None) -> str:
    """A name that is the same whenever this host serves the same stores.

    ``host`` is :func:`host_id`, ``stores`` the store words in LUN order.
    """
    label = re.sub(r"[^a-z0-9-]+", "-", (host_name or socket.gethostname()).split(".")[0].lower()).strip("-") or "host"
    seed = hashlib.sha256("\0".join((host, *stores)).encode(errors="surrogateescape")).hexdigest()
    return f"{NAMING_AUTHORITY}:{label[:32]}.{seed[:12]}"
