"""The synchronous faces over the fake plane: fast path, slow path, queue, file, fork."""

from __future__ import annotations

import inspect
import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from blockwire import errors
from blockwire.dataplane.fake_disk import fixed_sense
from blockwire.initiator import blocking
from blockwire.initiator.blocking import Lun
from blockwire.net.control_thread import ControlThread
from tests.unit.initiator.conftest import FAST
from tests.waiting import wait_until

PATIENT = replace(FAST, timeout=60.0, replacement_timeout=60.0)
"""Here time is real, and a machine may be slow."""


@pytest.fixture
def lun(bench):
    control = ControlThread("test-control")

    async def make():
        return await (await bench.session(PATIENT)).lun(0)

    yield Lun(control.run(make()), control)
    control.end()


def test_the_fast_path_is_one_call_of_the_plane(bench, lun) -> None:
    assert lun.pwrite(b"q" * 1024, 512) == 1024
    assert lun.pread(1024, 512) == b"q" * 1024
    into = bytearray(512)
    assert lun.preadinto(into, 512) == 512
    assert bytes(into) == b"q" * 512
    lun.flush()
    before = len(bench.disk.requests)
    lun.pread(512, 0)
    assert len(bench.disk.requests) == before + 1


def test_unit_attention_busy_and_errors_take_the_slow_path(bench, lun) -> None:
    bench.disk.answers.extend([(2, fixed_sense(6, 0x29, 0), ""), (8, b"", "")])
    assert lun.pwrite(b"z" * 512, 0) == 512
    bench.disk.answers.extend([(2, fixed_sense(6, 0x29, 0), "")])
    into = bytearray(512)
    assert lun.preadinto(into, 0) == 512
    assert bytes(into) == b"z" * 512
    bench.disk.answers.append((2, fixed_sense(3, 0x11, 0), ""))
    with pytest.raises(errors.DeviceError, match="UNRECOVERED READ ERROR"):
        lun.pread(512, 0)


def test_ranges_are_checked(lun) -> None:
    for call in (lambda: lun.pread(512, 1), lambda: lun.pread(100, 0), lambda: lun.pwrite(bytes(512), lun.size)):
        with pytest.raises(errors.UsageError):
            call()
    with pytest.raises(errors.UsageError):
        lun.preadinto(b"read-only", 0)
    assert lun.pread(0, 0) == b""


def test_a_lost_session_is_waited_for(bench, lun) -> None:
    lun.pwrite(b"k" * 512, 0)
    bench.plane.lose(lun.core.session.id)
    assert lun.pread(512, 0) == b"k" * 512
    assert lun.session.reopened == 1


def test_the_queue_gives_tags_data_and_errors(bench, lun) -> None:
    lun.pwrite(b"0" * 512 + b"1" * 512, 0)
    with lun.queue(depth=4) as queue:
        tags = {queue.pread(512, 0): b"0", queue.pread(512, 512): b"1"}
        got = {}
        while queue.in_flight:
            for done in queue.completions(min=1):
                assert done.error is None
                got[done.tag] = done.data
        assert got == {tag: digit * 512 for tag, digit in tags.items()}
        bench.disk.answers.extend([(2, fixed_sense(6, 0x29, 0), ""), (2, fixed_sense(3, 0x11, 0), "")])
        good, bad = queue.pread(512, 0), queue.pread(512, 0)
        outcome = {}
        while len(outcome) < 2:
            for done in queue.completions():
                outcome[done.tag] = done
        assert outcome[good].data == b"0" * 512
        assert isinstance(outcome[bad].error, errors.DeviceError)


def test_the_queue_holds_back_what_is_deeper_than_its_depth(bench, lun) -> None:
    real = bench.plane.on_request
    held = []

    def hold(request):
        held.append(request)
        return None

    bench.plane.on_request = hold

    def release() -> None:
        while len(held) < 2:
            time.sleep(0.005)
        time.sleep(0.05)
        assert len(held) == 2
        bench.plane.on_request = real
        for request in list(held):
            bench.plane.finish(real(request))

    thread = threading.Thread(target=release)
    thread.start()
    with lun.queue(depth=2) as queue:
        for _ in range(5):
            queue.pwrite(b"d" * 512, 0)
        thread.join()
    assert lun.pread(512, 0) == b"d" * 512


def write_four(lun: Lun) -> None:
    with lun.queue(depth=8) as queue:
        for number in range(4):
            queue.pwrite(bytes([number]) * 512, number * 512)


def test_leaving_the_queue_drains_and_reports_what_nobody_looked_at(bench, lun) -> None:
    bench.disk.answers.append((2, fixed_sense(3, 0x0C, 0), ""))
    with pytest.raises(errors.DeviceError):
        write_four(lun)
    assert lun.pread(512, 3 * 512) == b"\3" * 512


def test_a_queue_survives_a_lost_session(bench, lun) -> None:
    with lun.queue(depth=4) as queue:
        queue.pwrite(b"1" * 512, 0)
        queue.completions()
        bench.plane.lose(lun.core.session.id)
        queue.pwrite(b"2" * 512, 512)
        queue.pwrite(b"3" * 512, 1024)
    assert lun.pread(1536, 0) == b"1" * 512 + b"2" * 512 + b"3" * 512


def test_large_and_zero_requests_go_through_the_queue_too(bench, lun) -> None:
    whole = os.urandom(lun.size)
    with lun.queue(depth=2) as queue:
        queue.pwrite(whole, 0)
        queue.completions()
        tag = queue.pread(lun.size, 0)
        done = queue.completions()
        assert [(d.tag, d.data == whole) for d in done] == [(tag, True)]
        queue.zero(0, 4096)
    assert lun.pread(8192, 0) == bytes(4096) + whole[4096:8192]


def test_the_file_takes_any_offset(lun) -> None:
    shadow = bytearray(lun.size)
    with lun.makefile("r+b") as file:
        for offset, data in (
            (3, b"abc"),
            (510, b"x" * 1030),
            (0, b"first"),
            (lun.size - 5, b"tail!"),
            (512, b"y" * 512),
        ):
            file.seek(offset)
            file.write(data)
            shadow[offset : offset + len(data)] = data
        file.seek(0)
        assert file.read() == bytes(shadow)
        file.seek(-5, os.SEEK_END)
        assert file.read(100) == b"tail!"
        assert file.read(1) == b""
    assert lun.pread(lun.size, 0) == bytes(shadow)
    with lun.makefile("r+b", buffer_size=0) as raw:
        raw.seek(lun.size)
        with pytest.raises(OSError):
            raw.write(b"x")
    with pytest.raises(errors.UsageError):
        lun.makefile("ab")


def test_ctrl_c_in_a_slow_call_is_raised_after_the_abort(bench, lun) -> None:
    bench.plane.on_request = lambda request: None

    def press() -> None:
        wait_until(lambda: bench.plane.in_flight, "the request")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        lun.zero(0, 512)
    assert not bench.plane.in_flight


def test_a_child_process_gets_an_error_that_says_so(lun) -> None:
    child = os.fork()
    if not child:
        code = 1
        try:
            seen = 0
            for call in (
                lambda: lun.pread(512, 0), lambda: lun.pwrite(bytes(512), 0), lun.flush, lun.queue,
                lun.makefile, lambda: lun.scsi(bytes(6)), lambda: lun.pread(lun.size, 0),
            ):  # fmt: skip
                try:
                    call()
                except errors.ForkedError:
                    seen += 1
            code = 0 if seen == 7 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lun.pread(512, 0) == bytes(512)


def test_a_closed_lun_says_so(lun) -> None:
    lun.close()
    lun.close()
    for call in (lambda: lun.pread(512, 0), lun.queue, lun.flush):
        with pytest.raises(errors.ClosedError):
            call()


def test_the_asynchronous_api_has_the_same_names_and_signatures() -> None:
    from blockwire import aio
    from blockwire.initiator import blocking_queue, logical_unit, queue, session, sync_api

    def parameters(function: object) -> list[tuple[str, object, object]]:
        found = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
        return [(p.name, p.kind, p.default) for p in found]

    for name in ("open", "connect", "discover"):
        assert parameters(getattr(aio, name)) == parameters(getattr(sync_api, name)), name

    def methods(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name))}

    inner: dict[type, set[str]] = {
        blocking.Lun: {"after_failure", "check_write", "io", "resume", "short_transfer"},
        blocking.Session: {
            "ask", "finish", "is_on", "log_out", "lost", "lun_numbers", "open_lun", "ready", "request_lost", "start",
        },
        blocking_queue.Queue: set(),
    }  # fmt: skip
    # What the synchronous class has the asynchronous one has too, with the same parameters.
    for sync_class, async_class in (
        (blocking.Lun, logical_unit.Lun),
        (blocking.Session, session.Session),
        (blocking_queue.Queue, queue.Queue),
    ):
        for name in methods(sync_class):
            assert hasattr(async_class, name), f"{async_class.__name__}.{name}"
            ours, theirs = getattr(sync_class, name), getattr(async_class, name)
            assert parameters(ours) == parameters(theirs), f"{sync_class.__name__}.{name}"
        # And the other way round, but for what other rooms call.
        missing = methods(async_class) - methods(sync_class)
        assert missing == inner[sync_class], sync_class.__name__
    plain = {"size", "block_size", "identity", "geometry", "read_only", "keys", "target_name", "portal"}
    for name in plain & set(dir(blocking.Lun)):
        assert name in dir(logical_unit.Lun) or name in logical_unit.Lun.__init__.__code__.co_names


def test_tags_of_a_queue_are_never_given_twice(bench, lun) -> None:
    # A discard is more than a request of the plane: it runs on the control thread, under a tag of the queue's own.
    tags = []
    with lun.queue(2) as queue:
        for number in range(200):
            tags.append(queue.discard(number % 4 * 512, 512))
            tags.append(queue.pread(512, 0))
    assert len(set(tags)) == len(tags)
