"""VPD page 83h and its designators (SPC-4 7.8.6)."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from blockwire.scsi.layout import MalformedScsiData, ascii_field, ascii_text, fits, need
from blockwire.scsi.vpd import page

ISCSI_PROTOCOL = 5
"""PROTOCOL IDENTIFIER of iSCSI (SPC-4 table 448)."""


class CodeSet(enum.IntEnum):
    """How a designator is written (SPC-4 table 21)."""

    BINARY = 1
    ASCII = 2
    UTF8 = 3


class Association(enum.IntEnum):
    """What a designator names (SPC-4 table 22)."""

    LOGICAL_UNIT = 0
    TARGET_PORT = 1
    TARGET_DEVICE = 2


class DesignatorType(enum.IntEnum):
    """SPC-4 table 23."""

    VENDOR_SPECIFIC = 0
    T10_VENDOR_ID = 1
    EUI64 = 2
    NAA = 3
    RELATIVE_TARGET_PORT = 4
    TARGET_PORT_GROUP = 5
    LOGICAL_UNIT_GROUP = 6
    MD5_LOGICAL_UNIT = 7
    SCSI_NAME_STRING = 8


_COUNTED = {
    int(DesignatorType.RELATIVE_TARGET_PORT): "relative target port",
    int(DesignatorType.TARGET_PORT_GROUP): "target port group",
}


@dataclass(frozen=True, slots=True)
class Designator:
    """One designation descriptor; ``value`` are its raw bytes, ``protocol`` None unless PIV is set."""

    type: int
    code_set: int
    association: int
    value: bytes
    protocol: int | None = None

    def encode(self) -> bytes:
        """The descriptor."""
        first = fits(self.code_set, 4, "code set") | (
            0 if self.protocol is None else fits(self.protocol, 4, "protocol") << 4
        )
        second = fits(self.association, 2, "association") << 4 | fits(self.type, 4, "designator type")
        return (
            bytes([first, second | (0 if self.protocol is None else 0x80), 0, fits(len(self.value), 8, "length")])
            + self.value
        )

    def text(self) -> str:
        """For people: ``naa.…``, ``t10.…``, a SCSI name as it stands, what a number counts, or hexadecimal digits."""
        if self.type == DesignatorType.NAA:
            return f"naa.{self.value.hex()}"
        if self.type == DesignatorType.EUI64:
            return f"eui.{self.value.hex()}"
        if self.type == DesignatorType.T10_VENDOR_ID:
            return f"t10.{ascii_text(self.value)}"
        if self.type == DesignatorType.SCSI_NAME_STRING:
            return self.value.rstrip(b"\x00").decode("utf-8", "backslashreplace")
        if self.type in _COUNTED and len(self.value) == 4:
            return f"{_COUNTED[self.type]} {int.from_bytes(self.value[2:4], 'big')}"
        return self.value.hex()


def naa_designator(value: int) -> Designator:
    """An NAA designator of 8 bytes (NAA 2h, 3h, 5h) or 16 bytes (NAA 6h), by the size of ``value`` (SPC-4 7.8.6.6)."""
    raw = value.to_bytes(8 if value >> 64 == 0 else 16, "big")
    kind = raw[0] >> 4
    if (kind, len(raw)) not in ((2, 8), (3, 8), (5, 8), (6, 16)):
        raise ValueError(f"{raw.hex()} is no NAA identifier: NAA {kind:X}h with {len(raw)} bytes")
    return Designator(DesignatorType.NAA, CodeSet.BINARY, Association.LOGICAL_UNIT, raw)


def t10_designator(vendor: str, identifier: str) -> Designator:
    """T10 vendor identification: eight characters of vendor, then the vendor's own identifier (SPC-4 7.8.6.4)."""
    text = ascii_field(vendor, 8, "T10 vendor identification") + ascii_field(identifier, len(identifier), "identifier")
    return Designator(DesignatorType.T10_VENDOR_ID, CodeSet.ASCII, Association.LOGICAL_UNIT, text)


def _name_string(name: str, association: Association) -> Designator:
    raw = name.encode()
    # NUL-terminated and a multiple of four bytes (SPC-4 7.8.6.11); at most 256 with the terminator.
    padded = raw + bytes(4 - len(raw) % 4)
    if len(padded) > 255:
        raise ValueError(f"SCSI name string {name!r} does not fit a designator")
    return Designator(DesignatorType.SCSI_NAME_STRING, CodeSet.UTF8, association, padded, ISCSI_PROTOCOL)


def target_port_name(target_name: str, portal_group_tag: int) -> Designator:
    """iSCSI target port name ``IQN,t,0xTTTT`` (RFC 7143 4.4.1, 4.2.1; SPC-4 7.6.5)."""
    return _name_string(
        f"{target_name},t,0x{fits(portal_group_tag, 16, 'portal group tag'):04x}", Association.TARGET_PORT
    )


def target_device_name(target_name: str) -> Designator:
    """iSCSI target device name: the target's name itself."""
    return _name_string(target_name, Association.TARGET_DEVICE)


def relative_target_port(port: int) -> Designator:
    """Relative target port identifier (SPC-4 7.8.6.7)."""
    raw = b"\x00\x00" + fits(port, 16, "relative target port").to_bytes(2, "big")
    kind = DesignatorType.RELATIVE_TARGET_PORT
    return Designator(kind, CodeSet.BINARY, Association.TARGET_PORT, raw, ISCSI_PROTOCOL)


def target_port_group(group: int) -> Designator:
    """Target port group (SPC-4 7.8.6.8)."""
    raw = b"\x00\x00" + fits(group, 16, "target port group").to_bytes(2, "big")
    kind = DesignatorType.TARGET_PORT_GROUP
    return Designator(kind, CodeSet.BINARY, Association.TARGET_PORT, raw, ISCSI_PROTOCOL)


@dataclass(frozen=True, slots=True)
class DeviceIdentification:
    """Page 83h: all designators in order."""

    designators: tuple[Designator, ...]

    def encode(self) -> bytes:
        """The page."""
        body = b"".join(designator.encode() for designator in self.designators)
        return page.encode_page(page.DEVICE_IDENTIFICATION, body)

    @classmethod
    def parse(cls, raw: bytes) -> DeviceIdentification:
        """From a peer's page; MalformedScsiData when a designator is cut short."""
        body = page.page_body(raw, page.DEVICE_IDENTIFICATION)
        at, found = 0, []
        while at < len(body):
            need(body, at + 4, "designation descriptor")
            length = body[at + 3]
            if at + 4 + length > len(body):
                raise MalformedScsiData("designation descriptor", f"DESIGNATOR LENGTH {length} goes beyond the page")
            found.append(
                Designator(
                    type=body[at + 1] & 0x0F,
                    code_set=body[at] & 0x0F,
                    association=body[at + 1] >> 4 & 0x03,
                    value=body[at + 4 : at + 4 + length],
                    protocol=body[at] >> 4 if body[at + 1] & 0x80 else None,
                )
            )
            at += 4 + length
        return cls(tuple(found))

    def best_unit_name(self) -> str | None:
        """The logical unit's name to keep: NAA 6h or 3h first, then EUI-64, SCSI name, T10 identifier."""
        order: Sequence[int] = (
            DesignatorType.NAA,
            DesignatorType.EUI64,
            DesignatorType.SCSI_NAME_STRING,
            DesignatorType.T10_VENDOR_ID,
        )
        names = [
            item for item in self.designators if item.association == Association.LOGICAL_UNIT and item.type in order
        ]
        if not names:
            return None
        return min(names, key=lambda item: (order.index(item.type), -len(item.value))).text()
