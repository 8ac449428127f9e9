"""Rate and keep-alive of the configuration reach the plane, for sessions that are there and for later ones."""

from __future__ import annotations

from typing import Any

import pytest

from blockwire import errors
from tests.unit.target.conftest import Bench, Run


def rates(bench: Bench) -> list[tuple[Any, ...]]:
    return [call.arguments for call in bench.plane.calls if call.name == "configure" and "rate" in call.arguments[2]]


def test_the_rate_is_that_of_each_session(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, first = await bench.log_in()
        assert rates(bench) == [(first, None, {"rate": 5e6})]
        await bench.server.set_rate(7e6)
        assert rates(bench)[1:] == [(first, None, {"rate": 7e6})]
        _, second = await bench.log_in(isid=bytes.fromhex("400001370002"))
        assert rates(bench)[2:] == [(second, None, {"rate": 7e6})]
        await bench.server.set_rate(0)
        assert sorted(rates(bench)[3:]) == [(first, None, {"rate": 0.0}), (second, None, {"rate": 0.0})]
        _, third = await bench.log_in(isid=bytes.fromhex("400001370003"))
        assert third not in [call[0] for call in rates(bench)]
        with pytest.raises(errors.UsageError, match="rate"):
            await bench.server.set_rate(-1)

    run(test, rate=5_000_000)


def test_keep_alive_goes_with_each_connection(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        given = bench.plane.connections[session, 1]
        assert (given.keep_alive_interval, given.keep_alive_timeout) == (1.5, 4.0)

    run(test, keep_alive_interval=1.5, keep_alive_timeout=4.0)
