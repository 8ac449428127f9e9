"""What a login needs and what it comes to: limits, events, the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from blockwire.errors import Error
from blockwire.login.states import Action
from blockwire.names import Isid
from blockwire.negotiate.parameters import Parameters


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """How much one login may take. RFC 7143 asks for at least six exchanges and 8192 bytes (6.1, 6.2)."""

    seconds: float = 30.0
    """From start() (initiator) or from the connection on (target) to the end of the login."""
    pdus: int = 128
    """PDUs received."""
    text_bytes: int = 65536
    """Text received in all PDUs together."""


@dataclass(frozen=True, slots=True)
class LoginResult:
    """All that the full feature phase has to know; the same class for both roles."""

    role: Literal["initiator", "target"]
    initiator_name: str
    target_name: str
    """Empty in a discovery session without a target."""
    isid: Isid
    tsih: int
    cid: int
    parameters: Parameters
    action: Action
    portal_group_tag: int | None
    """TargetPortalGroupTag (13.9); ``None`` if the target did not say."""
    cmd_sn: int
    """The CmdSN of the first non-immediate command: the initiator's next, the target's ExpCmdSN."""
    exp_cmd_sn: int
    """ExpCmdSN as the target gave it in the last Login Response."""
    max_cmd_sn: int
    stat_sn: int
    """The StatSN of the next response: the target's next, the initiator's ExpStatSN."""
    over_read: bytes = b""
    """Bytes that were received after the last login PDU."""
    initiator_alias: str = ""
    target_alias: str = ""
    authenticated_as: str = ""
    """The initiator's CHAP name, if it authenticated itself."""
    target_authenticated: bool = False
    """Whether the target proved itself too (mutual CHAP)."""

    @property
    def discovery(self) -> bool:
        """Whether this is a discovery session."""
        return self.parameters.session_type == "Discovery"


@dataclass(frozen=True, slots=True)
class LoginDone:
    """The login ended well. What poll_transmit() still gives is to be sent before anything else."""

    result: LoginResult


@dataclass(frozen=True, slots=True)
class LoginFailed:
    """The login ended badly: send what poll_transmit() gives, then close the connection.

    ``error`` is a :class:`blockwire.errors.RedirectError` for a redirect; its ``addresses`` are where to go.
    """

    error: Error
    retry_with_md5: bool = False
    """The initiator may try again with CHAP_A=5 alone: the target chose none of a longer list."""
    text: dict[str, str] = field(default_factory=dict)
    """Pairs of a refusing Login Response."""
    pdus: int = 0
    """How many PDUs had come: none means that whoever answered may speak something else."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The target's machine has all it needs and waits for admit() or refuse(), within its deadline.

    This is where a session is made in the data plane, so that a lack of resources is still a login status.
    """

    action: Action
    initiator_name: str
    target_name: str
    isid: Isid
    tsih: int
    cid: int
    cmd_sn: int
    exp_stat_sn: int
    """Of the connection that is reinstated (11.12.9); meaningless for others."""
    parameters: Parameters
    authenticated_as: str = ""


LoginEvent = LoginDone | LoginFailed | Admission
