"""A TCP connection as a `Transport`, by `loop.sock_*` on a non-blocking socket.

An asyncio stream reads ahead into its own buffer and cannot give the socket back, so none is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from blockwire.dataplane.api import TransportHandle, TransportKind
from blockwire.names import Portal


def portal_of(address: object) -> Portal:
    """The portal of a socket address as Python gives it; an IPv4-mapped IPv6 address as the IPv4 one it is."""
    if isinstance(address, tuple) and len(address) >= 2:
        host = str(address[0])
        if host.startswith("::ffff:") and "." in host:
            host = host[7:]
        return Portal(host, int(address[1]))
    return Portal(str(address) or "local", 0)


class TcpTransport:
    """Owns one connected socket until `detach` or `close`."""

    __slots__ = ("_closed", "_loop", "_pending", "_sock", "local", "peer")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # A header and its answer are small and somebody waits for each of them: Nagle only adds latency.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = str(portal_of(sock.getpeername()))
        self.local = str(portal_of(sock.getsockname()))
        self._sock: socket.socket | None = sock
        self._closed = False
        self._pending = 0
        self._loop = asyncio.get_running_loop()

    def _open_socket(self) -> socket.socket:
        if self._sock is None or self._closed:
            raise ConnectionError("the connection was closed or handed over")
        return self._sock

    async def recv(self, maximum: int) -> bytes:
        """Up to `maximum` bytes; b"" at the end of the stream."""
        sock = self._open_socket()
        self._pending += 1
        try:
            return await self._loop.sock_recv(sock, maximum)
        finally:
            self._ended()

    async def send(self, data: bytes) -> None:
        """Sends all of `data`."""
        sock = self._open_socket()
        self._pending += 1
        try:
            await self._loop.sock_sendall(sock, data)
        finally:
            self._ended()

    def _ended(self) -> None:
        self._pending -= 1
        if self._closed:
            self._discard()

    def _discard(self) -> None:
        if not self._pending and self._sock is not None:
            self._sock.close()
            self._sock = None

    def close(self) -> None:
        """Ends the connection; a waiting `recv` sees the end of the stream."""
        if self._sock is None or self._closed:
            return
        self._closed = True
        # The descriptor stays until nobody waits for it: its number must not be used again under a waiter's feet.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._discard()

    def detach(self) -> TransportHandle:
        """Gives the descriptor away; nobody may be waiting on it."""
        sock = self._open_socket()
        if self._pending:
            raise RuntimeError("a transport with a waiting recv or send cannot be handed over")
        self._sock = None
        return TransportHandle(TransportKind.TCP, sock.detach())
