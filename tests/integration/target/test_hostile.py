"""What strangers do to a portal: each is dropped, nobody else notices, and memory stays within its bound."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import blockwire

SRC = str(Path(__file__).parents[3] / "src")
IQN = "iqn.2025-01.org.test:hostile"
LUN_SIZE = 64 << 20
PATIENCE = 60.0
"""Seconds that an honest initiator waits on a loaded machine, and that a connection may take to be closed."""

DOCUMENT = """
portals = ["127.0.0.1:0"]
[limits]
login_seconds = 3600.0
keep_alive_seconds = 0
[[targets]]
name = "{name}"
luns = [{{ lun = 0, store = "ram:{size}" }}, {{ lun = 1, store = "file:{path}?size=64M" }}]
"""
"""Whoever is in the way stays in the way: no timer of the target comes to help. So that what ends in time here ended
because of what the target did about it, however slow the machine is."""

pytestmark = pytest.mark.slow


class Portal:
    """A target in a process of its own, with few open files."""

    def __init__(self, path: Path, files: int) -> None:
        document = path.with_suffix(".toml")
        document.write_text(DOCUMENT.format(name=IQN, size=LUN_SIZE, path=path))
        self.child = subprocess.Popen(
            ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", sys.executable, "-m", "blockwire", "serve",
             "--config", str(document), "-q"],
            env={**os.environ, "PYTHONPATH": SRC}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.child.stdout is not None
        self.url = self.child.stdout.readline().strip()
        self.urls = [self.url, self.child.stdout.readline().strip()]
        self.port = int(self.url.split("/")[2].rpartition(":")[2])

    def memory(self) -> int:
        """Resident bytes."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) << 10
        raise AssertionError("it has ended")

    def dial(self, source: str = "127.0.0.1", buffer: int = 0) -> socket.socket:
        sock = socket.socket()
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.bind((source, 0))
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def honest(self) -> None:
        """Somebody who means well logs in, writes and reads on both LUNs, and nothing of it has to be repeated."""
        for url in self.urls:
            with blockwire.open(url, timers=blockwire.Timers(timeout=PATIENCE, keep_alive_interval=0.0)) as lun:
                data = os.urandom(65536)
                lun.pwrite(data, 0)
                assert lun.pread(65536, 0) == data
                assert lun.session.reopened == 0


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    found = Portal(tmp_path_factory.mktemp("hostile") / "disk.img", 400)
    yield found
    found.child.send_signal(signal.SIGTERM)
    _, said = found.child.communicate(timeout=PATIENCE)
    assert found.child.returncode == 0, said
    assert "Traceback" not in said


def answer(sock: socket.socket) -> bytes:
    """What came until the target closed; a target that does not close fails with a timeout."""
    found = b""
    with contextlib.suppress(ConnectionResetError), sock:
        while part := sock.recv(65536):
            found += part
    return found


def header(opcode: int, flags: int, length: int) -> bytes:
    return bytes([opcode, flags, 0, 0, 0]) + length.to_bytes(3, "big") + bytes(40)


def test_port_scanners(portal: Portal) -> None:
    for number in range(300):
        sock = portal.dial()
        if number % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    portal.honest()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nUser-Agent: a browser\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3 and more words to be long enough\r\n",
        header(0x43, 0x87, 0xFFFFFF),
        header(0x05, 0x80, 16) + bytes(16),  # Data-Out before the login
        header(0x01, 0xC0, 0),  # a command before the login
        header(0x40, 0x80, 0),  # NOP-Out before the login
        header(0x04, 0x80, 0),  # text before the login
    ],
    ids=["http", "tls", "ssh", "length", "data", "command", "nop", "text"],
)
def test_what_is_no_login(portal: Portal, said: bytes) -> None:
    sock = portal.dial()
    sock.sendall(said)
    assert answer(sock) == b""
    portal.honest()


def test_login_pdus_of_any_bytes(portal: Portal) -> None:
    draw = random.Random(2)
    socks = []
    for number in range(300):
        data = bytearray(draw.randbytes(draw.choice((48, 60, 200, 3000))))
        data[0], data[4] = 0x43, 0
        data[5:8] = (len(data) - 48).to_bytes(3, "big")
        sock = portal.dial(f"127.0.1.{number % 10 + 1}")
        with contextlib.suppress(OSError):
            sock.sendall(data)
        socks.append(sock)
    portal.honest()
    for sock in socks:
        sock.close()


def test_more_idle_connections_than_open_files(portal: Portal) -> None:
    idle = []
    for number in range(1500):
        idle.append(portal.dial(f"127.0.2.{number % 20 + 1}"))
    portal.honest()
    for sock in idle[::2]:
        with contextlib.suppress(OSError):
            sock.sendall(b"\x43")
    portal.honest()
    for sock in idle:
        sock.close()


def log_in(portal: Portal, number: int, keys: bytes = b"", buffer: int = 0) -> tuple[socket.socket, int]:
    """One Login Request and a first command, which takes the unit attention away; gives the next CmdSN."""
    sock = portal.dial(buffer=buffer)
    text = b"InitiatorName=iqn.2025-01.org.test:x%d\0TargetName=%s\0SessionType=Normal\0%s" % (
        number, IQN.encode(), keys,
    )  # fmt: skip
    pdu = bytearray(header(0x43, 0x87, len(text)))
    pdu[8:14] = b"\x80" + number.to_bytes(3, "big") + bytes(2)
    pdu[24:28] = b"\0\0\0\1"
    sock.sendall(bytes(pdu) + text + bytes(-len(text) % 4))
    login = take(sock)
    assert login[36] == 0, "refused"
    sock.sendall(command(1, bytes(6), 0, 0))
    take(sock)
    return sock, 2


def take(sock: socket.socket) -> bytes:
    """One PDU; gives its header."""
    found = sock.recv(48, socket.MSG_WAITALL)
    length = int.from_bytes(found[5:8], "big")
    if length:
        sock.recv(length + -length % 4, socket.MSG_WAITALL)
    return found


def command(number: int, cdb: bytes, length: int, flags: int, lun: int = 0) -> bytes:
    pdu = bytearray(header(0x01, 0x80 | flags, 0))
    pdu[9] = lun
    pdu[16:32] = struct.pack(">IIII", number, length, number, 1)
    pdu[32 : 32 + len(cdb)] = cdb
    return bytes(pdu)


def ten(operation: int, lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", operation, 0, lba, 0, blocks, 0)


@pytest.mark.parametrize("lun", [0, 1])
def test_slow_readers_with_deep_queues(portal: Portal, lun: int) -> None:
    before = portal.memory()
    socks = []
    for number in range(40):
        sock, first = log_in(portal, lun * 100 + number, b"MaxRecvDataSegmentLength=262144\0", buffer=4096)
        # 128 times 1 MiB are asked for, and not one byte of it is taken
        sock.sendall(b"".join(command(first + i, ten(0x28, i % 30 * 2048, 2048), 1 << 20, 0x40, lun)
                              for i in range(128)))  # fmt: skip
        socks.append(sock)
    time.sleep(0.5)
    # the RAM store is resident once it is written; the arena of a worker is 256 MiB, but nobody needs much of it
    assert portal.memory() - before < 160 << 20
    portal.honest()
    for sock in socks:
        sock.close()
    portal.honest()


def test_writes_whose_data_never_comes_are_not_noticed_by_others(portal: Portal) -> None:
    before = portal.memory()
    socks = []
    for number in range(60):
        sock, first = log_in(portal, 300 + number, b"MaxBurstLength=1048576\0InitialR2T=Yes\0MaxOutstandingR2T=8\0")
        # 60 times 128 MiB are announced, and not one byte of it comes
        sock.sendall(b"".join(command(first + i, ten(0x2A, i % 30 * 2048, 2048), 1 << 20, 0x20) for i in range(128)))
        socks.append(sock)
    time.sleep(0.5)
    assert portal.memory() - before < 300 << 20
    portal.honest()
    for sock in socks:
        sock.close()
    portal.honest()
