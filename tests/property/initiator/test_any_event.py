"""Whatever a target announces and however its connections end, the session works again or says why not, and closes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from blockwire import errors
from blockwire.dataplane import api
from blockwire.initiator.options import Timers
from blockwire.testing import virtual_time
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.logout import LogoutResponse
from tests.property.target.test_any_control_pdu import Complaints
from tests.unit.initiator.test_connections import Several

QUICK = Timers(timeout=1.0, replacement_timeout=2.0, logout=0.05, reopen_first=0.001, reopen_longest=0.01)

MESSAGES = st.builds(
    AsyncMessage,
    async_event=st.sampled_from([0, 1, 2, 3, 4, 5, 6, 200, 255]), parameter1=st.integers(0, 4),
    parameter2=st.just(0), parameter3=st.integers(0, 1), data=st.binary(max_size=24),
)  # fmt: skip
EVENTS = st.one_of(
    MESSAGES, st.tuples(st.sampled_from(["lost", "closed", "frozen", "reject"]), st.integers(1, 3)),
    st.tuples(st.just("pause"), st.just(0)),
)  # fmt: skip
ANSWERS = st.builds(LogoutResponse, response=st.integers(0, 4), initiator_task_tag=st.just(0), time2wait=st.just(0))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(EVENTS, min_size=1, max_size=8), st.integers(0, 2), st.integers(1, 3), st.lists(ANSWERS, max_size=3),
    st.lists(st.sampled_from([0x0302, 0x020A, 0x0206]), max_size=2),
)  # fmt: skip
def test_any_events(
    events: list[Any], level: int, connections: int, answers: list[LogoutResponse], refusals: list[int]
) -> None:
    heard = Complaints()

    async def work() -> None:
        logging.getLogger("blockwire").addHandler(heard)
        bench = Several(connections, level=level, retain=1)
        bench.answers = list(answers)
        session = await bench.open(QUICK)
        lun = await session.lun(0)
        bench.fail_further = [errors.login_error(status, whose="peer") for status in refusals]
        for event in events:
            number = session.id
            if isinstance(event, AsyncMessage):
                bench.plane.inject(api.ControlPdu(number, 1, _with_length(event), event.data, 0, 0))
                continue
            what, cid = event
            if what == "pause":
                await asyncio.sleep(0.02)
            elif what == "reject":
                bench.plane.inject(api.ControlPdu(number, cid, b"\x3f\x80\x04" + bytes(45), b"", 0, 0))
            elif what == "closed":
                bench.plane.connections.pop((number, cid), None)
                bench.plane.inject(api.ConnectionClosed(number, cid))
            else:
                bench.plane.connections.pop((number, cid), None)
                if what == "frozen" and level == 2:
                    bench.plane.tasks.append(api.TaskView(number, 100 + cid, cid, 0, cid, frozen=True))
                bench.plane.inject(api.ConnectionLost(number, cid, "reset"))
        await asyncio.sleep(0.05)
        assert await lun.pread(512, 0) == bytes(512)
        await session.close()
        await asyncio.sleep(0.01)
        assert not bench.plane.sessions
        await bench.initiator.close()
        bench.plane.shutdown(0)

    try:
        virtual_time.run(asyncio.wait_for(work(), 600))
    finally:
        logging.getLogger("blockwire").removeHandler(heard)
    assert heard.lines == []


def _with_length(message: AsyncMessage) -> bytes:
    header = bytearray(message.encode())
    header[5:8] = len(message.data).to_bytes(3, "big")
    return bytes(header)
