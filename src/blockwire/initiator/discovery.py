"""The discovery client: a discovery session that asks SendTargets=All (RFC 7143 4.3 and appendix C), then logs out.

A discovery session moves a few PDUs and no SCSI, so it stays in the control plane from beginning to end.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blockwire import errors
from blockwire.discovery import TargetRecordAddress, parse_records
from blockwire.initiator.connect import log_in_anywhere, preferences
from blockwire.login.initiator import LoginPlan
from blockwire.login.result import LoginResult
from blockwire.names import Isid, Portal, Url
from blockwire.text.initiator import TextDone, TextFailed, TextInitiator
from blockwire.text.limits import LISTING
from blockwire.wire import serial
from blockwire.wire.constants import MAX_DATA_SEGMENT_LENGTH, RESERVED_TAG, LogoutReason, Opcode
from blockwire.wire.framing import Deframer, Frame, frame_pdu
from blockwire.wire.logout import LogoutRequest
from blockwire.wire.nop import NopIn, NopOut
from blockwire.wire.pdu import WireError
from blockwire.wire.reject import Reject
from blockwire.wire.text import TextRequest, TextResponse

if TYPE_CHECKING:
    from blockwire.initiator.initiator import Initiator
    from blockwire.initiator.options import Options
    from blockwire.net.runtime import Runtime, Transport

_log = logging.getLogger("blockwire.initiator")

_TAG = 1


@dataclass(frozen=True, slots=True)
class Target:
    """A target that discovery found."""

    name: str
    """iSCSI name."""
    addresses: tuple[TargetRecordAddress, ...]
    """Portals with their portal group tags."""

    @property
    def portals(self) -> tuple[Portal, ...]:
        """Where it can be reached."""
        return tuple(address.portal for address in self.addresses)

    @property
    def urls(self) -> tuple[str, ...]:
        """`iscsi://HOST:PORT/IQN` for each portal."""
        return tuple(str(Url(portal, self.name)) for portal in self.portals)


class Conversation:
    """The full feature phase of a discovery session: PDUs one at a time, numbers and digests filled in."""

    def __init__(self, runtime: Runtime, transport: Transport, result: LoginResult) -> None:
        self._runtime = runtime
        self._transport = transport
        found = result.parameters
        self._header_digest = found.header_digest == "CRC32C"
        self._data_digest = found.data_digest == "CRC32C"
        self._deframer = Deframer(
            min(found.initiator_max_recv_data_segment_length, MAX_DATA_SEGMENT_LENGTH), 0,
            self._header_digest, self._data_digest,
        )  # fmt: skip
        if result.over_read:
            self._deframer.feed(result.over_read)
        self._cmd_sn = result.cmd_sn
        self._exp_stat_sn = result.stat_sn
        self.max_send = found.target_max_recv_data_segment_length
        self.cid = result.cid

    async def send(self, pdu: TextRequest | LogoutRequest | NopOut) -> None:
        """Sends `pdu` with CmdSN and ExpStatSN; what is not immediate takes a CmdSN."""
        numbered = replace(pdu, cmd_sn=self._cmd_sn, exp_stat_sn=self._exp_stat_sn)
        if not pdu.immediate:
            self._cmd_sn = serial.add(self._cmd_sn, 1)
        await self._transport.send(
            frame_pdu(numbered, header_digest=self._header_digest, data_digest=self._data_digest)
        )

    async def receive(self) -> Frame:
        """The next PDU that is not a keep-alive; those are answered."""
        while True:
            frame = self._deframer.next()
            if frame is None:
                data = await self._transport.recv(65536)
                if not data:
                    raise errors.ConnectionLostError("the target closed the discovery session")
                self._deframer.feed(data)
                continue
            opcode = frame.bhs[0] & 0x3F
            if opcode == Opcode.NOP_IN:
                nop = NopIn.decode(frame.bhs, frame.ahs, frame.data)
                if nop.initiator_task_tag != RESERVED_TAG:
                    self._exp_stat_sn = serial.add(nop.stat_sn, 1)
                if nop.target_transfer_tag != RESERVED_TAG:
                    await self.send(NopOut(lun=nop.lun, target_transfer_tag=nop.target_transfer_tag, data=nop.data))
                continue
            self._exp_stat_sn = serial.add(int.from_bytes(frame.bhs[24:28], "big"), 1)
            return frame

    async def text(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Asks `pairs` and gives all pairs of the answer, over as many PDUs as it takes."""
        exchange = TextInitiator(_TAG, pairs, self.max_send, self._runtime.now(), limits=LISTING)
        while True:
            while (request := exchange.poll_request()) is not None:
                await self.send(request)
            match exchange.poll_event():
                case TextDone(pairs=answer):
                    return answer
                case TextFailed(error=error):
                    raise error
            frame = await self.receive()
            match frame.bhs[0] & 0x3F:
                case Opcode.TEXT_RESPONSE:
                    exchange.handle_pdu(TextResponse.decode(*frame))
                case Opcode.REJECT:
                    exchange.handle_pdu(Reject.decode(*frame))
                case Opcode.ASYNC_MESSAGE:
                    _log.info("asynchronous message during discovery")
                case other:
                    raise errors.ProtocolError("an unexpected PDU during discovery", evidence=f"opcode {other:#04x}")

    async def log_out(self) -> None:
        """Closes the session in an orderly way."""
        await self.send(LogoutRequest(reason=LogoutReason.CLOSE_SESSION, initiator_task_tag=_TAG + 1, cid=self.cid))
        while (await self.receive()).bhs[0] & 0x3F != Opcode.LOGOUT_RESPONSE:
            pass


async def discover(initiator: Initiator, url: Url, options: Options) -> list[Target]:
    """The targets that the portal of `url` shows this initiator, in its order."""
    runtime = initiator.runtime
    name = options.initiator_name or initiator.name
    with initiator.busy(), _isid(initiator, name, str(url.portal)) as isid:
        wanted = preferences(initiator.plane.limits(), options)
        plan = LoginPlan(
            initiator_name=name,
            isid=isid,
            session_type="Discovery",
            preferences=wanted,
            credentials=options.credentials,
        )
        transport, portal, result, _ = await log_in_anywhere(runtime, url.portal, plan, options, initiator.challenges)
        try:
            conversation = Conversation(runtime, transport, result)
            try:
                async with runtime.timeout(options.timers.timeout):
                    answer = await conversation.text([("SendTargets", "All")])
            except TimeoutError as error:
                raise errors.TimedOutError(f"{portal} does not answer SendTargets") from error
            except WireError as error:
                raise errors.ProtocolError(f"{portal} sent a malformed PDU: {error}") from error
            except errors.Error:
                raise
            except OSError as error:
                raise errors.from_os_error(error, f"discovery at {portal}") from error
            with contextlib.suppress(errors.Error, OSError, TimeoutError, WireError):
                async with runtime.timeout(options.timers.logout):
                    await conversation.log_out()
        finally:
            transport.close()
    return _targets(answer, portal)


@contextlib.contextmanager
def _isid(initiator: Initiator, name: str, portal: str) -> Iterator[Isid]:
    isid = initiator.isids.take(name, portal)
    try:
        yield isid
    finally:
        initiator.isids.release(name, portal, isid)


def _targets(pairs: Iterable[tuple[str, str]], portal: Portal) -> list[Target]:
    return [Target(record.name, record.addresses) for record in parse_records(list(pairs), portal)]
