"""What a target answers to SendTargets, by session type and value (RFC 7143 appendix C)."""

from __future__ import annotations

from collections.abc import Sequence

from blockwire.discovery.records import TargetRecord, format_records
from blockwire.errors import ProtocolError
from blockwire.names import prepare_name
from blockwire.negotiate.parameters import SessionType
from blockwire.wire.keys import Pairs


def answer(value: str, session_type: SessionType, session_target: str, visible: Sequence[TargetRecord]) -> Pairs:
    """The pairs that answer ``SendTargets=value``.

    Args:
        session_target: the target the session is logged in to; empty in a discovery session without one.
        visible: the targets that this initiator may know of, with their addresses.

    Raises:
        ProtocolError: ``All`` in a normal session, which MUST NOT be supported.
    """
    if value == "All":
        if session_type != "Discovery":
            raise ProtocolError("SendTargets=All is for discovery sessions", evidence="RFC 7143 appendix C")
        return format_records(visible)
    wanted = value or session_target
    if not wanted or (session_type != "Discovery" and prepare_name(wanted) != prepare_name(session_target)):
        return []
    return format_records(record for record in visible if prepare_name(record.name) == prepare_name(wanted))
