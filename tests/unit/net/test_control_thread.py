"""The background loop: results, errors, interruption, and the end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from blockwire.errors import ClosedError, ForkedError
from blockwire.net.control_thread import ControlThread
from tests.waiting import wait_until


@pytest.fixture
def control():  # type: ignore[no-untyped-def]
    thread = ControlThread("test-control")
    yield thread
    thread.end()


def test_results_and_errors_come_back(control: ControlThread) -> None:
    async def good() -> int:
        await asyncio.sleep(0.01)
        return 7

    async def bad() -> int:
        raise TimeoutError("its own")

    assert control.run(good()) == 7
    with pytest.raises(TimeoutError, match="its own"):
        control.run(bad())


def test_an_interrupt_cancels_and_waits_for_the_clean_up(control: ControlThread) -> None:
    steps: list[str] = []

    async def slow() -> None:
        steps.append("started")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            steps.append("cleaned up")

    def press_ctrl_c() -> None:
        wait_until(lambda: "started" in steps, "the start")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press_ctrl_c).start()
    with pytest.raises(KeyboardInterrupt):
        control.run(slow())
    assert steps == ["started", "cleaned up"]


def test_farewells_are_said_and_bounded(control: ControlThread) -> None:
    said: list[str] = []

    async def short() -> None:
        said.append("bye")

    async def endless() -> None:
        await asyncio.sleep(3600)

    control.at_end(short)
    control.at_end(endless)
    control.end()
    assert said == ["bye"]
    with pytest.raises(ClosedError):
        control.run(short())


def test_a_child_process_is_told(control: ControlThread) -> None:
    async def nothing() -> None:
        return None

    child = os.fork()
    if not child:
        code = 1
        try:
            control.run(nothing())
        except ForkedError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_synchronous_api_refuses_its_own_loop(control: ControlThread) -> None:
    async def nothing() -> None:
        return None

    async def wrong() -> None:
        control.run(nothing())

    with pytest.raises(RuntimeError, match="control thread"):
        control.run(wrong())
