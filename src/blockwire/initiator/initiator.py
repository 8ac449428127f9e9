"""The object that owns everything of the initiator's side: plane, name, sessions. No global state below it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from blockwire import errors
from blockwire.auth import OutstandingChallenges
from blockwire.dataplane.api import DataPlane
from blockwire.dataplane.dispatch import Dispatch
from blockwire.initiator.connect import log_in
from blockwire.initiator.further import log_in_further
from blockwire.initiator.identity import default_initiator_name
from blockwire.initiator.isids import Isids, RandomIsids
from blockwire.initiator.options import Options
from blockwire.initiator.session import Session
from blockwire.names import Url, iscsi_name
from blockwire.net.runtime import Runtime
from blockwire.trace import Dumps


class Initiator:
    """Belongs to the asyncio loop on which it is made. `close` ends its sessions and, when it made it, its plane."""

    def __init__(
        self,
        plane: DataPlane | None = None,
        runtime: Runtime | None = None,
        name: str = "",
        ends_when_idle: bool = False,
        isids: Isids | None = None,
    ) -> None:
        if runtime is None:
            from blockwire.net.asyncio_runtime import AsyncioRuntime

            runtime = AsyncioRuntime()
        self._owns_plane = plane is None
        if plane is None:
            from blockwire.dataplane.native import new_plane

            plane = new_plane(workers=1)
        self.plane: DataPlane = plane
        self.challenges = OutstandingChallenges()
        """CHAP challenges of all logins that are under way (RFC 7143 9.2.1)."""
        self.log_in = functools.partial(log_in, challenges=self.challenges)
        """How a connection is made and logged in; tests put their own in its place."""
        self.log_in_further = functools.partial(log_in_further, challenges=self.challenges)
        """How a further connection of a session is."""
        self.runtime = runtime
        self.dispatch = Dispatch(plane)
        self.dispatch.attach()
        self.name = iscsi_name(name) if name else default_initiator_name()
        self.sessions: set[Session] = set()
        self.isids: Isids = isids or RandomIsids()
        """Where sessions get their ISIDs from (RFC 7143 10.1.1)."""
        self.traces: Dumps | None = None
        """Where the last PDUs of a session go when its connection breaks or its peer breaks the protocol."""
        self.closed = False
        self._ends_when_idle = ends_when_idle
        self._connecting = 0

    async def connect(self, url: Url, options: Options) -> Session:
        """Logs in to the target of `url`; where it names none, to the only one that the portal has."""
        if self.closed:
            raise errors.ClosedError("the initiator is closed")
        with self.busy():
            if not url.target:
                url = url.at(target=await self._only_target(url, options))
            session = Session(self, url, options)
            try:
                await session.start()
            except BaseException:
                self.isids.release(session.initiator_name, url.target, session.isid)
                raise
            self.sessions.add(session)
            return session

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While something is being connected the initiator is not idle."""
        self._connecting += 1
        try:
            yield
        finally:
            self._connecting -= 1
            if not self.sessions:
                self._idle()

    def forget(self, session: Session) -> None:
        """`session` is closed."""
        self.sessions.discard(session)
        self._idle()

    def _idle(self) -> None:
        if self._ends_when_idle and not self._connecting and not self.sessions and not self.closed:
            self.closed = True
            self._stop()

    async def _only_target(self, url: Url, options: Options) -> str:
        from blockwire.initiator.discovery import discover

        found = await discover(self, url, options)
        if not found:
            raise errors.NothingFoundError(f"no target at {url.portal}", next="check whom the target allows")
        if len(found) > 1:
            raise too_shallow(url, [str(url.at(target=target.name)) for target in found], "target")
        return str(found[0].name)

    def abandon(self) -> None:
        """Ends without a word to the targets: its loop has ended, and nothing can be awaited any more."""
        if not self.closed:
            self.closed = True
            self._stop()

    async def close(self) -> None:
        """Logs out of every session; idempotent."""
        if self.closed:
            return
        self.closed = True
        try:
            await asyncio.gather(*(session.close() for session in list(self.sessions)), return_exceptions=True)
        finally:
            self._stop()

    def _stop(self) -> None:
        self.isids.close()
        self.dispatch.close()
        if self._owns_plane:
            self.plane.shutdown(1.0)

    async def __aenter__(self) -> Initiator:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.close()


def too_shallow(url: Url, choices: Sequence[str], what: str) -> errors.UsageError:
    """The error of a name that does not go deep enough; it lists the choices."""
    return errors.UsageError(
        f"{url} names no {what}, and there are {len(choices)}", code="usage.too-shallow",
        evidence="\n".join(choices), next=f"name one {what}, in quotes",
    )  # fmt: skip
