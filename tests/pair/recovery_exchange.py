"""What the recovery tests do over one to four connections, and where the PDUs of that lie on each of them."""

from __future__ import annotations

import asyncio
import contextlib
from functools import cache

from blockwire import errors
from blockwire.initiator.logical_unit import Lun
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.wire.constants import TaskFunction
from tests.pair.exchange import DIGESTS, SMALL, pattern

TARGET_KEYS = {"MaxRecvDataSegmentLength": "1024", "InitialR2T": "No", "DefaultTime2Wait": "0"}

SPREAD = ((0, 5120), (8192, 6144), (16384, 512), (20480, 4096))
"""(offset, length) of the writes that are in flight together: several R2Ts each, and one within the first burst."""


def recovery_pair(connections: int, level: int, digests: bool = False, **options: object) -> SteppedPair:
    """A pair with small segments; everything is asked for by the initiator's keys."""
    keys = {
        **SMALL, **(DIGESTS if digests else {}), "DefaultTime2Wait": "0", "DefaultTime2Retain": "20",
        "MaxConnections": str(connections), "ErrorRecoveryLevel": str(level), "iSCSIProtocolLevel": "2",
    }  # fmt: skip
    return SteppedPair("ram:1M", keys=keys, target_keys=TARGET_KEYS, **options)  # type: ignore[arg-type]


def data_of(round_: int, number: int) -> bytes:
    """What is written in a round at a place of `SPREAD`."""
    return pattern(100 * round_ + number, SPREAD[number][1])


def expected_after(rounds: int) -> bytes:
    """The first 32 KiB of the store after so many rounds."""
    disk = bytearray(32768)
    for round_ in range(rounds):
        for number, (offset, length) in enumerate(SPREAD):
            disk[offset : offset + length] = data_of(round_, number)
    return bytes(disk)


async def one_round(lun: Lun, round_: int) -> None:
    """Writes and reads, all in flight together on whatever connections there are; every byte is compared."""
    await asyncio.gather(*[lun.pwrite(data_of(round_, n), SPREAD[n][0]) for n in range(len(SPREAD))])
    found = await asyncio.gather(*[lun.pread(length, offset) for offset, length in SPREAD])
    for number, data in enumerate(found):
        assert data == data_of(round_, number), f"round {round_}, {SPREAD[number]}"


async def rounds(lun: Lun) -> None:
    """Data, task management between the data, a connection that goes and comes, more data."""
    session = lun.session
    await one_round(lun, 0)
    functions = [lun.abort_task_set(), session.task_management(TaskFunction.QUERY_TASK_SET, lun.lun)]
    await asyncio.gather(*functions)
    await lun.pread(512, 0)
    if len(session.cids) > 1:
        await asyncio.gather(session.remove_connection(session.cids[-1]), lun.pread(4096, 8192))
        await one_round(lun, 1)
        # As many may be open again already; and that its login was cut is the caller's to hear.
        with contextlib.suppress(errors.UsageError, errors.UnreachableError):
            await session.add_connection()
    else:
        await one_round(lun, 1)
    await one_round(lun, 2)
    await lun.flush()
    assert await lun.pread(32768, 0) == expected_after(3)


async def use(pair: SteppedPair) -> tuple[int, int]:
    """Opens, works, closes. A leading login that fails is tried again once. Gives how often the session was opened
    again and how often tasks went on elsewhere."""
    for attempt in range(3):
        try:
            lun = await pair.open()
        except errors.UnreachableError:
            assert attempt < 2
            continue
        break
    async with lun:
        await rounds(lun)
        return lun.session.reopened, lun.session.connections.recovered


Ends = tuple[tuple[tuple[int, int, int], ...], ...]


@cache
def streams(
    connections: int, level: int, digests: bool = False
) -> tuple[tuple[tuple[tuple[int, int, int], ...], ...], ...]:
    """For each connection of the exchange without faults, and each end: (start, header length, stop) of its PDUs."""
    with recovery_pair(connections, level, digests, tapped=True) as pair:
        assert pair.run(use(pair)) == (0, 1 if connections > 1 and level == 2 else 0)
        found = []
        for link in pair.links:
            ends = []
            for end in (INITIATOR, TARGET):
                ends.append(tuple((pdu.start, pdu.header_length, pdu.stop) for pdu in link.tap.pdus(end)))
            found.append(tuple(ends))
    return tuple(found)


def boundaries(connections: int, level: int, link: int, end: int) -> list[int]:
    """Where the PDUs of one end of one connection begin."""
    return [start for start, _, _ in streams(connections, level)[link][end]]


def inside(connections: int, level: int, link: int, end: int) -> list[int]:
    """Places inside each header and payload."""
    found: set[int] = set()
    for start, header, stop in streams(connections, level)[link][end]:
        found |= {start + 1, start + 20, start + 47}
        if stop > start + header:
            found |= {start + header, (start + header + stop) // 2, stop - 1}
    return sorted(found)
