"""What both roles' login machines share: framing, C-bit assembly and cutting, limits, events, the deadline."""

from __future__ import annotations

from collections import deque

from blockwire.errors import ConnectionLostError, Error, NegotiationError, ProtocolError, TimedOutError
from blockwire.login.result import LoginEvent, LoginFailed, LoginLimits
from blockwire.login.states import STEPS, Step
from blockwire.wire import keys
from blockwire.wire.framing import Deframer, Frame
from blockwire.wire.keys import Pairs
from blockwire.wire.pdu import Pdu, WireError

LOGIN_SEGMENT = 8192
"""The default MaxRecvDataSegmentLength is used during login, in both directions (6.3)."""


class LoginMachine:
    """Bytes and the time in; bytes, events and a deadline out.

    ``handle_*`` take input, ``poll_*`` give output and are called until they give nothing, ``deadline`` is when
    :meth:`handle_timeout` has to be called. Digests are never in use during login (13.1).
    """

    PEER = "peer"

    def __init__(self, limits: LoginLimits) -> None:
        self.limits = limits
        self.step = Step.IDLE
        self.deadline: float | None = None
        self._deframer = Deframer(max_data_segment_length=LOGIN_SEGMENT, max_ahs_length=0)
        self._transmit = bytearray()
        self._events: deque[LoginEvent] = deque()
        self._text_in = bytearray()
        self._pieces: deque[bytes] = deque()
        self._pdus_received = 0
        self._text_received = 0

    # --- what the caller calls ---------------------------------------------------------------------------

    def handle_bytes(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Take received bytes, any number at any place. What follows the last login PDU is kept as over-read."""
        if self.step is Step.FAILED:
            return
        self._deframer.feed(data)
        self._advance(now)

    def handle_eof(self, now: float) -> None:
        """The peer closed the connection."""
        if self.step not in (Step.DONE, Step.FAILED):
            self._fail(
                ConnectionLostError(f"the {self.PEER} closed the connection during login", code="login.connection-lost")
            )

    def handle_timeout(self, now: float) -> None:
        """Call when ``deadline`` has come; earlier calls do nothing."""
        if self.deadline is not None and now >= self.deadline and self.step not in (Step.DONE, Step.FAILED):
            self._fail(
                TimedOutError(
                    f"the login did not end within {self.limits.seconds:g} s",
                    code="login.timeout",
                    evidence=f"{self._pdus_received} PDUs were received",
                    next="check that the peer speaks iSCSI there and is not overloaded",
                )
            )

    def poll_transmit(self) -> bytes:
        """The bytes to send now; empty if there are none."""
        data = bytes(self._transmit)
        self._transmit.clear()
        return data

    def poll_event(self) -> LoginEvent | None:
        """The next event, or ``None``."""
        return self._events.popleft() if self._events else None

    # --- for the roles -------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        while self.step in (Step.IDLE, Step.RUNNING):
            try:
                frame = self._next_frame()
                if frame is None:
                    return
                self._count(frame)
                self._handle_frame(frame)
            except WireError as error:
                self._refuse(ProtocolError(str(error), evidence=f"RFC 7143 section {error.section}"))
            except Error as error:
                self._refuse(error)

    def _next_frame(self) -> Frame | None:
        return self._deframer.next()

    def _count(self, frame: Frame) -> None:
        self._pdus_received += 1
        self._text_received += len(frame.data)
        if self._pdus_received > self.limits.pdus:
            raise NegotiationError(
                "the login takes too many PDUs", code="login.too-long", evidence=f"over {self.limits.pdus}"
            )
        if self._text_received > self.limits.text_bytes:
            raise NegotiationError(
                "the login sends too much text", code="login.too-long", evidence=f"over {self.limits.text_bytes} bytes"
            )

    def _handle_frame(self, frame: Frame) -> None:
        raise NotImplementedError

    def _refuse(self, error: Error) -> None:
        """Answer an error as the role does, and fail."""
        self._fail(error)

    def _fail(self, error: Error, *, retry_with_md5: bool = False, text: dict[str, str] | None = None) -> None:
        self._move(Step.FAILED)
        self._pieces.clear()
        self._events.append(LoginFailed(error, retry_with_md5, text or {}, self._pdus_received))
        self._closed()

    def close(self) -> None:
        """The login is given up: what belongs to it is let go. Harmless after its end."""
        self._closed()

    def _closed(self) -> None:
        """Let go of what belongs to this login (challenges)."""

    def _move(self, step: Step) -> None:
        if step not in STEPS[self.step]:
            raise RuntimeError(f"a login cannot go from {self.step.name} to {step.name}")
        self.step = step
        if step in (Step.DONE, Step.FAILED):
            self.deadline = None

    def _send(self, pdu: Pdu) -> None:
        self._transmit += pdu.to_bytes()

    def _take_text(self, data: bytes, continued: bool) -> Pairs | None:
        """Add a data segment; the pairs when the logical text data segment is whole (6.1), else ``None``."""
        self._text_in += data
        if continued:
            return None
        whole = bytes(self._text_in)
        self._text_in.clear()
        return keys.split_pairs(whole)

    def _cut(self, pairs: Pairs) -> None:
        """Queue a text to be sent in pieces; all but the last carry the C bit."""
        self._pieces.extend(keys.cut(keys.join_pairs(pairs), LOGIN_SEGMENT))
