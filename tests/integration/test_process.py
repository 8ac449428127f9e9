"""What happens to I/O when the program is interrupted, forks, or ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import blockwire
from blockwire import errors
from tests import loopback
from tests.waiting import ending, until, wait_until

SRC = str(Path(__file__).resolve().parents[2] / "src")
NEVER = "3600s"
"""What a store takes for an operation that nobody lets end: longer than any test is waited for."""
PATIENCE = 120
"""Seconds in which a process ends, however busy the machine is."""


PATIENT = blockwire.Timers(timeout=PATIENCE, keep_alive_interval=0.0)
"""Nothing of what is looked at here is the work of a timer."""


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": SRC}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_cancelled_await_aborts_and_keeps_the_buffer(blockwire_target_factory) -> None:
    target = blockwire_target_factory("ram:4M", filters=[f"delay:read={NEVER}"])

    async def work() -> None:
        async with blockwire.aio.open(target.url, timers=PATIENT) as lun:
            buffer = bytearray(1 << 20)
            task = asyncio.create_task(lun.preadinto(buffer, 0))
            await until(lambda: tasks_of(target), "the task at the target")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The answer has come: the buffer is ours again, and may be resized.
            buffer.clear()
            assert not tasks_of(target)
            assert await lun.pwrite(bytes(512), 0) == 512

    asyncio.run(asyncio.wait_for(work(), PATIENCE))


def tasks_of(target: blockwire.Target) -> int:
    """How many tasks the target has at the moment."""
    return sum(session["tasks"] for session in target.statistics()["plane"]["sessions"].values())


def test_an_interrupted_call_leaves_a_session_that_works(blockwire_target_factory) -> None:
    target = blockwire_target_factory("ram:4M", filters=[f"delay:read={NEVER}"])
    with blockwire.open(target.url, timers=PATIENT) as lun:

        def press_ctrl_c() -> None:
            wait_until(lambda: tasks_of(target), "the task at the target")
            os.kill(os.getpid(), signal.SIGINT)

        helper = threading.Thread(target=press_ctrl_c)
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            lun.pread(4096, 0)
        helper.join()
        assert lun.pwrite(b"x" * 512, 0) == 512
        assert lun.session.reopened == 0


def test_a_call_that_takes_too_long_is_aborted(blockwire_target_factory) -> None:
    target = blockwire_target_factory("ram:4M", filters=[f"delay:read={NEVER}"])
    with blockwire.open(target.url, timers=PATIENT) as lun:
        lun._timeout = 0.5  # of requests, from now on
        with pytest.raises(errors.TimedOutError):
            lun.pread(4096, 0)
        lun._timeout = PATIENCE
        assert lun.pwrite(b"x" * 512, 0) == 512


def test_fork_in_a_program_with_an_open_lun(blockwire_target) -> None:
    with blockwire.open(blockwire_target.url) as lun:
        lun.pwrite(b"p" * 512, 0)
        child = os.fork()
        if not child:
            code = 1
            try:
                try:
                    lun.pread(512, 0)
                except errors.ForkedError:
                    with blockwire.open(blockwire_target.url) as own:
                        code = 0 if own.pread(512, 0) == b"p" * 512 else 3
            except BaseException:
                code = 4
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert lun.pread(512, 0) == b"p" * 512


def test_the_interpreter_ends_with_io_in_flight() -> None:
    # The target is a process of its own: what it does with operations that outlive their session is looked at by its
    # exit code, and a crash there is a failure here instead of the end of the whole test run.
    target = subprocess.Popen(
        [sys.executable, "-m", "blockwire", "serve", "ram:4M", "--filter", "delay:write=200ms",
         "-p", loopback.ANY, "-q"],
        env={**os.environ, "PYTHONPATH": SRC}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert target.stdout is not None
    child = python(
        """
        import sys, blockwire
        lun = blockwire.open(sys.argv[1])
        queue = lun.queue(depth=16)
        for number in range(8):
            queue.pwrite(bytes(4096), number * 4096)
        print("going", flush=True)
        """,
        target.stdout.readline().strip(),
    )
    try:
        out, err = child.communicate(timeout=PATIENCE)
        assert (out, err, child.returncode) == ("going\n", "", 0)
    finally:
        target.send_signal(signal.SIGTERM)
        _, complaints = target.communicate(timeout=PATIENCE)
    assert target.returncode == 0, complaints


def test_a_target_that_nobody_closed_ends_with_the_interpreter() -> None:
    child = python(
        """
        import blockwire
        target = blockwire.Target("ram:1M")
        lun = blockwire.open(target.url)
        lun.pwrite(b"x" * 512, 0)
        print("done", flush=True)
        """
    )
    out, err = child.communicate(timeout=PATIENCE)
    assert (out, err, child.returncode) == ("done\n", "", 0)


def test_ctrl_c_in_the_middle_of_a_copy(blockwire_target_factory, tmp_path: Path) -> None:
    target = blockwire_target_factory("ram:64M", filters=["delay:write=500ms"])
    source = tmp_path / "source.img"
    source.write_bytes(os.urandom(32 << 20))
    env = {**os.environ, "PYTHONPATH": SRC}
    child = subprocess.Popen(
        [sys.executable, "-m", "blockwire", "cp", str(source), target.url, "--depth", "2"], env=env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    first = source.read_bytes()[:512]
    with blockwire.open(target.url) as lun:
        wait_until(lambda: lun.pread(512, 0) == first, "the first block of the copy", useless=ending(child))
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130
    assert "is incomplete" in err
    assert "Traceback" not in err
    with blockwire.open(target.url) as lun:
        assert lun.pread(512, 0) == first


def test_serve_whose_reader_went_away_ends_well() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "blockwire", "serve", "ram:1M", "-p", "127.0.0.1:0", "--json", "--statistics", "0.1"],
        env={**os.environ, "PYTHONPATH": SRC}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    url = json.loads(child.stdout.readline())["luns"][0]["url"]
    child.stdout.close()
    assert "nobody reads" in child.stderr.readline()
    with blockwire.open(url) as lun:
        lun.pwrite(bytes(512), 0)
    child.send_signal(signal.SIGTERM)
    assert child.wait(PATIENCE) == 0
    assert "Traceback" not in child.stderr.read()
    child.stderr.close()
