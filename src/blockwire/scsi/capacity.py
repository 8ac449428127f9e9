"""READ CAPACITY (SBC-3 5.15, 5.16) and GET LBA STATUS (5.4) parameter data, both ways."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from blockwire.scsi.layout import MalformedScsiData, fits, need


@dataclass(frozen=True, slots=True)
class Capacity10:
    """READ CAPACITY(10) data: ``last_lba`` is FFFFFFFFh when READ CAPACITY(16) has to be asked."""

    last_lba: int
    block_length: int

    @classmethod
    def of(cls, blocks: int, block_length: int) -> Capacity10:
        """From the number of logical blocks, saturated as SBC-3 5.15.2 says."""
        return cls(min(blocks - 1, 0xFFFFFFFF), block_length)

    def encode(self) -> bytes:
        """Eight bytes."""
        last = fits(self.last_lba, 32, "last LBA")
        return last.to_bytes(4, "big") + fits(self.block_length, 32, "block length").to_bytes(4, "big")

    @classmethod
    def parse(cls, raw: bytes) -> Capacity10:
        """From at least eight bytes."""
        need(raw, 8, "READ CAPACITY(10) data")
        return cls(int.from_bytes(raw[0:4], "big"), int.from_bytes(raw[4:8], "big"))


@dataclass(frozen=True, slots=True)
class Capacity16:
    """READ CAPACITY(16) data.

    ``block_length`` in bytes. ``physical_exponent``: physical blocks are ``1 << n`` logical ones.
    ``lowest_aligned_lba`` in logical blocks. ``provisioned`` (LBPME): thin provisioning is in use;
    ``reads_zeros`` (LBPRZ): unmapped blocks read as zeros.
    """

    last_lba: int
    block_length: int
    physical_exponent: int = 0
    lowest_aligned_lba: int = 0
    provisioned: bool = False
    reads_zeros: bool = False
    protection_type: int | None = None

    @property
    def blocks(self) -> int:
        """Number of logical blocks."""
        return self.last_lba + 1

    def encode(self) -> bytes:
        """32 bytes."""
        raw = bytearray(32)
        raw[0:8] = fits(self.last_lba, 64, "last LBA").to_bytes(8, "big")
        raw[8:12] = fits(self.block_length, 32, "block length").to_bytes(4, "big")
        if self.protection_type is not None:
            raw[12] = 0x01 | fits(self.protection_type - 1, 3, "protection type") << 1
        raw[13] = fits(self.physical_exponent, 4, "physical block exponent")
        raw[14:16] = fits(self.lowest_aligned_lba, 14, "lowest aligned LBA").to_bytes(2, "big")
        raw[14] |= (0x80 if self.provisioned else 0) | (0x40 if self.reads_zeros else 0)
        return bytes(raw)

    @classmethod
    def parse(cls, raw: bytes) -> Capacity16:
        """From at least 12 bytes; what a short answer leaves out is zero."""
        need(raw, 12, "READ CAPACITY(16) data")
        full = raw[:32].ljust(32, b"\x00")
        return cls(
            last_lba=int.from_bytes(full[0:8], "big"),
            block_length=int.from_bytes(full[8:12], "big"),
            physical_exponent=full[13] & 0x0F,
            lowest_aligned_lba=int.from_bytes(full[14:16], "big") & 0x3FFF,
            provisioned=bool(full[14] & 0x80),
            reads_zeros=bool(full[14] & 0x40),
            protection_type=(full[12] >> 1 & 7) + 1 if full[12] & 1 else None,
        )


class Provisioning(enum.IntEnum):
    """PROVISIONING STATUS of a range (SBC-3 table 39)."""

    MAPPED = 0
    DEALLOCATED = 1
    ANCHORED = 2


@dataclass(frozen=True, slots=True)
class LbaStatus:
    """One LBA status descriptor: ``blocks`` logical blocks from ``lba`` are in state ``status``."""

    lba: int
    blocks: int
    status: Provisioning


def encode_lba_status(descriptors: tuple[LbaStatus, ...]) -> bytes:
    """GET LBA STATUS parameter data."""
    body = b"".join(
        fits(item.lba, 64, "LBA").to_bytes(8, "big")
        + fits(item.blocks, 32, "number of logical blocks").to_bytes(4, "big")
        + bytes([item.status, 0, 0, 0])
        for item in descriptors
    )
    return (len(body) + 4).to_bytes(4, "big") + bytes(4) + body


def parse_lba_status(raw: bytes) -> tuple[LbaStatus, ...]:
    """Descriptors of a GET LBA STATUS answer, as many as are whole."""
    need(raw, 8, "GET LBA STATUS data")
    end = min(len(raw), int.from_bytes(raw[0:4], "big") + 4)
    found = []
    for at in range(8, end - 15, 16):
        status = raw[at + 12] & 0x0F
        if status > Provisioning.ANCHORED:
            raise MalformedScsiData("GET LBA STATUS data", f"provisioning status {status}")
        found.append(
            LbaStatus(
                int.from_bytes(raw[at : at + 8], "big"),
                int.from_bytes(raw[at + 8 : at + 12], "big"),
                Provisioning(status),
            )
        )
    return tuple(found)
