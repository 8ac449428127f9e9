"""The head that every VPD page has (SPC-4 7.8.1)."""

from __future__ import annotations

from blockwire.scsi.layout import MalformedScsiData, fits, need

SUPPORTED_PAGES = 0x00
UNIT_SERIAL_NUMBER = 0x80
DEVICE_IDENTIFICATION = 0x83
EXTENDED_INQUIRY = 0x86
BLOCK_LIMITS = 0xB0
BLOCK_CHARACTERISTICS = 0xB1
LOGICAL_BLOCK_PROVISIONING = 0xB2


def encode_page(code: int, body: bytes, *, device_type: int = 0, qualifier: int = 0) -> bytes:
    """A page from its code and what follows PAGE LENGTH."""
    head = bytes([fits(qualifier, 3, "peripheral qualifier") << 5 | fits(device_type, 5, "device type"), code])
    return head + fits(len(body), 16, "PAGE LENGTH").to_bytes(2, "big") + body


def page_body(raw: bytes, code: int, least: int = 0) -> bytes:
    """What follows PAGE LENGTH in a page that must have ``code`` and at least ``least`` bytes.

    MalformedScsiData when the page is another one, cut short, or too small for its fields.
    """
    what = f"VPD page {code:02X}h"
    need(raw, 4, what)
    if raw[1] != code:
        raise MalformedScsiData(what, f"the answer is page {raw[1]:02X}h")
    length = int.from_bytes(raw[2:4], "big")
    if 4 + length > len(raw):
        raise MalformedScsiData(what, f"PAGE LENGTH {length} in {len(raw)} bytes")
    if length < least:
        raise MalformedScsiData(what, f"PAGE LENGTH {length} where at least {least} are needed")
    return bytes(raw[4 : 4 + length])


def page_size(raw: bytes) -> int:
    """Bytes that the whole page has, from its head: how much to ask for when an answer was cut short."""
    need(raw, 4, "VPD page")
    return 4 + int.from_bytes(raw[2:4], "big")
