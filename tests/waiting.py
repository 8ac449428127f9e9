"""Waiting for what comes in its own time: with patience, and with an end that says what never came."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 120.0
"""Seconds in which anything happens that happens at all, however busy the machine is."""
STEP = 0.01
"""Seconds between two looks."""


class NeverCame(AssertionError):
    """What was waited for did not come, or cannot come any more."""


def _nothing() -> str:
    return ""


def wait_until(
    condition: Callable[[], object], what: str, seconds: float = PATIENCE, useless: Callable[[], str] = _nothing
) -> None:
    """Returns when `condition` holds. `what` it is stands in the failure; `useless` gives the reason why it cannot come
    any more (a process has ended), or an empty string."""
    deadline = time.monotonic() + seconds
    while not condition():
        _go_on(what, useless, seconds, time.monotonic() > deadline)
        time.sleep(STEP)


async def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE, step: float = STEP) -> None:
    """The same by the time of an event loop; a longer `step` where much happens at every one (virtual time)."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        _go_on(what, _nothing, seconds, loop.time() > deadline)
        await asyncio.sleep(step)


def _go_on(what: str, useless: Callable[[], str], seconds: float, late: bool) -> None:
    if reason := useless():
        raise NeverCame(f"{what}: {reason}")
    if late:
        raise NeverCame(f"{what}: not within {seconds:g} s")


def ending(process: subprocess.Popen[Any]) -> Callable[[], str]:
    """For `useless`: that `process` has ended."""
    return lambda: "" if process.poll() is None else f"the process ended with {process.returncode}"
