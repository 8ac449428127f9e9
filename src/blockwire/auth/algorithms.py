"""CHAP algorithms by their IANA numbers (RFC 1994 section 4.1; RFC 7143 section 12.1.3 for MD5)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One hash: its number in CHAP_A, its name, the length of its digest in bytes."""

    number: int
    name: str
    length: int
    new: Callable[..., Any]

    def response(self, identifier: int, secret: bytes, challenge: bytes) -> bytes:
        """H(identifier | secret | challenge) (RFC 1994 section 4.1)."""
        result: bytes = self.new(bytes([identifier]) + secret + challenge, usedforsecurity=True).digest()
        return result


ALGORITHMS: Final[dict[int, Algorithm]] = {
    row.number: row
    for row in (
        Algorithm(5, "MD5", 16, hashlib.md5),
        Algorithm(6, "SHA1", 20, hashlib.sha1),
        Algorithm(7, "SHA-256", 32, hashlib.sha256),
        Algorithm(8, "SHA3-256", 32, hashlib.sha3_256),
    )
}

PREFERRED: Final = (8, 7, 6, 5)
"""The offer, strongest first; MD5 is always in it (12.1.3)."""
MD5_ONLY: Final = (5,)
"""The offer to a peer that chokes on a list."""
