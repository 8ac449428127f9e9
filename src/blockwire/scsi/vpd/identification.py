"""VPD pages 00h Supported VPD Pages, 80h Unit Serial Number, 86h Extended INQUIRY Data (SPC-4 7.8.17, .18, .7)."""

from __future__ import annotations

from dataclasses import dataclass

from blockwire.scsi.layout import ascii_field, ascii_text
from blockwire.scsi.vpd import page


@dataclass(frozen=True, slots=True)
class SupportedPages:
    """Page 00h: page codes in ascending order."""

    pages: tuple[int, ...]

    def encode(self) -> bytes:
        """The page."""
        return page.encode_page(page.SUPPORTED_PAGES, bytes(sorted(self.pages)))

    @classmethod
    def parse(cls, raw: bytes) -> SupportedPages:
        """From a peer's page, in the peer's order."""
        return cls(tuple(page.page_body(raw, page.SUPPORTED_PAGES)))


@dataclass(frozen=True, slots=True)
class UnitSerialNumber:
    """Page 80h: printable ASCII."""

    serial: str

    def encode(self) -> bytes:
        """The page."""
        return page.encode_page(page.UNIT_SERIAL_NUMBER, ascii_field(self.serial, len(self.serial), "serial number"))

    @classmethod
    def parse(cls, raw: bytes) -> UnitSerialNumber:
        """From a peer's page; padding on either side is dropped."""
        return cls(ascii_text(page.page_body(raw, page.UNIT_SERIAL_NUMBER)).strip())


@dataclass(frozen=True, slots=True)
class ExtendedInquiry:
    """Page 86h: task attributes and caching bits that are used here; the other fields are zero."""

    head_of_queue: bool = False
    ordered: bool = False
    simple: bool = True
    volatile_cache: bool = False
    """V_SUP: a volatile cache is there (and FUA, SYNCHRONIZE CACHE mean something)."""
    nexus_clear: bool = False
    """LUICLR: REPORTED LUNS DATA HAS CHANGED is cleared in every nexus once reported."""

    def encode(self) -> bytes:
        """The page: 64 bytes."""
        body = bytearray(60)
        body[1] = (0x04 if self.head_of_queue else 0) | (0x02 if self.ordered else 0) | (0x01 if self.simple else 0)
        body[2] = 0x01 if self.volatile_cache else 0
        body[3] = 0x01 if self.nexus_clear else 0
        return page.encode_page(page.EXTENDED_INQUIRY, bytes(body))

    @classmethod
    def parse(cls, raw: bytes) -> ExtendedInquiry:
        """From a peer's page."""
        body = page.page_body(raw, page.EXTENDED_INQUIRY, 4)
        return cls(
            head_of_queue=bool(body[1] & 0x04),
            ordered=bool(body[1] & 0x02),
            simple=bool(body[1] & 0x01),
            volatile_cache=bool(body[2] & 0x01),
            nexus_clear=bool(body[3] & 0x01),
        )
