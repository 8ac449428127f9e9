"""Task management decisions (RFC 7143 11.5, 11.6; RFC 7144 section 6; SAM-5 clause 7): which tasks end, who is told,
what is answered.

The plane does the waiting and the ending (:meth:`DataPlane.abort`); here is what to end, behind closed gates where a
whole logical unit is concerned, and the unit attentions that follow. TASK REASSIGN is decided in `recovery`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from blockwire.dataplane.api import (
    AbortKind,
    AbortReport,
    AbortScope,
    AbortSemantics,
    DataPlane,
    OpId,
    SessionId,
    TaskView,
)
from blockwire.dataplane.dispatch import Dispatch
from blockwire.errors import Error
from blockwire.scsi.sense import SenseCode
from blockwire.target import async_messages
from blockwire.target.device import TargetDevice
from blockwire.target.logical_unit import LogicalUnit
from blockwire.target.nexus import Nexus, set_gates
from blockwire.wire import serial
from blockwire.wire.constants import TaskFunction, TaskResponse
from blockwire.wire.task import TaskManagementRequest

_WITH_LUN = {
    TaskFunction.ABORT_TASK,
    TaskFunction.ABORT_TASK_SET,
    TaskFunction.CLEAR_TASK_SET,
    TaskFunction.LOGICAL_UNIT_RESET,
    TaskFunction.QUERY_TASK,
    TaskFunction.QUERY_TASK_SET,
    TaskFunction.QUERY_ASYNCHRONOUS_EVENT,
}
"""Functions whose LUN field has to name a logical unit (11.5.3; RFC 7144 6.3.1)."""

_LEVEL_2 = {
    TaskFunction.QUERY_TASK,
    TaskFunction.QUERY_TASK_SET,
    TaskFunction.I_T_NEXUS_RESET,
    TaskFunction.QUERY_ASYNCHRONOUS_EVENT,
}
"""Functions of sessions that negotiated iSCSIProtocolLevel=2 (RFC 7144 6.3)."""

_MULTI_TASK = {
    TaskFunction.ABORT_TASK_SET,
    TaskFunction.CLEAR_TASK_SET,
    TaskFunction.LOGICAL_UNIT_RESET,
    TaskFunction.TARGET_WARM_RESET,
    TaskFunction.TARGET_COLD_RESET,
    TaskFunction.I_T_NEXUS_RESET,
}
"""Functions whose response is fenced (4.2.3.3 d, 4.2.3.4 e, 11.6.1; RFC 7144 6.5)."""


class SessionView(Protocol):
    """What task management has to know of a session of the device."""

    @property
    def id(self) -> SessionId:
        """The plane's number."""
        ...

    @property
    def fast_abort(self) -> bool:
        """TaskReporting=FastAbort was negotiated (13.23)."""
        ...

    @property
    def protocol_level(self) -> int:
        """iSCSIProtocolLevel (RFC 7144 7.1.1)."""
        ...


class Drop(Enum):
    """Which sessions end after the response."""

    NOTHING = "nothing"
    SESSION = "session"
    """I_T NEXUS RESET (RFC 7144 6.3)."""
    TARGET = "target"
    """TARGET COLD RESET: every session of the target (11.5.1)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a function came to."""

    response: TaskResponse
    affected: int = 0
    """Tasks that were ended."""
    drop: Drop = Drop.NOTHING
    fence: bool = False
    """The response is fenced."""
    information: int = 0
    """Additional Response Information (RFC 7144 6.4.1)."""


class TaskManagement:
    """Does the functions for one target device."""

    def __init__(self, device: TargetDevice, plane: DataPlane, dispatch: Dispatch) -> None:
        self.device = device
        self.plane = plane
        self.dispatch = dispatch

    async def perform(self, request: TaskManagementRequest, issuer: SessionView, cid: int = 0) -> Outcome:
        """Carries out one function that came on connection ``cid``. Never raises for what an initiator can cause."""
        try:
            function = TaskFunction(request.function)
        except ValueError:
            return Outcome(TaskResponse.NOT_SUPPORTED)
        if function is TaskFunction.CLEAR_ACA:  # NORMACA is 0: there is never one
            return Outcome(TaskResponse.NOT_SUPPORTED)
        if function in _LEVEL_2 and issuer.protocol_level < 2:
            return Outcome(TaskResponse.NOT_SUPPORTED)
        unit = None
        if function in _WITH_LUN:
            unit = self.device.unit_of(int.from_bytes(request.lun, "big"))
            if unit is None:
                return Outcome(TaskResponse.LUN_DOES_NOT_EXIST)
        try:
            done = await self._do(function, unit, _Doing(request, issuer, cid))
        except Error:
            return Outcome(TaskResponse.FUNCTION_REJECTED)
        return replace(done, fence=function in _MULTI_TASK)

    async def _do(self, function: TaskFunction, unit: LogicalUnit | None, doing: _Doing) -> Outcome:
        match function:
            case TaskFunction.ABORT_TASK:
                return await self._abort_task(doing)
            case TaskFunction.QUERY_TASK:
                return await self._query_task(doing)
            case TaskFunction.ABORT_TASK_SET:
                return await self._abort_task_set(doing)
            case TaskFunction.QUERY_TASK_SET:
                return await self._query_task_set(doing)
            case TaskFunction.CLEAR_TASK_SET if unit is not None:
                return await self._clear_task_set(unit, doing)
            case TaskFunction.LOGICAL_UNIT_RESET if unit is not None:
                return await self._reset([unit], doing)
            case TaskFunction.QUERY_ASYNCHRONOUS_EVENT if unit is not None:
                return self._query_asynchronous_event(unit, doing)
            case TaskFunction.TARGET_WARM_RESET | TaskFunction.TARGET_COLD_RESET:
                done = await self._reset(list(self.device.units.values()), doing, plug=True)
                cold = function is TaskFunction.TARGET_COLD_RESET and not done.response
                return replace(done, drop=Drop.TARGET if cold else Drop.NOTHING)
            case TaskFunction.I_T_NEXUS_RESET:
                # RFC 7144 6.5: the steps of a multi-task abort, so its commands and their data are waited for first.
                scope = AbortScope(AbortKind.NEXUS, session=doing.issuer.id, before_cmd_sn=doing.request.cmd_sn)
                report = await self._abort(scope, doing)
                # The connections go in any case, and with them what cannot end otherwise (RFC 7144 6.3).
                return Outcome(TaskResponse.FUNCTION_COMPLETE, len(report.affected), Drop.SESSION)
        return Outcome(TaskResponse.NOT_SUPPORTED)

    # ------------------------------------------------------------------ one task
    async def query(self, scope: AbortScope) -> tuple[TaskView, ...]:
        """The tasks under ``scope`` that are there now."""
        found: tuple[TaskView, ...] = await self.dispatch.op(self.plane.query(scope))
        return found

    async def _referenced(self, doing: _Doing) -> TaskView | None:
        scope = AbortScope(
            AbortKind.TASK, session=doing.issuer.id, initiator_task_tag=doing.request.referenced_task_tag
        )
        return next(iter(await self.query(scope)), None)

    async def _abort_task(self, doing: _Doing) -> Outcome:
        """ABORT TASK (11.5.1, 11.5.4, 11.5.5, 11.6.1)."""
        request = doing.request
        found = await self._referenced(doing)
        if found is not None and found.control:
            return Outcome(TaskResponse.FUNCTION_REJECTED)  # 11.5.1: never executed on such a request
        if found is not None and found.lun != doing.lun:
            return Outcome(TaskResponse.TASK_DOES_NOT_EXIST)
        # 11.6.1 b: a number in the window and below the request's own counts as received. A task of an immediate
        # command has no number of its own to wait for (11.5.5).
        earlier = serial.less(request.ref_cmd_sn, request.cmd_sn)
        numbers = self.plane.numbers(doing.issuer.id)
        report = await self._abort(
            AbortScope(
                AbortKind.TASK,
                session=doing.issuer.id,
                lun=doing.lun,
                initiator_task_tag=request.referenced_task_tag,
                ref_cmd_sn=request.ref_cmd_sn if earlier else None,
            ),
            doing,
        )
        if not report.complete:
            return Outcome(TaskResponse.FUNCTION_REJECTED)
        if report.found and not report.already_responded:
            return Outcome(TaskResponse.FUNCTION_COMPLETE, len(report.affected))
        may_come = earlier and serial.in_window(request.ref_cmd_sn, numbers.exp_cmd_sn, numbers.max_cmd_sn)
        if not report.found and may_come:
            return Outcome(TaskResponse.FUNCTION_COMPLETE)
        return Outcome(TaskResponse.TASK_DOES_NOT_EXIST)

    async def _query_task(self, doing: _Doing) -> Outcome:
        """QUERY TASK (RFC 7144 6.3, 6.4.2)."""
        found = await self._referenced(doing)
        if found is None or found.lun != doing.lun or found.responded:
            return Outcome(TaskResponse.FUNCTION_COMPLETE)
        if found.control:
            return Outcome(TaskResponse.FUNCTION_REJECTED)
        return Outcome(TaskResponse.FUNCTION_SUCCEEDED)

    # ------------------------------------------------------------------ a task set
    async def _query_task_set(self, doing: _Doing) -> Outcome:
        """QUERY TASK SET: of this I_T_L nexus (RFC 7144 6.4.2)."""
        found = await self.query(AbortScope(AbortKind.TASK_SET, session=doing.issuer.id, lun=doing.lun))
        if any(not task.responded for task in found):
            return Outcome(TaskResponse.FUNCTION_SUCCEEDED)
        return Outcome(TaskResponse.FUNCTION_COMPLETE)

    async def _abort_task_set(self, doing: _Doing) -> Outcome:
        scope = AbortScope(
            AbortKind.TASK_SET, session=doing.issuer.id, lun=doing.lun, before_cmd_sn=doing.request.cmd_sn
        )
        report = await self._abort(scope, doing)
        if not report.complete:
            return Outcome(TaskResponse.FUNCTION_REJECTED, len(report.affected))
        return Outcome(TaskResponse.FUNCTION_COMPLETE, len(report.affected))

    async def _clear_task_set(self, unit: LogicalUnit, doing: _Doing) -> Outcome:
        """One task set for all nexuses (TST 0): with TAS those that lost tasks are told by status, else by a unit
        attention (SAM-5 5.6, 7.4)."""
        async with self.closed(unit):
            report = await self._end_unit(unit, doing)
            lost = {session for session, _ in report.affected}
            for nexus in unit.nexuses:
                if nexus.session != doing.issuer.id and nexus.session in lost and not unit.modes.task_aborted_status:
                    nexus.establish(SenseCode.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR, fence=True)
        return self._outcome([report], [unit])

    # ------------------------------------------------------------------ logical units
    async def _reset(self, units: Sequence[LogicalUnit], doing: _Doing, *, plug: bool = False) -> Outcome:
        """Logical unit reset (SAM-5 6.3.3) of one or all: tasks end, mode pages go back, everybody is told."""
        reports = []
        async with contextlib.AsyncExitStack() as stack:
            for unit in units:
                await stack.enter_async_context(self.closed(unit))
            for unit in units:
                reports.append(await self._end_unit(unit, doing, plug=plug))
            for unit in units:
                before = unit.mapping({})
                unit.modes.reset()
                unit.attention(SenseCode.BUS_DEVICE_RESET_FUNCTION_OCCURRED, fence=True)
                if unit.mapping({}) != before:
                    await self.remap(unit)
        return self._outcome(reports, units)

    def _query_asynchronous_event(self, unit: LogicalUnit, doing: _Doing) -> Outcome:
        """QUERY ASYNCHRONOUS EVENT (RFC 7144 6.4.2); the information is that of SAM-5 7.9."""
        nexus = self._nexus(unit, doing.issuer.id)
        if nexus is None or not nexus.pending:
            return Outcome(TaskResponse.FUNCTION_COMPLETE)
        depth = 1 if len(nexus.pending) == 1 else 2
        unit_attention = 0x6
        code = int(nexus.pending[0])
        return Outcome(TaskResponse.FUNCTION_SUCCEEDED, information=(depth << 4 | unit_attention) << 16 | code)

    @staticmethod
    def _nexus(unit: LogicalUnit, session: SessionId) -> Nexus | None:
        return next((nexus for nexus in unit.nexuses if nexus.session == session), None)

    async def _end_unit(self, unit: LogicalUnit, doing: _Doing, *, plug: bool = False) -> AbortReport:
        scope = AbortScope(
            AbortKind.LOGICAL_UNIT,
            session=doing.issuer.id,
            store=unit.store,
            before_cmd_sn=doing.request.cmd_sn,
            plug=plug,
            task_aborted=unit.modes.task_aborted_status,
        )
        return await self._abort(scope, doing)

    # ------------------------------------------------------------------ ending tasks
    async def _abort(self, scope: AbortScope, doing: _Doing) -> AbortReport:
        fast = AbortSemantics.FAST if doing.issuer.fast_abort else AbortSemantics.CLARIFIED
        several = scope.kind is not AbortKind.TASK
        seen = await self.query(scope) if several and any(s.fast_abort for s in self.device.sessions.values()) else ()
        report: AbortReport = await self.dispatch.op(self.plane.abort(scope, fast))
        if seen:
            self._announce(seen, {(session, tag) for session, tag in report.affected}, doing)
        return report

    def _announce(self, seen: Iterable[TaskView], ended: set[tuple[SessionId, int]], doing: _Doing) -> None:
        """Asynchronous message 5 for each logical unit on each connection of a FastAbort session that had a task which
        ended, but the one that the request came on (4.2.3.4 d, 4.2.3.5 a)."""
        sessions = self.device.sessions
        places: set[tuple[SessionId, int, int]] = set()
        for task in seen:
            session = sessions.get(task.session)
            here = (task.session, task.cid) == (doing.issuer.id, doing.cid)
            known = (task.session, task.initiator_task_tag) in ended
            if session is not None and session.fast_abort and known and not task.frozen and not here:
                places.add((task.session, task.cid, task.lun))
        for number, cid, lun in sorted(places):
            async_messages.send(self.plane, number, [cid], async_messages.task_termination(lun))

    def _outcome(self, reports: Sequence[AbortReport], units: Sequence[LogicalUnit]) -> Outcome:
        affected = sum(len(report.affected) for report in reports)
        if all(report.complete for report in reports):
            return Outcome(TaskResponse.FUNCTION_COMPLETE, affected)
        # A store operation neither ends nor can be cancelled: never say that it did (design.md, "Abort").
        for report, unit in zip(reports, units, strict=True):
            if not report.complete:
                unit.offline = True
                set_gates(self.plane, unit.nexuses)
        return Outcome(TaskResponse.FUNCTION_REJECTED, affected)

    @contextlib.asynccontextmanager
    async def closed(self, unit: LogicalUnit) -> AsyncIterator[None]:
        """Holds new commands of all nexuses of ``unit``, and shows the gates of their state afterwards."""
        unit.closed_gates += 1
        try:
            await self._all(set_gates(self.plane, unit.nexuses))
            yield
        finally:
            unit.closed_gates -= 1
            set_gates(self.plane, unit.nexuses)

    async def remap(self, unit: LogicalUnit) -> None:
        """`LogicalUnit.show`, and returns when the plane knows it."""
        await self._all(unit.show(self.plane))

    async def _all(self, ops: Sequence[OpId]) -> None:
        """Waits for several operations. All waiters are known before the first wait: an end that nobody waits for is
        forgotten."""
        await asyncio.gather(*[self.dispatch.op(op) for op in ops])


@dataclass(frozen=True, slots=True)
class _Doing:
    """One function on its way."""

    request: TaskManagementRequest
    issuer: SessionView
    cid: int

    @property
    def lun(self) -> int:
        """The LUN field as a number."""
        return int.from_bytes(self.request.lun, "big")
