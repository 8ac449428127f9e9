"""The literal dispatch table: the command table's row by name, and who answers it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable
from functools import partial

from blockwire.dataplane.api import Answer, Status
from blockwire.scsi import commands
from blockwire.scsi.failure import sense_of
from blockwire.scsi.sense import Sense, SenseCode, SenseKey, illegal_request, unit_attention
from blockwire.target.commands import condition, identification, medium, parameters, reports
from blockwire.target.commands.call import Call, Handler, Refused, check_condition
from blockwire.target.logical_unit import LogicalUnit

_log = logging.getLogger("blockwire.target")

_NACA = 0x04
_LINK = 0x01
_ACA_ATTRIBUTE = 4

# fmt: off
HANDLERS: dict[str, Handler] = {
    "TEST UNIT READY":                  condition.test_unit_ready,
    "REQUEST SENSE":                    condition.request_sense,
    "READ(6)":                          medium.resume,
    "WRITE(6)":                         medium.resume,
    "INQUIRY":                          identification.inquiry,
    "MODE SELECT(6)":                   parameters.mode_select_6,
    "MODE SENSE(6)":                    parameters.mode_sense_6,
    "START STOP UNIT":                  condition.start_stop_unit,
    "SEND DIAGNOSTIC":                  condition.send_diagnostic,
    "PREVENT ALLOW MEDIUM REMOVAL":     condition.prevent_allow_medium_removal,
    "READ CAPACITY(10)":                medium.read_capacity_10,
    "READ(10)":                         medium.resume,
    "WRITE(10)":                        medium.resume,
    "WRITE AND VERIFY(10)":             medium.resume,
    "VERIFY(10)":                       medium.resume,
    "PRE-FETCH(10)":                    medium.pre_fetch_10,
    "SYNCHRONIZE CACHE(10)":            medium.resume,
    "READ DEFECT DATA(10)":             medium.read_defect_data_10,
    "WRITE SAME(10)":                   medium.resume,
    "UNMAP":                            medium.resume,
    "LOG SENSE":                        parameters.log_sense,
    "MODE SELECT(10)":                  parameters.mode_select_10,
    "MODE SENSE(10)":                   parameters.mode_sense_10,
    "READ(16)":                         medium.resume,
    "WRITE(16)":                        medium.resume,
    "WRITE AND VERIFY(16)":             medium.resume,
    "VERIFY(16)":                       medium.resume,
    "PRE-FETCH(16)":                    medium.pre_fetch_16,
    "SYNCHRONIZE CACHE(16)":            medium.resume,
    "WRITE SAME(16)":                   medium.resume,
    "READ CAPACITY(16)":                medium.read_capacity_16,
    "GET LBA STATUS":                   medium.get_lba_status,
    "REPORT LUNS":                      reports.report_luns,
    "REPORT TARGET PORT GROUPS":        reports.target_port_groups,
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS": reports.supported_task_management,
    "READ(12)":                         medium.resume,
    "WRITE(12)":                        medium.resume,
    "WRITE AND VERIFY(12)":             medium.resume,
    "VERIFY(12)":                       medium.resume,
    "XDWRITEREAD(10)":                  medium.resume,
    "READ(32)":                         medium.resume,
    "VERIFY(32)":                       medium.resume,
    "WRITE(32)":                        medium.resume,
    "READ DEFECT DATA(12)":             medium.read_defect_data_12,
}
# fmt: on

_REPORT = "REPORT SUPPORTED OPERATION CODES"
_THIN = {"UNMAP", "GET LBA STATUS"}
"""Commands of thin provisioning: not there where the store cannot give space back."""


def supported_rows(unit: LogicalUnit) -> dict[str, commands.Command]:
    """The rows of the command table that this logical unit serves."""
    names = [*HANDLERS, _REPORT]
    return {name: commands.BY_NAME[name] for name in names if name not in _THIN or unit.can_unmap}


def _handler(row: commands.Command, unit: LogicalUnit) -> Handler | None:
    if row.name == _REPORT:
        return partial(reports.supported_operation_codes, supported_rows(unit))
    if row.name in _THIN and not unit.can_unmap:
        return None
    return HANDLERS.get(row.name)


def _control_byte(cdb: bytes, row: commands.Command) -> int:
    return 1 if row.operation_code == commands.VARIABLE_LENGTH else row.cdb_length - 1


def answer(call: Call) -> Answer | Awaitable[Answer]:
    """The answer to a command for a logical unit that exists; a coroutine where the store is needed.

    The order of the checks is SAM-5's: unit attention before the CDB's fields, an unknown operation code first of all
    (SPC-4 leaves that order open; initiators that probe with unknown commands must not lose a unit attention to it).
    """
    descriptor = call.unit.modes.descriptor_sense
    try:
        found = _run(call)
    except Refused as refused:
        return check_condition(refused.sense, descriptor=descriptor)
    if inspect.isawaitable(found):
        return _finish(call, found)
    return found


def _run(call: Call) -> Answer | Awaitable[Answer]:
    cdb = call.command.cdb
    row = commands.lookup(cdb)
    handler = None if row is None else _handler(row, call.unit)
    if row is None or handler is None:
        # With a known operation code it is the service action that is wrong (SPC-4 4.3.4.2).
        if (
            cdb[:1]
            and cdb[0] in commands.WITH_SERVICE_ACTIONS
            and any(other.operation_code == cdb[0] for other in supported_rows(call.unit).values())
        ):
            byte = 8 if cdb[0] == commands.VARIABLE_LENGTH else 1
            raise Refused(illegal_request(SenseCode.INVALID_FIELD_IN_CDB, byte, None if byte == 8 else 4))
        raise Refused(illegal_request(SenseCode.INVALID_COMMAND_OPERATION_CODE))
    stays = row.has(commands.Attribute.UNIT_ATTENTION_STAYS) or row.has(commands.Attribute.UNIT_ATTENTION_IS_DATA)
    if not stays:
        code = call.nexus.take()
        if code is not None:
            raise Refused(unit_attention(code))
    if call.unit.offline and row.has(commands.Attribute.USES_MEDIUM):
        raise Refused(Sense.of(SenseKey.HARDWARE_ERROR, SenseCode.INTERNAL_TARGET_FAILURE))
    byte = _control_byte(cdb, row)
    if len(cdb) > byte and cdb[byte] & (_NACA | _LINK):
        # NORMACA is 0 in our INQUIRY data (SAM-5 5.2).
        raise Refused(illegal_request(SenseCode.INVALID_FIELD_IN_CDB, byte, 2 if cdb[byte] & _NACA else 0))
    if call.command.attribute == _ACA_ATTRIBUTE:
        raise Refused(illegal_request(SenseCode.INVALID_MESSAGE_ERROR))
    return handler(call)


async def _finish(call: Call, coming: Awaitable[Answer]) -> Answer:
    descriptor = call.unit.modes.descriptor_sense
    try:
        return await coming
    except Refused as refused:
        return check_condition(refused.sense, descriptor=descriptor)
    except OSError as error:
        return check_condition(sense_of(error), descriptor=descriptor)


def failure() -> Status:
    """The answer when a handler broke: the initiator must not wait for ever for our mistake."""
    return check_condition(Sense.of(SenseKey.HARDWARE_ERROR, SenseCode.INTERNAL_TARGET_FAILURE))
