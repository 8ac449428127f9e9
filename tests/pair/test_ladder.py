"""ERL 0 under virtual time: the ladder rung by rung, what is sent again, what fails and when; never stuck."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection

import pytest

from blockwire import errors
from blockwire.config.model import Limits
from blockwire.initiator.logical_unit import Lun
from blockwire.initiator.options import Timers
from blockwire.initiator.session import State
from blockwire.session.recovery import Rung, ladder_with
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.testing.tap import PassingPdu
from blockwire.testing.virtual_network import Faults
from blockwire.wire.constants import Opcode, TaskFunction
from tests.pair.exchange import TARGET_SMALL, pattern, write_and_read

SECONDS = {Rung.ABORT_TASK: 4.0, Rung.LOGICAL_UNIT_RESET: 6.0, Rung.TARGET_RESET: 8.0}
TIMERS = Timers(
    timeout=10.0, replacement_timeout=60.0, keep_alive_interval=0.0, reopen_first=0.5, reopen_longest=8.0,
    ladder=ladder_with(SECONDS),
)  # fmt: skip
QUIET = Limits(keep_alive_seconds=0)


def pair_of(**options: object) -> SteppedPair:
    return SteppedPair("ram:1M", timers=TIMERS, limits=QUIET, target_keys=TARGET_SMALL, tapped=True, **options)  # type: ignore[arg-type]


class Silence:
    """The target gets neither the writes' data nor the functions named; once `over` everything passes."""

    def __init__(self, functions: Collection[int]) -> None:
        self.functions = functions
        self.asked: list[int] = []
        self.over = False

    def __call__(self, pdu: PassingPdu) -> list[bytes]:
        if pdu.end == TARGET:
            return [pdu.raw]
        if pdu.opcode == Opcode.TASK_MANAGEMENT_REQUEST:
            self.asked.append(pdu.raw[1] & 0x7F)
            return [] if self.asked[-1] in self.functions else [pdu.raw]
        # The Data-Out of one command is lost; what comes after the ladder's work gets through.
        return [] if pdu.opcode == Opcode.DATA_OUT and not self.over else [pdu.raw]


async def stuck_write(pair: SteppedPair, lun: Lun, silence: Silence) -> tuple[object, float]:
    pair.link.tap.intercept = silence
    began = pair.now
    task = asyncio.create_task(lun.pwrite(pattern(1, 16384), 0))
    while not silence.asked:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.1)
    silence.over = True
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return result, pair.now - began


ABORT, LU, WARM = TaskFunction.ABORT_TASK, TaskFunction.LOGICAL_UNIT_RESET, TaskFunction.TARGET_WARM_RESET


def test_a_request_that_can_be_aborted_costs_nobody_else_anything() -> None:
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                silence = Silence(())
                result, seconds = await stuck_write(pair, lun, silence)
                assert isinstance(result, errors.TimedOutError)
                assert silence.asked == [ABORT]
                assert 10.0 <= seconds <= 10.5
                await write_and_read(lun)
                assert lun.session.reopened == 0

        pair.run(body())


@pytest.mark.parametrize(
    ("deaf", "asked", "reopened", "least"),
    [
        ((ABORT,), [ABORT, LU], 0, 14.0),
        ((ABORT, LU), [ABORT, LU, WARM], 0, 20.0),
        ((ABORT, LU, WARM), [ABORT, LU, WARM], 1, 28.0),
    ],
    ids=["LU reset", "target reset", "re-open"],
)
def test_each_rung_has_its_time_and_the_request_is_sent_again(
    deaf: tuple[int, ...], asked: list[int], reopened: int, least: float
) -> None:
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                silence = Silence(deaf)
                result, seconds = await stuck_write(pair, lun, silence)
                assert result == 16384
                assert silence.asked == asked
                assert lun.session.reopened == reopened
                assert least <= seconds <= least + 2.0
                assert await lun.pread(16384, 0) == pattern(1, 16384)
                climbed = lun.session.ladder.climbed
                assert climbed[Rung.ABORT_TASK] == 1
                assert climbed[Rung.LOGICAL_UNIT_RESET] == 1

        pair.run(body())
        assert pair.stored(0, 16384) == pattern(1, 16384)


def test_many_requests_share_one_climb_and_all_are_sent_again() -> None:
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                silence = Silence((ABORT,))
                pair.link.tap.intercept = silence
                writes = [asyncio.create_task(lun.pwrite(pattern(n, 8192), n * 8192)) for n in range(8)]
                await asyncio.sleep(11)
                silence.over = True
                assert await asyncio.gather(*writes) == [8192] * 8
                assert silence.asked.count(LU) == 1
                for number in range(8):
                    assert await lun.pread(8192, number * 8192) == pattern(number, 8192)

        pair.run(body())


def test_a_target_that_refuses_the_functions_costs_no_waiting() -> None:
    """A function that is not supported is no reason to wait for its timer."""
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                silence = Silence((ABORT,))

                def refuse(pdu: PassingPdu) -> list[bytes]:
                    if pdu.end == TARGET and pdu.opcode == Opcode.TASK_MANAGEMENT_RESPONSE:
                        return [pdu.raw[:2] + b"\x05" + pdu.raw[3:]]  # 11.6.1: function not supported
                    return silence(pdu)

                pair.link.tap.intercept = refuse
                began = pair.now
                task = asyncio.create_task(lun.pwrite(pattern(2, 16384), 0))
                await asyncio.sleep(10.2)
                silence.over = True
                assert await task == 16384
                assert pair.now - began <= 10.0 + 4.0 + 3.0
                assert lun.session.reopened == 1

        pair.run(body())


def test_a_request_that_stalls_wherever_it_is_sent_fails_in_the_end() -> None:
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                silence = Silence((ABORT,))
                pair.network.on_link = lambda link: setattr(link.tap, "intercept", silence)
                pair.link.tap.intercept = silence
                with pytest.raises(errors.TimedOutError):
                    await lun.pwrite(pattern(3, 16384), 0)
                assert silence.asked == [ABORT, LU] * 3
                silence.over = True
                await write_and_read(lun)

        pair.run(body())


def test_a_cancelled_request_on_a_deaf_target_ends_too() -> None:
    with pair_of() as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                silence = Silence((ABORT, LU, WARM))
                pair.link.tap.intercept = silence
                task = asyncio.create_task(lun.pwrite(pattern(4, 16384), 0))
                await asyncio.sleep(1)
                began = pair.now
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert pair.now - began <= sum(SECONDS.values()) + 1.0
                silence.over = True
                await write_and_read(lun)

        pair.run(body())


# ---------------------------------------------------------------------- losing the session
def test_queued_requests_wait_and_then_fail_with_a_clear_error() -> None:
    with pair_of() as pair:

        async def body() -> None:
            lun = await pair.open()
            pair.network.always(Faults(refused=True))
            pair.link.cut_now()
            began = pair.now
            waiting = [asyncio.create_task(lun.pread(512, n * 512)) for n in range(16)]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert 59.0 <= pair.now - began <= 62.0
            for result in results:
                assert isinstance(result, errors.ConnectionLostError)
                assert "within 60 s" in str(result)
                assert result.next
            # The attempts go on, with pauses that double to their bound: never spinning.
            attempts = len(pair.links)
            assert attempts <= 1 + 16
            pair.network.always(Faults())
            pair.network.restore()
            await asyncio.sleep(10)
            assert lun.session.state is State.OPEN
            await write_and_read(lun)
            await lun.close()

        pair.run(body())


def test_attempts_are_exponential(monkeypatch: pytest.MonkeyPatch) -> None:
    with pair_of() as pair:
        dialled: list[float] = []
        dial = pair.initiator_runtime.dial

        async def noted(portal: object) -> object:
            dialled.append(pair.now)
            return await dial(portal)  # type: ignore[arg-type]

        async def body() -> None:
            lun = await pair.open()
            monkeypatch.setattr(pair.initiator_runtime, "dial", noted)
            pair.network.always(Faults(refused=True))
            pair.link.cut_now()
            await asyncio.sleep(60)
            pair.network.restore()
            pair.network.always(Faults())
            await lun.close()

        pair.run(body())
        pauses = [round(b - a, 2) for a, b in itertools.pairwise(dialled)]
        assert pauses[:5] == [1.0, 2.0, 4.0, 8.0, 8.0]


@pytest.mark.parametrize("how", ["refused", "black_hole"])
def test_retry_now(how: str) -> None:
    """ "The target is back": neither the pause nor an attempt that hangs is waited for."""
    with pair_of() as pair:

        async def body() -> None:
            lun = await pair.open()
            pair.network.always(Faults(**{how: True}))
            pair.link.cut_now()
            await asyncio.sleep(40)
            assert lun.session.state is State.REOPENING
            pair.network.always(Faults())
            reading = asyncio.create_task(lun.pread(512, 0))
            await asyncio.sleep(0)
            began = pair.now
            lun.session.retry_now()
            assert await reading == bytes(512)
            assert pair.now - began <= 0.1 + (TIMERS.reopen_first if how == "black_hole" else 0)
            lun.session.retry_now()  # of a session that is open: nothing
            assert lun.session.reopened == 1
            await lun.close()

        pair.run(body())


def test_closing_a_session_that_is_away_ends_at_once() -> None:
    with pair_of() as pair:

        async def body() -> None:
            lun = await pair.open()
            pair.network.always(Faults(black_hole=True))
            pair.link.cut_now()
            await asyncio.sleep(30)
            began = pair.now
            await lun.close()
            assert pair.now - began < 1.0
            pair.network.always(Faults())
            with pytest.raises(errors.ClosedError):
                await lun.pread(512, 0)
            assert pair.initiator.sessions == set()

        pair.run(body())


def test_a_target_that_drops_every_session_at_once_is_not_asked_in_a_tight_loop() -> None:
    with pair_of() as pair:

        async def body() -> None:
            lun = await pair.open()
            pair.network.on_link = lambda link: setattr(
                link.tap, "intercept",
                lambda pdu: [] if pdu.end == INITIATOR and pdu.opcode == Opcode.SCSI_COMMAND else [pdu.raw],
            )  # fmt: skip
            logins = len(pair.links)
            for _ in range(20):
                pair.link.cut_now()
                await asyncio.sleep(1)
            assert len(pair.links) - logins <= 21
            pair.network.on_link = None
            pair.link.cut_now()
            await write_and_read(lun)
            await lun.close()

        pair.run(body())
