"""Between SCSI answers and :mod:`blockwire.errors`: the one mapping, in both directions."""

from __future__ import annotations

from typing import Any

from blockwire import errors
from blockwire.scsi.commands import describe
from blockwire.scsi.layout import MalformedScsiData
from blockwire.scsi.sense import Sense, SenseKey, illegal_request, parse_sense
from blockwire.scsi.sense import SenseCode as Code
from blockwire.scsi.status import Status, status_name

_NEXT = {
    SenseKey.NOT_READY: "wait until the logical unit is ready, or start it",
    SenseKey.MEDIUM_ERROR: "look at the target's store: a block could not be read or written",
    SenseKey.HARDWARE_ERROR: "look at the target's log",
    SenseKey.UNIT_ATTENTION: "read the changed state and try again",
    SenseKey.ABORTED_COMMAND: "try again",
}


def device_error(status: int, sense: bytes = b"", cdb: bytes = b"") -> errors.DeviceError:
    """The error for a command that ended with ``status`` and raw ``sense`` data (without its 2-byte length)."""
    command = describe(cdb) if cdb else "the command"
    if status != Status.CHECK_CONDITION or not sense:
        name = status_name(status)
        what = "without sense data" if status == Status.CHECK_CONDITION else ""
        return errors.DeviceError(f"{command} ended with {name} {what}".rstrip(), status=status, sense=sense)
    try:
        parsed = parse_sense(sense)
    except MalformedScsiData as fault:
        return errors.DeviceError(
            f"{command} ended with unreadable sense data", status=status, sense=sense, evidence=str(fault)
        )
    details: dict[str, Any] = {
        "status": status,
        "sense_key": int(parsed.key),
        "asc": parsed.asc,
        "ascq": parsed.ascq,
        "sense": sense,
        "next": _NEXT.get(parsed.key, ""),
    }
    kind: type[errors.DeviceError] = errors.DeviceError
    if parsed.key == SenseKey.DATA_PROTECT and (parsed.asc, parsed.ascq) == (0x27, 0x00):
        kind = errors.ReadOnlyError
    return kind(f"{command} failed: {parsed.describe()}", **details)


def sense_of(error: BaseException) -> Sense:
    """Sense data with which a device server answers a command that ended in ``error``.

    MalformedScsiData is the initiator's parameter list or CDB being too short: PARAMETER LIST LENGTH ERROR.
    """
    if isinstance(error, MalformedScsiData):
        return illegal_request(Code.PARAMETER_LIST_LENGTH_ERROR)
    key, asc, ascq = errors.sense(error)
    return Sense(SenseKey(key), asc, ascq)
