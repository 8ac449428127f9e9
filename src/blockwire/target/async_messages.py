"""Asynchronous messages of a target (RFC 7143 11.9.1): what each event's parameters mean, and on which connection it
goes out."""

from __future__ import annotations

from collections.abc import Iterable

from blockwire.dataplane.api import DataPlane, Effects, ResponsePdu, SessionId
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import AsyncEvent

CLOSE = Effects(close=True)


def _seconds(value: float) -> int:
    """As the 16-bit fields take them."""
    return max(0, min(int(value), 0xFFFF))


def scsi_event(lun: int, sense: bytes) -> AsyncMessage:
    """Event 0: ``sense`` of the LUN field ``lun``, as after a command (11.9.4)."""
    return AsyncMessage(
        async_event=AsyncEvent.SCSI_EVENT, lun=lun.to_bytes(8, "big"), data=len(sense).to_bytes(2, "big") + sense
    )


def logout_request(seconds: float) -> AsyncMessage:
    """Event 1: the connection is to be logged out within ``seconds`` (Parameter3)."""
    return AsyncMessage(async_event=AsyncEvent.LOGOUT_REQUEST, parameter3=max(1, _seconds(seconds)))


def connection_drop(cid: int, time2wait: float, time2retain: float) -> AsyncMessage:
    """Event 2: the connection ``cid`` is dropped, or was (Parameter1); when to come back, and how long its tasks are
    kept (Parameter2 and 3)."""
    return AsyncMessage(
        async_event=AsyncEvent.CONNECTION_DROP,
        parameter1=cid,
        parameter2=_seconds(time2wait),
        parameter3=_seconds(time2retain),
    )


def session_drop(time2wait: float, time2retain: float) -> AsyncMessage:
    """Event 3: all connections of the session are dropped."""
    return AsyncMessage(
        async_event=AsyncEvent.SESSION_DROP, parameter2=_seconds(time2wait), parameter3=_seconds(time2retain)
    )


def negotiation_request(seconds: float) -> AsyncMessage:
    """Event 4: a Text Request, or a Logout Request, is to come on this connection within ``seconds`` (Parameter3)."""
    return AsyncMessage(async_event=AsyncEvent.NEGOTIATION_REQUEST, parameter3=max(1, _seconds(seconds)))


def task_termination(lun: int) -> AsyncMessage:
    """Event 5: all active tasks of the LUN field ``lun`` are being terminated. Only in a session that negotiated
    TaskReporting=FastAbort (4.2.3.4)."""
    return AsyncMessage(async_event=AsyncEvent.TASK_TERMINATION, lun=lun.to_bytes(8, "big"))


def send(
    plane: DataPlane, session: SessionId, cids: Iterable[int], message: AsyncMessage, effects: Effects | None = None
) -> None:
    """Sends one message on each of ``cids``."""
    header = bytearray(message.encode())
    header[5:8] = len(message.data).to_bytes(3, "big")
    for cid in list(cids):
        pdu = ResponsePdu(bytes(header), message.data)
        plane.send_unsolicited(session, cid, pdu, *([effects] if effects else []))
