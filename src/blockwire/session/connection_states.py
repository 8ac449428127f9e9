"""Connection states and transitions (RFC 7143 sections 8.1 and 8.2)."""

from __future__ import annotations

from enum import Enum

from blockwire.session.table import StateTable, Transition


class ConnectionState(Enum):
    """S1 to S8 (8.1.1). The initiator has no S3, the target no S2."""

    FREE = "S1"
    XPT_WAIT = "S2"
    XPT_UP = "S3"
    IN_LOGIN = "S4"
    LOGGED_IN = "S5"
    IN_LOGOUT = "S6"
    LOGOUT_REQUESTED = "S7"
    CLEANUP_WAIT = "S8"

    @property
    def full_feature(self) -> bool:
        """S5, S6 and S7 are the full feature phase (8.1.3, 8.1.4)."""
        return self in (ConnectionState.LOGGED_IN, ConnectionState.IN_LOGOUT, ConnectionState.LOGOUT_REQUESTED)


_S = ConnectionState

INITIATOR_CONNECTION = StateTable(
    "initiator connection", "8.1.3", _S.FREE,
    (
        Transition("T1", _S.FREE, _S.XPT_WAIT, "the transport connection was asked for"),
        Transition("T2", _S.XPT_WAIT, _S.FREE, "the transport connection failed, or the session was closed"),
        Transition("T4", _S.XPT_WAIT, _S.IN_LOGIN, "the transport connection is there; the login starts"),
        Transition("T5", _S.IN_LOGIN, _S.LOGGED_IN, "the final Login Response with Status-Class 0 came"),
        Transition("T7", _S.IN_LOGIN, _S.FREE, "the login was refused, timed out, or lost its connection"),
        Transition("T8", _S.LOGGED_IN, _S.FREE, "another connection closed the session"),
        Transition("T9", _S.LOGGED_IN, _S.IN_LOGOUT, "a Logout Request was sent"),
        Transition("T11", _S.LOGGED_IN, _S.LOGOUT_REQUESTED, "an Async Message asked for logout"),
        Transition("T15", _S.LOGGED_IN, _S.CLEANUP_WAIT, "the transport failed, or an Async Message dropped it"),
        Transition("T13", _S.IN_LOGOUT, _S.FREE, "the Logout Response came and was a success"),
        Transition("T14", _S.IN_LOGOUT, _S.IN_LOGOUT, "an Async Message asked for logout again"),
        Transition("T17", _S.IN_LOGOUT, _S.CLEANUP_WAIT, "the logout failed or timed out, or the transport failed"),
        Transition("T10", _S.LOGOUT_REQUESTED, _S.IN_LOGOUT, "a Logout Request was sent"),
        Transition("T12", _S.LOGOUT_REQUESTED, _S.LOGOUT_REQUESTED, "an Async Message asked for logout again"),
        Transition("T16", _S.LOGOUT_REQUESTED, _S.CLEANUP_WAIT, "the transport failed, or an Async Message dropped it"),
        Transition("T18", _S.LOGOUT_REQUESTED, _S.FREE, "another connection closed the session"),
    ),
)  # fmt: skip

TARGET_CONNECTION = StateTable(
    "target connection", "8.1.4", _S.FREE,
    (
        Transition("T3", _S.FREE, _S.XPT_UP, "a transport connection was accepted"),
        Transition("T6", _S.XPT_UP, _S.FREE, "no login came in time, or the transport failed"),
        Transition("T4", _S.XPT_UP, _S.IN_LOGIN, "the first Login Request came"),
        Transition("T5", _S.IN_LOGIN, _S.LOGGED_IN, "the final Login Response with Status-Class 0 is sent"),
        Transition("T7", _S.IN_LOGIN, _S.FREE, "the login was refused, timed out, or lost its connection"),
        Transition("T8", _S.LOGGED_IN, _S.FREE, "the session was closed, or a reinstatement took its place"),
        Transition("T9", _S.LOGGED_IN, _S.IN_LOGOUT, "a Logout Request came"),
        Transition("T11", _S.LOGGED_IN, _S.LOGOUT_REQUESTED, "the target asks for logout by an Async Message"),
        Transition("T15", _S.LOGGED_IN, _S.CLEANUP_WAIT, "the transport failed, or the target drops it"),
        Transition("T13", _S.IN_LOGOUT, _S.FREE, "the logout was done and its response is sent"),
        Transition("T17", _S.IN_LOGOUT, _S.CLEANUP_WAIT, "the logout failed, or the transport failed"),
        Transition("T10", _S.LOGOUT_REQUESTED, _S.IN_LOGOUT, "a Logout Request came"),
        Transition("T12", _S.LOGOUT_REQUESTED, _S.LOGOUT_REQUESTED, "the target asks for logout again"),
        Transition("T16", _S.LOGOUT_REQUESTED, _S.CLEANUP_WAIT, "the transport failed, or the target drops it"),
        Transition("T18", _S.LOGOUT_REQUESTED, _S.FREE, "the session was closed, or a reinstatement took its place"),
    ),
)  # fmt: skip


class CleanupState(Enum):
    """R1 to R3 (8.2.1), for a connection that entered CLEANUP_WAIT."""

    CLEANUP_WAIT = "R1"
    IN_CLEANUP = "R2"
    FREE = "R3"


_R = CleanupState

CLEANUP = StateTable(
    "connection cleanup", "8.2", _R.CLEANUP_WAIT,
    (
        Transition("M1", _R.CLEANUP_WAIT, _R.FREE, "the state timed out, or the session was closed elsewhere"),
        Transition("M2", _R.CLEANUP_WAIT, _R.IN_CLEANUP, "an implicit or explicit logout was started"),
        Transition("M3", _R.IN_CLEANUP, _R.CLEANUP_WAIT, "the logout failed"),
        Transition("M4", _R.IN_CLEANUP, _R.FREE, "the logout was successful"),
    ),
)  # fmt: skip
