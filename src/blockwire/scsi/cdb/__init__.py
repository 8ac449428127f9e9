"""Command descriptor blocks: a frozen dataclass per command, :func:`parse` for any of them.

``Read16(lba=0, blocks=8).encode()`` builds; ``Read16.parse(raw)`` or ``parse(raw)`` reads. Positional
arguments are the fields most callers give, in the order the dataclass lists them.
"""

from __future__ import annotations

from blockwire.scsi import commands
from blockwire.scsi.cdb.fields import Cdb, Place
from blockwire.scsi.cdb.medium import (
    CompareAndWrite,
    GetLbaStatus,
    PreFetch10,
    PreFetch16,
    PreventAllowMediumRemoval,
    ReadCapacity10,
    ReadCapacity16,
    ReadDefectData10,
    ReadDefectData12,
    StartStopUnit,
    SynchronizeCache10,
    SynchronizeCache16,
    Unmap,
    WriteAtomic16,
    WriteSame10,
    WriteSame16,
)
from blockwire.scsi.cdb.primary import (
    Inquiry,
    LogSense,
    ModeSelect6,
    ModeSelect10,
    ModeSense6,
    ModeSense10,
    ReceiveDiagnosticResults,
    ReportLuns,
    ReportSupportedOperationCodes,
    ReportSupportedTaskManagement,
    ReportTargetPortGroups,
    RequestSense,
    SendDiagnostic,
    TestUnitReady,
)
from blockwire.scsi.cdb.reservations import PersistentReserveIn, PersistentReserveOut, Release6, Reserve6
from blockwire.scsi.cdb.transfers import (
    Orwrite16,
    Read6,
    Read10,
    Read12,
    Read16,
    Read32,
    Verify10,
    Verify12,
    Verify16,
    Verify32,
    Write6,
    Write10,
    Write12,
    Write16,
    Write32,
    WriteAndVerify10,
    WriteAndVerify12,
    WriteAndVerify16,
    XdWriteRead10,
)
from blockwire.scsi.layout import MalformedScsiData

LAYOUTS: tuple[type[Cdb], ...] = (
    TestUnitReady, RequestSense, Read6, Write6, Inquiry, ModeSelect6, Reserve6, Release6, ModeSense6, StartStopUnit,
    ReceiveDiagnosticResults, SendDiagnostic, PreventAllowMediumRemoval, ReadCapacity10, Read10, Write10,
    WriteAndVerify10, Verify10, PreFetch10, SynchronizeCache10, ReadDefectData10, WriteSame10, Unmap, LogSense,
    XdWriteRead10, ModeSelect10, ModeSense10, PersistentReserveIn, PersistentReserveOut, Read32, Verify32, Write32,
    Read16, CompareAndWrite, Write16, Orwrite16, WriteAndVerify16, Verify16, PreFetch16, SynchronizeCache16,
    WriteSame16, WriteAtomic16, ReadCapacity16, GetLbaStatus, ReportLuns, ReportTargetPortGroups,
    ReportSupportedOperationCodes, ReportSupportedTaskManagement, Read12, Write12, WriteAndVerify12, Verify12,
    ReadDefectData12,
)  # fmt: skip
"""Every CDB class."""

_BY_KEY: dict[tuple[int, int | None], type[Cdb]] = {
    (layout.OPERATION_CODE, layout.SERVICE_ACTION): layout for layout in LAYOUTS
}


def layout_of(command: commands.Command) -> type[Cdb] | None:
    """The CDB class of a row of the command table, None where no layout is written."""
    exact = _BY_KEY.get((command.operation_code, command.service_action))
    return exact if exact is not None else _BY_KEY.get((command.operation_code, None))


def parse(cdb: bytes) -> Cdb:
    """Any CDB of the command table as its dataclass; MalformedScsiData when unknown or short."""
    row = commands.lookup(cdb)
    layout = None if row is None else layout_of(row)
    if layout is None:
        raise MalformedScsiData("CDB", f"{commands.describe(cdb)} has no layout")
    return layout.parse(cdb)


def usage_data(command: commands.Command) -> bytes | None:
    """CDB usage data of a command (SPC-4 6.35.3), None where no layout is written.

    PERSISTENT RESERVE IN and OUT share a layout, so their service action is filled in from the row.
    """
    layout = layout_of(command)
    if layout is None:
        return None
    raw = bytearray(layout.usage())
    if command.service_action is not None and layout.SERVICE_ACTION is None:
        raw[1] |= command.service_action
    return bytes(raw)


__all__ = [
    "LAYOUTS",
    "Cdb",
    "CompareAndWrite",
    "GetLbaStatus",
    "Inquiry",
    "LogSense",
    "ModeSelect6",
    "ModeSelect10",
    "ModeSense6",
    "ModeSense10",
    "Orwrite16",
    "PersistentReserveIn",
    "PersistentReserveOut",
    "Place",
    "PreFetch10",
    "PreFetch16",
    "PreventAllowMediumRemoval",
    "Read6",
    "Read10",
    "Read12",
    "Read16",
    "Read32",
    "ReadCapacity10",
    "ReadCapacity16",
    "ReadDefectData10",
    "ReadDefectData12",
    "ReceiveDiagnosticResults",
    "Release6",
    "ReportLuns",
    "ReportSupportedOperationCodes",
    "ReportSupportedTaskManagement",
    "ReportTargetPortGroups",
    "RequestSense",
    "Reserve6",
    "SendDiagnostic",
    "StartStopUnit",
    "SynchronizeCache10",
    "SynchronizeCache16",
    "TestUnitReady",
    "Unmap",
    "Verify10",
    "Verify12",
    "Verify16",
    "Verify32",
    "Write6",
    "Write10",
    "Write12",
    "Write16",
    "Write32",
    "WriteAndVerify10",
    "WriteAndVerify12",
    "WriteAndVerify16",
    "WriteAtomic16",
    "WriteSame10",
    "WriteSame16",
    "XdWriteRead10",
    "layout_of",
    "parse",
    "usage_data",
]
