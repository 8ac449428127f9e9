"""Brings a plane's events to the coroutines and objects that wait for them.

One `Dispatch` per plane, on one asyncio loop: the loop watches `event_fd`, `pump` drains and routes. A plane without
threads (the stepped one) has no descriptor; whoever steps it calls `pump` by hand.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, TypeAlias

from blockwire import errors
from blockwire.dataplane.api import ControlPdu, DataPlane, Failure, OpId, SessionId, StoreId, TaskDone, Token

_log = logging.getLogger("blockwire.dataplane")

Handler: TypeAlias = Callable[[Any], None]
"""Takes one event; runs on the loop and must not block."""

_CLASSES: tuple[tuple[str, type[errors.Error]], ...] = (
    ("plane.closed", errors.ClosedError),
    # A session or connection that ended a moment ago and is forgotten: retry_policy.LOST_CODES.
    ("plane.unknown", errors.ConnectionLostError),
    ("session.", errors.ConnectionLostError),
    ("connection.", errors.ConnectionLostError),
    ("task.aborted", errors.CancelledError),
    ("task.timeout", errors.TimedOutError),
)


def failure_error(failure: Failure) -> errors.Error:
    """The exception that a plane's failure means: by its errno where it has one, else by the prefix of its code."""
    if failure.errno:
        cause = OSError(failure.errno, os.strerror(failure.errno))
        error = errors.from_os_error(cause, failure.message or failure.code)
        error.message = errors.redact(failure.message) or error.message
    else:
        cls = next((cls for prefix, cls in _CLASSES if failure.code.startswith(prefix)), errors.Error)
        error = cls(failure.message or failure.code)
    error.code = failure.code or error.code
    return error


class Dispatch:
    """Routes the events of one plane. Every method belongs to the loop's thread."""

    def __init__(self, plane: DataPlane) -> None:
        self.plane = plane
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = -1
        self._closed = False
        self._ops: dict[OpId, asyncio.Future[Any]] = {}
        self._answers: dict[Token, asyncio.Future[ControlPdu]] = {}
        self._tasks: dict[Token, asyncio.Future[TaskDone]] = {}
        self._sessions: dict[SessionId, Handler] = {}
        self._stores: dict[StoreId, Handler] = {}

    # ------------------------------------------------------------------ the loop
    def attach(self) -> None:
        """Starts watching the plane's descriptor on the running loop. Harmless for a plane without one."""
        self._loop = asyncio.get_running_loop()
        self._fd = self.plane.event_fd()
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)

    def check_loop(self) -> None:
        """UsageError on any other loop than the attached one: what is awaited there would never end."""
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise errors.UsageError(
                "it was opened on another event loop", code="usage.loop", next="open it on the loop that uses it"
            )

    def close(self) -> None:
        """Stops watching; whatever still waits fails with `ClosedError`."""
        if self._loop is not None and self._fd >= 0:
            self._loop.remove_reader(self._fd)
        self._fd = -1
        self._closed = True
        self._loop = None  # whoever still has this object must not keep a loop that has ended
        waiting: list[asyncio.Future[Any]] = [*self._ops.values(), *self._answers.values(), *self._tasks.values()]
        self._ops.clear()
        self._answers.clear()
        self._tasks.clear()
        for future in waiting:
            if not future.done() and not future.get_loop().is_closed():  # there nobody can wait any more
                self._refuse(future)

    @staticmethod
    def _refuse(future: asyncio.Future[Any]) -> None:
        future.set_exception(errors.ClosedError("the data plane was shut down"))
        future.exception()  # nobody may be left to look at it

    def _waiter(self) -> asyncio.Future[Any]:
        """A future for who begins to wait; one that failed already when no event will come any more."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._closed:
            self._refuse(future)
        return future

    def _readable(self) -> None:
        self.pump()

    def pump(self, maximum: int = 256) -> int:
        """Drains and routes up to `maximum` events; says how many there were."""
        events = self.plane.drain(maximum)
        for event in events:
            try:
                self._route(event)
            except Exception:
                # One subscriber's mistake must not cost the others their events.
                _log.exception("handler of %s failed", type(event).__name__)
        return len(events)

    def _route(self, event: Any) -> None:
        # By name: the native module's event classes carry the names of `api` without being its classes.
        kind = type(event).__name__
        if kind == "TaskDone":
            task = self._tasks.pop(event.token, None)
            lost = self._answers.pop(event.token, None) if task is None else None
            if task is not None and not task.done():
                task.set_result(event)
            elif lost is not None and not lost.done():
                # A control request whose connection went: no answer will come.
                lost.set_exception(failure_error(Failure(event.code, "the connection was lost before the answer")))
        elif kind == "OpDone":
            op = self._ops.pop(event.op, None)
            if op is not None and not op.done():
                if event.failure is not None:
                    op.set_exception(failure_error(event.failure))
                else:
                    op.set_result(event.result)
            elif op is None and event.failure is not None:
                _log.debug("operation %d failed and nobody waits: %s", event.op, event.failure)
        elif kind == "ControlPdu" and event.token:
            answer = self._answers.pop(event.token, None)
            if answer is not None and not answer.done():
                answer.set_result(event)
        elif kind in ("StoreFault", "StoreChanged"):
            handler = self._stores.get(event.store)
            if handler is not None:
                handler(event)
        else:
            handler = self._sessions.get(event.session)
            if handler is not None:
                handler(event)
            else:
                _log.debug("%s of session %d has no subscriber", kind, event.session)

    # ------------------------------------------------------------------ waiting
    # Plain functions that return futures: the waiter is known before anything else can run on this loop, so that an
    # event cannot slip past between the plane's call and the await.

    def op(self, op: OpId) -> asyncio.Future[Any]:
        """Ends with the result of `op`; raises the member of `blockwire.errors` that its failure means."""
        future: asyncio.Future[Any] = self._waiter()
        self._ops[op] = future
        return future

    def answer(self, token: Token) -> asyncio.Future[ControlPdu]:
        """Ends with the PDU that answers a `send_pdu`; ConnectionLostError when its connection goes before."""
        future: asyncio.Future[ControlPdu] = self._waiter()
        self._answers[token] = future
        return future

    def task(self, token: Token) -> asyncio.Future[TaskDone]:
        """Ends with the `TaskDone` of a request submitted on queue 0."""
        future: asyncio.Future[TaskDone] = self._waiter()
        self._tasks[token] = future
        return future

    async def finish(self, token: Token) -> TaskDone:
        """Like `task`, but cancelling the await aborts the request first and waits for its end, because the plane may
        touch the caller's buffer until then."""
        future = self.task(token)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.plane.cancel(token)
            while not future.done():
                try:
                    await asyncio.shield(future)
                except asyncio.CancelledError:
                    if future.cancelled():
                        break
                except errors.Error:
                    break
            raise

    # ------------------------------------------------------------------ subscribing
    def subscribe(self, session: SessionId, handler: Handler) -> None:
        """`handler` gets every event of `session` that nobody awaits by id."""
        self._sessions[session] = handler

    def unsubscribe(self, session: SessionId) -> None:
        """No more events of `session`; harmless when there was no handler."""
        self._sessions.pop(session, None)

    def subscribe_store(self, store: StoreId, handler: Handler) -> None:
        """`handler` gets `StoreFault` and `StoreChanged` of `store`."""
        self._stores[store] = handler

    def unsubscribe_store(self, store: StoreId) -> None:
        """No more events of `store`."""
        self._stores.pop(store, None)
