"""The room that the tests wait in: it comes back, and it gives up with the right words."""

from __future__ import annotations

import asyncio

import pytest

from tests.waiting import NeverCame, until, wait_until


def test_it_waits_as_long_as_it_takes() -> None:
    looks = iter([False, False, True])
    wait_until(lambda: next(looks), "the third look")
    looks = iter([False, True])
    asyncio.run(until(lambda: next(looks), "the second look"))
    assert next(looks, "none") == "none"


def test_it_says_what_never_came() -> None:
    with pytest.raises(NeverCame, match=r"the moon: not within 0\.01 s"):
        wait_until(lambda: False, "the moon", 0.01)
    with pytest.raises(NeverCame, match=r"the moon: not within 0\.01 s"):
        asyncio.run(until(lambda: False, "the moon", 0.01))


def test_it_does_not_wait_for_what_cannot_come() -> None:
    with pytest.raises(NeverCame, match="the moon: it is new"):
        wait_until(lambda: False, "the moon", useless=lambda: "it is new")
