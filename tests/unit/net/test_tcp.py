"""Dialing, listening and handing over, on real loopback sockets."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket

import pytest

from blockwire.dataplane.api import TransportKind
from blockwire.names import Portal
from blockwire.net import dialer, listener
from blockwire.net.asyncio_runtime import AsyncioRuntime


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


def run(coroutine):  # type: ignore[no-untyped-def]
    return asyncio.run(asyncio.wait_for(coroutine, 150))


def test_bytes_go_both_ways_and_end() -> None:
    async def scenario() -> None:
        runtime = AsyncioRuntime()
        here = await runtime.listen(Portal("127.0.0.1", 0))
        near = await runtime.dial(here.addresses[0])
        far = await here.accept()
        assert far.peer == near.local
        assert near.peer == far.local == str(here.addresses[0])
        await near.send(b"x" * 1_000_000)
        got = b""
        while len(got) < 1_000_000:
            got += await far.recv(65536)
        await far.send(b"back")
        assert await near.recv(100) == b"back"
        near.close()
        near.close()
        assert await far.recv(1) == b""
        far.close()
        here.close()
        with pytest.raises(OSError):
            await here.accept()

    run(scenario())


def test_nothing_is_read_ahead_of_a_hand_over() -> None:
    async def scenario() -> None:
        here = await listener.listen(Portal("127.0.0.1", 0))
        near = await dialer.dial(here.addresses[0])
        far = await here.accept()
        await near.send(b"headerpayload")
        assert await far.recv(6) == b"header"
        handle = far.detach()
        assert handle.kind is TransportKind.TCP
        with socket.socket(fileno=handle.descriptor) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert fcntl.fcntl(sock.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            assert sock.recv(100) == b"payload"
        far.close()  # harmless now
        with pytest.raises(ConnectionError):
            await far.recv(1)
        near.close()
        here.close()

    run(scenario())


def test_closing_ends_a_waiting_recv_before_its_descriptor_is_free() -> None:
    async def scenario() -> None:
        here = await listener.listen(Portal("127.0.0.1", 0))
        near = await dialer.dial(here.addresses[0])
        far = await here.accept()
        waiting = asyncio.create_task(near.recv(1))
        await asyncio.sleep(0.01)
        near.close()
        assert await waiting == b""
        far.close()
        here.close()

    run(scenario())


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback")
def test_a_name_listens_on_both_families_with_one_port() -> None:
    async def scenario() -> None:
        here = await listener.listen(Portal("localhost", 0))
        ports = {portal.port for portal in here.addresses}
        assert len(ports) == 1
        for portal in here.addresses:
            near = await dialer.dial(portal)
            (await here.accept()).close()
            near.close()
        here.close()

    run(scenario())


def test_a_port_in_use_is_named() -> None:
    async def scenario() -> None:
        here = await listener.listen(Portal("127.0.0.1", 0))
        with pytest.raises(OSError, match=str(here.addresses[0])) as caught:
            await listener.listen(here.addresses[0])
        assert caught.value.errno == 98
        here.close()

    run(scenario())


def test_refusal_is_a_refusal() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            portal = Portal("127.0.0.1", taken.getsockname()[1])
            with pytest.raises(ConnectionRefusedError):
                await dialer.dial(portal)

    run(scenario())


def test_a_dead_address_does_not_block_the_living(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        here = await listener.listen(Portal("127.0.0.1", 0))
        port = here.addresses[0].port
        loop = asyncio.get_running_loop()
        real = dialer._connect

        async def addresses(host: str, port: int, **_: object) -> list[object]:
            dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.1", port))
            return [dead, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        async def connect(family: int, address: tuple[object, ...]) -> socket.socket:
            if address[0] == "203.0.113.1":
                await asyncio.sleep(3600)
            return await real(family, address)

        monkeypatch.setattr(loop, "getaddrinfo", addresses)
        monkeypatch.setattr(dialer, "_connect", connect)
        near = await dialer.dial(Portal("two-addresses", port))
        (await here.accept()).close()
        near.close()
        here.close()

    run(scenario())


def test_cancelled_dials_leave_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async def connect(family: int, address: tuple[object, ...]) -> socket.socket:
            await asyncio.sleep(3600)
            raise AssertionError

        monkeypatch.setattr(dialer, "_connect", connect)
        before = len(os.listdir("/proc/self/fd"))
        runtime = AsyncioRuntime()
        with pytest.raises(TimeoutError):
            async with runtime.timeout(0.05):
                await runtime.dial(Portal("127.0.0.1", 1))
        assert len(os.listdir("/proc/self/fd")) <= before

    run(scenario())


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback")
def test_a_free_port_that_is_taken_in_the_other_family_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken, given = listener._bind, [], []

    def bind(family: int, address: tuple[object, ...], backlog: int) -> socket.socket:
        if family == socket.AF_INET6 and not taken:
            taken.append(real(family, address, backlog))  # somebody is quicker
        sock = real(family, address, backlog)
        given.append(sock)
        return sock

    async def scenario() -> None:
        async def addresses(*_: object, **__: object) -> list[object]:
            v4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
            return [v4, (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", addresses)
        monkeypatch.setattr(listener, "_bind", bind)
        here = await listener.listen(Portal("two-families", 0))
        (port,) = {portal.port for portal in here.addresses}
        assert len(here.addresses) == 2
        assert port != taken[0].getsockname()[1]
        assert given[0].fileno() == -1
        here.close()
        taken[0].close()

    run(scenario())
