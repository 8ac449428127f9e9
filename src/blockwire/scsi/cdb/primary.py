"""CDBs of SPC-4 clause 6: identification, sense, mode and log data, and reports about the device server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockwire.scsi.cdb.fields import Cdb, bits, flag, span


@dataclass(frozen=True, slots=True)
class TestUnitReady(Cdb):
    """TEST UNIT READY, SPC-4 6.47."""

    __test__ = False  # pytest would take the name for a test class

    OPERATION_CODE: ClassVar[int] = 0x00
    LENGTH: ClassVar[int] = 6


@dataclass(frozen=True, slots=True)
class RequestSense(Cdb):
    """REQUEST SENSE, SPC-4 6.39. ``descriptor``: descriptor format sense data is wanted."""

    OPERATION_CODE: ClassVar[int] = 0x03
    LENGTH: ClassVar[int] = 6
    allocation_length: int = span(4, 4, 252)
    descriptor: bool = flag(1, 0)


@dataclass(frozen=True, slots=True)
class Inquiry(Cdb):
    """INQUIRY, SPC-4 6.6. ``vital`` (EVPD) selects VPD page ``page_code``."""

    OPERATION_CODE: ClassVar[int] = 0x12
    LENGTH: ClassVar[int] = 6
    page_code: int = span(2, 2)
    allocation_length: int = span(3, 4, 252)
    vital: bool = flag(1, 0)


@dataclass(frozen=True, slots=True)
class ReportLuns(Cdb):
    """REPORT LUNS, SPC-4 6.33. ``select_report`` 0: without, 1: only, 2: with well-known logical units."""

    OPERATION_CODE: ClassVar[int] = 0xA0
    LENGTH: ClassVar[int] = 12
    select_report: int = span(2, 2)
    allocation_length: int = span(6, 9, 4096)


@dataclass(frozen=True, slots=True)
class ModeSense6(Cdb):
    """MODE SENSE(6), SPC-4 6.13. ``page_control``: 0 current, 1 changeable, 2 default, 3 saved values."""

    OPERATION_CODE: ClassVar[int] = 0x1A
    LENGTH: ClassVar[int] = 6
    page_code: int = bits(2, 5, 0)
    subpage_code: int = span(3, 3)
    allocation_length: int = span(4, 4, 252)
    page_control: int = bits(2, 7, 6)
    no_block_descriptors: bool = flag(1, 3)


@dataclass(frozen=True, slots=True)
class ModeSense10(Cdb):
    """MODE SENSE(10), SPC-4 6.14."""

    OPERATION_CODE: ClassVar[int] = 0x5A
    LENGTH: ClassVar[int] = 10
    page_code: int = bits(2, 5, 0)
    subpage_code: int = span(3, 3)
    allocation_length: int = span(7, 8, 512)
    page_control: int = bits(2, 7, 6)
    long_lba_accepted: bool = flag(1, 4)
    no_block_descriptors: bool = flag(1, 3)


@dataclass(frozen=True, slots=True)
class ModeSelect6(Cdb):
    """MODE SELECT(6), SPC-4 6.11."""

    OPERATION_CODE: ClassVar[int] = 0x15
    LENGTH: ClassVar[int] = 6
    parameter_list_length: int = span(4, 4)
    page_format: bool = flag(1, 4)
    save_pages: bool = flag(1, 0)


@dataclass(frozen=True, slots=True)
class ModeSelect10(Cdb):
    """MODE SELECT(10), SPC-4 6.12."""

    OPERATION_CODE: ClassVar[int] = 0x55
    LENGTH: ClassVar[int] = 10
    parameter_list_length: int = span(7, 8)
    page_format: bool = flag(1, 4)
    save_pages: bool = flag(1, 0)


@dataclass(frozen=True, slots=True)
class LogSense(Cdb):
    """LOG SENSE, SPC-4 6.9."""

    OPERATION_CODE: ClassVar[int] = 0x4D
    LENGTH: ClassVar[int] = 10
    page_code: int = bits(2, 5, 0)
    subpage_code: int = span(3, 3)
    allocation_length: int = span(7, 8, 512)
    page_control: int = bits(2, 7, 6)
    parameter_pointer: int = span(5, 6)
    save_parameters: bool = flag(1, 0)


@dataclass(frozen=True, slots=True)
class SendDiagnostic(Cdb):
    """SEND DIAGNOSTIC, SPC-4 6.42."""

    OPERATION_CODE: ClassVar[int] = 0x1D
    LENGTH: ClassVar[int] = 6
    parameter_list_length: int = span(3, 4)
    self_test_code: int = bits(1, 7, 5)
    page_format: bool = flag(1, 4)
    self_test: bool = flag(1, 2)
    device_offline: bool = flag(1, 1)
    unit_offline: bool = flag(1, 0)


@dataclass(frozen=True, slots=True)
class ReceiveDiagnosticResults(Cdb):
    """RECEIVE DIAGNOSTIC RESULTS, SPC-4 6.30."""

    OPERATION_CODE: ClassVar[int] = 0x1C
    LENGTH: ClassVar[int] = 6
    page_code: int = span(2, 2)
    allocation_length: int = span(3, 4)
    page_code_valid: bool = flag(1, 0)


@dataclass(frozen=True, slots=True)
class ReportTargetPortGroups(Cdb):
    """REPORT TARGET PORT GROUPS, SPC-4 6.37. ``data_format`` 0: plain, 1: extended header."""

    OPERATION_CODE: ClassVar[int] = 0xA3
    SERVICE_ACTION: ClassVar[int | None] = 0x0A
    LENGTH: ClassVar[int] = 12
    allocation_length: int = span(6, 9, 4096)
    data_format: int = bits(1, 7, 5)


@dataclass(frozen=True, slots=True)
class ReportSupportedOperationCodes(Cdb):
    """REPORT SUPPORTED OPERATION CODES, SPC-4 6.35. ``reporting_options`` 0: all, 1: one, 2: one with action, 3."""

    OPERATION_CODE: ClassVar[int] = 0xA3
    SERVICE_ACTION: ClassVar[int | None] = 0x0C
    LENGTH: ClassVar[int] = 12
    reporting_options: int = bits(2, 2, 0)
    requested_operation_code: int = span(3, 3)
    requested_service_action: int = span(4, 5)
    allocation_length: int = span(6, 9, 65536)
    timeouts: bool = flag(2, 7)


@dataclass(frozen=True, slots=True)
class ReportSupportedTaskManagement(Cdb):
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, SPC-4 6.36. ``extended`` (REPD): 16 bytes of data."""

    OPERATION_CODE: ClassVar[int] = 0xA3
    SERVICE_ACTION: ClassVar[int | None] = 0x0D
    LENGTH: ClassVar[int] = 12
    allocation_length: int = span(6, 9, 16)
    extended: bool = flag(2, 7)
