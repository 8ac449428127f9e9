"""Mode pages and mode parameter lists (SPC-4 7.5, SBC-3 6.5).

A page is described once: where its fields are, which of them MODE SELECT may change. Values of a logical unit are
plain bytes per page, so current, default and saved values are the same kind of thing and the changeable mask is the
page with ones in its changeable fields.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from blockwire.scsi.layout import MalformedScsiData, fits, need

ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF

READ_WRITE_ERROR_RECOVERY = 0x01
CACHING = 0x08
CONTROL = 0x0A
INFORMATIONAL_EXCEPTIONS = 0x1C


class PageControl(enum.IntEnum):
    """PC field of MODE SENSE (SPC-4 table 148)."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a mode page: byte from the page's first one, high and low bit, or a whole number of bytes."""

    byte: int
    low_bit: int = 0
    width: int = 1

    def read(self, page: bytes) -> int:
        """The field's value."""
        end = self.byte + max(1, self.width // 8)
        return int.from_bytes(page[self.byte : end], "big") >> self.low_bit & ((1 << self.width) - 1)

    def write(self, page: bytes, value: int) -> bytes:
        """``page`` with the field set."""
        fits(value, self.width, f"mode page field at byte {self.byte}")
        end = self.byte + max(1, self.width // 8)
        mask = ((1 << self.width) - 1) << self.low_bit
        number = int.from_bytes(page[self.byte : end], "big") & ~mask | value << self.low_bit
        return page[: self.byte] + number.to_bytes(end - self.byte, "big") + page[end:]


@dataclass(frozen=True, slots=True)
class PageLayout:
    """One mode page: code, whole length in bytes (with its two-byte head), named fields, which can be changed."""

    code: int
    length: int
    fields: Mapping[str, Field]
    changeable: frozenset[str]
    savable: bool = False

    def build(self, **values: int) -> bytes:
        """The page with the given fields, all others zero."""
        page = bytes([self.code | (0x80 if self.savable else 0), self.length - 2]) + bytes(self.length - 2)
        for name, value in values.items():
            page = self.fields[name].write(page, int(value))
        return page

    def mask(self) -> bytes:
        """The changeable values (SPC-4 6.13.3): ones in every field that MODE SELECT may change."""
        return self.build(**{name: (1 << self.fields[name].width) - 1 for name in self.changeable})

    def get(self, page: bytes, name: str) -> int:
        """A field of a page."""
        need(page, self.fields[name].byte + max(1, self.fields[name].width // 8), f"mode page {self.code:02X}h")
        return self.fields[name].read(page)


CACHING_PAGE = PageLayout(
    CACHING,
    20,
    {
        "write_cache_enabled": Field(2, 2),
        "read_cache_disabled": Field(2, 0),
        "disable_prefetch_length": Field(4, 0, 16),
        "disable_read_ahead": Field(12, 5),
        "force_sequential_write": Field(12, 7),
        "non_volatile_cache_disabled": Field(12, 0),
    },
    frozenset({"write_cache_enabled"}),
)
"""SBC-3 6.5.5."""

CONTROL_PAGE = PageLayout(
    CONTROL,
    12,
    {
        "task_set_type": Field(2, 5, 3),
        "descriptor_sense": Field(2, 2),
        "global_log_save_disabled": Field(2, 1),
        "queue_algorithm": Field(3, 4, 4),
        "unit_attention_interlock": Field(4, 4, 2),
        "software_write_protect": Field(4, 3),
        "task_aborted_status": Field(5, 6),
        "busy_timeout": Field(8, 0, 16),
    },
    frozenset({"descriptor_sense", "software_write_protect", "task_aborted_status"}),
)
"""SPC-4 7.5.10. QUEUE ALGORITHM MODIFIER 1: unrestricted reordering."""

ERROR_RECOVERY_PAGE = PageLayout(
    READ_WRITE_ERROR_RECOVERY,
    12,
    {
        "automatic_write_reallocation": Field(2, 7),
        "automatic_read_reallocation": Field(2, 6),
        "read_retry_count": Field(3, 0, 8),
        "write_retry_count": Field(8, 0, 8),
        "recovery_time_limit": Field(10, 0, 16),
    },
    frozenset(),
)
"""SBC-3 6.5.8."""

EXCEPTIONS_PAGE = PageLayout(
    INFORMATIONAL_EXCEPTIONS,
    12,
    {
        "disable_exception_control": Field(2, 3),
        "test": Field(2, 2),
        "method_of_reporting": Field(3, 0, 4),
    },
    frozenset(),
)
"""SPC-4 7.5.11 (SBC-3 6.5.6): nothing to warn about, so DEXCPT is set."""

PAGES: dict[int, PageLayout] = {
    layout.code: layout for layout in (ERROR_RECOVERY_PAGE, CACHING_PAGE, CONTROL_PAGE, EXCEPTIONS_PAGE)
}
"""The mode pages of a block device, by page code."""


@dataclass(frozen=True, slots=True)
class BlockDescriptor:
    """Block descriptor: capacity in logical blocks, and their length in bytes (SBC-3 6.5.2)."""

    blocks: int
    block_length: int

    def encode(self, *, long: bool = False) -> bytes:
        """Short form (8 bytes, block count saturated at FFFFFFFFh) or long form (16 bytes)."""
        if long:
            return (
                self.blocks.to_bytes(8, "big")
                + bytes(4)
                + fits(self.block_length, 32, "block length").to_bytes(4, "big")
            )
        count = min(self.blocks, 0xFFFFFFFF).to_bytes(4, "big")
        return count + b"\x00" + fits(self.block_length, 24, "block length").to_bytes(3, "big")


@dataclass(frozen=True, slots=True)
class ModeData:
    """A mode parameter list: MODE SENSE data, or what MODE SELECT sends.

    ``device_specific`` for block devices: bit 7 WP (write protected), bit 4 DPOFUA. ``pages`` are whole pages.
    """

    pages: tuple[bytes, ...]
    device_specific: int = 0
    descriptor: BlockDescriptor | None = None
    medium_type: int = 0

    WRITE_PROTECTED = 0x80
    DPO_FUA = 0x10

    def encode6(self) -> bytes:
        """With the four-byte head of MODE SENSE(6); a mode data length beyond 255 is an error here."""
        descriptor = b"" if self.descriptor is None else self.descriptor.encode()
        rest = bytes([self.medium_type, self.device_specific, len(descriptor)]) + descriptor + b"".join(self.pages)
        return bytes([fits(len(rest), 8, "MODE DATA LENGTH")]) + rest

    def encode10(self, *, long: bool = False) -> bytes:
        """With the eight-byte head of MODE SENSE(10); ``long``: LONGLBA, a 16-byte block descriptor."""
        descriptor = b"" if self.descriptor is None else self.descriptor.encode(long=long)
        flags = 0x01 if long and descriptor else 0x00
        rest = bytes([self.medium_type, self.device_specific, flags, 0]) + len(descriptor).to_bytes(2, "big")
        rest += descriptor + b"".join(self.pages)
        return fits(len(rest), 16, "MODE DATA LENGTH").to_bytes(2, "big") + rest


def parse_mode_data(raw: bytes, *, ten: bool) -> ModeData:
    """A mode parameter list with the head of the 6-byte or 10-byte command; MalformedScsiData when it is inconsistent.

    For MODE SENSE answers cut by the allocation length, a last page that is not whole is left out. MODE DATA LENGTH
    is not looked at: MODE SELECT reserves it.
    """
    what = "mode parameter list"
    head = 8 if ten else 4
    need(raw, head, what)
    descriptor_length = int.from_bytes(raw[6:8], "big") if ten else raw[3]
    need(raw, head + descriptor_length, what)
    long = ten and bool(raw[4] & 1)
    descriptor = None
    if descriptor_length:
        size = 16 if long else 8
        if descriptor_length < size:
            raise MalformedScsiData(what, f"BLOCK DESCRIPTOR LENGTH {descriptor_length}, a descriptor has {size} bytes")
        body = raw[head : head + size]
        if long:
            descriptor = BlockDescriptor(int.from_bytes(body[0:8], "big"), int.from_bytes(body[12:16], "big"))
        else:
            descriptor = BlockDescriptor(int.from_bytes(body[0:4], "big"), int.from_bytes(body[5:8], "big"))
    pages = split_pages(raw[head + descriptor_length :], whole=False)
    return ModeData(pages, raw[3 if ten else 2], descriptor, raw[2 if ten else 1])


def split_pages(raw: bytes, *, whole: bool) -> tuple[bytes, ...]:
    """The pages in ``raw``; with ``whole`` a page cut short is MalformedScsiData, else it is left out."""
    at, found = 0, []
    while at < len(raw):
        sub = bool(raw[at] & 0x40)
        head = 4 if sub else 2
        if at + head <= len(raw):
            length = head + (int.from_bytes(raw[at + 2 : at + 4], "big") if sub else raw[at + 1])
            if at + length <= len(raw):
                found.append(bytes(raw[at : at + length]))
                at += length
                continue
        if whole:
            raise MalformedScsiData("mode page", f"page {raw[at] & 0x3F:02X}h at byte {at} is cut short")
        break
    return tuple(found)


def find_page(pages: tuple[bytes, ...], code: int) -> bytes | None:
    """The page with ``code`` (no subpage), None when it is not there."""
    return next((page for page in pages if page[0] & 0x7F == code), None)
