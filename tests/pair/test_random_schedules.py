"""Random work on random keys over links with random faults, beside a shadow disk: no recovery level loses a byte."""

from __future__ import annotations

import asyncio
import random

import pytest

from blockwire import errors
from blockwire.initiator.logical_unit import Lun
from blockwire.initiator.options import Timers
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.testing.virtual_network import Faults
from tests.pair.exchange import DIGESTS

SIZE = 64 * 1024
BLOCK = 512
TIMERS = Timers(timeout=30.0, replacement_timeout=600.0, keep_alive_interval=5.0, keep_alive_timeout=5.0)


def random_keys(choose: random.Random) -> dict[str, str]:
    first = choose.choice((512, 1024, 4096, 65536))
    return {
        "MaxRecvDataSegmentLength": str(choose.choice((512, 600, 1024, 4096, 65536))),
        "FirstBurstLength": str(first),
        "MaxBurstLength": str(max(first, choose.choice((512, 2048, 8192, 65536)))),
        "InitialR2T": choose.choice(("Yes", "No")),
        "ImmediateData": choose.choice(("Yes", "No")),
        "MaxOutstandingR2T": str(choose.choice((1, 2, 8))),
        **(DIGESTS if choose.random() < 0.5 else {}),
    }


def random_faults(choose: random.Random, digests: bool) -> Faults:
    """Cuts anywhere behind the login, any delivery, and flipped bits where digests find them."""
    anywhere = choose.randrange(2_000, 60_000)
    kind = choose.random()
    return Faults(
        cut_to_target=anywhere if kind < 0.4 else None,
        cut_to_initiator=anywhere if 0.4 <= kind < 0.8 else None,
        damage_to_target=((anywhere, 1 << choose.randrange(8)),) if digests and kind > 0.6 else (),
        damage_to_initiator=((anywhere + 99, 1 << choose.randrange(8)),) if digests and kind > 0.3 else (),
        chunk=choose.choice((None, None, 1, 7, 48, 100, 1460)),
        capacity=choose.choice((None, None, 100, 5000)),
    )


class Shadow:
    """The disk as it has to be. Requests in flight together never overlap, so its content is certain."""

    def __init__(self, choose: random.Random, lun: Lun) -> None:
        self.choose = choose
        self.lun = lun
        self.disk = bytearray(SIZE)
        self.busy: set[int] = set()

    def free_range(self, most: int) -> tuple[int, int]:
        while True:
            blocks = self.choose.randint(1, most)
            start = self.choose.randrange(SIZE // BLOCK - blocks + 1)
            if self.busy.isdisjoint(range(start, start + blocks)):
                self.busy |= set(range(start, start + blocks))
                return start, blocks

    async def one(self, kind: str, start: int, blocks: int) -> None:
        offset, length = start * BLOCK, blocks * BLOCK
        try:
            if kind == "write":
                data = self.choose.randbytes(length)
                self.disk[offset : offset + length] = data
                await self.lun.pwrite(data, offset, fua=self.choose.random() < 0.2)
            elif kind == "zero":
                self.disk[offset : offset + length] = bytes(length)
                await self.lun.zero(offset, length)
            else:
                assert await self.lun.pread(length, offset) == self.disk[offset : offset + length], f"at {offset}"
        finally:
            self.busy -= set(range(start, start + blocks))

    async def work(self, rounds: int) -> None:
        for _ in range(rounds):
            tasks = []
            for _ in range(self.choose.randint(1, 6)):
                kind = self.choose.choice(("write", "write", "read", "read", "zero"))
                start, blocks = self.free_range(16)
                tasks.append(asyncio.create_task(self.one(kind, start, blocks)))
            await asyncio.gather(*tasks)
        await self.lun.flush()


def run_schedule(seed: int, rounds: int, level: int = 0) -> int:
    choose = random.Random(seed)
    keys = random_keys(choose)
    if level:
        keys |= {"ErrorRecoveryLevel": str(level), "MaxConnections": str(choose.randint(1, 4)), "DefaultTime2Wait": "0"}
    with SteppedPair(f"ram:{SIZE}", keys=keys, target_keys={"DefaultTime2Wait": "0"}, timers=TIMERS) as pair:
        pair.network.plan(*(random_faults(choose, "HeaderDigest" in keys) for _ in range(choose.randrange(6))))

        async def body() -> Shadow:
            while True:
                try:
                    lun = await pair.open()
                    break
                except errors.UnreachableError:
                    continue  # the cut came in what `open` does first
            async with lun:
                shadow = Shadow(choose, lun)
                await shadow.work(rounds)
            return shadow

        shadow = pair.run(body())
        assert pair.stored(0, SIZE) == bytes(shadow.disk)
        if level == 2:
            assert shadow.lun.session.reopened == 0
        return len(pair.links)


@pytest.mark.parametrize("seed", range(10))
def test_schedule(seed: int) -> None:
    run_schedule(seed, 25)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_schedule_with_recovery(seed: int, level: int) -> None:
    run_schedule(seed, 25, level)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("seed", range(10, 80))
def test_more_schedules(seed: int, level: int) -> None:
    run_schedule(seed, 25, level)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1040))
def test_many_schedules(seed: int) -> None:
    for step in range(25):
        run_schedule(seed * 1000 + step, 40)


@pytest.mark.slow
def test_the_faults_do_happen() -> None:
    """Most schedules lose a connection at least once; otherwise this file would test nothing."""
    assert sum(run_schedule(seed, 25) > 1 for seed in range(12)) >= 6
