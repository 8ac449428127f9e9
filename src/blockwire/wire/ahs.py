"""Additional Header Segments (RFC 7143 section 11.2.2)."""

from __future__ import annotations

from blockwire.wire.constants import AhsType
from blockwire.wire.pdu import WireError, padding


def encode_segment(kind: int, body: bytes) -> bytes:
    """One AHS: AHSLength counts ``body``, which starts with the AHS-specific byte 3 (11.2.2.2)."""
    return len(body).to_bytes(2, "big") + bytes([kind]) + body + bytes(padding(3 + len(body)))


def split_segments(ahs: bytes) -> list[tuple[int, bytes]]:
    """(AHS code, body) of each segment, in order; :class:`WireError` if one runs past the end."""
    segments: list[tuple[int, bytes]] = []
    position = 0
    while position < len(ahs):
        length = int.from_bytes(ahs[position : position + 2], "big")
        end = position + 3 + length
        if length == 0 or end > len(ahs):
            raise WireError("an AHS is longer than TotalAHSLength", field="AHSLength", section="11.2.2.2")
        segments.append((ahs[position + 2] & 0x3F, ahs[position + 3 : end]))
        position = end + padding(3 + length)
    return segments


def encode_command_ahs(cdb: bytes, bidirectional_read_length: int | None) -> bytes:
    """The segments of a SCSI Command: CDB bytes from 16 on (11.2.2.3), the length of its read part (11.2.2.4)."""
    segments = b""
    if len(cdb) > 16:
        segments += encode_segment(AhsType.EXTENDED_CDB, b"\x00" + cdb[16:])
    if bidirectional_read_length is not None:
        body = b"\x00" + bidirectional_read_length.to_bytes(4, "big")
        segments += encode_segment(AhsType.BIDIRECTIONAL_READ_LENGTH, body)
    return segments


def decode_command_ahs(cdb16: bytes, ahs: bytes) -> tuple[bytes, int | None]:
    """(whole CDB, bidirectional read length or ``None``) of a SCSI Command with these segments."""
    cdb, read_length = cdb16, None
    for kind, body in split_segments(ahs):
        if kind == AhsType.EXTENDED_CDB and len(cdb) == 16 and len(body) >= 2:
            cdb += body[1:]
        elif kind == AhsType.BIDIRECTIONAL_READ_LENGTH and read_length is None and len(body) == 5:
            read_length = int.from_bytes(body[1:], "big")
        else:
            raise WireError(
                f"AHS of type {kind} with {len(body)} bytes is not allowed", field="AHSType", section="11.2.2.1"
            )
    return cdb, read_length
