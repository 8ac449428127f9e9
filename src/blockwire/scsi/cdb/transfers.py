"""CDBs that move logical blocks (SBC-3 5.10 to 5.17, 5.30 to 5.42): READ, WRITE, WRITE AND VERIFY, VERIFY, XDWRITEREAD.

``lba`` and ``blocks`` count logical blocks. GROUP NUMBER and the protection fields are carried but not evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockwire.scsi.cdb.fields import Cdb, bits, flag, span


@dataclass(frozen=True, slots=True)
class _Six(Cdb):
    LENGTH: ClassVar[int] = 6
    lba: int = span(1, 3, width=21)
    length_byte: int = span(4, 4)

    @property
    def blocks(self) -> int:
        """Logical blocks to move: a TRANSFER LENGTH of 0 means 256 (SBC-3 5.10)."""
        return self.length_byte or 256


@dataclass(frozen=True, slots=True)
class Read6(_Six):
    """READ(6), SBC-3 5.10."""

    OPERATION_CODE: ClassVar[int] = 0x08


@dataclass(frozen=True, slots=True)
class Write6(_Six):
    """WRITE(6), SBC-3 5.32."""

    OPERATION_CODE: ClassVar[int] = 0x0A


@dataclass(frozen=True, slots=True)
class Transfer(Cdb):
    """Fields that every READ and WRITE of 10 bytes and more has in byte 1."""

    protect: int = bits(1, 7, 5)
    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)


@dataclass(frozen=True, slots=True)
class _Ten(Transfer):
    LENGTH: ClassVar[int] = 10
    lba: int = span(2, 5)
    blocks: int = span(7, 8)
    group: int = bits(6, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class _Twelve(Transfer):
    LENGTH: ClassVar[int] = 12
    lba: int = span(2, 5)
    blocks: int = span(6, 9)
    group: int = bits(10, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class _Sixteen(Transfer):
    LENGTH: ClassVar[int] = 16
    lba: int = span(2, 9)
    blocks: int = span(10, 13)
    group: int = bits(14, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class Read10(_Ten):
    """READ(10), SBC-3 5.11."""

    OPERATION_CODE: ClassVar[int] = 0x28


@dataclass(frozen=True, slots=True)
class Read12(_Twelve):
    """READ(12), SBC-3 5.12."""

    OPERATION_CODE: ClassVar[int] = 0xA8


@dataclass(frozen=True, slots=True)
class Read16(_Sixteen):
    """READ(16), SBC-3 5.13."""

    OPERATION_CODE: ClassVar[int] = 0x88


@dataclass(frozen=True, slots=True)
class Write10(_Ten):
    """WRITE(10), SBC-3 5.33."""

    OPERATION_CODE: ClassVar[int] = 0x2A


@dataclass(frozen=True, slots=True)
class Write12(_Twelve):
    """WRITE(12), SBC-3 5.34."""

    OPERATION_CODE: ClassVar[int] = 0xAA


@dataclass(frozen=True, slots=True)
class Write16(_Sixteen):
    """WRITE(16), SBC-3 5.35."""

    OPERATION_CODE: ClassVar[int] = 0x8A


@dataclass(frozen=True, slots=True)
class Orwrite16(_Sixteen):
    """ORWRITE(16), SBC-3 5.8: the medium becomes the bitwise OR of itself and the data."""

    OPERATION_CODE: ClassVar[int] = 0x8B


@dataclass(frozen=True, slots=True)
class _Checked(Cdb):
    """WRITE AND VERIFY and VERIFY: BYTCHK in the place of FUA."""

    protect: int = bits(1, 7, 5)
    dpo: bool = flag(1, 4)
    byte_check: int = bits(1, 2, 1)


@dataclass(frozen=True, slots=True)
class _CheckedTen(_Checked):
    LENGTH: ClassVar[int] = 10
    lba: int = span(2, 5)
    blocks: int = span(7, 8)
    group: int = bits(6, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class _CheckedTwelve(_Checked):
    LENGTH: ClassVar[int] = 12
    lba: int = span(2, 5)
    blocks: int = span(6, 9)
    group: int = bits(10, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class _CheckedSixteen(_Checked):
    LENGTH: ClassVar[int] = 16
    lba: int = span(2, 9)
    blocks: int = span(10, 13)
    group: int = bits(14, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class WriteAndVerify10(_CheckedTen):
    """WRITE AND VERIFY(10), SBC-3 5.37."""

    OPERATION_CODE: ClassVar[int] = 0x2E


@dataclass(frozen=True, slots=True)
class WriteAndVerify12(_CheckedTwelve):
    """WRITE AND VERIFY(12), SBC-3 5.38."""

    OPERATION_CODE: ClassVar[int] = 0xAE


@dataclass(frozen=True, slots=True)
class WriteAndVerify16(_CheckedSixteen):
    """WRITE AND VERIFY(16), SBC-3 5.39."""

    OPERATION_CODE: ClassVar[int] = 0x8E


@dataclass(frozen=True, slots=True)
class Verify10(_CheckedTen):
    """VERIFY(10), SBC-3 5.28. ``byte_check``: 0 medium only, 1 compare all, 3 compare with one block."""

    OPERATION_CODE: ClassVar[int] = 0x2F


@dataclass(frozen=True, slots=True)
class Verify12(_CheckedTwelve):
    """VERIFY(12), SBC-3 5.29."""

    OPERATION_CODE: ClassVar[int] = 0xAF


@dataclass(frozen=True, slots=True)
class Verify16(_CheckedSixteen):
    """VERIFY(16), SBC-3 5.30."""

    OPERATION_CODE: ClassVar[int] = 0x8F


@dataclass(frozen=True, slots=True)
class XdWriteRead10(Cdb):
    """XDWRITEREAD(10), SBC-3 5.47: writes the data and returns its XOR with what was there before."""

    OPERATION_CODE: ClassVar[int] = 0x53
    LENGTH: ClassVar[int] = 10
    lba: int = span(2, 5)
    blocks: int = span(7, 8)
    protect: int = bits(1, 7, 5)
    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    disable_write: bool = flag(1, 2)
    xor_pinfo: bool = flag(1, 0, evaluated=False)
    group: int = bits(6, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class _ThirtyTwo(Cdb):
    """Variable-length CDBs of 32 bytes: service action in bytes 8 and 9 (SPC-4 4.2.3)."""

    OPERATION_CODE: ClassVar[int] = 0x7F
    LENGTH: ClassVar[int] = 32
    lba: int = span(12, 19)
    blocks: int = span(28, 31)
    protect: int = bits(10, 7, 5)
    dpo: bool = flag(10, 4)
    group: int = bits(6, 4, 0, evaluated=False)
    expected_reference_tag: int = span(20, 23, evaluated=False)
    expected_application_tag: int = span(24, 25, evaluated=False)
    application_tag_mask: int = span(26, 27, evaluated=False)


@dataclass(frozen=True, slots=True)
class Read32(_ThirtyTwo):
    """READ(32), SBC-3 5.14."""

    SERVICE_ACTION: ClassVar[int | None] = 0x0009
    fua: bool = flag(10, 3)


@dataclass(frozen=True, slots=True)
class Write32(_ThirtyTwo):
    """WRITE(32), SBC-3 5.36."""

    SERVICE_ACTION: ClassVar[int | None] = 0x000B
    fua: bool = flag(10, 3)


@dataclass(frozen=True, slots=True)
class Verify32(_ThirtyTwo):
    """VERIFY(32), SBC-3 5.31."""

    SERVICE_ACTION: ClassVar[int | None] = 0x000A
    byte_check: int = bits(10, 2, 1)
