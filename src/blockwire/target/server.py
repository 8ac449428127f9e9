"""The target role's engine: it owns listeners, half-open logins, sessions, devices and their stores."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from blockwire import errors
from blockwire.auth.chap import OutstandingChallenges
from blockwire.auth.secrets import check_directions
from blockwire.config.authentication import OPEN
from blockwire.config.model import Configuration, LunConfig
from blockwire.dataplane.api import AbortKind, AbortReport, AbortScope, DataPlane
from blockwire.dataplane.dispatch import Dispatch
from blockwire.discovery import TargetRecord, TargetRecordAddress
from blockwire.names import Portal, Url
from blockwire.net.runtime import Listener, Runtime, Spawned, Transport
from blockwire.scsi.sense import SenseCode
from blockwire.target.admission import HalfOpen
from blockwire.target.arrival import Arrival
from blockwire.target.device import TargetDevice, close_stores, close_unit, open_device, open_unit, preferences
from blockwire.target.discovery_session import DiscoverySession
from blockwire.target.events import Observer, TargetEvent
from blockwire.target.logical_unit import LogicalUnit
from blockwire.target.nexus import set_gates
from blockwire.target.portals import discovered
from blockwire.target.session import TargetSession
from blockwire.target.sessions import Sessions
from blockwire.target.task_management import TaskManagement

_log = logging.getLogger("blockwire.target")

FAREWELL_SECONDS = 0.5
"""How long the last message of a session that did not log out may take to leave."""
MIN_HALF_OPEN = 16
"""Half-open logins that are let be, however few files may be open."""
CLOSE_SECONDS = 10.0
"""How long closing the sessions, and then flushing and closing the stores of a target, may take at the end."""


def _nobody(event: TargetEvent) -> None:
    """The observer of an owner who does not listen."""


class TargetServer:
    """Serves the targets of one configuration. Everything happens on the loop on which :meth:`start` runs.

    ``plane`` and ``dispatch`` belong to the caller, who shuts the plane down after :meth:`stop`. ``host_id`` makes
    the identities stable; ``revision`` is the product revision level of logical units that have none configured.
    """

    def __init__(
        self,
        configuration: Configuration,
        plane: DataPlane,
        dispatch: Dispatch,
        runtime: Runtime,
        *,
        host_id: str,
        revision: str = "",
        observe: Observer | None = None,
    ) -> None:
        self.configuration = configuration
        self.plane = plane
        self.dispatch = dispatch
        self.runtime = runtime
        self.observe: Observer = observe or _nobody
        limits = configuration.limits
        # Whoever waits in login must leave open files to those who are through.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        total = limits.half_open
        if files != resource.RLIM_INFINITY:
            total = min(total, max(MIN_HALF_OPEN, files // 2))
        self.half_open = HalfOpen(total, min(limits.half_open_per_address, total))
        self.sessions = Sessions(limits.sessions)
        self.devices: dict[str, TargetDevice] = {}
        """By target name."""
        self.discovery_preferences = preferences(plane.limits(), {})
        self.discovery_authentication = OPEN
        self.challenges = OutstandingChallenges()
        self.random = secrets.token_bytes
        self.stopping = False
        self.logins = 0
        self.refused = 0
        self._host_id = host_id
        self._revision = revision
        self._listeners: list[Listener] = []
        self._accepting: list[Spawned] = []
        self._stopped: asyncio.Event = asyncio.Event()

    # ------------------------------------------------------------------ starting
    async def start(self) -> None:
        """Opens stores, then portals; when anything fails nothing stays open and the error says what.

        Raises ConfigurationError (a store, a key, a secret, a port in use), NotAllowedError, MissingFileError.
        """
        try:
            if self.configuration.discovery is not None:
                self.discovery_authentication = self.configuration.discovery.load()
            for config in self.configuration.targets:
                device = await open_device(
                    config, self.configuration.portal_group_tag, self.plane, self.dispatch,
                    host_id=self._host_id, revision=self._revision,
                )  # fmt: skip
                self.devices[device.name] = device
                for unit in device.units.values():
                    self.dispatch.subscribe_store(unit.store, self._store_event)
            self._check_secrets()
            for portal in self.configuration.listen_on:
                await self._listen(portal)
            if not self._listeners:
                raise errors.ConfigurationError(
                    "no portal could be opened", evidence=", ".join(self.configuration.portals),
                    next="give an address of this host with --portal", code="configuration.portal",
                )  # fmt: skip
        except BaseException:
            self.stopping = True
            try:
                await self._close_everything()
            finally:
                self._stopped.set()
            raise
        for listener in self._listeners:
            self._accepting.append(self.runtime.spawn(self._accept(listener), "accept"))

    def _check_secrets(self) -> None:
        """RFC 7143 9.2.1: what authenticates some initiator authenticates no target, whichever two they are."""
        policies = [self.discovery_authentication.policy]
        policies += [device.authentication.policy for device in self.devices.values()]
        accounts = [account for policy in policies for account in policy.accounts]
        check_directions(accounts, [policy.identity for policy in policies if policy.identity is not None])

    async def _listen(self, portal: Portal) -> None:
        # [::1]:0 beside 127.0.0.1:0 shall be one port number, so that one URL names both.
        taken = next((address.port for listener in self._listeners for address in listener.addresses), 0)
        wanted = portal if portal.port or not taken else Portal(portal.host, taken)
        try:
            self._listeners.append(await self.runtime.listen(wanted))
        except OSError as error:
            if wanted is not portal:
                with contextlib.suppress(OSError):
                    self._listeners.append(await self.runtime.listen(portal))
                    return
            if self._optional(portal):
                _log.info("%s is not there: %s", portal, error)
                return
            raise _portal_error(portal, error) from error

    def _optional(self, portal: Portal) -> bool:
        """A host without IPv6 (or IPv4) still serves the default portals of the other family."""
        given = "portals" in self.configuration.model_fields_set
        return not given and portal.is_ipv6

    @property
    def portals(self) -> tuple[Portal, ...]:
        """What is really listened on, ports filled in."""
        return tuple(address for listener in self._listeners for address in listener.addresses)

    def addresses(self, local: str = "") -> tuple[Portal, ...]:
        """What discovery answers to a connection that came in on ``local``."""
        return discovered(self.configuration.advertised, self.portals, local)

    @property
    def urls(self) -> list[str]:
        """One URL for each logical unit of each target, in LUN order."""
        addresses = self.addresses()
        return self._urls(addresses[0] if addresses else _reachable(self.portals[0]))

    @property
    def local_urls(self) -> list[str]:
        """The same by an address of this host, whatever is advertised to others."""
        return self._urls(_reachable(self.portals[0]))

    def _urls(self, portal: Portal) -> list[str]:
        return [str(Url(portal, device.name, lun)) for device in self.devices.values() for lun in sorted(device.units)]

    # ------------------------------------------------------------------ connections
    async def _accept(self, listener: Listener) -> None:
        while not self.stopping:
            try:
                transport = await listener.accept()
            except OSError:
                return
            self.receive(transport)

    def receive(self, transport: Transport) -> Spawned:
        """A new connection: it may log in. Also for transports that did not come from a portal of ours."""
        arrival = Arrival(self, transport)
        return self.runtime.spawn(arrival.run(), f"login from {transport.peer}")

    def targets_for(self, initiator_name: str, peer: str, local: str) -> list[TargetRecord]:
        """Names and addresses of the targets that this initiator may know of."""
        tag = self.configuration.portal_group_tag
        addresses = tuple(TargetRecordAddress(portal, tag) for portal in self.addresses(local))
        return [
            TargetRecord(device.name, addresses)
            for device in self.devices.values()
            if device.access.allows(initiator_name, peer)
        ]

    # ------------------------------------------------------------------ live changes
    def _store_event(self, event: Any) -> None:
        for device in self.devices.values():
            for unit in device.units.values():
                if unit.store != event.store:
                    continue
                if type(event).__name__ == "StoreChanged":
                    unit.size = event.size
                    unit.attention(SenseCode.CAPACITY_DATA_HAS_CHANGED)
                    functions = TaskManagement(device, self.plane, self.dispatch)
                    self.runtime.spawn(functions.remap(unit), f"LUN {unit.lun} has another size")
                    details = {"target": device.name, "lun": unit.lun, "size": event.size}
                    self.observe(TargetEvent("store-changed", details))
                else:
                    failure = event.failure
                    details = {"target": device.name, "lun": unit.lun, "code": failure.code, "message": failure.message}
                    self.observe(TargetEvent("store-fault", details))

    async def add_unit(self, target_name: str, config: LunConfig) -> LogicalUnit:
        """One more logical unit, visible at once in every session; the other units of a nexus report it (3F/0E).

        ConfigurationError when the target is not served, or has the LUN already or is about to.
        """
        device = self._device(target_name)
        if config.lun in device.units:
            raise errors.ConfigurationError(
                f"{target_name} has a LUN {config.lun} already", evidence=config.store.describe(),
                next="give another number", code="configuration.lun",
            )  # fmt: skip
        with self._changing(device, config.lun):
            unit = await open_unit(
                device, config, self.plane, self.dispatch, host_id=self._host_id, revision=self._revision
            )
            self.dispatch.subscribe_store(unit.store, self._store_event)
            self._luns_changed(device)
            device.units[unit.lun] = unit
            for session in self._sessions_of(device):
                await session.map_unit(unit, SenseCode.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
        return unit

    @contextlib.contextmanager
    def _changing(self, device: TargetDevice, lun: int) -> Iterator[None]:
        """The number is taken while the block runs: who wants to change the same one meanwhile is refused."""
        if lun in device.changing:
            raise errors.ConfigurationError(
                f"LUN {lun} of {device.name} is being added or taken away at this moment",
                evidence=f"LUNs {sorted(device.units)}", next="wait until that has ended, or give another number",
                code="configuration.lun",
            )  # fmt: skip
        device.changing.add(lun)
        try:
            yield
        finally:
            device.changing.discard(lun)

    async def remove_unit(self, target_name: str, lun: int) -> None:
        """Takes a logical unit away: its commands end, its store is closed, the other units of a nexus report it.

        ConfigurationError when there is none, or it is being taken away already; an Error when its tasks do not end,
        then it stays.
        """
        device = self._device(target_name)
        unit = device.units.get(lun)
        if unit is None:
            raise errors.ConfigurationError(
                f"{target_name} has no LUN {lun}", evidence=f"LUNs {sorted(device.units)}", next="name one of these",
                code="configuration.lun",
            )  # fmt: skip
        with self._changing(device, lun):
            async with TaskManagement(device, self.plane, self.dispatch).closed(unit):
                scope = AbortScope(AbortKind.LOGICAL_UNIT, store=unit.store)
                report: AbortReport = await self.dispatch.op(self.plane.abort(scope))
                if not report.complete:
                    raise errors.ResourceError(
                        f"LUN {lun} is busy: a store operation does not end", evidence=unit.config.store.describe(),
                        next="try again when its store answers", code="target.busy",
                    )  # fmt: skip
                del device.units[lun]
                for session in self._sessions_of(device):
                    await session.unmap_unit(unit)
            self._luns_changed(device)
            self.dispatch.unsubscribe_store(unit.store)
            await close_unit(unit, self.plane, self.dispatch)

    def _luns_changed(self, device: TargetDevice) -> None:
        for unit in device.units.values():
            set_gates(self.plane, unit.attention(SenseCode.REPORTED_LUNS_DATA_HAS_CHANGED))

    def _device(self, target_name: str) -> TargetDevice:
        device = self.devices.get(target_name)
        if device is None:
            raise errors.ConfigurationError(
                f"{target_name} is not served here", evidence=", ".join(self.devices), next="name one of these"
            )
        return device

    def _sessions_of(self, device: TargetDevice) -> list[TargetSession]:
        found = [session for session in self.sessions if isinstance(session, TargetSession)]
        return [session for session in found if session.device is device]

    async def drop_others(self, but: TargetSession, reason: str = "target-reset") -> None:
        """Ends every other session of the target of ``but`` (TARGET COLD RESET)."""
        others = [session for session in self._sessions_of(but.device) if session is not but]
        await asyncio.gather(*(session.end(reason) for session in others))

    async def set_rate(self, bytes_per_second: float) -> None:
        """Limits what each session is sent, those there are and later ones; 0 lifts the limit."""
        if not bytes_per_second >= 0:
            raise errors.UsageError(f"rate: {bytes_per_second} is no number of bytes per second", code="usage.rate")
        for device in self.devices.values():
            device.rate = float(bytes_per_second)
            for session in self._sessions_of(device):
                with contextlib.suppress(errors.Error):  # it ends
                    await session.set_rate(bytes_per_second)

    async def make_room(self) -> bool:
        """Ends the oldest session that only waits for its initiator; False when there is none. What is kept for those
        who may come back keeps nobody else out."""
        for session in self.sessions:
            if isinstance(session, TargetSession) and session.waits:
                await session.end("evicted", "the target has as many sessions as it may have")
                return True
        return False

    def statistics(self) -> dict[str, Any]:
        """Counters of the control plane, and those of the data plane under ``plane``."""
        sessions = list(self.sessions)
        return {
            "sessions": sum(isinstance(session, TargetSession) for session in sessions),
            "discovery_sessions": sum(isinstance(session, DiscoverySession) for session in sessions),
            "half_open": len(self.half_open),
            "evicted": self.half_open.evicted,
            "logins": self.logins,
            "refused": self.refused,
            "plane": self.plane.statistics(),
        }

    # ------------------------------------------------------------------ stopping
    async def stop(self, drain_seconds: float | None = None) -> None:
        """Ends in order and within bounds: no new connections, initiators are asked to log out and waited for, then
        what is left is closed; stores last. Idempotent. ``drain_seconds`` replaces the configured time of waiting."""
        if self.stopping:
            await self._stopped.wait()
            return
        self.stopping = True
        try:
            self._stop_listening()
            await self._drain(self.configuration.limits.drain_seconds if drain_seconds is None else drain_seconds)
        finally:
            await self._close_everything()
            self._stopped.set()
            self.observe(TargetEvent("closed"))

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        for task in self._accepting:
            task.cancel()
        self.half_open.close()

    async def _drain(self, seconds: float) -> None:
        normal = [session for session in self.sessions if isinstance(session, TargetSession)]
        if not normal:
            return
        self.observe(TargetEvent("draining", {"sessions": len(normal), "seconds": seconds}))
        if seconds <= 0:
            return
        # nobody is there to be asked
        await asyncio.gather(*(session.end("shutdown") for session in normal if session.waits))
        for session in normal:
            session.ask_logout(seconds)
        try:
            async with self.runtime.timeout(seconds):
                await asyncio.gather(*(session.ended.wait() for session in normal))
        except TimeoutError:
            # 11.9.1: who did not log out in time is told that its connections are dropped.
            late = [session for session in normal if not session.ended.is_set()]
            for session in late:
                session.drop()
            with contextlib.suppress(TimeoutError):
                async with self.runtime.timeout(FAREWELL_SECONDS):
                    await asyncio.gather(*(session.ended.wait() for session in late))

    async def _close_everything(self) -> None:
        self._stop_listening()
        sessions: Sequence[Any] = list(self.sessions)
        try:
            async with self.runtime.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(session.end("shutdown") for session in sessions), return_exceptions=True)
        except TimeoutError:
            _log.error("%d sessions did not close within %g s", len(self.sessions), CLOSE_SECONDS)
        for device in self.devices.values():
            for unit in device.units.values():
                self.dispatch.unsubscribe_store(unit.store)
            try:
                async with self.runtime.timeout(CLOSE_SECONDS):
                    failures = await close_stores(device, self.plane, self.dispatch)
            except TimeoutError:
                _log.error("the stores of %s did not close within %g s", device.name, CLOSE_SECONDS)
                continue
            for failure in failures:
                _log.error("closing a store of %s: %s", device.name, failure)
        self.devices.clear()


def _reachable(portal: Portal) -> Portal:
    """An address to show for a portal that listens on all of them."""
    return Portal({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(portal.host, portal.host), portal.port)


def _portal_error(portal: Portal, error: OSError) -> errors.Error:
    advice = {
        errno.EADDRINUSE: "stop what listens there, or give another port with --portal (port 0 takes a free one)",
        errno.EADDRNOTAVAIL: "give an address of this host with --portal",
        errno.EACCES: "ports below 1024 need privileges; give a higher one with --portal",
    }
    kind = errors.NotAllowedError if error.errno == errno.EACCES else errors.ConfigurationError
    what = {errno.EADDRINUSE: "the port is in use", errno.EADDRNOTAVAIL: "this host has no such address"}
    reason = what.get(error.errno or 0, error.strerror or str(error))
    return kind(
        f"cannot listen on {portal}: {reason}",
        evidence=str(error),
        next=advice.get(error.errno or 0, "check the address"),
        code="configuration.portal",
    )
