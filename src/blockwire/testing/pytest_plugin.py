"""Fixtures for tests that need a disk on the network; loaded by pytest through the package's entry point.

def test_my_backup(blockwire_target):
    with blockwire.open(blockwire_target.url) as lun:
        ...

def test_two_disks(blockwire_target_factory):
    target = blockwire_target_factory("ram:64M", "ram:64M?block_size=4096", read_only=True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from blockwire.target.blocking import Target

TargetFactory: TypeAlias = "Callable[..., Target]"
"""Takes what `blockwire.Target` takes; a target without stores gets a RAM disk of 64 MiB."""

DEFAULT_STORE = "ram:64M"


@pytest.fixture
def blockwire_target_factory() -> Iterator[TargetFactory]:
    """Makes targets on free ports of 127.0.0.1; they end with the test. With no store it is a RAM disk of 64 MiB."""
    import blockwire

    made: list[Target] = []

    def make(*stores: Any, **arguments: Any) -> Target:
        if not stores and not arguments.get("luns") and arguments.get("configuration") is None:
            stores = (DEFAULT_STORE,)
        target = blockwire.Target(*stores, **arguments)
        made.append(target)
        return target

    yield make
    for target in reversed(made):
        target.close()


@pytest.fixture
def blockwire_target(blockwire_target_factory: TargetFactory) -> Target:
    """A running target with one RAM disk of 64 MiB: `.url`, `.urls`, `.portals`."""
    return blockwire_target_factory()
