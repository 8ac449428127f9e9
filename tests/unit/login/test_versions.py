"""Versions in Login Responses (RFC 7143 11.13.1, 11.13.2), and what a Reject does to a login (11.17.1)."""

from __future__ import annotations

import pytest

from blockwire.errors import NegotiationError, ProtocolError
from blockwire.login import Admission, InitiatorLogin, LoginFailed, TargetLogin
from blockwire.wire.keys import join_pairs
from tests.unit.login.pair import INITIATOR, TARGET, Policy, counter, plan

ISID = bytes.fromhex("801234560007")


def request(flags: int, pairs: list[tuple[str, str]], version_max: int = 0) -> bytes:
    """A Login Request by the figure of 11.12: `flags` are T, C, CSG, NSG."""
    data = join_pairs(pairs)
    header = bytes([0x43, flags, version_max, 0]) + len(data).to_bytes(4, "big") + ISID + bytes(2)
    header += (1).to_bytes(4, "big") + bytes([0, 1, 0, 0]) + bytes(24)
    assert len(header) == 48
    return header + data + bytes(-len(data) % 4)


def responses(raw: bytes) -> list[bytes]:
    """The headers in what a target sent."""
    found = []
    while raw:
        length = int.from_bytes(raw[5:8], "big")
        found.append(raw[:48])
        raw = raw[48 + length + -length % 4 :]
    return found


def test_every_response_of_a_login_has_the_same_versions() -> None:
    names = [("InitiatorName", INITIATOR), ("TargetName", TARGET)]
    login = TargetLogin(Policy(), 0.0, counter())
    # security stage, its transition, the operational stage in two rounds, the last one by `admit`
    for pdu in (
        request(0x00, names, version_max=7),
        request(0x81, [("AuthMethod", "None")], version_max=7),
        request(0x04, [("MaxBurstLength", "65536")], version_max=7),
        request(0x87, [], version_max=7),
    ):
        login.handle_bytes(pdu, 0.0)
    event = login.poll_event()
    assert isinstance(event, Admission)
    login.admit(77)
    found = responses(login.poll_transmit())
    assert len(found) == 4
    assert {header[0] for header in found} == {0x23}
    assert [header[1] & 0x80 for header in found] == [0, 0x80, 0, 0x80]
    assert {header[2:4] for header in found} == {b"\x00\x00"}  # Version-max, Version-active
    # and one that refuses
    login = TargetLogin(Policy(), 0.0, counter())
    login.handle_bytes(request(0x04, names), 0.0)
    login.handle_bytes(request(0x04, [("MaxBurstLength", "x")]), 0.0)
    found = responses(login.poll_transmit())
    assert [header[36] for header in found] == [0, 2]
    assert {header[2:4] for header in found} == {b"\x00\x00"}


def response(flags: int, stat_sn: int, versions: tuple[int, int], data: bytes = b"", opcode: int = 0x23) -> bytes:
    """A Login Response by the figure of 11.13, to the plan of `pair`."""
    header = bytes([opcode, flags, *versions]) + len(data).to_bytes(4, "big") + bytes(plan().isid) + bytes(2)
    header += bytes(8) + stat_sn.to_bytes(4, "big") + (1).to_bytes(4, "big") + (8).to_bytes(4, "big") + bytes(12)
    assert len(header) == 48
    return header + data + bytes(-len(data) % 4)


def answered(*raw: bytes) -> tuple[InitiatorLogin, object]:
    login = InitiatorLogin(plan(), counter())
    login.start(0.0)
    for item in raw:
        login.handle_bytes(item, 0.0)
    return login, login.poll_event()


@pytest.mark.parametrize("version_max", [0, 3, 255])
def test_the_versions_of_the_first_response_hold(version_max: int) -> None:
    _, event = answered(response(0x81, 1, (version_max, 0)), response(0x04, 2, (version_max, 0)))
    assert event is None
    for other in {0, 3, 255} - {version_max}:
        _, event = answered(response(0x81, 1, (version_max, 0)), response(0x04, 2, (other, 0)))
        assert isinstance(event, LoginFailed)
        assert isinstance(event.error, ProtocolError)
        assert "versions changed" in str(event.error)
    _, event = answered(response(0x81, 1, (version_max, 0)), response(0x04, 2, (version_max, 1)))
    assert isinstance(event, LoginFailed)
    assert "another version" in str(event.error)


def test_an_active_version_that_is_not_ours_ends_the_login() -> None:
    _, event = answered(response(0x81, 1, (3, 1)))
    assert isinstance(event, LoginFailed)
    assert "Version-active 1" in event.error.evidence


def test_a_negotiation_reset_ends_login_and_connection() -> None:
    # 11.17.1, note 3: reason 0x0b MUST be treated as a negotiation failure (7.12)
    reject = bytes([0x3F, 0x80, 0x0B, 0]) + (48).to_bytes(4, "big") + bytes(8) + b"\xff" * 4 + bytes(28) + bytes(48)
    login, event = answered(reject)
    assert isinstance(event, LoginFailed)
    assert isinstance(event.error, NegotiationError)
    assert "0x0b" in event.error.evidence
    assert login.poll_event() is None
    # any other reason in a login is a protocol error
    _, event = answered(reject[:2] + b"\x04" + reject[3:])
    assert isinstance(event, LoginFailed)
    assert not isinstance(event.error, NegotiationError)
