"""Events reach who waits for them, on a loop and by hand."""

from __future__ import annotations

import asyncio
import errno

import pytest

from blockwire import errors
from blockwire.dataplane import api
from blockwire.dataplane.dispatch import Dispatch, failure_error
from blockwire.dataplane.fake import FakeDisk, FakePlane


def run(coroutine):  # type: ignore[no-untyped-def]
    return asyncio.run(asyncio.wait_for(coroutine, 150))


SESSION = api.SessionSpec(api.Role.INITIATOR, "iqn.2025-01.org.test:i", "iqn.2025-01.org.test:t", bytes(6), 1)


def test_operations_end_with_their_result() -> None:
    async def scenario() -> None:
        plane = FakePlane()
        dispatch = Dispatch(plane)
        dispatch.attach()
        info = await dispatch.op(plane.open_store(api.StoreSpec("ram", size=4096)))
        assert isinstance(info, api.StoreInfo)
        assert info.size == 4096
        await dispatch.op(plane.store_op(info.store, api.StoreOp.WRITE, 512, data=b"abc"))
        assert await dispatch.op(plane.store_op(info.store, api.StoreOp.READ, 511, 5)) == b"\0abc\0"
        with pytest.raises(errors.Error) as caught:
            await dispatch.op(plane.store_op(info.store, api.StoreOp.READ, 4096, 1))
        assert caught.value.code == "store.out-of-range"
        dispatch.close()

    run(scenario())


def test_a_failure_becomes_the_error_that_it_means() -> None:
    missing = failure_error(api.Failure("store.not-found", "disk.img: no such file", errno.ENOENT))
    assert isinstance(missing, FileNotFoundError)
    assert isinstance(missing, errors.Error)
    assert (missing.code, str(missing)) == ("store.not-found", "disk.img: no such file")
    full = failure_error(api.Failure("store.no-space", "no space", errno.ENOSPC))
    assert full.errno == errno.ENOSPC
    assert isinstance(failure_error(api.Failure("plane.closed", "closed")), errors.ClosedError)
    assert isinstance(failure_error(api.Failure("session.lost", "lost")), ConnectionError)
    assert isinstance(failure_error(api.Failure("plane.unknown", "there is no session 7")), ConnectionError)


def test_many_waiters_at_once_each_get_their_own() -> None:
    async def scenario() -> None:
        plane = FakePlane()
        dispatch = Dispatch(plane)
        dispatch.attach()
        infos = await asyncio.gather(
            *(dispatch.op(plane.open_store(api.StoreSpec("ram", size=512 * n))) for n in range(1, 600))
        )
        assert [info.size for info in infos] == [512 * n for n in range(1, 600)]
        dispatch.close()

    run(scenario())


def test_session_events_go_to_their_subscriber_only() -> None:
    async def scenario() -> None:
        plane = FakePlane()
        dispatch = Dispatch(plane)  # not attached: pumped by hand, as with the stepped plane
        seen: list[object] = []

        def fails(event: object) -> None:
            raise ValueError("a subscriber's mistake")

        dispatch.subscribe(1, fails)
        dispatch.subscribe(2, seen.append)
        lost = api.ConnectionLost(2, 0, "reset")
        plane.inject(api.ConnectionLost(1, 0, "reset"), lost, api.ConnectionLost(3, 0, "reset"))
        assert dispatch.pump() == 3
        assert seen == [lost]
        dispatch.unsubscribe(2)
        plane.inject(lost)
        dispatch.pump()
        assert seen == [lost]

    run(scenario())


def test_a_cancelled_await_aborts_and_waits_for_the_end() -> None:
    async def scenario() -> None:
        plane = FakePlane()
        dispatch = Dispatch(plane)
        dispatch.attach()
        session = plane.create_session(SESSION)
        plane.on_request = lambda request: None  # stays in flight
        plane.cancel = lambda token: True  # type: ignore[method-assign]  # the answer takes its time
        token = plane.submit(session, 0, bytes(6))
        waiter = asyncio.create_task(dispatch.finish(token))
        await asyncio.sleep(0.01)
        waiter.cancel()
        await asyncio.sleep(0.01)
        assert not waiter.done()  # the buffer is still the plane's
        plane.finish(api.TaskDone(token, 0, code="task.aborted"))
        with pytest.raises(asyncio.CancelledError):
            await waiter
        dispatch.close()

    run(scenario())


def test_closing_fails_what_still_waits() -> None:
    async def scenario() -> None:
        plane = FakePlane()
        dispatch = Dispatch(plane)
        future = dispatch.task(12345)
        dispatch.close()
        with pytest.raises(errors.ClosedError):
            await future

    run(scenario())


def test_the_fake_is_a_data_plane() -> None:
    plane: api.DataPlane = FakePlane()
    names = {name for name in vars(api.DataPlane) if not name.startswith("_")}
    assert names <= set(dir(plane))
    plane.shutdown(1.0)


def test_the_fake_disk_answers_reads_and_writes() -> None:
    plane = FakePlane()
    plane.disks[0] = FakeDisk(blocks=8)
    session = plane.create_session(SESSION)
    data = bytes(range(256)) * 4
    assert plane.execute_io(session, 0, api.IoKind.WRITE, 2, 2, 512, data).status == 0
    assert plane.execute_io(session, 0, api.IoKind.READ, 2, 2, 512).data == data
    into = bytearray(1024)
    assert plane.execute_io(session, 0, api.IoKind.READ, 2, 2, 512, into).data is None
    assert bytes(into) == data
    past = plane.execute_io(session, 0, api.IoKind.READ, 7, 2, 512)
    assert (past.status, past.sense[2], past.sense[12]) == (2, 5, 0x21)


def test_who_begins_to_wait_after_the_end_is_told() -> None:
    async def scenario() -> None:
        plane = FakePlane()
        dispatch = Dispatch(plane)
        dispatch.attach()
        op = plane.open_store(api.StoreSpec("ram", size=4096))
        dispatch.close()
        for waiting in (dispatch.op(op), dispatch.answer(1), dispatch.task(2)):
            with pytest.raises(errors.ClosedError):
                await waiting
        plane.shutdown(0)

    run(scenario())
