"""Connecting to a portal: all its addresses in turn with a short head start each (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket

from blockwire.names import Portal
from blockwire.net.stream import TcpTransport

ATTEMPT_DELAY = 0.25
"""Seconds an address has to itself before the next one is tried beside it (RFC 8305 section 5)."""


def _interleave(found: list[tuple[int, tuple[object, ...]]]) -> list[tuple[int, tuple[object, ...]]]:
    """Alternates address families, so that a family that is dead as a whole costs one delay only."""
    first = [entry for entry in found if entry[0] == found[0][0]]
    other = [entry for entry in found if entry[0] != found[0][0]]
    mixed: list[tuple[int, tuple[object, ...]]] = []
    while first or other:
        if first:
            mixed.append(first.pop(0))
        if other:
            mixed.append(other.pop(0))
    return mixed


async def _connect(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _race(portal: Portal) -> socket.socket:
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(portal.host, portal.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    if not answers:
        raise OSError(f"{portal.host} has no address")
    seen: list[tuple[int, tuple[object, ...]]] = []
    for family, _, _, _, address in answers:
        if (family, address) not in seen:
            seen.append((family, address))
    waiting = _interleave(seen)
    running: set[asyncio.Task[socket.socket]] = set()
    failures: list[OSError] = []
    winner: socket.socket | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_connect(*waiting.pop(0))))
            done, running = await asyncio.wait(
                running, timeout=ATTEMPT_DELAY if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                try:
                    sock = task.result()
                except OSError as error:
                    failures.append(error)
                else:
                    if winner is None:
                        winner = sock
                    else:
                        sock.close()
            if winner is not None:
                return winner
    finally:
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(outcome, socket.socket):
                outcome.close()
    raise failures[0]


async def dial(portal: Portal) -> TcpTransport:
    """Connects to `portal`; OSError when every address failed. Cancelling it leaves no socket behind."""
    return TcpTransport(await _race(portal))
