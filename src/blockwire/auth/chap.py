"""CHAP for both roles (RFC 1994, RFC 7143 sections 9.2.1 and 12.1.3), without I/O.

A machine takes the security keys of one text segment and gives those of the answer. Anything wrong ends in
:class:`blockwire.errors.LoginError`, of which the target sends the status: 0207 for a key that is missing, 0200 for one
that does not belong there or is malformed, 0201 for a proof that is wrong (9.2).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from blockwire.auth.algorithms import ALGORITHMS, PREFERRED, Algorithm
from blockwire.auth.secrets import InitiatorCredentials, TargetAuthentication
from blockwire.errors import LoginError, login_error
from blockwire.negotiate.values import format_binary, parse_binary, parse_list, parse_number
from blockwire.wire.constants import LoginStatus
from blockwire.wire.keys import Pairs

MAX_BINARY: Final = 1024
"""Longest challenge or response in bytes (12.1.3)."""

Random = Callable[[int], bytes]
"""Draws that many unpredictable bytes."""


class Outstanding(Protocol):
    """The challenges that this node has sent and that are not answered yet, over all its connections (9.2.1)."""

    def add(self, challenge: bytes) -> None:
        """Remember a challenge that goes out."""

    def discard(self, challenge: bytes) -> None:
        """Forget it: it was answered, or its login ended."""

    def __contains__(self, challenge: object) -> bool: ...


class OutstandingChallenges(set[bytes]):
    """The plain registry; an Initiator or a Target owns one and passes it to every login."""


def authentication_failure(message: str, **details: str) -> LoginError:
    """Status 0201."""
    return login_error(LoginStatus.AUTHENTICATION_FAILURE, message, **details)


@dataclass(frozen=True, slots=True)
class _Step:
    """The keys of one step, and with which status they are refused when they are not those of the step's definition."""

    keys: dict[str, str]
    missing: LoginStatus
    wrong: LoginStatus

    @classmethod
    def of_initiator(cls, keys: dict[str, str]) -> _Step:
        """A target MUST refuse them with "Initiator Error" or "Missing Parameter" (9.2)."""
        return cls(keys, LoginStatus.MISSING_PARAMETER, LoginStatus.INITIATOR_ERROR)

    @classmethod
    def of_target(cls, keys: dict[str, str]) -> _Step:
        """An initiator sends no status: it closes the connection (9.2)."""
        return cls(keys, LoginStatus.AUTHENTICATION_FAILURE, LoginStatus.AUTHENTICATION_FAILURE)

    def _error(self, status: LoginStatus, message: str, **details: str) -> LoginError:
        if status is not LoginStatus.AUTHENTICATION_FAILURE:
            details["whose"] = "peer"
        return login_error(status, message, **details)

    def refusal(self, message: str, **details: str) -> LoginError:
        return self._error(self.wrong, message, **details)

    def only(self, *names: str) -> None:
        """No other keys than these."""
        others = sorted(set(self.keys) - set(names))
        if others:
            raise self.refusal("keys of another step of CHAP", evidence=" ".join(others))

    def required(self, name: str) -> str:
        value = self.keys.get(name)
        if value is None:
            raise self._error(self.missing, f"the peer sent no {name}")
        return value

    def binary(self, name: str) -> bytes:
        try:
            value = parse_binary(self.required(name), MAX_BINARY)
        except ValueError as error:
            raise self.refusal(f"{name} is malformed", evidence=str(error)) from None
        if not value:
            raise self.refusal(f"{name} is empty")
        return value

    def identifier(self) -> int:
        try:
            value = parse_number(self.required("CHAP_I"))
        except ValueError:
            value = -1
        if not 0 <= value <= 255:
            raise self.refusal("CHAP_I is not a number of 8 bits")
        return value


@dataclass(slots=True)
class _Challenge:
    """A challenge of ours and its place in the registry."""

    algorithm: Algorithm
    identifier: int
    value: bytes
    registry: Outstanding

    @classmethod
    def draw(cls, algorithm: Algorithm, random: Random, registry: Outstanding) -> _Challenge:
        drawn = random(1 + algorithm.length)
        registry.add(drawn[1:])
        return cls(algorithm, drawn[0], drawn[1:], registry)

    def keys(self) -> Pairs:
        return [("CHAP_I", str(self.identifier)), ("CHAP_C", format_binary(self.value))]

    def verify(self, response: bytes, secret: bytes) -> bool:
        return hmac.compare_digest(self.algorithm.response(self.identifier, secret, self.value), response)

    def forget(self) -> None:
        self.registry.discard(self.value)


@dataclass(slots=True)
class ChapTarget:
    """The target's side: picks the algorithm, challenges, verifies, and proves itself when asked."""

    policy: TargetAuthentication
    random: Random
    outstanding: Outstanding
    algorithms: tuple[int, ...] = PREFERRED
    account_name: str = ""
    """The CHAP name that was authenticated."""
    done: bool = False
    _challenge: _Challenge | None = field(default=None, repr=False)

    def receive(self, keys: dict[str, str]) -> Pairs:
        """Take the initiator's CHAP keys; the keys that go back."""
        step = _Step.of_initiator(keys)
        if self.done:
            raise step.refusal("CHAP keys came after the authentication was done")
        if self._challenge is None:
            return self._choose(step)
        return self._verify(step, self._challenge)

    def close(self) -> None:
        """The login ended: the challenge is no longer outstanding."""
        if self._challenge is not None:
            self._challenge.forget()

    def _choose(self, step: _Step) -> Pairs:
        text = step.required("CHAP_A")
        step.only("CHAP_A")
        try:
            offered = [parse_number(item) for item in parse_list(text)]
        except ValueError as error:
            raise step.refusal("CHAP_A is malformed", evidence=str(error)) from None
        # The first of the initiator's list that we support (6.2.1).
        number = next((n for n in offered if n in self.algorithms and n in ALGORITHMS), None)
        if number is None:
            raise authentication_failure(
                "no CHAP algorithm in common",
                evidence=f"CHAP_A={text[:60]}",
                next="allow one of " + ", ".join(ALGORITHMS[n].name for n in self.algorithms),
            )
        self._challenge = _Challenge.draw(ALGORITHMS[number], self.random, self.outstanding)
        return [("CHAP_A", str(number)), *self._challenge.keys()]

    def _verify(self, step: _Step, challenge: _Challenge) -> Pairs:
        challenge.forget()
        step.only("CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C")
        name, response = step.required("CHAP_N"), step.binary("CHAP_R")
        mutual = "CHAP_I" in step.keys or "CHAP_C" in step.keys
        asked = (step.identifier(), step.binary("CHAP_C")) if mutual else None
        account = self.policy.account(name)
        secret = account.secret.reveal() if account is not None else b""
        matches = challenge.verify(response, secret)
        if account is None or not matches:
            # One message for both, so that names cannot be probed.
            raise authentication_failure("the CHAP name or response is wrong", evidence=f"CHAP_N={name[:60]}")
        identity = self.policy.identity
        if identity is not None and challenge.verify(response, identity.secret.reveal()):
            # 9.2.1: what we would have answered ourselves is no proof.
            raise authentication_failure(
                "the initiator uses the target's own secret", next="give each direction a secret of its own"
            )
        answer: Pairs = []
        if asked is not None:
            answer = self._prove(*asked, challenge)
        self.account_name = name
        self.done = True
        return answer

    def _prove(self, identifier: int, theirs: bytes, challenge: _Challenge) -> Pairs:
        if theirs == challenge.value or theirs in self.outstanding:
            raise authentication_failure(
                "a challenge of ours came back", evidence="CHAP reflection, RFC 7143 section 9.2.1"
            )
        identity = self.policy.identity
        if identity is None:
            raise authentication_failure(
                "the initiator asks for mutual CHAP and the target has no identity",
                next="configure the target's own CHAP name and secret",
            )
        response = challenge.algorithm.response(identifier, identity.secret.reveal(), theirs)
        return [("CHAP_N", identity.name), ("CHAP_R", format_binary(response))]


@dataclass(slots=True)
class ChapInitiator:
    """The initiator's side: offers algorithms, answers the challenge, and challenges the target for mutual CHAP."""

    credentials: InitiatorCredentials
    random: Random
    outstanding: Outstanding
    algorithms: tuple[int, ...] = PREFERRED
    done: bool = False
    """Whether nothing more has to come from the target."""
    challenged: bool = False
    """Whether the target has sent its challenge."""
    algorithm: int | None = None
    """The algorithm that the target picked; until then a failure may be its dislike of the list."""
    _challenge: _Challenge | None = field(default=None, repr=False)

    def offer(self) -> Pairs:
        """The first step: CHAP_A, in order of preference."""
        return [("CHAP_A", ",".join(str(number) for number in self.algorithms))]

    def receive(self, keys: dict[str, str]) -> Pairs:
        """Take the target's CHAP keys; the keys that go back (none when it is done)."""
        if not self.challenged:
            return self._respond(keys)
        if self._challenge is not None and not self.done:
            self._check_target(keys, self._challenge)
            return []
        raise authentication_failure("CHAP keys came after the authentication was done")

    def close(self) -> None:
        """The login ended: the challenge is no longer outstanding."""
        if self._challenge is not None:
            self._challenge.forget()

    def _respond(self, keys: dict[str, str]) -> Pairs:
        step = _Step.of_target(keys)
        try:
            number = parse_number(step.required("CHAP_A"))
        except ValueError:
            number = -1
        if number not in self.algorithms:
            raise authentication_failure(
                "the target picked an algorithm that was not offered", evidence=f"CHAP_A={keys['CHAP_A'][:20]}"
            )
        identifier, theirs = step.identifier(), step.binary("CHAP_C")
        self.challenged, self.algorithm = True, number
        if theirs in self.outstanding:
            # 9.2.1: a rogue reflects a challenge of ours from another connection.
            raise authentication_failure(
                "a challenge of ours came back", evidence="CHAP reflection, RFC 7143 section 9.2.1"
            )
        algorithm = ALGORITHMS[number]
        account = self.credentials.account
        response = algorithm.response(identifier, account.secret.reveal(), theirs)
        answer: Pairs = [("CHAP_N", account.name), ("CHAP_R", format_binary(response))]
        if self.credentials.target is None:
            self.done = True
            return answer
        self._challenge = _Challenge.draw(algorithm, self.random, self.outstanding)
        if self._challenge.value == theirs:
            raise authentication_failure("the random source repeats itself", whose="local")
        return answer + self._challenge.keys()

    def _check_target(self, keys: dict[str, str], challenge: _Challenge) -> None:
        challenge.forget()
        expected = self.credentials.target
        assert expected is not None
        step = _Step.of_target(keys)
        name, response = step.required("CHAP_N"), step.binary("CHAP_R")
        if challenge.verify(response, self.credentials.account.secret.reveal()):
            raise authentication_failure(
                "the target uses the initiator's own secret", next="give each direction a secret of its own"
            )
        if not challenge.verify(response, expected.secret.reveal()) or name != expected.name:
            raise authentication_failure(
                "the target could not prove who it is",
                evidence=f"CHAP_N={name[:60]}",
                next="check the mutual CHAP user and secret",
            )
        self.done = True
