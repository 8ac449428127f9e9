"""The target's side of text exchanges: one instance for one connection in the full feature phase."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from blockwire.errors import NegotiationError, ProtocolError
from blockwire.negotiate import Negotiation, Parameters, Preferences
from blockwire.text.limits import TextLimits
from blockwire.wire import keys
from blockwire.wire.constants import RESERVED_TAG, RejectReason
from blockwire.wire.keys import Pairs
from blockwire.wire.pdu import WireError
from blockwire.wire.text import TextRequest, TextResponse

SendTargets = Callable[[str], Pairs]
"""The answer to SendTargets=value; :class:`ProtocolError` rejects it (appendix C)."""


@dataclass(frozen=True, slots=True)
class TextReply:
    """A Text Response to send; the carrier fills in StatSN, ExpCmdSN and MaxCmdSN."""

    response: TextResponse
    parameters: Parameters | None = None
    """New parameters, in force when the response is queued."""


@dataclass(slots=True)
class _Exchange:
    """One sequence of Text Requests."""

    initiator_task_tag: int
    negotiation: Negotiation
    text: bytearray
    pieces: deque[bytes]
    target_transfer_tag: int = RESERVED_TAG
    received: int = 0
    negotiated: bool = False


class TextTarget:
    """Answers Text Requests, one after the other (11.10: at most one is outstanding).

    Args:
        parameters: those of the connection; replaced after a renegotiation.
        send_targets: answers the SendTargets key.
        preferences: what the target wants in a renegotiation.
    """

    def __init__(
        self,
        parameters: Parameters,
        send_targets: SendTargets,
        preferences: Preferences,
        limits: TextLimits | None = None,
    ) -> None:
        self.parameters = parameters
        self.deadline: float | None = None
        self.limits = limits or TextLimits()
        self._send_targets = send_targets
        self._preferences = preferences
        self._exchange: _Exchange | None = None
        self._next_tag = 1
        self._to_declare: int | None = None

    def declare_segment_length(self, length: int) -> None:
        """The next text of the initiator is answered with this MaxRecvDataSegmentLength of ours, bytes (13.12)."""
        self._to_declare = length

    def handle_request(self, request: TextRequest, now: float) -> TextReply:
        """The reply; :class:`ProtocolError` (with its reject reason) is answered with a Reject, which resets all."""
        self.handle_timeout(now)  # nobody has to wake up for it: what is late is refused when it comes
        try:
            return self._handle(request, now)
        except WireError as error:
            self.reset()
            raise ProtocolError(str(error), evidence=f"RFC 7143 section {error.section}") from None
        except ProtocolError:
            self.reset()
            raise

    def handle_timeout(self, now: float) -> None:
        """Forget an exchange that the initiator stalls (11.10.4)."""
        if self.deadline is not None and now >= self.deadline:
            self.reset()

    def reset(self) -> None:
        """Forget the exchange; nothing of it takes effect (7.12)."""
        self._exchange = None
        self.deadline = None

    def _handle(self, request: TextRequest, now: float) -> TextReply:
        if request.final and request.continued:
            raise ProtocolError("F and C are both set in a Text Request", evidence="RFC 7143 section 11.10.2")
        exchange = self._current(request)
        self.deadline = now + self.limits.seconds
        exchange.received += len(request.data)
        if exchange.received > self.limits.text_bytes:
            raise ProtocolError(
                "the text is too long",
                RejectReason.LONG_OPERATION_REJECT,
                evidence=f"over {self.limits.text_bytes} bytes",
            )
        if exchange.pieces:
            if request.data or request.continued:
                raise ProtocolError("text came where an empty Text Request was due", evidence="RFC 7143 section 6.2")
            return self._piece(request, exchange)
        exchange.text += request.data
        if request.continued:
            return self._reply(request, exchange, b"", final=False, continued=False)
        whole = bytes(exchange.text)
        exchange.text.clear()
        answers = self._answer(keys.split_pairs(whole), exchange)
        limit = self.parameters.initiator_max_recv_data_segment_length
        exchange.pieces.extend(keys.cut(keys.join_pairs(answers), limit))
        return self._piece(request, exchange)

    def _current(self, request: TextRequest) -> _Exchange:
        exchange = self._exchange
        if request.target_transfer_tag == RESERVED_TAG:
            # 11.10.4: a new request; whatever was going on is forgotten.
            negotiation = Negotiation("target", self._preferences, base=self.parameters, leading=False)
            exchange = self._exchange = _Exchange(request.initiator_task_tag, negotiation, bytearray(), deque())
            return exchange
        if (
            exchange is None
            or exchange.initiator_task_tag != request.initiator_task_tag
            or exchange.target_transfer_tag != request.target_transfer_tag
        ):
            raise ProtocolError(
                "the Text Request goes on with an exchange that is over",
                RejectReason.INVALID_PDU_FIELD,
                evidence=f"ITT {request.initiator_task_tag:#x} TTT {request.target_transfer_tag:#x}",
            )
        return exchange

    def _answer(self, pairs: Pairs, exchange: _Exchange) -> Pairs:
        asked = [value for name, value in pairs if name == "SendTargets"]
        if asked:
            # Appendix C: "This PDU contains exactly one text key and value".
            if len(pairs) != 1:
                raise NegotiationError("SendTargets does not stand alone", key="SendTargets")
            return self._send_targets(asked[0])
        exchange.negotiated = exchange.negotiated or bool(pairs)
        answers = exchange.negotiation.receive(pairs, "full-feature").answers
        if self._to_declare is not None:
            answers += exchange.negotiation.offer("MaxRecvDataSegmentLength", str(self._to_declare))
            exchange.negotiated = True
            self._to_declare = None
        return answers

    def _piece(self, request: TextRequest, exchange: _Exchange) -> TextReply:
        data = exchange.pieces.popleft()
        continued = bool(exchange.pieces)
        return self._reply(request, exchange, data, final=request.final and not continued, continued=continued)

    def _reply(
        self, request: TextRequest, exchange: _Exchange, data: bytes, *, final: bool, continued: bool
    ) -> TextReply:
        parameters: Parameters | None = None
        if final:
            if exchange.negotiated:
                parameters = self.parameters = exchange.negotiation.finish()
            self.reset()
            tag = RESERVED_TAG
        else:
            tag = exchange.target_transfer_tag = self._next_tag
            self._next_tag = self._next_tag % (RESERVED_TAG - 1) + 1
        response = TextResponse(
            final=final,
            continued=continued,
            lun=request.lun,
            initiator_task_tag=request.initiator_task_tag,
            target_transfer_tag=tag,
            data=data,
        )
        return TextReply(response, parameters)
