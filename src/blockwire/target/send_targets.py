"""What SendTargets is answered with (RFC 7143 appendix C)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blockwire.errors import ProtocolError
from blockwire.names import prepare_name
from blockwire.wire.constants import RejectReason
from blockwire.wire.keys import Pairs

TargetList = Sequence[tuple[str, Sequence[str]]]
"""Target names, each with its TargetAddress values."""


def send_targets(value: str, targets: TargetList, session_target: str) -> Pairs:
    """The records for SendTargets=``value``.

    ``All`` belongs to discovery sessions; the empty value means the target of a normal session. ``targets`` holds
    only what this initiator may know of; an unknown name is answered with nothing. ProtocolError rejects the key.
    """
    if value == "All" and not session_target:
        wanted = targets
    elif value == "All":
        raise ProtocolError("SendTargets=All came in a normal session", RejectReason.PROTOCOL_ERROR)
    elif not value and not session_target:
        raise ProtocolError("SendTargets without a value came in a discovery session", RejectReason.PROTOCOL_ERROR)
    else:
        name = prepare_name(value or session_target)
        wanted = [item for item in targets if item[0] == name]
    pairs: Pairs = []
    for name, addresses in wanted:
        pairs.append(("TargetName", name))
        pairs += [("TargetAddress", address) for address in addresses]
    return pairs


def answering(targets: Callable[[], TargetList], session_target: str) -> Callable[[str], Pairs]:
    """`send_targets` for one session; ``targets`` is asked each time."""
    return lambda value: send_targets(value, targets(), session_target)
