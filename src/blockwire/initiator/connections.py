"""The connections of a live session: adding and removing them, and what is done when one is lost (RFC 7143 6.3.4,
7.2.2, 7.5, 7.14, 8.1.3).

At ErrorRecoveryLevel 2 the plane keeps the tasks of a lost connection, frozen. After Time2Wait they go on elsewhere: on
another live connection, once that has logged the lost one out "for recovery"; or on a new connection of the same CID,
whose login is that logout. What found no path within Time2Wait and Time2Retain ends, and its caller sends it again; a
session without any connection left is opened again (level 0). Below level 2 the tasks end at once and only the
connection comes back. Every wait here has an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blockwire import errors
from blockwire.dataplane.api import AbortKind, AbortScope, ReleaseMode, TaskView
from blockwire.initiator.connect import LoggedIn
from blockwire.session import (
    CLEANUP,
    INITIATOR_CONNECTION,
    CleanupState,
    ConnectionState,
    UndefinedTransitionError,
)
from blockwire.wire.constants import LoginStatus, LogoutReason, LogoutResult

if TYPE_CHECKING:
    from blockwire.initiator.session import Session
    from blockwire.net.runtime import Spawned

_log = logging.getLogger("blockwire.initiator")

AGAIN_SECONDS = 0.05
"""Pause before tasks that could not be moved yet are looked at again."""
STEADY_SECONDS = 5.0
"""A connection that is lost again within this time of its return is lost in a row: its recovery waits longer."""
GONE = frozenset({LoginStatus.SESSION_DOES_NOT_EXIST, LoginStatus.CANNOT_INCLUDE_IN_SESSION, LoginStatus.NOT_FOUND})
"""Login statuses that mean: the target does not know this session any more."""


class Hopeless(Exception):
    """The session cannot be continued."""


@dataclass(slots=True, eq=False)
class Connection:
    """One live connection."""

    login: LoggedIn
    state: ConnectionState = field(default=INITIATOR_CONNECTION.start)

    def step(self, *labels: str) -> None:
        """Transitions of 8.1.3, by label."""
        for label in labels:
            self.state = INITIATOR_CONNECTION.step(self.state, label)


@dataclass(slots=True, eq=False)
class Lost:
    """A connection that is gone and whose tasks wait, frozen in the plane. Times are the runtime's, seconds."""

    cid: int
    not_before: float
    """Time2Wait is over."""
    deadline: float
    """Time2Retain is over."""
    connection: ConnectionState
    """Its state when it was lost (8.1.3)."""
    attempt: int = 0
    state: CleanupState = field(default=CLEANUP.start)

    def step(self, *labels: str) -> None:
        """Transitions of 8.2.2, by label."""
        for label in labels:
            self.state = CLEANUP.step(self.state, label)

    @property
    def logged_out(self) -> bool:
        """The target will take TASK REASSIGN for its tasks."""
        return self.state is CleanupState.FREE


class Connections:
    """Connections of one session of the plane. Everything runs on the session's loop."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._number = 0
        self._leading: LoggedIn | None = None
        self.live: dict[int, Connection] = {}
        self.lost: dict[int, Lost] = {}
        self.wanted = 1
        """How many connections there shall be."""
        self.recovered = 0
        """How often tasks of a lost connection went on elsewhere."""
        self.replaced = 0
        """How often a connection was opened in place of a lost one."""
        self.rate = session.options.rate
        """Bytes per second that the session may send; 0: no limit."""
        self._leaving: set[int] = set()
        self._joining: set[int] = set()
        self._refill_at = 0.0
        self._refill_attempt = 0
        self._rows: dict[int, tuple[int, float]] = {}
        """By CID: losses in a row, and when the next one would not belong to them."""
        self._runner: Spawned | None = None
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        """Set whenever a lost connection is dealt with, and when the session is not there any more."""

    # ------------------------------------------------------------------ what there is
    @property
    def cids(self) -> tuple[int, ...]:
        """Live connections, by CID."""
        return tuple(sorted(self.live))

    @property
    def keeps(self) -> bool:
        """Whether tasks outlive their connection."""
        found = self._leading.parameters if self._leading is not None else None
        return found is not None and found.error_recovery_level >= 2 and found.default_time2retain > 0

    def survives(self) -> bool:
        """Whether the session goes on: a connection lives, or tasks wait for one."""
        return bool(self.live or self.lost)

    def begin(self, number: int, leading: LoggedIn) -> None:
        """A new session of the plane, with its leading connection."""
        self._number, self._leading = number, leading
        self.lost.clear()
        self._leaving.clear()
        self._joining.clear()
        self.live = {leading.cid: self._entered(leading)}
        self.wanted = max(1, leading.parameters.max_connections)
        self._refill_at, self._refill_attempt = 0.0, 0
        self._rows.clear()

    @staticmethod
    def _entered(login: LoggedIn) -> Connection:
        connection = Connection(login)
        connection.step("T1", "T4", "T5")
        return connection

    def _here(self) -> bool:
        return self._session.is_on(self._number)

    def resume(self) -> None:
        """The session is open: what was lost before it was is recovered now."""
        if self.lost:
            self._start()

    # ------------------------------------------------------------------ adding
    async def fill(self) -> None:
        """Opens the connections that are still missing. One that fails is tried again in the background: the session
        works without it."""
        number = self._number
        while self._here() and number == self._number and len(self.live) < self.wanted:
            try:
                await self._add(self._free_cid())
            except (errors.Error, OSError) as error:
                _log.warning("%s: a further connection failed: %s", self._session.target_name, error)
                if self._full(error):
                    self.wanted = max(1, len(self.live))
                    return
                self._refill_later()
                self._start()
                return

    async def add(self) -> int:
        """One more connection; gives its CID. UsageError when as many are open as were negotiated."""
        most = self._require().parameters.max_connections
        if len(self.live) + len(self._joining) >= most:
            raise errors.UsageError(
                f"the session has {len(self.live)} connections and may have {most}", code="usage.connections",
                next="negotiate more with MaxConnections",
            )  # fmt: skip
        cid = self._free_cid()
        await self._add(cid)
        self.wanted = max(self.wanted, len(self.live))
        return cid

    def _require(self) -> LoggedIn:
        if self._leading is None or not self._here():
            raise errors.ClosedError("the session is not open")
        return self._leading

    def _free_cid(self) -> int:
        taken = set(self.live) | set(self.lost) | self._joining
        return next(cid for cid in range(1, 1 << 16) if cid not in taken)

    async def _add(self, cid: int, *, reinstate: bool = False) -> None:
        """Logs in and hands over; with ``reinstate`` the frozen tasks of this CID go on there (6.3.4)."""
        session, leading, number = self._session, self._require(), self._number
        self._joining.add(cid)
        try:
            login = await session.initiator.log_in_further(
                session.runtime, session.plane.limits(), leading, cid, session.plane.numbers(number),
                reinstate=reinstate, exp_stat_sn=session.plane.exp_stat_sn(number, cid) if reinstate else 0,
            )  # fmt: skip
            try:
                if number != self._number or not self._here():
                    raise errors.ConnectionLostError("the session ended while a further connection was logged in")
                handoff = login.handoff()
                if reinstate:
                    handoff = replace(handoff, reassigned_from=cid)
                # Known before the plane adopts it, so that its loss finds it here.
                self.live[cid] = self._entered(login)
                lost = self.lost.pop(cid, None)
                try:
                    await session.dispatch.op(session.plane.adopt(number, handoff))
                except BaseException:
                    self.live.pop(cid, None)
                    if lost is not None:
                        self.lost[cid] = lost
                    raise
            except BaseException:
                login.close()
                raise
        finally:
            self._joining.discard(cid)

    @staticmethod
    def _full(error: BaseException) -> bool:
        return isinstance(error, errors.LoginError) and error.status == LoginStatus.TOO_MANY_CONNECTIONS

    # ------------------------------------------------------------------ removing
    async def remove(self, cid: int, *, move_tasks: bool = True) -> None:
        """Logs one connection out, which must not be the last. At level 2 its tasks go on on the others, unless
        ``move_tasks`` is off; else those in flight end and block I/O is sent again."""
        self._require()
        if cid not in self.live:
            raise errors.UsageError(
                f"the session has no connection {cid}", code="usage.connections", evidence=f"CIDs {list(self.cids)}"
            )
        if len(self.live) == 1:
            raise errors.UsageError(
                f"connection {cid} is the only one of the session", code="usage.connections", next="close the session"
            )
        self.wanted = max(1, len(self.live) - 1)
        if self.keeps and move_tasks:
            now = self._session.runtime.now()
            number = self._number
            await self._let_go(cid, now, now + self._require().parameters.default_time2retain)
            while cid in self.lost and self._session.is_on(number):  # its deadline ends this
                self._settled.clear()
                await self._settled.wait()
            return
        self._leaving.add(cid)
        try:
            connection = self.live.pop(cid)
            connection.step("T9")
            try:
                with contextlib.suppress(TimeoutError, errors.ConnectionLostError):
                    await self._session.log_out(LogoutReason.CLOSE_CONNECTION, cid, on=cid)
            finally:
                with contextlib.suppress(errors.Error):
                    await self._op(self._session.plane.release(self._number, cid, ReleaseMode.TERMINATE))
        finally:
            self._leaving.discard(cid)

    async def _let_go(self, cid: int, not_before: float, deadline: float) -> None:
        """Takes a connection away from the plane; its tasks are recovered (level 2) or end."""
        connection = self.live.pop(cid)
        connection.step("T15")
        self._leaving.add(cid)
        try:
            mode = ReleaseMode.FREEZE if self.keeps else ReleaseMode.TERMINATE
            with contextlib.suppress(errors.Error):
                await self._op(self._session.plane.release(self._number, cid, mode))
        finally:
            self._leaving.discard(cid)
        if self.keeps:
            self.lost[cid] = Lost(cid, not_before, deadline, connection.state)
        self._start()

    async def dropped(self, cid: int, time2wait: float, time2retain: float) -> None:
        """The target said that it drops this connection (11.9.1, event 2); times in seconds."""
        now = self._session.runtime.now()
        if cid not in self.live:
            return
        self._refill_at = now + time2wait
        await self._let_go(cid, now + time2wait, now + time2wait + time2retain)
        if not self.survives():
            self._session.lost("the target dropped the connection", time2wait)

    # ------------------------------------------------------------------ losing
    def on_lost(self, cid: int, code: str) -> bool:
        """The plane lost a connection. False when the session cannot go on by itself."""
        if cid in self._leaving:
            return True
        connection = self.live.pop(cid, None)
        if connection is None:
            return self.survives()
        connection.step("T15")
        found = connection.login.parameters
        now = self._session.runtime.now()
        deadline = now + found.default_time2wait + found.default_time2retain
        wait = self._wait_after_loss(cid, now, float(found.default_time2wait))
        if self.keeps:
            self.lost[cid] = Lost(cid, now + wait, deadline, connection.state)
        elif not self.live:
            return False
        self._refill_at = max(self._refill_at, now + wait)
        _log.info("connection %d with %s lost: %s", cid, self._session.target_name, code)
        self._start()
        return True

    def _wait_after_loss(self, cid: int, now: float, time2wait: float) -> float:
        """Seconds until something is done about it: Time2Wait, and more when the same connection is lost again and
        again as soon as it is back, as by a request that the target does not survive."""
        losses, until = self._rows.get(cid, (0, 0.0))
        losses = losses if now < until else 0
        wait = self._session.timers.backoff.pause(losses - 1, time2wait) if losses else time2wait
        self._rows[cid] = (losses + 1, now + wait + STEADY_SECONDS)
        return wait

    def wrecked(self) -> None:
        """The plane knows nothing of the session any more: nothing of it can be recovered."""
        self.live.clear()
        self.lost.clear()
        self._settled.set()

    def on_closed(self, cid: int) -> bool:
        """The plane closed a connection as it was asked to. False when nobody here asked."""
        return cid in self._leaving or cid not in self.live

    def _refill_later(self) -> None:
        pause = self._session.timers.backoff.pause(self._refill_attempt)
        self._refill_attempt += 1
        self._refill_at = self._session.runtime.now() + pause

    def _start(self) -> None:
        self._wake.set()
        if self._runner is None or self._runner.done():
            self._runner = self._session.runtime.spawn(
                self._run(self._number), f"connections with {self._session.target_name}"
            )

    # ------------------------------------------------------------------ recovering
    async def _run(self, number: int) -> None:
        """Works until every lost connection is recovered or given up and the wanted number is open again."""
        try:
            await self._work(number)
        finally:
            self._settled.set()

    async def _work(self, number: int) -> None:
        session = self._session
        while session.is_on(number) and (self.lost or len(self.live) < self.wanted):
            self._wake.clear()
            now = session.runtime.now()
            try:
                if not await self._turn(now):
                    await self._pause(now)
            except Hopeless as error:
                if session.is_on(number):
                    session.lost(str(error))
                return
            if session.is_on(number) and not self.survives():
                session.lost("no connection is left")
                return

    async def _turn(self, now: float) -> bool:
        """Does one thing that is due; False when nothing is."""
        for lost in list(self.lost.values()):
            if now >= lost.deadline:
                await self._give_up(lost)
                return True
        due = [lost for lost in self.lost.values() if now >= lost.not_before]
        if due:
            await self._recover(min(due, key=lambda lost: lost.deadline), now)
            return True
        if self.live and len(self.live) < self.wanted and now >= self._refill_at:
            await self._refill()
            return True
        return False

    async def _pause(self, now: float) -> None:
        times = [time for lost in self.lost.values() for time in (lost.not_before, lost.deadline)]
        if self.live and len(self.live) < self.wanted:
            times.append(self._refill_at)
        ahead = [time - now for time in times if time > now]
        with contextlib.suppress(TimeoutError):
            async with self._session.runtime.timeout(min(ahead, default=AGAIN_SECONDS)):
                await self._wake.wait()

    async def _give_up(self, lost: Lost) -> None:
        """Nobody took the tasks over in time: they end, and their callers send them again."""
        _log.warning("%s: the tasks of connection %d could not be continued", self._session.target_name, lost.cid)
        if not lost.logged_out:
            lost.step("M1")
        self.lost.pop(lost.cid, None)
        self._settled.set()
        with contextlib.suppress(errors.Error):
            await self._op(self._session.plane.release(self._number, lost.cid, ReleaseMode.TERMINATE))

    async def _recover(self, lost: Lost, now: float) -> None:
        session = self._session
        try:
            async with session.runtime.timeout(lost.deadline - now):
                if self.live:
                    await self._move(lost, min(self.live))
                else:
                    await self._reinstate(lost)
        except (errors.Error, OSError, TimeoutError) as error:
            if isinstance(error, errors.LoginError) and error.status in GONE:
                raise Hopeless(f"the target does not know the session any more: {error}") from error
            if isinstance(error, errors.AuthenticationError | errors.AuthorizationError):
                raise Hopeless(str(error)) from error
            _log.info("%s: connection %d is not recovered yet: %s", session.target_name, lost.cid, error)
            pause = session.timers.backoff.pause(lost.attempt)
            lost.attempt += 1
            lost.not_before = max(lost.not_before, session.runtime.now() + pause)

    async def _reinstate(self, lost: Lost) -> None:
        """No connection is left: a new one takes the CID, and the tasks go on there (6.3.4)."""
        if lost.connection is not ConnectionState.CLEANUP_WAIT or lost.cid in self.live:
            raise UndefinedTransitionError(f"connection {lost.cid} is reinstated in {lost.connection.name} (6.3.4)")
        if not lost.logged_out:
            lost.step("M2")
        try:
            await self._add(lost.cid, reinstate=True)
        except BaseException:
            if not lost.logged_out:
                lost.step("M3")
            raise
        if not lost.logged_out:
            lost.step("M4")
        self._settled.set()
        self.recovered += 1
        self._refill_attempt = 0

    async def _move(self, lost: Lost, on: int) -> None:
        """Logs the lost connection out on a live one, where its tasks go on (7.2.2)."""
        session = self._session
        if not lost.logged_out:
            lost.step("M2")
            try:
                response = await session.log_out(LogoutReason.REMOVE_FOR_RECOVERY, lost.cid, on=on)
                if response.response == LogoutResult.RECOVERY_NOT_SUPPORTED:
                    lost.deadline = 0.0
                if response.response not in (LogoutResult.SUCCESS, LogoutResult.CID_NOT_FOUND):
                    lost.not_before = session.runtime.now() + response.time2wait
                    raise errors.Error(f"the target answers the logout with {response.response}", code="logout.refused")
            except BaseException:
                lost.step("M3")
                raise
            lost.step("M4")
            if response.response == LogoutResult.SUCCESS and response.time2wait:
                # 11.15.3: not before that; others may be recovered meanwhile.
                lost.not_before = session.runtime.now() + response.time2wait
                lost.deadline = max(lost.deadline, lost.not_before + response.time2retain)
                return
        await self._op(session.plane.reassign(self._number, lost.cid, on))
        if any(task.cid == lost.cid for task in await self._frozen()):
            lost.not_before = session.runtime.now() + AGAIN_SECONDS  # no tag was free, or the connection is gone
            return
        if self.lost.get(lost.cid) is lost:
            del self.lost[lost.cid]
        self._settled.set()
        self.recovered += 1

    async def _frozen(self) -> list[TaskView]:
        scope = AbortScope(AbortKind.NEXUS, session=self._number)
        found: tuple[TaskView, ...] = await self._session.dispatch.op(self._session.plane.query(scope))
        return [task for task in found if task.frozen]

    async def _refill(self) -> None:
        try:
            await self._add(self._free_cid())
        except (errors.Error, OSError) as error:
            if self._full(error):
                self.wanted = max(1, len(self.live))
                return
            if isinstance(error, errors.LoginError) and error.status in GONE:
                raise Hopeless(f"the target does not know the session any more: {error}") from error
            _log.info("%s: a connection could not be opened again: %s", self._session.target_name, error)
            self._refill_later()
        else:
            self.replaced += 1
            self._refill_attempt = 0

    async def _op(self, op: int) -> object:
        found: object = await self._session.dispatch.op(op)
        return found

    # ------------------------------------------------------------------ rate
    async def set_rate(self, bytes_per_second: float, cid: int | None = None) -> None:
        """Limits what is sent: by the whole session over all its connections, or by one connection. 0 lifts the limit.
        That of the session holds for connections that are added, and when it is opened again."""
        if cid is None:
            self.rate = float(bytes_per_second)
        await self._op(self._session.plane.configure(self._number, cid, {"rate": float(bytes_per_second)}))

    async def keep_rate(self) -> None:
        """A session of the plane that has just begun gets the limit."""
        if self.rate:
            await self.set_rate(self.rate)
