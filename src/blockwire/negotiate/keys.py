"""The table of keys: RFC 7143 sections 12 and 13 and RFC 7144 section 7, one row each.

Everything that is particular to a key stands in its row; the engine knows no key by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from blockwire.negotiate import values

Role = Literal["initiator", "target"]
BOTH: Final[frozenset[str]] = frozenset({"initiator", "target"})
INITIATOR: Final[frozenset[str]] = frozenset({"initiator"})
TARGET: Final[frozenset[str]] = frozenset({"target"})

REJECT: Final = "Reject"
IRRELEVANT: Final = "Irrelevant"
NOT_UNDERSTOOD: Final = "NotUnderstood"
RESERVED_ANSWERS: Final = frozenset({REJECT, IRRELEVANT, NOT_UNDERSTOOD})
"""Constants that only an answer may be (6.2)."""


class Function(Enum):
    """How two sides come to one value (section 13, "Result function"; 6.2.1 for lists)."""

    MINIMUM = "Minimum"
    MAXIMUM = "Maximum"
    AND = "AND"
    OR = "OR"
    FIRST = "first supported of the list"
    DECLARE = "Declarative"
    OBSOLETE = "answered with Reject"
    SECURITY = "handled by the authentication method"


class Use(Enum):
    """When a key may be used (13, first paragraphs)."""

    LO = "leading login only"
    IO = "any login"
    ALL = "login and full feature phase"
    FFPO = "full feature phase only"


Value = bool | int | str


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table."""

    name: str
    section: str
    function: Function
    use: Use = Use.LO
    scope: Literal["SW", "CO"] = "SW"
    senders: frozenset[str] = BOTH
    any_stage: bool = False
    """May also appear in the security stage (12)."""
    security: bool = False
    """Belongs to the security stage only."""
    kind: Literal["boolean", "number", "list", "name", "text"] = "number"
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    default: Value | None = None
    field: str | None = None
    """The field of :class:`Parameters` that holds the result."""
    discovery_irrelevant: bool = False
    """Irrelevant when SessionType=Discovery."""
    repeatable: bool = False
    """May be declared more than once in a negotiation (6.3)."""
    later: bool = False
    """Defined after RFC 3720: NotUnderstood, or no answer, ends its negotiation without an error (6.2)."""
    indifferent: bool = False
    """Nothing may depend on whether it is there (13.26.2): it is discarded, wherever it comes and whatever it
    says. Only to send it twice is an error, as with any key (6.3)."""
    max_length: int = values.MAX_SIMPLE_VALUE

    def parse(self, text: str) -> Value:
        """The value in ``text``; ``ValueError`` if it is none or out of bounds. A list stays text."""
        if len(text.encode()) > self.max_length:
            raise ValueError(f"the value of {self.name} is longer than {self.max_length} bytes")
        if self.kind == "boolean":
            return values.parse_boolean(text)
        if self.kind == "number":
            number = values.parse_number(text)
            if not self.low <= number <= self.high:
                raise OutOfBoundsError(f"{self.name}={number} is not within {self.low} to {self.high}")
            return number
        if self.kind == "list":
            values.parse_list(text)
        elif self.choices and text not in self.choices:
            raise ValueError(f"{self.name} is one of {', '.join(self.choices)}")
        return text

    def format(self, value: Value) -> str:
        """``value`` as text."""
        return values.format_boolean(value) if isinstance(value, bool) else str(value)

    def combine(self, offered: Value, own: Value) -> Value:
        """The acceptor's answer to ``offered`` when it would have chosen ``own`` itself.

        For a list this is the first item offered that ``own`` (a list too) holds, or ``Reject``.
        """
        if self.function is Function.FIRST:
            supported = str(own).split(",")
            return next((item for item in str(offered).split(",") if item in supported), REJECT)
        if self.function is Function.AND:
            return bool(offered) and bool(own)
        if self.function is Function.OR:
            return bool(offered) or bool(own)
        if self.function is Function.MAXIMUM:
            return max(int(offered), int(own))
        return min(int(offered), int(own))

    def admissible(self, offered: Value, answer: Value) -> bool:
        """Whether ``answer`` is a possible result for ``offered`` under the result function."""
        if self.function is Function.FIRST:
            return answer in str(offered).split(",")
        return self.combine(offered, answer) == answer

    def answer_optional(self, offered: Value) -> bool:
        """Whether the offer alone decides the result (6.2.2), so that no answer has to come."""
        return (self.function is Function.AND and offered is False) or (
            self.function is Function.OR and offered is True
        )


class OutOfBoundsError(ValueError):
    """A well-formed number outside its key's bounds: a proposal may be answered with Reject (6.2.2)."""


_F, _U = Function, Use

_ROWS: Final = (
    # Section 12: the security stage.
    Key("AuthMethod", "12.1", _F.SECURITY, _U.IO, "CO", kind="list", security=True),
    Key("CHAP_A", "12.1.3", _F.SECURITY, _U.IO, "CO", kind="list", security=True),
    Key("CHAP_I", "12.1.3", _F.SECURITY, _U.IO, "CO", high=255, security=True),
    # At most 1024 bytes, of which hex makes 2050 characters.
    Key("CHAP_C", "12.1.3", _F.SECURITY, _U.IO, "CO", kind="text", security=True, max_length=2050),
    Key("CHAP_N", "12.1.3", _F.SECURITY, _U.IO, "CO", kind="text", security=True),
    Key("CHAP_R", "12.1.3", _F.SECURITY, _U.IO, "CO", kind="text", security=True, max_length=2050),
    # Section 13: declarations about who speaks.
    Key("TargetName", "13.4", _F.DECLARE, _U.IO, senders=INITIATOR, any_stage=True, kind="name", max_length=223),
    Key("InitiatorName", "13.5", _F.DECLARE, _U.IO, senders=INITIATOR, any_stage=True, kind="name", max_length=223),
    Key("TargetAlias", "13.6", _F.DECLARE, _U.ALL, senders=TARGET, any_stage=True, kind="text"),
    Key("InitiatorAlias", "13.7", _F.DECLARE, _U.ALL, senders=INITIATOR, any_stage=True, kind="text"),
    Key("TargetAddress", "13.8", _F.DECLARE, _U.ALL, senders=TARGET, any_stage=True, kind="text", repeatable=True),
    Key("TargetPortalGroupTag", "13.9", _F.DECLARE, _U.IO, senders=TARGET, any_stage=True, high=65535),
    Key(
        "SessionType", "13.21", _F.DECLARE, _U.LO, senders=INITIATOR, any_stage=True, kind="text",
        choices=("Normal", "Discovery"), default="Normal", field="session_type",
    ),
    # Section 13: operational keys.
    Key("HeaderDigest", "13.1", _F.FIRST, _U.IO, "CO", kind="list", default="None", field="header_digest"),
    Key("DataDigest", "13.1", _F.FIRST, _U.IO, "CO", kind="list", default="None", field="data_digest"),
    Key(
        "MaxConnections", "13.2", _F.MINIMUM, low=1, high=65535, default=1, field="max_connections",
        discovery_irrelevant=True,
    ),
    Key("SendTargets", "13.3", _F.SECURITY, _U.FFPO, senders=INITIATOR, kind="text"),
    Key(
        "InitialR2T", "13.10", _F.OR, kind="boolean", default=True, field="initial_r2t", discovery_irrelevant=True,
    ),
    Key(
        "ImmediateData", "13.11", _F.AND, kind="boolean", default=True, field="immediate_data",
        discovery_irrelevant=True,
    ),
    # The field depends on who declares; see Negotiation.
    Key("MaxRecvDataSegmentLength", "13.12", _F.DECLARE, _U.ALL, "CO", default=8192, low=512, high=2**24 - 1),
    Key(
        "MaxBurstLength", "13.13", _F.MINIMUM, default=262144, field="max_burst_length", discovery_irrelevant=True,
        low=512, high=2**24 - 1,
    ),
    Key(
        "FirstBurstLength", "13.14", _F.MINIMUM, default=65536, field="first_burst_length", discovery_irrelevant=True,
        low=512, high=2**24 - 1,
    ),
    Key("DefaultTime2Wait", "13.15", _F.MAXIMUM, high=3600, default=2, field="default_time2wait"),
    Key("DefaultTime2Retain", "13.16", _F.MINIMUM, high=3600, default=20, field="default_time2retain"),
    Key(
        "MaxOutstandingR2T", "13.17", _F.MINIMUM, low=1, high=65535, default=1, field="max_outstanding_r2t",
        discovery_irrelevant=True,
    ),
    Key(
        "DataPDUInOrder", "13.18", _F.OR, kind="boolean", default=True, field="data_pdu_in_order",
        discovery_irrelevant=True,
    ),
    Key(
        "DataSequenceInOrder", "13.19", _F.OR, kind="boolean", default=True, field="data_sequence_in_order",
        discovery_irrelevant=True,
    ),
    # Not "irrelevant" in discovery: legacy offers MUST be answered with 0 (7.4.1), see the cross-key rules.
    Key("ErrorRecoveryLevel", "13.20", _F.MINIMUM, high=2, default=0, field="error_recovery_level"),
    Key(
        "TaskReporting", "13.23", _F.FIRST, kind="list", default="RFC3720", field="task_reporting",
        discovery_irrelevant=True, later=True,
    ),
    Key(
        "iSCSIProtocolLevel", "13.24, RFC 7144 7.1.1", _F.MINIMUM, high=31, default=1, field="iscsi_protocol_level",
        discovery_irrelevant=True, later=True,
    ),
    Key("X#NodeArchitecture", "13.26", _F.DECLARE, _U.LO, kind="text", later=True, indifferent=True),
    # Section 13.25: obsolete.
    Key("IFMarker", "13.25", _F.OBSOLETE, _U.IO, "CO", kind="text"),
    Key("OFMarker", "13.25", _F.OBSOLETE, _U.IO, "CO", kind="text"),
    Key("IFMarkInt", "13.25", _F.OBSOLETE, _U.IO, "CO", kind="text"),
    Key("OFMarkInt", "13.25", _F.OBSOLETE, _U.IO, "CO", kind="text"),
)  # fmt: skip

KEYS: Final[dict[str, Key]] = {row.name: row for row in _ROWS}
"""Key name -> row."""

KNOWN_VALUES: Final[dict[str, tuple[str, ...]]] = {
    "HeaderDigest": ("None", "CRC32C"),
    "DataDigest": ("None", "CRC32C"),
    "TaskReporting": ("RFC3720", "ResponseFence", "FastAbort"),
}
"""The list values that this implementation can offer or choose."""
