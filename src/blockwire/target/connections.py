"""Connections of one session by CID: those there are, and what is left of those that are gone until their tasks were
reassigned or their time is up (RFC 7143 6.3.4 to 6.3.6, 7.2.2, 7.5, 8.1.4, 8.2).

The states move by the tables of `blockwire.session`; the plane keeps the tasks, frozen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from blockwire.negotiate.parameters import Parameters
from blockwire.net.runtime import Runtime, Spawned
from blockwire.session import CLEANUP, TARGET_CONNECTION, TARGET_SESSION, CleanupState, ConnectionState, SessionState


@dataclass(slots=True)
class Connection:
    """One connection in the full feature phase."""

    cid: int
    peer: str
    local: str
    parameters: Parameters
    state: ConnectionState = field(default=TARGET_CONNECTION.start)

    def step(self, *labels: str) -> None:
        """Transitions of 8.1.4, by label."""
        for label in labels:
            self.state = TARGET_CONNECTION.step(self.state, label)


@dataclass(slots=True, eq=False)
class Remains:
    """A connection that is gone: its tasks are frozen in the plane."""

    cid: int
    state: CleanupState = field(default=CLEANUP.start)
    timer: Spawned | None = None

    def step(self, *labels: str) -> None:
        """Transitions of 8.2.2, by label."""
        for label in labels:
            self.state = CLEANUP.step(self.state, label)

    @property
    def logged_out(self) -> bool:
        """Its cleanup is done, so that its tasks can be reassigned (7.2.2)."""
        return self.state is CleanupState.FREE

    def stop(self) -> None:
        """No more timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Connections:
    """Live connections and remains of one session. ``expired`` is called when the time of remains is up, and for the
    oldest when there are more than ``most``: an initiator that loses connection after connection, each with another
    CID, could have any number of tasks kept otherwise."""

    def __init__(self, runtime: Runtime, expired: Callable[[Remains], Awaitable[None]], most: int) -> None:
        self.live: dict[int, Connection] = {}
        self.remains: dict[int, Remains] = {}
        self.joining: set[int] = set()
        """CIDs of logins that were admitted and are not in the full feature phase yet."""
        self.session = TARGET_SESSION.step(TARGET_SESSION.start, "N1")
        self._runtime = runtime
        self._expired = expired
        self._most = most

    @property
    def cids(self) -> frozenset[int]:
        """Every CID that the session knows; a login with one of them reinstates its connection (6.3.1)."""
        return frozenset(self.live) | frozenset(self.remains) | frozenset(self.joining)

    @property
    def count(self) -> int:
        """Connections that take a place of MaxConnections."""
        return len(set(self.live) | self.joining)

    def begin(self, connection: Connection) -> None:
        """A connection enters the full feature phase."""
        connection.step("T3", "T4", "T5")
        self.live[connection.cid] = connection
        self.joining.discard(connection.cid)
        if self.session is SessionState.ACTIVE:
            self.session = TARGET_SESSION.step(self.session, "N2")
        elif self.session is SessionState.FAILED:
            self.session = TARGET_SESSION.step(TARGET_SESSION.step(self.session, "N7"), "N10")

    def lose(self, cid: int, seconds: float | None, *, logged_out: bool = False) -> Remains | None:
        """A connection is gone. Its remains are kept for ``seconds`` (None: there are none), ``logged_out`` when it was
        removed for recovery."""
        connection = self.live.pop(cid, None)
        if connection is not None:
            logout = {ConnectionState.IN_LOGOUT: "T17", ConnectionState.LOGOUT_REQUESTED: "T16"}
            connection.step(logout.get(connection.state, "T15"))
        left = None
        if seconds is not None:
            left = self.keep(cid, seconds, logged_out=logged_out)
        return left

    def keep(self, cid: int, seconds: float, *, logged_out: bool) -> Remains:
        """Remains of a connection, in place of earlier ones of its CID, whose time begins anew."""
        earlier = self.remains.pop(cid, None)
        if earlier is not None:
            earlier.stop()
        left = Remains(cid)
        if logged_out:
            left.step("M2", "M4")
        self.remains[cid] = left
        left.timer = self._runtime.spawn(self._time_out(left, seconds), f"cleanup of connection {cid}")
        if not self.live and self.session is SessionState.LOGGED_IN:
            self.session = TARGET_SESSION.step(self.session, "N5")  # session failure (6.3.6)
        for oldest in list(self.remains.values())[: max(0, len(self.remains) - self._most)]:
            oldest.stop()
            oldest.timer = self._runtime.spawn(self._time_out(oldest, 0.0), f"cleanup of connection {oldest.cid}")
        return left

    async def _time_out(self, left: Remains, seconds: float) -> None:
        await self._runtime.sleep(seconds)
        left.timer = None
        if self.remains.get(left.cid) is left:
            if not left.logged_out:
                left.step("M1")
            await self._expired(left)

    def forget(self, left: Remains) -> None:
        """Nothing of it is left."""
        left.stop()
        if self.remains.get(left.cid) is left:
            del self.remains[left.cid]

    def closed(self, cid: int) -> None:
        """A logout of the connection is done (T9 or T10, then T13)."""
        connection = self.live.pop(cid, None)
        if connection is None:
            return
        if connection.state is not ConnectionState.IN_LOGOUT:
            asked = connection.state is ConnectionState.LOGOUT_REQUESTED
            connection.step("T10" if asked else "T9")
        connection.step("T13")

    def end(self) -> None:
        """The session ends, and its timers."""
        for left in list(self.remains.values()):
            self.forget(left)
        labels = {SessionState.ACTIVE: "N9", SessionState.LOGGED_IN: "N3", SessionState.FAILED: "N6"}
        label = labels.get(self.session)
        if label is not None:
            self.session = TARGET_SESSION.step(self.session, label)
        self.live.clear()
        self.joining.clear()
