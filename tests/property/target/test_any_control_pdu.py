"""Any control PDU in the full feature phase is answered and breaks nothing of ours.

Any bytes in a discovery session end it at worst.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from blockwire.config import arguments
from blockwire.dataplane import api
from blockwire.wire.keys import join_pairs
from tests.unit.target.conftest import NAME, Bench

KEYS = ["SendTargets", "MaxRecvDataSegmentLength", "TargetAlias", "InitiatorAlias", "HeaderDigest", "X-a", "AuthMethod",
        "InitiatorName", "CHAP_A", "TargetAddress", "MaxBurstLength"]  # fmt: skip
TEXTS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(["", "All", "512", "65536", "x", "None", "Reject", NAME, "1~2"])),
    max_size=3,
).map(join_pairs) | st.binary(max_size=40)


@st.composite
def control_pdus(draw: st.DrawFn) -> tuple[bytes, bytes]:
    header = bytearray(draw(st.binary(min_size=48, max_size=48)))
    header[0] = draw(st.sampled_from([0x02, 0x42, 0x04, 0x44, 0x06, 0x46, 0x04, 0x04]))
    if header[0] & 0x3F == 0x04:
        header[1] = draw(st.sampled_from([0x80, 0x80, 0x00, 0x40, 0xC0]))
        header[20:24] = draw(st.sampled_from([b"\xff" * 4, b"\xff" * 4, b"\0\0\0\1"]))
    elif header[0] & 0x3F == 0x02:
        header[1] = 0x80 | draw(st.integers(0, 14))
        header[8:16] = draw(st.sampled_from([bytes(8), bytes([0, 1]) + bytes(6)]))
    else:
        header[1] = 0x80 | draw(st.integers(0, 4))
        header[20:22] = draw(st.sampled_from([b"\0\1", b"\0\2"]))
    data = draw(TEXTS) if header[0] & 0x3F == 0x04 else b""
    header[4:8] = len(data).to_bytes(4, "big")
    return bytes(header), data


class Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.exc_info}")


def bench_with(test: Callable[[Bench], Awaitable[Any]]) -> None:
    heard = Complaints()
    logger = logging.getLogger("blockwire")
    logger.addHandler(heard)

    async def main() -> None:
        configuration = arguments.build(("ram:1M",), host="host", portals=["127.0.0.1:0"], target_name=NAME)
        limits = configuration.limits.model_copy(update={"drain_seconds": 0.0})
        bench = Bench(configuration.model_copy(update={"limits": limits}))
        bench.dispatch.attach()
        await bench.server.start()
        try:
            await test(bench)
        finally:
            async with asyncio.timeout(150):
                await bench.server.stop()
            bench.dispatch.close()
            bench.plane.shutdown(1)

    try:
        asyncio.run(asyncio.wait_for(main(), 150))
    finally:
        logger.removeHandler(heard)
    assert heard.lines == []


@settings(max_examples=60, deadline=None)
@given(st.lists(control_pdus(), min_size=1, max_size=5), st.booleans())
def test_any_control_pdu_is_answered(pdus: list[tuple[bytes, bytes]], level2: bool) -> None:
    async def test(bench: Bench) -> None:
        keys = [("ErrorRecoveryLevel", "2"), ("iSCSIProtocolLevel", "2")] if level2 else []
        _, session = await bench.log_in(keys=keys)
        for tag, (header, data) in enumerate(pdus):
            bench.plane.inject(api.ControlPdu(session, 1, header, data, 100 + tag))
            await bench.settle()
            answered = [one for one in bench.plane.replies if one[1] == 100 + tag]
            if session not in bench.plane.sessions:
                return
            assert len(answered) == 1

    bench_with(test)


@settings(max_examples=40, deadline=None)
@given(st.lists(control_pdus().map(lambda pdu: pdu[0] + pdu[1] + bytes(-len(pdu[1]) % 4)) | st.binary(max_size=60),
                max_size=4))  # fmt: skip
def test_any_bytes_in_a_discovery_session(chunks: list[bytes]) -> None:
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        assert (await initiator.log_in()).status == 0
        try:
            for chunk in chunks:
                await initiator.send(chunk)
            initiator.writer.write_eof()
        except ConnectionError:
            pass
        assert await initiator.closed()
        await bench.settle()
        assert len(bench.server.half_open) == 0
        assert len(bench.server.sessions) == 0

    bench_with(test)
