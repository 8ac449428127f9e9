"""REPORT LUNS parameter data (SPC-4 6.33). A single LUN field is :func:`blockwire.names.encode_lun`."""

from __future__ import annotations

from blockwire.scsi.layout import MalformedScsiData, need

REPORT_LUNS_WELL_KNOWN = bytes([0xC1, 0x01, 0, 0, 0, 0, 0, 0])
"""The LUN field of the REPORT LUNS well-known logical unit (SAM-5 4.7.5.6)."""


def encode_lun_list(luns: tuple[bytes, ...]) -> bytes:
    """REPORT LUNS data from 8-byte LUN fields."""
    if any(len(lun) != 8 for lun in luns):
        raise ValueError("a LUN field has 8 bytes")
    return (8 * len(luns)).to_bytes(4, "big") + bytes(4) + b"".join(luns)


def parse_lun_list(raw: bytes) -> tuple[tuple[bytes, ...], int]:
    """LUN fields that arrived whole, and how many the device server has (ask again with more room if it is more)."""
    need(raw, 8, "REPORT LUNS data")
    length = int.from_bytes(raw[0:4], "big")
    if length % 8:
        raise MalformedScsiData("REPORT LUNS data", f"LUN LIST LENGTH {length} is no multiple of 8")
    end = min(len(raw), 8 + length)
    return tuple(bytes(raw[at : at + 8]) for at in range(8, end - 7, 8)), length // 8
