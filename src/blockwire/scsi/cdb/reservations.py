"""CDBs of reservations (SPC-4 6.15, 6.16; SPC-2 clause 5.5 for RESERVE(6) and RELEASE(6))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockwire.scsi.cdb.fields import Cdb, bits, flag, span


@dataclass(frozen=True, slots=True)
class PersistentReserveIn(Cdb):
    """PERSISTENT RESERVE IN: ``service_action`` 0 READ KEYS, 1 RESERVATION, 2 REPORT CAPABILITIES, 3 FULL STATUS."""

    OPERATION_CODE: ClassVar[int] = 0x5E
    LENGTH: ClassVar[int] = 10
    service_action: int = bits(1, 4, 0, evaluated=False)
    allocation_length: int = span(7, 8, 8192)


@dataclass(frozen=True, slots=True)
class PersistentReserveOut(Cdb):
    """PERSISTENT RESERVE OUT: ``service_action`` 0 REGISTER to 7 REGISTER AND MOVE; ``scope`` 0 is the logical unit."""

    OPERATION_CODE: ClassVar[int] = 0x5F
    LENGTH: ClassVar[int] = 10
    service_action: int = bits(1, 4, 0, evaluated=False)
    parameter_list_length: int = span(5, 8, 24)
    scope: int = bits(2, 7, 4)
    reservation_type: int = bits(2, 3, 0)


@dataclass(frozen=True, slots=True)
class Reserve6(Cdb):
    """RESERVE(6), SPC-2 7.21; the third-party and extent bits are obsolete and have to be zero."""

    OPERATION_CODE: ClassVar[int] = 0x16
    LENGTH: ClassVar[int] = 6
    third_party: bool = flag(1, 4, evaluated=False)
    extent: bool = flag(1, 0, evaluated=False)


@dataclass(frozen=True, slots=True)
class Release6(Cdb):
    """RELEASE(6), SPC-2 7.19."""

    OPERATION_CODE: ClassVar[int] = 0x17
    LENGTH: ClassVar[int] = 6
    third_party: bool = flag(1, 4, evaluated=False)
    extent: bool = flag(1, 0, evaluated=False)
