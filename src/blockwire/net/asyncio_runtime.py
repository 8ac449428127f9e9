"""The runtime of real life: the running asyncio loop and TCP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from blockwire.names import Portal
from blockwire.net import dialer, listener
from blockwire.net.runtime import Listener, Spawned, Transport

_log = logging.getLogger("blockwire.net")


class AsyncioRuntime:
    """Uses the loop that is running when it is called; one object may serve one loop only."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def now(self) -> float:
        """The loop's monotonic clock, seconds."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Waits `seconds`."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """TimeoutError in the body's place after `seconds`."""
        return asyncio.timeout(seconds)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> Spawned:
        """Runs `coroutine` as a task that is kept alive until it ends."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task %s failed", task.get_name(), exc_info=error)

    async def dial(self, portal: Portal) -> Transport:
        """Connects by TCP."""
        return await dialer.dial(portal)

    async def listen(self, portal: Portal, backlog: int = 1024) -> Listener:
        """Listens by TCP."""
        return await listener.listen(portal, backlog)
