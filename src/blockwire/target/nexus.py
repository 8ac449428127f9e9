"""An I_T_L nexus: one session's view of one logical unit, its pending unit attentions and its gate."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from blockwire.dataplane.api import CommandClass, DataPlane, Gate, SessionId
from blockwire.names import encode_lun
from blockwire.scsi.sense import SenseCode

if TYPE_CHECKING:
    from blockwire.target.logical_unit import LogicalUnit

_RESET_CODES = (
    SenseCode.POWER_ON_OCCURRED,
    SenseCode.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED,
    SenseCode.BUS_DEVICE_RESET_FUNCTION_OCCURRED,
)


def all_classes(gate: Gate) -> Mapping[CommandClass, Gate]:
    """The same gate for every class."""
    return dict.fromkeys(CommandClass, gate)


class Nexus:
    """Unit attentions of one nexus in the order in which they are reported (SAM-5 5.14), and the gate that makes the
    plane send the next command up while one is pending."""

    def __init__(self, session: SessionId, unit: LogicalUnit) -> None:
        self.session = session
        self.unit = unit
        self.field = int.from_bytes(encode_lun(unit.lun), "big")
        self.pending: deque[SenseCode] = deque()
        self._shown: Gate | None = None
        self._fenced: set[SenseCode] = set()
        self._fence_due = False

    @property
    def key(self) -> tuple[SessionId, int]:
        """How the plane names it."""
        return self.session, self.field

    @property
    def wanted(self) -> Gate:
        """The gate its state asks for."""
        if self.unit.offline:
            return Gate.DIVERT
        if self.unit.closed_gates:
            return Gate.HOLD
        return Gate.DIVERT_ONE if self.pending else Gate.PASS

    def establish(self, code: SenseCode, *, fence: bool = False) -> bool:
        """A unit attention to report; False when it is pending already.

        With ``fence`` the response that carries it is fenced: the first one after a multi-task abort (RFC 7143
        4.2.2.3.4 a, 4.2.3.3 e).

        A reset outranks everything before it: what it made meaningless is dropped (SAM-5 5.14 lets the device server
        choose the order, and a reset reports first).
        """
        if fence:
            self._fenced.add(code)
        if code in self.pending:
            return False
        if code in _RESET_CODES:
            self.pending.clear()
            self.pending.appendleft(code)
        else:
            self.pending.append(code)
        return True

    def take(self) -> SenseCode | None:
        """The next unit attention, which is thereby reported and gone."""
        code = self.pending.popleft() if self.pending else None
        if code in self._fenced:
            self._fenced.discard(code)
            self._fence_due = True
        return code

    def take_fence(self) -> bool:
        """Whether the response at hand carries a unit attention that has to be fenced."""
        due, self._fence_due = self._fence_due, False
        return due

    def first_gates(self) -> Mapping[CommandClass, Gate]:
        """Gates for `map_lun`."""
        self._shown = self.wanted
        return all_classes(self._shown)

    @property
    def stale(self) -> bool:
        """Whether the plane shows another gate than the one that is wanted."""
        return self._shown is not self.wanted

    def answered(self) -> bool:
        """Whether the plane's gate has to be set again now that a command was answered.

        A gate of DIVERT_ONE turns to HOLD when it has fired, so it is set after every answer until all is reported.
        """
        return self._shown is not Gate.PASS or self.wanted is not Gate.PASS


def set_gates(plane: DataPlane, nexuses: Iterable[Nexus]) -> list[int]:
    """Shows the plane what each nexus wants, one call per gate; returns the operations."""
    groups: dict[Gate, list[tuple[SessionId, int]]] = {}
    for nexus in nexuses:
        nexus._shown = nexus.wanted
        groups.setdefault(nexus.wanted, []).append(nexus.key)
    return [plane.set_gate(keys, all_classes(gate)) for gate, keys in groups.items()]
