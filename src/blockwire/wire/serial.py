"""Serial number arithmetic over 32 bits (RFC 1982, asked for by RFC 7143 section 4.2.2.1).

Numbers that are exactly 2^31 apart are not comparable; the comparisons answer ``False`` both ways.
"""

from __future__ import annotations

from typing import Final

MODULUS: Final = 1 << 32
_HALF: Final = 1 << 31


def add(number: int, count: int) -> int:
    """``number`` advanced by ``count``, which may be negative."""
    return (number + count) % MODULUS


def distance(start: int, end: int) -> int:
    """How many steps lead from ``start`` to ``end``: -2^31 to 2^31 - 1."""
    return (end - start + _HALF) % MODULUS - _HALF


def less(left: int, right: int) -> bool:
    """Whether ``left`` comes before ``right``."""
    return 0 < (right - left) % MODULUS < _HALF


def less_equal(left: int, right: int) -> bool:
    """Whether ``left`` comes before ``right`` or is it."""
    return (right - left) % MODULUS < _HALF


def in_window(number: int, first: int, last: int) -> bool:
    """Whether ``first <= number <= last``; an empty window (``last == first - 1``) holds nothing."""
    return (number - first) % MODULUS < (last - first + 1) % MODULUS <= _HALF
