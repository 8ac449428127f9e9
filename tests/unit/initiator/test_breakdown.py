"""The plane says that what ran a session broke down: it is opened again, as after any other loss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from blockwire.dataplane import api
from blockwire.initiator.session import State
from tests.unit.initiator.conftest import Bench


def test_a_session_whose_worker_broke_down_is_opened_again(bench: Bench, scenario: Callable[[Any], Any]) -> None:
    async def body() -> None:
        session = await bench.session()
        number = session.id
        bench.plane.inject(api.SessionLost(number, "worker-panic", "worker 0 panicked: why"))
        while session.id == number or session.state is not State.OPEN:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert session.reopened == 1
        assert session.loss == "worker-panic worker 0 panicked: why"
        assert await session.lun_numbers() == [0]
        await session.close()

    scenario(body)
