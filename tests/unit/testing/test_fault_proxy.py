"""The fault proxy on real sockets, before an echo server."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockwire.testing.fault_proxy import Fault, FaultProxy, main
from tests.waiting import wait_until

SOURCE = Path(__file__).parents[3] / "src"
PATIENCE = 60.0
"""Seconds that a loaded machine may take for anything here."""


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def proxy(echo: str) -> Iterator[FaultProxy]:
    with FaultProxy(echo) as proxy:
        yield proxy


def connect(proxy: FaultProxy) -> socket.socket:
    host, port = proxy.address.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def receive(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (piece := sock.recv(length - len(data))):
        data += piece
    return data


def test_passes_everything_on(proxy: FaultProxy) -> None:
    payload = bytes(range(256)) * 4096
    with connect(proxy) as sock:
        sender = threading.Thread(target=sock.sendall, args=(payload,))
        sender.start()
        assert receive(sock, len(payload)) == payload
        sender.join()
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert proxy.connections[0].to_server == proxy.connections[0].to_client == len(payload)


def until_reset(sock: socket.socket) -> bytes:
    """What arrives until the connection is reset."""
    received = b""
    try:
        while piece := sock.recv(1000):
            received += piece
    except ConnectionResetError:
        return received
    raise AssertionError(f"an orderly end after {len(received)} bytes")


def meets_a_reset(proxy: FaultProxy) -> bool:
    """Whether a connection is reset before anything comes; the reset may be quicker than `connect` itself."""
    try:
        with connect(proxy) as sock:
            return until_reset(sock) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("at", [0, 1, 100])
def test_cuts_after_so_many_bytes(proxy: FaultProxy, at: int) -> None:
    proxy.plan(Fault(cut_to_client=at))
    with connect(proxy) as sock:
        sock.sendall(bytes(200))
        received = until_reset(sock)
    assert len(received) <= at  # a reset may overtake what was delivered
    assert proxy.connections[0].to_client == at
    wait_until(lambda: proxy.connections[0].ended == "cut", "the cut")


def test_an_orderly_end(proxy: FaultProxy) -> None:
    proxy.plan(Fault(close_to_client=10))
    with connect(proxy) as sock:
        sock.sendall(bytes(10))
        assert receive(sock, 11) == bytes(10)


def test_cut_on_demand_and_the_next_connection_is_whole(proxy: FaultProxy) -> None:
    with connect(proxy) as sock:
        sock.sendall(b"x")
        assert receive(sock, 1) == b"x"
        proxy.connections[0].cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with connect(proxy) as sock:
        sock.sendall(b"y")
        assert receive(sock, 1) == b"y"


def test_stall_and_go_on(proxy: FaultProxy) -> None:
    with connect(proxy) as sock:
        sock.sendall(b"a")
        assert receive(sock, 1) == b"a"
        proxy.connections[0].stall()
        sock.sendall(b"b")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        proxy.connections[0].stall(False)
        sock.settimeout(PATIENCE)
        assert receive(sock, 1) == b"b"


def test_damages_one_bit(proxy: FaultProxy) -> None:
    proxy.plan(Fault(damage_to_server=(3,), damage_to_client=(5,), mask=0x80))
    with connect(proxy) as sock:
        sock.sendall(bytes(8))
        assert receive(sock, 8) == bytes([0, 0, 0, 0x80, 0, 0x80, 0, 0])


def test_throttles(proxy: FaultProxy) -> None:
    proxy.plan(Fault(rate=200_000))
    with connect(proxy) as sock:
        began = time.monotonic()
        sock.sendall(bytes(50_000))
        receive(sock, 50_000)
    assert time.monotonic() - began > 0.2


def test_delaying_one_connection_reorders_between_connections(proxy: FaultProxy) -> None:
    proxy.plan(Fault(delay=3600.0))
    with connect(proxy) as slow:
        wait_until(lambda: len(proxy.connections) == 1, "the connection")
        with connect(proxy) as quick:
            slow.sendall(b"1")
            quick.sendall(b"2")
            assert receive(quick, 1) == b"2"
            slow.setblocking(False)
            with pytest.raises(BlockingIOError):
                slow.recv(1)
            slow.settimeout(PATIENCE)
            proxy.connections[0].set(delay=0.0)
            assert receive(slow, 1) == b"1"


def test_delays_both_directions(proxy: FaultProxy) -> None:
    proxy.plan(Fault(delay=0.1))
    with connect(proxy) as sock:
        began = time.monotonic()
        sock.sendall(b"1")
        assert receive(sock, 1) == b"1"
        assert time.monotonic() - began >= 0.2


def test_small_sends(proxy: FaultProxy) -> None:
    proxy.plan(Fault(chunk=1))
    with connect(proxy) as sock:
        sock.sendall(b"hello")
        assert receive(sock, 5) == b"hello"


def test_refuses(proxy: FaultProxy) -> None:
    proxy.plan(Fault(refuse=True))
    assert meets_a_reset(proxy)


def test_a_server_that_is_not_there_ends_the_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with FaultProxy(f"127.0.0.1:{port}") as proxy:
            assert meets_a_reset(proxy)
            wait_until(lambda: "connectionrefused" in proxy.connections[0].ended.lower(), "the refusal")


def test_a_port_in_use_is_an_error_at_start(proxy: FaultProxy) -> None:
    with pytest.raises(OSError):
        FaultProxy("127.0.0.1:1", proxy.address).start()


def test_bad_arguments_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    assert "HOST:PORT" in capsys.readouterr().err


def test_the_command(echo: str) -> None:
    command = [sys.executable, "-m", "blockwire.testing.fault_proxy", echo, "--cut-to-client", "3", "--first", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(SOURCE)}) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        host, port = ready["listen"].rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as sock:
            sock.sendall(b"abcdef")
            assert len(until_reset(sock)) <= 3
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as sock:
            sock.sendall(b"abcdef")
            assert receive(sock, 6) == b"abcdef"
        process.send_signal(signal.SIGINT)
        events = [json.loads(line) for line in process.stdout]
        assert process.wait(PATIENCE) == 130
    ends = {event["connection"]: event for event in events if event["event"] == "end"}
    assert ends[0]["how"] == "cut"
    assert ends[0]["to_client"] == 3
