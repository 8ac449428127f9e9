"""Asynchronous messages at the initiator (RFC 7143 11.9.1), headers typed by hand from the figure."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from typing import Any

import pytest

from blockwire.dataplane import api
from blockwire.dataplane.fake import answer_logout
from blockwire.initiator.session import State
from blockwire.wire.async_message import AsyncMessage
from tests.unit.initiator.conftest import FAST


def message(event: int, parameters: tuple[int, int, int] = (0, 0, 0), lun: int = 0) -> bytes:
    """Opcode 32h, F; LUN in bytes 8 to 15, tag ffffffffh; AsyncEvent in byte 36, Parameter1 to 3 in bytes 38 to 43."""
    header = bytearray(48)
    header[0], header[1], header[36] = 0x32, 0x80, event
    header[8:16] = lun.to_bytes(8, "big")
    header[16:20] = b"\xff" * 4
    struct.pack_into(">HHH", header, 38, *parameters)
    return bytes(header)


def inject(bench: Any, session: Any, header: bytes, data: bytes = b"") -> None:
    header = header[:5] + len(data).to_bytes(3, "big") + header[8:]
    bench.plane.inject(api.ControlPdu(session.id, 0, header, data))


def opcodes(bench: Any) -> list[int]:
    return [header[0] & 0x3F for _, _, header, _ in bench.plane.sent]


def test_a_scsi_event_is_told_and_changes_nothing(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        seen: list[AsyncMessage] = []
        session.observers.append(seen.append)
        # SenseLength 18, fixed format, UNIT ATTENTION, 2A/09 capacity data has changed.
        sense = bytes([0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2A, 0x09, 0, 0, 0, 0])
        inject(bench, session, message(0, lun=3 << 48), struct.pack(">H", 18) + sense)
        await asyncio.sleep(0.02)
        assert seen[0].sense == sense
        assert session.state is State.OPEN
        assert not bench.plane.sent

    scenario(work)


def test_a_dropped_connection_comes_back_after_time2wait(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session(replace(FAST, replacement_timeout=5.0))
        first = session.id
        inject(bench, session, message(2, (7, 0, 0)))  # another connection: not ours
        await asyncio.sleep(0.02)
        assert session.id == first
        started = asyncio.get_running_loop().time()
        inject(bench, session, message(2, (0, 1, 20)))
        await asyncio.sleep(0.02)
        assert session.state is State.REOPENING
        await session.ready()
        assert asyncio.get_running_loop().time() - started >= 1
        assert session.id != first
        assert not bench.plane.sent

    scenario(work)


def test_a_negotiation_request_is_answered_by_a_text_request(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        first = session.id

        def answer(number: int, header: bytes, data: bytes) -> tuple[bytes, bytes] | None:
            if header[0] & 0x3F != 0x04:
                return answer_logout(number, header, data)
            # Text Response, F; both tags reserved: the exchange is over (11.11).
            return bytes([0x24, 0x80]) + bytes(14) + header[16:20] + b"\xff" * 4 + bytes(24), b""

        bench.plane.on_pdu = answer
        inject(bench, session, message(4, (0, 0, 5)))
        await asyncio.sleep(0.05)
        assert opcodes(bench) == [0x04]
        assert session.id == first
        assert session.state is State.OPEN

    scenario(work)


@pytest.mark.parametrize("answered", [True, False])
def test_a_negotiation_that_fails_ends_in_a_logout(bench, scenario, answered: bool) -> None:
    async def work() -> None:
        session = await bench.session(replace(FAST, timeout=0.1))
        first = session.id

        def answer(number: int, header: bytes, data: bytes) -> tuple[bytes, bytes] | None:
            if header[0] & 0x3F != 0x04:
                return answer_logout(number, header, data)
            return (bytes([0x3F, 0x80, 0x09, 0, 0, 0, 0, 48]) + bytes(40), header) if answered else None

        bench.plane.on_pdu = answer
        inject(bench, session, message(4, (0, 0, 1)))
        await asyncio.sleep(0.3)
        assert opcodes(bench) == [0x04, 0x06]
        assert session.id != first
        assert session.state is State.OPEN

    scenario(work)


@pytest.mark.parametrize("event", [5, 6, 100, 248, 255])
def test_other_events_ask_for_nothing_here(bench, scenario, event: int) -> None:
    async def work() -> None:
        session = await bench.session()
        inject(bench, session, message(event, (1, 2, 3)), b"\x00\x00")
        await asyncio.sleep(0.02)
        assert session.state is State.OPEN
        assert not bench.plane.sent

    scenario(work)


def test_messages_with_nonsense_are_ignored(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        for data in (b"", b"\xff\xff", b"\x00\x12\x70"):
            inject(bench, session, message(0), data)
        await asyncio.sleep(0.02)
        assert session.state is State.OPEN

    scenario(work)
