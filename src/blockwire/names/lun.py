"""LUNs and their 8-byte field (SAM-5 section 4.7; RFC 7143 section 11.2.1.7)."""

from __future__ import annotations

import re

from blockwire.errors import UsageError


def encode_lun(lun: int) -> bytes:
    """The 8-byte LUN field: peripheral addressing to 255, flat to 16383, extended flat (24 bits) above."""
    if 0 <= lun < 256:
        return bytes([0, lun]) + bytes(6)
    if 256 <= lun < 1 << 14:
        return (0x4000 | lun).to_bytes(2, "big") + bytes(6)
    if 1 << 14 <= lun < 1 << 24:
        return b"\xd2" + lun.to_bytes(3, "big") + bytes(4)
    raise ValueError(f"{lun} is no LUN of one level")


def decode_lun(field: bytes) -> int | None:
    """The LUN that a peer's 8-byte field names, or ``None`` where it names a lower level or another bus."""
    method = field[0] >> 6
    if method == 0 and field[0] == 0 and not any(field[2:8]):
        return field[1]
    if method == 1 and not any(field[2:8]):
        return (field[0] & 0x3F) << 8 | field[1]
    if field[0] == 0xD2 and not any(field[4:8]):
        return int.from_bytes(field[1:4], "big")
    return None


def parse_lun(text: str) -> int:
    """A LUN as users write it: a decimal number."""
    if not re.fullmatch(r"[0-9]{1,8}", text) or int(text) >= 1 << 24:
        raise UsageError(f"not a LUN: {text!r}", code="usage.lun", next="a LUN is a number such as 0")
    return int(text)
