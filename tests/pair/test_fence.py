"""The Response Fence between our own ends (RFC 7143 4.2.2.3.3, 4.2.3.6)."""

from __future__ import annotations

import asyncio

import pytest

from blockwire.scsi.cdb import ModeSelect6
from blockwire.scsi.mode import CONTROL_PAGE
from blockwire.scsi.status import Status
from blockwire.testing.memory_link import TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.testing.tap import PassingPdu
from blockwire.wire.constants import Opcode
from tests.pair.exchange import pattern
from tests.pair.test_task_management import attention, hold_data_out

TEST_UNIT_READY = bytes(6)


@pytest.mark.parametrize("keys", [{}, {"TaskReporting": "ResponseFence,RFC3720"}])
def test_a_unit_attention_does_not_pass_the_status_of_aborted_tasks(keys: dict[str, str]) -> None:
    """4.2.3.6: with TAS a reset ends tasks of others by a status, which waits for the data that was asked for. The unit
    attention that tells of the reset comes behind it."""
    with SteppedPair("ram:1M", tapped=True, keys={"ImmediateData": "No", "InitialR2T": "Yes", **keys}) as pair:

        async def body() -> None:
            first, second = await pair.open(), await pair.open()
            await attention(first)
            await attention(second)
            page = CONTROL_PAGE.build(queue_algorithm=1, task_aborted_status=1)
            await first.scsi(ModeSelect6(len(page) + 4, page_format=True).encode(), 0, bytes(4) + page)
            await attention(second)
            link = pair.links[1]
            before = len(link.tap.pdus(TARGET))
            held = hold_data_out(link)
            write = asyncio.ensure_future(second.pwrite(pattern(1, 2048), 8192))
            await asyncio.sleep(0.1)
            assert held
            await first.reset()
            told = asyncio.ensure_future(second.scsi(TEST_UNIT_READY))
            await asyncio.sleep(0.5)
            assert not told.done(), "it waits for the status that is owed"

            def late(pdu: PassingPdu) -> list[bytes]:
                link.tap.intercept = None
                return [*held, pdu.raw]

            link.tap.intercept = late
            # any PDU lets the data through
            await second.scsi(TEST_UNIT_READY)
            assert (await told).status == Status.CHECK_CONDITION
            assert await write == 2048
            statuses = [pdu.raw[3] for pdu in link.tap.pdus(TARGET)[before:] if pdu.opcode == Opcode.SCSI_RESPONSE]
            assert statuses[:2] == [Status.TASK_ABORTED, Status.CHECK_CONDITION]
            await first.close()
            await second.close()

        pair.run(body())
