"""The ISID (RFC 7143 section 11.12.5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from blockwire.errors import UsageError


@dataclass(frozen=True, slots=True, order=True)
class Isid:
    """The initiator's part of the session identifier: 48 bits, of which T (two bits) names the format."""

    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value < 1 << 48:
            raise ValueError("an ISID has 48 bits")

    @classmethod
    def from_oui(cls, oui: int, qualifier: int) -> Self:
        """T=00b: a 22-bit OUI (without the I/G and U/L bits) and a 24-bit qualifier."""
        return cls._make(0, oui, 22, qualifier, 24)

    @classmethod
    def from_enterprise(cls, number: int, qualifier: int) -> Self:
        """T=01b: a 24-bit IANA enterprise number and a 16-bit qualifier."""
        return cls._make(1, number, 24, qualifier, 16)

    @classmethod
    def from_random(cls, random24: int, qualifier: int) -> Self:
        """T=10b: 24 random bits, which the caller draws, and a 16-bit qualifier."""
        return cls._make(2, random24, 24, qualifier, 16)

    @classmethod
    def _make(cls, kind: int, authority: int, authority_bits: int, qualifier: int, qualifier_bits: int) -> Self:
        if not (0 <= authority < 1 << authority_bits and 0 <= qualifier < 1 << qualifier_bits):
            raise ValueError(f"an ISID of type {kind} has {authority_bits} + {qualifier_bits} bits")
        return cls(kind << 46 | authority << qualifier_bits | qualifier)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """From the six bytes 8 to 13 of a login PDU."""
        if len(data) != 6:
            raise ValueError("an ISID has 6 bytes")
        return cls(int.from_bytes(data, "big"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``0x`` and 12 hexadecimal digits; colons between bytes are accepted."""
        digits = text.strip().lower().removeprefix("0x").replace(":", "")
        if not re.fullmatch(r"[0-9a-f]{12}", digits):
            raise UsageError(
                f"not an ISID: {text!r}", code="usage.isid", next="write it as 0x and 12 hexadecimal digits"
            )
        return cls(int(digits, 16))

    @property
    def t(self) -> int:
        """The format: 0 OUI, 1 enterprise number, 2 random, 3 reserved."""
        return self.value >> 46

    @property
    def a(self) -> int:
        """Field A, 6 bits."""
        return self.value >> 40 & 0x3F

    @property
    def b(self) -> int:
        """Field B, 16 bits."""
        return self.value >> 24 & 0xFFFF

    @property
    def c(self) -> int:
        """Field C, 8 bits."""
        return self.value >> 16 & 0xFF

    @property
    def d(self) -> int:
        """Field D, 16 bits."""
        return self.value & 0xFFFF

    def with_qualifier(self, qualifier: int) -> Self:
        """The same authority with another qualifier (its low bits: 24 for T=00b, 16 otherwise)."""
        bits = 24 if self.t == 0 else 16
        return type(self)(self.value >> bits << bits | qualifier & (1 << bits) - 1)

    def __bytes__(self) -> bytes:
        return self.value.to_bytes(6, "big")

    def __str__(self) -> str:
        return f"0x{self.value:012x}"
