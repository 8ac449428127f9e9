"""The virtual loop: time moves only when nothing else can; an end that never comes is an error that says who waits."""

from __future__ import annotations

import asyncio
import time

import pytest

from blockwire.testing.virtual_time import START, Deadlock, Spinning, VirtualLoop, run


class Ticker:
    """A source with a timer of its own: at each of `times` it appends to `log`."""

    def __init__(self, *times: float) -> None:
        self.times = sorted(times)
        self.log: list[float] = []

    def step(self, now: float) -> bool:
        due = [at for at in self.times if at <= now]
        self.times = self.times[len(due) :]
        self.log += due
        return bool(due)

    def next_deadline(self) -> float | None:
        return self.times[0] if self.times else None

    def describe(self) -> str:
        return f"ticker with {len(self.times)} left"


def test_an_hour_passes_at_once() -> None:
    async def body() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - before

    assert run(body()) == pytest.approx(3600, abs=1e-6)


def test_timers_fire_in_the_order_of_their_times() -> None:
    order: list[str] = []

    async def wait(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        order.append(name)

    async def body() -> None:
        await asyncio.gather(wait(3, "c"), wait(1, "a"), wait(2, "b"))

    run(body())
    assert order == ["a", "b", "c"]


def test_a_timeout_ends_what_would_never_end() -> None:
    async def body() -> None:
        async with asyncio.timeout(10):
            await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        run(body())


def test_the_timers_of_a_source_move_the_clock_too() -> None:
    ticker = Ticker(START + 1, START + 5, START + 100)

    async def body() -> None:
        await asyncio.sleep(10)

    run(body(), ticker)
    assert ticker.log == [START + 1, START + 5]


def test_a_source_is_stepped_while_callbacks_keep_the_loop_busy() -> None:
    ticker = Ticker(START)

    async def body() -> None:
        while not ticker.log:  # noqa: ASYNC110 - the spinning is the point
            await asyncio.sleep(0)

    run(body(), ticker)


def test_a_deadlock_names_who_waits_and_where() -> None:
    async def stuck_in_here() -> None:
        await asyncio.get_running_loop().create_future()

    async def body() -> None:
        asyncio.get_running_loop().create_task(stuck_in_here(), name="the-other")
        await stuck_in_here()

    loop = VirtualLoop()
    loop.add_source(Ticker())
    with pytest.raises(Deadlock) as caught:
        loop.run(body(), name="the-one")
    loop.close()
    text = str(caught.value)
    assert "the-one waits in" in text
    assert "the-other waits in" in text
    assert "stuck_in_here" in text
    assert "ticker with 0 left" in text


def test_a_deadlock_leaves_the_loop_usable() -> None:
    cleaned: list[bool] = []

    async def stuck() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append(True)

    async def fine() -> int:
        return 7

    loop = VirtualLoop()
    with pytest.raises(Deadlock):
        loop.run(stuck())
    assert cleaned == [True]
    assert loop.run(fine()) == 7
    loop.close()


def test_spinning_is_an_error() -> None:
    async def body() -> None:
        while True:  # noqa: ASYNC110 - the spinning is the point
            await asyncio.sleep(0)

    loop = VirtualLoop(max_turns=20_000)
    with pytest.raises(Spinning):
        loop.run(body())
    loop.close()


def test_a_source_that_forgets_its_deadline_does_not_stop_the_clock() -> None:
    class Forgetful(Ticker):
        def step(self, now: float) -> bool:
            return False

    async def body() -> None:
        await asyncio.sleep(1e-6)

    run(body(), Forgetful(START - 5))


def test_threads_stay_real() -> None:
    async def body() -> tuple[int, float]:
        loop = asyncio.get_running_loop()

        def work() -> int:
            time.sleep(0.05)
            return 42

        result = await loop.run_in_executor(None, work)
        return result, loop.time()

    assert run(body()) == (42, START)


def test_closing_cancels_what_still_runs() -> None:
    cancelled: list[bool] = []

    async def background() -> None:
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def body() -> None:
        task = asyncio.get_running_loop().create_task(background())
        await asyncio.sleep(0)
        assert not task.done()

    run(body())
    assert cancelled == [True]


def test_the_same_schedule_every_time() -> None:
    def schedule() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []

        async def worker(name: str, pause: float) -> None:
            for _ in range(5):
                await asyncio.sleep(pause)
                log.append((name, asyncio.get_running_loop().time()))

        async def body() -> None:
            await asyncio.gather(*(worker(f"w{i}", 0.1 * (1 + i % 3)) for i in range(6)))

        run(body())
        return log

    assert schedule() == schedule()
