"""The loopback address that the tests serve on: 127.0.0.1, or what BLOCKWIRE_TEST_HOST says (`::1`)."""

from __future__ import annotations

import os
import socket

HOST = os.environ.get("BLOCKWIRE_TEST_HOST", "127.0.0.1")
AUTHORITY = f"[{HOST}]" if ":" in HOST else HOST
"""As it stands in URLs and portals."""
FAMILY = socket.AF_INET6 if ":" in HOST else socket.AF_INET
ANY = f"{AUTHORITY}:0"
"""A free port of it."""
