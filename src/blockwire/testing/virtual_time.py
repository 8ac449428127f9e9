"""An asyncio loop whose clock moves only when nothing else can: minutes of timers in microseconds, the same every time.

`VirtualLoop.time` is a number. When no callback is ready the loop first lets its *sources* work (stepped planes,
in-memory connections); only when none of them moved does the clock jump to the next timer of the loop or of a
source. With no timer either, nobody can ever run again: `Deadlock` names who waits and where.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from types import CodeType
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")

START = 1000.0
"""Where virtual time starts, seconds. Not 0, so that a forgotten 0.0 is far in the past and shows."""

BUSY_TURNS = 64
"""How many turns with ready callbacks may pass before the sources get a turn as well."""

MAX_TURNS = 5_000_000
"""Turns of one `run` until it counts as spinning."""

CLEANUP_TURNS = 10_000
"""Turns that cancelled tasks may take to end."""


class Source(Protocol):
    """Something that works beside the loop's callbacks, under the loop's clock."""

    def step(self, now: float) -> bool:
        """Does everything that can be done at `now` (seconds); True when anything moved."""
        ...

    def next_deadline(self) -> float | None:
        """When, in the loop's seconds, it has something to do by itself."""
        ...

    def describe(self) -> str:
        """One line for the report of a deadlock; empty when there is nothing to say."""
        ...


class Deadlock(AssertionError):
    """Nothing can ever run again: no callback, no source, no timer. The text names every task and where it waits."""


class Spinning(AssertionError):
    """The loop ran and ran without coming to an end."""


def _place(task: asyncio.Task[Any]) -> str:
    """Where a suspended task waits: the innermost frame of its chain of awaits."""
    awaited: Any = task.get_coro()
    place = "not started"
    while awaited is not None:
        code: CodeType | None = getattr(awaited, "cr_code", None) or getattr(awaited, "gi_code", None)
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if code is None or frame is None:
            break
        name = "/".join(code.co_filename.split("/")[-3:])
        place = f"{code.co_qualname} ({name}:{frame.f_lineno})"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return place


class _VirtualSelector(selectors.SelectSelector):
    """Never waits on the machine: where a selector would wait, the virtual world moves on."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found: list[tuple[selectors.SelectorKey, int]] = self.loop._wait(timeout, super().select)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. Use `run`, which also cleans up."""

    def __init__(self, start: float = START, max_turns: int = MAX_TURNS) -> None:
        selector = _VirtualSelector()
        selector.loop = self
        self._virtual_now = start
        self._sources: list[Source] = []
        self._turns = 0
        self._busy = 0
        self._max_turns = max_turns
        self._outside = 0
        self._moves = 0
        super().__init__(selector)

    # ------------------------------------------------------------------ the clock
    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual_now

    @property
    def jumps(self) -> int:
        """How often the clock moved."""
        return self._moves

    def add_source(self, source: Source) -> None:
        """`source` is stepped from now on, after those added before it."""
        self._sources.append(source)

    def remove_source(self, source: Source) -> None:
        """No more steps of `source`; harmless when it is none."""
        if source in self._sources:
            self._sources.remove(source)

    def run_in_executor(self, executor: Executor | None, func: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:  # type: ignore[override]
        """Real threads stay real: while one works the clock stands still."""
        future: asyncio.Future[_T] = super().run_in_executor(executor, func, *args)
        self._outside += 1

        def ended(_: object) -> None:
            self._outside -= 1

        future.add_done_callback(ended)
        return future

    def _step(self) -> bool:
        moved = False
        for source in list(self._sources):
            moved = source.step(self._virtual_now) or moved
        return moved

    def _wait(self, timeout: float | None, poll: Callable[[float | None], Any]) -> Any:
        self._turns += 1
        if self._turns > self._max_turns:
            raise Spinning(f"{self._turns} turns and no end, at {self._virtual_now:.6f} s\n{self.report()}")
        events = poll(0)
        if timeout == 0 or events:
            self._busy += 1
            if self._busy >= BUSY_TURNS:
                self._busy = 0
                self._step()
            return events
        self._busy = 0
        # Two idle rounds: what one source did last (a timer that sent something) may be news for one before it.
        if self._step() or self._step():
            return []
        if self._outside:
            return poll(0.05)
        times = [self._virtual_now + timeout] if timeout is not None else []
        times += [at for source in self._sources if (at := source.next_deadline()) is not None]
        if not times:
            raise Deadlock(f"nothing can happen any more at {self._virtual_now:.6f} s\n{self.report()}")
        # A deadline in the past that its owner does not serve must not stop the clock for ever: time moves at least
        # by what the loop counts as one instant.
        self._virtual_now = max(min(times), self._virtual_now + 1e-9)
        self._moves += 1
        return []

    def report(self) -> str:
        """Who waits, and where: the tasks of this loop and what the sources have to say."""
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        lines = [f"  {task.get_name()} waits in {_place(task)}" for task in tasks]
        lines += [f"  {line}" for source in self._sources if (line := source.describe())]
        return "\n".join(lines)

    # ------------------------------------------------------------------ running
    def run(self, coroutine: Coroutine[Any, Any, _T], name: str = "test") -> _T:
        """Runs `coroutine` to its end; other tasks live on for the next `run`. `Deadlock` when it can't end."""
        self._turns = 0
        task = self.create_task(coroutine, name=name)
        try:
            return self.run_until_complete(task)
        except (Deadlock, Spinning):
            if not task.done():
                self._cancel([task])
            raise

    def _cancel(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        self._turns = self._max_turns - CLEANUP_TURNS

        async def ended() -> None:
            await asyncio.gather(*tasks, return_exceptions=True)

        try:
            self.run_until_complete(ended())
        except (Deadlock, Spinning):
            pass  # a task that waits in its own clean-up; what is reported is why it was cancelled
        finally:
            self._turns = 0

    def close(self) -> None:
        """Cancels what still runs, and closes the loop."""
        if not self.is_closed() and not self.is_running():
            tasks = [task for task in asyncio.all_tasks(self) if not task.done()]
            if tasks:
                self._cancel(tasks)
            self.run_until_complete(self.shutdown_asyncgens())
        super().close()


def run(coroutine: Coroutine[Any, Any, _T], *sources: Source) -> _T:
    """Runs one coroutine on a virtual loop of its own."""
    loop = VirtualLoop()
    for source in sources:
        loop.add_source(source)
    try:
        return loop.run(coroutine)
    finally:
        loop.close()
