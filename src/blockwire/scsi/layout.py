"""Checked access to big-endian SCSI layouts; the one place where lengths of hostile data are compared."""

from __future__ import annotations


class MalformedScsiData(ValueError):
    """SCSI data (CDB, sense, page, parameter list) is too short or contradicts itself.

    :param what: the structure, as the standard names it, for example ``"VPD page 83h"``
    :param evidence: what was seen, with numbers
    """

    def __init__(self, what: str, evidence: str) -> None:
        super().__init__(f"{what}: {evidence}")
        self.what = what
        self.evidence = evidence


def need(data: bytes, length: int, what: str) -> None:
    """Raise :class:`MalformedScsiData` unless ``data`` holds at least ``length`` bytes."""
    if len(data) < length:
        raise MalformedScsiData(what, f"{len(data)} bytes where at least {length} are needed")


def number(data: bytes, first: int, length: int, what: str) -> int:
    """The unsigned big-endian number in ``data[first:first + length]``, checked."""
    need(data, first + length, what)
    return int.from_bytes(data[first : first + length], "big")


def fits(value: int, bits: int, what: str) -> int:
    """``value`` itself when it fits an unsigned field of ``bits`` bits, else ValueError naming the field."""
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{what} is {value}, which does not fit {bits} bits")
    return value


def ascii_field(text: str, length: int, what: str) -> bytes:
    """Left-aligned ASCII padded with spaces (SPC-4 4.3.1), codes 20h to 7Eh only."""
    raw = text.encode("ascii", "strict") if text.isascii() else b"\x00"
    if any(not 0x20 <= byte <= 0x7E for byte in raw):
        raise ValueError(f"{what} {text!r} has characters outside 20h..7Eh")
    if len(raw) > length:
        raise ValueError(f"{what} {text!r} is longer than {length} bytes")
    return raw.ljust(length, b" ")


def ascii_text(data: bytes) -> str:
    """Text of an ASCII field of a peer: trailing spaces and NULs dropped, odd bytes shown as ``\\xNN``."""
    return data.rstrip(b" \x00").decode("ascii", "backslashreplace")
