"""A normal session: its connections in the plane, its nexuses, and what the plane sends up for it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from blockwire.dataplane.api import (
    Answer,
    CommandForControl,
    ConnectionHandoff,
    ControlPdu,
    DataPlane,
    Digest,
    Effects,
    ResponsePdu,
    Role,
    SessionSpec,
    TransportHandle,
)
from blockwire.dataplane.dispatch import Dispatch
from blockwire.discovery import TargetRecord, answering
from blockwire.errors import Error, ProtocolError, login_error
from blockwire.login.result import Admission, LoginResult
from blockwire.negotiate.parameters import Parameters
from blockwire.net.runtime import Runtime
from blockwire.scsi.commands import describe
from blockwire.scsi.sense import SenseCode
from blockwire.session import SessionState
from blockwire.target import async_messages
from blockwire.target.commands import absent, table
from blockwire.target.commands.call import Call, TargetView
from blockwire.target.connections import Connection
from blockwire.target.device import TASK_MANAGEMENT_LEVEL_2, TargetDevice
from blockwire.target.events import Observer, TargetEvent
from blockwire.target.logical_unit import LogicalUnit
from blockwire.target.nexus import Nexus, set_gates
from blockwire.target.recovery import Recovery
from blockwire.target.sessions import SessionName
from blockwire.target.task_management import Drop, Outcome, TaskManagement
from blockwire.text import TextTarget
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import (
    LoginStatus,
    Opcode,
    RejectReason,
    TaskFunction,
    TaskResponse,
)
from blockwire.wire.logout import LogoutRequest
from blockwire.wire.pdu import Pdu, WireError
from blockwire.wire.reject import Reject
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse
from blockwire.wire.text import TextRequest

_log = logging.getLogger("blockwire.target")

FAREWELL_SECONDS = 1.0
"""How long the response to a reset that ends its own session may take to leave."""


def session_spec(admission: Admission, portal_group_tag: int, tsih: int) -> SessionSpec:
    """What the plane has to know of a session, from a login that is about to be admitted."""
    agreed = admission.parameters
    return SessionSpec(
        role=Role.TARGET,
        initiator_name=admission.initiator_name,
        target_name=admission.target_name,
        isid=bytes(admission.isid),
        tsih=tsih,
        target_portal_group_tag=portal_group_tag,
        initial_r2t=agreed.initial_r2t,
        immediate_data=agreed.immediate_data,
        max_burst_length=agreed.max_burst_length,
        first_burst_length=agreed.first_burst_length,
        max_outstanding_r2t=agreed.max_outstanding_r2t,
        data_pdu_in_order=agreed.data_pdu_in_order,
        data_sequence_in_order=agreed.data_sequence_in_order,
        error_recovery_level=agreed.error_recovery_level,
        max_connections=agreed.max_connections,
        iscsi_protocol_level=agreed.iscsi_protocol_level,
        fast_abort=agreed.task_reporting == "FastAbort",
        cmd_sn=admission.cmd_sn,
        exp_cmd_sn=admission.cmd_sn,
    )


def handoff(
    result: LoginResult, transport: TransportHandle, peer: str, keep_alive: tuple[float, float], expected: int | None
) -> ConnectionHandoff:
    """A logged-in connection on its way to the plane. ``keep_alive`` is (interval, timeout) in seconds, ``expected``
    the ExpStatSN of a login that reinstates its connection (RFC 7143 11.12.9)."""
    agreed = result.parameters
    return ConnectionHandoff(
        transport=transport,
        cid=result.cid,
        max_recv_data_segment_length=agreed.target_max_recv_data_segment_length,
        max_send_data_segment_length=agreed.initiator_max_recv_data_segment_length,
        header_digest=Digest.CRC32C if agreed.header_digest == "CRC32C" else Digest.NONE,
        data_digest=Digest.CRC32C if agreed.data_digest == "CRC32C" else Digest.NONE,
        stat_sn=result.stat_sn,
        over_read=result.over_read,
        peer=peer,
        keep_alive_interval=keep_alive[0],
        keep_alive_timeout=keep_alive[1],
        exp_stat_sn=expected or 0,
        reassigned_from=None if expected is None else result.cid,
    )


class TargetSession:
    """One session in the full feature phase. Made at admission, before its connection is handed over."""

    def __init__(
        self,
        device: TargetDevice,
        admission: Admission,
        tsih: int,
        *,
        plane: DataPlane,
        dispatch: Dispatch,
        runtime: Runtime,
        observe: Observer,
        forget: Callable[[TargetSession], None],
        drop_others: Callable[[TargetSession], Awaitable[None]],
        targets: Callable[[str], Sequence[TargetRecord]],
    ) -> None:
        self.device = device
        self.tsih = tsih
        self.parameters: Parameters = admission.parameters
        self.initiator_name = admission.initiator_name
        self.account = admission.authenticated_as
        """The CHAP name that all its connections have to prove; empty: none of them may (9.2)."""
        self.isid = bytes(admission.isid)
        self.name = SessionName.of(admission.initiator_name, self.isid, admission.target_name, device.portal_group_tag)
        self.nexuses: dict[int, Nexus] = {}
        """By LUN field as a number."""
        self.commands = 0
        """Commands that came up to Python."""
        self.declared = 0
        """MaxRecvDataSegmentLength that `declare_segment_length` put in place of the configured one; 0: none."""
        self.ended = asyncio.Event()
        self._plane = plane
        self._dispatch = dispatch
        self._runtime = runtime
        self._observe = observe
        self._forget = forget
        self._drop_others = drop_others
        self._functions = TaskManagement(device, plane, dispatch)
        self._targets = targets
        self._texts: dict[int, TextTarget] = {}
        self._ending = False
        self._last_words = ""
        self.id = plane.create_session(session_spec(admission, device.portal_group_tag, tsih))
        self.recovery = Recovery(
            self.id, admission.parameters, plane, dispatch, runtime, attention=self._commands_cleared, empty=self._empty
        )
        device.sessions[self.id] = self
        dispatch.subscribe(self.id, self.handle)

    # ------------------------------------------------------------------ what it is
    @property
    def connections(self) -> Mapping[int, Connection]:
        """Connections in the full feature phase, by CID."""
        return self.recovery.connections.live

    @property
    def waits(self) -> bool:
        """It has no connection, and waits for its initiator to continue it (6.3.6)."""
        table = self.recovery.connections
        return table.session is SessionState.FAILED and not (self._ending or table.live or table.joining)

    @property
    def ending(self) -> bool:
        """Its end has begun."""
        return self._ending

    @property
    def fast_abort(self) -> bool:
        """TaskReporting=FastAbort was negotiated (13.23)."""
        return self.parameters.task_reporting == "FastAbort"

    @property
    def protocol_level(self) -> int:
        """iSCSIProtocolLevel (RFC 7144 7.1.1)."""
        return self.parameters.iscsi_protocol_level

    @property
    def view(self) -> TargetView:
        """What commands may know of the target; the functions of RFC 7144 are there for who negotiated them."""
        found = replace(self.device.view, protocol_level=self.protocol_level)
        if self.protocol_level >= 2:
            found = replace(found, task_management=found.task_management | int(TASK_MANAGEMENT_LEVEL_2))
        return found

    # ------------------------------------------------------------------ beginning
    async def map_units(self) -> None:
        """Every logical unit of the target becomes visible, with a unit attention to report: the nexus is new."""
        for unit in list(self.device.units.values()):
            await self.map_unit(unit, SenseCode.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)

    async def map_unit(self, unit: LogicalUnit, attention: SenseCode) -> None:
        """One more logical unit becomes visible."""
        nexus = Nexus(self.id, unit)
        nexus.establish(attention)
        await self._dispatch.op(self._plane.map_lun(*nexus.key, unit.mapping(nexus.first_gates())))
        self.nexuses[nexus.field] = nexus
        unit.nexuses.add(nexus)
        if nexus.stale:  # a reset of the unit began or ended meanwhile
            set_gates(self._plane, (nexus,))

    async def unmap_unit(self, unit: LogicalUnit) -> None:
        """A logical unit goes; its tasks have ended."""
        for nexus in [nexus for nexus in self.nexuses.values() if nexus.unit is unit]:
            del self.nexuses[nexus.field]
            unit.nexuses.discard(nexus)
            await self._dispatch.op(self._plane.unmap_lun(*nexus.key))

    async def adopt(self, given: ConnectionHandoff, parameters: Parameters, local: str) -> None:
        """A connection on our address ``local`` enters the full feature phase; one of its CID gives way (6.3.4)."""
        table = self.recovery.connections
        await self.recovery.make_room(given.cid)
        self._texts.pop(given.cid, None)
        table.begin(Connection(given.cid, given.peer, local, parameters))
        try:
            await self._dispatch.op(self._plane.adopt(self.id, given))
        except BaseException:
            self.recovery.failed(given.cid)
            raise

    def reserve(self, cid: int) -> None:
        """A place for a connection that is logging in to this session; `LoginError` 0206 when there is none (13.2)."""
        if self._ending:
            raise login_error(LoginStatus.SESSION_DOES_NOT_EXIST, whose="peer", evidence=f"TSIH {self.tsih}")
        table, most = self.recovery.connections, self.parameters.max_connections
        if cid not in table.live and table.count >= most:
            raise login_error(LoginStatus.TOO_MANY_CONNECTIONS, whose="peer", evidence=f"MaxConnections={most}")
        table.joining.add(cid)

    async def set_rate(self, bytes_per_second: float, cid: int | None = None) -> None:
        """Limits what is sent, over all connections or on one; 0 lifts the limit. Without a new login."""
        await self._dispatch.op(self._plane.configure(self.id, cid, {"rate": float(bytes_per_second)}))

    def describe(self) -> dict[str, Any]:
        """Plain data for events."""
        return {
            "target": self.device.name,
            "initiator": self.initiator_name,
            "isid": "0x" + self.isid.hex(),
            "tsih": self.tsih,
            "session": self.id,
            "peers": sorted(connection.peer for connection in self.connections.values()),
        }

    # ------------------------------------------------------------------ events
    def handle(self, event: Any) -> None:
        """One event of the plane. By name: the native module has event classes of its own."""
        match type(event).__name__:
            case "CommandForControl":
                self._command(event)
            case "ControlPdu":
                self._control(event)
            case "ConnectionLost":
                self._texts.pop(event.cid, None)
                self.recovery.lost(event.cid, event.code, event.evidence)
                if self.connections or self.recovery.connections.remains:
                    self._tell("connection-lost", cid=event.cid, reason=event.code, evidence=event.evidence)
            case "SessionLost":
                self._empty(event.code, event.evidence)
            case "ConnectionClosed":
                self._texts.pop(event.cid, None)
                self.recovery.closed(event.cid)
            case "ProtocolViolation":
                self._tell("protocol-violation", cid=event.cid, what=event.what)
            case "DigestFailure":
                self._tell("digest-error", cid=event.cid, kind=event.kind)

    def _tell(self, event: str, **details: Any) -> None:
        self._observe(TargetEvent(event, {**self.describe(), **details}))

    def _empty(self, reason: str, evidence: str) -> None:
        if not self._ending:
            self._runtime.spawn(self.end(self._last_words or reason, evidence), f"session {self.id} ends")

    def _commands_cleared(self, fields: Iterable[int] | None) -> None:
        """RFC 7143 11.14.5: tasks ended without an answer; their nexuses report it (SPC-4: 47h/7Fh)."""
        touched = [
            nexus
            for field, nexus in self.nexuses.items()
            if (fields is None or field in fields)
            and nexus.establish(SenseCode.SOME_COMMANDS_CLEARED_BY_ISCSI_PROTOCOL_EVENT)
        ]
        set_gates(self._plane, touched)

    # ------------------------------------------------------------------ commands
    def _command(self, event: CommandForControl) -> None:
        self.commands += 1
        nexus = self.nexuses.get(event.lun)
        if nexus is None:
            self._plane.reply(self.id, event.tag, absent.answer(event.cdb, self.view))
            return
        call = Call(event, self.view, self._plane, self._dispatch, nexus.unit, nexus, self._mode_changed)
        try:
            found = table.answer(call)
        except Exception:
            _log.exception("%s failed", describe(event.cdb))
            found = table.failure()
        if inspect.isawaitable(found):
            self._runtime.spawn(self._finish(event, nexus, found), describe(event.cdb))
        else:
            self._reply(event, nexus, found)

    async def _finish(self, event: CommandForControl, nexus: Nexus, coming: Awaitable[Answer]) -> None:
        try:
            found = await coming
        except Exception:
            _log.exception("%s failed", describe(event.cdb))
            found = table.failure()
        if not self._ending:
            self._reply(event, nexus, found)

    def _reply(self, event: CommandForControl, nexus: Nexus, found: Answer) -> None:
        if nexus.take_fence():
            self._plane.reply(self.id, event.tag, found, Effects(fence=True))
        else:
            self._plane.reply(self.id, event.tag, found)
        if nexus.answered():
            set_gates(self._plane, (nexus,))

    def _mode_changed(self, unit: LogicalUnit, by: Nexus) -> None:
        """MODE SELECT took effect: the plane learns it, the other nexuses get a unit attention (SPC-4 6.11)."""
        unit.attention(SenseCode.MODE_PARAMETERS_CHANGED, but=by)
        unit.show(self._plane)

    # ------------------------------------------------------------------ control PDUs
    def _control(self, event: ControlPdu) -> None:
        header, data = bytes(event.header), bytes(event.data)
        try:
            match header[0] & 0x3F:
                case Opcode.TASK_MANAGEMENT_REQUEST:
                    request = TaskManagementRequest.decode(header, b"", data)
                    self._runtime.spawn(self._task_management(event, request), f"session {self.id} task management")
                case Opcode.LOGOUT_REQUEST:
                    request_out = LogoutRequest.decode(header, b"", data)
                    self._runtime.spawn(self._logout(event, request_out), f"session {self.id} logout")
                case Opcode.TEXT_REQUEST:
                    self._text(event, TextRequest.decode(header, b"", data))
                case _:
                    self._reject(event, RejectReason.COMMAND_NOT_SUPPORTED)
        except WireError:
            self._reject(event, RejectReason.INVALID_PDU_FIELD)

    def _answer(self, event: ControlPdu, pdu: Pdu, effects: Effects = Effects()) -> None:  # noqa: B008 - frozen
        self._plane.reply(self.id, event.tag, ResponsePdu(pdu.encode(), pdu.data), effects)

    def _reject(self, event: ControlPdu, reason: RejectReason) -> None:
        self._answer(event, Reject(reason=reason, data=bytes(event.header)))

    async def _task_management(self, event: ControlPdu, request: TaskManagementRequest) -> None:
        response = TaskManagementResponse(initiator_task_tag=request.initiator_task_tag)
        effects = Effects()
        try:
            if request.function == TaskFunction.TASK_REASSIGN:
                answer, effects = await self.recovery.reassign(request)
                outcome = Outcome(answer)
            else:
                outcome = await self._functions.perform(request, self, event.cid)
                if request.function == TaskFunction.QUERY_TASK and outcome.response is TaskResponse.FUNCTION_SUCCEEDED:
                    effects = await self.recovery.queried(request)
        except Exception:
            _log.exception("task management function %d failed", request.function)
            self._answer(event, replace(response, response=TaskResponse.FUNCTION_REJECTED))
            return
        self._tell(
            "task-management",
            function=_function_name(request.function),
            response=outcome.response.name.lower().replace("_", "-"),
            affected=outcome.affected,
        )
        if self._ending:
            return
        response = replace(response, response=outcome.response, additional_information=outcome.information)
        if outcome.fence or outcome.drop is not Drop.NOTHING:
            effects = Effects(fence=outcome.fence, close=outcome.drop is not Drop.NOTHING)
        if outcome.drop is Drop.NOTHING:
            self._answer(event, response, effects)
            return
        self._last_words = "target-reset" if outcome.drop is Drop.TARGET else "nexus-reset"
        self._answer(event, response, effects)
        if outcome.drop is Drop.TARGET:
            await self._drop_others(self)
        # The response may not be reliably delivered (11.5.1); it gets this much of a chance.
        with contextlib.suppress(TimeoutError):
            async with self._runtime.timeout(FAREWELL_SECONDS):
                await self.ended.wait()
        await self.end(self._last_words)

    async def _logout(self, event: ControlPdu, request: LogoutRequest) -> None:
        """Logout (11.14, 11.15)."""
        found = await self.recovery.logout(request, event.cid)
        if self._ending:
            return
        if found is None:
            # section 11: a reserved code value is a protocol error
            what = f"a reserved reason code in a Logout Request, {request.reason} (RFC 7143 11.14.1)"
            self._tell("protocol-violation", cid=event.cid, what=what)
            self._reject(event, RejectReason.PROTOCOL_ERROR)
        else:
            self._answer(event, found[0], found[1])

    def _text(self, event: ControlPdu, request: TextRequest) -> None:
        service = self._text_service(event.cid)
        before = service.parameters
        try:
            reply = service.handle_request(request, self._runtime.now())
        except ProtocolError as error:
            self._reject(event, RejectReason(error.reject_reason))
            return
        apply: dict[str, int] = {}
        now = reply.parameters or before
        if now.initiator_max_recv_data_segment_length != before.initiator_max_recv_data_segment_length:
            apply["max_send_data_segment_length"] = now.initiator_max_recv_data_segment_length
        if now.target_max_recv_data_segment_length > before.target_max_recv_data_segment_length:
            # A smaller one binds the initiator, which may have longer segments under way: they are still taken.
            apply["max_recv_data_segment_length"] = now.target_max_recv_data_segment_length
        connection = self.connections.get(event.cid)
        if connection is not None:
            connection.parameters = now
        self._answer(event, reply.response, Effects(apply=apply))

    def _text_service(self, cid: int) -> TextTarget:
        service = self._texts.get(cid)
        if service is None:
            connection = self.connections.get(cid)
            parameters = self.parameters if connection is None else connection.parameters
            local = "" if connection is None else connection.local
            listing = answering(lambda: self._targets(local), self.device.name)
            service = self._texts[cid] = TextTarget(parameters, listing, self.device.preferences)
        return service

    def declare_segment_length(self, length: int, seconds: float = 10.0) -> None:
        """Another MaxRecvDataSegmentLength of this side, bytes, on every live connection: the initiator is asked to
        negotiate within ``seconds`` (event 4) and hears it in the answer (RFC 7143 6.4, 13.12). Connections that join
        later hear it at login."""
        self.declared = max(512, min(length, self._plane.limits().max_recv_data_segment_length))
        for cid in self.connections:
            self._text_service(cid).declare_segment_length(self.declared)
        self.ask_negotiation(seconds)

    # ------------------------------------------------------------------ ending
    def ask_logout(self, seconds: float) -> None:
        """Event 1 on every connection: log out within ``seconds`` (RFC 7143 11.9.1)."""
        self._send(async_messages.logout_request(seconds))

    def ask_negotiation(self, seconds: float) -> None:
        """Event 4 on every connection: a Text Request is to come within ``seconds``."""
        self._send(async_messages.negotiation_request(seconds))

    def report(self, lun: int, sense: bytes) -> None:
        """Event 0 on the first connection: what happened to the LUN field ``lun``, as sense data."""
        self._send(async_messages.scsi_event(lun, sense), sorted(self.connections)[:1])

    def tell_termination(self, lun: int) -> None:
        """Event 5 on every connection, where FastAbort was negotiated (4.2.3.4); nothing elsewhere."""
        if self.parameters.task_reporting == "FastAbort":
            self._send(async_messages.task_termination(lun))

    def drop_connection(self, cid: int, time2wait: float | None = None) -> None:
        """Event 2 on a connection, which is then closed; ``time2wait`` in place of DefaultTime2Wait."""
        wait, retain = self._times(time2wait)
        self._send(async_messages.connection_drop(cid, wait, retain), [cid], async_messages.CLOSE)

    def drop(self, time2wait: float | None = None) -> None:
        """Event 3 on every connection, all of which are then closed."""
        self._send(async_messages.session_drop(*self._times(time2wait)), None, async_messages.CLOSE)

    def _times(self, time2wait: float | None) -> tuple[float, float]:
        agreed = self.parameters
        retain = agreed.default_time2retain if agreed.error_recovery_level == 2 else 0
        return (agreed.default_time2wait if time2wait is None else time2wait), retain

    def _send(self, message: AsyncMessage, cids: Iterable[int] | None = None, effects: Effects | None = None) -> None:
        if not self._ending:
            async_messages.send(self._plane, self.id, self.connections if cids is None else cids, message, effects)

    async def end(self, reason: str, evidence: str = "") -> None:
        """Ends the session, whatever its state; idempotent, and returns when it has ended."""
        if self._ending:
            await self.ended.wait()
            return
        self._ending = True
        described = self.describe()
        for nexus in self.nexuses.values():
            nexus.unit.nexuses.discard(nexus)
        self.nexuses.clear()
        try:
            await self._dispatch.op(self._plane.close_session(self.id))
        except Error as error:
            _log.warning("session %d did not close in order: %s", self.id, error)
        finally:
            self._dispatch.unsubscribe(self.id)
            self.recovery.connections.end()
            self.device.sessions.pop(self.id, None)
            self._forget(self)
            self.ended.set()
        details = {**described, "reason": reason, **({"evidence": evidence} if evidence else {})}
        self._observe(TargetEvent("session-down", details))


def _function_name(function: int) -> str:
    try:
        return TaskFunction(function).name.lower().replace("_", "-")
    except ValueError:
        return str(function)
