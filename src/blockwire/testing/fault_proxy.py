"""A TCP proxy on real sockets that does to a connection what networks do: cut, stall, damage, throttle, hold back.

    with FaultProxy("127.0.0.1:3260") as proxy:            # a thread of its own; usable from any test
        url = f"iscsi://{proxy.address}/iqn…/0"
        proxy.plan(Fault(cut_to_client=4096))              # the next connection
        proxy.connections[-1].cut()                        # one that is open, now

    python -m blockwire.testing.fault_proxy 127.0.0.1:3260 --listen 127.0.0.1:3261 --cut-to-client 100000

Bytes are counted per direction from the first byte of a connection. `delay` on one connection only makes its traffic
arrive after that of others: reordering between connections, the only kind that TCP leaves.

A target that answers discovery with its own address leads clients past the proxy: name the target in the URL, or start
it with `--advertise`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

PIECE = 64 * 1024
"""Most bytes that are read and passed on at a time."""

RATE_SLICE = 0.02
"""A throttled direction passes on as much as fits into so many seconds at a time."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a connection, or with all of them. Zero, None and empty: nothing."""

    cut_to_server: int | None = None
    """The connection is reset once so many bytes were passed on to the server; 0 at the first one."""
    cut_to_client: int | None = None
    close_to_server: int | None = None
    """As `cut_to_server`, but an orderly end (FIN) instead of a reset, and both directions end."""
    close_to_client: int | None = None
    stall_to_server: int | None = None
    """Nothing more is passed on after so many bytes; the connection stays open."""
    stall_to_client: int | None = None
    damage_to_server: tuple[int, ...] = ()
    """One bit of each of these bytes is flipped (mask `mask`)."""
    damage_to_client: tuple[int, ...] = ()
    mask: int = 0x01
    rate: float = 0.0
    """Bytes per second, each direction."""
    delay: float = 0.0
    """Seconds by which everything arrives later, each direction."""
    chunk: int = 0
    """Most bytes of one send, each direction."""
    refuse: bool = False
    """A connection is closed as soon as it is accepted."""


NO_FAULT = Fault()


class _Cut(Exception):
    """The connection is to be reset."""


class _Closed(Exception):
    """The connection is to be ended in order."""


class Connection:
    """One connection through the proxy. Its methods may be called from any thread."""

    def __init__(self, proxy: FaultProxy, number: int, client: socket.socket, fault: Fault) -> None:
        self.number = number
        self.peer = ":".join(str(part) for part in client.getpeername()[:2])
        self.to_server = 0
        """Bytes passed on so far."""
        self.to_client = 0
        self.ended = ""
        """Empty while it is open; then `closed`, `cut`, or the error that ended it."""
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._fault = fault
        self._stalled = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def fault(self) -> Fault:
        """What is wrong with it at the moment."""
        return self._fault

    def set(self, **changes: Any) -> None:
        """Changes fields of `fault` from now on: `set(delay=0.2)`."""
        self._fault = replace(self._fault, **changes)
        self._proxy._soon(self._changed.set)

    def cut(self) -> None:
        """Resets both sides now."""
        self._proxy._soon(self._reset)

    def stall(self, on: bool = True) -> None:
        """Passes nothing on while `on`; with False what waited goes on."""
        self._stalled = on
        self._proxy._soon(self._changed.set)

    def _reset(self) -> None:
        if self._task is not None and not self.ended:
            self.ended = "cut"
            self._task.cancel()

    # ------------------------------------------------------------------ on the proxy's loop
    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        how = "closed"
        try:
            if self._fault.refuse:
                raise _Cut
            self._server = await self._proxy._connect()
            up = loop.create_task(self._pass_on(self._client, self._server, True))
            down = loop.create_task(self._pass_on(self._server, self._client, False))
            try:
                await self._until_both_ended(up, down)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        except (_Cut, asyncio.CancelledError):
            how = "cut"
        except _Closed:
            pass
        except OSError as error:
            how = f"{type(error).__name__}: {error}"
        finally:
            self.ended = self.ended or how
            for sock in (self._client, self._server):
                if sock is not None:
                    if self.ended != "closed":
                        # Linger 0 makes close send RST instead of FIN.
                        with contextlib.suppress(OSError):
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.close()
            self._proxy._report("end", self)

    async def _until_both_ended(self, *tasks: asyncio.Task[None]) -> None:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def _pass_on(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        loop = asyncio.get_running_loop()
        queue: deque[tuple[float, bytes]] = deque()
        arrived = asyncio.Event()
        # Bounded: a stalled direction must push back on its sender as a full network does.
        room = asyncio.Semaphore(16)

        async def read() -> None:
            await room.acquire()
            while data := await loop.sock_recv(source, PIECE):
                queue.append((loop.time(), data))
                arrived.set()
                await room.acquire()

        reading = loop.create_task(read())
        reading.add_done_callback(lambda _: arrived.set())
        try:
            while True:
                while not queue and not reading.done():
                    arrived.clear()
                    await arrived.wait()
                if not queue:
                    if reading.done():
                        reading.result()
                    break
                when, data = queue.popleft()
                await self._sleep_until(lambda when=when: when + self._fault.delay)  # type: ignore[misc]
                await self._deliver(sink, data, up)
                room.release()
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _sleep_until(self, when: Callable[[], float]) -> None:
        loop = asyncio.get_running_loop()
        while (left := when() - loop.time()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    async def _deliver(self, sink: socket.socket, data: bytes, up: bool) -> None:
        loop = asyncio.get_running_loop()
        while data:
            fault = self._fault
            done = self.to_server if up else self.to_client
            room = len(data)
            cut = fault.cut_to_server if up else fault.cut_to_client
            close = fault.close_to_server if up else fault.close_to_client
            stall = fault.stall_to_server if up else fault.stall_to_client
            for limit in (cut, close, stall):
                if limit is not None:
                    room = min(room, max(0, limit - done))
            if self._stalled:
                room = 0
            if fault.chunk:
                room = min(room, fault.chunk)
            if fault.rate:
                room = min(room, max(1, int(fault.rate * RATE_SLICE)))
            if room:
                piece = bytearray(data[:room])
                for at in fault.damage_to_server if up else fault.damage_to_client:
                    if done <= at < done + room:
                        piece[at - done] ^= fault.mask
                await loop.sock_sendall(sink, piece)
                data = data[room:]
                if up:
                    self.to_server += room
                else:
                    self.to_client += room
                done += room
            if cut is not None and done >= cut:
                raise _Cut
            if close is not None and done >= close:
                raise _Closed
            if fault.rate and room:
                await asyncio.sleep(room / fault.rate)
            elif not room:
                self._changed.clear()
                await self._changed.wait()


class FaultProxy:
    """Passes every connection on to `server`. Owns a thread with an asyncio loop between `start` and `stop`."""

    def __init__(
        self,
        server: str,
        listen: str = "127.0.0.1:0",
        always: Fault = NO_FAULT,
        on_event: Callable[[str, Connection], None] | None = None,
    ) -> None:
        self._server = _host_port(server)
        self._listen = _host_port(listen)
        self.address = ""
        """`host:port` to connect to, known after `start`."""
        self.connections: list[Connection] = []
        """All of them, in the order of acceptance, ended ones too."""
        self.always = always
        """The fault of every connection that `plan` says nothing of."""
        self._planned: deque[Fault] = deque()
        self._on_event = on_event
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._failure: BaseException | None = None

    def plan(self, *faults: Fault) -> None:
        """The next connections get these faults, one each, in order."""
        self._planned.extend(faults)

    def cut_all(self) -> None:
        """Resets every open connection now."""
        for connection in list(self.connections):
            connection.cut()

    # ------------------------------------------------------------------ life
    def start(self) -> Self:
        """Listens; OSError when it cannot."""
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run_thread, args=(ready,), name="blockwire-fault-proxy", daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def stop(self) -> None:
        """Resets what is open and stops listening; idempotent."""
        stopping = self._stopping
        if stopping is not None:
            self._soon(stopping.set)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _run_thread(self, ready: threading.Event) -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        listener: socket.socket | None = None
        try:
            family = socket.AF_INET6 if ":" in self._listen[0] else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self._listen)
            listener.listen(128)
            listener.setblocking(False)
            host, port = listener.getsockname()[:2]
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        except OSError as error:
            if listener is not None:
                listener.close()
            self._failure = error
            return
        finally:
            ready.set()
        accepting = self._loop.create_task(self._accept(listener))
        await self._stopping.wait()
        accepting.cancel()
        listener.close()
        tasks = [c._task for c in self.connections if c._task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(accepting, *tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fault = self._planned.popleft() if self._planned else self.always
            try:
                connection = Connection(self, len(self.connections), client, fault)
            except OSError:  # gone before it was looked at
                client.close()
                continue
            self.connections.append(connection)
            self._report("begin", connection)
            connection._task = loop.create_task(connection._run())

    async def _connect(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self._server[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, self._server)
        except BaseException:
            sock.close()
            raise
        return sock

    def _soon(self, function: Callable[[], object]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it every connection
                self._loop.call_soon_threadsafe(function)

    def _report(self, event: str, connection: Connection) -> None:
        if self._on_event is not None:
            self._on_event(event, connection)


def _host_port(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`; ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


# ---------------------------------------------------------------------------------------------- the command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m blockwire.testing.fault_proxy",
        description="Passes TCP connections on to SERVER and breaks them as told. Events are JSON lines on stdout.",
    )
    parser.add_argument("server", metavar="SERVER", help="HOST:PORT of the target")
    parser.add_argument(
        "--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="default: a free port of 127.0.0.1"
    )
    for name in ("cut", "close", "stall"):
        for side in ("server", "client"):
            help_text = f"{name} after this many bytes to the {side}"
            parser.add_argument(f"--{name}-to-{side}", type=int, metavar="BYTES", help=help_text)
    for side in ("server", "client"):
        help_text = f"flip bits of this byte to the {side} (repeatable)"
        parser.add_argument(f"--damage-to-{side}", type=int, action="append", default=[], metavar="AT", help=help_text)
    parser.add_argument("--mask", type=lambda s: int(s, 0), default=1, help="which bits damage flips (default 1)")
    parser.add_argument("--rate", type=float, default=0.0, metavar="BYTES", help="bytes per second in each direction")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="seconds everything is late")
    parser.add_argument("--chunk", type=int, default=0, metavar="BYTES", help="most bytes of one send")
    parser.add_argument("--refuse", action="store_true", help="close connections as soon as they are accepted")
    parser.add_argument(
        "--first", type=int, default=0, metavar="N", help="only the first N connections have the faults"
    )
    parser.add_argument(
        "--cut-every", type=float, default=0.0, metavar="SECONDS", help="reset what is open again and again"
    )
    return parser


def _print_event(event: str, connection: Connection) -> None:
    line: dict[str, object] = {"event": event, "connection": connection.number, "peer": connection.peer}
    if event == "end":
        line |= {"to_server": connection.to_server, "to_client": connection.to_client, "how": connection.ended}
    print(json.dumps(line), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: runs until interrupted. 2 for bad arguments or a port that cannot be used."""
    options = vars(_parser().parse_args(arguments))
    fault = Fault(**{f.name: _frozen(options[f.name]) for f in fields(Fault)})
    first = options["first"]
    try:
        proxy = FaultProxy(
            options["server"], options["listen"], always=NO_FAULT if first else fault, on_event=_print_event
        )
        proxy.plan(*[fault] * first)
        proxy.start()
    except (OSError, ValueError) as error:
        print(f"fault_proxy: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"event": "ready", "listen": proxy.address, "server": options["server"]}), flush=True)
    pause = threading.Event()
    try:
        while True:
            pause.wait(options["cut_every"] or 3600)
            if options["cut_every"]:
                proxy.cut_all()
    except KeyboardInterrupt:
        proxy.stop()
        return 130


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
