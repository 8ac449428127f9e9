"""Blockwire: a complete iSCSI stack in user space, both ends.

Importing this package loads nothing else: every public name is resolved on first use (PEP 562), so that a
script that only needs ``blockwire.Error`` pays for nothing more.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockwire import aio as aio
    from blockwire.errors import Error as Error
    from blockwire.initiator.blocking import Lun as Lun
    from blockwire.initiator.blocking import Session as Session
    from blockwire.initiator.blocking_queue import Queue as Queue
    from blockwire.initiator.discovery import Target as DiscoveredTarget
    from blockwire.initiator.geometry import Geometry as Geometry
    from blockwire.initiator.geometry import Identity as Identity
    from blockwire.initiator.geometry import LunInfo as LunInfo
    from blockwire.initiator.logical_unit import ScsiResult as ScsiResult
    from blockwire.initiator.options import Timers as Timers
    from blockwire.initiator.queue import Completion as Completion
    from blockwire.initiator.sync_api import connect as connect
    from blockwire.initiator.sync_api import discover as discover
    from blockwire.initiator.sync_api import open as open
    from blockwire.target.blocking import Target as Target

__version__ = "0.1.0"

# Public name -> module that defines it, and its name there where that differs.
_EXPORTS: dict[str, tuple[str, str]] = {
    "Completion": ("blockwire.initiator.queue", "Completion"),
    "DiscoveredTarget": ("blockwire.initiator.discovery", "Target"),
    "Error": ("blockwire.errors", "Error"),
    "Geometry": ("blockwire.initiator.geometry", "Geometry"),
    "Identity": ("blockwire.initiator.geometry", "Identity"),
    "Lun": ("blockwire.initiator.blocking", "Lun"),
    "LunInfo": ("blockwire.initiator.geometry", "LunInfo"),
    "Queue": ("blockwire.initiator.blocking_queue", "Queue"),
    "ScsiResult": ("blockwire.initiator.logical_unit", "ScsiResult"),
    "Session": ("blockwire.initiator.blocking", "Session"),
    "Target": ("blockwire.target.blocking", "Target"),
    "Timers": ("blockwire.initiator.options", "Timers"),
    "aio": ("blockwire.aio", ""),
    "connect": ("blockwire.initiator.sync_api", "connect"),
    "discover": ("blockwire.initiator.sync_api", "discover"),
    "open": ("blockwire.initiator.sync_api", "open"),
}

__all__ = [
    "Completion", "DiscoveredTarget", "Error", "Geometry", "Identity", "Lun", "LunInfo", "Queue", "ScsiResult",
    "Session", "Target", "Timers", "__version__", "aio", "connect", "discover", "open",
]  # fmt: skip


def __getattr__(name: str) -> object:
    try:
        module, attribute = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    found = importlib.import_module(module)
    value: object = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
