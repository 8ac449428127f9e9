"""`blockwire.Target`: a target for programs and tests, served from the process's control thread."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from os import PathLike, fsdecode
from typing import Any, NoReturn, Self

from blockwire.config import arguments, authentication
from blockwire.config.model import Configuration
from blockwire.errors import ClosedError
from blockwire.net import control_thread
from blockwire.target.events import Observer
from blockwire.target.service import Service

FAREWELL_DRAIN_SECONDS = 1.0
"""How long a target that is still open when the interpreter ends waits for its initiators."""


class Target:
    """``with blockwire.Target("ram:1G", "disk.img") as target: target.url``.

    ``stores`` become LUN 0, 1, …; ``luns`` places some (``{3: "ram:1G"}``). The other arguments are those of `serve`,
    but for the portal: by default a free port of 127.0.0.1 is taken, so that any number can run side by side.
    With ``chap_user`` initiators have to authenticate, with ``mutual_user`` the target does when it is asked to; a
    secret is text, or binary as ``0x…`` or ``0b…``, or bytes, and comes from `$BLOCKWIRE_CHAP_SECRET` and
    `$BLOCKWIRE_CHAP_MUTUAL_SECRET` when it is left out. ``rate`` is in bytes per second for each session,
    ``keep_alive_…`` in seconds. A ``configuration`` replaces all of them. Serving starts at
    once; :meth:`close` (or leaving the block) ends it.
    """

    def __init__(
        self,
        *stores: str | bytes | PathLike[str],
        luns: Mapping[int, str] | None = None,
        portals: Sequence[str] = ("127.0.0.1:0",),
        advertise: Sequence[str] = (),
        target_name: str | None = None,
        read_only: bool = False,
        size: str | int | None = None,
        block_size: int | None = None,
        allow: Sequence[str] = (),
        keys: Mapping[str, str] | None = None,
        filters: Sequence[str] = (),
        chap_user: str | None = None,
        chap_secret: str | bytes | None = None,
        mutual_user: str | None = None,
        mutual_secret: str | bytes | None = None,
        rate: int = 0,
        keep_alive_interval: float | None = None,
        keep_alive_timeout: float | None = None,
        workers: int = 0,
        observe: Observer | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        if configuration is None:
            configuration = arguments.build(
                [fsdecode(store) for store in stores],
                luns=[f"{lun}={store}" for lun, store in (luns or {}).items()],
                portals=portals,
                advertise=advertise,
                target_name=target_name,
                read_only=read_only,
                size=size,
                block_size=block_size,
                allow=allow,
                keys=[f"{name}={value}" for name, value in (keys or {}).items()],
                filters=filters,
                authentication=authentication.chap(
                    chap_user, mutual_user=mutual_user, secret=chap_secret, mutual_secret=mutual_secret
                ),
                rate=rate,
                keep_alive_interval=keep_alive_interval,
                keep_alive_timeout=keep_alive_timeout,
            )
        self._control = control_thread.shared()
        self._service: Service | None = Service(configuration, workers=workers, observe=observe)
        self._control.run(self._service.start())
        server = self._service.server
        self.urls: list[str] = server.urls
        """One URL per logical unit, in LUN order."""
        self.portals: list[str] = [str(portal) for portal in server.portals]
        """What is listened on, ports filled in."""
        self.names: list[str] = list(server.devices)
        """Target names."""
        # The control thread keeps its farewells for ever; a target that was closed must not stay with them.
        self._kept: list[Target] = [self]
        kept = self._kept

        async def farewell() -> None:
            for target in list(kept):
                await target._end(FAREWELL_DRAIN_SECONDS)

        self._control.at_end(farewell)

    @property
    def url(self) -> str:
        """URL of the first logical unit."""
        return self.urls[0]

    @property
    def name(self) -> str:
        """Name of the first target."""
        return self.names[0]

    def _running(self) -> Service:
        if self._service is None:
            raise ClosedError("the target is closed")
        return self._service

    def statistics(self) -> dict[str, Any]:
        """Counters, see :meth:`blockwire.target.server.TargetServer.statistics`."""
        service = self._running()

        async def ask() -> dict[str, Any]:
            return service.server.statistics()

        return self._control.run(ask())

    def set_rate(self, bytes_per_second: float) -> None:
        """Limits what each session is sent, those there are and later ones, without a new login; 0 lifts the limit."""
        self._control.run(self._running().server.set_rate(bytes_per_second))

    async def _end(self, drain_seconds: float | None = None) -> None:
        service, self._service = self._service, None
        self._kept.clear()
        if service is not None:
            await service.stop(drain_seconds)

    def close(self) -> None:
        """Ends it in order: initiators are asked to log out, stores are flushed and closed. Idempotent."""
        if self._service is not None:
            with contextlib.suppress(ClosedError):
                self._control.run(self._end())

    def __enter__(self) -> Self:
        self._running()
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Target belongs to its process: hand its URL to another one")

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<blockwire.Target {self.urls[0]}{'' if self._service is not None else ' closed'}>"
