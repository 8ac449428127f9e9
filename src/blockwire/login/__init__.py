"""The login phase as sans-IO machines for both roles (RFC 7143 section 6.3).

Each machine takes bytes and the time, and gives bytes, events and a deadline::

    login = InitiatorLogin(LoginPlan(...), random=os.urandom)
    login.start(now)
    loop: send login.poll_transmit(); event = login.poll_event(); login.handle_bytes(received, now)
          until the event is LoginDone(result) or LoginFailed(error)

The target's machine gives one more event, :class:`Admission`, and goes on after ``admit(tsih)`` or ``refuse(error)``.
"""

from __future__ import annotations

from blockwire.login.initiator import InitiatorLogin, LoginPlan
from blockwire.login.policy import ExistingSession, Identification, Reception, TargetPolicy
from blockwire.login.result import Admission, LoginDone, LoginEvent, LoginFailed, LoginLimits, LoginResult
from blockwire.login.states import Action
from blockwire.login.target import TargetLogin

__all__ = [
    "Action",
    "Admission",
    "ExistingSession",
    "Identification",
    "InitiatorLogin",
    "LoginDone",
    "LoginEvent",
    "LoginFailed",
    "LoginLimits",
    "LoginPlan",
    "LoginResult",
    "Reception",
    "TargetLogin",
    "TargetPolicy",
]
