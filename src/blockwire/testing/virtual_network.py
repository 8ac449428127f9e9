"""`VirtualRuntime`: the runtime of control rooms under virtual time, over in-memory connections with faults.

Every connection is a `Link`, kept in `Network.links` in the order of dialling. Faults are set on a link, or in advance:
`Network.plan` gives the next links their faults before the first byte.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blockwire.dataplane.api import TransportHandle
from blockwire.names import Portal
from blockwire.net.asyncio_runtime import AsyncioRuntime
from blockwire.net.runtime import Listener, Transport
from blockwire.testing.memory_link import INITIATOR, TARGET, Pair, PairFactory, PythonPair
from blockwire.testing.tap import Tap

EPHEMERAL = 49152
"""First port given to a listener on port 0, and to dialling ends."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with one link. Bytes are counted per direction from the first byte of the connection."""

    cut_to_target: int | None = None
    """Lost after so many bytes were delivered to the target; what follows never arrives."""
    cut_to_initiator: int | None = None
    chunk: int | None = None
    """Most bytes of one delivery, both directions."""
    chunk_to_target: int | None = None
    chunk_to_initiator: int | None = None
    capacity: int | None = None
    """Most bytes under way, both directions: what a socket buffer is in real life."""
    damage_to_target: tuple[tuple[int, int], ...] = ()
    """(byte, mask of bits to flip)."""
    damage_to_initiator: tuple[tuple[int, int], ...] = ()
    refused: bool = False
    """Nobody listens."""
    black_hole: bool = False
    """Connecting never ends."""


NO_FAULTS = Faults()


class Link:
    """One connection: the initiator's end is the one that dialled."""

    def __init__(self, number: int, portal: Portal, pair: Pair) -> None:
        self.number = number
        self.portal = portal
        self.pair = pair
        self._stalled = [False, False]
        self._cut: list[int | None] = [None, None]

    @property
    def is_tapped(self) -> bool:
        """Whether `tap` is there."""
        return isinstance(self.pair, Tap)

    @property
    def tap(self) -> Tap:
        """What sees the PDUs pass. RuntimeError on a link without one."""
        if not isinstance(self.pair, Tap):
            raise RuntimeError("the link has no tap: make the network with tapped=True")
        return self.pair

    def apply(self, faults: Faults) -> None:
        """Sets everything that `faults` names."""
        for end, cut, chunk, damage in (
            (INITIATOR, faults.cut_to_target, faults.chunk_to_target, faults.damage_to_target),
            (TARGET, faults.cut_to_initiator, faults.chunk_to_initiator, faults.damage_to_initiator),
        ):
            if cut is not None:
                self.cut(end, cut)
            chunk = chunk or faults.chunk
            if chunk is not None or faults.capacity is not None:
                self.pair.shape(end, chunk, faults.capacity)
            for at, mask in damage:
                self.pair.damage(end, at, mask)

    def cut(self, end: int, after: int | None = None) -> None:
        """Loses what `end` sends after so many delivered bytes; without a number, now."""
        self._cut[end] = self.pair.progress(end)[1] if after is None else after
        self.pair.cut_after(end, self._cut[end])

    def cut_now(self) -> None:
        """Both ends see the connection reset."""
        self.cut(INITIATOR)
        self.cut(TARGET)

    def stall(self, on: bool = True) -> None:
        """Nothing is delivered in either direction while `on`: the cable is out, and nobody knows."""
        self.stall_from(INITIATOR, on)
        self.stall_from(TARGET, on)

    def stall_from(self, end: int, on: bool = True) -> None:
        """Nothing that `end` sends is delivered while `on`."""
        self._stalled[end] = on
        self.pair.stall(end, on)

    def damage(self, end: int, at: int, mask: int = 0x01) -> None:
        """Flips bits in byte `at` of what `end` sends."""
        self.pair.damage(end, at, mask)

    def chunk(self, most: int) -> None:
        """Delivers at most so many bytes at a time, both directions."""
        self.pair.shape(INITIATOR, most)
        self.pair.shape(TARGET, most)

    def sent(self, end: int) -> int:
        """Bytes that `end` sent."""
        return self.pair.progress(end)[0]

    def delivered(self, end: int) -> int:
        """Bytes of `end` that the other end received."""
        return self.pair.progress(end)[1]

    def describe(self) -> str:
        """One line: how many bytes wait on which direction, and the faults in force."""
        parts = []
        for end, arrow in ((INITIATOR, "to target"), (TARGET, "to initiator")):
            sent, delivered = self.pair.progress(end)
            notes = [f"{delivered} of {sent} bytes {arrow}"]
            if self._stalled[end]:
                notes.append("stalled")
            cut = self._cut[end]
            if cut is not None and delivered >= cut:
                notes.append(f"cut after {cut}")
            parts.append(" ".join(notes))
        return f"link {self.number} ({self.portal}): {', '.join(parts)}"


class _Waiter:
    """A receive or send that is tried again each time the virtual world moves."""

    __slots__ = ("attempt", "future")

    def __init__(self, future: asyncio.Future[Any], attempt: Callable[[], Any]) -> None:
        self.future = future
        self.attempt = attempt


class MemoryTransport:
    """One end of a link, as `Transport`."""

    def __init__(self, network: Network, link: Link, end: int, local: str, peer: str) -> None:
        self._network = network
        self.link = link
        self._end = end
        self.local = local
        self.peer = peer
        self._closed = False
        self._gone = False
        self._pending = 0

    def _check(self) -> None:
        if self._gone:
            raise ConnectionError("the connection was handed over")
        if self._closed:
            raise ConnectionError("the connection was closed")

    async def _wait(self, attempt: Callable[[], Any]) -> Any:
        self._pending += 1
        try:
            return await self._network.retry(attempt)
        finally:
            self._pending -= 1

    async def recv(self, maximum: int) -> bytes:
        """Up to `maximum` bytes; b"" at the end of the stream or after `close`."""
        self._check()

        def attempt() -> bytes | None:
            return b"" if self._closed else self.link.pair.recv(self._end, maximum)

        received: bytes = await self._wait(attempt)
        return received

    async def send(self, data: bytes) -> None:
        """Sends all of `data`, waiting while the link's capacity is used up."""
        self._check()
        rest = memoryview(data)

        def attempt() -> bool | None:
            nonlocal rest
            if self._closed:
                raise BrokenPipeError("the connection was closed")
            rest = rest[self.link.pair.send(self._end, bytes(rest)) :]
            return None if rest else True

        if rest:
            await self._wait(attempt)

    def close(self) -> None:
        """Ends the connection; idempotent, harmless after `detach`."""
        if not self._closed and not self._gone:
            self._closed = True
            self.link.pair.close(self._end)

    def detach(self) -> TransportHandle:
        """The end as a plane adopts it; nobody may be waiting on it."""
        self._check()
        if self._pending:
            raise RuntimeError("a transport with a waiting recv or send cannot be handed over")
        self._gone = True
        return self.link.pair.handle(self._end)


class MemoryListener:
    """Accepts what is dialled to its portal."""

    def __init__(self, network: Network, portal: Portal) -> None:
        self._network = network
        self.addresses: tuple[Portal, ...] = (portal,)
        self._ready: deque[MemoryTransport] = deque()
        self._closed = False

    def offer(self, transport: MemoryTransport) -> None:
        """A connection arrived."""
        self._ready.append(transport)

    async def accept(self) -> Transport:
        """The next connection; OSError once the listener is closed."""

        def attempt() -> MemoryTransport | None:
            if self._ready:
                return self._ready.popleft()
            if self._closed:
                raise OSError(errno.EBADF, "the listener is closed")
            return None

        transport: MemoryTransport = await self._network.retry(attempt)
        return transport

    def close(self) -> None:
        """Stops listening; idempotent."""
        if not self._closed:
            self._closed = True
            self._network.listeners.pop(self.addresses[0], None)
            while self._ready:
                self._ready.popleft().close()


class Network:
    """All links and listeners of one virtual world. A source of the loop: it wakes whoever waits for bytes."""

    def __init__(self, make_pair: PairFactory = PythonPair, tapped: bool = False) -> None:
        self.make_pair = make_pair
        self.tapped = tapped
        """Whether further links have a `Tap` in them."""
        self.links: list[Link] = []
        self.listeners: dict[Portal, MemoryListener] = {}
        self.on_link: Callable[[Link], None] | None = None
        """Called with each new link before its first byte."""
        self._planned: deque[Faults] = deque()
        self._always = NO_FAULTS
        self._waiters: deque[_Waiter] = deque()
        self._ports = EPHEMERAL

    # ------------------------------------------------------------------ faults
    def plan(self, *faults: Faults) -> None:
        """The next links get these faults, one each, in order; later ones have those of `always`."""
        self._planned.extend(faults)

    def always(self, faults: Faults) -> None:
        """Every further link that `plan` says nothing of gets these faults."""
        self._always = faults

    def restore(self) -> None:
        """No faults for further links, and no link is stalled any more; what was cut stays cut."""
        self._planned.clear()
        self._always = NO_FAULTS
        for link in self.links:
            link.stall(False)

    # ------------------------------------------------------------------ waiting
    async def retry(self, attempt: Callable[[], Any]) -> Any:
        """Calls `attempt` until it gives something else than None, each time the world moved."""
        result = attempt()
        if result is not None:
            return result
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiters.append(_Waiter(future, attempt))
        return await future

    def step(self, now: float) -> bool:
        """Moves bytes through the taps, then makes one attempt for each waiter, the longest waiting first."""
        moved = False
        for link in self.links:
            if link.is_tapped:
                moved = link.tap.pump() or moved
        for _ in range(len(self._waiters)):
            waiter = self._waiters.popleft()
            if waiter.future.done():
                continue
            try:
                result = waiter.attempt()
            except OSError as error:
                waiter.future.set_exception(error)
                moved = True
                continue
            if result is None:
                self._waiters.append(waiter)
            else:
                waiter.future.set_result(result)
                moved = True
        return moved

    def next_deadline(self) -> float | None:
        """A link has no timers."""
        return None

    def describe(self) -> str:
        """The links, one after the other."""
        return "; ".join(link.describe() for link in self.links[-8:])

    # ------------------------------------------------------------------ connecting
    def port(self) -> int:
        """A port nobody has."""
        self._ports += 1
        return self._ports

    async def dial(self, portal: Portal) -> MemoryTransport:
        """A new link to who listens on `portal`."""
        faults = self._planned.popleft() if self._planned else self._always
        if faults.black_hole:
            await asyncio.get_running_loop().create_future()
        listener = self.listeners.get(portal)
        if listener is None or faults.refused:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {portal}")
        pair = Tap(self.make_pair) if self.tapped else self.make_pair()
        link = Link(len(self.links), portal, pair)
        self.links.append(link)
        link.apply(faults)
        if self.on_link is not None:
            self.on_link(link)
        near = f"192.0.2.1:{self.port()}"
        listener.offer(MemoryTransport(self, link, TARGET, str(portal), near))
        return MemoryTransport(self, link, INITIATOR, near, str(portal))

    async def listen(self, portal: Portal) -> MemoryListener:
        """Listens on `portal`; port 0 takes a free one."""
        if not portal.port:
            portal = Portal(portal.host, self.port())
        if portal in self.listeners:
            raise OSError(errno.EADDRINUSE, f"cannot listen on {portal}: in use")
        listener = self.listeners[portal] = MemoryListener(self, portal)
        return listener


class VirtualRuntime(AsyncioRuntime):
    """The runtime of a `VirtualLoop`, whose clock is virtual, over a `Network`."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.failed: list[tuple[str, BaseException]] = []
        """Name and exception of every spawned coroutine that failed: a test looks at it at the end."""

    def _ended(self, task: asyncio.Task[Any]) -> None:
        super()._ended(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed.append((task.get_name(), error))

    async def dial(self, portal: Portal) -> Transport:
        """Connects in memory."""
        return await self.network.dial(portal)

    async def listen(self, portal: Portal, backlog: int = 1024) -> Listener:
        """Listens in memory."""
        return await self.network.listen(portal)
