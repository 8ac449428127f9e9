"""Session states and transitions (RFC 7143 section 8.3)."""

from __future__ import annotations

from enum import Enum

from blockwire.session.table import StateTable, Transition


class SessionState(Enum):
    """Q1 to Q5 (8.3.3). The initiator has neither Q2 nor Q5."""

    FREE = "Q1"
    ACTIVE = "Q2"
    LOGGED_IN = "Q3"
    FAILED = "Q4"
    IN_CONTINUE = "Q5"


_Q = SessionState

INITIATOR_SESSION = StateTable(
    "initiator session", "8.3.1", _Q.FREE,
    (
        Transition("N1", _Q.FREE, _Q.LOGGED_IN, "a connection reached LOGGED_IN"),
        Transition("N3", _Q.LOGGED_IN, _Q.FREE, "the session was closed"),
        Transition("N5", _Q.LOGGED_IN, _Q.FAILED, "the last connection failed (6.3.6)"),
        Transition("N4", _Q.FAILED, _Q.LOGGED_IN, "a continuation attempt succeeded"),
        Transition("N6", _Q.FAILED, _Q.FREE, "the session state timed out, or a reinstatement cleared it"),
    ),
)  # fmt: skip

TARGET_SESSION = StateTable(
    "target session", "8.3.2", _Q.FREE,
    (
        Transition("N1", _Q.FREE, _Q.ACTIVE, "the first connection reached IN_LOGIN"),
        Transition("N2", _Q.ACTIVE, _Q.LOGGED_IN, "a connection reached LOGGED_IN"),
        Transition("N9", _Q.ACTIVE, _Q.FREE, "the leading login failed"),
        Transition("N3", _Q.LOGGED_IN, _Q.FREE, "the session was closed, or a reinstatement closed it"),
        Transition("N5", _Q.LOGGED_IN, _Q.FAILED, "the last connection failed (6.3.6)"),
        Transition("N6", _Q.FAILED, _Q.FREE, "the session state timed out, or a reinstatement cleared it"),
        Transition("N7", _Q.FAILED, _Q.IN_CONTINUE, "a continuation attempt began"),
        Transition("N8", _Q.IN_CONTINUE, _Q.FAILED, "the last continuation attempt failed"),
        Transition("N10", _Q.IN_CONTINUE, _Q.LOGGED_IN, "a continuation attempt succeeded"),
        Transition("N11", _Q.IN_CONTINUE, _Q.FREE, "a reinstatement closed the session"),
    ),
)  # fmt: skip
