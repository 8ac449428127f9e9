"""Makes data planes from the native module, the only place that imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from blockwire import errors

if TYPE_CHECKING:
    from blockwire._native import MemoryPair, Plane
    from blockwire.dataplane.api import DataPlane


def _module() -> object:
    try:
        from blockwire import _native
    except ImportError as error:
        raise errors.Error(
            "the data plane is not built",
            code="install.no-native-module",
            whose="local",
            evidence=str(error),
            next="install a wheel, or build from source with `make build`",
        ) from error
    return _native


def new_plane(workers: int = 1, pdus_per_send: int = 0) -> DataPlane:
    """A plane with `workers` threads of its own. Raises `blockwire.Error` when the native module is missing.

    `pdus_per_send` bounds the PDUs that a target puts into one send call (0: no bound); 1 shows what batches gain.
    """
    plane: type[Plane] = _module().Plane  # type: ignore[attr-defined]
    return cast("DataPlane", plane(workers=workers, pdus_per_send=pdus_per_send))


def stepped_plane() -> Plane:
    """A plane without threads, driven by `step(now)` under virtual time."""
    plane: type[Plane] = _module().Plane  # type: ignore[attr-defined]
    return plane(stepped=True)


def memory_pair() -> MemoryPair:
    """Two connected in-memory transport ends with faults to set."""
    pair: type[MemoryPair] = _module().MemoryPair  # type: ignore[attr-defined]
    return pair()


def allocations() -> int:
    """Heap allocations of the data plane in this process so far; flat while steady I/O runs."""
    count: int = _module().allocations()  # type: ignore[attr-defined]
    return count
