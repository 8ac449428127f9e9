"""The initiator's side of a text exchange: one instance for one sequence of Text Requests with one task tag."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from blockwire.errors import Error, ProtocolError, TimedOutError
from blockwire.negotiate import Negotiation, Parameters
from blockwire.text.limits import TextLimits
from blockwire.wire import keys
from blockwire.wire.constants import RESERVED_TAG
from blockwire.wire.keys import Pairs
from blockwire.wire.pdu import NO_LUN, WireError
from blockwire.wire.reject import Reject
from blockwire.wire.text import TextRequest, TextResponse


@dataclass(frozen=True, slots=True)
class TextDone:
    """The exchange ended well."""

    pairs: Pairs
    """All that the target sent, in order (SendTargets)."""
    parameters: Parameters | None
    """The result of a negotiation; in force from now on."""


@dataclass(frozen=True, slots=True)
class TextFailed:
    """The exchange ended badly; every parameter is what it was before (7.12)."""

    error: Error
    reset: bool = False
    """The target still waits: send the PDU of :meth:`TextInitiator.poll_request`, which resets it (6.4)."""


class TextInitiator:
    """Asks for something (``pairs``) or negotiates (``negotiation``, whose offers are sent).

    Args:
        initiator_task_tag: of the whole sequence (11.10.3).
        max_send: the target's MaxRecvDataSegmentLength.
        pairs: what to ask, for example ``[("SendTargets", "All")]``.
        negotiation: an engine for the full feature phase; its ``offer``s are to be in ``pairs``.
    """

    def __init__(
        self,
        initiator_task_tag: int,
        pairs: Pairs,
        max_send: int,
        now: float,
        negotiation: Negotiation | None = None,
        limits: TextLimits | None = None,
    ) -> None:
        self.limits = limits or TextLimits()
        self.deadline: float | None = now + self.limits.seconds
        self._tag = initiator_task_tag
        self._negotiation = negotiation
        self._max_send = max_send
        self._target_transfer_tag = RESERVED_TAG
        self._lun = NO_LUN
        self._pieces: deque[bytes] = deque(keys.cut(keys.join_pairs(pairs), max_send))
        self._queue: deque[TextRequest] = deque()
        self._events: deque[TextDone | TextFailed] = deque()
        self._text = bytearray()
        self._pairs: Pairs = []
        self._received = 0
        self._empty_rounds = 0
        self._last: TextRequest | None = None
        self._send_piece()

    def poll_request(self) -> TextRequest | None:
        """The PDU to send now, or ``None``; CmdSN and ExpStatSN are the carrier's."""
        return self._queue.popleft() if self._queue else None

    def poll_event(self) -> TextDone | TextFailed | None:
        """The end, once."""
        return self._events.popleft() if self._events else None

    def handle_pdu(self, pdu: TextResponse | Reject) -> None:
        """Take the target's answer to the last request."""
        if self.deadline is None:
            return
        try:
            if isinstance(pdu, Reject):
                raise ProtocolError(
                    "the target rejected the text request", pdu.reason, evidence=f"Reject reason {pdu.reason:#04x}"
                )
            self._take(pdu)
        except WireError as error:
            self._fail(ProtocolError(str(error), evidence=f"RFC 7143 section {error.section}"), pdu)
        except Error as error:
            self._fail(error, pdu)

    def handle_timeout(self, now: float) -> None:
        """Call when ``deadline`` has come."""
        if self.deadline is not None and now >= self.deadline:
            self._fail(
                TimedOutError(f"the text exchange did not end within {self.limits.seconds:g} s", code="text.timeout"),
                None,
            )

    def _send_piece(self) -> None:
        data = self._pieces.popleft() if self._pieces else b""
        continued = bool(self._pieces)
        self._last = TextRequest(
            final=not continued,
            continued=continued,
            lun=self._lun,
            initiator_task_tag=self._tag,
            target_transfer_tag=self._target_transfer_tag,
            data=data,
        )
        self._queue.append(self._last)

    def _take(self, response: TextResponse) -> None:
        last = self._last
        assert last is not None
        if response.initiator_task_tag != self._tag:
            raise ProtocolError(
                "the Text Response is for another task", evidence=f"ITT {response.initiator_task_tag:#x}"
            )
        if response.final and (response.continued or not last.final):
            raise ProtocolError("F is set where it must not be", evidence="RFC 7143 sections 11.11.1 and 11.11.2")
        if response.final != (response.target_transfer_tag == RESERVED_TAG) and not response.final:
            raise ProtocolError(
                "a Text Response without F has no Target Transfer Tag", evidence="RFC 7143 section 11.11.1"
            )
        self._received += len(response.data)
        if self._received > self.limits.text_bytes:
            raise ProtocolError("the target sends too much text", evidence=f"over {self.limits.text_bytes} bytes")
        self._empty_rounds = 0 if response.data or self._pieces else self._empty_rounds + 1
        if self._empty_rounds > self.limits.empty_rounds:
            raise ProtocolError("the target neither ends the text exchange nor goes on")
        self._target_transfer_tag, self._lun = response.target_transfer_tag, response.lun
        if self._pieces:
            if response.data:
                raise ProtocolError("the target answered before the text was whole", evidence="RFC 7143 section 6.2")
            self._send_piece()
            return
        self._text += response.data
        answers: Pairs = []
        if not response.continued and (response.final or self._negotiation is not None):
            answers = self._take_text()
        if response.final:
            if answers:
                raise ProtocolError("the target asks for answers in its last response", evidence=answers[0][0])
            self._done()
            return
        self._pieces.extend(keys.cut(keys.join_pairs(answers), self._max_send))
        self._send_piece()

    def _take_text(self) -> Pairs:
        whole = bytes(self._text)
        self._text.clear()
        pairs = keys.split_pairs(whole)
        self._pairs += pairs
        if self._negotiation is None:
            return []
        return self._negotiation.receive(pairs, "full-feature").answers

    def _done(self) -> None:
        parameters = self._negotiation.finish() if self._negotiation is not None else None
        self.deadline = None
        self._events.append(TextDone(self._pairs, parameters))

    def _fail(self, error: Error, pdu: TextResponse | Reject | None) -> None:
        self.deadline = None
        self._queue.clear()
        open_end = isinstance(pdu, TextResponse) and not pdu.final
        if open_end:
            # 6.4: a Text Request with the reserved tag resets the negotiation.
            self._queue.append(TextRequest(final=True, initiator_task_tag=self._tag))
        self._events.append(TextFailed(error, open_end))
