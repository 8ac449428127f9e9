"""What a target tells its owner while it runs: the events that `serve --json` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class TargetEvent:
    """Something that happened.

    ``event`` is one of `session-up`, `session-down`, `connection-up`, `connection-lost`, `discovery`,
    `login-refused`, `login-failed`, `evicted`, `protocol-violation`, `digest-error`, `task-management`,
    `store-fault`, `store-changed`, `draining`, `closed`;
    ``details`` are plain JSON values.
    """

    event: str
    details: Mapping[str, Any] = field(default_factory=dict)


Observer: TypeAlias = Callable[[TargetEvent], None]
"""Called on the loop for each event; must not block."""
