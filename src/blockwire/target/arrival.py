"""One new connection: its place among the half-open, its login, and where it goes from there."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from blockwire.errors import Error, LoginError, login_error
from blockwire.login.policy import ExistingSession, Identification, Reception
from blockwire.login.result import Admission, LoginLimits, LoginResult
from blockwire.login.states import Action
from blockwire.login.target import TargetLogin
from blockwire.names import prepare_name
from blockwire.net.runtime import Transport
from blockwire.target.device import TargetDevice
from blockwire.target.discovery_session import DiscoverySession
from blockwire.target.events import TargetEvent
from blockwire.target.login_exchange import exchange
from blockwire.target.session import TargetSession, handoff
from blockwire.target.sessions import SessionName
from blockwire.wire.constants import LoginStatus

if TYPE_CHECKING:
    from blockwire.target.server import TargetServer

_log = logging.getLogger("blockwire.target")


class Arrival:
    """Runs one connection from accept to its session. It is the policy of its own login (`TargetPolicy`)."""

    def __init__(self, server: TargetServer, transport: Transport) -> None:
        self.server = server
        self.transport = transport
        self._device: TargetDevice | None = None
        self._authentication = server.discovery_authentication
        self._session: TargetSession | None = None
        self._discovery: DiscoverySession | None = None
        self._joined: int | None = None
        """The CID with which this connection joins a session that is there."""
        self._expected: int | None = None
        """ExpStatSN of the connection that this one takes the place of."""
        self._evicted = False

    # ------------------------------------------------------------------ the policy
    def receive(self, request: Identification) -> Reception:
        """Who may log in to what (RFC 7143 11.13.5: not found 0203, not allowed 0202)."""
        server = self.server
        tag = server.configuration.portal_group_tag
        if server.stopping:
            raise login_error(LoginStatus.SERVICE_UNAVAILABLE, "the target is shutting down", whose="local")
        if request.session_type == "Discovery" and not request.target_name:
            return Reception("", tag, server.discovery_preferences, server.discovery_authentication.policy)
        device = server.devices.get(prepare_name(request.target_name))
        if device is None:
            raise login_error(LoginStatus.NOT_FOUND, whose="peer", evidence=f"TargetName={request.target_name[:223]}")
        if not device.access.allows(request.initiator_name, self.transport.peer):
            raise login_error(
                LoginStatus.AUTHORIZATION_FAILURE,
                "this initiator is not allowed to use the target",
                whose="peer",
                evidence=f"{request.initiator_name} at {self.transport.peer}",
                next=f"allow it with --allow {request.initiator_name}",
            )
        redirect = device.config.redirect
        if redirect is not None:
            moved = LoginStatus.TARGET_MOVED_PERMANENTLY if redirect.permanent else LoginStatus.TARGET_MOVED_TEMPORARILY
            raise login_error(moved, addresses=(redirect.address,))
        if request.session_type == "Normal":
            self._device = device
        self._authentication = device.authentication
        preferences = device.preferences
        if request.tsih:
            joined = server.sessions.find(
                self._name(request.initiator_name, bytes(request.isid), device.name, discovery=False)
            )
            if isinstance(joined, TargetSession) and joined.declared:
                preferences = preferences.with_keys({"MaxRecvDataSegmentLength": str(joined.declared)})
        return Reception(device.name, tag, preferences, device.authentication.policy)

    def _name(self, initiator_name: str, isid: bytes, target_name: str, discovery: bool) -> SessionName:
        # A discovery session never reinstates a normal one, so it is kept under a name of its own.
        target = f"discovery {target_name}" if discovery else target_name
        if discovery and not target_name:
            # Unnamed discovery sessions are told apart by TargetAddress (7.4.2.1): one at each portal.
            target = f"discovery at {self.transport.local}"
        return SessionName.of(initiator_name, isid, target, self.server.configuration.portal_group_tag)

    def existing_session(self, request: Identification, reception: Reception) -> ExistingSession | None:
        """The session that this login would join or reinstate (the ISID rule, 4.4.3)."""
        discovery = request.session_type == "Discovery"
        name = self._name(request.initiator_name, bytes(request.isid), reception.target_name, discovery)
        found = self.server.sessions.find(name)
        if isinstance(found, TargetSession):
            if found.ending:  # it cannot be joined any more; a new one has to wait for its end
                return None if request.tsih else ExistingSession(found.tsih, found.parameters, frozenset())
            numbers = self.server.plane.numbers(found.id)
            return ExistingSession(
                found.tsih, found.parameters, found.recovery.connections.cids,
                numbers.exp_cmd_sn, numbers.max_cmd_sn, found.recovery.connections.count,
            )  # fmt: skip
        if isinstance(found, DiscoverySession):
            return ExistingSession(found.tsih, found.parameters, frozenset({found.cid}))
        return None

    # ------------------------------------------------------------------ the run
    async def run(self) -> None:
        """Logs in and hands over; every failure is told to the observer and costs nobody else anything."""
        server, limits = self.server, self.server.configuration.limits
        task = asyncio.current_task()
        assert task is not None

        def evict() -> None:
            self._evicted = True
            self.transport.close()
            task.cancel()

        ticket = server.half_open.admit(self.transport.peer, evict)
        machine = TargetLogin(
            self,
            server.runtime.now(),
            server.random,
            server.challenges,
            LoginLimits(limits.login_seconds, limits.login_pdus, limits.login_text),
            window=server.plane.limits().command_window,
        )
        try:
            result = await exchange(self.transport, machine, server.runtime, self._admit)
            if self._discovery is None:
                server.half_open.leave(ticket)
                await self._hand_over(result)
            else:
                # A discovery session proves nothing about its initiator: it keeps its place among the half-open, so
                # that a flood of them is bounded too.
                server.logins += 1
                await self._discover(self._discovery, result)
                return
        except asyncio.CancelledError:
            await self._undo()
            if not self._evicted:
                raise
            server.observe(TargetEvent("evicted", {"peer": self.transport.peer}))
            return
        except (Error, OSError) as error:
            await self._undo()
            self._failed(machine, error)
            return
        except Exception:
            await self._undo()
            raise
        finally:
            server.half_open.leave(ticket)
            machine.close()  # its challenge is not outstanding any more, however it ended
        server.logins += 1

    def _failed(self, machine: TargetLogin, error: Error | OSError) -> None:
        self.server.refused += 1
        who = machine.identification
        details = {
            "peer": self.transport.peer,
            "initiator": who.initiator_name if who else "",
            "target": who.target_name if who else "",
            "message": str(error),
            "code": error.code if isinstance(error, Error) else "network.failed",
            "evidence": error.evidence if isinstance(error, Error) else "",
        }
        if isinstance(error, LoginError):
            details["status"] = f"{error.status:04x}"
            self.server.observe(TargetEvent("login-refused", details))
        else:
            self.server.observe(TargetEvent("login-failed", details))

    async def _undo(self) -> None:
        """A session that was made for a login that did not come to its end goes again."""
        self.transport.close()
        session = self._session
        if session is None:
            pass
        elif self._joined is None:
            if not session.connections:
                await session.end("login-failed")
        elif self._joined in session.recovery.connections.joining:
            session.recovery.failed(self._joined)
        if self._discovery is not None:
            self.server.sessions.remove(self._discovery)

    async def _admit(self, admission: Admission) -> int:
        """Makes the session, so that a lack of anything is still a login status; gives its TSIH."""
        server = self.server
        if not self._authentication.permits(admission.authenticated_as, admission.initiator_name):
            # 11.13.5: it proved who it is, and that is not enough.
            raise login_error(
                LoginStatus.AUTHORIZATION_FAILURE,
                "this CHAP account is for other initiators",
                whose="peer",
                evidence=f"CHAP_N={admission.authenticated_as[:60]}, InitiatorName={admission.initiator_name}",
                next="add the initiator name to the account's `initiators`",
            )
        discovery = self._device is None
        name = self._name(admission.initiator_name, bytes(admission.isid), admission.target_name, discovery)
        if admission.action in (Action.ADD_CONNECTION, Action.REINSTATE_CONNECTION):
            joined = server.sessions.find(name)
            if not isinstance(joined, TargetSession) or joined.tsih != admission.tsih:
                raise login_error(LoginStatus.SESSION_DOES_NOT_EXIST, whose="peer")
            if joined.account != admission.authenticated_as:
                # 9.2: one method and one identity for all connections of a session, at once or one after the other
                raise login_error(
                    LoginStatus.AUTHENTICATION_FAILURE,
                    "the session was opened by somebody else",
                    whose="peer",
                    evidence=f"CHAP_N={admission.authenticated_as[:60] or 'none'}, TSIH {joined.tsih}",
                    next="log every connection of a session in with the same CHAP account",
                )
            joined.reserve(admission.cid)
            self._session, self._joined = joined, admission.cid
            if admission.action is Action.REINSTATE_CONNECTION:
                self._expected = admission.exp_stat_sn
            return joined.tsih
        # Session reinstatement (6.3.5): the old one ends before the new one begins. In a loop, because another login
        # of the same name may have come in between.
        while isinstance(found := server.sessions.find(name), TargetSession | DiscoverySession):
            await found.end("reinstated")
            server.sessions.remove(found)
        refusal = server.sessions.refusal()
        if refusal is not None and await server.make_room():
            refusal = server.sessions.refusal()
        if refusal is not None:
            raise refusal
        tsih = server.sessions.new_tsih()
        if self._device is None:
            self._discovery = self._new_discovery(name, tsih, admission)
            server.sessions.add(self._discovery)
            return tsih
        peer = self.transport.peer
        initiator = admission.initiator_name
        self._session = TargetSession(
            self._device,
            admission,
            tsih,
            plane=server.plane,
            dispatch=server.dispatch,
            runtime=server.runtime,
            observe=server.observe,
            forget=server.sessions.remove,
            drop_others=server.drop_others,
            targets=lambda local: server.targets_for(initiator, peer, local),
        )
        server.sessions.add(self._session)
        await self._session.map_units()
        if self._device.rate:
            await self._session.set_rate(self._device.rate)
        return tsih

    def _new_discovery(self, name: SessionName, tsih: int, admission: Admission) -> DiscoverySession:
        server, transport = self.server, self.transport
        initiator, peer, local = admission.initiator_name, transport.peer, transport.local
        return DiscoverySession(
            name,
            tsih,
            admission.cid,
            admission.parameters,
            transport,
            server.runtime,
            server.discovery_preferences,
            lambda: server.targets_for(initiator, peer, local),
        )

    async def _hand_over(self, result: LoginResult) -> None:
        session = self._session
        assert session is not None
        limits = self.server.configuration.limits
        peer, local = self.transport.peer, self.transport.local
        fresh = self._joined is None
        keep_alive = (limits.keep_alive_seconds, limits.keep_alive_timeout)
        given = handoff(result, self.transport.detach(), peer, keep_alive, self._expected)
        await session.adopt(given, result.parameters, local)
        if fresh and session.connections:
            details = {**session.describe(), "keys": result.parameters.to_keys()}
            if result.authenticated_as:
                details |= {"account": result.authenticated_as, "mutual": result.target_authenticated}
            self.server.observe(TargetEvent("session-up", details))
        elif session.connections:
            details = {**session.describe(), "cid": result.cid, "peer": peer}
            self.server.observe(TargetEvent("connection-up", details))

    async def _discover(self, session: DiscoverySession, result: LoginResult) -> None:
        reason, evidence = "", ""
        try:
            reason = await session.serve(result)
        except (Error, OSError) as error:
            reason, evidence = "error", str(error)
        finally:
            self.transport.close()
            self.server.sessions.remove(session)
        self.server.observe(TargetEvent("discovery", {**session.describe(), "reason": reason, "evidence": evidence}))
