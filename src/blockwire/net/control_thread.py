"""One background asyncio loop per process, on which the synchronous API's control plane runs.

It starts with the first use, never keeps the interpreter alive, and ends before it with bounded farewells. Data calls
do not pass through it: they go to the plane on the caller's own thread.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from blockwire.errors import ClosedError, ForkedError

_T = TypeVar("_T")
_log = logging.getLogger("blockwire.control")

FAREWELL_SECONDS = 3.0
"""How long the closing of what is still open may hold up the end of the interpreter."""


class ControlThread:
    """Owns the thread and its loop. `shared` is the one of this process."""

    def __init__(self, name: str = "blockwire-control") -> None:
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._farewells: list[Callable[[], Coroutine[Any, Any, object]]] = []
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _serve(self) -> None:
        # Signals belong to the main thread of the program; asyncio must not touch them from here.
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._loop = loop
        loop.call_soon(self._ready.set)
        try:
            loop.run_forever()
        finally:
            loop.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; `ForkedError` in a child process, `ClosedError` after the end."""
        if self._pid != os.getpid():
            raise ForkedError()
        if self._loop is None or self._loop.is_closed():
            raise ClosedError("the control thread has ended")
        return self._loop

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs `coroutine` on the loop and waits for it on the caller's thread.

        A signal that raises (Ctrl-C) cancels the coroutine, waits for its clean end, and is raised then.
        """
        try:
            loop = self.loop
        except BaseException:
            coroutine.close()
            raise
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("the synchronous API was called from the control thread; use blockwire.aio there")
        finished = threading.Event()
        tasks: list[asyncio.Task[_T]] = []

        def begin() -> None:
            task = loop.create_task(coroutine)
            tasks.append(task)
            task.add_done_callback(lambda _: finished.set())

        loop.call_soon_threadsafe(begin)
        try:
            finished.wait()
        except BaseException:
            # Its clean-up (an ABORT TASK, a logout) still runs on the loop, and the caller's buffer is in use so long.
            loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # noqa: PLW0108 - `begin` fills the list later
            finished.wait(FAREWELL_SECONDS)
            raise
        task = tasks[0]
        if task.cancelled():
            raise ClosedError("the operation was cancelled because the program ends")
        return task.result()

    def start(self, coroutine: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Runs `coroutine` on the loop without waiting."""
        try:
            loop = self.loop
        except BaseException:
            coroutine.close()
            raise
        return asyncio.run_coroutine_threadsafe(coroutine, loop)

    def at_end(self, farewell: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """`farewell` is run before the interpreter ends, bounded together with the others by `FAREWELL_SECONDS`."""
        self._farewells.append(farewell)

    def end(self) -> None:
        """Runs the farewells and stops the loop; idempotent."""
        loop = self._loop
        if loop is None or loop.is_closed() or self._pid != os.getpid() or not self._thread.is_alive():
            return

        async def say_goodbye() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await asyncio.gather(*(farewell() for farewell in self._farewells), return_exceptions=True)
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.5) if tasks else None

        with contextlib.suppress(BaseException):
            asyncio.run_coroutine_threadsafe(say_goodbye(), loop).result(FAREWELL_SECONDS + 1)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(1.0)


_shared: ControlThread | None = None
_shared_lock = threading.Lock()


def shared() -> ControlThread:
    """The control thread of this process, started when first asked for; a child process of a fork gets its own."""
    global _shared  # noqa: PLW0603 - one per process is what it is for
    with _shared_lock:
        if _shared is None:
            _shared = ControlThread()
            atexit.register(_shared.end)
        return _shared


def _forget() -> None:
    global _shared, _shared_lock  # noqa: PLW0603 - the parent's thread does not exist in the child
    _shared = None
    _shared_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
