"""Login and policy of both ends under virtual time, without the extension: any delivery, any cut, damage, silence.

The planes are fakes and the links pure Python; what runs is the login machines, the target's server and the initiator.
"""

from __future__ import annotations

import asyncio

import pytest

from blockwire import errors
from blockwire.dataplane.fake import FakePlane
from blockwire.initiator.options import Timers
from blockwire.testing.memory_link import INITIATOR, TARGET, PythonPair
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.testing.virtual_network import Faults, Link

LONGEST = 45.0
"""Virtual seconds: the initiator's 30 s for a login, the target's 15 s, and some."""


def pair_of_fakes(**options: object) -> SteppedPair:
    return SteppedPair(planes=(FakePlane(), FakePlane()), make_pair=PythonPair, **options)  # type: ignore[arg-type]


def lengths_of_a_login() -> tuple[int, int]:
    """Bytes of one login, to the target and to the initiator."""
    with pair_of_fakes() as pair:
        pair.run(pair.connect())
        return pair.link.sent(INITIATOR), pair.link.sent(TARGET)


TO_TARGET, TO_INITIATOR = lengths_of_a_login()


def offsets(length: int) -> list[int]:
    """Every byte of the first header, its end, then some of the payload, and the last bytes."""
    return sorted({*range(49), *range(49, length, 41), *range(max(0, length - 3), length)})


def log_in(pair: SteppedPair) -> str:
    """Tries one login; gives `ok` or the error's code. Anything that is no `blockwire.Error` fails the test."""

    async def body() -> str:
        try:
            session = await pair.connect()
        except errors.Error as error:
            return error.code
        await session.close()
        return "ok"

    began = pair.now
    outcome = pair.run(body())
    assert pair.now - began <= LONGEST
    return outcome


def assert_nobody_is_left(pair: SteppedPair) -> None:
    """After the longest timer the target holds nothing of a login that failed."""
    pair.run(asyncio.sleep(LONGEST))
    assert pair.target.statistics()["half_open"] == 0


def test_a_login_is_there() -> None:
    assert TO_TARGET > 96
    assert TO_INITIATOR > 96


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 47, 48, 49, 100, 1000])
def test_any_delivery_gives_the_same_login(chunk: int) -> None:
    with pair_of_fakes() as whole, pair_of_fakes() as pieces:
        pieces.network.always(Faults(chunk=chunk))
        first = whole.run(whole.connect())
        second = pieces.run(pieces.connect())
        assert first.keys == second.keys
        spec = next(iter(pieces.target_plane.sessions.values()))  # type: ignore[attr-defined]
        assert spec.initiator_name == "iqn.2025-01.org.blockwire:pair-initiator"


@pytest.mark.parametrize("at", offsets(TO_TARGET))
def test_cut_on_the_way_to_the_target(at: int) -> None:
    with pair_of_fakes() as pair:
        pair.network.plan(Faults(cut_to_target=at))
        assert log_in(pair) != "ok"
        assert_nobody_is_left(pair)
        assert log_in(pair) == "ok"


@pytest.mark.parametrize("at", offsets(TO_INITIATOR))
def test_cut_on_the_way_to_the_initiator(at: int) -> None:
    with pair_of_fakes() as pair:
        pair.network.plan(Faults(cut_to_initiator=at))
        assert log_in(pair) != "ok"
        assert_nobody_is_left(pair)
        assert log_in(pair) == "ok"


@pytest.mark.parametrize("direction", [INITIATOR, TARGET])
@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_damage_never_hangs_and_never_surprises(direction: int, mask: int) -> None:
    length = TO_TARGET if direction == INITIATOR else TO_INITIATOR
    for at in [*range(48), *range(48, length, 23)]:
        with pair_of_fakes() as pair:
            damage = ((at, mask),)
            to_target = direction == INITIATOR
            pair.network.plan(Faults(damage_to_target=damage) if to_target else Faults(damage_to_initiator=damage))
            log_in(pair)
            assert_nobody_is_left(pair)
            assert log_in(pair) == "ok", f"after damage of byte {at}"


@pytest.mark.parametrize("at", [0, 20, 48, 100])
def test_silence_in_the_middle_is_a_timeout_on_both_sides(at: int) -> None:
    with pair_of_fakes() as pair:

        async def body() -> None:
            with pytest.raises(errors.Error) as caught:
                await pair.connect(timers=Timers(timeout=5.0))
            assert isinstance(caught.value, TimeoutError | ConnectionError)

        def watch(link: Link) -> None:
            if link.delivered(INITIATOR) >= at:
                link.stall()
            else:
                pair.loop.call_soon(watch, link)

        pair.network.plan(Faults(chunk=1))
        pair.network.on_link = watch
        pair.run(body())
        assert pair.now < 1000 + 10
        assert_nobody_is_left(pair)
        assert any(event.event == "login-failed" for event in pair.events)


def test_nobody_listens() -> None:
    with pair_of_fakes() as pair:
        pair.network.plan(Faults(refused=True))
        assert log_in(pair) == "network.refused"


def test_nobody_answers() -> None:
    with pair_of_fakes() as pair:
        pair.network.plan(Faults(black_hole=True))
        began = pair.now
        assert log_in(pair) == "network.timeout"
        assert pair.now - began == pytest.approx(30.0, abs=0.01)


def test_many_half_open_logins_do_not_keep_an_honest_one_out() -> None:
    with pair_of_fakes() as pair:

        async def body() -> None:
            for _ in range(2000):
                await pair.network.dial(pair.url.portal)
            session = await pair.connect()
            await session.close()

        pair.run(body())
        assert pair.target.statistics()["half_open"] <= 1024
        assert_nobody_is_left(pair)
