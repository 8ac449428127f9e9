"""SAM-5 status codes (SAM-5 5.3.1, table 42)."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """How a SCSI command ended; the value is the byte in the SCSI Response PDU (RFC 7143 11.4.2)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


def status_name(code: int) -> str:
    """The standard's words for a status byte; unknown codes are shown in hexadecimal."""
    try:
        return Status(code).name.replace("_", " ")
    except ValueError:
        return f"STATUS {code:02X}h"
