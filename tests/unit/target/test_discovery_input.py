"""What an initiator can do wrong in a discovery session (RFC 7143 4.3, section 7): what comes back, what is said."""

from __future__ import annotations

import logging

import pytest

from blockwire.wire.nop import NopIn, NopOut
from blockwire.wire.reject import Reject
from tests.unit.target.conftest import Bench, Run
from tests.unit.target.raw_initiator import RawInitiator

ISID = bytes.fromhex("400001370011")


def header(opcode: int, flags: int = 0x80, cmd_sn: int = 1, data: int = 0, ahs: int = 0) -> bytes:
    """48 bytes with the tag 9."""
    found = bytes([opcode, flags, 0, 0, ahs]) + data.to_bytes(3, "big") + bytes(8) + (9).to_bytes(4, "big")
    return found + b"\xff" * 4 + cmd_sn.to_bytes(4, "big") + bytes(20)


async def goes_on(initiator: RawInitiator) -> bool:
    await initiator.send(NopOut(initiator_task_tag=77, cmd_sn=1).to_bytes())
    answer = await initiator.receive()
    return isinstance(answer, NopIn) and answer.initiator_task_tag == 77


@pytest.mark.parametrize(
    ("pdu", "reason"),
    [
        (header(0x01), 0x04),  # SCSI Command
        (header(0x05, cmd_sn=0), 0x04),  # Data-Out and SNACK have no CmdSN
        (header(0x10, cmd_sn=0), 0x04),
        (header(0x43), 0x04),  # Login Request
        (header(0x1B), 0x05),  # opcodes that are none
        (header(0x3E), 0x05),
        (header(0x04, 0xC0), 0x04),  # Text Request with F and C (11.10.2)
        (header(0x04, data=3) + b"=x\0\0", 0x04),  # a text without a key
        (header(0x06, 0x85), 0x04),  # a reserved logout reason
    ],
)
def test_what_does_not_belong_there_is_rejected(
    run: Run, caplog: pytest.LogCaptureFixture, pdu: bytes, reason: int
) -> None:
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        assert (await initiator.log_in(isid=ISID)).status == 0
        await initiator.send(pdu)
        answer = await initiator.receive()
        assert isinstance(answer, Reject)
        assert (answer.reason, answer.data) == (reason, pdu[:48])
        assert await goes_on(initiator)

    with caplog.at_level(logging.WARNING, "blockwire.target"):
        run(test)
    assert any(f"opcode {pdu[0] & 0x3F:#04x} is rejected" in line for line in caplog.messages)


def test_a_number_out_of_order_is_ignored(run: Run) -> None:
    # 4.2.2.1
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        assert (await initiator.log_in(isid=ISID)).status == 0
        for number in (0, 2, 9, 0x80000001):
            await initiator.send(header(0x04, cmd_sn=number))
        assert await goes_on(initiator)

    run(test)


@pytest.mark.parametrize(
    ("pdu", "says"),
    [
        (header(0x25), "a target's opcode"),
        (header(0x04, data=0xFFFFFF), "DataSegmentLength"),
        (b"\xff" * 48, "DataSegmentLength"),
        (header(0x04, ahs=1), "TotalAHSLength"),
    ],
)
def test_what_ends_the_session(run: Run, pdu: bytes, says: str) -> None:
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        assert (await initiator.log_in(isid=ISID)).status == 0
        await initiator.send(pdu)
        assert await initiator.closed()
        await bench.settle()
        told = [str(event.details) for event in bench.events]
        assert any(says in line for line in told), told
        assert len(bench.server.sessions) == 0

    run(test)


def test_a_ping_is_echoed_as_far_as_the_initiator_takes_it(run: Run) -> None:
    # 11.19: up to the first MaxRecvDataSegmentLength bytes
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        assert (await initiator.log_in(isid=ISID, keys=[("MaxRecvDataSegmentLength", "512")])).status == 0
        await initiator.send(NopOut(initiator_task_tag=3, cmd_sn=1, data=bytes(range(250)) * 4).to_bytes())
        answer = await initiator.receive()
        assert isinstance(answer, NopIn)
        assert answer.data == (bytes(range(250)) * 4)[:512]

    run(test)
