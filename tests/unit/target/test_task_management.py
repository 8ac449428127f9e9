"""Decisions of task management, with a fake plane: every function of RFC 7143 11.5 and RFC 7144 6, every response."""

from __future__ import annotations

from typing import Any

import pytest

from blockwire.dataplane import api
from blockwire.scsi.sense import SenseCode
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import TaskFunction
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse
from tests.unit.target.conftest import Bench, Run

ISID2 = bytes.fromhex("400001370002")
LEVEL_2 = [("iSCSIProtocolLevel", "2")]
FAST = [("TaskReporting", "FastAbort,ResponseFence,RFC3720")]
COMPLETE, NO_TASK, NO_LUN, STILL_ALLEGIANT, NO_REASSIGN, UNSUPPORTED, SUCCEEDED, REJECTED = 0, 1, 2, 3, 4, 5, 7, 255


async def ask(bench: Bench, session: int, function: int, **fields: Any) -> tuple[TaskManagementResponse, api.Effects]:
    fields = {"cmd_sn": 20, **fields}
    answer, effects = await bench.control(
        session, TaskManagementRequest(function=function, initiator_task_tag=6, **fields)
    )
    return TaskManagementResponse.decode(answer.header), effects


async def response(bench: Bench, session: int, function: int, **fields: Any) -> int:
    return (await ask(bench, session, function, **fields))[0].response


def scopes(bench: Bench) -> list[tuple[api.AbortScope, api.AbortSemantics]]:
    return [call.arguments for call in bench.plane.calls if call.name == "abort"]  # type: ignore[misc]


def view(session: int, tag: int, **fields: Any) -> api.TaskView:
    return api.TaskView(session, tag, fields.pop("cid", 1), fields.pop("lun", 0), fields.pop("cmd_sn", 5), **fields)


# ---------------------------------------------------------------------- which functions there are
@pytest.mark.parametrize("function", [0, 13, 100, 127])
def test_unknown_functions(run: Run, function: int) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        assert await response(bench, session, function) == UNSUPPORTED

    run(test)


def test_clear_aca_is_not_there(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        assert await response(bench, session, TaskFunction.CLEAR_ACA) == UNSUPPORTED

    run(test)


@pytest.mark.parametrize("function", [9, 10, 11, 12])
def test_functions_of_rfc_7144_are_for_protocol_level_2(run: Run, function: int) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        assert await response(bench, session, function) == UNSUPPORTED
        _, session = await bench.log_in(isid=ISID2, keys=LEVEL_2)
        assert await response(bench, session, function) != UNSUPPORTED

    run(test)


@pytest.mark.parametrize("function", [1, 2, 4, 5, 9, 10, 12])
def test_functions_that_name_a_unit_need_one(run: Run, function: int) -> None:
    # 11.5.3, RFC 7144 6.3.1
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in(keys=LEVEL_2)
        assert await response(bench, session, function, lun=bytes.fromhex("0009000000000000")) == NO_LUN

    run(test)


# ---------------------------------------------------------------------- ABORT TASK
def test_abort_task_hands_the_number_over_where_the_command_may_still_come(run: Run) -> None:
    # 11.6.1 b: below the request's own CmdSN
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        fields = {"referenced_task_tag": 99, "ref_cmd_sn": 3}
        assert await response(bench, session, TaskFunction.ABORT_TASK, **fields) == COMPLETE
        scope, _ = scopes(bench)[-1]
        assert (scope.kind, scope.initiator_task_tag, scope.ref_cmd_sn) == (api.AbortKind.TASK, 99, 3)
        # 11.5.5: of an immediate command, whose number is the request's own
        assert (
            await response(bench, session, TaskFunction.ABORT_TASK, referenced_task_tag=99, ref_cmd_sn=20) == COMPLETE
        )
        assert scopes(bench)[-1][0].ref_cmd_sn is None

    run(test)


@pytest.mark.parametrize(
    ("ref_cmd_sn", "expected"), [(1, COMPLETE), (19, COMPLETE), (20, NO_TASK), (0, NO_TASK), (5000, NO_TASK)]
)
def test_abort_of_a_task_that_is_not_there(run: Run, ref_cmd_sn: int, expected: int) -> None:
    # 11.6.1 b and c; the window of the fake begins at 1
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        bench.plane.abort_report = api.AbortReport((), found=False, complete=True)
        bench.plane.fake_numbers = api.SessionNumbers(0, 1, 64)
        fields = {"referenced_task_tag": 99, "ref_cmd_sn": ref_cmd_sn}
        assert await response(bench, session, TaskFunction.ABORT_TASK, **fields) == expected

    run(test)


@pytest.mark.parametrize("function", [TaskFunction.ABORT_TASK, TaskFunction.QUERY_TASK])
def test_task_management_requests_are_no_tasks_to_abort(run: Run, function: int) -> None:
    # 11.5.1, RFC 7144 6.3: "such a request MUST result in … Function rejected"
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in(keys=LEVEL_2)
        bench.plane.tasks = [view(session, 42, control=True)]
        assert await response(bench, session, function, referenced_task_tag=42) == REJECTED
        assert not scopes(bench)

    run(test)


def test_a_task_of_another_unit_does_not_exist_here(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        bench.plane.tasks = [view(session, 42, lun=1 << 48)]
        assert await response(bench, session, TaskFunction.ABORT_TASK, referenced_task_tag=42) == NO_TASK

    run(test, "ram:1M", "ram:1M")


def test_a_task_that_was_answered_is_gone(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        bench.plane.abort_report = api.AbortReport((), found=True, complete=True, already_responded=True)
        assert await response(bench, session, TaskFunction.ABORT_TASK, referenced_task_tag=42) == NO_TASK

    run(test)


# ---------------------------------------------------------------------- queries
def test_query_task(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in(keys=LEVEL_2)
        bench.plane.tasks = [view(session, 42), view(session, 43, responded=True), view(session + 100, 44)]
        for tag, expected in ((42, SUCCEEDED), (43, COMPLETE), (44, COMPLETE), (45, COMPLETE)):
            assert await response(bench, session, TaskFunction.QUERY_TASK, referenced_task_tag=tag) == expected

    run(test)


def test_query_task_set(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in(keys=LEVEL_2)
        assert await response(bench, session, TaskFunction.QUERY_TASK_SET) == COMPLETE
        bench.plane.tasks = [view(session + 100, 42), view(session, 43, lun=1 << 48), view(session, 44, responded=True)]
        assert await response(bench, session, TaskFunction.QUERY_TASK_SET) == COMPLETE
        bench.plane.tasks.append(view(session, 45))
        assert await response(bench, session, TaskFunction.QUERY_TASK_SET) == SUCCEEDED

    run(test, "ram:1M", "ram:1M")


def test_query_asynchronous_event(run: Run) -> None:
    # RFC 7144 6.4.2, SAM-5: depth 1 is one, 2 is more; sense key 6; ASC and ASCQ
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in(keys=LEVEL_2)
        answer, _ = await ask(bench, session, TaskFunction.QUERY_ASYNCHRONOUS_EVENT)
        assert (answer.response, answer.additional_information) == (SUCCEEDED, 0x162900)
        unit = next(iter(bench.server.devices.values())).units[0]
        unit.attention(SenseCode.CAPACITY_DATA_HAS_CHANGED)
        answer, _ = await ask(bench, session, TaskFunction.QUERY_ASYNCHRONOUS_EVENT)
        assert (answer.response, answer.additional_information) == (SUCCEEDED, 0x262900)
        for _ in range(2):
            await bench.command(session, bytes(6))
        answer, _ = await ask(bench, session, TaskFunction.QUERY_ASYNCHRONOUS_EVENT)
        assert (answer.response, answer.additional_information) == (COMPLETE, 0)

    run(test)


# ---------------------------------------------------------------------- several tasks
@pytest.mark.parametrize(
    ("function", "fence"),
    [(1, False), (2, True), (4, True), (5, True), (6, True), (9, False), (10, False), (12, False)],
)
def test_responses_of_functions_over_several_tasks_are_fenced(run: Run, function: int, fence: bool) -> None:
    # 4.2.3.3 d, 4.2.3.4 e, 11.6.1
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in(keys=LEVEL_2)
        _, effects = await ask(bench, session, function)
        assert effects.fence is fence

    run(test)


def test_what_the_plane_is_told(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        _, fast = await bench.log_in(isid=ISID2, keys=FAST)
        kind = api.AbortKind
        for function, expected in (
            (TaskFunction.ABORT_TASK_SET, (kind.TASK_SET, 20, False)),
            (TaskFunction.CLEAR_TASK_SET, (kind.LOGICAL_UNIT, 20, False)),
            (TaskFunction.LOGICAL_UNIT_RESET, (kind.LOGICAL_UNIT, 20, False)),
            (TaskFunction.TARGET_WARM_RESET, (kind.LOGICAL_UNIT, 20, True)),
        ):
            for asking, semantics in ((session, api.AbortSemantics.CLARIFIED), (fast, api.AbortSemantics.FAST)):
                assert await response(bench, asking, function) == COMPLETE
                scope, used = scopes(bench)[-1]
                assert (scope.kind, scope.before_cmd_sn, scope.plug) == expected
                assert (scope.session, used, scope.task_aborted) == (asking, semantics, False)

    run(test)


def test_the_unit_attention_after_a_multi_task_abort_is_fenced(run: Run) -> None:
    # 4.2.2.3.4 a, 4.2.3.3 e
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        _, other = await bench.log_in(isid=ISID2)
        for one in (session, other):
            await bench.command(one, bytes(6))
        bench.plane.abort_report = api.AbortReport(((other, 5),), found=True, complete=True)
        await response(bench, session, TaskFunction.CLEAR_TASK_SET)
        first = await bench.command(other, bytes(6))
        assert isinstance(first, api.Status)
        assert (first.sense[2], first.sense[12], first.sense[13]) == (6, 0x2F, 0x00)
        assert bench.plane.replies[-1][3].fence
        await bench.command(other, bytes(6))
        assert not bench.plane.replies[-1][3].fence

    run(test)


def test_clear_task_set_tells_those_others_that_lost_something(run: Run) -> None:
    # SAM-5 7.4: COMMANDS CLEARED BY ANOTHER INITIATOR, for every other nexus with a command in the task set
    async def test(bench: Bench) -> None:
        sessions = []
        for last in range(3):
            _, session = await bench.log_in(isid=bytes.fromhex("4000013700") + bytes([last]))
            sessions.append(session)
        for one in sessions:
            await bench.command(one, bytes(6))
        asking, losing, idle = sessions
        bench.plane.abort_report = api.AbortReport(((asking, 4), (losing, 5)), found=True, complete=True)
        assert await response(bench, asking, TaskFunction.CLEAR_TASK_SET) == COMPLETE
        told = {}
        for one in sessions:
            answer = await bench.command(one, bytes(6))
            assert isinstance(answer, api.Status)
            told[one] = (answer.status, bytes(answer.sense[12:14]))
        assert told == {asking: (0, b""), losing: (2, b"\x2f\x00"), idle: (0, b"")}

    run(test)


def test_with_tas_there_is_a_status_and_no_unit_attention(run: Run) -> None:
    # SAM-5 5.6, SPC-4 7.5.10
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        _, other = await bench.log_in(isid=ISID2)
        for one in (session, other):
            await bench.command(one, bytes(6))
        page = bytes.fromhex("0a 0a 00 10 00 40 00 00 00 00 00 00")
        selected = await bench.command(session, bytes.fromhex("15 10 00 00 10 00"), data=bytes(4) + page, out=16)
        assert isinstance(selected, api.Status)
        assert selected.status == 0
        await bench.command(other, bytes(6))  # MODE PARAMETERS CHANGED
        bench.plane.abort_report = api.AbortReport(((other, 5),), found=True, complete=True)
        await response(bench, session, TaskFunction.CLEAR_TASK_SET)
        assert scopes(bench)[-1][0].task_aborted
        answer = await bench.command(other, bytes(6))
        assert isinstance(answer, api.Status)
        assert answer.status == 0

    run(test)


def test_fast_abort_sends_event_5_where_it_has_to(run: Run) -> None:
    # 4.2.3.4 d, 4.2.3.5: one for each unit and connection, never on the connection of the request, and not to others
    async def test(bench: Bench) -> None:
        _, issuer = await bench.log_in(keys=FAST)
        _, third = await bench.log_in(isid=ISID2, keys=FAST)
        _, old = await bench.log_in(isid=bytes.fromhex("400001370003"))
        bench.plane.tasks = [
            view(issuer, 1), view(issuer, 2, cid=7), view(third, 3), view(third, 4), view(third, 5, lun=1 << 48),
            view(third, 6, cid=2), view(old, 7), view(third, 8, cid=3, frozen=True),
        ]  # fmt: skip
        ended = tuple((task.session, task.initiator_task_tag) for task in bench.plane.tasks if task.cid != 2)
        bench.plane.abort_report = api.AbortReport(ended, found=True, complete=True)
        await response(bench, issuer, TaskFunction.LOGICAL_UNIT_RESET)
        told = [(session, cid, AsyncMessage.decode(header)) for session, cid, header, _ in bench.plane.sent]
        assert [(session, cid, message.async_event, message.lun[1]) for session, cid, message in told] == [
            (issuer, 7, 5, 0), (third, 1, 5, 0), (third, 1, 5, 1),
        ]  # fmt: skip

    run(test, "ram:1M", "ram:1M")


def test_a_nexus_reset_ends_the_session_after_its_response(run: Run) -> None:
    # RFC 7144 6.3: all connections of the session drop, whatever Time2Wait and Time2Retain are
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in(keys=LEVEL_2)
        _, other = await bench.log_in(isid=ISID2)
        answer, effects = await ask(bench, session, TaskFunction.I_T_NEXUS_RESET)
        assert (answer.response, effects.close) == (COMPLETE, True)
        assert scopes(bench)[-1][0].kind is api.AbortKind.NEXUS
        bench.plane.inject(api.ConnectionClosed(session, 1))
        await bench.settle()
        assert set(bench.plane.sessions) == {other}
        (down,) = bench.told("session-down")
        assert down.details["reason"] == "nexus-reset"

    run(test)
