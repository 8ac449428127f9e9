"""Standard INQUIRY data (SPC-4 6.6.2), both ways."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from blockwire.scsi.layout import ascii_field, ascii_text, fits, need


class DeviceType(enum.IntEnum):
    """Peripheral device types (SPC-4 table 144) that are named here; a peer may report others."""

    BLOCK = 0x00
    TAPE = 0x01
    PROCESSOR = 0x03
    CD_DVD = 0x05
    CHANGER = 0x08
    STORAGE_ARRAY = 0x0C
    ENCLOSURE = 0x0D
    WELL_KNOWN = 0x1E
    UNKNOWN = 0x1F


class Qualifier(enum.IntEnum):
    """Peripheral qualifiers (SPC-4 table 143)."""

    CONNECTED = 0
    NOT_CONNECTED = 1
    NOT_CAPABLE = 3


SPC4 = 0x06
"""VERSION field: conforms to SPC-4."""


class StandardVersion(enum.IntEnum):
    """Version descriptors (SPC-4 annex E): the standards a device claims, "no version claimed" forms."""

    SAM5 = 0x00A0
    SPC4 = 0x0460
    SBC3 = 0x04C0
    ISCSI = 0x0960


@dataclass(frozen=True, slots=True)
class InquiryData:
    """Standard INQUIRY data: identification (ASCII, padded) and capability bits.

    ``alua`` is the TPGS field: 0 none, 1 implicit, 2 explicit, 3 both. ``version_descriptors`` up to eight.
    """

    vendor: str
    product: str
    revision: str
    device_type: int = DeviceType.BLOCK
    qualifier: int = Qualifier.CONNECTED
    removable: bool = False
    version: int = SPC4
    normal_aca: bool = False
    hierarchical: bool = True
    response_format: int = 2
    alua: int = 0
    third_party_copy: bool = False
    protect: bool = False
    multiport: bool = False
    command_queue: bool = True
    version_descriptors: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """96 bytes: with all eight version descriptor places and the 22 reserved bytes after them (SPC-4 table 141)."""
        if len(self.version_descriptors) > 8:
            raise ValueError(f"{len(self.version_descriptors)} version descriptors, at most 8 fit")
        raw = bytearray(96)
        raw[0] = fits(self.qualifier, 3, "peripheral qualifier") << 5 | fits(self.device_type, 5, "device type")
        raw[1] = 0x80 if self.removable else 0
        raw[2] = fits(self.version, 8, "version")
        raw[3] = (
            (0x20 if self.normal_aca else 0)
            | (0x10 if self.hierarchical else 0)
            | fits(self.response_format, 4, "response data format")
        )
        raw[4] = len(raw) - 5
        raw[5] = (
            fits(self.alua, 2, "TPGS") << 4 | (0x08 if self.third_party_copy else 0) | (0x01 if self.protect else 0)
        )
        raw[6] = 0x10 if self.multiport else 0
        raw[7] = 0x02 if self.command_queue else 0
        raw[8:16] = ascii_field(self.vendor, 8, "T10 vendor identification")
        raw[16:32] = ascii_field(self.product, 16, "product identification")
        raw[32:36] = ascii_field(self.revision, 4, "product revision level")
        for index, descriptor in enumerate(self.version_descriptors):
            raw[58 + 2 * index : 60 + 2 * index] = fits(descriptor, 16, "version descriptor").to_bytes(2, "big")
        return bytes(raw)

    @classmethod
    def parse(cls, raw: bytes) -> InquiryData:
        """From a peer's answer of at least 36 bytes; later fields count only as far as ADDITIONAL LENGTH says."""
        need(raw, 36, "standard INQUIRY data")
        end = min(len(raw), raw[4] + 5)
        places = range(58, min(end, 74) - 1, 2)
        descriptors = tuple(code for at in places if (code := int.from_bytes(raw[at : at + 2], "big")))
        return cls(
            vendor=ascii_text(raw[8:16]),
            product=ascii_text(raw[16:32]),
            revision=ascii_text(raw[32:36]),
            device_type=raw[0] & 0x1F,
            qualifier=raw[0] >> 5,
            removable=bool(raw[1] & 0x80),
            version=raw[2],
            normal_aca=bool(raw[3] & 0x20),
            hierarchical=bool(raw[3] & 0x10),
            response_format=raw[3] & 0x0F,
            alua=raw[5] >> 4 & 3,
            third_party_copy=bool(raw[5] & 0x08),
            protect=bool(raw[5] & 0x01),
            multiport=bool(raw[6] & 0x10),
            command_queue=bool(raw[7] & 0x02),
            version_descriptors=descriptors,
        )
