"""What every PDU has in common: the Basic Header Segment (RFC 7143 section 11.2.1).

All headers have the same skeleton, so one :class:`struct.Struct` packs them all: four bytes, one word of lengths,
eight bytes (a LUN, or an ISID and a TSIH), and eight 32-bit words at offsets 16, 20, … 44.
"""

from __future__ import annotations

import struct
from dataclasses import fields
from typing import ClassVar, Final, Self

from blockwire.wire.constants import BHS_LENGTH, MAX_AHS_LENGTH, MAX_DATA_SEGMENT_LENGTH, OPCODE_MASK, Opcode

_SKELETON: Final = struct.Struct(">4BI8s8I")
NO_LUN: Final = bytes(8)


class WireError(ValueError):
    """Bytes that are no PDU, or a value that does not fit its field; ``field`` and ``section`` say where."""

    def __init__(self, message: str, *, field: str = "", section: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.section = section


class DigestError(WireError):
    """A header or data digest that does not match (13.1); ``field`` is ``HeaderDigest`` or ``DataDigest``."""


def padding(length: int) -> int:
    """How many zero bytes (0 to 3) follow a segment of ``length`` bytes (11.1)."""
    return -length % 4


class Header:
    """The 14 parts of a BHS; PDU classes read them by offset and never touch the lengths."""

    __slots__ = (
        "ahs_length",
        "b0",
        "b1",
        "b2",
        "b3",
        "data_length",
        "eight",
        "w16",
        "w20",
        "w24",
        "w28",
        "w32",
        "w36",
        "w40",
        "w44",
    )

    def __init__(self, bhs: bytes) -> None:
        if len(bhs) != BHS_LENGTH:
            raise WireError(f"a header has {BHS_LENGTH} bytes, not {len(bhs)}", section="11.2.1")
        parts: tuple[int, ...] = _SKELETON.unpack(bhs)
        self.b0, self.b1, self.b2, self.b3 = parts[0:4]
        self.ahs_length = (parts[4] >> 24) * 4
        self.data_length = parts[4] & 0xFFFFFF
        self.eight = bhs[8:16]
        self.w16, self.w20, self.w24, self.w28, self.w32, self.w36, self.w40, self.w44 = parts[6:14]

    @property
    def opcode(self) -> int:
        """Bits 2 to 7 of byte 0."""
        return self.b0 & OPCODE_MASK

    @property
    def immediate(self) -> bool:
        """The I bit."""
        return bool(self.b0 & 0x40)


class Pdu:
    """The base of the PDU classes: frozen values with ``decode`` and ``encode``.

    Reserved bits are sent as 0 and ignored when received (11: "MUST be ignored").
    """

    __slots__ = ()

    OPCODE: ClassVar[Opcode]
    SECTION: ClassVar[str]
    WIDTHS: ClassVar[dict[str, int]] = {}
    """Bits of those integer fields that have fewer than 32."""

    data: bytes

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if type(value) is bool or isinstance(value, bytes):
                continue
            if isinstance(value, int) and not 0 <= value < 1 << self.WIDTHS.get(field.name, 32):
                raise WireError(f"{field.name}={value} does not fit its field", field=field.name, section=self.SECTION)
        if len(self.data) > MAX_DATA_SEGMENT_LENGTH:
            raise WireError(
                "the data segment is longer than 2^24 - 1 bytes", field="DataSegmentLength", section="11.2.1.6"
            )
        if len(getattr(self, "lun", NO_LUN)) != 8:
            raise WireError("a LUN field has 8 bytes", field="LUN", section="11.2.1.7")

    @property
    def ahs(self) -> bytes:
        """All additional header segments with their padding; only a SCSI Command has any."""
        return b""

    @classmethod
    def decode(cls, bhs: bytes, ahs: bytes = b"", data: bytes = b"") -> Self:
        """The PDU in a 48-byte header, its AHS and its data segment (without padding); :class:`WireError`."""
        header = Header(bhs)
        if header.opcode != cls.OPCODE:
            raise WireError(f"opcode {header.opcode:#04x} is not {cls.OPCODE.name}", field="Opcode", section="11.2.1.2")
        if header.data_length != len(data) or header.ahs_length != len(ahs):
            raise WireError("the segments do not have the lengths that the header gives", section="11.2.1")
        return cls._from_header(header, bhs, ahs, data)

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        raise NotImplementedError

    def encode(self) -> bytes:
        """The 48-byte Basic Header Segment."""
        raise NotImplementedError

    def _pack(
        self,
        b0: int,
        b1: int,
        b2: int = 0,
        b3: int = 0,
        eight: bytes = NO_LUN,
        *words: int,
        data_length: int | None = None,
    ) -> bytes:
        ahs_length = len(self.ahs)
        if ahs_length > MAX_AHS_LENGTH:
            raise WireError("the additional header segments are longer than 1020 bytes", section="11.2.1.5")
        lengths = ahs_length // 4 << 24 | (len(self.data) if data_length is None else data_length)
        return _SKELETON.pack(b0 | self.OPCODE, b1, b2, b3, lengths, eight, *words, *(0,) * (8 - len(words)))

    def to_bytes(self) -> bytes:
        """Header, AHS, data and padding as they go on the wire without digests."""
        return self.encode() + self.ahs + self.data + bytes(padding(len(self.data)))


def flag(condition: bool, bit: int) -> int:
    """``bit`` if ``condition`` holds, else 0."""
    return bit if condition else 0
