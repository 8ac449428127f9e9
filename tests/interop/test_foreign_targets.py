"""Our initiator against tgt and istgt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import IMAGE_SIZE
from tests.interop.peer_targets import PeerTarget
from tests.interop.serving import blockwire, blockwire_json


def test_discover(foreign: PeerTarget) -> None:
    printed = blockwire("discover", foreign.portal)
    assert foreign.iqn in printed
    assert foreign.portal in printed
    assert foreign.iqn in str(blockwire_json("discover", foreign.portal))


def test_ls(foreign: PeerTarget) -> None:
    assert foreign.iqn in blockwire("ls", foreign.portal)


def test_info(foreign: PeerTarget) -> None:
    assert str(IMAGE_SIZE) in str(blockwire_json("info", foreign.url))
    assert "MaxBurstLength" in blockwire("info", foreign.url)


@pytest.mark.parametrize(
    "keys",
    [
        "", "?InitialR2T=Yes&ImmediateData=No", "?HeaderDigest=CRC32C&DataDigest=CRC32C",
        # commands are longer than a burst, and tgt's Data-In sequences with them
        "?MaxBurstLength=8192&FirstBurstLength=4096",
    ],
    ids=["default", "r2t-only", "digests", "short-bursts"],
)  # fmt: skip
def test_copy_there_and_back(foreign: PeerTarget, image: Path, tmp_path: Path, keys: str) -> None:
    back = tmp_path / "back.raw"
    blockwire("cp", str(image), foreign.url + keys, "--verify", timeout=150)
    blockwire("cp", foreign.url + keys, str(back), "--verify", timeout=150)
    assert back.read_bytes() == image.read_bytes()


@pytest.mark.parametrize(
    ("rw", "size", "depth"),
    [("randread", "4k", 1), ("randread", "4k", 32), ("randwrite", "4k", 32), ("read", "1m", 4), ("write", "64k", 8)],
)
def test_bench(foreign: PeerTarget, rw: str, size: str, depth: int) -> None:
    extra = ["--overwrite"] if "write" in rw else []
    result = blockwire_json("bench", foreign.url, "--rw", rw, "--bs", size, "--qd", str(depth), "--time", "1", *extra)
    assert result["errors"] == 0
    assert result["iops"] > 0


def test_bench_verifies(foreign: PeerTarget) -> None:
    result = blockwire_json(
        "bench", foreign.url, "--rw", "randwrite", "--bs", "4k", "--qd", "16", "--time", "1", "--overwrite", "--verify"
    )
    assert result["errors"] == 0
