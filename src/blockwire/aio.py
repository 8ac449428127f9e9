"""The asynchronous API: the names and signatures of `blockwire`, awaited on the caller's own loop.

    async with blockwire.aio.open("iscsi://host/iqn…/0") as lun:
        data = await lun.pread(4096, 0)

Cancelling an await aborts the task and keeps its buffer until the target has answered.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from blockwire.initiator import api
from blockwire.initiator.credentials import SecretText
from blockwire.initiator.initiator import Initiator
from blockwire.initiator.isids import kept_isids
from blockwire.initiator.logical_unit import Lun, ScsiResult
from blockwire.initiator.options import Timers
from blockwire.initiator.queue import Completion, Queue
from blockwire.initiator.session import Session
from blockwire.names import Portal, Url

if TYPE_CHECKING:
    from blockwire.initiator.discovery import Target

__all__ = ["Completion", "Lun", "Queue", "ScsiResult", "Session", "close", "connect", "discover", "open"]


class _Closes(Protocol):
    async def close(self) -> None: ...


_T = TypeVar("_T", bound=_Closes)

_initiators: dict[asyncio.AbstractEventLoop, tuple[Initiator, AsyncGenerator[None]]] = {}
"""By loop; with each what ends it together with the loop."""


async def _initiator() -> Initiator:
    """The running loop's own. It ends with its last session, or with the loop: no loop leaves a data plane behind."""
    loop = asyncio.get_running_loop()
    for other in [other for other in _initiators if other.is_closed()]:
        # Closed by hand, without `shutdown_asyncgens`.
        left = _initiators.pop(other, None)
        if left is not None:
            left[0].abandon()
    found = _initiators.get(loop)
    if found is None or found[0].closed:
        initiator = Initiator(ends_when_idle=True, isids=kept_isids())
        found = _initiators[loop] = initiator, _until_the_loop_ends(initiator)
        await anext(found[1])
    return found[0]


async def _until_the_loop_ends(initiator: Initiator) -> AsyncGenerator[None]:
    """Waits to be closed: its asynchronous generators are what a loop finishes before it ends."""
    loop = asyncio.get_running_loop()
    try:
        yield
    finally:
        if (found := _initiators.get(loop)) is not None and found[0] is initiator:
            del _initiators[loop]
        if initiator.sessions:
            warnings.warn(f"unclosed: {', '.join(map(repr, initiator.sessions))}", ResourceWarning, 1, initiator)
        await initiator.close()


async def close() -> None:
    """Logs out of every session of the running loop."""
    found = _initiators.pop(asyncio.get_running_loop(), None)
    if found is not None:
        await found[0].close()
        await found[1].aclose()


class Opening(Generic[_T]):
    """What `open` and `connect` give: await it, or use it in `async with`, which closes at the end."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        self._make = make
        self._made: list[_T] = []

    def __await__(self) -> Generator[Any, Any, _T]:
        return self._make().__await__()

    async def __aenter__(self) -> _T:
        self._made.append(await self._make())
        return self._made[-1]

    async def __aexit__(self, *exc: object) -> None:
        await self._made.pop().close()


def open(
    url: str | Url,
    *,
    read_only: bool = False,
    keys: Mapping[str, str | int] | None = None,
    initiator_name: str | None = None,
    timeout: float | None = None,
    chap_user: str | None = None,
    chap_secret: SecretText | None = None,
    mutual_user: str | None = None,
    mutual_secret: SecretText | None = None,
    timers: Timers | None = None,
    quirks: Sequence[str] = (),
) -> Opening[Lun]:
    """As `blockwire.open`."""
    parsed = api.parse_url(url)
    how = api.options(
        parsed, keys, initiator_name, timeout, chap_user, chap_secret, mutual_user, mutual_secret, timers, quirks
    )

    async def make() -> Lun:
        lun: Lun = await api.open_url(await _initiator(), parsed, how, read_only)
        return lun

    return Opening(make)


def connect(
    url: str | Url,
    *,
    keys: Mapping[str, str | int] | None = None,
    initiator_name: str | None = None,
    timeout: float | None = None,
    chap_user: str | None = None,
    chap_secret: SecretText | None = None,
    mutual_user: str | None = None,
    mutual_secret: SecretText | None = None,
    timers: Timers | None = None,
    quirks: Sequence[str] = (),
) -> Opening[Session]:
    """As `blockwire.connect`."""
    parsed = api.parse_url(url)
    how = api.options(
        parsed, keys, initiator_name, timeout, chap_user, chap_secret, mutual_user, mutual_secret, timers, quirks
    )

    async def make() -> Session:
        return await (await _initiator()).connect(parsed, how)

    return Opening(make)


async def discover(
    portal: str | Url | Portal,
    *,
    keys: Mapping[str, str | int] | None = None,
    initiator_name: str | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - the same signature as the synchronous one
    chap_user: str | None = None,
    chap_secret: SecretText | None = None,
    mutual_user: str | None = None,
    mutual_secret: SecretText | None = None,
) -> list[Target]:
    """As `blockwire.discover`."""
    from blockwire.initiator.discovery import discover as ask

    parsed = Url(portal) if isinstance(portal, Portal) else api.parse_url(portal)
    how = api.options(parsed, keys, initiator_name, timeout, chap_user, chap_secret, mutual_user, mutual_secret, None)
    return await ask(await _initiator(), parsed, how)
