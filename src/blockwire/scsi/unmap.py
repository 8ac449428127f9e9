"""UNMAP parameter list (SBC-3 5.27.2)."""

from __future__ import annotations

from dataclasses import dataclass

from blockwire.scsi.layout import MalformedScsiData, fits, need


@dataclass(frozen=True, slots=True)
class UnmapRange:
    """``blocks`` logical blocks from ``lba``."""

    lba: int
    blocks: int


def encode_unmap(ranges: tuple[UnmapRange, ...]) -> bytes:
    """The parameter list of an UNMAP command."""
    body = b"".join(
        fits(item.lba, 64, "LBA").to_bytes(8, "big") + fits(item.blocks, 32, "blocks").to_bytes(4, "big") + bytes(4)
        for item in ranges
    )
    return (
        fits(len(body) + 6, 16, "UNMAP DATA LENGTH").to_bytes(2, "big") + len(body).to_bytes(2, "big") + bytes(4) + body
    )


def parse_unmap(raw: bytes) -> tuple[UnmapRange, ...]:
    """Ranges of a parameter list; MalformedScsiData where a length goes beyond the data or is no whole descriptor.

    An empty list asks for nothing (SBC-3 5.27.1). A BLOCK DESCRIPTOR DATA LENGTH that is no multiple of 16 has
    its incomplete last descriptor ignored, as SBC-3 5.27.2 says.
    """
    if not raw:
        return ()
    need(raw, 8, "UNMAP parameter list")
    data, descriptors = int.from_bytes(raw[0:2], "big"), int.from_bytes(raw[2:4], "big")
    if data + 2 > len(raw):
        raise MalformedScsiData("UNMAP parameter list", f"UNMAP DATA LENGTH {data} in {len(raw)} bytes")
    if descriptors + 8 > len(raw):
        raise MalformedScsiData(
            "UNMAP parameter list", f"BLOCK DESCRIPTOR DATA LENGTH {descriptors} in {len(raw)} bytes"
        )
    return tuple(
        UnmapRange(int.from_bytes(raw[at : at + 8], "big"), int.from_bytes(raw[at + 8 : at + 12], "big"))
        for at in range(8, 8 + descriptors - 15, 16)
    )
