"""How a session's connections go and come back: loss, logout of all reasons, reinstatement, TASK REASSIGN, and the
time after which what waits for its initiator is given up (RFC 7143 6.3.4 to 6.3.6, 7.2.2, 11.5.1, 11.14, 11.15).

Decided here, done by the plane: it freezes tasks, moves and ends them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable

from blockwire.dataplane.api import AbortKind, AbortScope, DataPlane, Effects, ReleaseMode, SessionId, TaskView
from blockwire.dataplane.dispatch import Dispatch
from blockwire.errors import Error
from blockwire.negotiate.parameters import Parameters
from blockwire.net.runtime import Runtime
from blockwire.target import async_messages
from blockwire.target.connections import Connections, Remains
from blockwire.wire.constants import LogoutReason, LogoutResult, TaskResponse
from blockwire.wire.logout import LogoutRequest, LogoutResponse
from blockwire.wire.task import TaskManagementRequest

_log = logging.getLogger("blockwire.target")

_REMAINS = 4
"""For each connection that a session may have, so many that are gone are remembered with their tasks."""


class Recovery:
    """The connections of one session.

    ``attention`` is called with the LUN fields whose tasks ended without a word (None: any of them; 11.14.5),
    ``empty`` with reason and evidence when the session has nothing left to live for.
    """

    def __init__(
        self,
        session: SessionId,
        parameters: Parameters,
        plane: DataPlane,
        dispatch: Dispatch,
        runtime: Runtime,
        *,
        attention: Callable[[Iterable[int] | None], None],
        empty: Callable[[str, str], None],
    ) -> None:
        self.connections = Connections(runtime, self._expired, _REMAINS * parameters.max_connections)
        self._session = session
        self._parameters = parameters
        self._plane = plane
        self._dispatch = dispatch
        self._runtime = runtime
        self._attention = attention
        self._empty = empty
        self._leaving: set[int] = set()
        """CIDs whose connection the plane is taking away: events about them are old news."""
        self._closing: dict[int, LogoutReason] = {}
        """Connections that close after their Logout Response."""
        self._session_closing = False

    @property
    def keeps(self) -> bool:
        """Whether tasks outlive their connection: ErrorRecoveryLevel 2, and time to come back."""
        return self._parameters.error_recovery_level >= 2 and self._parameters.default_time2retain > 0

    @property
    def seconds(self) -> float | None:
        """How long the state of a connection that is gone is kept: Time2Wait, then Time2Retain (7.5); None: not at all.

        At every level: it is the session state timeout too (13.16), within which the session can be continued (6.3.6),
        with its tasks at level 2 only."""
        agreed = self._parameters
        return float(agreed.default_time2wait + agreed.default_time2retain) if agreed.default_time2retain else None

    # ------------------------------------------------------------------ what the plane tells
    def lost(self, cid: int, reason: str, evidence: str) -> None:
        """A connection ended without being asked to."""
        if cid in self._leaving:
            return
        if cid in self._closing or self._session_closing:
            self.closed(cid)  # its Logout Response may not have arrived; the logout is done all the same
            return
        self.connections.lose(cid, self.seconds)
        others = sorted(self.connections.live)
        if not self.keeps:
            self._ended_silently(cid)
        elif others:
            wait, retain = self._parameters.default_time2wait, self._parameters.default_time2retain
            message = async_messages.connection_drop(cid, wait, retain)
            async_messages.send(self._plane, self._session, others[:1], message)  # appendix D.4.3
        self._look(reason, evidence)

    def closed(self, cid: int) -> None:
        """A connection ended as it was asked to."""
        if cid in self._leaving:
            return
        reason = self._closing.pop(cid, None)
        self.connections.closed(cid)
        if reason is LogoutReason.REMOVE_FOR_RECOVERY and self.keeps and self.seconds is not None:
            self.connections.keep(cid, self.seconds, logged_out=True)
        elif not self._session_closing and self.connections.live:
            self._ended_silently(cid)
        closing = reason is LogoutReason.CLOSE_CONNECTION
        self._look("closed" if reason is None else "logout", "", closing=closing)

    def _ended_silently(self, cid: int) -> None:
        """The tasks of a connection end without an answer, and their nexuses hear of it (11.14.5)."""
        if self._parameters.error_recovery_level >= 2:
            self._runtime.spawn(self._discard(cid), f"tasks of connection {cid} end")
        else:
            self._attention(None)  # the plane ended them with the connection

    def _look(self, reason: str, evidence: str, *, closing: bool = False) -> None:
        """Ends the session when nothing is left: 6.3.5, session timeout, and session closure by the logout of its last
        connection (``closing``) while nothing waits for cleanup or reassignment."""
        if self.connections.live or self.connections.joining:
            return
        if self._session_closing or not self.connections.remains:
            self._empty(reason, evidence)
        elif closing and all(left.logged_out for left in self.connections.remains.values()):
            self._runtime.spawn(self._end_if_idle(reason, evidence), "does a task wait for reassignment?")

    async def _end_if_idle(self, reason: str, evidence: str) -> None:
        if not await self._frozen() and not self.connections.live and not self.connections.joining:
            self._empty(reason, evidence)

    async def _expired(self, left: Remains) -> None:
        """Time2Wait and Time2Retain are over (M1; 11.15.4)."""
        self.connections.forget(left)
        if self.keeps:
            await self._discard(left.cid)
        self._look("timeout", f"nobody came back for connection {left.cid} within {self.seconds or 0:g} s")

    # ------------------------------------------------------------------ frozen tasks
    async def _frozen(self, cid: int | None = None) -> list[TaskView]:
        scope = AbortScope(AbortKind.NEXUS, session=self._session)
        try:
            found: tuple[TaskView, ...] = await self._dispatch.op(self._plane.query(scope))
        except Error:
            return []  # the session is gone, and they with it
        return [task for task in found if task.frozen and cid in (None, task.cid)]

    async def _discard(self, cid: int) -> None:
        """The frozen tasks that were allegiant to ``cid`` end. One by one: a connection of that CID may live again."""
        frozen = await self._frozen(cid)
        for task in frozen:
            tag = task.initiator_task_tag
            with contextlib.suppress(Error):
                await self._dispatch.op(
                    self._plane.abort(AbortScope(AbortKind.TASK, session=self._session, initiator_task_tag=tag))
                )
        self._attention({task.lun for task in frozen if not task.responded})

    # ------------------------------------------------------------------ coming
    async def make_room(self, cid: int) -> None:
        """A new connection has this CID: an old one is logged out thereby (6.3.4)."""
        self._closing.pop(cid, None)
        left = self.connections.remains.get(cid)
        if cid in self.connections.live:
            await self._take(cid, ReleaseMode.FREEZE if self.keeps else ReleaseMode.TERMINATE)
            self.connections.lose(cid, self.seconds if self.keeps else None, logged_out=True)
            if not self.keeps:
                self._attention(None)
        elif left is not None and self.keeps and self.seconds is not None:
            self.connections.keep(cid, self.seconds, logged_out=True)
        elif left is not None:
            self.connections.forget(left)  # its tasks ended with it: nothing is left to be reassigned

    async def _take(self, cid: int, mode: ReleaseMode) -> None:
        self._leaving.add(cid)
        try:
            await self._dispatch.op(self._plane.release(self._session, cid, mode))
        except Error as error:
            _log.debug("connection %d was gone already: %s", cid, error)
        finally:
            self._leaving.discard(cid)

    def failed(self, cid: int) -> None:
        """A connection that was to come did not."""
        self.connections.live.pop(cid, None)
        self.connections.joining.discard(cid)
        self._look("login-failed", "")

    # ------------------------------------------------------------------ logout
    async def logout(self, request: LogoutRequest, cid: int) -> tuple[LogoutResponse, Effects] | None:
        """The answer to a logout that came on ``cid``; None for a reason code that does not exist (11.14.1)."""
        live, remains = self.connections.live, self.connections.remains
        try:
            reason = LogoutReason(request.reason)
        except ValueError:
            return None
        if reason is LogoutReason.CLOSE_SESSION:
            self._session_closing = True
            self._closing[cid] = reason
            for other in [other for other in live if other != cid]:
                await self._take(other, ReleaseMode.TERMINATE)
                self.connections.closed(other)
            self._look("logout", "")  # the connection that asked may be gone by now
            return self._answer(request, LogoutResult.SUCCESS), Effects(close=True)
        if reason is LogoutReason.REMOVE_FOR_RECOVERY and not self.keeps:
            return self._answer(request, LogoutResult.RECOVERY_NOT_SUPPORTED), Effects()
        if request.cid not in live and request.cid not in remains:
            return self._answer(request, LogoutResult.CID_NOT_FOUND), Effects()
        if request.cid == cid and cid in live:
            self._closing[cid] = reason
            return self._answer(request, LogoutResult.SUCCESS), Effects(close=True)
        if reason is LogoutReason.REMOVE_FOR_RECOVERY and self.seconds is not None:
            if request.cid in live:
                await self._take(request.cid, ReleaseMode.FREEZE)
                self.connections.lose(request.cid, self.seconds, logged_out=True)
            else:
                self.connections.keep(request.cid, self.seconds, logged_out=True)
            return self._answer(request, LogoutResult.SUCCESS), Effects()
        if request.cid in live:
            await self._take(request.cid, ReleaseMode.FREEZE if self.keeps else ReleaseMode.TERMINATE)
            self.connections.closed(request.cid)
        left = remains.get(request.cid)
        if left is not None:
            self.connections.forget(left)
        if self._parameters.error_recovery_level >= 2:
            await self._discard(request.cid)
        elif left is None:
            self._attention(None)
        self._look("logout", "", closing=True)
        return self._answer(request, LogoutResult.SUCCESS), Effects()

    def _answer(self, request: LogoutRequest, result: LogoutResult) -> LogoutResponse:
        # 11.15.3: after a logout that is done nothing here needs more time before the tasks are reassigned.
        done = result is LogoutResult.SUCCESS and request.reason == LogoutReason.REMOVE_FOR_RECOVERY
        return LogoutResponse(
            response=result,
            initiator_task_tag=request.initiator_task_tag,
            time2wait=0 if done else self._parameters.default_time2wait,
            time2retain=self._parameters.default_time2retain if self._parameters.error_recovery_level == 2 else 0,
        )

    # ------------------------------------------------------------------ TASK REASSIGN
    async def reassign(self, request: TaskManagementRequest) -> tuple[TaskResponse, Effects]:
        """The response to TASK REASSIGN, and what the plane does with it (7.2.2, 11.5.1, 11.6.1)."""
        if not self.keeps:
            return TaskResponse.REASSIGNMENT_NOT_SUPPORTED, Effects()
        if not request.immediate:  # 11.5.1: MUST be issued as an immediate command
            return TaskResponse.FUNCTION_REJECTED, Effects()
        task = await self._task(request.referenced_task_tag)
        if task is None:
            return TaskResponse.TASK_DOES_NOT_EXIST, Effects()
        if task.control:
            return TaskResponse.FUNCTION_REJECTED, Effects()
        if not self._is_free(task):
            return TaskResponse.TASK_STILL_ALLEGIANT, Effects()
        rebind = (task.initiator_task_tag, task.cid)
        return TaskResponse.FUNCTION_COMPLETE, Effects(rebind=rebind, exp_data_sn=request.exp_data_sn)

    async def queried(self, request: TaskManagementRequest) -> Effects:
        """What a QUERY TASK that found its task does besides: a new allegiance for a task whose connection was logged
        out (RFC 7144 6.3). It has no ExpDataSN: all data that is not acknowledged is sent again.

        A task that is answered is not in the task set any more, and stays as it is: its status would come after the
        initiator was told so.
        """
        task = await self._task(request.referenced_task_tag)
        if not self.keeps or task is None or task.control or task.responded or not self._is_free(task):
            return Effects()
        return Effects(rebind=(task.initiator_task_tag, task.cid))

    async def _task(self, tag: int) -> TaskView | None:
        scope = AbortScope(AbortKind.TASK, session=self._session, initiator_task_tag=tag)
        found: tuple[TaskView, ...] = await self._dispatch.op(self._plane.query(scope))
        return next(iter(found), None)

    def _is_free(self, task: TaskView) -> bool:
        """It has no allegiance, and the connection it had was logged out (7.2.2)."""
        left = self.connections.remains.get(task.cid)
        return task.frozen and (left is None or left.logged_out)
