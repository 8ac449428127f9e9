"""Secrets and where they come from; nothing here ever shows one.

Reading a file, the environment or a command is done outside this room: :class:`SecretSource` only says what to read.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Self

from blockwire.errors import ConfigurationError
from blockwire.negotiate.values import parse_binary

MIN_SECRET: Final = 12
"""96 bits: shorter secrets need IPsec (RFC 7143 section 9.2.1), which we cannot check, so they are refused."""
MAX_SECRET: Final = 255
RANDOM_BYTES: Final = 16
"""Of a secret that is made here."""
_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
"""64, so that six random bits choose one; none of them needs quoting anywhere."""
MD5_INTEROP_MAX: Final = 16
"""The longest secret that every peer takes; several stop at 16 bytes."""


class Secret:
    """A CHAP secret: 12 to 255 bytes that no repr, str, format or log shows."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        if len(value) < MIN_SECRET:
            raise ConfigurationError(
                f"a CHAP secret has at least {MIN_SECRET} bytes",
                code="configuration.secret",
                evidence=f"this one has {len(value)}",
                next="make one with `blockwire secret FILE` and set it on both sides",
            )
        if len(value) > MAX_SECRET:
            raise ConfigurationError(
                f"a CHAP secret has at most {MAX_SECRET} bytes",
                code="configuration.secret",
                evidence=f"this one has {len(value)}",
                next=f"{MIN_SECRET} to {MD5_INTEROP_MAX} bytes work with every peer",
            )
        self._value = bytes(value)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """From what stands in a file or variable: plain text, or binary as ``0x…`` (hex) or ``0b…`` (base64).

        One line end is cut off. Text that only looks like a binary value but is none is taken as plain.
        """
        text = text.removesuffix("\n").removesuffix("\r")
        if text[:2].lower() in ("0x", "0b"):
            try:
                return cls(parse_binary(text, MAX_SECRET))
            except ValueError:
                pass
        return cls(text.encode())

    @classmethod
    def draw(cls, random: Callable[[int], bytes], *, text: bool = False) -> Self:
        """A new secret of 128 bits (RFC 7143 9.2.1), drawn from ``random`` and nothing else.

        With ``text`` it is 16 printable characters of 6 random bits each, for peers that take text only: 96 bits, the
        least that the RFC allows without IPsec.
        """
        drawn = random(RANDOM_BYTES)
        if len(drawn) != RANDOM_BYTES:
            raise ValueError(f"the random source gave {len(drawn)} bytes instead of {RANDOM_BYTES}")
        return cls(bytes(_CHARACTERS[byte & 0x3F] for byte in drawn) if text else drawn)

    def to_text(self) -> str:
        """What :meth:`from_text` reads again, for the file that keeps it: plain text where that is printable, else
        ``0x…``."""
        if all(byte in _CHARACTERS for byte in self._value) and self._value[:2].lower() not in (b"0x", b"0b"):
            return self._value.decode("ascii")
        return "0x" + self._value.hex()

    def reveal(self) -> bytes:
        """The secret itself, for computing a response."""
        return self._value

    @property
    def interoperable(self) -> bool:
        """Whether every peer takes a secret of this length."""
        return len(self._value) <= MD5_INTEROP_MAX

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret is to be read from: a file of mode 0600, an environment variable, or a command's output."""

    kind: Literal["file", "environment", "command", "url"]
    where: str

    def __repr__(self) -> str:
        return "SecretSource(url, ***)" if self.kind == "url" else f"SecretSource({self.kind}, {self.where!r})"


@dataclass(frozen=True, slots=True)
class Account:
    """A CHAP name (CHAP_N) and its secret."""

    name: str
    secret: Secret

    def __post_init__(self) -> None:
        if not self.name or len(self.name.encode()) > 255 or "\0" in self.name:
            raise ConfigurationError("a CHAP name has 1 to 255 bytes and no null", code="configuration.account")


@dataclass(frozen=True, slots=True)
class InitiatorCredentials:
    """What an initiator authenticates with, and whom it expects at the other end (mutual CHAP)."""

    account: Account
    target: Account | None = None

    def __post_init__(self) -> None:
        check_directions([self.account], [self.target] if self.target else [])


@dataclass(frozen=True, slots=True)
class TargetAuthentication:
    """What a target asks of an initiator.

    Attributes:
        accounts: the initiators that may log in, by CHAP name; empty means that none need authenticate.
        identity: how the target proves itself when an initiator asks for it; ``None`` refuses mutual CHAP.
        required: whether AuthMethod=None is refused.
    """

    accounts: tuple[Account, ...] = ()
    identity: Account | None = None
    required: bool = True

    def __post_init__(self) -> None:
        check_directions(self.accounts, [self.identity] if self.identity else [])

    def account(self, name: str) -> Account | None:
        """The account of a CHAP name."""
        return next((account for account in self.accounts if account.name == name), None)


def check_directions(initiators: list[Account] | tuple[Account, ...], targets: list[Account]) -> None:
    """Refuse a secret that would authenticate both directions (RFC 7143 section 9.2.1)."""
    for initiator in initiators:
        for target in targets:
            if initiator.secret == target.secret:
                raise ConfigurationError(
                    f"initiator account {initiator.name!r} and target account {target.name!r} share a secret",
                    code="configuration.secret",
                    evidence="RFC 7143 section 9.2.1: one secret for both directions can be reflected",
                    next="give each direction a secret of its own",
                )
