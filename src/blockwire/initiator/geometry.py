"""What a logical unit is, read once when it is opened: capacity, identity, limits; and how ranges become requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blockwire.errors import UsageError
from blockwire.names import format_size


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a logical unit says it is (standard INQUIRY data and VPD pages 80h and 83h)."""

    vendor: str
    product: str
    revision: str
    serial: str = ""
    """Unit serial number (VPD 80h)."""
    name: str = ""
    """The best name of the logical unit (VPD 83h): NAA, EUI-64 or a name string."""
    designators: tuple[str, ...] = ()
    """Every designator of VPD 83h as text."""

    def __str__(self) -> str:
        return self.name or f"{self.vendor} {self.product} {self.serial}".strip()


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes and limits in bytes; a limit of 0 is none."""

    size: int
    block_size: int
    physical_block_size: int
    max_transfer: int
    """Longest request to the device and the plane, a multiple of the block size."""
    optimal_transfer: int = 0
    read_only: bool = False
    can_discard: bool = False
    max_discard: int = 0
    can_zero: bool = True
    max_zero: int = 0
    reads_zeros: bool = False
    """Discarded blocks read as zeros (LBPRZ)."""

    def check(self, what: str, offset: int, length: int) -> None:
        """UsageError for a range that is not whole blocks inside the logical unit."""
        if offset < 0 or length < 0:
            raise UsageError(f"{what}: offset {offset} and length {length} must not be negative", code="usage.range")
        if offset % self.block_size or length % self.block_size:
            raise UsageError(
                f"{what}: offset {offset} and length {length} must be multiples of the block size {self.block_size}",
                code="usage.unaligned",
                next="use lun.makefile(), which takes any offset",
            )
        if offset + length > self.size:
            raise UsageError(
                f"{what}: the range ends at byte {offset + length}, the logical unit has {format_size(self.size)}",
                code="usage.range",
            )


@dataclass(frozen=True, slots=True)
class LunInfo:
    """One logical unit as `Session.luns()` lists it. Sizes in bytes; 0 where the device is no disk or not ready."""

    lun: int
    size: int
    block_size: int
    vendor: str
    product: str
    revision: str
    serial: str
    name: str
    device_type: int
    """Peripheral device type (SPC-4 table 144); 0 is a block device."""
    read_only: bool = False
    error: str = ""
    """Why the size is not known, when it is not."""


def pieces(offset: int, length: int, longest: int) -> Iterator[tuple[int, int]]:
    """Cuts a range into (offset, length) of at most `longest` bytes; `longest` 0 leaves it whole."""
    longest = longest or max(length, 1)
    end = offset + length
    while offset < end:
        size = min(longest, end - offset)
        yield offset, size
        offset += size
