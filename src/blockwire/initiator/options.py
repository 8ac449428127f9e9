"""How to connect: what a caller may set beside the URL, and the timers, each with its unit and reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from blockwire.auth import InitiatorCredentials
from blockwire.session.recovery import LADDER, Backoff, LadderStep, Rung, ladder_seconds


@dataclass(frozen=True, slots=True)
class Timers:
    """Every timer of the initiator in one place, seconds."""

    timeout: float = 30.0
    """To connect and log in, and for one command. 30 s: Linux's SCSI layer waits as long."""
    replacement_timeout: float = ladder_seconds(Rung.REOPEN_SESSION)
    """How long I/O waits for a lost session to come back before it fails (open-iscsi's default)."""
    keep_alive_interval: float = 5.0
    """Without traffic for so long a NOP-Out asks for a sign of life; 0 turns it off."""
    keep_alive_timeout: float = 10.0
    """Without an answer for so long the connection is given up."""
    logout: float = 3.0
    """How long an orderly logout may take before the connection is just closed."""
    reopen_first: float = 0.1
    """Pause before the first attempt to open a lost session again (Time2Wait is waited for besides)."""
    reopen_longest: float = 10.0
    """The pause doubles from attempt to attempt up to this."""
    ladder: tuple[LadderStep, ...] = LADDER
    """What is done about a command that does not end within `timeout`, each rung with its own timer."""

    @property
    def backoff(self) -> Backoff:
        """The pauses between attempts."""
        return Backoff(first=self.reopen_first, longest=self.reopen_longest)


QUIRKS = {
    "reassign-lun": "TASK REASSIGN carries the LUN of its task, although it is reserved there (RFC 7143 11.5.4)",
    "reassign-answer": "of the answers to TASK REASSIGN 255 means that the task goes on, and 0 that there is none; "
    "a read that lacks only its status is sent again instead of moved (RFC 7143 7.2.2)",
}
"""Departures of targets from RFC 7143 that can be gone along with. Linux's target (LIO) needs both at level 2."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `open` and `connect` take beside the URL."""

    keys: Mapping[str, str] = field(default_factory=dict)
    """RFC 7143 keys to offer, over the URL's."""
    initiator_name: str = ""
    """Empty: the initiator's own."""
    credentials: InitiatorCredentials | None = None
    """CHAP account of this side, and whom it expects at the other end; None offers no authentication."""
    portal_group_tag: int | None = None
    """TargetPortalGroupTag that the target has to answer with (discovery named it); None takes any."""
    timers: Timers = field(default_factory=Timers)
    quirks: tuple[str, ...] = ()
    """Names of `QUIRKS`."""
    rate: float = 0.0
    """Bytes per second that the session may send; 0: no limit. `Session.set_rate` changes it."""
