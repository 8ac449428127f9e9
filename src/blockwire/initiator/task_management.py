"""Task management that a caller asks for (RFC 7143 11.5, 11.6; RFC 7144 section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockwire import errors
from blockwire.dataplane.api import AbortKind, AbortScope, ControlPdu, TaskView
from blockwire.initiator import answers
from blockwire.wire.constants import RESERVED_TAG, TaskFunction, TaskResponse
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse

if TYPE_CHECKING:
    from blockwire.initiator.session import Session

LEVEL_2 = frozenset(
    {
        TaskFunction.QUERY_TASK,
        TaskFunction.QUERY_TASK_SET,
        TaskFunction.I_T_NEXUS_RESET,
        TaskFunction.QUERY_ASYNCHRONOUS_EVENT,
    }
)
"""MUST NOT be sent unless iSCSIProtocolLevel=2 was negotiated (RFC 7144 6.3)."""

_ENDING = frozenset({TaskFunction.TARGET_COLD_RESET, TaskFunction.I_T_NEXUS_RESET})
"""The loss of the session is what they are for."""


async def request(
    session: Session,
    function: TaskFunction,
    field: int = 0,
    *,
    task: TaskView | None = None,
    cid: int | None = None,
    seconds: float | None = None,
) -> TaskManagementResponse:
    """One function and its response. `field` is the LUN field, `task` the referenced task, which is asked about on its
    own connection (11.5.1). UsageError for a function that may not be sent, TimedOutError after `seconds`."""
    if function is TaskFunction.TASK_REASSIGN:
        raise errors.UsageError("tasks are reassigned by the session itself", code="usage.task-management")
    level = int(session.keys["iSCSIProtocolLevel"])
    if function in LEVEL_2 and level < 2:
        raise errors.UsageError(
            f"{function.name} needs iSCSIProtocolLevel=2", code="usage.task-management",
            evidence=f"iSCSIProtocolLevel={level} was negotiated", next='offer it: keys={"iSCSIProtocolLevel": "2"}',
        )  # fmt: skip
    if (function in (TaskFunction.ABORT_TASK, TaskFunction.QUERY_TASK)) != (task is not None):
        raise errors.UsageError(f"{function.name}: a task is named by ABORT TASK and QUERY TASK, and only by them")
    pdu = TaskManagementRequest(
        function=function,
        lun=field.to_bytes(8, "big"),
        initiator_task_tag=0,
        referenced_task_tag=RESERVED_TAG if task is None else task.initiator_task_tag,
        ref_cmd_sn=0 if task is None else task.cmd_sn,
    )
    wait = session.timers.timeout if seconds is None else seconds
    try:
        async with session.runtime.timeout(wait):
            query = function is TaskFunction.QUERY_TASK
            answer = await _answered(session, pdu.encode(), task, cid, again=function not in _ENDING, query=query)
    except TimeoutError as error:
        raise errors.TimedOutError(
            f"{function.name}: no answer in time", code="task-management.timeout", evidence=f"nothing within {wait:g} s"
        ) from error
    return answers.response(TaskManagementResponse, answer, function.name)


async def _allegiance(session: Session, task: TaskView) -> int | None:
    """The CID that a task is allegiant to now; None while it waits for a connection."""
    for found in await tasks(session):
        if found.initiator_task_tag == task.initiator_task_tag:
            return None if found.frozen else found.cid
    return task.cid


async def _answered(
    session: Session, pdu: bytes, task: TaskView | None, cid: int | None, *, again: bool, query: bool
) -> ControlPdu:
    """A request that is lost with its connection is sent again while the session lives on: done twice, every function
    comes to the same (7.2.2: it cannot be reassigned)."""
    while True:
        await session.ready()
        number = session.id
        on = cid
        if task is not None:
            on = await _allegiance(session, task)
            if on is None and query:
                # RFC 7144 6.3: on the connection that the task is allegiant to. Another one would establish a new
                # allegiance without an ExpDataSN, while the session gives it one by TASK REASSIGN.
                await session.runtime.sleep(session.timers.reopen_first)
                continue
        try:
            token = session.plane.send_pdu(number, on if on in session.cids else None, pdu)
            return await session.dispatch.answer(token)
        except errors.ConnectionLostError as error:
            if task is not None and session.id != number:
                raise  # the task went with its session
            if not again:
                raise
            session.request_lost(error.code, number)
            await session.runtime.sleep(session.timers.reopen_first)


async def perform(session: Session, function: TaskFunction, field: int = 0) -> None:
    """`request`, with an error unless the function is complete."""
    response = (await request(session, function, field)).response
    if response == TaskResponse.FUNCTION_COMPLETE:
        return
    try:
        said = TaskResponse(response).name.lower().replace("_", " ")
    except ValueError:
        said = f"response {response}"
    raise errors.Error(
        f"{session.target_name} does not do {function.name.replace('_', ' ')}: {said}",
        code="task-management.refused", whose="peer", evidence=f"response {response} (RFC 7143 11.6.1)",
    )  # fmt: skip


async def tasks(session: Session) -> tuple[TaskView, ...]:
    """The SCSI tasks of the session that have not ended, as the plane knows them."""
    scope = AbortScope(AbortKind.NEXUS, session=session.id)
    found: tuple[TaskView, ...] = await session.dispatch.op(session.plane.query(scope))
    return found
