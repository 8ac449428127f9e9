"""Login and I/O of both ends, the stream delivered in any pieces, under many combinations of keys; data compared."""

from __future__ import annotations

import itertools

import pytest

from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.testing.virtual_network import Faults
from tests.pair.exchange import DIGESTS, SMALL, exchange, expected, pattern, small_pair


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 47, 48, 49, 52, 100, 1023, 1500, 65536])
@pytest.mark.parametrize("digests", [False, True])
def test_any_chunk(chunk: int, digests: bool) -> None:
    with small_pair(digests) as pair:
        pair.network.always(Faults(chunk=chunk))
        pair.run(exchange(pair))
        assert pair.stored(0, 16384) == expected()
        assert len(pair.links) == 1


@pytest.mark.parametrize("capacity", [1, 10, 48, 100, 1000])
def test_any_room_on_the_way(capacity: int) -> None:
    """A send takes a few bytes at a time, as a full socket does."""
    with small_pair() as pair:
        pair.network.always(Faults(capacity=capacity))
        pair.run(exchange(pair))
        assert pair.stored(0, 16384) == expected()
        assert len(pair.links) == 1


@pytest.mark.parametrize(("to_target", "to_initiator"), [(1, 1000), (1000, 1), (7, 48)])
def test_directions_of_different_pace(to_target: int, to_initiator: int) -> None:
    with small_pair(digests=True) as pair:
        pair.network.always(Faults(chunk_to_target=to_target, chunk_to_initiator=to_initiator, capacity=200))
        pair.run(exchange(pair))
        assert pair.stored(0, 16384) == expected()


COMBINATIONS = list(
    itertools.product(
        ("Yes", "No"),  # InitialR2T
        ("Yes", "No"),  # ImmediateData
        ("512", "1536", "65536"),  # FirstBurstLength
        ("512", "1000", "8192"),  # MaxRecvDataSegmentLength, both sides
    )
)


@pytest.mark.parametrize(("initial_r2t", "immediate", "first_burst", "segment"), COMBINATIONS)
def test_every_way_to_send_data(initial_r2t: str, immediate: str, first_burst: str, segment: str) -> None:
    """RFC 7143 13.10 to 13.14: immediate, unsolicited and solicited data in every combination and size."""
    keys = {
        "InitialR2T": initial_r2t,
        "ImmediateData": immediate,
        "FirstBurstLength": first_burst,
        "MaxBurstLength": "65536",
        "MaxRecvDataSegmentLength": segment,
        "MaxOutstandingR2T": "4",
    }
    target = {"InitialR2T": initial_r2t, "MaxRecvDataSegmentLength": segment, "MaxOutstandingR2T": "4"}
    with SteppedPair("ram:1M", keys=keys, target_keys=target) as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                for seed, length in enumerate((512, 1024, 1536, 2048, 66048, 131072)):
                    await lun.pwrite(pattern(seed, length), 512 * seed)
                    assert await lun.pread(length, 512 * seed) == pattern(seed, length)

        pair.run(body())
        assert pair.stored(5 * 512, 131072) == pattern(5, 131072)


@pytest.mark.parametrize("block_size", [512, 4096])
def test_deep_queues(block_size: int) -> None:
    with SteppedPair(f"ram:4M?block_size={block_size}", keys=SMALL) as pair:

        async def body() -> None:
            async with await pair.open() as lun, lun.queue(depth=64) as queue:
                for number in range(128):
                    await queue.pwrite(pattern(number, 4096), number * 4096)
            async with await pair.open() as lun, lun.queue(depth=64) as queue:
                tags = {await queue.pread(4096, number * 4096): number for number in range(128)}
                while tags:
                    async for done in queue.completions(min=1):
                        assert done.error is None
                        assert done.data == pattern(tags.pop(done.tag), 4096)

        pair.run(body())


def test_the_same_run_twice() -> None:
    """Nothing in a stepped run depends on the machine: the same bytes in the same virtual time."""

    def once() -> tuple[list[tuple[int, int]], float]:
        with small_pair() as pair:
            pair.network.always(Faults(chunk=37))
            pair.run(exchange(pair))
            return [(link.sent(INITIATOR), link.sent(TARGET)) for link in pair.links], pair.now

    assert once() == once()


@pytest.mark.parametrize("name", ["HeaderDigest", "DataDigest"])
def test_one_digest_only(name: str) -> None:
    with SteppedPair("ram:1M", keys=SMALL | {name: DIGESTS[name]}) as pair:
        session = pair.run(pair.connect())
        assert session.keys[name] == "CRC32C"
        pair.run(session.close())
        pair.run(exchange(pair))
        assert pair.stored(0, 16384) == expected()
