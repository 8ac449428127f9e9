"""Our initiator with our target over loopback TCP: the Python API end to end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
import time
from pathlib import Path

import pytest

import blockwire
from blockwire import errors
from tests import loopback


def test_discover_connect_and_list(blockwire_target_factory) -> None:
    target = blockwire_target_factory("ram:8M?serial=A1", "ram:16M?block_size=4096")
    found = blockwire.discover(target.portals[0])
    assert [entry.name for entry in found] == [target.name]
    assert [str(portal) for portal in found[0].portals] == target.portals
    with blockwire.connect(found[0].urls[0]) as session:
        luns = session.luns()
        assert [(unit.lun, unit.size, unit.block_size) for unit in luns] == [(0, 8 << 20, 512), (1, 16 << 20, 4096)]
        assert luns[0].serial == "A1"
        assert luns[0].name != luns[1].name
        assert session.keys["MaxBurstLength"] == "1048576"
        with pytest.raises(blockwire.Error) as caught:
            session.lun(9)
        assert caught.value.exit_code in (5, 7)  # type: ignore[attr-defined]


@pytest.mark.parametrize("block_size", [512, 4096])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"},
        {"InitialR2T": "Yes", "ImmediateData": "No"},
        {"MaxRecvDataSegmentLength": "512", "MaxBurstLength": "1024", "FirstBurstLength": "512"},
    ],
)
def test_what_is_written_is_read(blockwire_target_factory, block_size: int, keys: dict[str, str]) -> None:
    target = blockwire_target_factory(f"ram:4M?block_size={block_size}")
    shadow = bytearray(4 << 20)
    rng = random.Random(1)
    with blockwire.open(target.url, keys=keys) as lun:
        assert (lun.size, lun.block_size) == (4 << 20, block_size)
        for _ in range(60):
            blocks = rng.choice((1, 2, 7, 16, 128, 300))
            length = min(blocks * block_size, 1 << 20)
            offset = rng.randrange(0, (lun.size - length) // block_size + 1) * block_size
            match rng.randrange(4):
                case 0 | 1:
                    data = rng.randbytes(length)
                    lun.pwrite(data, offset, fua=rng.random() < 0.2)
                    shadow[offset : offset + length] = data
                case 2:
                    lun.zero(offset, length)
                    shadow[offset : offset + length] = bytes(length)
                case 3:
                    into = bytearray(length)
                    lun.preadinto(into, offset)
                    assert into == shadow[offset : offset + length]
        lun.flush()
        assert lun.pread(lun.size, 0) == bytes(shadow)


def test_a_file_holds_what_was_written(blockwire_target_factory, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    target = blockwire_target_factory(path, size="8M")
    data = os.urandom(3 << 20)
    with blockwire.open(target.url) as lun:
        with lun.makefile("r+b") as file:
            file.seek(777)
            file.write(data)
        lun.zero(0, 512)
    target.close()
    content = path.read_bytes()
    assert len(content) == 8 << 20
    assert content[777 : 777 + len(data)] == data
    assert not any(content[:512])


def test_the_queue(blockwire_target) -> None:
    pieces = {offset: os.urandom(16384) for offset in range(0, 8 << 20, 16384)}
    with blockwire.open(blockwire_target.url) as lun:
        with lun.queue(depth=32) as queue:
            for offset, data in pieces.items():
                queue.pwrite(data, offset)
        offsets: dict[int, int] = {}
        seen = 0
        with lun.queue(depth=32) as queue:
            for offset in pieces:
                offsets[queue.pread(16384, offset)] = offset
                for done in queue.completions(min=0):
                    assert done.error is None
                    assert done.data == pieces[offsets[done.tag]]
                    seen += 1
            while queue.in_flight:
                for done in queue.completions():
                    assert done.data == pieces[offsets[done.tag]]
                    seen += 1
            seen += len(queue.completions(min=0))
        assert seen == len(pieces)


def test_many_threads_share_a_lun(blockwire_target) -> None:
    failures: list[BaseException] = []
    with blockwire.open(blockwire_target.url) as lun:

        def work(number: int) -> None:
            try:
                rng = random.Random(number)
                base = number << 20
                for _ in range(200):
                    offset = base + rng.randrange(0, 256) * 4096
                    data = rng.randbytes(4096)
                    lun.pwrite(data, offset)
                    assert lun.pread(4096, offset) == data
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(150)
            assert not thread.is_alive()
    assert not failures


def test_asyncio_many_at_once(blockwire_target) -> None:
    async def work() -> None:
        async with blockwire.aio.open(blockwire_target.url) as lun:
            pieces = {offset: os.urandom(4096) for offset in range(0, 1 << 20, 4096)}
            await asyncio.gather(*(lun.pwrite(data, offset) for offset, data in pieces.items()))
            got = await asyncio.gather(*(lun.pread(4096, offset) for offset in pieces))
            assert got == list(pieces.values())
            async with lun.queue(depth=16) as queue:
                tags = {await queue.pread(4096, offset): offset for offset in pieces}
                while queue.in_flight:
                    async for done in queue.completions():
                        assert done.data == pieces[tags[done.tag]]
            async with lun.makefile("r+b") as file:
                file.seek(5)
                await file.write(b"hello")
                file.seek(3)
                assert (await file.read(10))[2:7] == b"hello"

    asyncio.run(asyncio.wait_for(work(), 150))


def test_two_asyncio_loops_one_after_the_other(blockwire_target) -> None:
    async def work() -> bytes:
        async with blockwire.aio.open(blockwire_target.url) as lun:
            return await lun.pread(512, 0)

    for _ in range(3):
        assert asyncio.run(asyncio.wait_for(work(), 150)) == bytes(512)


def test_read_only_and_refusals(blockwire_target_factory) -> None:
    target = blockwire_target_factory("ram:1M", read_only=True, allow=["iqn.2025-01.org.test:me"])
    with pytest.raises(errors.AuthorizationError):
        blockwire.open(target.url, initiator_name="iqn.2025-01.org.test:other")
    assert blockwire.discover(target.portals[0], initiator_name="iqn.2025-01.org.test:other") == []
    with blockwire.open(target.url, initiator_name="iqn.2025-01.org.test:me") as lun:
        assert lun.read_only
        with pytest.raises(errors.ReadOnlyError):
            lun.pwrite(bytes(512), 0)
        # The target refuses it too, with sense 7/27/00.
        result = lun.scsi(bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]), data_out=bytes(512))
        assert (result.status, result.sense[2] & 0xF, result.sense[12]) == (2, 7, 0x27)
    with pytest.raises(errors.TargetNotFoundError):
        blockwire.open(
            target.url.replace(target.name, "iqn.2025-01.org.test:nobody"), initiator_name="iqn.2025-01.org.test:me"
        )


def test_errors_of_the_device_keep_their_sense(blockwire_target) -> None:
    with blockwire.open(blockwire_target.url) as lun:
        result = lun.scsi(bytes([0x28, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 1, 0]), data_in=512)
        assert (result.status, result.sense[2] & 0xF, result.sense[12]) == (2, 5, 0x21)
        inquiry = lun.scsi(bytes([0x12, 0, 0, 0, 96, 0]), data_in=96)
        assert inquiry.ok
        assert inquiry.data[8:16] == b"BLKWIRE "
        assert inquiry.residual == 96 - len(inquiry.data)


def test_a_fault_in_the_store_reaches_the_caller(blockwire_target_factory) -> None:
    target = blockwire_target_factory("ram:1M", filters=["fault:op=read,offset=4096,len=4096,errno=EIO"])
    with blockwire.open(target.url) as lun:
        assert lun.pread(4096, 0) == bytes(4096)
        with pytest.raises(errors.DeviceError) as caught:
            lun.pread(4096, 4096)
        assert caught.value.sense_key in (3, 4)


def test_hash_of_a_large_transfer_with_little_segments(blockwire_target) -> None:
    data = os.urandom(5 << 20)
    with blockwire.open(blockwire_target.url, keys={"MaxRecvDataSegmentLength": "4096", "DataDigest": "CRC32C"}) as lun:
        lun.pwrite(data, 0)
        assert hashlib.sha256(lun.pread(len(data), 0)).digest() == hashlib.sha256(data).digest()


def test_fixtures_are_quick(blockwire_target_factory) -> None:
    """In processor time, of which a waiting machine takes none; and a target does not wait for anything either."""
    blockwire_target_factory()
    before = time.process_time()
    blockwire_target_factory()
    assert time.process_time() - before < 0.5


def test_sessions_come_back_when_the_target_does(blockwire_target_factory, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    portal = f"{loopback.AUTHORITY}:{loopback.free_port()}"
    first = blockwire_target_factory(path, size="4M", portals=[portal])
    name = first.name
    timers = blockwire.Timers(reopen_first=0.05, reopen_longest=0.2, replacement_timeout=120.0)
    with blockwire.open(first.url, timers=timers) as lun:
        lun.pwrite(b"a" * 4096, 0)
        first.close()
        second = blockwire_target_factory(path, portals=[portal], target_name=name)
        assert second.portals == [portal]
        assert lun.pread(4096, 0) == b"a" * 4096
        lun.pwrite(b"b" * 4096, 4096)
        assert lun.session.reopened >= 1
    assert path.read_bytes()[:8192] == b"a" * 4096 + b"b" * 4096
