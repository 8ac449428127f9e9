"""What holds for every test: the marker of the foreign peers' room."""

from __future__ import annotations

from pathlib import Path

import pytest

INTEROP = Path(__file__).parent / "interop"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything under tests/interop carries the marker, so that none can be forgotten and run by `make check`."""
    for item in items:
        if INTEROP in item.path.parents:
            item.add_marker(pytest.mark.interop)
