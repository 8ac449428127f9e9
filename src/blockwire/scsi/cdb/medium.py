"""CDBs that change or inspect the medium without an ordinary transfer (SBC-3 clause 5).

SYNCHRONIZE CACHE, UNMAP, WRITE SAME, COMPARE AND WRITE, WRITE ATOMIC, PRE-FETCH, READ CAPACITY, GET LBA STATUS,
READ DEFECT DATA, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockwire.scsi.cdb.fields import Cdb, bits, flag, span


@dataclass(frozen=True, slots=True)
class SynchronizeCache10(Cdb):
    """SYNCHRONIZE CACHE(10), SBC-3 5.24. ``blocks`` 0 means up to the last block."""

    OPERATION_CODE: ClassVar[int] = 0x35
    LENGTH: ClassVar[int] = 10
    lba: int = span(2, 5)
    blocks: int = span(7, 8)
    immediate: bool = flag(1, 1)
    group: int = bits(6, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class SynchronizeCache16(Cdb):
    """SYNCHRONIZE CACHE(16), SBC-3 5.25."""

    OPERATION_CODE: ClassVar[int] = 0x91
    LENGTH: ClassVar[int] = 16
    lba: int = span(2, 9)
    blocks: int = span(10, 13)
    immediate: bool = flag(1, 1)
    group: int = bits(14, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class PreFetch10(Cdb):
    """PRE-FETCH(10), SBC-3 5.9."""

    OPERATION_CODE: ClassVar[int] = 0x34
    LENGTH: ClassVar[int] = 10
    lba: int = span(2, 5)
    blocks: int = span(7, 8)
    immediate: bool = flag(1, 1)
    group: int = bits(6, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class PreFetch16(Cdb):
    """PRE-FETCH(16), SBC-3 5.10."""

    OPERATION_CODE: ClassVar[int] = 0x90
    LENGTH: ClassVar[int] = 16
    lba: int = span(2, 9)
    blocks: int = span(10, 13)
    immediate: bool = flag(1, 1)
    group: int = bits(14, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class Unmap(Cdb):
    """UNMAP, SBC-3 5.27; the ranges are in the parameter list (:mod:`blockwire.scsi.unmap`)."""

    OPERATION_CODE: ClassVar[int] = 0x42
    LENGTH: ClassVar[int] = 10
    parameter_list_length: int = span(7, 8)
    anchor: bool = flag(1, 0)
    group: int = bits(6, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class WriteSame10(Cdb):
    """WRITE SAME(10), SBC-3 5.44. ``blocks`` 0 means up to the last block, where the device permits it."""

    OPERATION_CODE: ClassVar[int] = 0x41
    LENGTH: ClassVar[int] = 10
    lba: int = span(2, 5)
    blocks: int = span(7, 8)
    protect: int = bits(1, 7, 5)
    anchor: bool = flag(1, 4)
    unmap: bool = flag(1, 3)
    group: int = bits(6, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class WriteSame16(Cdb):
    """WRITE SAME(16), SBC-3 5.45. ``no_data_out`` (NDOB): no data is sent, zeros are written."""

    OPERATION_CODE: ClassVar[int] = 0x93
    LENGTH: ClassVar[int] = 16
    lba: int = span(2, 9)
    blocks: int = span(10, 13)
    protect: int = bits(1, 7, 5)
    anchor: bool = flag(1, 4)
    unmap: bool = flag(1, 3)
    no_data_out: bool = flag(1, 0)
    group: int = bits(14, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class CompareAndWrite(Cdb):
    """COMPARE AND WRITE, SBC-3 5.2. The data-out holds ``blocks`` to compare, then ``blocks`` to write."""

    OPERATION_CODE: ClassVar[int] = 0x89
    LENGTH: ClassVar[int] = 16
    lba: int = span(2, 9)
    blocks: int = span(13, 13)
    protect: int = bits(1, 7, 5)
    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    group: int = bits(14, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class WriteAtomic16(Cdb):
    """WRITE ATOMIC(16), SBC-4 5.48. ``boundary`` in logical blocks, 0 for one indivisible write."""

    OPERATION_CODE: ClassVar[int] = 0x9C
    LENGTH: ClassVar[int] = 16
    lba: int = span(2, 9)
    blocks: int = span(12, 13)
    boundary: int = span(10, 11)
    protect: int = bits(1, 7, 5)
    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    group: int = bits(14, 4, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class ReadCapacity10(Cdb):
    """READ CAPACITY(10), SBC-3 5.15. ``lba`` is obsolete and zero unless the obsolete PMI bit is set."""

    OPERATION_CODE: ClassVar[int] = 0x25
    LENGTH: ClassVar[int] = 10
    lba: int = span(2, 5, evaluated=False)
    partial_medium: bool = flag(8, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class ReadCapacity16(Cdb):
    """READ CAPACITY(16), SBC-3 5.16."""

    OPERATION_CODE: ClassVar[int] = 0x9E
    SERVICE_ACTION: ClassVar[int | None] = 0x10
    LENGTH: ClassVar[int] = 16
    allocation_length: int = span(10, 13, 32)
    lba: int = span(2, 9, evaluated=False)
    partial_medium: bool = flag(14, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class GetLbaStatus(Cdb):
    """GET LBA STATUS, SBC-3 5.4."""

    OPERATION_CODE: ClassVar[int] = 0x9E
    SERVICE_ACTION: ClassVar[int | None] = 0x12
    LENGTH: ClassVar[int] = 16
    lba: int = span(2, 9)
    allocation_length: int = span(10, 13, 24)


@dataclass(frozen=True, slots=True)
class ReadDefectData10(Cdb):
    """READ DEFECT DATA(10), SBC-3 5.17. ``list_format`` as table 67."""

    OPERATION_CODE: ClassVar[int] = 0x37
    LENGTH: ClassVar[int] = 10
    allocation_length: int = span(7, 8, 4)
    primary: bool = flag(2, 4)
    grown: bool = flag(2, 3)
    list_format: int = bits(2, 2, 0)


@dataclass(frozen=True, slots=True)
class ReadDefectData12(Cdb):
    """READ DEFECT DATA(12), SBC-3 5.18."""

    OPERATION_CODE: ClassVar[int] = 0xB7
    LENGTH: ClassVar[int] = 12
    allocation_length: int = span(6, 9, 8)
    primary: bool = flag(1, 4)
    grown: bool = flag(1, 3)
    list_format: int = bits(1, 2, 0)
    descriptor_index: int = span(2, 5, evaluated=False)


@dataclass(frozen=True, slots=True)
class StartStopUnit(Cdb):
    """START STOP UNIT, SBC-3 5.22. With ``load_eject`` and not ``start`` the medium is unloaded."""

    OPERATION_CODE: ClassVar[int] = 0x1B
    LENGTH: ClassVar[int] = 6
    start: bool = flag(4, 0)
    load_eject: bool = flag(4, 1)
    no_flush: bool = flag(4, 2)
    power_condition: int = bits(4, 7, 4)
    power_condition_modifier: int = bits(3, 3, 0)
    immediate: bool = flag(1, 0)


@dataclass(frozen=True, slots=True)
class PreventAllowMediumRemoval(Cdb):
    """PREVENT ALLOW MEDIUM REMOVAL, SBC-3 5.8: ``prevent`` 1 locks the medium, 0 unlocks it."""

    OPERATION_CODE: ClassVar[int] = 0x1E
    LENGTH: ClassVar[int] = 6
    prevent: int = bits(4, 1, 0)
