"""Fields of requests as they pass on the wire between both ends of ours."""

from __future__ import annotations

from blockwire.initiator.options import Timers
from blockwire.testing.memory_link import INITIATOR
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.testing.tap import PassingPdu
from blockwire.wire.constants import Opcode, TaskFunction
from tests.pair.exchange import pattern

TIMERS = Timers(timeout=6.0, keep_alive_interval=3.0, keep_alive_timeout=3.0, logout=2.0)

NAMES_A_TASK = {1, 9}
"""ABORT TASK and QUERY TASK; TASK REASSIGN (8) is in test_recovery."""


def requests(pair: SteppedPair) -> list[PassingPdu]:
    return [
        pdu for link in pair.links for pdu in link.tap.pdus(INITIATOR) if pdu.opcode == Opcode.TASK_MANAGEMENT_REQUEST
    ]


def test_only_functions_about_a_task_reference_one() -> None:
    # 11.5.4: "for all the other functions, this field MUST be set to the reserved value 0xffffffff"
    with SteppedPair("ram:1M", tapped=True, timers=TIMERS, keys={"iSCSIProtocolLevel": "2"}) as pair:

        async def body() -> None:
            lun = await pair.open()
            session = lun.session
            await lun.pwrite(pattern(1, 512), 0)
            for function in (2, 4, 5, 10, 12, 6, 7, 11):
                await session.task_management(TaskFunction(function), 0)
                await lun.pread(512, 0)
            await lun.close()

        pair.run(body())
        seen = {}
        for pdu in requests(pair):
            function = pdu.header[1] & 0x7F
            seen[function] = pdu.header[20:24]
            assert (pdu.header[20:24] == b"\xff" * 4) is (function not in NAMES_A_TASK), function
        assert set(seen) >= {2, 4, 5, 6, 7, 10, 11, 12}
