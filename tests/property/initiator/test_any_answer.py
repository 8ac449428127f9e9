"""Whatever a device answers, opening it works or ends in an error of ours, and nothing grows without bound."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from blockwire import errors
from blockwire.dataplane.api import TaskDone
from blockwire.dataplane.fake_disk import FakeRequest
from tests.unit.initiator.conftest import Bench

COMMANDS = {0x12: "INQUIRY", 0x1A: "MODE SENSE(6)", 0x25: "READ CAPACITY(10)", 0x9E: "READ CAPACITY(16)",
            0xA0: "REPORT LUNS"}  # fmt: skip
ANSWERS = st.dictionaries(
    st.tuples(st.sampled_from(sorted(COMMANDS)), st.sampled_from([0x00, 0x80, 0x83, 0xB0, 0xB2])),
    st.tuples(st.binary(max_size=80), st.booleans(), st.integers(0, 79), st.sampled_from([0, 2])),
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(ANSWERS)
def test_any_answer(answers: dict[tuple[int, int], tuple[bytes, bool, int, int]]) -> None:
    bench = Bench()
    honest = bench.plane.on_request
    largest = 0

    def reply(request: FakeRequest) -> TaskDone | None:
        nonlocal largest
        largest = max(largest, request.data_in)
        done = honest(request)
        if request.cdb is None or done is None:
            return done
        page = request.cdb[2] if request.cdb[0] == 0x12 and request.cdb[1] & 1 else 0
        found = answers.get((request.cdb[0], page))
        if found is None:
            return done
        noise, patch, at, status = found
        data = bytearray(done.data or b"")
        if patch:  # what the device would say, with some bytes in it overwritten
            data[at : at + len(noise)] = noise
        else:
            data = bytearray(noise)
        sense = bytes(noise[:18]) if status == 2 else b""
        return TaskDone(request.token, status, sense, data=bytes(data[: request.data_in]) if not status else None)

    bench.plane.on_request = reply

    async def work() -> None:
        session = await bench.session()
        try:
            lun = await session.lun(0)
            await session.luns()
            assert lun.block_size > 0
            repr(lun)
        except errors.Error:
            pass
        finally:
            await session.close()

    try:
        asyncio.run(asyncio.wait_for(work(), 150))
    finally:
        bench.plane.shutdown(0)
    assert largest <= 1 << 20
