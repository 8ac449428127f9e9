"""A tap in a link: sees every PDU that passes, with its place in the stream, and may drop, change, hold or repeat it.

A tapped link is two pairs with the tap between. It learns from the login which digests the PDUs carry (RFC 7143 13.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from blockwire.dataplane.api import TransportHandle
from blockwire.testing.memory_link import INITIATOR, TARGET, Pair, PairFactory
from blockwire.wire.constants import BHS_LENGTH, Opcode

UNDER_WAY = 256 * 1024
"""Most bytes that a tap holds for an end that does not take them."""


@dataclass(frozen=True, slots=True)
class PassingPdu:
    """One PDU as it passed. `start` counts bytes of its direction from the beginning of the connection."""

    end: int
    """Who sent it: `INITIATOR` or `TARGET`."""
    start: int
    raw: bytes
    """All of it: header, AHS, digests, data, padding."""
    header_length: int
    """Basic header segment, AHS and header digest."""

    @property
    def opcode(self) -> int:
        """Without the immediate bit."""
        return self.raw[0] & 0x3F

    @property
    def header(self) -> bytes:
        """The 48 bytes of the basic header segment."""
        return self.raw[:BHS_LENGTH]

    @property
    def stop(self) -> int:
        """Where the next one starts."""
        return self.start + len(self.raw)

    @property
    def data(self) -> bytes:
        """The data segment, without padding and digest."""
        length = int.from_bytes(self.raw[5:8], "big")
        return self.raw[self.header_length : self.header_length + length]


Intercept: TypeAlias = Callable[[PassingPdu], Sequence[bytes]]
"""Says what is passed on in the PDU's place: `[pdu.raw]` unchanged, `[]` nothing."""


class _Direction:
    def __init__(self) -> None:
        self.pdus: list[PassingPdu] = []
        self.partial = bytearray()
        self.start = 0
        self.queue = bytearray()
        self.ended = False
        self.closed = False


class Tap:
    """Implements `memory_link.Pair`. `pump` moves the bytes; the network calls it."""

    def __init__(self, make_pair: PairFactory) -> None:
        self._near = make_pair()
        """Between the initiator (its end 0) and the tap."""
        self._far = make_pair()
        """Between the tap and the target (its end 1)."""
        self._directions = (_Direction(), _Direction())
        self.header_digest = False
        self.data_digest = False
        self._full_feature = False
        self._agreed: set[bytes] = set()
        self.intercept: Intercept | None = None
        """Set it before the first byte or between whole PDUs."""

    def pdus(self, end: int | None = None) -> list[PassingPdu]:
        """What passed so far, of one sender or of both (the initiator's first)."""
        if end is None:
            return [*self._directions[INITIATOR].pdus, *self._directions[TARGET].pdus]
        return list(self._directions[end].pdus)

    # ------------------------------------------------------------------ the outer ends
    def _outer(self, end: int) -> Pair:
        return self._near if end == INITIATOR else self._far

    def _last_hop(self, end: int) -> Pair:
        """The pair whose `end` side delivers what `end` sent."""
        return self._far if end == INITIATOR else self._near

    def send(self, end: int, data: bytes) -> int:
        """See `Pair`."""
        return self._outer(end).send(end, data)

    def recv(self, end: int, most: int) -> bytes | None:
        """See `Pair`."""
        return self._outer(end).recv(end, most)

    def handle(self, end: int) -> TransportHandle:
        """See `Pair`."""
        return self._outer(end).handle(end)

    def close(self, end: int) -> None:
        """See `Pair`."""
        self._outer(end).close(end)

    def progress(self, end: int) -> tuple[int, int]:
        """See `Pair`; what the tap drops or adds counts too."""
        return self._outer(end).progress(end)[0], self._last_hop(end).progress(end)[1]

    def cut_after(self, end: int, at: int | None) -> None:
        """See `Pair`."""
        self._last_hop(end).cut_after(end, at)

    def damage(self, end: int, at: int, mask: int) -> None:
        """See `Pair`."""
        self._last_hop(end).damage(end, at, mask)

    def stall(self, end: int, on: bool) -> None:
        """See `Pair`."""
        self._last_hop(end).stall(end, on)

    def shape(self, end: int, chunk: int | None = None, capacity: int | None = None) -> None:
        """See `Pair`; both hops."""
        self._near.shape(end, chunk, capacity)
        self._far.shape(end, chunk, capacity)

    # ------------------------------------------------------------------ the middle
    def pump(self) -> bool:
        """Moves what can be moved; True when anything did."""
        moved = self._pump(INITIATOR, self._near, self._far)
        return self._pump(TARGET, self._far, self._near) or moved

    def _pump(self, end: int, source: Pair, sink: Pair) -> bool:
        way = self._directions[end]
        if way.closed:
            return False
        moved = False
        other = 1 - end
        while not way.ended and len(way.queue) < UNDER_WAY:
            try:
                data = source.recv(other, 65536)
            except OSError:
                data = b""
            if data is None:
                break
            moved = True
            if data:
                self._see(end, way, data)
            else:
                way.ended = True
        while way.queue:
            try:
                taken = sink.send(end, bytes(way.queue))
            except OSError:
                # The receiver is gone: the sender shall see the end as well.
                source.close(other)
                way.queue.clear()
                way.ended = True
                break
            if not taken:
                break
            del way.queue[:taken]
            moved = True
        if way.ended and not way.queue:
            sink.close(end)
            way.closed = True
            moved = True
        return moved

    def _see(self, end: int, way: _Direction, data: bytes) -> None:
        way.partial += data
        if self.intercept is None:
            way.queue += data
        while (pdu := self._next(end, way)) is not None:
            way.pdus.append(pdu)
            self._learn(pdu)
            if self.intercept is not None:
                way.queue += b"".join(self.intercept(pdu))

    def _next(self, end: int, way: _Direction) -> PassingPdu | None:
        buffer = way.partial
        if len(buffer) < BHS_LENGTH:
            return None
        header = BHS_LENGTH + buffer[4] * 4 + (4 if self.header_digest else 0)
        length = int.from_bytes(buffer[5:8], "big")
        whole = header + (length + 3) // 4 * 4 + (4 if self.data_digest and length else 0)
        if len(buffer) < whole:
            return None
        pdu = PassingPdu(end, way.start, bytes(buffer[:whole]), header)
        del buffer[:whole]
        way.start += whole
        return pdu

    def _learn(self, pdu: PassingPdu) -> None:
        if self._full_feature or pdu.opcode != Opcode.LOGIN_RESPONSE:
            return
        self._agreed |= set(pdu.data.split(b"\0"))
        # T=1, NSG=3 and status 0: the full feature phase begins, and with it the digests (11.13.3, 11.13.5).
        if pdu.header[1] & 0x83 == 0x83 and not pdu.header[36]:
            self._full_feature = True
            self.header_digest = b"HeaderDigest=CRC32C" in self._agreed
            self.data_digest = b"DataDigest=CRC32C" in self._agreed
