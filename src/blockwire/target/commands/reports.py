"""Reports about the device server: REPORT LUNS, supported operation codes and task management, target port groups."""

from __future__ import annotations

from collections.abc import Iterable

from blockwire.dataplane.api import Answer
from blockwire.names import encode_lun
from blockwire.scsi import cdb as cdbs
from blockwire.scsi import commands
from blockwire.scsi.luns import encode_lun_list
from blockwire.scsi.supported import (
    Support,
    TaskManagementSupport,
    encode_all_commands,
    encode_one_command,
    encode_task_management,
)
from blockwire.scsi.target_ports import TargetPortGroup, encode_target_port_groups
from blockwire.target.commands.call import Call, good, invalid_field
from blockwire.target.commands.identification import RELATIVE_TARGET_PORT


def lun_list(luns: Iterable[int], select_report: int) -> bytes:
    """REPORT LUNS data; there are no well-known logical units (SPC-4 6.33)."""
    if select_report not in (0, 1, 2):
        raise invalid_field(2)
    return encode_lun_list(() if select_report == 1 else tuple(encode_lun(lun) for lun in sorted(luns)))


def report_luns(call: Call) -> Answer:
    """REPORT LUNS."""
    cdb = call.parse(cdbs.ReportLuns)
    return good(lun_list(call.target.luns, cdb.select_report), cdb.allocation_length)


def supported_operation_codes(rows: dict[str, commands.Command], call: Call) -> Answer:
    """REPORT SUPPORTED OPERATION CODES, from the rows that this logical unit serves (SPC-4 6.35)."""
    cdb = call.parse(cdbs.ReportSupportedOperationCodes)
    if cdb.reporting_options == 0:
        data = encode_all_commands(tuple(rows.values()), timeouts=cdb.timeouts)
        return good(data, cdb.allocation_length)
    code, action = cdb.requested_operation_code, cdb.requested_service_action
    has_actions = code in commands.WITH_SERVICE_ACTIONS
    if cdb.reporting_options == 1 and has_actions:
        raise invalid_field(2, 2)
    if cdb.reporting_options == 2 and not has_actions:
        raise invalid_field(2, 2)
    if cdb.reporting_options > 3:
        raise invalid_field(2, 2)
    if cdb.reporting_options == 3 and not has_actions and action:
        row = None
    else:
        row = commands.BY_KEY.get((code, action if has_actions else None))
    usage = cdbs.usage_data(row) if row is not None and row.name in rows else None
    support = Support.SUPPORTED if usage else Support.NOT_SUPPORTED
    return good(encode_one_command(support, usage or b"", timeouts=cdb.timeouts), cdb.allocation_length)


def supported_task_management(call: Call) -> Answer:
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS."""
    cdb = call.parse(cdbs.ReportSupportedTaskManagement)
    functions = TaskManagementSupport(call.target.task_management)
    return good(encode_task_management(functions, extended=cdb.extended), cdb.allocation_length)


def target_port_groups(call: Call) -> Answer:
    """REPORT TARGET PORT GROUPS: one group, active/optimized, for all portals."""
    cdb = call.parse(cdbs.ReportTargetPortGroups)
    if cdb.data_format > 1:
        raise invalid_field(1, 7)
    group = TargetPortGroup(call.target.portal_group_tag, (RELATIVE_TARGET_PORT,))
    data = encode_target_port_groups((group,), transition_seconds=0 if cdb.data_format else None)
    return good(data, cdb.allocation_length)
