"""Vendor-specific keys are used in normal sessions only (RFC 7143 13.22)."""

from __future__ import annotations

from typing import Any

import pytest

from blockwire.login import InitiatorLogin, LoginDone, TargetLogin
from blockwire.negotiate import Preferences
from tests.unit.login.pair import Policy, counter, plan, run

KEY = "X-com.example.color"


def sent(**changes: Any) -> tuple[bytes, bool]:
    """What an initiator that wants the key sends in a whole login, and whether that worked."""
    wanted = Preferences.of("initiator", {KEY: "blue"})
    initiator = InitiatorLogin(plan(preferences=wanted, **changes), counter())
    raw = b""
    poll = initiator.poll_transmit

    def tapped() -> bytes:
        nonlocal raw
        data = poll()
        raw += data
        return data

    initiator.poll_transmit = tapped  # type: ignore[method-assign]
    ended = run(initiator, TargetLogin(Policy(), 0.0, counter()))
    return raw, isinstance(ended.initiator, LoginDone)


@pytest.mark.parametrize(("session", "there"), [("Normal", True), ("Discovery", False)])
def test_a_vendor_key_goes_with_normal_sessions_alone(session: str, there: bool) -> None:
    raw, worked = sent(session_type=session, **({} if session == "Normal" else {"target_name": ""}))
    assert worked
    assert (f"{KEY}=blue\0".encode() in raw) is there
