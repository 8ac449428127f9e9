"""What is reserved is ignored when it comes and 0 when it goes (RFC 7143 section 11); a reason that is never sent."""

from __future__ import annotations

import pytest

from blockwire.wire import decode
from blockwire.wire.constants import RejectReason
from blockwire.wire.pdu import WireError
from blockwire.wire.reject import Reject

# By the figures of section 11: opcode, byte 1 as it comes, words to fill in, reserved bytes, reserved bits of byte 1.
FIGURES: list[tuple[int, int, list[tuple[int, int]], list[tuple[int, int]], int]] = [
    (0x40, 0x80, [(16, 7), (20, 0xFFFFFFFF)], [(2, 4), (32, 48)], 0x7F),  # NOP-Out
    (0x01, 0xC1, [(16, 7), (20, 512)], [(3, 4)], 0x18),  # SCSI Command (byte 2 is PRI: RFC 7144 5.1.1)
    (0x42, 0x85, [(16, 7), (20, 0xFFFFFFFF)], [(2, 4), (40, 48)], 0x00),  # Task Management Function Request
    (0x43, 0x87, [(8, 0x40000137)], [(22, 24), (32, 48)], 0x30),  # Login Request
    (0x04, 0x80, [(16, 7), (20, 0xFFFFFFFF)], [(2, 4), (32, 48)], 0x3F),  # Text Request
    (0x05, 0x80, [(16, 7), (20, 9)], [(2, 4), (24, 28), (32, 36), (44, 48)], 0x7F),  # Data-Out
    (0x06, 0x81, [(16, 7), (20, 1 << 16)], [(2, 4), (8, 16), (22, 24), (32, 48)], 0x00),  # Logout Request
    (0x10, 0x81, [(16, 0xFFFFFFFF), (20, 0xFFFFFFFF)], [(2, 4), (24, 28), (32, 40)], 0x70),  # SNACK Request
    (0x20, 0x80, [(16, 0xFFFFFFFF), (20, 9)], [(2, 4), (36, 48)], 0x7F),  # NOP-In
    (0x21, 0x80, [(16, 7)], [(10, 16)], 0x61),  # SCSI Response (bytes 8 and 9: RFC 7144 5.2.1)
    (0x22, 0x80, [(16, 7)], [(3, 4), (11, 16), (20, 24), (36, 48)], 0x7F),  # Task Management Function Response
    (0x23, 0x87, [(8, 0x40000137)], [(20, 24), (38, 48)], 0x30),  # Login Response
    (0x24, 0x80, [(16, 7), (20, 0xFFFFFFFF)], [(2, 4), (36, 48)], 0x3F),  # Text Response
    (0x25, 0x80, [(16, 7), (20, 0xFFFFFFFF)], [(2, 3)], 0x38),  # Data-In
    (0x26, 0x80, [(16, 7)], [(3, 4), (8, 16), (20, 24), (36, 40), (44, 48)], 0x7F),  # Logout Response
    (0x31, 0x80, [(16, 7), (20, 9), (44, 512)], [(2, 4)], 0x7F),  # R2T
    (0x32, 0x80, [(16, 0xFFFFFFFF)], [(2, 4), (20, 24), (44, 48)], 0x7F),  # Asynchronous Message
    (0x3F, 0x80, [(16, 0xFFFFFFFF)], [(3, 4), (8, 16), (20, 24), (40, 48)], 0x7F),  # Reject
]


@pytest.mark.parametrize(
    ("opcode", "flags", "words", "reserved", "bits"), FIGURES, ids=[f"{row[0] & 0x3F:#04x}" for row in FIGURES]
)
def test_reserved_bits_change_nothing(
    opcode: int, flags: int, words: list[tuple[int, int]], reserved: list[tuple[int, int]], bits: int
) -> None:
    clean = bytearray(48)
    clean[0:2] = bytes([opcode, flags])
    if opcode == 0x3F:
        clean[2] = 4
    for at, value in words:
        clean[at : at + 4] = value.to_bytes(4, "big")
    dirty = bytearray(clean)
    dirty[0] |= 0x80
    dirty[1] |= bits
    for first, end in reserved:
        dirty[first:end] = b"\xff" * (end - first)
    found = decode(bytes(dirty), b"", b"")
    assert found == decode(bytes(clean), b"", b"")
    sent = found.encode()
    assert sent[0] & 0x80 == 0
    assert sent[1] & bits == 0
    assert all(not any(sent[first:end]) for first, end in reserved)


def test_the_deprecated_reject_reason_is_read_and_never_sent() -> None:
    # 11.17.1: 0x0b MUST NOT be used; who receives it has to know it (note 3)
    raw = bytes([0x3F, 0x80, 0x0B, 0]) + bytes(12) + b"\xff" * 4 + bytes(28)
    received = Reject.decode(raw)
    assert received.reason == 0x0B
    with pytest.raises(WireError, match="0x0B"):
        received.encode()
    for reason in RejectReason:
        if reason != 0x0B:
            assert Reject(reason=reason).encode()[2] == reason
