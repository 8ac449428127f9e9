"""Many requests in flight from one task or thread: what both queues share, and the asynchronous one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Self

from blockwire import errors

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from blockwire.initiator.logical_unit import Lun


class Completion:
    """One request that ended: `tag` as the queue gave it, `data` of a `pread`, `error` or None."""

    __slots__ = ("data", "error", "tag")

    def __init__(self, tag: int, data: bytes | None, error: errors.Error | None) -> None:
        self.tag = tag
        self.data = data
        self.error = error

    def __repr__(self) -> str:
        size = f" {len(self.data)} bytes" if self.data is not None else ""
        return f"<Completion {self.tag}{size}{f' {self.error!r}' if self.error else ''}>"


class Queue:
    """Requests submitted in a row, collected as they end. Leaving the block waits for all of them, and raises the first
    error that nobody collected.

    When `depth` requests are in flight a further one waits for one of them to end.
    """

    def __init__(self, lun: Lun, depth: int) -> None:
        if depth < 1:
            raise errors.UsageError(f"queue: depth {depth} must be at least 1", code="usage.depth")
        self.depth = depth
        self._lun = lun
        self._next = 1
        self._flying: dict[asyncio.Task[Any], int] = {}
        self._ended: list[Completion] = []
        self._news = asyncio.Event()
        self._closed = False

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._flying)

    def __repr__(self) -> str:
        return f"<Queue of {self._lun!r}, {self.in_flight} of {self.depth} in flight>"

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    def _check_open(self) -> None:
        if self._closed:
            raise errors.ClosedError("the queue was closed")

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self._closed = True
        if kind is not None:
            for task in self._flying:
                task.cancel()
        while self._flying:
            await asyncio.wait(self._flying)
            await asyncio.sleep(0)
        if kind is None:
            for done in self._ended:
                if done.error is not None:
                    raise done.error

    def _finished(self, task: asyncio.Task[Any]) -> None:
        tag = self._flying.pop(task)
        if task.cancelled():
            outcome = Completion(tag, None, errors.CancelledError("the request was cancelled"))
        else:
            error = task.exception()
            if error is None:
                outcome = Completion(tag, task.result(), None)
            elif isinstance(error, errors.Error):
                outcome = Completion(tag, None, error)
            else:
                outcome = Completion(tag, None, errors.Error.wrap(error, "the request failed"))
        self._ended.append(outcome)
        self._news.set()

    async def _submit(self, work: Coroutine[Any, Any, Any], wants_data: bool) -> int:
        if self._closed:
            work.close()
            self._check_open()
        while len(self._flying) >= self.depth:
            self._news.clear()
            await self._news.wait()
        tag = self._next
        self._next += 1

        async def run() -> Any:
            result = await work
            return result if wants_data else None

        task = asyncio.ensure_future(run())
        self._flying[task] = tag
        task.add_done_callback(self._finished)
        return tag

    async def pread(self, length: int, offset: int) -> int:
        """Asks for `length` bytes from `offset`; they come in the completion's `data`."""
        self._lun.geometry.check("read", offset, length)
        return await self._submit(self._lun.pread(length, offset), True)

    async def preadinto(self, buffer: Any, offset: int) -> int:
        """Asks for a filled `buffer`; it must not be touched before its completion."""
        return await self._submit(self._lun.preadinto(buffer, offset), False)

    async def pwrite(self, data: Any, offset: int, fua: bool = False) -> int:
        """Writes `data` at `offset`."""
        return await self._submit(self._lun.pwrite(data, offset, fua), False)

    async def flush(self) -> int:
        """Asks for stable storage of what has ended before."""
        return await self._submit(self._lun.flush(), False)

    async def discard(self, offset: int, length: int) -> int:
        """Gives a range back."""
        return await self._submit(self._lun.discard(offset, length), False)

    async def zero(self, offset: int, length: int) -> int:
        """Makes a range read as zeros."""
        return await self._submit(self._lun.zero(offset, length), False)

    async def completions(self, min: int = 1) -> AsyncIterator[Completion]:
        """What has ended; waits until that is at least `min` requests, or nothing is in flight."""
        while len(self._ended) < min and self._flying:
            self._news.clear()
            await self._news.wait()
        ended, self._ended = self._ended, []
        for done in ended:
            yield done
