"""CRC32C, the digest of RFC 7143 section 13.1, by a table of bytes; the data plane has the fast one."""

from __future__ import annotations

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78  # 0x11EDC6F41 without its top bit, bits reversed


def _row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE: Final = tuple(_row(value) for value in range(256))


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The CRC of ``data``; pass an earlier result as ``crc`` to go on with more data."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """The four digest bytes as they go on the wire (13.1: x^31 is bit 7 of the lowest numbered byte)."""
    return crc32c(data).to_bytes(4, "little")
