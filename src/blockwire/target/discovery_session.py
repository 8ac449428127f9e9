"""A discovery session, served wholly in Python: text, logout and NOP over one connection (RFC 7143 4.3, Appendix C)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from blockwire.discovery import TargetRecord, answering
from blockwire.errors import Error, ProtocolError, from_os_error
from blockwire.login.result import LoginResult
from blockwire.negotiate.parameters import Parameters
from blockwire.negotiate.preferences import Preferences
from blockwire.net.runtime import Runtime, Transport
from blockwire.target.sessions import SessionName
from blockwire.text import TextTarget
from blockwire.wire import serial
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import (
    RESERVED_TAG,
    AsyncEvent,
    LogoutReason,
    LogoutResult,
    Opcode,
    RejectReason,
    TaskResponse,
)
from blockwire.wire.framing import Deframer, Frame, frame_pdu
from blockwire.wire.logout import LogoutRequest, LogoutResponse
from blockwire.wire.nop import NopIn, NopOut
from blockwire.wire.pdu import Pdu, WireError
from blockwire.wire.reject import Reject
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse
from blockwire.wire.text import TextRequest

_log = logging.getLogger("blockwire.target")

WINDOW = 8
"""Commands a discovery session may have in flight."""
_OF_INITIATORS = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10}
"""Opcodes that an initiator may use (11.2.1.2)."""
_WITHOUT_CMD_SN = {Opcode.DATA_OUT, Opcode.SNACK}

IDLE_SECONDS = 120.0
"""A discovery session in which nothing happens for so long is closed: it holds a place that others want."""


class DiscoverySession:
    """Made when the login is over; :meth:`serve` runs until the connection ends."""

    def __init__(
        self,
        name: SessionName,
        tsih: int,
        cid: int,
        parameters: Parameters,
        transport: Transport,
        runtime: Runtime,
        preferences: Preferences,
        targets: Callable[[], Sequence[TargetRecord]],
    ) -> None:
        self.name = name
        self.tsih = tsih
        self.cid = cid
        self.parameters = parameters
        self.peer = transport.peer
        self._transport = transport
        self._runtime = runtime
        self._preferences = preferences
        self._targets = targets
        self._stat_sn = 0
        self._exp_cmd_sn = 0
        self._header_digest = False
        self._data_digest = False
        self._text: TextTarget | None = None
        self._closing = False

    def describe(self) -> dict[str, Any]:
        """Plain data for events."""
        return {"initiator": self.name.initiator_name, "peer": self.peer, "tsih": self.tsih}

    async def serve(self, result: LoginResult) -> str:
        """Answers until logout or loss; returns why it ended."""
        agreed = result.parameters
        self._stat_sn, self._exp_cmd_sn = result.stat_sn, result.cmd_sn
        self._header_digest = agreed.header_digest == "CRC32C"
        self._data_digest = agreed.data_digest == "CRC32C"
        # Also when it named a target, all are told of: appendix C knows session types only.
        self._text = TextTarget(agreed, answering(self._targets, ""), self._preferences)
        deframer = Deframer(agreed.target_max_recv_data_segment_length, 0, self._header_digest, self._data_digest)
        deframer.feed(result.over_read)
        try:
            while not self._closing:
                frame = deframer.next()
                if frame is not None:
                    async with self._runtime.timeout(IDLE_SECONDS):  # who does not read is as idle as who is silent
                        await self._answer(frame)
                    continue
                async with self._runtime.timeout(IDLE_SECONDS):
                    data = await self._transport.recv(65536)
                if not data:
                    return "closed-by-peer"
                deframer.feed(data)
            return "logout"
        except TimeoutError:
            return "idle"
        except WireError as error:
            raise ProtocolError(str(error), evidence=f"RFC 7143 section {error.section}") from error
        except Error:
            raise
        except OSError as error:
            raise from_os_error(error, "discovery session") from error
        finally:
            self._transport.close()

    async def end(self, reason: str, evidence: str = "") -> None:
        """Ends it from outside: the peer is told, the connection is closed."""
        if self._closing:
            return
        self._closing = True
        message = AsyncMessage(async_event=AsyncEvent.SESSION_DROP)
        with contextlib.suppress(Error, OSError, TimeoutError):
            async with self._runtime.timeout(1.0):
                await self._send(message)
        self._transport.close()

    async def _send(self, pdu: Pdu) -> None:
        raw = bytearray(frame_pdu(pdu))
        # StatSN, ExpCmdSN and MaxCmdSN stand at 24, 28 and 32 in every PDU that a target sends here (11.4 to 11.17).
        raw[24:28] = self._stat_sn.to_bytes(4, "big")
        raw[28:32] = self._exp_cmd_sn.to_bytes(4, "big")
        raw[32:36] = serial.add(self._exp_cmd_sn, WINDOW - 1).to_bytes(4, "big")
        header, rest = bytes(raw[:48]), bytes(raw[48:])
        if self._header_digest or self._data_digest:
            decoded = type(pdu).decode(header, b"", pdu.data)
            await self._transport.send(
                frame_pdu(decoded, header_digest=self._header_digest, data_digest=self._data_digest)
            )
        else:
            await self._transport.send(header + rest)
        self._stat_sn = serial.add(self._stat_sn, 1)

    def _in_order(self, frame: Frame) -> bool:
        """CmdSN of a request that is not immediate has to be the next one; on one TCP connection it always is."""
        if frame.bhs[0] & 0x40:
            return True
        if int.from_bytes(frame.bhs[24:28], "big") != self._exp_cmd_sn:
            return False
        self._exp_cmd_sn = serial.add(self._exp_cmd_sn, 1)
        return True

    async def _answer(self, frame: Frame) -> None:
        opcode = frame.bhs[0] & 0x3F
        if opcode not in _OF_INITIATORS:
            if opcode in set(Opcode):
                raise ProtocolError("a target's opcode came from an initiator", evidence=f"opcode {opcode:#04x}")
            await self._reject(frame, RejectReason.COMMAND_NOT_SUPPORTED)
            return
        if opcode not in _WITHOUT_CMD_SN and not self._in_order(frame):
            return  # 4.2.2.1: a command outside the window is ignored
        match opcode:
            case TextRequest.OPCODE:
                assert self._text is not None
                try:
                    reply = self._text.handle_request(TextRequest.decode(*frame), self._runtime.now())
                except ProtocolError as error:
                    await self._reject(frame, RejectReason(error.reject_reason))
                else:
                    await self._send(reply.response)
            case LogoutRequest.OPCODE:
                await self._logout(LogoutRequest.decode(*frame), frame)
            case NopOut.OPCODE:
                ping = NopOut.decode(*frame)
                if ping.initiator_task_tag != RESERVED_TAG:
                    most = self.parameters.initiator_max_recv_data_segment_length  # 11.19
                    echo = ping.data[:most]
                    await self._send(NopIn(initiator_task_tag=ping.initiator_task_tag, lun=ping.lun, data=echo))
            case TaskManagementRequest.OPCODE:
                request = TaskManagementRequest.decode(*frame)
                await self._send(
                    TaskManagementResponse(
                        response=TaskResponse.NOT_SUPPORTED, initiator_task_tag=request.initiator_task_tag
                    )
                )
            case _:
                # 4.3: SCSI commands and the rest of the full feature phase do not belong to a discovery session.
                await self._reject(frame, RejectReason.PROTOCOL_ERROR)

    async def _reject(self, frame: Frame, reason: RejectReason) -> None:
        opcode, who = frame.bhs[0] & 0x3F, self.name.initiator_name
        _log.warning("discovery session of %s: opcode %#04x is rejected, %s", who, opcode, reason.name)
        await self._send(Reject(reason=reason, data=frame.bhs))

    async def _logout(self, request: LogoutRequest, frame: Frame) -> None:
        if request.reason not in {int(reason) for reason in LogoutReason}:
            await self._reject(frame, RejectReason.PROTOCOL_ERROR)  # section 11: a reserved code value
            return
        result = LogoutResult.SUCCESS
        if request.reason == LogoutReason.REMOVE_FOR_RECOVERY:
            result = LogoutResult.RECOVERY_NOT_SUPPORTED
        self._closing = result is LogoutResult.SUCCESS
        await self._send(LogoutResponse(response=result, initiator_task_tag=request.initiator_task_tag))
