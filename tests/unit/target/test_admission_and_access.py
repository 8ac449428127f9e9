from __future__ import annotations

import pytest

from blockwire.names import Portal
from blockwire.target.access import AccessRules, peer_host
from blockwire.target.admission import HalfOpen, share_of
from blockwire.target.portals import discovered


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("10.0.0.1:5", "10.0.0.1"),
        ("[::1]:5", "::1"),
        ("[fe80::1%eth0]:5", "fe80::1"),
        ("::1", "::1"),
        ("local", "local"),
    ],
)
def test_peer_host(peer: str, host: str) -> None:
    assert peer_host(peer) == host


def test_nobody_listed_means_everybody() -> None:
    assert AccessRules().allows("iqn.2024-01.a:b", "10.0.0.1:5")


@pytest.mark.parametrize(
    ("name", "peer", "allowed"),
    [
        ("iqn.2024-01.com.example:a", "192.0.2.1:5", True),
        ("IQN.2024-01.com.example:A", "192.0.2.1:5", True),
        ("iqn.2024-01.com.example:b", "192.0.2.1:5", False),
        ("iqn.2024-01.com.example:b", "10.9.9.9:5", True),
        ("iqn.2024-01.com.example:b", "[fd00::7]:5", True),
        ("iqn.2024-01.com.example:b", "[fd01::7]:5", False),
        ("iqn.2024-01.com.example:b", "nonsense", False),
    ],
)
def test_a_name_or_a_network_allows(name: str, peer: str, allowed: bool) -> None:
    rules = AccessRules(["iqn.2024-01.com.example:a", "10.0.0.0/8", "fd00::/64"])
    assert rules.allows(name, peer) is allowed


def test_shares() -> None:
    assert share_of("10.0.0.1:5") == "10.0.0.1"
    assert share_of("[2001:db8::1]:5") == share_of("[2001:db8::2]:9") == "2001:db8::/64"
    assert share_of("[2001:db8:0:1::1]:5") != share_of("[2001:db8::1]:5")


def test_the_oldest_of_an_address_goes_when_its_share_is_used_up() -> None:
    gone: list[str] = []
    places = HalfOpen(total=100, per_address=2)
    places.admit("10.0.0.2:1", lambda: gone.append("honest"))
    for number in range(4):
        places.admit(f"10.0.0.1:{number}", lambda number=number: gone.append(f"flood {number}"))
    assert gone == ["flood 0", "flood 1"]
    assert (len(places), places.evicted) == (3, 2)


def test_the_oldest_of_all_goes_when_everything_is_used_up() -> None:
    gone: list[int] = []
    places = HalfOpen(total=3, per_address=2)
    tickets = [places.admit(f"10.0.0.{number}:1", lambda number=number: gone.append(number)) for number in range(3)]
    places.leave(tickets[0])
    places.leave(tickets[0])
    places.admit("10.0.0.9:1", lambda: gone.append(9))
    assert gone == []
    places.admit("10.0.0.10:1", lambda: gone.append(10))
    assert gone == [1]
    places.close()
    assert gone == [1, 2, 9, 10]
    assert len(places) == 0


def test_ten_thousand_idle_connections_leave_room() -> None:
    places = HalfOpen(total=1024, per_address=256)
    kept: list[bool] = []
    for number in range(10_000):
        places.admit(f"10.{number >> 8 & 255}.{number & 255}.1:1", lambda: None)
    ticket = places.admit("192.0.2.1:1", lambda: kept.append(False))
    assert len(places) == 1024
    places.leave(ticket)
    assert not kept


def test_discovery_answers_what_the_initiator_can_reach() -> None:
    v4, v6 = Portal("127.0.0.1", 3260), Portal("::1", 3260)
    assert discovered((), (v4, v6), "[::1]:3260") == (v6, v4)
    everything = (Portal("0.0.0.0", 3260), Portal("::", 3260))
    assert discovered((), everything, "10.1.1.1:3260") == (Portal("10.1.1.1", 3260),)
    assert discovered((), everything, "[2001:db8::1]:3260") == (Portal("2001:db8::1", 3260),)
    outside = (Portal("storage.example", 13260),)
    assert discovered(outside, (v4,), "127.0.0.1:3260") == outside
