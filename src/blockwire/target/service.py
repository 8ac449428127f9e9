"""A target with a data plane of its own, from start to orderly end: what `serve` and `blockwire.Target` run."""

from __future__ import annotations

import logging
from typing import Self

from blockwire.config.host import host_id
from blockwire.config.model import Configuration
from blockwire.dataplane.api import DataPlane
from blockwire.dataplane.dispatch import Dispatch
from blockwire.net.asyncio_runtime import AsyncioRuntime
from blockwire.net.runtime import Runtime
from blockwire.target.events import Observer, TargetEvent
from blockwire.target.server import TargetServer
from blockwire.trace import Dumps

_log = logging.getLogger("blockwire.target")

PLANE_SECONDS = 5.0
"""How long the plane's workers may take to end."""
BROKEN = frozenset({"protocol-violation", "digest-error", "connection-lost"})
"""Events that a session's trace is written for."""
ORDERLY_ENDS = frozenset({"logout", "shutdown", "reinstated", "target-reset"})
"""Ends of a session that it is not written for."""


class Service:
    """Use as ``async with Service(configuration) as service: service.server.urls``.

    ``workers`` are threads of the data plane; 0 takes one per core, at most four. A ``plane`` that is given is used
    and left to its owner. ``trace`` is a directory for the last PDUs of a session that ends badly.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        workers: int = 0,
        observe: Observer | None = None,
        plane: DataPlane | None = None,
        runtime: Runtime | None = None,
        trace: str | None = None,
    ) -> None:
        self.configuration = configuration
        self._workers = workers
        self._observer = observe
        self._traces = Dumps(trace) if trace is not None else None
        self._given = plane
        self._runtime = runtime
        self._plane: DataPlane | None = None
        self._dispatch: Dispatch | None = None
        self._server: TargetServer | None = None

    @property
    def server(self) -> TargetServer:
        """The running engine."""
        if self._server is None:
            raise RuntimeError("the service is not running")
        return self._server

    async def start(self) -> None:
        """Makes the plane, opens stores and portals; on failure nothing is left behind."""
        import blockwire

        if self._given is None:
            from blockwire.dataplane.native import new_plane

            self._plane = new_plane(self._workers or default_workers())
        else:
            self._plane = self._given
        self._dispatch = Dispatch(self._plane)
        self._dispatch.attach()
        server = TargetServer(
            self.configuration,
            self._plane,
            self._dispatch,
            self._runtime or AsyncioRuntime(),
            host_id=host_id(),
            revision=".".join(blockwire.__version__.split(".")[:2])[:4],
            observe=self._observer if self._traces is None else self._observe,
        )
        try:
            await server.start()
        except BaseException:
            self._end_plane()
            raise
        self._server = server

    def _observe(self, event: TargetEvent) -> None:
        broken = event.event in BROKEN or (
            event.event == "session-down" and event.details.get("reason") not in ORDERLY_ENDS
        )
        if broken and self._traces is not None and self._plane is not None:
            self._traces.write(self._plane, event.details["session"], event.details.get("reason", event.event))
        if self._observer is not None:
            self._observer(event)

    async def stop(self, drain_seconds: float | None = None) -> None:
        """Drains, closes stores, ends the plane; idempotent."""
        server, self._server = self._server, None
        try:
            if server is not None:
                await server.stop(drain_seconds)
        finally:
            self._end_plane()

    def _end_plane(self) -> None:
        dispatch, self._dispatch = self._dispatch, None
        plane, self._plane = self._plane, None
        if dispatch is not None:
            dispatch.close()
        if plane is not None and self._given is None:
            plane.shutdown(PLANE_SECONDS)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


def default_workers() -> int:
    """One reactor per core this process may use, four at most: more do not pay before many sessions are busy."""
    import os

    return max(1, min(4, len(os.sched_getaffinity(0))))
