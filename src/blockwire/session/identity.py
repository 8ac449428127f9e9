"""Who is at the ends of a session: SCSI ports, the I_T nexus, and ISIDs (RFC 7143 sections 4.4.2, 4.4.3, 10.1.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from blockwire.errors import ResourceError
from blockwire.names import Isid, prepare_name


@dataclass(frozen=True, slots=True, order=True)
class InitiatorPort:
    """The SCSI initiator port: iSCSI name and ISID (4.4.2)."""

    name: str
    isid: Isid

    def __str__(self) -> str:
        return f"{self.name},i,{self.isid}"


@dataclass(frozen=True, slots=True, order=True)
class TargetPort:
    """The SCSI target port: iSCSI name and target portal group tag (4.4.2)."""

    name: str
    portal_group_tag: int

    def __str__(self) -> str:
        return f"{self.name},t,0x{self.portal_group_tag:04x}"


@dataclass(frozen=True, slots=True, order=True)
class Nexus:
    """An I_T nexus, which is a session (4.4.2); equal for names that differ in case only."""

    initiator: InitiatorPort
    target: TargetPort

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What the ISID RULE compares: at most one session at a time has it (4.4.3)."""
        return (
            prepare_name(self.initiator.name),
            self.initiator.isid.value,
            prepare_name(self.target.name),
            self.target.portal_group_tag,
        )


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
