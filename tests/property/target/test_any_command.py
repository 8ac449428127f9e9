"""Any CDB with any data gets an answer: the slow path never raises and never answers with its own failure."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from blockwire.config import arguments
from blockwire.dataplane import api
from blockwire.dataplane.dispatch import Dispatch
from blockwire.dataplane.fake import FakePlane
from blockwire.scsi.commands import TABLE, describe
from blockwire.scsi.sense import parse_sense
from blockwire.target.commands import absent, table
from blockwire.target.commands.call import Call
from blockwire.target.device import open_device
from blockwire.target.nexus import Nexus

opcodes = st.sampled_from([row.operation_code for row in TABLE]) | st.integers(0, 255)
cdbs = st.builds(lambda code, rest: bytes([code]) + rest, opcodes, st.binary(min_size=15, max_size=15))


def ask(question: Callable[[FakePlane, Dispatch, Any], Any]) -> None:
    async def main() -> None:
        plane = FakePlane()
        dispatch = Dispatch(plane)
        dispatch.attach()
        configuration = arguments.build(["ram:1M"], target_name="iqn.2024-01.a:b", host="h")
        device = await open_device(configuration.targets[0], 1, plane, dispatch, host_id="h", revision="1")
        await question(plane, dispatch, device)
        dispatch.close()
        plane.shutdown(0)

    asyncio.run(main())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cdbs, st.binary(max_size=64), st.integers(0, 7), st.booleans()), min_size=20, max_size=60))
def test_any_command(commands: list[tuple[bytes, bytes, int, bool]]) -> None:
    async def question(plane: FakePlane, dispatch: Dispatch, device: Any) -> None:
        unit = device.units[0]
        nexus = Nexus(1, unit)
        unit.nexuses.add(nexus)
        for cdb, data, attribute, diverted in commands:
            event = api.CommandForControl(
                1, 1, 1, 0, cdb, attribute, 1, 1, len(data), False, bool(data), data, diverted
            )
            call = Call(event, device.view, plane, dispatch, unit, nexus, lambda unit, nexus: None)
            found = table.answer(call)
            if inspect.isawaitable(found):
                found = await found
            assert isinstance(found, api.Status | api.Resume | api.Collect), describe(cdb)
            if isinstance(found, api.Status) and found.sense:
                sense = parse_sense(found.sense)
                assert (sense.asc, sense.ascq) != (0x44, 0), describe(cdb)
            assert isinstance(absent.answer(cdb, device.view), api.Status)

    ask(question)
