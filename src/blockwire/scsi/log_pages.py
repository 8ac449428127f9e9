"""LOG SENSE pages (SPC-4 7.3): the list of supported pages and subpages, and empty informational pages."""

from __future__ import annotations

from blockwire.scsi.layout import MalformedScsiData, fits, need

SUPPORTED_PAGES = 0x00
ALL_SUBPAGES = 0xFF


def encode_log_page(page: int, subpage: int, body: bytes) -> bytes:
    """A log page: SPF is set where a subpage is named."""
    head = bytes([fits(page, 6, "page code") | (0x40 if subpage else 0), fits(subpage, 8, "subpage code")])
    return head + fits(len(body), 16, "PAGE LENGTH").to_bytes(2, "big") + body


def encode_supported_pages(pages: tuple[int, ...]) -> bytes:
    """Supported Log Pages (SPC-4 7.3.15)."""
    return encode_log_page(SUPPORTED_PAGES, 0, bytes(sorted(pages)))


def encode_supported_subpages(pages: tuple[tuple[int, int], ...]) -> bytes:
    """Supported Log Pages and Subpages (SPC-4 7.3.16)."""
    return encode_log_page(SUPPORTED_PAGES, ALL_SUBPAGES, b"".join(bytes(pair) for pair in sorted(pages)))


def parse_log_page(raw: bytes) -> tuple[int, int, bytes]:
    """Page code, subpage code and body; MalformedScsiData when PAGE LENGTH goes beyond the data."""
    need(raw, 4, "log page")
    length = int.from_bytes(raw[2:4], "big")
    if 4 + length > len(raw):
        raise MalformedScsiData("log page", f"PAGE LENGTH {length} in {len(raw)} bytes")
    return raw[0] & 0x3F, raw[1] if raw[0] & 0x40 else 0, bytes(raw[4 : 4 + length])
