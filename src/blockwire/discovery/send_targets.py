"""What a target answers to SendTargets (RFC 7143 appendix C)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blockwire.discovery.records import TargetRecord, format_records
from blockwire.errors import ProtocolError
from blockwire.names import prepare_name
from blockwire.wire.keys import Pairs


def answer(value: str, session_target: str, visible: Sequence[TargetRecord]) -> Pairs:
    """The pairs that answer ``SendTargets=value``; none for a name that nobody has.

    Args:
        session_target: the target of a normal session; empty in a discovery session.
        visible: the targets that this initiator may know of, with their addresses.

    Raises:
        ProtocolError: ``All`` in a normal session, where it MUST NOT be supported, and no value in a discovery session.
    """
    if value == "All":
        if session_target:
            raise ProtocolError("SendTargets=All came in a normal session", evidence="RFC 7143 appendix C")
        return format_records(visible)
    if not value and not session_target:
        raise ProtocolError("SendTargets without a value came in a discovery session", evidence="RFC 7143 appendix C")
    wanted = prepare_name(value or session_target)
    return format_records(record for record in visible if prepare_name(record.name) == wanted)


def answering(visible: Callable[[], Sequence[TargetRecord]], session_target: str) -> Callable[[str], Pairs]:
    """`answer` for one session; ``visible`` is asked each time."""
    return lambda value: answer(value, session_target, visible())
