"""Sessions and connections as RFC 7143 sees them: state tables (section 8), ISIDs (4.4.3), the
recovery ladder as one table (7)."""

from __future__ import annotations

from blockwire.session.connection_states import (
    CLEANUP,
    INITIATOR_CONNECTION,
    TARGET_CONNECTION,
    CleanupState,
    ConnectionState,
)
from blockwire.session.identity import IsidAllocator
from blockwire.session.session_states import INITIATOR_SESSION, TARGET_SESSION, SessionState
from blockwire.session.table import StateTable, Transition, UndefinedTransitionError

__all__ = [
    "CLEANUP",
    "INITIATOR_CONNECTION",
    "INITIATOR_SESSION",
    "TARGET_CONNECTION",
    "TARGET_SESSION",
    "CleanupState",
    "ConnectionState",
    "IsidAllocator",
    "SessionState",
    "StateTable",
    "Transition",
    "UndefinedTransitionError",
]
