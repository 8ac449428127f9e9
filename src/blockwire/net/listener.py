"""Listening on a portal: every address its host means, both families, and one port for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from blockwire.names import Portal
from blockwire.net.stream import TcpTransport, portal_of

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_RETRY_AFTER = 0.1
"""Seconds until accepting is tried again after the process ran out of descriptors or memory."""


class TcpListener:
    """Accepts on several sockets. Made by `listen`."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self.addresses: tuple[Portal, ...] = tuple(portal_of(sock.getsockname()) for sock in sockets)
        self._ready: deque[socket.socket] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        for sock in sockets:
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def _readable(self, sock: socket.socket) -> None:
        # Bounded per turn: a flood of connections must not keep the loop from what is already open.
        for _ in range(64):
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES and not self._closed:
                    # The backlog stays readable: without a pause this would spin.
                    self._loop.remove_reader(sock.fileno())
                    self._loop.call_later(_RETRY_AFTER, self._rearm, sock)
                    break
                continue  # the peer gave up between SYN and accept
            connection.setblocking(False)
            self._ready.append(connection)
            while self._waiters:
                waiter = self._waiters.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    break

    def _rearm(self, sock: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    async def accept(self) -> TcpTransport:
        """The next connection; OSError (EBADF) once the listener is closed."""
        while True:
            while self._ready:
                sock = self._ready.popleft()
                try:
                    return TcpTransport(sock)
                except OSError:  # reset before it was looked at
                    sock.close()
            if self._closed:
                raise OSError(errno.EBADF, "the listener is closed")
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
                raise

    def close(self) -> None:
        """Stops listening and ends waiting `accept` calls."""
        if self._closed:
            return
        self._closed = True
        for sock in self._sockets:
            with contextlib.suppress(Exception):
                self._loop.remove_reader(sock.fileno())
            sock.close()
        while self._ready:
            self._ready.popleft().close()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)


def _bind(family: int, address: tuple[object, ...], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # 0.0.0.0 and [::] are separate portals; one must not take the other's port.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


FREE_PORTS = 8
"""How many ports are tried until all addresses of a name get the same one."""


async def listen(portal: Portal, backlog: int = 1024) -> TcpListener:
    """Listens on `portal`. An address family that this host lacks is left out as long as one works."""
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(portal.host, portal.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for _ in range(FREE_PORTS - 1):
        try:
            return _listen(portal, answers, backlog)
        except OSError as error:
            # Port 0: what one family gave may be somebody's in the other one.
            if portal.port or error.errno != errno.EADDRINUSE:
                raise
    return _listen(portal, answers, backlog)


def _listen(portal: Portal, answers: Sequence[tuple[Any, ...]], backlog: int) -> TcpListener:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    port = portal.port
    try:
        for family, _, _, _, address in answers:
            if port and not portal.port:
                address = (address[0], port, *address[2:])
            try:
                sock = _bind(family, address, backlog)
            except OSError as error:
                if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) and len(answers) > 1:
                    missing = error
                    continue
                raise OSError(error.errno, f"cannot listen on {portal_of(address)}: {error.strerror}") from error
            port = sock.getsockname()[1]
            sockets.append(sock)
        if not sockets:
            raise missing or OSError(errno.EADDRNOTAVAIL, f"{portal.host} has no address")
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return TcpListener(sockets)
