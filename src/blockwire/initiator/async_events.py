"""What an initiator does about asynchronous messages (RFC 7143 11.9.1), as a table of events."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from blockwire import errors
from blockwire.initiator.retry_policy import sense_of
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import AsyncEvent, LogoutReason

if TYPE_CHECKING:
    from blockwire.initiator.session import Session

_log = logging.getLogger("blockwire.initiator")


class AsyncEvents:
    """Takes the messages of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._actions = {
            AsyncEvent.SCSI_EVENT: self._scsi_event,
            AsyncEvent.LOGOUT_REQUEST: self._logout_request,
            AsyncEvent.CONNECTION_DROP: self._connection_drop,
            AsyncEvent.SESSION_DROP: self._session_drop,
            AsyncEvent.NEGOTIATION_REQUEST: self._negotiation_request,
            AsyncEvent.TASK_TERMINATION: self._task_termination,
        }

    def handle(self, event: Any) -> None:
        """One message, as the plane hands it up."""
        session = self._session
        try:
            message = AsyncMessage.decode(bytes(event.header), b"", bytes(event.data))
        except ValueError as error:
            _log.warning("%s sent a malformed asynchronous message: %s", session.target_name, error)
            return
        _log.info("%s: asynchronous message, event %d", session.target_name, message.async_event)
        for observer in list(session.observers):
            observer(message)
        action = self._actions.get(message.async_event)  # type: ignore[call-overload]
        if action is None:
            # 248 to 255 are vendor-unique, what lies between is reserved: neither asks for anything.
            _log.info("%s: event %d means nothing here", session.target_name, message.async_event)
            return
        action(event.cid, message)

    def _scsi_event(self, cid: int, message: AsyncMessage) -> None:
        sense = sense_of(message.sense)
        lun = int.from_bytes(message.lun, "big")
        _log.info(
            "%s LUN field %x reports: %s", self._session.target_name, lun, sense.describe() if sense else "no sense"
        )

    def _logout_request(self, cid: int, message: AsyncMessage) -> None:
        """The target wants the connection logged out within Parameter3 seconds."""
        self._session.runtime.spawn(self._remove(cid), f"logout {self._session.target_name}")

    def _connection_drop(self, cid: int, message: AsyncMessage) -> None:
        """Parameter1 names the connection; Parameter2 is Time2Wait, Parameter3 Time2Retain."""
        session = self._session
        dropped, wait, retain = message.parameter1, float(message.parameter2), float(message.parameter3)
        if dropped not in session.cids:
            _log.info("%s drops connection %d, which is gone here too", session.target_name, dropped)
        elif len(session.cids) > 1 or session.connections.keeps:
            session.runtime.spawn(
                session.connections.dropped(dropped, wait, retain), f"connection {dropped} is dropped"
            )
        else:
            session.lost(f"asynchronous message {message.async_event}", wait)

    def _session_drop(self, cid: int, message: AsyncMessage) -> None:
        """All connections of the session; Parameter2 is Time2Wait."""
        self._session.lost(f"asynchronous message {message.async_event}", float(message.parameter2))

    def _negotiation_request(self, cid: int, message: AsyncMessage) -> None:
        """A Text Request, which may be empty, has to come on this connection within Parameter3 seconds."""
        self._session.runtime.spawn(self._negotiate(cid), f"negotiation {self._session.target_name}")

    def _task_termination(self, cid: int, message: AsyncMessage) -> None:
        """The plane stops the Data-Out and acknowledges (FastAbort, 4.2.3.4); the tasks end by their own answers."""

    async def _remove(self, cid: int) -> None:
        """One of several connections goes alone; with the last one the session does."""
        session = self._session
        if cid in session.cids and len(session.cids) > 1:
            with contextlib.suppress(errors.Error, OSError):
                # 11.9.1: on this connection, and to close it; moving its tasks first would be another logout.
                await session.connections.remove(cid, move_tasks=False)
        else:
            await self._log_out()

    async def _log_out(self) -> None:
        session = self._session
        number = session.id
        with contextlib.suppress(errors.Error, OSError, TimeoutError):
            await session.log_out(LogoutReason.CLOSE_SESSION)
        if session.is_on(number):
            session.lost("the target asked for a logout")

    async def _negotiate(self, cid: int) -> None:
        session = self._session
        number = session.id
        try:
            await session.renegotiate(cid=cid)
        except (errors.Error, OSError) as error:
            _log.info("%s asked for a negotiation that failed: %s", session.target_name, error)
            if session.is_on(number):
                await self._log_out()
