"""MaxRecvDataSegmentLength declared anew on live connections, from both ends (RFC 7143 6.4, 13.12): data before and
after, also while requests are in flight."""

from __future__ import annotations

import asyncio

import pytest

from blockwire.target.session import TargetSession
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.wire.constants import Opcode
from tests.pair.exchange import pattern

KEYS = {"MaxRecvDataSegmentLength": "8192", "InitialR2T": "No", "ImmediateData": "Yes", "FirstBurstLength": "65536"}
SIZE = 65536


def far(pair: SteppedPair) -> TargetSession:
    """The target's end of the only session."""
    (session,) = [session for session in pair.target.sessions if isinstance(session, TargetSession)]
    return session


def longest(pair: SteppedPair, end: int, opcode: Opcode, since: list[int]) -> int:
    """Longest data segment of these PDUs on any connection since a moment."""
    found = [pdu for link, at in zip(pair.links, since, strict=True) for pdu in link.tap.pdus(end)[at:]]
    return max((len(pdu.data) for pdu in found if pdu.opcode == opcode), default=0)


def moment(pair: SteppedPair, end: int) -> list[int]:
    return [len(link.tap.pdus(end)) for link in pair.links]


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("length", [512, 3000, 32768])
def test_from_the_initiator(connections: int, length: int) -> None:
    keys = {**KEYS, "MaxConnections": str(connections)}
    with SteppedPair("ram:1M", keys=keys, target_keys={"MaxRecvDataSegmentLength": "8192"}, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await lun.pwrite(pattern(1, SIZE), 0)
                assert await lun.pread(SIZE, 0) == pattern(1, SIZE)
                flying = [asyncio.ensure_future(lun.pread(SIZE, 0)) for _ in range(8)]
                await lun.session.renegotiate({"MaxRecvDataSegmentLength": str(length)})
                for done in await asyncio.gather(*flying):
                    assert done == pattern(1, SIZE)
                since = moment(pair, TARGET)
                for done in await asyncio.gather(*[lun.pread(SIZE, 0) for _ in range(8)]):
                    assert done == pattern(1, SIZE)
                assert longest(pair, TARGET, Opcode.DATA_IN, since) == length
                assert lun.session.reopened == 0

        pair.run(body())


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("length", [512, 3000, 32768])
def test_from_the_target(connections: int, length: int) -> None:
    keys = {**KEYS, "MaxConnections": str(connections)}
    with SteppedPair("ram:1M", keys=keys, target_keys={"MaxRecvDataSegmentLength": "8192"}, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await lun.pwrite(pattern(1, SIZE), 0)
                flying = [asyncio.ensure_future(lun.pwrite(pattern(n, SIZE), n * SIZE)) for n in range(2, 8)]
                far(pair).declare_segment_length(length)
                await asyncio.gather(*flying)
                await asyncio.sleep(0.1)
                since = moment(pair, INITIATOR)
                await asyncio.gather(*[lun.pwrite(pattern(n, SIZE), n * SIZE) for n in range(8, 14)])
                sent = (Opcode.DATA_OUT, Opcode.SCSI_COMMAND)
                assert max(longest(pair, INITIATOR, opcode, since) for opcode in sent) == length
                for n in (1, *range(2, 14)):
                    assert await lun.pread(SIZE, n * SIZE if n > 1 else 0) == pattern(n, SIZE)
                assert lun.session.keys["TargetMaxRecvDataSegmentLength"] == str(length)
                assert lun.session.reopened == 0

        pair.run(body())


def offers(pair: SteppedPair, link: int, end: int, opcode: Opcode) -> set[bytes]:
    """MaxRecvDataSegmentLength as one end declared it in the login on one connection."""
    return {
        word
        for pdu in pair.links[link].tap.pdus(end)
        if pdu.opcode == opcode
        for word in bytes(pdu.data).split(b"\0")
        if word.startswith(b"MaxRecvDataSegmentLength=")
    }


def test_later_logins_offer_what_was_declared_last() -> None:
    with SteppedPair("ram:1M", keys={**KEYS, "MaxConnections": "3"}, tapped=True) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                session = lun.session
                assert offers(pair, 0, INITIATOR, Opcode.LOGIN_REQUEST) == {b"MaxRecvDataSegmentLength=8192"}
                await session.renegotiate({"MaxRecvDataSegmentLength": "3000"}, cid=session.cids[0])
                await session.remove_connection(session.cids[-1])
                await session.add_connection()  # what one of several declared concerns no other
                assert offers(pair, -1, INITIATOR, Opcode.LOGIN_REQUEST) == {b"MaxRecvDataSegmentLength=8192"}
                await session.renegotiate({"MaxRecvDataSegmentLength": "2048"})
                far(pair).declare_segment_length(4096)
                await asyncio.sleep(0.1)
                await session.remove_connection(session.cids[-1])
                await session.add_connection()
                assert offers(pair, -1, INITIATOR, Opcode.LOGIN_REQUEST) == {b"MaxRecvDataSegmentLength=2048"}
                assert offers(pair, -1, TARGET, Opcode.LOGIN_RESPONSE) == {b"MaxRecvDataSegmentLength=4096"}
                count = len(pair.links)
                for link in pair.links:
                    link.cut(INITIATOR)
                assert await lun.pread(SIZE, 0) == bytes(SIZE)
                assert session.reopened == 1
                assert offers(pair, count, INITIATOR, Opcode.LOGIN_REQUEST) == {b"MaxRecvDataSegmentLength=2048"}
                assert session.keys["InitiatorMaxRecvDataSegmentLength"] == "2048"

        pair.run(body())
