"""ISIDs, the half of an initiator port's name that a session chooses (RFC 7143 sections 4.4.3, 10.1.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from blockwire.errors import ResourceError
from blockwire.names import Isid


@dataclass(slots=True)
class IsidAllocator:
    """Hands out ISIDs by "conservative reuse" (10.1.1): the lowest qualifier free towards that target.

    Sessions with different targets share ISIDs, so that reservations stay with one initiator port name.
    """

    base: Isid
    """Type and authority; its qualifier is the first one used."""
    _used: dict[str, set[int]] = field(default_factory=dict)

    def take(self, target: str) -> Isid:
        """An ISID that no session of ours has with ``target`` (a name; a portal for discovery)."""
        used = self._used.setdefault(target, set())
        space = 1 << (24 if self.base.t == 0 else 16)
        first = self.base.value % space
        for step in range(space):
            isid = self.base.with_qualifier((first + step) % space)
            if isid.value not in used:
                used.add(isid.value)
                return isid
        raise ResourceError(f"every ISID towards {target} is in use")

    def keep(self, target: str, isid: Isid) -> None:
        """Mark an ISID that was chosen elsewhere (a node record) as used."""
        self._used.setdefault(target, set()).add(isid.value)

    def release(self, target: str, isid: Isid) -> None:
        """The session is over; the ISID may be used again."""
        used = self._used.get(target)
        if used is not None:
            used.discard(isid.value)
            if not used:
                del self._used[target]
