"""Numbers that stand in iSCSI PDUs, each with the section that defines it (RFC 7143 unless said otherwise)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

BHS_LENGTH: Final = 48
"""Length of the Basic Header Segment in bytes (11.2.1)."""
DIGEST_LENGTH: Final = 4
"""Length of a CRC32C header or data digest in bytes (13.1)."""
RESERVED_TAG: Final = 0xFFFFFFFF
"""The reserved Initiator or Target Task Tag (11.2.1.8, 11.7.4)."""
NO_CID: Final = 0
"""What stands in the CID field where it is reserved (11.14.3)."""
MAX_DATA_SEGMENT_LENGTH: Final = 2**24 - 1
"""DataSegmentLength is a 24-bit field (11.2.1.6)."""
MAX_AHS_LENGTH: Final = 255 * 4
"""TotalAHSLength is an 8-bit count of 4-byte words (11.2.1.5)."""
VERSION: Final = 0x00
"""The version number of this protocol (11.12.4)."""


class Opcode(IntEnum):
    """PDU opcodes, bits 2-7 of byte 0 (11.2.1.2)."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_MANAGEMENT_REQUEST = 0x02
    LOGIN_REQUEST = 0x03
    TEXT_REQUEST = 0x04
    DATA_OUT = 0x05
    LOGOUT_REQUEST = 0x06
    SNACK = 0x10
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_MANAGEMENT_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    R2T = 0x31
    ASYNC_MESSAGE = 0x32
    REJECT = 0x3F


OPCODE_MASK: Final = 0x3F
IMMEDIATE_FLAG: Final = 0x40
"""The I bit of byte 0 (11.2.1.1)."""
FINAL_FLAG: Final = 0x80
"""The F bit of byte 1 (11.2.1.3); the T bit of login PDUs stands in the same place."""


class AhsType(IntEnum):
    """AHSType codes (11.2.2.1)."""

    EXTENDED_CDB = 1
    BIDIRECTIONAL_READ_LENGTH = 2


class TaskAttribute(IntEnum):
    """ATTR, the task attribute of a SCSI Command (11.3.1)."""

    UNTAGGED = 0
    SIMPLE = 1
    ORDERED = 2
    HEAD_OF_QUEUE = 3
    ACA = 4


class ServiceResponse(IntEnum):
    """Response field of a SCSI Response (11.4.3)."""

    COMPLETED_AT_TARGET = 0x00
    TARGET_FAILURE = 0x01


class ScsiStatus(IntEnum):
    """Status field of a SCSI Response (11.4.2; the values are SAM's)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


class TaskFunction(IntEnum):
    """Function of a Task Management Function Request (11.5.1; 9 to 12 are RFC 7144 section 6.3)."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    LOGICAL_UNIT_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    TASK_REASSIGN = 8
    QUERY_TASK = 9
    QUERY_TASK_SET = 10
    I_T_NEXUS_RESET = 11
    QUERY_ASYNCHRONOUS_EVENT = 12


class TaskResponse(IntEnum):
    """Response of a Task Management Function Response (11.6.1; 7 is RFC 7144 section 6.4.2)."""

    FUNCTION_COMPLETE = 0
    TASK_DOES_NOT_EXIST = 1
    LUN_DOES_NOT_EXIST = 2
    TASK_STILL_ALLEGIANT = 3
    REASSIGNMENT_NOT_SUPPORTED = 4
    NOT_SUPPORTED = 5
    AUTHORIZATION_FAILED = 6
    FUNCTION_SUCCEEDED = 7
    FUNCTION_REJECTED = 255


class AsyncEvent(IntEnum):
    """AsyncEvent of an Asynchronous Message (11.9.1); 248 to 255 are vendor-unique."""

    SCSI_EVENT = 0
    LOGOUT_REQUEST = 1
    CONNECTION_DROP = 2
    SESSION_DROP = 3
    NEGOTIATION_REQUEST = 4
    TASK_TERMINATION = 5
    VENDOR = 255


class Stage(IntEnum):
    """CSG and NSG of login PDUs (11.12.3); the value 2 does not exist."""

    SECURITY = 0
    OPERATIONAL = 1
    FULL_FEATURE = 3


class LoginStatus(IntEnum):
    """Status-Class << 8 | Status-Detail of a Login Response, the whole table of 11.13.5."""

    SUCCESS = 0x0000
    TARGET_MOVED_TEMPORARILY = 0x0101
    TARGET_MOVED_PERMANENTLY = 0x0102
    INITIATOR_ERROR = 0x0200
    AUTHENTICATION_FAILURE = 0x0201
    AUTHORIZATION_FAILURE = 0x0202
    NOT_FOUND = 0x0203
    TARGET_REMOVED = 0x0204
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    CANNOT_INCLUDE_IN_SESSION = 0x0208
    SESSION_TYPE_NOT_SUPPORTED = 0x0209
    SESSION_DOES_NOT_EXIST = 0x020A
    INVALID_DURING_LOGIN = 0x020B
    TARGET_ERROR = 0x0300
    SERVICE_UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302


class LogoutReason(IntEnum):
    """Reason Code of a Logout Request (11.14.1)."""

    CLOSE_SESSION = 0
    CLOSE_CONNECTION = 1
    REMOVE_FOR_RECOVERY = 2


class LogoutResult(IntEnum):
    """Response of a Logout Response (11.15.1)."""

    SUCCESS = 0
    CID_NOT_FOUND = 1
    RECOVERY_NOT_SUPPORTED = 2
    CLEANUP_FAILED = 3


class SnackType(IntEnum):
    """Type of a SNACK Request (11.16.1)."""

    DATA_OR_R2T = 0
    STATUS = 1
    DATA_ACK = 2
    R_DATA = 3


class RejectReason(IntEnum):
    """Reason of a Reject (11.17.1). 0x0B is deprecated and never sent."""

    RESERVED = 0x01
    DATA_DIGEST_ERROR = 0x02
    SNACK_REJECT = 0x03
    PROTOCOL_ERROR = 0x04
    COMMAND_NOT_SUPPORTED = 0x05
    IMMEDIATE_COMMAND_REJECT = 0x06
    TASK_IN_PROGRESS = 0x07
    INVALID_DATA_ACK = 0x08
    INVALID_PDU_FIELD = 0x09
    LONG_OPERATION_REJECT = 0x0A
    NEGOTIATION_RESET = 0x0B
    WAITING_FOR_LOGOUT = 0x0C
