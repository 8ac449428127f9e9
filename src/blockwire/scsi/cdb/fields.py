"""How a CDB dataclass states its layout: each field says which bytes and bits it occupies.

The same statement encodes, parses, and yields the CDB usage data of REPORT SUPPORTED OPERATION CODES.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from blockwire.scsi import commands
from blockwire.scsi.layout import MalformedScsiData

_PLACE = "blockwire.scsi.place"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field lies: its last byte, its lowest bit in that byte, its width in bits.

    ``evaluated`` is False for a field a device server here ignores or requires to be zero: its usage bits are 0.
    """

    last_byte: int
    low_bit: int
    width: int
    evaluated: bool


def bits(byte: int, high: int, low: int, default: int = 0, *, evaluated: bool = True) -> Any:
    """A field inside one byte, from bit ``high`` down to bit ``low``."""
    return dataclasses.field(
        default=default, metadata={_PLACE: Place(byte, low, high - low + 1, evaluated)}, kw_only=True
    )


def flag(byte: int, bit: int, *, evaluated: bool = True) -> Any:
    """A one-bit field, False by default."""
    return dataclasses.field(default=False, metadata={_PLACE: Place(byte, bit, 1, evaluated)}, kw_only=True)


def span(first: int, last: int, default: int = 0, *, width: int | None = None, evaluated: bool = True) -> Any:
    """A big-endian number in bytes ``first`` to ``last``; ``width`` bits when it does not use all of them."""
    size = (last - first + 1) * 8 if width is None else width
    return dataclasses.field(default=default, metadata={_PLACE: Place(last, 0, size, evaluated)})


@dataclass(frozen=True, slots=True)
class Cdb:
    """Base of all command descriptor blocks: fields in host terms, :meth:`encode` and :meth:`parse`.

    ``control`` is the CONTROL byte (SAM-5 5.2): NACA is its bit 2.
    """

    OPERATION_CODE: ClassVar[int]
    SERVICE_ACTION: ClassVar[int | None] = None
    LENGTH: ClassVar[int]

    control: int = dataclasses.field(default=0, kw_only=True)

    @classmethod
    def places(cls) -> dict[str, Place]:
        """Every field's place by its name, CONTROL excluded."""
        return {field.name: field.metadata[_PLACE] for field in dataclasses.fields(cls) if _PLACE in field.metadata}

    @classmethod
    def _control_byte(cls) -> int:
        # A variable-length CDB has CONTROL in byte 1, every other one at its end (SPC-4 4.2.2, 4.2.3).
        return 1 if cls.OPERATION_CODE == commands.VARIABLE_LENGTH else cls.LENGTH - 1

    @classmethod
    def _shift(cls, place: Place) -> int:
        return 8 * (cls.LENGTH - 1 - place.last_byte) + place.low_bit

    @classmethod
    def _fixed(cls) -> bytearray:
        raw = bytearray(cls.LENGTH)
        raw[0] = cls.OPERATION_CODE
        if cls.OPERATION_CODE == commands.VARIABLE_LENGTH:
            raw[7] = cls.LENGTH - 8
        if cls.SERVICE_ACTION is not None:
            if cls.OPERATION_CODE == commands.VARIABLE_LENGTH:
                raw[8:10] = cls.SERVICE_ACTION.to_bytes(2, "big")
            else:
                raw[1] |= cls.SERVICE_ACTION
        return raw

    def encode(self) -> bytes:
        """The CDB's bytes; ValueError naming the field when a value does not fit its place."""
        whole = int.from_bytes(self._fixed(), "big")
        for name, place in self.places().items():
            value = int(getattr(self, name))
            if not 0 <= value < 1 << place.width:
                raise ValueError(f"{type(self).__name__}.{name} is {value}, which does not fit {place.width} bits")
            whole |= value << self._shift(place)
        raw = bytearray(whole.to_bytes(self.LENGTH, "big"))
        raw[self._control_byte()] = self.control
        return bytes(raw)

    @classmethod
    def parse(cls, cdb: bytes) -> Self:
        """Fields of ``cdb`` (padding beyond its length is ignored, as iSCSI carries 16 bytes for a shorter one).

        Raises MalformedScsiData when it is short or another command.
        """
        if len(cdb) < cls.LENGTH:
            raise MalformedScsiData(f"{cls.__name__} CDB", f"{len(cdb)} bytes where {cls.LENGTH} are needed")
        if cdb[0] != cls.OPERATION_CODE:
            raise MalformedScsiData(f"{cls.__name__} CDB", f"operation code {cdb[0]:02X}h")
        if cls.SERVICE_ACTION is not None and commands.service_action(cdb) != cls.SERVICE_ACTION:
            raise MalformedScsiData(f"{cls.__name__} CDB", f"{commands.describe(cdb)}")
        if cls.OPERATION_CODE == commands.VARIABLE_LENGTH and cdb[7] != cls.LENGTH - 8:
            raise MalformedScsiData(f"{cls.__name__} CDB", f"ADDITIONAL CDB LENGTH {cdb[7]}, not {cls.LENGTH - 8}")
        whole = int.from_bytes(cdb[: cls.LENGTH], "big")
        values: dict[str, Any] = {"control": cdb[cls._control_byte()]}
        for name, place in cls.places().items():
            value = (whole >> cls._shift(place)) & ((1 << place.width) - 1)
            values[name] = bool(value) if place.width == 1 else value
        return cls(**values)

    @classmethod
    def usage(cls) -> bytes:
        """CDB usage data (SPC-4 6.34.3): operation code and service action as they are, a 1 for each evaluated bit.

        CONTROL is 0: neither NACA nor LINK is evaluated.
        """
        whole = 0
        for place in cls.places().values():
            if place.evaluated:
                whole |= ((1 << place.width) - 1) << cls._shift(place)
        return (whole | int.from_bytes(cls._fixed(), "big")).to_bytes(cls.LENGTH, "big")
