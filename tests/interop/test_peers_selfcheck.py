"""The test support itself, checked with strangers only: libiscsi and QEMU against tgt and istgt.

What passes here cannot be blamed on the wrappers when it fails with Blockwire at one end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop import peers
from tests.interop.capture import capture
from tests.interop.peer_targets import PeerTarget, istgt, tgt

SIZE = 32 << 20


@pytest.fixture(scope="module", params=[tgt, istgt], ids=["tgt", "istgt"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeerTarget]:
    with request.param(tmp_path_factory.mktemp("peer"), SIZE) as started:
        yield started


# iscsi-ls does not end when it has asked istgt.
@pytest.mark.parametrize("target", [tgt], indirect=True, ids=["tgt"])
def test_discovery_names_the_target(target: PeerTarget) -> None:
    assert target.iqn in peers.iscsi_ls(target.portal)


def test_size(target: PeerTarget) -> None:
    assert peers.iscsi_readcapacity16(target.url) == SIZE


def test_inquiry_and_vpd(target: PeerTarget) -> None:
    assert "Peripheral" in peers.iscsi_inq(target.url)
    assert "Designator" in peers.iscsi_inq(target.url, 0x83) or "Descriptor" in peers.iscsi_inq(target.url, 0x83)


def test_perf_gives_a_rate(target: PeerTarget) -> None:
    assert peers.iscsi_perf(target.url, seconds=1) > 0


def test_suite_result_is_read(target: PeerTarget) -> None:
    result = peers.iscsi_test_cu(target.url, "SCSI.ReadCapacity10")
    assert result.tests == 1
    assert result.failed == 0, result.output


def test_convert_there_and_back(target: PeerTarget, tmp_path: Path) -> None:
    peers.require_qemu_iscsi()
    image = tmp_path / "image"
    image.write_bytes(os.urandom(SIZE))
    peers.qemu_convert(str(image), target.url, create=False)
    peers.qemu_compare(str(image), target.url)
    back = tmp_path / "back"
    peers.qemu_convert(target.url, str(back), create=True)
    assert back.read_bytes() == image.read_bytes()


def test_patterns_are_verified(target: PeerTarget) -> None:
    peers.require_qemu_iscsi()
    peers.qemu_io(target.url, "write -P 0xa5 64k 64k", "read -P 0xa5 64k 64k")
    with pytest.raises(peers.ToolFailure):
        peers.qemu_io(target.url, "read -P 0x5a 64k 64k")


def test_a_difference_is_found(target: PeerTarget, tmp_path: Path) -> None:
    peers.require_qemu_iscsi()
    image = tmp_path / "image"
    peers.qemu_convert(target.url, str(image), create=True)
    with image.open("r+b") as file:
        file.seek(SIZE // 2)
        byte = file.read(1)[0]
        file.seek(SIZE // 2)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(peers.ToolFailure):
        peers.qemu_compare(str(image), target.url)


def test_qemu_bench_gives_a_rate(target: PeerTarget) -> None:
    peers.require_qemu_iscsi()
    assert peers.qemu_bench(target.url, count=500, depth=8) > 0


def test_capture_is_dissected(target: PeerTarget, tmp_path: Path) -> None:
    with capture(tmp_path / "c.pcapng", target.port) as seen:
        peers.iscsi_readcapacity16(target.url)
    assert {0x01, 0x03, 0x06, 0x21, 0x23} <= seen.iscsi_opcodes()
    assert seen.problems() == []


def test_a_malformed_answer_is_a_problem(tmp_path: Path) -> None:
    """The problem filter must be able to find one: READ CAPACITY(10) answered with 3 bytes of data instead of 8."""

    def header(opcode: int, flags: int, data_length: int, expected: int, cdb: bytes = b"") -> bytes:
        # RFC 7143 section 11.2.1: opcode, flags, AHS length, data length, LUN, task tag; 11.3: length, CmdSN,
        # ExpStatSN, CDB.
        basic = bytes([opcode, flags, 0, 0, 0]) + data_length.to_bytes(3, "big") + bytes(8) + (1).to_bytes(4, "big")
        return (basic + expected.to_bytes(4, "big") + bytes(8) + cdb).ljust(48, b"\0")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with capture(tmp_path / "c.pcapng", port) as seen, socket.create_connection(("127.0.0.1", port)) as initiator:
            target, _ = server.accept()
            with target:
                initiator.sendall(header(0x01, 0xC1, 0, 8, bytes([0x25]) + bytes(9)))
                target.recv(48)
                target.sendall(header(0x25, 0x81, 3, 0xFFFFFFFF) + b"abc\0")
                initiator.recv(52)
    assert any("Malformed" in problem for problem in seen.problems())


def test_a_tool_without_end_is_killed() -> None:
    peers.PACKAGES.setdefault("sleep", "coreutils")
    with pytest.raises(peers.ToolFailure, match="no end within"):
        peers.run("sleep", "30", timeout=0.2)


def test_a_missing_peer_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PACKAGES, "no-such-tool", "no-such-package")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-package"):
        peers.require("no-such-tool")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-package"):
        peers.require("no-such-tool")
