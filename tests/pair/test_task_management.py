"""Task management between our two ends: what ends, what is told to whom, and that nobody waits for a stalled peer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from blockwire import errors
from blockwire.initiator.logical_unit import Lun
from blockwire.initiator.options import Timers
from blockwire.scsi.cdb import ModeSelect6, TestUnitReady
from blockwire.scsi.mode import CONTROL_PAGE
from blockwire.scsi.sense import SenseCode, parse_sense
from blockwire.scsi.status import Status
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.testing.tap import PassingPdu
from blockwire.testing.virtual_network import Link
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import AsyncEvent, Opcode, TaskFunction, TaskResponse
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse
from tests.pair.exchange import SMALL, TARGET_SMALL, pattern

KEYS = {**SMALL, "iSCSIProtocolLevel": "2"}
TIMERS = Timers(timeout=40.0, keep_alive_interval=0.0)


@pytest.fixture
def pair() -> Iterator[SteppedPair]:
    with SteppedPair("ram:1M", "ram:1M", keys=KEYS, target_keys=TARGET_SMALL, tapped=True, timers=TIMERS) as made:
        yield made


def hold_data_out(link: Link) -> list[bytes]:
    """From now on Data-Out of this connection goes nowhere; the list gets it."""
    held: list[bytes] = []

    def intercept(pdu: PassingPdu) -> list[bytes]:
        if pdu.end == INITIATOR and pdu.opcode == Opcode.DATA_OUT:
            held.append(pdu.raw)
            return []
        return [pdu.raw]

    link.tap.intercept = intercept
    return held


async def stalled_write(pair: SteppedPair, lun: Lun, link: Link, data: bytes, offset: int) -> asyncio.Task[int]:
    """A write of `lun` that waits for Data-Out for ever."""
    hold_data_out(link)
    write = asyncio.ensure_future(lun.pwrite(data, offset))
    await asyncio.sleep(0.1)
    assert len(await lun.session.tasks()) == 1
    return write


async def give_up(write: asyncio.Task[int]) -> None:
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write


async def attention(lun: Lun) -> SenseCode | None:
    """The unit attention that the next command reports."""
    found = await lun.scsi(TestUnitReady().encode())
    if found.status == Status.GOOD:
        return None
    sense = parse_sense(found.sense)
    return SenseCode(sense.asc << 8 | sense.ascq)


@pytest.mark.parametrize("function", ["reset", "clear_task_set"])
def test_functions_of_a_unit_answer_although_another_initiators_write_stalls(pair: SteppedPair, function: str) -> None:
    async def body() -> None:
        first, second = await pair.open(), await pair.open()
        write = await stalled_write(pair, second, pair.links[1], pattern(1, 2048), 8192)
        began = pair.now
        await getattr(first, function)()
        assert pair.now - began < 1.0
        assert (await attention(first)) is (
            SenseCode.BUS_DEVICE_RESET_FUNCTION_OCCURRED if function == "reset" else None
        )
        await first.pwrite(pattern(2, 2048), 8192)
        pair.links[1].tap.intercept = None
        expected = {
            "reset": SenseCode.BUS_DEVICE_RESET_FUNCTION_OCCURRED,
            "clear_task_set": SenseCode.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR,
        }
        assert await attention(second) is expected[function]
        assert await attention(second) is None
        await give_up(write)
        await first.close()
        await second.close()

    pair.run(body())
    assert pair.stored(8192, 2048) == pattern(2, 2048)  # an aborted write never touches the store after its response


def test_abort_task_set_answers_although_another_initiators_write_stalls(pair: SteppedPair) -> None:
    async def body() -> None:
        first, second = await pair.open(), await pair.open()
        write = await stalled_write(pair, second, pair.links[1], pattern(1, 2048), 8192)
        began = pair.now
        await first.abort_task_set()
        assert pair.now - began < 1.0
        assert len(await second.session.tasks()) >= 1  # not the other's tasks
        assert await attention(second) is None
        await give_up(write)
        await first.close()
        await second.close()

    pair.run(body())


def test_abort_task_set_of_ones_own_stalled_write_ends_within_its_bound(pair: SteppedPair) -> None:
    """4.2.3.3 a: the target waits for the data of its R2Ts, and not for ever."""

    async def body() -> None:
        lun = await pair.open()
        write = await stalled_write(pair, lun, pair.links[0], pattern(1, 2048), 8192)
        began = pair.now
        await lun.abort_task_set()
        assert pair.now - began < 16.0
        pair.links[0].tap.intercept = None
        assert await write == 2048  # it was sent again
        await lun.close()

    pair.run(body())
    assert pair.stored(8192, 2048) == pattern(1, 2048)


@pytest.mark.parametrize("function", ["reset", "clear_task_set"])
def test_with_tas_the_others_are_told_by_status(pair: SteppedPair, function: str) -> None:
    """SPC-4 7.5.10: with TAS their tasks end with TASK ABORTED, which our initiator repeats; nobody waits."""

    async def body() -> None:
        first, second = await pair.open(), await pair.open()
        page = CONTROL_PAGE.build(queue_algorithm=1, task_aborted_status=1)
        selected = await first.scsi(ModeSelect6(len(page) + 4, page_format=True).encode(), 0, bytes(4) + page)
        assert selected.status == Status.GOOD
        assert await attention(second) is SenseCode.MODE_PARAMETERS_CHANGED
        held = hold_data_out(pair.links[1])
        write = asyncio.ensure_future(second.pwrite(pattern(1, 2048), 8192))
        await asyncio.sleep(0.1)
        assert held
        await getattr(first, function)()
        await first.pwrite(pattern(2, 2048), 8192)

        def late(pdu: PassingPdu) -> list[bytes]:
            pair.links[1].tap.intercept = None
            return [*held, pdu.raw]

        # The status follows the data that was asked for (11.17.1); of that nothing reaches the store.
        pair.links[1].tap.intercept = late
        again = second.pread(2048, 8192)
        assert await again == pattern(2, 2048)
        assert await write == 2048  # repeated, and told so by nothing but its status
        await first.close()
        await second.close()

    pair.run(body())
    assert pair.stored(8192, 2048) == pattern(1, 2048)
    statuses = [pdu.raw[3] for pdu in pair.links[1].tap.pdus(TARGET) if pdu.opcode == Opcode.SCSI_RESPONSE]
    assert 0x40 in statuses


def test_queries(pair: SteppedPair) -> None:
    async def body() -> None:
        lun = await pair.open()
        session = lun.session

        async def ask(function: TaskFunction, number: int = 0, **options: object) -> TaskManagementResponse:
            return await session.task_management(function, number, **options)  # type: ignore[arg-type]

        assert (await ask(TaskFunction.QUERY_TASK_SET)).response == TaskResponse.FUNCTION_COMPLETE
        assert (await ask(TaskFunction.QUERY_ASYNCHRONOUS_EVENT)).response == TaskResponse.FUNCTION_COMPLETE
        # LUN 1 was never touched: its first unit attention is pending (29h/00h).
        event = await ask(TaskFunction.QUERY_ASYNCHRONOUS_EVENT, 1)
        assert (event.response, event.additional_information) == (TaskResponse.FUNCTION_SUCCEEDED, 0x162900)
        assert (await ask(TaskFunction.QUERY_ASYNCHRONOUS_EVENT, 2)).response == TaskResponse.LUN_DOES_NOT_EXIST

        write = await stalled_write(pair, lun, pair.links[0], pattern(1, 2048), 8192)
        (task,) = await session.tasks()
        assert (await ask(TaskFunction.QUERY_TASK_SET)).response == TaskResponse.FUNCTION_SUCCEEDED
        assert (await ask(TaskFunction.QUERY_TASK_SET, 1)).response == TaskResponse.FUNCTION_COMPLETE
        assert (await ask(TaskFunction.QUERY_TASK, task=task)).response == TaskResponse.FUNCTION_SUCCEEDED
        assert (await ask(TaskFunction.QUERY_TASK, 1, task=task)).response == TaskResponse.FUNCTION_COMPLETE
        assert (await ask(TaskFunction.ABORT_TASK, 1, task=task)).response == TaskResponse.TASK_DOES_NOT_EXIST
        await give_up(write)
        assert (await ask(TaskFunction.QUERY_TASK, task=task)).response == TaskResponse.FUNCTION_COMPLETE
        await lun.close()

    pair.run(body())


def test_functions_of_rfc_7144_need_its_protocol_level(pair: SteppedPair) -> None:
    async def body() -> None:
        session = await pair.connect({"iSCSIProtocolLevel": "1"})
        with pytest.raises(errors.UsageError, match="iSCSIProtocolLevel=2"):
            await session.task_management(TaskFunction.QUERY_TASK_SET)
        for function in (9, 10, 11, 12, 3, 77):
            pdu = TaskManagementRequest(function=function, initiator_task_tag=0)
            token = session.plane.send_pdu(session.id, None, pdu.encode())
            answer = await session.dispatch.answer(token)
            response = TaskManagementResponse.decode(bytes(answer.header), b"", b"").response
            assert response == TaskResponse.NOT_SUPPORTED, function
        await session.close()

    pair.run(body())


def test_reassignment_is_not_there_below_level_2(pair: SteppedPair) -> None:
    async def body() -> None:
        session = await pair.connect()
        pdu = TaskManagementRequest(function=TaskFunction.TASK_REASSIGN, initiator_task_tag=0, referenced_task_tag=7)
        answer = await session.dispatch.answer(session.plane.send_pdu(session.id, None, pdu.encode()))
        response = TaskManagementResponse.decode(bytes(answer.header), b"", b"").response
        assert response == TaskResponse.REASSIGNMENT_NOT_SUPPORTED
        await session.close()

    pair.run(body())


def test_fast_abort_tells_third_parties_by_event_5(pair: SteppedPair) -> None:
    """4.2.3.4 d and 4.2.3.5: on each connection with an affected task of a FastAbort session, and nowhere else."""
    fast = {"TaskReporting": "FastAbort,ResponseFence,RFC3720"}

    async def body() -> None:
        issuer = await pair.open(keys=fast)
        third = await pair.open(keys=fast)
        old = await pair.open()
        told: dict[str, list[AsyncMessage]] = {"issuer": [], "third": [], "old": []}
        for name, lun in (("issuer", issuer), ("third", third), ("old", old)):
            lun.session.observers.append(told[name].append)
        writes = [
            await stalled_write(pair, lun, pair.links[number], pattern(number, 2048), 8192 * number)
            for number, lun in enumerate((issuer, third, old))
        ]
        began = pair.now
        await issuer.reset()
        assert pair.now - began < 1.0  # nobody waits for Data-Out with FastAbort
        await asyncio.sleep(0.1)
        assert {name: [message.async_event for message in messages] for name, messages in told.items()} == {
            "issuer": [], "third": [AsyncEvent.TASK_TERMINATION], "old": [],
        }  # fmt: skip
        assert told["third"][0].lun == bytes(8)
        for write in writes:
            await give_up(write)
        for lun in (issuer, third, old):
            await lun.close()

    pair.run(body())
    assert pair.stored(8192, 2048) == bytes(2048)


def test_target_resets(pair: SteppedPair) -> None:
    async def body() -> None:
        first, second = await pair.open(), await pair.open()
        await first.session.target_reset()
        for lun in (first, second):
            assert await attention(lun) is SenseCode.BUS_DEVICE_RESET_FUNCTION_OCCURRED
        await first.session.target_reset(cold=True)
        await first.pwrite(pattern(3, 512), 0)
        assert await second.pread(512, 0) == pattern(3, 512)
        assert (first.session.reopened, second.session.reopened) == (1, 1)
        await first.close()
        await second.close()

    pair.run(body())
    downs = [event.details["reason"] for event in pair.events if event.event == "session-down"]
    assert downs[:2] == ["target-reset", "target-reset"]


def test_a_nexus_reset_ends_its_own_session_only(pair: SteppedPair) -> None:
    async def body() -> None:
        first, second = await pair.open(), await pair.open()
        found = await first.session.task_management(TaskFunction.I_T_NEXUS_RESET)
        assert found.response == TaskResponse.FUNCTION_COMPLETE
        await first.pwrite(pattern(3, 512), 0)
        assert await second.pread(512, 0) == pattern(3, 512)
        assert (first.session.reopened, second.session.reopened) == (1, 0)
        await first.close()
        await second.close()

    pair.run(body())
    downs = [event.details["reason"] for event in pair.events if event.event == "session-down"]
    assert downs[0] == "nexus-reset"
