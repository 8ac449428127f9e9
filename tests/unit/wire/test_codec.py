"""Framing, serial numbers, text blocks, and what is refused."""

from __future__ import annotations

import pytest

from blockwire import wire
from blockwire.wire import keys, serial
from blockwire.wire.crc32c import digest
from blockwire.wire.framing import Deframer, frame_pdu
from blockwire.wire.pdu import DigestError, WireError


def test_serial_arithmetic_wraps() -> None:
    # RFC 1982 with 32 bits.
    assert serial.less(0xFFFFFFFF, 0)
    assert not serial.less(0, 0xFFFFFFFF)
    assert not serial.less(5, 5)
    assert serial.less_equal(5, 5)
    assert not serial.less(0, 1 << 31)
    assert not serial.less(1 << 31, 0)
    assert serial.add(0xFFFFFFFF, 2) == 1
    assert serial.distance(0xFFFFFFFE, 3) == 5
    assert serial.distance(3, 0xFFFFFFFE) == -5


def test_command_window() -> None:
    assert serial.in_window(0, 0xFFFFFFF0, 0x10)
    assert serial.in_window(0xFFFFFFF0, 0xFFFFFFF0, 0x10)
    assert not serial.in_window(0x11, 0xFFFFFFF0, 0x10)
    # 11.4.11: MaxCmdSN = ExpCmdSN - 1 takes no command at all.
    assert not serial.in_window(7, 7, 6)


@pytest.mark.parametrize("header_digest", [False, True])
@pytest.mark.parametrize("data_digest", [False, True])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_deframer_takes_any_pieces(header_digest: bool, data_digest: bool, step: int) -> None:
    sent = [wire.NopOut(initiator_task_tag=n, data=bytes(n)) for n in (0, 1, 4, 61)]
    stream = b"".join(frame_pdu(pdu, header_digest=header_digest, data_digest=data_digest) for pdu in sent)
    deframer = Deframer(header_digest=header_digest, data_digest=data_digest)
    got = []
    for start in range(0, len(stream), step):
        deframer.feed(stream[start : start + step])
        while (frame := deframer.next()) is not None:
            got.append(wire.decode(*frame))
    assert got == sent
    assert deframer.take_rest() == b""


def test_digests_are_checked() -> None:
    stream = bytearray(frame_pdu(wire.NopOut(data=b"abc"), header_digest=True, data_digest=True))
    assert stream[48:52] == digest(stream[:48])
    for position, field in ((20, "HeaderDigest"), (53, "DataDigest")):
        damaged = bytearray(stream)
        damaged[position] ^= 1
        deframer = Deframer(header_digest=True, data_digest=True)
        deframer.feed(damaged)
        with pytest.raises(DigestError) as caught:
            deframer.next()
        assert caught.value.field == field


def test_lengths_are_refused_at_the_header() -> None:
    deframer = Deframer(max_data_segment_length=8192)
    deframer.feed(bytes([3, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF]) + bytes(40))
    with pytest.raises(WireError):
        deframer.next()


def test_values_must_fit_their_fields() -> None:
    with pytest.raises(WireError):
        wire.NopOut(initiator_task_tag=1 << 32)
    with pytest.raises(WireError):
        wire.TaskManagementRequest(function=128, initiator_task_tag=0)
    with pytest.raises(WireError):
        wire.LoginRequest(isid=b"12345", initiator_task_tag=0)
    with pytest.raises(WireError):
        wire.NopOut(lun=b"1234")


@pytest.mark.parametrize(
    "ahs", ["00110100", "0000010000000000", "00050200000000ff00050200000000ff", "0001030000000000"]
)
def test_bad_ahs(ahs: str) -> None:
    raw = bytes.fromhex(ahs)
    bhs = bytes([1, 0x80, 0, 0, len(raw) // 4]) + bytes(43)
    with pytest.raises(WireError):
        wire.ScsiCommand.decode(bhs, raw)


def test_unassigned_opcode() -> None:
    with pytest.raises(WireError):
        wire.decode(bytes([0x07]) + bytes(47))


@pytest.mark.parametrize(
    "block", [b"A=1", b"novalue\0", b"=x\0", b"key=1\0", b"\xff=1\0", b"A=\xff\0", b"A" * 64 + b"=1\0", b"A B=1\0"]
)
def test_bad_text(block: bytes) -> None:
    with pytest.raises(WireError):
        keys.split_pairs(block)


def test_text_is_lenient_about_nulls_only() -> None:
    assert keys.split_pairs(b"A=1\0\0\0B=\0") == [("A", "1"), ("B", "")]
    assert keys.split_pairs(b"") == []
    assert keys.split_pairs(b"X#NodeArchitecture=x\0iSCSIProtocolLevel=2\0")[1] == ("iSCSIProtocolLevel", "2")
    assert keys.cut(b"abcdef", 4) == [b"abcd", b"ef"]
    assert keys.cut(b"", 4) == [b""]
