"""The error classes: what happened, whose fault it was, what was seen, what to do next."""

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
# What is redacted already stays as it is: what stands behind it may be a quote.
_KEY_SECRET = re.compile(
    r"\b(CHAP_R|CHAP_C|SRP_[A-Z]+)=(?!\*\*\*)[^\s,&\x00]+|\b(target_password)=(?!\*\*\*)[^\s&\x00]+"
)


def redact(text: str) -> str:
    """``text`` with URL secrets and CHAP responses and challenges replaced by ``***``."""
    if "%" in text:
        text = _URL_SECRET.sub(rf"\1{_REDACTED}", text)
    return _KEY_SECRET.sub(lambda found: f"{found[1] or found[2]}={_REDACTED}", text)


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
