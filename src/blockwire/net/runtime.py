"""What control rooms are given instead of `time`, `asyncio.sleep` and `socket`.

A login, a session's recovery or a target's acceptor takes a `Runtime`, so that the same code runs on real sockets
(`AsyncioRuntime`) and under virtual time over in-memory transports (`blockwire.testing`).
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from blockwire.dataplane.api import TransportHandle
from blockwire.names import Portal


class Transport(Protocol):
    """A connected byte stream that is read only when asked to: nothing is read ahead, so it can be handed over."""

    @property
    def peer(self) -> str:
        """Address of the other end, `host:port`."""
        ...

    @property
    def local(self) -> str:
        """Address of this end, `host:port`."""
        ...

    async def recv(self, maximum: int) -> bytes:
        """Up to `maximum` bytes, at least one; b"" when the peer closed its side. OSError when the connection broke."""
        ...

    async def send(self, data: bytes) -> None:
        """Sends all of `data`. OSError when the connection broke."""
        ...

    def close(self) -> None:
        """Ends the connection; idempotent, and harmless after `detach`."""
        ...

    def detach(self) -> TransportHandle:
        """Gives the connection away; this object must not be used any more."""
        ...


class Listener(Protocol):
    """Listening sockets of one portal (two of them where a name means both address families)."""

    @property
    def addresses(self) -> tuple[Portal, ...]:
        """What is really listened on: numeric addresses, ports filled in."""
        ...

    async def accept(self) -> Transport:
        """The next connection. Never fails because of a peer; OSError once the listener is closed."""
        ...

    def close(self) -> None:
        """Stops listening; idempotent. A waiting `accept` ends with OSError."""
        ...


class Spawned(Protocol):
    """A coroutine that runs by itself."""

    def cancel(self) -> bool: ...

    def done(self) -> bool: ...


class Runtime(Protocol):
    """Clock, tasks and connections."""

    def now(self) -> float:
        """Monotonic seconds; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Cancels its body after `seconds` and raises TimeoutError; None never does."""
        ...

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> Spawned:
        """Runs `coroutine` on its own. Its exception is logged, never lost."""
        ...

    async def dial(self, portal: Portal) -> Transport:
        """Connects; of several addresses the first that answers wins and a dead one holds up nobody.

        OSError (ConnectionRefusedError, …) when all failed. Has no time limit of its own: see `timeout`.
        """
        ...

    async def listen(self, portal: Portal, backlog: int = 1024) -> Listener:
        """Listens on every address that the portal's host means. Port 0 takes a free port, the same for each address.
        OSError when a port is in use."""
        ...
