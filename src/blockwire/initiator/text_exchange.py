"""Text requests of a normal session in its full feature phase (RFC 7143 11.10): questions and new declarations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from blockwire import errors
from blockwire.negotiate import Negotiation, Parameters, Preferences
from blockwire.text.initiator import TextDone, TextFailed, TextInitiator
from blockwire.text.limits import TextLimits
from blockwire.wire.constants import Opcode
from blockwire.wire.keys import Pairs
from blockwire.wire.pdu import WireError
from blockwire.wire.reject import Reject
from blockwire.wire.text import TextResponse

if TYPE_CHECKING:
    from blockwire.initiator.session import Session

_TAG = 1
"""The plane puts a tag of its own in; the machine sees this one."""


async def exchange(
    session: Session, cid: int, pairs: Pairs, max_send: int, negotiation: Negotiation | None = None
) -> TextDone:
    """One whole text exchange on one connection. ProtocolError, ConnectionLostError or TimedOutError when it fails;
    every parameter is then what it was (7.12)."""
    limits = TextLimits(seconds=session.timers.timeout)
    machine = TextInitiator(_TAG, pairs, max_send, session.runtime.now(), negotiation, limits)
    while True:
        while (request := machine.poll_request()) is not None:
            token = session.plane.send_pdu(session.id, cid, request.encode(), request.data)
            waiting = session.dispatch.answer(token)
        match machine.poll_event():
            case TextDone() as done:
                return done
            case TextFailed(error=error):
                raise error
        left = limits.seconds if machine.deadline is None else max(0.0, machine.deadline - session.runtime.now())
        try:
            async with session.runtime.timeout(left):
                answer = await waiting
        except TimeoutError as error:
            raise errors.TimedOutError("the target does not answer a text request", code="text.timeout") from error
        header, data = bytes(answer.header), bytes(answer.data)
        try:
            if header[0] & 0x3F == Opcode.REJECT:
                machine.handle_pdu(Reject.decode(header, b"", data))
            else:
                machine.handle_pdu(replace(TextResponse.decode(header, b"", data), initiator_task_tag=_TAG))
        except WireError as error:
            raise errors.ProtocolError(f"the answer to a text request is malformed: {error}") from error


async def renegotiate(session: Session, cid: int, parameters: Parameters, keys: Mapping[str, str]) -> Parameters:
    """Negotiates `keys` anew on a live connection; without any it tells the target that nothing is to change. Gives
    the parameters that are in force. In the full feature phase that is MaxRecvDataSegmentLength (13.12)."""
    negotiation = Negotiation("initiator", Preferences(()), base=parameters, leading=False)
    pairs: Pairs = []
    for name, value in keys.items():
        pairs += negotiation.offer(name, value)
    before = parameters.initiator_max_recv_data_segment_length
    wanted = negotiation.parameters().initiator_max_recv_data_segment_length
    if wanted > before:
        # From the moment the target reads the request it may send so much.
        await _declare(session, cid, "max_recv_data_segment_length", wanted)
    try:
        done = await exchange(session, cid, pairs, parameters.target_max_recv_data_segment_length, negotiation)
    except errors.Error:
        if wanted > before:
            await _declare(session, cid, "max_recv_data_segment_length", before)
        raise
    found = done.parameters or parameters
    if wanted < before:
        await _declare(session, cid, "max_recv_data_segment_length", wanted)
    if found.target_max_recv_data_segment_length != parameters.target_max_recv_data_segment_length:
        await _declare(session, cid, "max_send_data_segment_length", found.target_max_recv_data_segment_length)
    return found


async def _declare(session: Session, cid: int, name: str, value: int) -> None:
    await session.dispatch.op(session.plane.configure(session.id, cid, {name: value}))
