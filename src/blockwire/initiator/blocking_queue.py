"""The synchronous queue: submissions and completions run on the caller's thread, straight on the plane.

What does not end with GOOD is handed to the asynchronous `Lun` on the control thread, which repeats it by policy.
"""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any, NoReturn, Self

from blockwire import errors
from blockwire.dataplane.api import IoKind, TaskDone
from blockwire.initiator.queue import Completion
from blockwire.initiator.retry_policy import LOST_CODES

if TYPE_CHECKING:
    from blockwire.initiator.blocking import Lun

_READ, _WRITE, _FLUSH = IoKind.READ, IoKind.WRITE, IoKind.FLUSH


def _closed(*_: object, **__: object) -> NoReturn:
    raise errors.ClosedError("the queue was closed")


class Queue:
    """Requests submitted in a row, collected as they end. Leaving the block waits for all of them, and raises the first
    error that nobody collected.

    When `depth` requests are in flight a further one waits for one of them to end. Belongs to one thread at a time.
    """

    __slots__ = (
        "_aborted", "_block", "_ended", "_field", "_flying", "_last_tag", "_longest", "_lun", "_mark", "_marked_at",
        "_plane", "_queue", "_redone", "_session", "_session_id", "_size", "_submit_io", "_timeout", "depth",
    )  # fmt: skip

    def __init__(self, lun: Lun, depth: int) -> None:
        if depth < 1:
            raise errors.UsageError(f"queue: depth {depth} must be at least 1", code="usage.depth")
        self.depth = depth
        self._lun = lun
        core = lun.core
        self._session = core.session
        self._plane = core.session.plane
        self._submit_io = self._plane.submit_io
        self._field = core._field
        self._block = core.geometry.block_size
        self._size = core.geometry.size
        self._longest = core.geometry.max_transfer
        self._flying: dict[int, tuple[IoKind, int, int, Any, bool]] = {}
        self._redone: dict[concurrent.futures.Future[Any], int] = {}
        self._ended: list[Completion] = []
        self._timeout = core.session.timers.timeout
        self._mark = 0
        """Newest request in flight at `_marked_at`, seconds: what is as old or older and still flies is late."""
        self._marked_at = lun.control.loop.time()
        self._aborted: dict[int, float] = {}
        """Late requests whose abort was asked for, and when."""
        self._last_tag = 0
        """Of requests that are none of the plane: negative, where the plane's tokens are positive."""
        self._open()

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._flying) + len(self._redone)

    def __repr__(self) -> str:
        return f"<Queue of {self._lun!r}, {self.in_flight} of {self.depth} in flight>"

    def __enter__(self) -> Self:
        if self._submit_io is _closed:
            _closed()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is not None:
                for token in list(self._flying):
                    self._plane.cancel(token)
                for future in self._redone:
                    future.cancel()
                while self._flying:
                    # Abandoned on purpose: only their buffers matter now, nothing is repeated.
                    for done in self._wait(1, 5.0) or self._give_up():
                        self._flying.pop(done.token, None)
                return
            while self.in_flight:
                self._collect(1)
        finally:
            self._submit_io = _closed
            self._plane.close_queue(self._queue)
        for done in self._ended:
            if done.error is not None:
                raise done.error

    def _give_up(self) -> list[Any]:
        self._flying.clear()
        return []

    # ------------------------------------------------------------------ submitting
    def _submit(self, kind: IoKind, offset: int, length: int, buffer: Any, fua: bool = False) -> int:
        if len(self._flying) + len(self._redone) >= self.depth:
            self._collect(1)
        if self._session.id != self._session_id:
            self._follow_session()
        block = self._block
        try:
            token: int = self._submit_io(
                self._session_id, self._field, kind, offset // block, length // block, block, buffer,
                fua=fua, queue=self._queue,
            )  # fmt: skip
        except errors.Error as error:
            if error.code not in LOST_CODES:
                raise
            return self._slow(self._lun.core.resume(TaskDone(0, 0, code=error.code), kind, offset, length, buffer, fua))
        self._flying[token] = (kind, offset, length, buffer, fua)
        return token

    def _follow_session(self) -> None:
        """The session was opened again: its old queue only has answers that say so."""
        while self._flying:
            self._collect(len(self._flying))
        self._plane.close_queue(self._queue)
        self._open()

    def _open(self) -> None:
        while True:
            self._lun.control.run(self._session.ready())
            self._session_id = self._session.id
            try:
                self._queue = self._plane.open_queue(self._session_id)
                return
            except errors.Error as error:
                if error.code not in LOST_CODES:
                    raise
                self._lun.control.loop.call_soon_threadsafe(self._session.lost, error.code)

    def pread(self, length: int, offset: int) -> int:
        """Asks for `length` bytes from `offset`; they come in the completion's `data`."""
        block = self._block
        if offset % block or length % block or offset < 0 or length <= 0 or offset + length > self._size:
            self._lun.core.geometry.check("read", offset, length)
        if not 0 < length <= self._longest:
            return self._slow(self._lun.core.pread(length, offset))
        return self._submit(_READ, offset, length, None)

    def preadinto(self, buffer: Any, offset: int) -> int:
        """Asks for a filled `buffer`; it must not be touched before its completion."""
        length = memoryview(buffer).nbytes
        self._lun.core.geometry.check("read", offset, length)
        if not 0 < length <= self._longest:
            return self._slow(self._lun.core.preadinto(buffer, offset))
        return self._submit(_READ, offset, length, buffer)

    def pwrite(self, data: Any, offset: int, fua: bool = False) -> int:
        """Writes `data` at `offset`."""
        length = len(data) if type(data) is bytes else memoryview(data).nbytes
        self._lun.core.check_write("write", offset, length)
        if not 0 < length <= self._longest:
            return self._slow(self._lun.core.pwrite(data, offset, fua))
        return self._submit(_WRITE, offset, length, data, fua)

    def flush(self) -> int:
        """Asks for stable storage of what has ended before."""
        return self._submit(_FLUSH, 0, 0, None)

    def discard(self, offset: int, length: int) -> int:
        """Gives a range back."""
        self._lun.core.check_write("discard", offset, length)
        return self._slow(self._lun.core.discard(offset, length))

    def zero(self, offset: int, length: int) -> int:
        """Makes a range read as zeros."""
        self._lun.core.check_write("zero", offset, length)
        return self._slow(self._lun.core.zero(offset, length))

    def _slow(self, work: Any) -> int:
        """A request that is more than one command, or cannot be one: it runs on the control thread."""
        if self._submit_io is _closed:
            work.close()
            _closed()
        if len(self._flying) + len(self._redone) >= self.depth:
            self._collect(1)
        future = self._lun.control.start(work)
        self._last_tag -= 1
        self._redone[future] = self._last_tag
        return self._last_tag

    # ------------------------------------------------------------------ collecting
    def completions(self, min: int = 1) -> list[Completion]:
        """What has ended; waits until that is at least `min` requests, or nothing is in flight."""
        missing = min - len(self._ended)
        if missing > 0 or self._flying:
            self._collect(missing if missing > 0 else 0)
        ended, self._ended = self._ended, []
        return ended

    def _collect(self, minimum: int) -> None:
        """Moves what ended to `_ended`, at least `minimum` unless less is in flight."""
        target = len(self._ended) + minimum
        while True:
            missing = target - len(self._ended)
            if self._flying:
                # With requests on the control thread both sides may answer first, so neither wait may be long.
                finished = self._wait(max(missing, 0), self._slice() if not self._redone else 0.01)
                ended, flying = self._ended, self._flying
                for done in finished:
                    record = flying.pop(done.token, None)
                    if record is None:
                        continue
                    if done.status or done.code or done.residual:
                        self._repeat(done, record)
                    else:
                        ended.append(Completion(done.token, done.data, None))
            elif self._redone and missing > 0:
                concurrent.futures.wait(self._redone, 0.1, concurrent.futures.FIRST_COMPLETED)
            if self._redone:
                self._collect_redone()
            if len(self._ended) >= target or not (self._flying or self._redone):
                return

    def _slice(self) -> float:
        """Seconds until somebody has to look for requests that do not end; looks for them when it is time.

        No clock is read per request: all that is in flight now is late when it still is after the timeout.
        """
        now = self._lun.control.loop.time()
        if now - self._marked_at >= self._timeout:
            for token in [token for token in self._flying if token <= self._mark and token not in self._aborted]:
                self._aborted[token] = now
                self._plane.cancel(token)
            self._mark, self._marked_at = max(self._flying, default=0), now
        if self._aborted:
            self._escalate(now)
        return min(self._timeout, 1.0) if self._aborted else self._marked_at + self._timeout - now

    def _escalate(self, now: float) -> None:
        """The next rungs of the recovery ladder, when ABORT TASK is not answered in its time."""
        self._aborted = {token: since for token, since in self._aborted.items() if token in self._flying}
        patience = self._session.timers.ladder[0].seconds
        if any(now - since >= patience for since in self._aborted.values()):
            self._lun.control.run(self._session.ladder.reset(self._field, self._session_id))
            self._aborted.clear()

    def _wait(self, minimum: int, timeout: float) -> list[TaskDone]:
        """What ended. A session that is forgotten took its queue along: then everything in flight was lost."""
        try:
            return self._plane.wait(self._queue, minimum, timeout)
        except errors.Error as error:
            if error.code not in LOST_CODES:
                raise
            return [TaskDone(token, 0, code=error.code) for token in self._flying]

    def _repeat(self, done: Any, record: tuple[IoKind, int, int, Any, bool]) -> None:
        kind, offset, length, buffer, fua = record
        core = self._lun.core
        if not done.status and not done.code:
            if kind is _FLUSH or not length:
                self._ended.append(Completion(done.token, done.data, None))
            else:
                error = core.short_transfer(kind, offset, length, done.residual)
                self._ended.append(Completion(done.token, None, error))
            return
        self._redone[self._lun.control.start(core.resume(done, kind, offset, length, buffer, fua))] = done.token

    def _collect_redone(self) -> None:
        for future in [future for future in self._redone if future.done()]:
            tag = self._redone.pop(future)
            data, error = None, None
            try:
                result = future.result()
                data = result if isinstance(result, bytes) else None
            except errors.Error as raised:
                error = raised
            except concurrent.futures.CancelledError:
                error = errors.CancelledError("the request was cancelled")
            self._ended.append(Completion(tag, data, error))
