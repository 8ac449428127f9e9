"""The login phase as literal tables (RFC 7143 sections 6.3 and 6.3.1)."""

from __future__ import annotations

from enum import Enum
from typing import Final

from blockwire.wire.constants import Stage

# 6.3: "Stage transitions during login … are only possible as outlined in the following table".
STAGE_TRANSITIONS: Final[dict[Stage | None, frozenset[Stage]]] = {
    None: frozenset({Stage.SECURITY, Stage.OPERATIONAL}),  # (start)
    Stage.SECURITY: frozenset({Stage.OPERATIONAL, Stage.FULL_FEATURE}),
    Stage.OPERATIONAL: frozenset({Stage.FULL_FEATURE}),
}


class Action(Enum):
    """What a login asks of the target, by ISID, TSIH and CID (the table of 6.3.1)."""

    NEW_SESSION = "new-session"
    REINSTATE_SESSION = "reinstate-session"
    ADD_CONNECTION = "add-connection"
    REINSTATE_CONNECTION = "reinstate-connection"
    FAIL = "session-does-not-exist"


# (the ISID has a session, TSIH is zero, TSIH is that session's, the CID exists) -> action; None: any value.
LOGIN_ACTIONS: Final[tuple[tuple[bool, bool, bool | None, bool | None, Action], ...]] = (
    (False, False, None, None, Action.FAIL),
    (False, True, None, None, Action.NEW_SESSION),
    (True, True, None, None, Action.REINSTATE_SESSION),
    (True, False, True, False, Action.ADD_CONNECTION),
    (True, False, True, True, Action.REINSTATE_CONNECTION),
    (True, False, False, None, Action.FAIL),
)


def login_action(has_session: bool, tsih: int, session_tsih: int, cid_exists: bool) -> Action:
    """The row of :data:`LOGIN_ACTIONS` that fits."""
    facts = (has_session, tsih == 0, tsih == session_tsih, cid_exists)
    for *conditions, action in LOGIN_ACTIONS:
        if all(wanted is None or wanted == fact for wanted, fact in zip(conditions, facts, strict=True)):
            return action
    return Action.FAIL


class Step(Enum):
    """Where a login machine is."""

    IDLE = "nothing was sent or received yet"
    RUNNING = "requests and responses go back and forth"
    ADMISSION = "the target's machine waits for admit() or refuse()"
    DONE = "the full feature phase begins"
    FAILED = "the connection is to be closed"


# Which calls move a machine where; anything else is an error of the caller.
STEPS: Final[dict[Step, frozenset[Step]]] = {
    Step.IDLE: frozenset({Step.RUNNING, Step.FAILED}),
    Step.RUNNING: frozenset({Step.ADMISSION, Step.DONE, Step.FAILED}),
    Step.ADMISSION: frozenset({Step.DONE, Step.FAILED}),
    Step.DONE: frozenset(),
    Step.FAILED: frozenset(),
}
