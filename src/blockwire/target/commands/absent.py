"""Commands to a LUN where no logical unit is (SPC-4 6.6.2, 6.33, 6.39; SAM-5 4.6.4)."""

from __future__ import annotations

from blockwire.dataplane.api import Answer
from blockwire.scsi import cdb as cdbs
from blockwire.scsi import commands
from blockwire.scsi.layout import MalformedScsiData
from blockwire.scsi.sense import SenseCode, illegal_request
from blockwire.target.commands.call import Refused, TargetView, check_condition, good
from blockwire.target.commands.identification import absent_data
from blockwire.target.commands.reports import lun_list

_NOT_SUPPORTED = illegal_request(SenseCode.LOGICAL_UNIT_NOT_SUPPORTED)


def answer(cdb: bytes, target: TargetView) -> Answer:
    """INQUIRY, REPORT LUNS and REQUEST SENSE are answered; all others end with LOGICAL UNIT NOT SUPPORTED."""
    row = commands.lookup(cdb)
    try:
        match row.name if row is not None else "":
            case "INQUIRY":
                inquiry = cdbs.Inquiry.parse(cdb)
                if inquiry.vital:
                    return check_condition(_NOT_SUPPORTED)
                return good(absent_data(), inquiry.allocation_length)
            case "REPORT LUNS":
                report = cdbs.ReportLuns.parse(cdb)
                return good(lun_list(target.luns, report.select_report), report.allocation_length)
            case "REQUEST SENSE":
                request = cdbs.RequestSense.parse(cdb)
                return good(_NOT_SUPPORTED.encode(descriptor=request.descriptor), request.allocation_length)
    except Refused as refused:
        return check_condition(refused.sense)
    except MalformedScsiData:
        return check_condition(illegal_request(SenseCode.INVALID_FIELD_IN_CDB))
    return check_condition(_NOT_SUPPORTED)
