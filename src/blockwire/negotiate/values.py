"""The value formats of RFC 7143 section 6.1: text to Python and back; ``ValueError`` says what is wrong."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

MAX_SIMPLE_VALUE: Final = 255
"""Longest simple value in bytes, if its key says nothing else (6.1)."""

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_HEX: Final = re.compile(r"0[xX]([0-9a-fA-F]+)")
_BASE64: Final = re.compile(r"0[bB]([0-9A-Za-z+/]+={0,2})")
_TEXT: Final = re.compile(r"[A-Za-z0-9.\-+@_/\[\]:]*")


def parse_number(text: str) -> int:
    """A numerical-value: decimal without leading zeros, or 0x…; below 2^64."""
    if _DECIMAL.fullmatch(text):
        value = int(text)
    else:
        match = _HEX.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no number")
        value = int(match[1], 16)
    if value >= 1 << 64:
        raise ValueError(f"{text!r} is 2^64 or more")
    return value


def parse_range(text: str) -> tuple[int, int]:
    """A numerical-range ``a~b`` with a not above b."""
    low_text, tilde, high_text = text.partition("~")
    if not tilde:
        raise ValueError(f"{text!r} is no range")
    low, high = parse_number(low_text), parse_number(high_text)
    if low > high:
        raise ValueError(f"the range {text!r} is empty")
    return low, high


def parse_boolean(text: str) -> bool:
    """``Yes`` or ``No``, nothing else (6.1: case sensitive)."""
    if text not in ("Yes", "No"):
        raise ValueError(f"{text!r} is neither Yes nor No")
    return text == "Yes"


def format_boolean(value: bool) -> str:
    """``Yes`` or ``No``."""
    return "Yes" if value else "No"


def parse_list(text: str) -> list[str]:
    """A list-of-values: text values between commas, each at most 255 bytes and not empty."""
    items = text.split(",")
    for item in items:
        if not item or not _TEXT.fullmatch(item) or len(item) > MAX_SIMPLE_VALUE:
            raise ValueError(f"{item[:40]!r} is no item of a list")
    return items


def parse_binary(text: str, max_length: int) -> bytes:
    """A binary-value in hex or base64 with its implicit length (6.1), at most ``max_length`` bytes.

    n hexadecimal digits are (n + 1) // 2 bytes; an odd one stands in front.
    """
    match = _HEX.fullmatch(text)
    if match is not None:
        digits = match[1]
        if len(digits) > 2 * max_length:
            raise ValueError(f"a binary value is longer than {max_length} bytes")
        return bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits)
    match = _BASE64.fullmatch(text)
    if match is None:
        raise ValueError("a binary value is neither 0x… nor 0b…")
    try:
        value = base64.b64decode(match[1] + "=" * (-len(match[1].rstrip("=")) % 4 - match[1].count("=")), validate=True)
    except binascii.Error:
        raise ValueError("a binary value is not base64") from None
    if len(value) > max_length:
        raise ValueError(f"a binary value is longer than {max_length} bytes")
    return value


def format_binary(value: bytes, encoding: str = "hex") -> str:
    """``value`` as 0x… or, with ``encoding="base64"``, as 0b…."""
    if encoding == "base64":
        return "0b" + base64.b64encode(value).decode("ascii")
    return "0x" + value.hex()
