"""Which sessions there are: TSIH allocation and the ISID rule (RFC 7143 4.4.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from blockwire.errors import LoginError, login_error
from blockwire.names import prepare_name
from blockwire.wire.constants import LoginStatus


@dataclass(frozen=True, slots=True)
class SessionName:
    """What tells sessions apart: no two have the same initiator name, ISID, target and portal group (4.4.3).

    In place of the target's name a discovery session has a word of its own, and the portal's address when it names no
    target (7.4.2.1).
    """

    initiator_name: str
    isid: bytes
    target_name: str
    portal_group_tag: int

    @classmethod
    def of(cls, initiator_name: str, isid: bytes, target_name: str, portal_group_tag: int) -> SessionName:
        """With the initiator's name in the form in which names are compared."""
        return cls(prepare_name(initiator_name), isid, target_name, portal_group_tag)


class Registered(Protocol):
    """What the registry knows of a session."""

    name: SessionName
    tsih: int


class Sessions:
    """The sessions of one server, normal and discovery ones."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._by_tsih: dict[int, Registered] = {}
        self._by_name: dict[SessionName, Registered] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._by_tsih)

    def __iter__(self) -> Iterator[Registered]:
        return iter(list(self._by_tsih.values()))

    def refusal(self) -> LoginError | None:
        """Why there can be no further session, or None."""
        if len(self._by_tsih) < min(self.most, 0xFFFF):
            return None
        return login_error(LoginStatus.OUT_OF_RESOURCES, "the target has as many sessions as it may have")

    def new_tsih(self) -> int:
        """A TSIH that no session has; taken in turn, so that a stale one is not soon somebody else's (11.12.6)."""
        for _ in range(0xFFFF):
            self._last = self._last % 0xFFFF + 1
            if self._last not in self._by_tsih:
                return self._last
        raise login_error(LoginStatus.OUT_OF_RESOURCES, "every TSIH is in use")

    def add(self, session: Registered) -> None:
        """From now on it is found. The name and TSIH must be free."""
        if session.tsih in self._by_tsih or session.name in self._by_name:
            raise RuntimeError("a session was registered under a name that is in use")
        self._by_tsih[session.tsih] = session
        self._by_name[session.name] = session

    def remove(self, session: Registered) -> None:
        """Forgets it; idempotent, and harmless when another one took its name."""
        if self._by_tsih.get(session.tsih) is session:
            del self._by_tsih[session.tsih]
        if self._by_name.get(session.name) is session:
            del self._by_name[session.name]

    def find(self, name: SessionName) -> Registered | None:
        """The session of this name, or None."""
        return self._by_name.get(name)
