"""Cutting a byte stream into PDUs and back, digests included (RFC 7143 sections 11.1, 11.2.3 and 13.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from blockwire.wire.constants import BHS_LENGTH, DIGEST_LENGTH
from blockwire.wire.crc32c import digest
from blockwire.wire.pdu import DigestError, Pdu, WireError, padding


class Frame(NamedTuple):
    """One PDU as it came: header, additional header segments, data without padding."""

    bhs: bytes
    ahs: bytes
    data: bytes


@dataclass(slots=True)
class Deframer:
    """Takes bytes in any pieces, gives whole PDUs.

    A data segment over ``max_data_segment_length`` or AHS over ``max_ahs_length`` is refused when its header is
    there, before anything of it is kept.
    """

    max_data_segment_length: int = 8192
    max_ahs_length: int = 1020
    header_digest: bool = False
    data_digest: bool = False
    _buffer: bytearray | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes."""
        if self._buffer is None:
            self._buffer = bytearray()
        self._buffer += data

    @property
    def buffered(self) -> int:
        """How many bytes wait for the rest of their PDU."""
        return len(self._buffer or b"")

    @property
    def first_byte(self) -> int | None:
        """The first byte of the PDU that is being received, from which its opcode can be told early."""
        return self._buffer[0] if self._buffer else None

    def take_rest(self) -> bytes:
        """The bytes that were received and belong to no PDU yet; they are gone from here."""
        rest, self._buffer = bytes(self._buffer or b""), None
        return rest

    def next(self) -> Frame | None:
        """The next whole PDU, or ``None``; :class:`WireError` or :class:`DigestError` ends the stream."""
        buffer = self._buffer
        if buffer is None or len(buffer) < BHS_LENGTH:
            return None
        ahs_length = buffer[4] * 4
        data_length = int.from_bytes(buffer[5:8], "big")
        if data_length > self.max_data_segment_length:
            raise WireError(
                f"DataSegmentLength {data_length} is over {self.max_data_segment_length}",
                field="DataSegmentLength",
                section="13.12",
            )
        if ahs_length > self.max_ahs_length:
            raise WireError(
                f"TotalAHSLength {ahs_length} is over {self.max_ahs_length}", field="TotalAHSLength", section="11.2.1.5"
            )
        header_end = BHS_LENGTH + ahs_length
        data_start = header_end + (DIGEST_LENGTH if self.header_digest else 0)
        if len(buffer) < data_start:
            return None
        if self.header_digest and digest(buffer[:header_end]) != buffer[header_end:data_start]:
            raise DigestError("the header digest does not match", field="HeaderDigest", section="13.1")
        padded = data_length + padding(data_length)
        end = data_start + padded + (DIGEST_LENGTH if self.data_digest and data_length else 0)
        if len(buffer) < end:
            return None
        segment = bytes(buffer[data_start : data_start + padded])
        if self.data_digest and data_length and digest(segment) != buffer[data_start + padded : end]:
            raise DigestError("the data digest does not match", field="DataDigest", section="13.1")
        frame = Frame(bytes(buffer[:BHS_LENGTH]), bytes(buffer[BHS_LENGTH:header_end]), segment[:data_length])
        del buffer[:end]
        return frame


def frame_pdu(pdu: Pdu, *, header_digest: bool = False, data_digest: bool = False) -> bytes:
    """The bytes of ``pdu`` on the wire."""
    header = pdu.encode() + pdu.ahs
    data = pdu.data + bytes(padding(len(pdu.data)))
    return b"".join(
        (header, digest(header) if header_digest else b"", data, digest(data) if data_digest and data else b"")
    )
