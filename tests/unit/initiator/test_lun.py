"""Block I/O of the asynchronous Lun over the fake plane."""

from __future__ import annotations

import asyncio
import os

import pytest

from blockwire import errors
from blockwire.dataplane.api import IoKind, TaskDone
from blockwire.dataplane.fake_disk import FakeRequest, fixed_sense


def test_geometry_and_identity(bench, scenario) -> None:
    async def work() -> None:
        bench.disk.max_transfer_blocks = 64
        session = await bench.session()
        lun = await session.lun(0)
        assert (lun.size, lun.block_size) == (2048 * 512, 512)
        assert lun.geometry.max_transfer == 64 * 512
        assert lun.geometry.can_discard
        assert lun.identity.vendor == "BLOCKWIR"
        assert lun.identity.serial == "FAKE0001"
        assert "6001405000000000000000000000abcd" in lun.identity.name
        assert [info.lun for info in await session.luns()] == [0]

    scenario(work)


def test_writes_are_read_back_and_large_ones_are_cut(bench, scenario) -> None:
    async def work() -> None:
        bench.disk.max_transfer_blocks = 16
        lun = await (await bench.session()).lun(0)
        data = os.urandom(100 * 512)
        assert await lun.pwrite(data, 512) == len(data)
        writes = [r for r in bench.disk.requests if r.kind is IoKind.WRITE]
        assert max(r.blocks for r in writes) == 16
        assert sum(r.blocks for r in writes) == 100
        assert await lun.pread(len(data), 512) == data
        into = bytearray(len(data))
        assert await lun.preadinto(into, 512) == len(data)
        assert into == data
        assert await lun.pread(0, 0) == b""

    scenario(work)


@pytest.mark.parametrize(
    ("offset", "length", "code"),
    [
        (1, 512, "usage.unaligned"),
        (0, 511, "usage.unaligned"),
        (2048 * 512, 512, "usage.range"),
        (-512, 512, "usage.range"),
    ],
)
def test_bad_ranges_never_reach_the_device(bench, scenario, offset: int, length: int, code: str) -> None:
    async def work() -> None:
        lun = await (await bench.session()).lun(0)
        before = len(bench.disk.requests)
        for call in (lun.pread(length, offset), lun.pwrite(bytes(length), offset), lun.zero(offset, length)):
            with pytest.raises(errors.UsageError) as caught:
                await call
            assert caught.value.code == code
        assert len(bench.disk.requests) == before

    scenario(work)


@pytest.mark.parametrize(
    ("status", "sense"),
    [
        (0x02, fixed_sense(6, 0x29, 0)),  # UNIT ATTENTION
        (0x02, fixed_sense(2, 0x04, 1)),  # NOT READY, becoming ready
        (0x02, fixed_sense(11, 0x47, 5)),  # ABORTED COMMAND
        (0x08, b""),  # BUSY
        (0x28, b""),  # TASK SET FULL
        (0x40, b""),  # TASK ABORTED
    ],
)
def test_what_passes_is_tried_again(bench, scenario, status: int, sense: bytes) -> None:
    async def work() -> None:
        lun = await (await bench.session()).lun(0)
        bench.disk.answers.extend([(status, sense, "")] * 3)
        await lun.pwrite(b"a" * 512, 0)
        assert await lun.pread(512, 0) == b"a" * 512

    scenario(work)


@pytest.mark.parametrize(
    ("sense", "kind", "code"),
    [
        (fixed_sense(3, 0x11, 0), errors.DeviceError, "device.error"),
        (fixed_sense(7, 0x27, 0), errors.ReadOnlyError, "device.read-only"),
        (fixed_sense(7, 0x27, 7), errors.DeviceError, "device.no-space"),
        (fixed_sense(5, 0x25, 0), errors.DeviceError, "device.no-such-lun"),
    ],
)
def test_what_stays_is_an_error_with_its_sense(bench, scenario, sense: bytes, kind: type, code: str) -> None:
    async def work() -> None:
        lun = await (await bench.session()).lun(0)
        bench.disk.answers.append((2, sense, ""))
        with pytest.raises(errors.DeviceError) as caught:
            await lun.pwrite(bytes(512), 0)
        assert type(caught.value) is kind
        assert caught.value.code == code
        assert caught.value.sense == sense
        assert (caught.value.sense_key, caught.value.asc) == (sense[2], sense[12])

    scenario(work)


def test_a_device_that_stays_attentive_is_given_up(bench, scenario) -> None:
    async def work() -> None:
        lun = await (await bench.session()).lun(0)
        bench.disk.answers.extend([(2, fixed_sense(6, 0x29, 0), "")] * 1000)
        with pytest.raises(errors.DeviceError) as caught:
            await lun.pread(512, 0)
        assert caught.value.sense_key == 6

    scenario(work)


def test_zero_falls_back_to_writing_zeros(bench, scenario) -> None:
    async def work() -> None:
        lun = await (await bench.session()).lun(0)
        await lun.pwrite(b"x" * 4096, 0)
        bench.disk.answers.append((2, fixed_sense(5, 0x20, 0), ""))
        await lun.zero(512, 1024)
        assert await lun.pread(2048, 0) == b"x" * 512 + bytes(1024) + b"x" * 512

    scenario(work)


def test_discard_and_flush(bench, scenario) -> None:
    async def work() -> None:
        lun = await (await bench.session()).lun(0)
        await lun.pwrite(b"x" * 1024, 0)
        await lun.discard(0, 512)
        await lun.flush()
        kinds = [r.kind for r in bench.disk.requests if r.kind is not None]
        assert kinds == [IoKind.WRITE, IoKind.UNMAP, IoKind.FLUSH]
        assert await lun.pread(1024, 0) == bytes(512) + b"x" * 512

    scenario(work)


def test_read_only_is_kept_here(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        lun = await session.lun(0, read_only=True)
        for call in (lun.pwrite(bytes(512), 0), lun.zero(0, 512), lun.discard(0, 512)):
            with pytest.raises(errors.ReadOnlyError):
                await call

    scenario(work)


def test_scsi_gives_status_and_sense_without_raising(bench, scenario) -> None:
    async def work() -> None:
        lun = await (await bench.session()).lun(0)
        result = await lun.scsi(bytes([0x12, 0, 0, 0, 36, 0]), 36)
        assert result.ok
        assert result.data[8:16] == b"BLOCKWIR"
        bad = await lun.scsi(bytes([0xFF]) + bytes(5))
        assert (bad.status, bad.sense[2], bad.sense[12]) == (2, 5, 0x20)

    scenario(work)


def test_a_lun_that_is_not_there(bench, scenario) -> None:
    async def work() -> None:
        session = await bench.session()
        with pytest.raises(errors.DeviceError) as caught:
            await session.lun(7)
        assert caught.value.code == "device.no-such-lun"

    scenario(work)


def test_the_first_error_of_a_large_request_ends_the_others(bench, scenario) -> None:
    async def work() -> None:
        bench.disk.max_transfer_blocks = 1
        lun = await (await bench.session()).lun(0)
        bench.disk.answers.append((2, fixed_sense(3, 0x11, 0), ""))
        with pytest.raises(errors.DeviceError):
            await lun.pread(512 * 100, 0)
        assert not bench.plane.in_flight

    scenario(work)


def test_cancelling_an_await_aborts_the_task(bench, scenario) -> None:
    async def work() -> None:
        lun = await (await bench.session()).lun(0)
        bench.plane.on_request = lambda request: None
        task = asyncio.create_task(lun.pread(512, 0))
        await asyncio.sleep(0.01)
        assert len(bench.plane.in_flight) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not bench.plane.in_flight
        assert [call.name for call in bench.plane.calls][-1] == "cancel"

    scenario(work)


def test_a_closed_lun_says_so(bench, scenario) -> None:
    async def work() -> None:
        lun = await (await bench.session()).lun(0)
        await lun.close()
        with pytest.raises(errors.ClosedError):
            await lun.pread(512, 0)

    scenario(work)


@pytest.mark.parametrize("claimed", [0xFFFFFFF8, 0x3908, 8 * 600])
def test_a_device_that_claims_more_luns_than_it_lists(bench, scenario, claimed: int) -> None:
    async def work() -> None:
        session = await bench.session()
        answer, asked = bench.plane.on_request, []

        def report(request: FakeRequest) -> TaskDone | None:
            if request.cdb is None or request.cdb[0] != 0xA0:
                return answer(request)
            asked.append(request.data_in)
            # SPC-4 6.33: LUN LIST LENGTH, and one LUN.
            return TaskDone(request.token, 0, data=claimed.to_bytes(4, "big") + bytes(12))

        bench.plane.on_request = report
        assert await session.lun_numbers() == [0]
        assert max(asked) <= 1 << 20
        assert len(asked) <= 2
        bench.plane.on_request = lambda request: TaskDone(request.token, 0, data=b"\0\0")
        with pytest.raises(errors.DeviceError):
            await session.lun_numbers()

    scenario(work)
