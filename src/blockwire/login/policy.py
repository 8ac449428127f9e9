"""The questions that a target's login asks of whoever owns the targets. The answers come at once, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from blockwire.auth.secrets import TargetAuthentication
from blockwire.names import Isid
from blockwire.negotiate.parameters import Parameters, SessionType
from blockwire.negotiate.preferences import Preferences


@dataclass(frozen=True, slots=True)
class Identification:
    """Who logs in to what, from the first Login Request."""

    initiator_name: str
    target_name: str
    """As it was sent; empty in a discovery session that names no target."""
    session_type: SessionType
    isid: Isid
    tsih: int
    cid: int


@dataclass(frozen=True, slots=True)
class Reception:
    """How the target receives this initiator."""

    target_name: str
    """The name the target calls itself; empty for discovery without a target."""
    portal_group_tag: int
    preferences: Preferences
    authentication: TargetAuthentication = field(default_factory=lambda: TargetAuthentication(required=False))
    alias: str = ""


@dataclass(frozen=True, slots=True)
class ExistingSession:
    """A session of the same initiator name, ISID, target and portal group (the ISID RULE, 4.4.3)."""

    tsih: int
    parameters: Parameters
    cids: frozenset[int]
    """Connections that are not closed, those waiting for cleanup too."""
    exp_cmd_sn: int = 0
    """Live numbers, for the login of a further connection (11.12.8)."""
    max_cmd_sn: int = 0
    connections: int | None = None
    """Connections that take a place of MaxConnections; None: all of ``cids``."""


class TargetPolicy(Protocol):
    """Answers for one connection; its owner knows the peer's address and the portal."""

    def receive(self, request: Identification) -> Reception:
        """How this initiator is received.

        Raises:
            LoginError: it is not: target not found (0203), not allowed (0202), session type not supported (0209),
                out of resources (0302), moved (:class:`RedirectError` with its addresses), …
        """
        ...

    def existing_session(self, request: Identification, reception: Reception) -> ExistingSession | None:
        """The session that this login would join or reinstate.

        For a discovery session without a target name the rule is that of 7.4.2.1: same initiator, ISID and portal.
        """
        ...
