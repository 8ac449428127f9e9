"""What holds for every test: the marker of the foreign peers' room."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import loopback

INTEROP = Path(__file__).parent / "interop"

# A machine that is busy with other things says nothing about an example.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything under tests/interop carries the marker, so that none can be forgotten and run by `make check`."""
    for item in items:
        if INTEROP in item.path.parents:
            item.add_marker(pytest.mark.interop)


def pytest_configure() -> None:
    """Ctrl-C works, here and in the programs that tests start, also where a shell started this in the background and
    had it ignored. With BLOCKWIRE_TEST_HOST the targets of the fixtures listen there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if loopback.HOST != "127.0.0.1":
        import blockwire

        blockwire.Target.__init__.__kwdefaults__["portals"] = (loopback.ANY,)
