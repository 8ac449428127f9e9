"""Fixtures of the interop tests: our target, the foreign targets, an image with data that no compression or zero
detection can hide."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.peer_targets import PeerTarget, istgt, tgt
from tests.interop.serving import Served, serve

IMAGE_SIZE = 32 << 20


@pytest.fixture(scope="module")
def ours() -> Iterator[Served]:
    """Our target with one RAM disk of 128 MiB."""
    with serve("ram:128M") as served:
        yield served


@pytest.fixture(scope="module", params=[tgt, istgt], ids=["tgt", "istgt"])
def foreign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeerTarget]:
    """tgt and istgt in turn, each with a disk of the image's size."""
    with request.param(tmp_path_factory.mktemp("peer"), IMAGE_SIZE) as started:
        yield started


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw image: random data, a stretch of zeros, random data, a pattern."""
    path = tmp_path_factory.mktemp("image") / "image.raw"
    quarter = IMAGE_SIZE // 4
    pattern = (b"blockwire" * 57)[:512]
    path.write_bytes(os.urandom(quarter) + bytes(quarter) + os.urandom(quarter) + pattern * (quarter // 512))
    return path
