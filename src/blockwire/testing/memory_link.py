"""In-memory connections in pure Python, with the same calls and faults as the native `MemoryPair`.

With them both ends' login and policy run against each other without the extension. What one end sends waits in a pipe
until the other receives it. A pipe may deliver less than is there (`chunk`), take less than is offered (`capacity`), be
stalled, damage bits, and end after a given byte.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from blockwire.dataplane import native
from blockwire.dataplane.api import TransportHandle, TransportKind

INITIATOR = 0
"""The end that dialled."""
TARGET = 1
"""The end that accepted."""


class Pair(Protocol):
    """Two connected ends, 0 and 1; the native `MemoryPair` and `PythonPair`. Faults belong to what `end` sends."""

    def send(self, end: int, data: bytes) -> int:
        """How many bytes were taken, 0 when the pipe is full. OSError when the link is gone."""
        ...

    def recv(self, end: int, most: int) -> bytes | None:
        """None when nothing is there, b"" at the end of the stream, OSError after a cut."""
        ...

    def handle(self, end: int) -> TransportHandle:
        """The end as something a plane can adopt."""
        ...

    def close(self, end: int) -> None:
        """Ends both directions."""
        ...

    def progress(self, end: int) -> tuple[int, int]:
        """Bytes that `end` sent, and how many of them were delivered."""
        ...

    def cut_after(self, end: int, at: int | None) -> None:
        """The link from `end` is lost when `at` bytes were delivered; None: never."""
        ...

    def damage(self, end: int, at: int, mask: int) -> None:
        """Flips the bits of `mask` in byte `at` of what `end` sends."""
        ...

    def stall(self, end: int, on: bool) -> None:
        """Delivers nothing of what `end` sends while `on`."""
        ...

    def shape(self, end: int, chunk: int | None = None, capacity: int | None = None) -> None:
        """Most bytes of one delivery, and most bytes under way, from `end`."""
        ...


PairFactory: TypeAlias = Callable[[], Pair]


@dataclass
class _Pipe:
    waiting: bytearray = field(default_factory=bytearray)
    sent: int = 0
    delivered: int = 0
    capacity: int = 256 * 1024
    chunk: int = 1 << 62
    cut_at: int | None = None
    damages: list[tuple[int, int]] = field(default_factory=list)
    stalled: bool = False
    closed: bool = False

    @property
    def cut(self) -> bool:
        return self.cut_at is not None and self.delivered >= self.cut_at


_numbers = itertools.count(1)
_published: dict[int, tuple[PythonPair, int]] = {}


class PythonPair:
    """`Pair` without the extension. A plane written in Python adopts an end by `take`."""

    def __init__(self) -> None:
        self._pipes = (_Pipe(), _Pipe())

    def _out(self, end: int) -> _Pipe:
        if end not in (0, 1):
            raise IndexError("an end is 0 or 1")
        return self._pipes[end]

    def send(self, end: int, data: bytes) -> int:
        """See `Pair`."""
        pipe = self._out(end)
        if pipe.closed or self._out(1 - end).closed or pipe.cut:
            raise BrokenPipeError("the other end is gone")
        taken = data[: max(0, pipe.capacity - len(pipe.waiting))]
        pipe.waiting += taken
        pipe.sent += len(taken)
        return len(taken)

    def recv(self, end: int, most: int) -> bytes | None:
        """See `Pair`."""
        pipe = self._out(1 - end)
        if pipe.cut:
            raise ConnectionResetError("the link was cut")
        if pipe.stalled:
            return None
        n = min(most, pipe.chunk, len(pipe.waiting))
        if pipe.cut_at is not None:
            n = min(n, pipe.cut_at - pipe.delivered)
        if not n:
            return b"" if pipe.closed and not pipe.waiting else None
        taken = pipe.waiting[:n]
        del pipe.waiting[:n]
        for at, mask in pipe.damages:
            if pipe.delivered <= at < pipe.delivered + n:
                taken[at - pipe.delivered] ^= mask
        pipe.delivered += n
        return bytes(taken)

    def handle(self, end: int) -> TransportHandle:
        """See `Pair`."""
        number = next(_numbers)
        _published[number] = (self, end)
        return TransportHandle(TransportKind.MEMORY, number)

    def close(self, end: int) -> None:
        """See `Pair`."""
        self._out(end).closed = self._out(1 - end).closed = True

    def progress(self, end: int) -> tuple[int, int]:
        """See `Pair`."""
        pipe = self._out(end)
        return pipe.sent, pipe.delivered

    def cut_after(self, end: int, at: int | None) -> None:
        """See `Pair`."""
        self._out(end).cut_at = at

    def damage(self, end: int, at: int, mask: int) -> None:
        """See `Pair`."""
        self._out(end).damages.append((at, mask))

    def stall(self, end: int, on: bool) -> None:
        """See `Pair`."""
        self._out(end).stalled = on

    def shape(self, end: int, chunk: int | None = None, capacity: int | None = None) -> None:
        """See `Pair`."""
        pipe = self._out(end)
        if chunk is not None:
            pipe.chunk = max(1, chunk)
        if capacity is not None:
            pipe.capacity = max(1, capacity)


def take(handle: TransportHandle) -> tuple[PythonPair, int]:
    """The pair and end that a handle of `PythonPair` names, once."""
    return _published.pop(handle.descriptor)


def native_pair() -> Pair:
    """A pair whose ends a native plane can adopt. An error says so when the extension is not built."""
    pair: Pair = native.memory_pair()
    return pair
