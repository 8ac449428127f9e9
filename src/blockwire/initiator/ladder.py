"""What a session does about a request that does not end: drives the ladder of `session.recovery`, rung by rung.

ABORT TASK ends one request, which is then its caller's `TimedOutError`: the target answers, it is the medium that does
not. A rung above it ends whatever is in flight, and that is sent again. Each rung has its own timer, so that nothing
waits for ever for a target that answers keep-alives and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from blockwire import errors
from blockwire.dataplane.api import TaskDone
from blockwire.initiator import answers
from blockwire.initiator.retry_policy import RESET
from blockwire.session.recovery import Rung
from blockwire.wire.constants import TaskFunction, TaskResponse
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse

if TYPE_CHECKING:
    from blockwire.initiator.session import Session

_log = logging.getLogger("blockwire.initiator")

FUNCTIONS = {
    Rung.LOGICAL_UNIT_RESET: TaskFunction.LOGICAL_UNIT_RESET,
    Rung.TARGET_RESET: TaskFunction.TARGET_WARM_RESET,
}
ENDING_SECONDS = 5.0
"""How long the plane may take to end requests that a rung has ended at the target."""

TIMED_OUT = "task.timeout"
"""Code of a request that was aborted because its time was up."""
STUCK = "task.stuck"
"""Code of a request whose ABORT TASK was not answered either."""


class Ladder:
    """The ladder of one session. Everything runs on the session's loop."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._climbs: dict[int, asyncio.Future[None]] = {}
        self.climbed: Counter[Rung] = Counter()
        """How often each rung was tried."""
        self._reset_at = -1e9

    def reset_since(self, seconds: float) -> bool:
        """Whether a reset ended requests within the last `seconds`."""
        return self._session.runtime.now() - self._reset_at <= seconds

    async def end(self, token: int, future: asyncio.Future[TaskDone], field: int, number: int) -> TaskDone:
        """Ends a request whose time is up. Gives its result when that came first, else one with `TIMED_OUT`, `RESET`
        or a code of a lost session. `field` is the LUN field, `number` the plane's session it runs on."""
        session = self._session
        for step in session.timers.ladder:
            if step.rung is Rung.ABORT_TASK:
                self.climbed[step.rung] += 1
                session.plane.cancel(token)
                if await self._ended(future, step.seconds):
                    done = future.result()
                    return TaskDone(token, 0, code=TIMED_OUT) if done.code == "task.aborted" else done
                _log.warning("%s does not answer ABORT TASK within %g s", session.target_name, step.seconds)
        await self.reset(field, number)
        if not await self._ended(future, ENDING_SECONDS) and session.id == number:
            session.lost("a reset did not end its tasks")
        if await self._ended(future, ENDING_SECONDS):
            done = future.result()
            return TaskDone(token, 0, code=RESET) if done.code == "task.aborted" else done
        # The plane keeps the buffer pinned until the request ends for it too.
        return TaskDone(token, 0, code="session.lost")

    async def _ended(self, future: asyncio.Future[TaskDone], seconds: float) -> bool:
        try:
            async with self._session.runtime.timeout(seconds):
                await asyncio.shield(future)
        except TimeoutError:
            return future.done()
        return True

    async def reset(self, field: int, number: int) -> None:
        """From LOGICAL UNIT RESET upwards; returns when a rung did its work. Requests of one LUN share one climb."""
        climb = self._climbs.get(field)
        if climb is None:
            climb = self._climbs[field] = asyncio.ensure_future(self._climb(field, number))
            climb.add_done_callback(lambda _: self._climbs.pop(field, None))
        await asyncio.shield(climb)

    async def _climb(self, field: int, number: int) -> None:
        session = self._session
        for step in session.timers.ladder:
            if not session.is_on(number):
                return  # it was opened again meanwhile, which ends everything too
            function = FUNCTIONS.get(step.rung)
            if function is not None:
                self.climbed[step.rung] += 1
                _log.warning("%s: trying %s", session.target_name, step.rung.value)
                if await self._ask(function, field if step.rung is Rung.LOGICAL_UNIT_RESET else 0, step.seconds):
                    self._reset_at = session.runtime.now()
                    return
            elif step.rung is Rung.REOPEN_SESSION:
                self.climbed[step.rung] += 1
                session.lost("no answer to task management")
                return

    async def _ask(self, function: TaskFunction, field: int, seconds: float) -> bool:
        """One task management function; whether the target says that it is complete."""
        session = self._session
        request = TaskManagementRequest(function=function, lun=field.to_bytes(8, "big"), initiator_task_tag=0)
        try:
            async with session.runtime.timeout(seconds):
                answer = await session.dispatch.answer(session.plane.send_pdu(session.id, None, request.encode()))
            response = answers.response(TaskManagementResponse, answer, function.name).response
        except (errors.Error, TimeoutError) as error:
            reason = str(error) or f"no answer within {seconds:g} s"
            _log.warning("%s: %s: %s", session.target_name, function.name, reason)
            return False
        if response != TaskResponse.FUNCTION_COMPLETE:
            _log.warning("%s answers %s with %d", session.target_name, function.name, response)
        return response == TaskResponse.FUNCTION_COMPLETE
