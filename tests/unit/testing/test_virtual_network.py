"""In-memory connections: delivery in any pieces, and every fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from blockwire.names import Portal
from blockwire.testing import memory_link
from blockwire.testing.memory_link import INITIATOR, TARGET, PythonPair
from blockwire.testing.virtual_network import Faults, Link, MemoryTransport, Network, VirtualRuntime
from blockwire.testing.virtual_time import Deadlock, VirtualLoop

PORTAL = Portal("target.example", 3260)


class World:
    def __init__(self) -> None:
        self.network = Network()
        self.runtime = VirtualRuntime(self.network)
        self.loop = VirtualLoop()
        self.loop.add_source(self.network)

    def run(self, body: Callable[[MemoryTransport, MemoryTransport], Awaitable[None]]) -> None:
        """Calls `body` with both ends of one connection."""

        async def all_of_it() -> None:
            listener = await self.runtime.listen(PORTAL)
            near = await self.runtime.dial(PORTAL)
            far = await listener.accept()
            assert isinstance(near, MemoryTransport)
            assert isinstance(far, MemoryTransport)
            try:
                await body(near, far)
            finally:
                listener.close()

        self.loop.run(all_of_it())

    @property
    def link(self) -> Link:
        return self.network.links[-1]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.loop.close()


async def receive(transport: MemoryTransport, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = await transport.recv(length - len(data))
        if not piece:
            break
        data += piece
    return data


def test_what_is_sent_arrives_both_ways(world: World) -> None:
    async def body(near: MemoryTransport, far: MemoryTransport) -> None:
        await near.send(b"question")
        assert await receive(far, 8) == b"question"
        await far.send(b"answer")
        assert await receive(near, 6) == b"answer"
        assert far.peer == near.local
        assert near.peer == far.local == "target.example:3260"

    world.run(body)
    assert (world.link.sent(INITIATOR), world.link.delivered(INITIATOR)) == (8, 8)


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_delivery_in_chunks(world: World, chunk: int) -> None:
    world.network.plan(Faults(chunk=chunk))

    async def body(near: MemoryTransport, far: MemoryTransport) -> None:
        await near.send(bytes(range(20)))
        pieces: list[bytes] = []
        while len(b"".join(pieces)) < 20:
            pieces.append(await far.recv(1000))
        assert b"".join(pieces) == bytes(range(20))
        assert max(len(piece) for piece in pieces) == chunk

    world.run(body)


def test_a_full_link_holds_the_sender_back(world: World) -> None:
    world.network.plan(Faults(capacity=10))

    async def body(near: MemoryTransport, far: MemoryTransport) -> None:
        sending = asyncio.create_task(near.send(bytes(100)))
        await asyncio.sleep(1)
        assert not sending.done()
        assert world.link.sent(INITIATOR) == 10
        assert await receive(far, 100) == bytes(100)
        await sending

    world.run(body)


@pytest.mark.parametrize("at", [0, 1, 5, 10])
def test_a_cut_after_any_byte(world: World, at: int) -> None:
    world.network.plan(Faults(cut_to_target=at))

    async def body(near: MemoryTransport, far: MemoryTransport) -> None:
        received = b""
        sent = True
        try:
            await near.send(b"0123456789")
        except BrokenPipeError:
            sent = False  # the link was lost before the first byte
        assert sent == (at > 0)

        async def drain() -> None:
            nonlocal received
            while True:
                received += await far.recv(100)

        with pytest.raises(ConnectionResetError):
            await drain()
        assert received == b"0123456789"[:at]
        with pytest.raises(BrokenPipeError):
            await near.send(b"x")

    world.run(body)


def test_damage_flips_the_named_bits_once(world: World) -> None:
    world.network.plan(Faults(damage_to_target=((3, 0x80), (5, 0x01)), chunk=4))

    async def body(near: MemoryTransport, far: MemoryTransport) -> None:
        await near.send(bytes(8))
        assert await receive(far, 8) == bytes([0, 0, 0, 0x80, 0, 1, 0, 0])

    world.run(body)


def test_a_stalled_link_delivers_later(world: World) -> None:
    async def body(near: MemoryTransport, far: MemoryTransport) -> None:
        world.link.stall_from(INITIATOR)
        await near.send(b"late")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await far.recv(4)
        world.link.stall_from(INITIATOR, False)
        assert await far.recv(4) == b"late"

    world.run(body)


def test_a_deadlock_shows_the_stalled_link(world: World) -> None:
    async def body(near: MemoryTransport, far: MemoryTransport) -> None:
        world.link.stall()
        await near.send(b"abc")
        await far.recv(4)

    with pytest.raises(Deadlock, match=r"0 of 3 bytes to target stalled"):
        world.run(body)


def test_closing_ends_both_sides(world: World) -> None:
    async def body(near: MemoryTransport, far: MemoryTransport) -> None:
        await near.send(b"last words")
        waiting = asyncio.create_task(near.recv(1))
        await asyncio.sleep(0)
        near.close()
        near.close()
        assert await waiting == b""
        assert await far.recv(100) == b"last words"
        assert await far.recv(100) == b""
        with pytest.raises(BrokenPipeError):
            await far.send(b"hello?")

    world.run(body)


def test_an_end_can_be_handed_over(world: World) -> None:
    async def body(near: MemoryTransport, far: MemoryTransport) -> None:
        waiting = asyncio.create_task(near.recv(1))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="waiting"):
            near.detach()
        waiting.cancel()
        await asyncio.sleep(0)
        pair, end = memory_link.take(near.detach())
        assert end == INITIATOR
        pair.send(end, b"from the plane")
        assert await far.recv(100) == b"from the plane"
        near.close()  # harmless now
        with pytest.raises(ConnectionError):
            await near.recv(1)

    world.run(body)


def test_nobody_listens(world: World) -> None:
    async def body() -> None:
        with pytest.raises(ConnectionRefusedError):
            await world.runtime.dial(PORTAL)
        listener = await world.runtime.listen(PORTAL)
        with pytest.raises(OSError, match="in use"):
            await world.runtime.listen(PORTAL)
        waiting = asyncio.create_task(listener.accept())
        await asyncio.sleep(0)
        listener.close()
        with pytest.raises(OSError, match="closed"):
            await waiting
        with pytest.raises(ConnectionRefusedError):
            await world.runtime.dial(PORTAL)

    world.loop.run(body())


def test_planned_faults_meet_links_in_order(world: World) -> None:
    async def body() -> None:
        await world.runtime.listen(PORTAL)
        world.network.plan(Faults(refused=True), Faults(black_hole=True))
        with pytest.raises(ConnectionRefusedError):
            await world.runtime.dial(PORTAL)
        with pytest.raises(TimeoutError):
            async with world.runtime.timeout(3):
                await world.runtime.dial(PORTAL)
        await world.runtime.dial(PORTAL)

    world.loop.run(body())
    assert len(world.network.links) == 1


def test_a_failed_task_is_kept(world: World) -> None:
    async def fail() -> None:
        raise ValueError("oops")

    async def body() -> None:
        world.runtime.spawn(fail(), "the-failing")
        await world.runtime.sleep(1)

    world.loop.run(body())
    assert [(name, str(error)) for name, error in world.runtime.failed] == [("the-failing", "oops")]


def test_the_python_pair_counts_each_direction() -> None:
    pair = PythonPair()
    assert pair.send(TARGET, b"xyz") == 3
    assert pair.recv(INITIATOR, 2) == b"xy"
    assert pair.progress(TARGET) == (3, 2)
    assert pair.progress(INITIATOR) == (0, 0)
    with pytest.raises(IndexError):
        pair.send(2, b"")
