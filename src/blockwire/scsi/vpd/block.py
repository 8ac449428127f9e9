"""VPD pages B0h Block Limits, B1h Characteristics, B2h Logical Block Provisioning (SBC-3 6.6.3 to 6.6.5)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from blockwire.scsi.layout import fits
from blockwire.scsi.vpd import page


def _at(body: bytes, first: int, length: int) -> int:
    # A page of an older standard is shorter; the fields it lacks are zero.
    return int.from_bytes(body[first : first + length], "big") if len(body) >= first + length else 0


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """Page B0h. Lengths and granularities count logical blocks; 0 means "not reported" unless said otherwise.

    ``max_compare_and_write`` 0: COMPARE AND WRITE is not supported. ``unmap_alignment`` None: UGAVALID is 0.
    """

    max_compare_and_write: int = 0
    optimal_granularity: int = 0
    max_transfer: int = 0
    optimal_transfer: int = 0
    max_prefetch: int = 0
    max_unmap_blocks: int = 0
    max_unmap_descriptors: int = 0
    unmap_granularity: int = 0
    unmap_alignment: int | None = None
    max_write_same: int = 0
    write_same_nonzero: bool = False
    """WSNZ: a NUMBER OF LOGICAL BLOCKS of 0 is refused in WRITE SAME."""
    max_atomic: int = 0
    atomic_alignment: int = 0
    atomic_granularity: int = 0

    def encode(self) -> bytes:
        """The page: 64 bytes."""
        body = bytearray(60)
        body[0] = 0x01 if self.write_same_nonzero else 0
        body[1] = fits(self.max_compare_and_write, 8, "maximum compare and write length")
        body[2:4] = fits(self.optimal_granularity, 16, "optimal transfer length granularity").to_bytes(2, "big")
        for first, value in (
            (4, self.max_transfer),
            (8, self.optimal_transfer),
            (12, self.max_prefetch),
            (16, self.max_unmap_blocks),
            (20, self.max_unmap_descriptors),
            (24, self.unmap_granularity),
            (40, self.max_atomic),
            (44, self.atomic_alignment),
            (48, self.atomic_granularity),
        ):
            body[first : first + 4] = fits(value, 32, f"block limits field at byte {first + 4}").to_bytes(4, "big")
        if self.unmap_alignment is not None:
            body[28:32] = (0x80000000 | fits(self.unmap_alignment, 31, "unmap alignment")).to_bytes(4, "big")
        body[32:40] = fits(self.max_write_same, 64, "maximum write same length").to_bytes(8, "big")
        return page.encode_page(page.BLOCK_LIMITS, bytes(body))

    @classmethod
    def parse(cls, raw: bytes) -> BlockLimits:
        """From a peer's page of 12 bytes (SBC-2) or more."""
        body = page.page_body(raw, page.BLOCK_LIMITS, 12)
        alignment = _at(body, 28, 4)
        return cls(
            max_compare_and_write=body[1],
            optimal_granularity=_at(body, 2, 2),
            max_transfer=_at(body, 4, 4),
            optimal_transfer=_at(body, 8, 4),
            max_prefetch=_at(body, 12, 4),
            max_unmap_blocks=_at(body, 16, 4),
            max_unmap_descriptors=_at(body, 20, 4),
            unmap_granularity=_at(body, 24, 4),
            unmap_alignment=alignment & 0x7FFFFFFF if alignment >> 31 else None,
            max_write_same=_at(body, 32, 8),
            write_same_nonzero=bool(body[0] & 1),
            max_atomic=_at(body, 40, 4),
            atomic_alignment=_at(body, 44, 4),
            atomic_granularity=_at(body, 48, 4),
        )


@dataclass(frozen=True, slots=True)
class BlockCharacteristics:
    """Page B1h. ``rotation_rate``: 0 not reported, 1 not rotating, else revolutions per minute."""

    rotation_rate: int = 1
    form_factor: int = 0
    force_unit_access_defined: bool = False
    """FUAB: SYNCHRONIZE CACHE is not the only way to stable storage with WCE; FUA reads and writes do it."""

    def encode(self) -> bytes:
        """The page: 64 bytes."""
        body = bytearray(60)
        body[0:2] = fits(self.rotation_rate, 16, "medium rotation rate").to_bytes(2, "big")
        body[3] = fits(self.form_factor, 4, "nominal form factor")
        body[4] = 0x02 if self.force_unit_access_defined else 0
        return page.encode_page(page.BLOCK_CHARACTERISTICS, bytes(body))

    @classmethod
    def parse(cls, raw: bytes) -> BlockCharacteristics:
        """From a peer's page."""
        body = page.page_body(raw, page.BLOCK_CHARACTERISTICS, 4)
        return cls(_at(body, 0, 2), body[3] & 0x0F, len(body) > 4 and bool(body[4] & 0x02))


class ProvisioningType(enum.IntEnum):
    """PROVISIONING TYPE (SBC-3 table 183)."""

    NOT_REPORTED = 0
    RESOURCE = 1
    THIN = 2


@dataclass(frozen=True, slots=True)
class LogicalBlockProvisioning:
    """Page B2h. ``reads_zeros`` (LBPRZ): unmapped blocks read as zeros. ``threshold_exponent`` 0: no thresholds."""

    unmap: bool = False
    write_same_16_unmap: bool = False
    write_same_10_unmap: bool = False
    reads_zeros: bool = False
    anchors: bool = False
    type: int = ProvisioningType.NOT_REPORTED
    threshold_exponent: int = 0

    def encode(self) -> bytes:
        """The page: 8 bytes, no provisioning group descriptor."""
        flags = (
            (0x80 if self.unmap else 0)
            | (0x40 if self.write_same_16_unmap else 0)
            | (0x20 if self.write_same_10_unmap else 0)
            | (0x04 if self.reads_zeros else 0)
            | (0x02 if self.anchors else 0)
        )
        exponent = fits(self.threshold_exponent, 8, "threshold exponent")
        body = bytes([exponent, flags, fits(self.type, 3, "provisioning type"), 0])
        return page.encode_page(page.LOGICAL_BLOCK_PROVISIONING, body)

    @classmethod
    def parse(cls, raw: bytes) -> LogicalBlockProvisioning:
        """From a peer's page."""
        body = page.page_body(raw, page.LOGICAL_BLOCK_PROVISIONING, 3)
        flags = body[1]
        return cls(
            unmap=bool(flags & 0x80),
            write_same_16_unmap=bool(flags & 0x40),
            write_same_10_unmap=bool(flags & 0x20),
            reads_zeros=bool(flags & 0x04),
            anchors=bool(flags & 0x02),
            type=body[2] & 0x07,
            threshold_exponent=body[0],
        )
