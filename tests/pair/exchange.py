"""What the pair tests do over a connection: one fixed exchange, always comparing the data, and where its PDUs lie."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from blockwire import errors
from blockwire.initiator.logical_unit import Lun
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair

SMALL = {
    "MaxRecvDataSegmentLength": "1024",
    "MaxBurstLength": "2048",
    "FirstBurstLength": "1024",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
}
"""Small segments and bursts: a few KiB have immediate and unsolicited data, several R2Ts and many Data-In."""

TARGET_SMALL = {"MaxRecvDataSegmentLength": "1024", "InitialR2T": "No", "DefaultTime2Wait": "0"}

DIGESTS = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}


def pattern(seed: int, length: int) -> bytes:
    """Bytes that are the same for the same seed."""
    return random.Random(seed).randbytes(length)


WRITES = ((0, 512), (1024, 5120), (8192, 1024), (512, 512))
"""(offset, length) of the writes of the exchange: within the first burst and beyond, the last one next to the first."""


def expected() -> bytes:
    """The first 16 KiB of the store after the exchange."""
    disk = bytearray(16384)
    for seed, (offset, length) in enumerate(WRITES):
        disk[offset : offset + length] = pattern(seed, length)
    return bytes(disk)


async def write_and_read(lun: Lun) -> None:
    """Writes, reads every range back and compares, flushes."""
    for seed, (offset, length) in enumerate(WRITES):
        await lun.pwrite(pattern(seed, length), offset)
    whole = expected()
    for offset, length in ((0, 16384), (1024, 5120), (0, 512)):
        assert await lun.pread(length, offset) == whole[offset : offset + length], f"{length} bytes at {offset}"
    await lun.flush()


async def exchange(pair: SteppedPair) -> int:
    """Opens LUN 0, writes and reads, closes. A login that fails is tried again once; gives how often that was."""
    failures = 0
    while True:
        try:
            lun = await pair.open()
        except errors.UnreachableError:
            failures += 1
            assert failures == 1, "the second connection has no faults"
            continue
        break
    async with lun:
        await write_and_read(lun)
    return failures


@dataclass(frozen=True)
class Places:
    """Where PDUs begin in the two streams of the exchange without faults: (start, header length, stop)."""

    to_target: tuple[tuple[int, int, int], ...]
    to_initiator: tuple[tuple[int, int, int], ...]

    def boundaries(self, end: int) -> list[int]:
        """Where each PDU of `end` begins."""
        return [start for start, _, _ in (self.to_target if end == INITIATOR else self.to_initiator)]

    def cuts(self, end: int, every_byte: bool = False) -> list[int]:
        """Bytes after which to cut what `end` sends: each PDU boundary, places inside each header and payload."""
        pdus = self.to_target if end == INITIATOR else self.to_initiator
        if every_byte:
            return list(range(pdus[-1][2]))
        found: set[int] = set()
        for start, header, stop in pdus:
            found |= {start, start + 1, start + 20, start + 47, start + header}
            if stop > start + header:
                found |= {start + header + 1, (start + header + stop) // 2, stop - 1}
        # A cut behind the last byte loses nothing but the logout.
        return sorted(at for at in found if at < pdus[-1][2])


def small_pair(digests: bool = False, **options: object) -> SteppedPair:
    """A pair with small segments."""
    keys = SMALL | (DIGESTS if digests else {})
    return SteppedPair("ram:1M", keys=keys, target_keys=TARGET_SMALL, **options)  # type: ignore[arg-type]


@cache
def places(digests: bool = False) -> Places:
    """Of the exchange on `small_pair`, without logout."""
    with small_pair(digests, tapped=True) as pair:
        pair.run(exchange(pair))
        tap = pair.links[0].tap
        found = []
        for end in (INITIATOR, TARGET):
            pdus = [pdu for pdu in tap.pdus(end) if pdu.opcode not in (0x06, 0x26)]
            found.append(tuple((pdu.start, pdu.header_length, pdu.stop) for pdu in pdus))
    return Places(found[0], found[1])


async def use(pair: SteppedPair) -> str:
    """`right`, or the code of the error. Wrong data is an AssertionError."""
    try:
        async with await pair.open() as lun:
            await write_and_read(lun)
    except errors.Error as error:
        return error.code
    return "right"
