"""CHAP of both roles: RFC 1994, RFC 7143 sections 9.2.1 and 12.1.3."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import pytest

from blockwire.auth import (
    Account,
    ChapInitiator,
    ChapTarget,
    InitiatorCredentials,
    OutstandingChallenges,
    Secret,
    SecretSource,
    TargetAuthentication,
)
from blockwire.errors import AuthenticationError, ConfigurationError, LoginError
from tests.unit.login.pair import counter

JOE = Account("joe", Secret(b"joes-secret-12"))
DISK = Account("disk", Secret(b"disks-secret-1"))


def pair(
    credentials: InitiatorCredentials | None = None, policy: TargetAuthentication | None = None, **target: Any
) -> tuple[ChapInitiator, ChapTarget]:
    return (
        ChapInitiator(credentials or InitiatorCredentials(JOE, DISK), counter(), OutstandingChallenges()),
        ChapTarget(policy or TargetAuthentication((JOE,), DISK), counter(500), OutstandingChallenges(), **target),
    )


def exchange(initiator: ChapInitiator, target: ChapTarget) -> None:
    challenge = target.receive(dict(initiator.offer()))
    response = initiator.receive(dict(challenge))
    proof = target.receive(dict(response))
    if proof:
        initiator.receive(dict(proof))


@pytest.mark.parametrize(("number", "name"), [(5, "md5"), (6, "sha1"), (7, "sha256"), (8, "sha3_256")])
def test_response_is_hash_of_identifier_secret_challenge(number: int, name: str) -> None:
    # RFC 1994 section 4.1, computed here without our code.
    initiator = ChapInitiator(InitiatorCredentials(JOE), counter(), OutstandingChallenges())
    challenge = b"0123456789abcdef"
    got = dict(initiator.receive({"CHAP_A": str(number), "CHAP_I": "7", "CHAP_C": "0x" + challenge.hex()}))
    assert got["CHAP_R"] == "0x" + hashlib.new(name, b"\x07joes-secret-12" + challenge).hexdigest()
    assert got["CHAP_N"] == "joe"
    assert initiator.done


@pytest.mark.parametrize("algorithms", [(5,), (6,), (7,), (8,)])
def test_mutual(algorithms: tuple[int, ...]) -> None:
    initiator, target = pair(algorithms=algorithms)
    exchange(initiator, target)
    assert initiator.done
    assert target.done
    assert target.account_name == "joe"
    assert not initiator.outstanding
    assert not target.outstanding


def test_the_targets_choice_is_the_initiators_first() -> None:
    initiator, target = pair(algorithms=(5, 6))
    assert dict(initiator.offer())["CHAP_A"] == "8,7,6,5"
    assert dict(target.receive({"CHAP_A": "8,6,5"}))["CHAP_A"] == "6"


def test_one_way() -> None:
    initiator, target = pair(InitiatorCredentials(JOE), TargetAuthentication((JOE,)))
    exchange(initiator, target)
    assert initiator.done
    assert target.done


@pytest.mark.parametrize(
    ("credentials", "policy"),
    [
        (InitiatorCredentials(Account("joe", Secret(b"another-secret"))), TargetAuthentication((JOE,))),
        (InitiatorCredentials(Account("eve", JOE.secret)), TargetAuthentication((JOE,))),
        (InitiatorCredentials(JOE, Account("disk", Secret(b"another-secret"))), TargetAuthentication((JOE,), DISK)),
        (InitiatorCredentials(JOE, Account("other", DISK.secret)), TargetAuthentication((JOE,), DISK)),
        (InitiatorCredentials(JOE, DISK), TargetAuthentication((JOE,))),
    ],
)
def test_failures(credentials: InitiatorCredentials, policy: TargetAuthentication) -> None:
    initiator, target = pair(credentials, policy)
    with pytest.raises(AuthenticationError) as caught:
        exchange(initiator, target)
    assert caught.value.status == 0x0201


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({}, 0x0207),
        ({"CHAP_A": "4"}, 0x0201),
        ({"CHAP_A": "x"}, 0x0200),
        ({"CHAP_A": ""}, 0x0200),
        ({"CHAP_A": "5", "CHAP_N": "joe"}, 0x0200),
        ({"CHAP_N": "joe", "CHAP_R": "0x00"}, 0x0207),
    ],
)
def test_bad_first_steps(keys: dict[str, str], status: int) -> None:
    # 9.2: "Initiator Error" or "Missing Parameter"; 12.1.3: no algorithm in common is an authentication failure.
    with pytest.raises(LoginError) as caught:
        pair()[1].receive(keys)
    assert f"{caught.value.status:04x}" == f"{status:04x}"


RIGHT = "right"
"""Stands for the response that fits the challenge."""


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"CHAP_N": "joe", "CHAP_R": "0x00"}, 0x0201),  # the one that is cryptographically wrong
        ({"CHAP_N": "eve", "CHAP_R": RIGHT}, 0x0201),
        *(({"CHAP_N": "joe", "CHAP_R": response}, 0x0200) for response in ("", "0x", "00", "0b", "0x" + "00" * 1025)),
        ({}, 0x0207),
        ({"CHAP_N": "joe"}, 0x0207),
        ({"CHAP_R": RIGHT}, 0x0207),
        ({"CHAP_N": "joe", "CHAP_I": "1", "CHAP_C": "0x00"}, 0x0207),  # the reflection attack that 9.2 describes
        ({"CHAP_N": "joe", "CHAP_R": RIGHT, "CHAP_I": "1"}, 0x0207),
        ({"CHAP_N": "joe", "CHAP_R": RIGHT, "CHAP_C": "0x00"}, 0x0207),
        ({"CHAP_N": "joe", "CHAP_R": RIGHT, "CHAP_I": "256", "CHAP_C": "0x00"}, 0x0200),
        ({"CHAP_N": "joe", "CHAP_R": RIGHT, "CHAP_I": "1", "CHAP_C": "zz"}, 0x0200),
        ({"CHAP_N": "joe", "CHAP_R": RIGHT, "CHAP_I": "1", "CHAP_C": "0x" + "00" * 1025}, 0x0200),
        ({"CHAP_N": "joe", "CHAP_R": RIGHT, "CHAP_A": "5"}, 0x0200),  # a key of another step
    ],
)
def test_bad_second_steps(keys: dict[str, str], status: int) -> None:
    # 9.2: keys or values that are not those of the step are no authentication failure.
    _, target = pair()
    challenge = dict(target.receive({"CHAP_A": "5"}))
    identifier, value = int(challenge["CHAP_I"]), bytes.fromhex(challenge["CHAP_C"][2:])
    right = "0x" + hashlib.md5(bytes([identifier]) + JOE.secret.reveal() + value).hexdigest()
    with pytest.raises(LoginError) as caught:
        target.receive({name: right if text is RIGHT else text for name, text in keys.items()})
    assert f"{caught.value.status:04x}" == f"{status:04x}"
    assert not target.done


def test_keys_after_the_end() -> None:
    initiator, target = pair()
    exchange(initiator, target)
    with pytest.raises(LoginError) as caught:
        target.receive({"CHAP_A": "5"})
    assert caught.value.status == 0x0200


@pytest.mark.parametrize(
    "keys",
    [
        {"CHAP_A": "9", "CHAP_I": "1", "CHAP_C": "0x00"},
        {"CHAP_A": "5", "CHAP_I": "256", "CHAP_C": "0x00"},
        {"CHAP_A": "5", "CHAP_I": "1"},
        {"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": "0x" + "00" * 1025},
        {"CHAP_A": "5", "CHAP_C": "0x00"},
    ],
)
def test_bad_challenges(keys: dict[str, str]) -> None:
    with pytest.raises(AuthenticationError):
        pair()[0].receive(keys)


def test_reflection_within_a_connection() -> None:
    # 9.2.1: originators MUST NOT reuse the challenge; responders MUST check.
    _, target = pair()
    challenge = dict(target.receive({"CHAP_A": "5"}))
    identifier, value = int(challenge["CHAP_I"]), bytes.fromhex(challenge["CHAP_C"][2:])
    response = hashlib.md5(bytes([identifier]) + JOE.secret.reveal() + value).hexdigest()
    with pytest.raises(AuthenticationError) as caught:
        target.receive({"CHAP_N": "joe", "CHAP_R": "0x" + response, "CHAP_I": "3", "CHAP_C": challenge["CHAP_C"]})
    assert "reflection" in caught.value.evidence


def test_reflection_across_connections() -> None:
    # 9.2.1 a) to d): a rogue gives our challenge of connection 1 back to us on connection 2.
    registry = OutstandingChallenges()
    random = counter()
    first = ChapInitiator(InitiatorCredentials(JOE, DISK), random, registry)
    second = ChapInitiator(InitiatorCredentials(JOE, DISK), random, registry)
    ours = dict(first.receive({"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": "0x1234"}))
    with pytest.raises(AuthenticationError) as caught:
        second.receive({"CHAP_A": "5", "CHAP_I": ours["CHAP_I"], "CHAP_C": ours["CHAP_C"]})
    assert "reflection" in caught.value.evidence
    first.close()
    assert not registry


def test_reflection_across_connections_at_the_target() -> None:
    # 9.2.1: an account holder asks for the target's proof of a challenge that the target itself has sent to another
    registry = OutstandingChallenges()
    random = counter()
    policy = TargetAuthentication((JOE,), DISK)
    first, second = ChapTarget(policy, random, registry), ChapTarget(policy, random, registry)
    other = dict(first.receive({"CHAP_A": "5"}))
    mine = dict(second.receive({"CHAP_A": "5"}))
    proof = bytes([int(mine["CHAP_I"])]) + JOE.secret.reveal() + bytes.fromhex(mine["CHAP_C"][2:])
    keys = {"CHAP_N": "joe", "CHAP_R": "0x" + hashlib.md5(proof).hexdigest(), "CHAP_I": other["CHAP_I"]}
    with pytest.raises(AuthenticationError) as caught:
        second.receive({**keys, "CHAP_C": other["CHAP_C"]})
    assert "reflection" in caught.value.evidence
    assert not second.done


def test_an_algorithm_that_exists_and_was_not_offered_is_refused() -> None:
    initiator = ChapInitiator(InitiatorCredentials(JOE), counter(), OutstandingChallenges(), algorithms=(8, 7))
    with pytest.raises(AuthenticationError, match="not offered"):
        initiator.receive({"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": "0x1234"})
    assert not initiator.challenged


def test_a_response_made_with_the_receivers_own_secret_is_refused() -> None:
    # 9.2.1: "the same as the CHAP response that the receiving endpoint would have generated"
    rogue = TargetAuthentication((JOE,), DISK)
    initiator, target = pair(InitiatorCredentials(JOE, Account("disk", Secret(b"whatever-secret"))), rogue)
    challenge = target.receive(dict(initiator.offer()))
    keys = dict(initiator.receive(dict(challenge)))
    identifier, value = int(keys["CHAP_I"]), bytes.fromhex(keys["CHAP_C"][2:])
    own = hashlib.new("sha3_256", bytes([identifier]) + JOE.secret.reveal() + value).hexdigest()
    with pytest.raises(AuthenticationError) as caught:
        initiator.receive({"CHAP_N": "disk", "CHAP_R": "0x" + own})
    assert "own secret" in str(caught.value)


def test_secrets_have_rules() -> None:
    for bad in (b"", b"elevenbytes", b"x" * 256):
        with pytest.raises(ConfigurationError):
            Secret(bad)
    assert Secret(b"x" * 255).interoperable is False
    assert Secret.from_text("twelve-bytes\n").reveal() == b"twelve-bytes"
    assert Secret.from_text("0x" + "ab" * 12).reveal() == b"\xab" * 12
    assert Secret.from_text("0b" + "AAAA" * 4).reveal() == bytes(12)
    assert Secret.from_text("0xnot-hex-at-all").reveal() == b"0xnot-hex-at-all"


def test_one_secret_for_both_directions_is_refused_at_configuration() -> None:
    same = Account("disk", Secret(JOE.secret.reveal()))
    with pytest.raises(ConfigurationError):
        InitiatorCredentials(JOE, same)
    with pytest.raises(ConfigurationError):
        TargetAuthentication((JOE,), same)


def test_nothing_shows_a_secret() -> None:
    initiator, target = pair()
    source = SecretSource("url", "joes-secret-12")
    shown = f"{JOE!r} {initiator!r} {target!r} {JOE.secret} {source!r} {InitiatorCredentials(JOE)}"
    assert "joes-secret" not in shown
    assert pickle.loads(pickle.dumps(JOE)) == JOE


def test_a_recorded_response_is_refused_at_the_next_login() -> None:
    """RFC 7143 section 9.2.1: the challenge of each login is new, so what an eavesdropper heard proves nothing."""
    initiator, target = pair(InitiatorCredentials(JOE))
    challenge = dict(target.receive(dict(initiator.offer())))
    heard = dict(initiator.receive(challenge))
    target.receive(heard)
    later = ChapTarget(TargetAuthentication((JOE,), DISK), counter(900), OutstandingChallenges())
    fresh = dict(
        later.receive(dict(ChapInitiator(InitiatorCredentials(JOE), counter(), OutstandingChallenges()).offer()))
    )
    assert fresh["CHAP_C"] != challenge["CHAP_C"]
    with pytest.raises(AuthenticationError):
        later.receive(heard)
