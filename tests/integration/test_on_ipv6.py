"""What passes on 127.0.0.1 passes on [::1]: integration tests, and those with libiscsi and QEMU, once more there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import blockwire
from tests import loopback

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]


def test_the_fixtures_listen_where_they_are_told(blockwire_target: blockwire.Target) -> None:
    assert blockwire_target.portals[0].rpartition(":")[0] == loopback.AUTHORITY


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("room", ["integration", "interop"])
def test_everything_passes_on_ipv6(room: str) -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))  # a host without IPv6 fails here, and says so
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not soak", "-p", "no:cacheprovider", str(TESTS / room)],
        env={**os.environ, "BLOCKWIRE_TEST_HOST": "::1"}, cwd=TESTS.parent, capture_output=True, text=True,
        timeout=1700, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.timeout(600)
def test_the_basics_pass_on_ipv6() -> None:
    """A part of it that is quick enough for every run."""
    chosen = ["test_loopback.py", "test_commands.py::test_cp_there_back_and_between"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         *(str(TESTS / "integration" / name) for name in chosen)],
        env={**os.environ, "BLOCKWIRE_TEST_HOST": "::1"}, cwd=TESTS.parent, capture_output=True, text=True,
        timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
