"""What an error becomes elsewhere: an exit code, a login status, a Reject reason, sense data."""

from __future__ import annotations

import errno

from blockwire.errors.family import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    CancelledError,
    ClosedError,
    DeviceError,
    Error,
    NegotiationError,
    ProtocolError,
    ResourceError,
)
from blockwire.errors.login import LoginError
from blockwire.wire.constants import LoginStatus, RejectReason


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ended with ``error`` (interface.md, "Exit codes")."""
    if isinstance(error, Error):
        return error.exit_code
    return EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_FAILED


def login_status(error: BaseException) -> tuple[int, int]:
    """(Status-Class, Status-Detail) with which a target answers a login that ended in ``error``."""
    if isinstance(error, LoginError):
        return error.status_class, error.status_detail
    if isinstance(error, NegotiationError):
        return error.login_status >> 8, error.login_status & 0xFF
    status = LoginStatus.TARGET_ERROR
    if isinstance(error, ProtocolError):
        status = LoginStatus.INITIATOR_ERROR
    elif isinstance(error, ResourceError):
        status = LoginStatus.OUT_OF_RESOURCES
    elif isinstance(error, ClosedError):
        status = LoginStatus.SERVICE_UNAVAILABLE
    return status >> 8, status & 0xFF


def reject_reason(error: BaseException) -> int:
    """The Reject reason (RFC 7143 section 11.17.1) that answers ``error`` in the full feature phase."""
    if isinstance(error, ProtocolError):
        return error.reject_reason
    if isinstance(error, ResourceError):
        return RejectReason.LONG_OPERATION_REJECT
    return RejectReason.PROTOCOL_ERROR


def sense(error: BaseException) -> tuple[int, int, int]:
    """(sense key, ASC, ASCQ) that answers a SCSI command that ended in ``error``.

    Only what has no answer of its own is reported as HARDWARE ERROR, INTERNAL TARGET FAILURE (4/44/00).
    """
    if isinstance(error, DeviceError):
        return error.sense_key, error.asc, error.ascq
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return 0x7, 0x27, 0x07  # DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT
    if number in (errno.EROFS, errno.EPERM, errno.EACCES):
        return 0x7, 0x27, 0x00  # DATA PROTECT, WRITE PROTECTED
    if isinstance(error, CancelledError):
        return 0xB, 0x00, 0x00  # ABORTED COMMAND
    return 0x4, 0x44, 0x00
