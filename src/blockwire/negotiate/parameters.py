"""The result of a negotiation: every operational parameter of a session and of one of its connections."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

Digest = Literal["None", "CRC32C"]
SessionType = Literal["Normal", "Discovery"]
TaskReporting = Literal["RFC3720", "ResponseFence", "FastAbort"]

SESSION_FIELDS: Final = (
    "max_connections",
    "initial_r2t",
    "immediate_data",
    "max_burst_length",
    "first_burst_length",
    "default_time2wait",
    "default_time2retain",
    "max_outstanding_r2t",
    "data_pdu_in_order",
    "data_sequence_in_order",
    "error_recovery_level",
    "session_type",
    "task_reporting",
    "iscsi_protocol_level",
)
"""Fields with session-wide scope (SW): equal on every connection of a session."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Operational parameters of RFC 7143 section 13, lengths in bytes, times in seconds.

    The defaults are the RFC's. Fields up to ``target_max_recv_data_segment_length`` belong to one
    connection (scope CO); the others are the session's (scope SW).
    """

    header_digest: Digest = "None"
    """HeaderDigest (13.1); in force from the first PDU of the full feature phase."""
    data_digest: Digest = "None"
    """DataDigest (13.1)."""
    initiator_max_recv_data_segment_length: int = 8192
    """What the initiator declared (13.12): the largest data segment that the target may send."""
    target_max_recv_data_segment_length: int = 8192
    """What the target declared (13.12): the largest data segment that the initiator may send."""
    max_connections: int = 1
    """MaxConnections (13.2)."""
    initial_r2t: bool = True
    """InitialR2T (13.10): no unsolicited Data-Out when true."""
    immediate_data: bool = True
    """ImmediateData (13.11)."""
    max_burst_length: int = 262144
    """MaxBurstLength (13.13): the longest Data-In or solicited Data-Out sequence."""
    first_burst_length: int = 65536
    """FirstBurstLength (13.14): the most unsolicited data of one command, immediate data included."""
    default_time2wait: int = 2
    """DefaultTime2Wait (13.15), seconds."""
    default_time2retain: int = 20
    """DefaultTime2Retain (13.16), seconds."""
    max_outstanding_r2t: int = 1
    """MaxOutstandingR2T (13.17), per task."""
    data_pdu_in_order: bool = True
    """DataPDUInOrder (13.18)."""
    data_sequence_in_order: bool = True
    """DataSequenceInOrder (13.19)."""
    error_recovery_level: int = 0
    """ErrorRecoveryLevel (13.20)."""
    session_type: SessionType = "Normal"
    """SessionType (13.21)."""
    task_reporting: TaskReporting = "RFC3720"
    """TaskReporting (13.23)."""
    iscsi_protocol_level: int = 1
    """iSCSIProtocolLevel (13.24, RFC 7144 section 7.1.1)."""

    def changed(self, **fields: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **fields)

    def with_session(self, session: Parameters) -> Self:
        """This connection's parameters with the session-wide fields of ``session``.

        A further connection of a session inherits what the leading login agreed on (6.3.3).
        """
        return replace(self, **{name: getattr(session, name) for name in SESSION_FIELDS})

    def to_keys(self) -> dict[str, str]:
        """RFC key name to the text of its value, for people and JSON (``session.keys``)."""
        from blockwire.negotiate.keys import KEYS

        result: dict[str, str] = {}
        for key in KEYS.values():
            if key.field is not None:
                result[key.name] = key.format(getattr(self, key.field))
        result["InitiatorMaxRecvDataSegmentLength"] = str(self.initiator_max_recv_data_segment_length)
        result["TargetMaxRecvDataSegmentLength"] = str(self.target_max_recv_data_segment_length)
        return result
