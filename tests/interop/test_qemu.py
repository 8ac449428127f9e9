"""QEMU's tools against our target: images there and back, patterns, load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import peers
from tests.interop.conftest import IMAGE_SIZE
from tests.interop.serving import Served, serve


@pytest.fixture(autouse=True)
def _qemu() -> None:
    peers.require_qemu_iscsi()


@pytest.mark.parametrize("store", ["ram", "file"])
@pytest.mark.parametrize("portal", ["127.0.0.1:0", "[::1]:0"])
def test_convert_there_and_back(store: str, portal: str, image: Path, tmp_path: Path) -> None:
    arguments = [f"ram:{IMAGE_SIZE}"] if store == "ram" else [str(tmp_path / "disk.img"), "--size", str(IMAGE_SIZE)]
    with serve(*arguments, portal=portal) as served:
        peers.qemu_convert(str(image), served.url, create=False)
        peers.qemu_compare(str(image), served.url)
        back = tmp_path / "back.raw"
        peers.qemu_convert(served.url, str(back), create=True)
    assert back.read_bytes() == image.read_bytes()
    if store == "file":
        assert (tmp_path / "disk.img").read_bytes() == image.read_bytes()


def test_convert_with_blocks_of_4096(image: Path) -> None:
    with serve(f"ram:{IMAGE_SIZE}?block_size=4096") as served:
        peers.qemu_convert(str(image), served.url, create=False)
        peers.qemu_compare(str(image), served.url)


def test_patterns(ours: Served) -> None:
    peers.qemu_io(
        ours.url,
        "write -P 0xa5 0 1M",
        "write -P 0x5a 64k 4k",
        "write -P 0x11 1048064 1024",  # across the end of the first
        "flush",
        "read -P 0xa5 0 64k",
        "read -P 0x5a 64k 4k",
        "read -P 0xa5 68k 512k",
        "read -P 0x11 1048064 1024",
        "write -z 128k 64k",
        "read -P 0 128k 64k",
        "discard 256k 64k",
        "read -P 0 256k 64k",
        "read -P 0xa5 320k 64k",
    )


def test_a_large_request(ours: Served) -> None:
    peers.qemu_io(ours.url, "write -P 0x77 4M 8M", "read -P 0x77 4M 8M")


def test_many_at_once(ours: Served) -> None:
    writes = [f"aio_write -P {n} {16 << 20 | n << 16} 64k" for n in range(1, 64)]
    reads = [f"aio_read -P {n} {16 << 20 | n << 16} 64k" for n in range(1, 64)]
    peers.qemu_io(ours.url, *writes, "aio_flush", *reads, "aio_flush")


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("size", [4096, 65536, 262144])
def test_bench(ours: Served, write: bool, size: int) -> None:
    assert peers.qemu_bench(ours.url, count=2000, depth=32, size=size, write=write) > 100
