"""What the handles of the Python API do when they are used in unusual ways: dropped, closed, on other loops, copied."""

from __future__ import annotations

import array
import asyncio
import copy
import ctypes
import gc
import os
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

import blockwire
from blockwire import aio, errors
from tests.waiting import wait_until


def sessions(target: blockwire.Target) -> int:
    return len(target.statistics()["plane"]["sessions"])


def ends(target: blockwire.Target) -> None:
    """Waits until nobody is logged in to it."""
    wait_until(lambda: not sessions(target), "the end of the session")


PATTERN = bytes(range(256)) * 2
EXPORTERS: list[Callable[[], Any]] = [
    lambda: bytearray(PATTERN), lambda: array.array("d", PATTERN), lambda: (ctypes.c_char * 512)(*PATTERN),
    lambda: (ctypes.c_uint32 * 128).from_buffer_copy(PATTERN), lambda: memoryview(bytearray(PATTERN)).cast("I"),
    lambda: memoryview(bytearray(PATTERN)).cast("B", (2, 256)),
]  # fmt: skip


@pytest.mark.parametrize("make", EXPORTERS)
def test_any_contiguous_buffer_is_its_bytes(blockwire_target: blockwire.Target, make: Callable[[], Any]) -> None:
    async def with_await() -> None:
        async with aio.open(blockwire_target.url) as lun:
            assert await lun.pwrite(make(), 1024) == 512
            buffer = make()
            assert await lun.preadinto(buffer, 2048) == 512
            assert not any(bytes(buffer))

    with blockwire.open(blockwire_target.url) as lun:
        assert lun.pwrite(make(), 0) == 512
        with lun.queue() as queue:
            queue.pwrite(make(), 512)
        asyncio.run(with_await())
        assert lun.pread(1536, 0) == PATTERN * 3
        buffer = make()
        assert lun.preadinto(buffer, 2048) == 512
        assert not any(bytes(buffer))
        with lun.queue() as queue:
            queue.preadinto(buffer, 0)
        assert bytes(buffer) == PATTERN


@pytest.mark.parametrize("call", ["pwrite", "preadinto"])
def test_a_buffer_that_cannot_be_used_is_a_usage_error_everywhere(
    blockwire_target: blockwire.Target, call: str
) -> None:
    unfit = [memoryview(bytearray(1024))[::2]]
    if call == "preadinto":
        unfit.append(memoryview(bytes(512)))

    async def with_await() -> None:
        async with aio.open(blockwire_target.url) as lun:
            for buffer in unfit:
                with pytest.raises(errors.UsageError):
                    await getattr(lun, call)(buffer, 0)

    asyncio.run(with_await())
    with blockwire.open(blockwire_target.url) as lun, lun.queue() as queue:
        for buffer in unfit:
            for where in (lun, queue):
                with pytest.raises(errors.UsageError) as caught:
                    getattr(where, call)(buffer, 0)
                assert caught.value.code == "usage.buffer"


def test_a_dropped_lun_logs_out(blockwire_target: blockwire.Target) -> None:
    lun: Any = blockwire.open(blockwire_target.url)
    assert sessions(blockwire_target) == 1
    with pytest.warns(ResourceWarning, match="unclosed <Lun"):  # noqa: PT031 - the name goes, and then the thing
        del lun
        gc.collect()
    ends(blockwire_target)


def test_a_dropped_session_logs_out_but_not_before_its_luns(blockwire_target: blockwire.Target) -> None:
    lun: Any = blockwire.connect(blockwire_target.url).lun(0)
    gc.collect()
    assert lun.pread(512, 0) == bytes(512)
    assert lun.session.target_name == blockwire_target.name
    file = lun.makefile("rb")
    lun.close()
    del lun
    assert sessions(blockwire_target) == 1  # the file still has it
    with pytest.warns(ResourceWarning, match="unclosed <Session"):  # noqa: PT031
        del file
        gc.collect()
    ends(blockwire_target)


def test_a_session_that_nobody_closed_ends_with_its_loop(blockwire_target: blockwire.Target) -> None:
    async def leave() -> None:
        lun = await aio.open(blockwire_target.url)
        await lun.pwrite(b"x" * 512, 0)

    with pytest.warns(ResourceWarning, match="unclosed: <Session"):
        asyncio.run(leave())
    assert not sessions(blockwire_target)


def test_a_loop_that_was_closed_by_hand_leaves_nothing_behind(blockwire_target: blockwire.Target) -> None:
    async def leave() -> aio.Lun:
        # Without a logout: the target is not to wait for the session to come back.
        return await aio.open(blockwire_target.url, keys={"DefaultTime2Wait": 0, "DefaultTime2Retain": 0})

    async def look() -> None:
        assert await aio.discover(blockwire_target.portals[0])

    def descriptors() -> int:
        gc.collect()  # a plane goes with the last object that refers to it
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        loop.close()
    asyncio.run(look())
    ends(blockwire_target)
    wait_until(lambda: descriptors() <= before, "the end of the data planes")


def test_another_loop_is_refused_at_once(blockwire_target: blockwire.Target) -> None:
    async def make() -> aio.Lun:
        return await aio.open(blockwire_target.url)

    home = asyncio.new_event_loop()
    lun = home.run_until_complete(make())
    for call in (lambda: lun.pread(512, 0), lambda: lun.pwrite(bytes(512), 0), lun.flush, lun.close):
        with pytest.raises(errors.UsageError) as caught:
            asyncio.run(call())
        assert caught.value.code == "usage.loop"
    assert home.run_until_complete(lun.pread(512, 0)) == bytes(512)
    home.run_until_complete(lun.close())
    home.close()


def test_loops_of_several_threads_side_by_side(blockwire_target: blockwire.Target) -> None:
    failures: list[BaseException] = []

    async def work(number: int) -> None:
        async with aio.open(blockwire_target.url) as lun:
            for _ in range(20):
                data = os.urandom(4096)
                await lun.pwrite(data, number * 4096)
                assert await lun.pread(4096, number * 4096) == data

    def run(number: int) -> None:
        try:
            asyncio.run(work(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_opening_entered_twice_gives_two_sessions_and_closes_both(blockwire_target: blockwire.Target) -> None:
    async def work() -> None:
        opening = aio.open(blockwire_target.url)
        async with opening as first:
            async with opening as second:
                assert await second.pread(512, 0) == bytes(512)
            assert await first.pread(512, 0) == bytes(512)
            with pytest.raises(errors.ClosedError):
                await second.pread(512, 0)
        with pytest.raises(errors.ClosedError):
            await first.pread(512, 0)

    asyncio.run(work())


def test_what_is_closed_stays_closed(blockwire_target: blockwire.Target) -> None:
    lun = blockwire.open(blockwire_target.url)
    with lun.queue() as queue:
        queue.pread(512, 0)
    for again in (lambda: queue.pread(512, 0), lambda: queue.zero(0, 512), queue.__enter__):
        with pytest.raises(errors.ClosedError):
            again()
    lun.close()
    session = blockwire.connect(blockwire_target.url)
    session.close()
    target = blockwire.Target("ram:1M")
    target.close()
    for handle in (lun, session, target):
        with pytest.raises(errors.ClosedError):
            handle.__enter__()

    async def with_await() -> None:
        async with aio.open(blockwire_target.url) as other:
            async with other.queue() as queue:
                await queue.pread(512, 0)
            with pytest.raises(errors.ClosedError):
                await queue.pread(512, 0)
            file = other.makefile("r+b")
            await file.close()
            for call in (lambda: file.read(1), lambda: file.write(b"x"), file.flush):
                with pytest.raises(ValueError, match="closed file"):
                    await call()
            with pytest.raises(ValueError, match="whence"):
                other.makefile("rb").seek(0, 7)
        with pytest.raises(errors.ClosedError):
            await other.__aenter__()

    asyncio.run(with_await())


def test_handles_belong_to_their_process(blockwire_target: blockwire.Target) -> None:
    with blockwire.connect(blockwire_target.url) as session:
        for handle in (session, session.lun(0), blockwire_target):
            for doubled in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="belongs to its process"):
                    doubled(handle)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mode", ["r", "w", "ab", ""])
def test_a_file_of_an_unknown_mode_leaves_nothing_to_clean_up(blockwire_target: blockwire.Target, mode: str) -> None:
    with blockwire.open(blockwire_target.url) as lun:
        with pytest.raises(errors.UsageError, match="mode"):
            lun.makefile(mode)
        gc.collect()


def test_what_is_no_command_is_a_usage_error(blockwire_target: blockwire.Target) -> None:
    inquiry = b"\x12\0\0\0\x24\0"
    with blockwire.open(blockwire_target.url) as lun:
        for arguments in ((b"",), (bytes(261),), (inquiry, -1), (inquiry, 1 << 32)):
            with pytest.raises(errors.UsageError):
                lun.scsi(*arguments)
        assert lun.scsi(bytearray(inquiry), 36).data == lun.scsi(memoryview(inquiry), 36).data
        for number in (-1, 1 << 24):
            with pytest.raises(errors.UsageError):
                lun.session.lun(number)


def test_keys_may_be_numbers_and_names_bytes(blockwire_target: blockwire.Target) -> None:
    with blockwire.open(blockwire_target.url, keys={"MaxBurstLength": 65536}) as lun:
        assert lun.session.keys["MaxBurstLength"] == "65536"
    with blockwire.Target(b"ram:1M") as target:
        assert target.urls
    for unfit in (5, None, b"127.0.0.1"):
        with pytest.raises(TypeError, match="a URL is text"):
            blockwire.open(unfit)  # type: ignore[arg-type]
