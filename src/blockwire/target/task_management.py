"""Task management decisions (RFC 7143 11.5, 11.6; SAM-5 clause 7): which tasks end, who is told, what is answered.

The plane does the waiting and the ending (:meth:`DataPlane.abort`); here is what to end, behind closed gates where a
whole logical unit is concerned, and the unit attentions that follow.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from blockwire.dataplane.api import AbortKind, AbortReport, AbortScope, AbortSemantics, DataPlane, OpId, SessionId
from blockwire.dataplane.dispatch import Dispatch
from blockwire.errors import Error
from blockwire.scsi.sense import SenseCode
from blockwire.target.device import TargetDevice
from blockwire.target.logical_unit import LogicalUnit
from blockwire.target.nexus import set_gates
from blockwire.wire import serial
from blockwire.wire.constants import TaskFunction, TaskResponse
from blockwire.wire.task import TaskManagementRequest

_WITH_LUN = {
    TaskFunction.ABORT_TASK,
    TaskFunction.ABORT_TASK_SET,
    TaskFunction.CLEAR_TASK_SET,
    TaskFunction.LOGICAL_UNIT_RESET,
}
"""Functions whose LUN field has to name a logical unit (11.5.3)."""

_NOT_SUPPORTED = {
    TaskFunction.CLEAR_ACA: TaskResponse.NOT_SUPPORTED,  # NORMACA is 0
    TaskFunction.TASK_REASSIGN: TaskResponse.REASSIGNMENT_NOT_SUPPORTED,  # ErrorRecoveryLevel is below 2
}


@dataclass(frozen=True, slots=True)
class Issuer:
    """The session a function came on."""

    session: SessionId
    fast_abort: bool
    """TaskReporting=FastAbort was negotiated."""

    @property
    def semantics(self) -> AbortSemantics:
        """Multi-task abort semantics of this session (4.2.3.3, 4.2.3.4)."""
        return AbortSemantics.FAST if self.fast_abort else AbortSemantics.CLARIFIED


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a function came to."""

    response: TaskResponse
    affected: int = 0
    """Tasks that were ended."""
    drop_sessions: bool = False
    """TARGET COLD RESET: every session of the target ends after the response (11.5.1)."""


class TaskManagement:
    """Does the functions for one target device."""

    def __init__(self, device: TargetDevice, plane: DataPlane, dispatch: Dispatch) -> None:
        self.device = device
        self.plane = plane
        self.dispatch = dispatch

    async def perform(self, request: TaskManagementRequest, issuer: Issuer) -> Outcome:
        """Carries out one function. Never raises for what an initiator can cause."""
        try:
            function = TaskFunction(request.function)
        except ValueError:
            return Outcome(TaskResponse.NOT_SUPPORTED)
        if function in _NOT_SUPPORTED:
            return Outcome(_NOT_SUPPORTED[function])
        unit = None
        if function in _WITH_LUN:
            unit = self.device.unit_of(int.from_bytes(request.lun, "big"))
            if unit is None:
                return Outcome(TaskResponse.LUN_DOES_NOT_EXIST)
        try:
            match function:
                case TaskFunction.ABORT_TASK if unit is not None:
                    return await self._abort_task(request, issuer)
                case TaskFunction.ABORT_TASK_SET if unit is not None:
                    return await self._abort_task_set(request, issuer)
                case TaskFunction.CLEAR_TASK_SET if unit is not None:
                    return await self._clear_task_set(unit, request, issuer)
                case TaskFunction.LOGICAL_UNIT_RESET if unit is not None:
                    return await self._reset([unit], request, issuer)
                case TaskFunction.TARGET_WARM_RESET | TaskFunction.TARGET_COLD_RESET:
                    done = await self._reset(list(self.device.units.values()), request, issuer)
                    cold = function is TaskFunction.TARGET_COLD_RESET and not done.response
                    return Outcome(done.response, done.affected, drop_sessions=cold)
        except Error:
            return Outcome(TaskResponse.FUNCTION_REJECTED)
        # 9 to 12 are for sessions of iSCSIProtocolLevel 2 (RFC 7144 6.3), which is not negotiated.
        return Outcome(TaskResponse.NOT_SUPPORTED)

    async def _abort(self, scope: AbortScope, issuer: Issuer) -> AbortReport:
        report: AbortReport = await self.dispatch.op(self.plane.abort(scope, issuer.semantics))
        return report

    async def _abort_task(self, request: TaskManagementRequest, issuer: Issuer) -> Outcome:
        """ABORT TASK (11.5.4, 11.6.1): a task that is unknown, but whose CmdSN could still come, counts as aborted."""
        numbers = self.plane.numbers(issuer.session)
        report = await self._abort(
            AbortScope(
                AbortKind.TASK,
                session=issuer.session,
                lun=int.from_bytes(request.lun, "big"),
                initiator_task_tag=request.referenced_task_tag,
                ref_cmd_sn=request.ref_cmd_sn,
            ),
            issuer,
        )
        if not report.complete:
            return Outcome(TaskResponse.FUNCTION_REJECTED)
        if report.found and not report.already_responded:
            return Outcome(TaskResponse.FUNCTION_COMPLETE, len(report.affected))
        may_come = serial.in_window(request.ref_cmd_sn, numbers.exp_cmd_sn, numbers.max_cmd_sn) and serial.less(
            request.ref_cmd_sn, request.cmd_sn
        )
        if not report.found and may_come:
            return Outcome(TaskResponse.FUNCTION_COMPLETE)
        return Outcome(TaskResponse.TASK_DOES_NOT_EXIST)

    async def _abort_task_set(self, request: TaskManagementRequest, issuer: Issuer) -> Outcome:
        report = await self._abort(
            AbortScope(
                AbortKind.TASK_SET,
                session=issuer.session,
                lun=int.from_bytes(request.lun, "big"),
                before_cmd_sn=request.cmd_sn,
            ),
            issuer,
        )
        if not report.complete:
            return Outcome(TaskResponse.FUNCTION_REJECTED, len(report.affected))
        return Outcome(TaskResponse.FUNCTION_COMPLETE, len(report.affected))

    async def _clear_task_set(self, unit: LogicalUnit, request: TaskManagementRequest, issuer: Issuer) -> Outcome:
        """One task set for all nexuses (TST 0): those that lost tasks are told (SAM-5 7.4)."""
        async with self.closed(unit):
            report = await self._end_unit(unit, request, issuer)
            lost = {session for session, _ in report.affected}
            for nexus in unit.nexuses:
                if nexus.session != issuer.session and nexus.session in lost:
                    nexus.establish(SenseCode.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)
        return self._outcome([report], [unit])

    async def _reset(self, units: Sequence[LogicalUnit], request: TaskManagementRequest, issuer: Issuer) -> Outcome:
        """Logical unit reset (SAM-5 6.3.3) of one or all: tasks end, mode pages go back, everybody is told."""
        reports = []
        async with contextlib.AsyncExitStack() as stack:
            for unit in units:
                await stack.enter_async_context(self.closed(unit))
            for unit in units:
                reports.append(await self._end_unit(unit, request, issuer))
            for unit in units:
                before = unit.mapping({})
                unit.modes.reset()
                unit.attention(SenseCode.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
                if unit.mapping({}) != before:
                    await self.remap(unit)
        return self._outcome(reports, units)

    async def _end_unit(self, unit: LogicalUnit, request: TaskManagementRequest, issuer: Issuer) -> AbortReport:
        return await self._abort(AbortScope(AbortKind.LOGICAL_UNIT, session=issuer.session, store=unit.store), issuer)

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
