"""The tap sees PDUs whole, in their places, whatever the pieces; and does what it is told."""

from __future__ import annotations

import pytest

from blockwire.testing.memory_link import INITIATOR, TARGET, PythonPair
from blockwire.testing.tap import PassingPdu, Tap


def pdu(opcode: int, data: bytes = b"", flags: int = 0x80) -> bytes:
    """A PDU by hand (RFC 7143 11.2.1): opcode, flags, lengths, 40 more bytes, padded data."""
    header = bytes([opcode, flags, 0, 0, 0]) + len(data).to_bytes(3, "big") + bytes(40)
    return header + data + bytes(-len(data) % 4)


def pump(tap: Tap) -> None:
    while tap.pump():
        pass


def arrived(tap: Tap, end: int) -> bytes:
    pump(tap)
    data = b""
    while piece := tap.recv(end, 1000):
        data += piece
        pump(tap)
    return data


@pytest.mark.parametrize("piece", [1, 10, 48, 1000])
def test_sees_every_pdu_in_its_place(piece: int) -> None:
    tap = Tap(PythonPair)
    stream = pdu(0x43, b"abcde") + pdu(0x00) + pdu(0x01, bytes(100))
    for start in range(0, len(stream), piece):
        tap.send(INITIATOR, stream[start : start + piece])
        pump(tap)
    assert arrived(tap, TARGET) == stream
    assert [(p.start, p.opcode, len(p.data)) for p in tap.pdus(INITIATOR)] == [(0, 3, 5), (56, 0, 0), (104, 1, 100)]
    assert tap.pdus(INITIATOR)[0].data == b"abcde"
    assert tap.progress(INITIATOR) == (len(stream), len(stream))


def test_learns_the_digests_from_the_login() -> None:
    tap = Tap(PythonPair)
    # T=1, CSG=1, NSG=3, and status 0: the last login response.
    tap.send(TARGET, pdu(0x23, b"HeaderDigest=CRC32C\0DataDigest=CRC32C\0", 0x87))
    assert arrived(tap, INITIATOR)
    assert tap.header_digest
    assert tap.data_digest
    nop = pdu(0x00, b"ping")
    tap.send(INITIATOR, nop[:48] + b"HHHH" + nop[48:] + b"DDDD")
    assert arrived(tap, TARGET).endswith(b"DDDD")
    assert tap.pdus(INITIATOR)[0].data == b"ping"
    assert tap.pdus(INITIATOR)[0].header_length == 52


def test_drops_changes_and_repeats() -> None:
    tap = Tap(PythonPair)

    def intercept(passing: PassingPdu) -> list[bytes]:
        return {5: [], 1: [passing.raw, passing.raw]}.get(passing.opcode, [passing.raw])

    tap.intercept = intercept
    tap.send(INITIATOR, pdu(5, b"gone") + pdu(1) + pdu(0))
    assert arrived(tap, TARGET) == pdu(1) + pdu(1) + pdu(0)


def test_an_end_passes_through_after_the_last_byte() -> None:
    tap = Tap(PythonPair)
    tap.send(INITIATOR, pdu(0))
    tap.close(INITIATOR)
    assert arrived(tap, TARGET) == pdu(0)
    assert tap.recv(TARGET, 1) == b""


def test_a_cut_behind_the_tap_ends_both_sides() -> None:
    tap = Tap(PythonPair)
    tap.cut_after(INITIATOR, 10)
    tap.send(INITIATOR, pdu(0))
    pump(tap)
    assert tap.recv(TARGET, 100) == pdu(0)[:10]
    with pytest.raises(ConnectionResetError):
        tap.recv(TARGET, 100)
    tap.send(INITIATOR, pdu(0))
    pump(tap)
    assert tap.recv(INITIATOR, 100) == b""


def test_a_receiver_that_takes_nothing_holds_the_sender_back() -> None:
    tap = Tap(PythonPair)
    total = 0
    for _ in range(100):
        total += tap.send(INITIATOR, bytes(65536))
        pump(tap)
    assert total < 100 * 65536
