"""Blockwire: a complete iSCSI stack in user space, both ends.

Importing this package loads nothing else: every public name is resolved on first use (PEP 562), so that a
script that only needs ``blockwire.Error`` pays for nothing more.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockwire.errors import Error as Error

__version__ = "0.1.0"

# Public name -> module that defines it.
_EXPORTS = {
    "Error": "blockwire.errors",
}

__all__ = ["Error", "__version__"]


def __getattr__(name: str) -> object:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
