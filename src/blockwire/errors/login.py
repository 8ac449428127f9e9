"""Logins that were refused: the table of RFC 7143 section 11.13.5 as errors."""

from __future__ import annotations

import errno
from typing import Any

from blockwire.errors.family import EXIT_REFUSED, Error, Whose
from blockwire.wire.constants import LoginStatus


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

    An unknown detail of a known class gives a plain :class:`LoginError`, of class 1 a redirect for this time: the class
    alone says enough for a simple initiator (RFC 7143 section 11.13.5).
    """
    row = _LOGIN_ROWS.get(status)
    cls: type[LoginError] = row[0] if row else RedirectError if status >> 8 == 1 else LoginError
    return cls(status >> 8, status & 0xFF, message, **details)
