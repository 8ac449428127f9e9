"""The command line over the fake plane: what is tested here needs no native module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blockwire.dataplane import native
from blockwire.dataplane.fake import FakePlane
from blockwire.initiator import sync_api


@pytest.fixture(autouse=True)
def fake_plane(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process's initiator is made anew, over a fake."""
    kept = dict(sync_api._default)
    sync_api._default.clear()
    monkeypatch.setattr(native, "new_plane", lambda workers=1: FakePlane())
    yield
    sync_api._default.clear()
    sync_api._default.update(kept)
