"""The one family of errors: what happened, whose fault it was, what was seen, what to do next.

Everything that can go wrong reaches a user as a :class:`Error`. The same object carries the exit code of the
command line (:func:`exit_code`) and the answer that goes on the wire: :func:`login_status`,
:func:`reject_reason`, :func:`sense`. A secret inside a URL never survives construction.
"""

from __future__ import annotations

import errno
import re
from typing import Any, Literal, Self

from blockwire.wire.constants import LoginStatus, RejectReason, ScsiStatus

Whose = Literal["local", "peer", "network", "device", "user"]

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_REFUSED = 4
EXIT_DEVICE = 5
EXIT_DIFFERS = 6
EXIT_NOTHING = 7
EXIT_INTERRUPTED = 130

_REDACTED = "***"
# A secret may itself hold '/', '?' or '@', so everything from the first '%' to the last '@' of the word goes.
_URL_SECRET = re.compile(r"((?:^|(?<=[\s'\"(/=]))[^\s%@/'\"]+%)\S*(?=@)")
_KEY_SECRET = re.compile(r"\b(CHAP_R|CHAP_C|SRP_[A-Z]+|target_password)=[^\s,&\x00]+")


def redact(text: str) -> str:
    """``text`` with URL secrets and CHAP responses and challenges replaced by ``***``."""
    if "%" in text:
        text = _URL_SECRET.sub(rf"\1{_REDACTED}", text)
    return _KEY_SECRET.sub(rf"\1={_REDACTED}", text)


class Error(OSError):
    """The base of every error that Blockwire raises.

    Attributes:
        code: a stable string, ``area.detail``, for programs (``login.authentication-failure``).
        whose: who has to act: ``local`` (this program), ``peer``, ``network``, ``device`` or ``user``.
        message: one line that states the cause.
        evidence: what was seen (an address, a status, a key), or an empty string.
        next: what to do, or an empty string.
    """

    code: str = "failed"
    whose: Whose = "local"
    exit_code: int = EXIT_FAILED
    default_errno: int = errno.EIO

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        whose: Whose | None = None,
        evidence: str = "",
        next: str = "",
    ) -> None:
        self.message = redact(message) or type(self).__name__
        super().__init__(self.message)
        self.errno = self.default_errno
        if code is not None:
            self.code = code
        if whose is not None:
            self.whose = whose
        self.evidence = redact(evidence)
        self.next = redact(next)

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, code={self.code!r}, evidence={self.evidence!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), dict(self.__dict__), self.errno))

    def to_json(self) -> dict[str, dict[str, object]]:
        """The object printed by ``--json`` on stderr (interface.md, "Output")."""
        return {
            "error": {
                "code": self.code,
                "whose": self.whose,
                "message": self.message,
                "evidence": self.evidence,
                "next": self.next,
            }
        }

    @classmethod
    def wrap(cls, cause: BaseException, message: str, **details: Any) -> Self:
        """An error of this class whose evidence is ``cause`` and whose ``__cause__`` is it."""
        details.setdefault("evidence", f"{type(cause).__name__}: {cause}")
        error = cls(message, **details)
        error.__cause__ = cause
        return error


def _restore(cls: type[Error], state: dict[str, Any], number: int) -> Error:
    error = cls.__new__(cls)
    OSError.__init__(error, state["message"])
    error.__dict__.update(state)
    error.errno = number
    return error


class ConfigurationError(Error):
    """A value in a configuration, a key or a store description cannot work."""

    code = "configuration.invalid"
    whose = "user"
    exit_code = EXIT_USAGE
    default_errno = errno.EINVAL


class UsageError(Error):
    """A command line or a call was written wrongly (a bad URL, an unknown flag, an unaligned offset)."""

    code = "usage.invalid"
    whose = "user"
    exit_code = EXIT_USAGE
    default_errno = errno.EINVAL


class MissingFileError(ConfigurationError, FileNotFoundError):
    """A file that was named does not exist."""

    code = "configuration.file-not-found"
    default_errno = errno.ENOENT


class NotAllowedError(ConfigurationError, PermissionError):
    """The operating system refuses a file, a device or a port."""

    code = "configuration.permission"
    default_errno = errno.EACCES


class UnreachableError(Error, ConnectionError):
    """No connection to the portal could be made, or it was lost and not recovered."""

    code = "network.unreachable"
    whose = "network"
    exit_code = EXIT_UNREACHABLE
    default_errno = errno.EHOSTUNREACH


class RefusedError(UnreachableError, ConnectionRefusedError):
    """Nothing listens at the portal."""

    code = "network.refused"
    default_errno = errno.ECONNREFUSED


class ConnectionLostError(UnreachableError, ConnectionResetError):
    """The connection ended while it was in use."""

    code = "network.connection-lost"
    default_errno = errno.ECONNRESET


class TimedOutError(UnreachableError, TimeoutError):
    """The peer did not answer in time."""

    code = "network.timeout"
    default_errno = errno.ETIMEDOUT


class LoginError(Error):
    """The login was refused, or this side refused it, with a status of RFC 7143 section 11.13.5.

    Make one with :func:`login_error`, which picks the leaf that fits the status.

    Attributes:
        status_class: Status-Class, 0 to 255.
        status_detail: Status-Detail, 0 to 255.
    """

    code = "login.failed"
    whose = "peer"
    exit_code = EXIT_REFUSED
    default_errno = errno.ECONNREFUSED

    def __init__(self, status_class: int, status_detail: int, message: str = "", **details: Any) -> None:
        row = _LOGIN_ROWS.get(status_class << 8 | status_detail)
        self.status_class = status_class
        self.status_detail = status_detail
        details.setdefault("code", row[1] if row else f"login.status-{status_class:02x}{status_detail:02x}")
        details.setdefault("whose", row[2] if row else "peer")
        details.setdefault("next", row[4] if row else "")
        details.setdefault("evidence", f"login status {status_class:02x}{status_detail:02x}")
        super().__init__(message or (row[3] if row else "the login was refused"), **details)

    @property
    def status(self) -> int:
        """Status-Class << 8 | Status-Detail."""
        return self.status_class << 8 | self.status_detail

    @property
    def retryable(self) -> bool:
        """Whether the same login may be tried again later (Status-Class 3)."""
        return self.status_class == 3


class AuthenticationError(LoginError, PermissionError):
    """Status 0201: one side could not prove who it is."""

    default_errno = errno.EACCES


class AuthorizationError(LoginError, PermissionError):
    """Status 0202: the initiator is known and not allowed."""

    default_errno = errno.EACCES


class TargetNotFoundError(LoginError, FileNotFoundError):
    """Status 0203 or 0204: there is no such target at this address."""

    default_errno = errno.ENOENT


class RedirectError(LoginError):
    """Status 0101 or 0102: the target is elsewhere; ``addresses`` holds its TargetAddress values."""

    def __init__(
        self,
        status_class: int,
        status_detail: int,
        message: str = "",
        *,
        addresses: tuple[str, ...] = (),
        **details: Any,
    ) -> None:
        self.addresses = addresses
        if addresses:
            details.setdefault("evidence", "TargetAddress=" + " ".join(addresses))
        super().__init__(status_class, status_detail, message, **details)

    @property
    def permanent(self) -> bool:
        """Whether the target moved for good (0102)."""
        return self.status_detail == 2


_Row = tuple[type[LoginError], str, Whose, str, str]

# The whole table of RFC 7143 section 11.13.5: status -> (class, code, whose, message, next).
_LOGIN_ROWS: dict[int, _Row] = {
    LoginStatus.TARGET_MOVED_TEMPORARILY: (
        RedirectError,
        "login.target-moved-temporarily",
        "peer",
        "the target has temporarily moved",
        "log in at the address that the target gave",
    ),
    LoginStatus.TARGET_MOVED_PERMANENTLY: (
        RedirectError,
        "login.target-moved-permanently",
        "peer",
        "the target has moved for good",
        "use the address that the target gave",
    ),
    LoginStatus.INITIATOR_ERROR: (
        LoginError,
        "login.initiator-error",
        "local",
        "the target found an error in the login request",
        "compare the keys of both sides",
    ),
    LoginStatus.AUTHENTICATION_FAILURE: (
        AuthenticationError,
        "login.authentication-failure",
        "user",
        "authentication failed",
        "check the CHAP user and secret on both sides",
    ),
    LoginStatus.AUTHORIZATION_FAILURE: (
        AuthorizationError,
        "login.authorization-failure",
        "user",
        "this initiator is not allowed to use the target",
        "allow this initiator name or address at the target",
    ),
    LoginStatus.NOT_FOUND: (
        TargetNotFoundError,
        "target.not-found",
        "user",
        "there is no such target at this address",
        "list the targets with `blockwire discover`",
    ),
    LoginStatus.TARGET_REMOVED: (
        TargetNotFoundError,
        "target.removed",
        "user",
        "the target has been removed",
        "list the targets with `blockwire discover`",
    ),
    LoginStatus.UNSUPPORTED_VERSION: (
        LoginError,
        "login.unsupported-version",
        "local",
        "the target does not support this iSCSI version",
        "",
    ),
    LoginStatus.TOO_MANY_CONNECTIONS: (
        LoginError,
        "login.too-many-connections",
        "user",
        "the session has as many connections as it may have",
        "lower MaxConnections or close a connection",
    ),
    LoginStatus.MISSING_PARAMETER: (
        LoginError,
        "login.missing-parameter",
        "local",
        "a required key was missing from the login request",
        "",
    ),
    LoginStatus.CANNOT_INCLUDE_IN_SESSION: (
        LoginError,
        "login.cannot-include-in-session",
        "peer",
        "the session cannot span to this address",
        "use a portal of the same portal group",
    ),
    LoginStatus.SESSION_TYPE_NOT_SUPPORTED: (
        LoginError,
        "login.session-type-not-supported",
        "peer",
        "the target does not support this type of session",
        "",
    ),
    LoginStatus.SESSION_DOES_NOT_EXIST: (
        LoginError,
        "login.session-does-not-exist",
        "local",
        "the session to join does not exist any more",
        "log in anew",
    ),
    LoginStatus.INVALID_DURING_LOGIN: (
        LoginError,
        "login.invalid-during-login",
        "local",
        "a request was sent that is not allowed during login",
        "",
    ),
    LoginStatus.TARGET_ERROR: (
        LoginError,
        "login.target-error",
        "peer",
        "the target has a hardware or software error",
        "look at the target's log; try again later",
    ),
    LoginStatus.SERVICE_UNAVAILABLE: (
        LoginError,
        "login.service-unavailable",
        "peer",
        "the target is not operational now",
        "try again later",
    ),
    LoginStatus.OUT_OF_RESOURCES: (
        LoginError,
        "login.out-of-resources",
        "peer",
        "the target is out of sessions, connections or memory",
        "try again later",
    ),
}


def login_error(status: int, message: str = "", **details: Any) -> LoginError:
    """The error for a login status (Status-Class << 8 | Status-Detail).

    An unknown detail of a known class gives a plain :class:`LoginError`: the class alone says enough
    for a simple initiator (RFC 7143 section 11.13.5).
    """
    row = _LOGIN_ROWS.get(status)
    cls: type[LoginError] = row[0] if row else LoginError
    return cls(status >> 8, status & 0xFF, message, **details)


class ProtocolError(Error):
    """The peer (or this side, when ``whose`` is local) broke the protocol.

    Attributes:
        reject_reason: the Reject reason of RFC 7143 section 11.17.1 that answers it.
    """

    code = "protocol.error"
    whose = "peer"
    default_errno = errno.EPROTO

    def __init__(self, message: str = "", reject_reason: int = RejectReason.PROTOCOL_ERROR, **details: Any) -> None:
        self.reject_reason = int(reject_reason)
        super().__init__(message, **details)


class NegotiationError(ProtocolError):
    """A key was offered, answered or repeated against RFC 7143 sections 6.2 and 13."""

    code = "protocol.negotiation"

    def __init__(
        self, message: str = "", *, key: str = "", login_status: int = LoginStatus.INITIATOR_ERROR, **details: Any
    ) -> None:
        self.key = key
        self.login_status = int(login_status)
        super().__init__(message, **details)


class DeviceError(Error):
    """A SCSI command ended with a status other than GOOD.

    Attributes:
        status: SCSI status; sense_key, asc, ascq: sense data, 0 where there was none; sense: the raw bytes.
    """

    code = "device.error"
    whose = "device"
    exit_code = EXIT_DEVICE

    def __init__(
        self,
        message: str = "",
        *,
        status: int = ScsiStatus.CHECK_CONDITION,
        sense_key: int = 0,
        asc: int = 0,
        ascq: int = 0,
        sense: bytes = b"",
        **details: Any,
    ) -> None:
        self.status = int(status)
        self.sense_key = sense_key
        self.asc = asc
        self.ascq = ascq
        self.sense = sense
        details.setdefault("evidence", f"status {self.status:02x} sense {sense_key:x}/{asc:02x}/{ascq:02x}")
        super().__init__(message or "the device reported an error", **details)


class ReadOnlyError(DeviceError, PermissionError):
    """A write to a logical unit that is read-only (sense 7/27/00)."""

    code = "device.read-only"
    default_errno = errno.EROFS

    def __init__(self, message: str = "", **details: Any) -> None:
        details = {"sense_key": 7, "asc": 0x27, **details}
        super().__init__(message or "the logical unit is read-only", **details)


class DataDiffersError(Error):
    """What was read back is not what was written."""

    code = "data.differs"
    whose = "device"
    exit_code = EXIT_DIFFERS


class NothingFoundError(Error, FileNotFoundError):
    """The question was answered, and the answer is empty (no target, no LUN)."""

    code = "nothing.found"
    whose = "user"
    exit_code = EXIT_NOTHING
    default_errno = errno.ENOENT


class ForkedError(Error):
    """An object that was made before ``fork`` was used in the child."""

    code = "local.forked"
    default_errno = errno.EBADF

    def __init__(self, message: str = "", **details: Any) -> None:
        details.setdefault("next", "open a session of its own in the child process")
        super().__init__(message or "this handle belongs to the parent process", **details)


class ClosedError(Error):
    """The object is closed."""

    code = "local.closed"
    default_errno = errno.EBADF


class CancelledError(Error):
    """The command was aborted because the caller asked for it."""

    code = "local.cancelled"
    default_errno = errno.ECANCELED


class ResourceError(Error):
    """A bound of this program was reached (buffers, sessions, tasks)."""

    code = "local.out-of-resources"
    default_errno = errno.ENOBUFS


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


_OS_NEXT = {
    "check the path": (errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    "check who may use it, and as whom this runs": (errno.EACCES, errno.EPERM),
    "use a place that can be written": (errno.EROFS,),
    "free space there, then do it again": (errno.ENOSPC, errno.EDQUOT),
    "use a file system that takes files of this size": (errno.EFBIG,),
    "raise the number of open files (`ulimit -n`, fs.file-max)": (errno.EMFILE, errno.ENFILE),
    "check the medium (`dmesg` may say more)": (errno.EIO,),
    "check the address and the route to it": (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED),
}
"""What to do about a failed system call."""


def from_os_error(error: OSError, what: str) -> Error:
    """The member of the family that an operating-system error means; ``what`` names what was tried."""
    if isinstance(error, Error):
        return error
    cls: type[Error] = Error
    if isinstance(error, ConnectionRefusedError):
        cls = RefusedError
    elif isinstance(error, TimeoutError):
        cls = TimedOutError
    elif isinstance(error, ConnectionError):
        cls = ConnectionLostError
    elif isinstance(error, FileNotFoundError):
        cls = MissingFileError
    elif isinstance(error, PermissionError):
        cls = NotAllowedError
    elif isinstance(error, NotADirectoryError | IsADirectoryError):
        cls = ConfigurationError
    elif error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN):
        cls = UnreachableError
    advice = next((text for text, numbers in _OS_NEXT.items() if error.errno in numbers), "")
    result = cls.wrap(error, f"{what}: {error.strerror or error}", next=advice)
    if error.errno is not None:
        result.errno = error.errno
    return result
