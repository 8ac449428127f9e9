"""Login redirection between two targets of ours (RFC 7143 6.3.1, 11.13.5)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

import blockwire
from blockwire import errors
from blockwire.config.model import Configuration
from blockwire.initiator.options import Timers
from blockwire.testing.fault_proxy import FaultProxy
from tests import loopback

NAME = "iqn.2025-01.org.blockwire:moved"
TIMERS = Timers(timeout=60.0, replacement_timeout=120.0, keep_alive_interval=0.0, reopen_first=0.02, logout=0.3)


def redirecting(address: str, permanent: bool) -> blockwire.Target:
    value = {
        "portals": [loopback.ANY],
        "targets": [{"name": NAME, "redirect": {"address": address, "permanent": permanent}}],
    }
    return blockwire.Target(configuration=Configuration.model_validate(value))


@pytest.fixture
def real() -> Iterator[blockwire.Target]:
    with blockwire.Target("ram:8M", target_name=NAME, keys={"DefaultTime2Wait": "0"}) as target:
        yield target


@pytest.mark.parametrize("permanent", [False, True])
def test_a_redirect_is_followed_and_remembered_when_it_is_for_good(real: blockwire.Target, permanent: bool) -> None:
    with FaultProxy(real.portals[0]) as proxy, redirecting(str(proxy.address), permanent) as door:
        url = f"iscsi://{door.portals[0]}/{NAME}/0"
        with blockwire.open(url, timers=TIMERS, keys={"DefaultTime2Wait": "0"}) as lun:
            assert str(lun.session.portal) == str(proxy.address)
            lun.pwrite(b"\x01" * 512, 0)
            refused = door.statistics()["refused"]
            proxy.cut_all()
            assert lun.pread(512, 0) == b"\x01" * 512
            # RFC 7143 11.13.5: 0101 is for this login, 0102 for the next ones too.
            assert door.statistics()["refused"] - refused == (0 if permanent else 1)
            assert len(proxy.connections) == 2


def test_a_circle_ends_with_its_path() -> None:
    with contextlib.ExitStack() as stack:
        # Reserved while it is open: it does not listen, and lets those bind too who say that they share.
        reserved = stack.enter_context(socket.socket())
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        there = f"127.0.0.1:{reserved.getsockname()[1]}"
        # Whoever is sent on arrives where he was sent from.
        door = stack.enter_context(redirecting(there, False))
        stack.enter_context(FaultProxy(door.portals[0], there))
        with pytest.raises(errors.LoginError) as caught:
            blockwire.open(f"iscsi://{door.portals[0]}/{NAME}/0", timers=TIMERS)
        assert caught.value.code == "login.redirect-loop"
        assert there in caught.value.evidence


def test_an_address_where_nobody_is() -> None:
    with redirecting("127.0.0.1:1", False) as door, pytest.raises(errors.UnreachableError):
        blockwire.open(f"iscsi://{door.portals[0]}/{NAME}/0", timers=TIMERS)
