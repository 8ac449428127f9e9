"""Connections of a session at the target: joining, reinstatement, logouts, TASK REASSIGN, timers; with a fake plane."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from blockwire.dataplane import api
from blockwire.target.session import TargetSession
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import LogoutReason, TaskFunction
from blockwire.wire.keys import join_pairs
from blockwire.wire.login import LoginRequest, LoginResponse
from blockwire.wire.logout import LogoutRequest, LogoutResponse
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse
from tests.unit.target.conftest import NAME, Bench, Run
from tests.unit.target.raw_initiator import INITIATOR, RawInitiator

LIMITS = api.Limits(
    max_recv_data_segment_length=262144, max_burst_length=1 << 20, first_burst_length=262144, max_outstanding_r2t=64,
    max_connections=16, error_recovery_level=2, command_window=128, max_transfer=1 << 20,
    digests=(api.Digest.NONE, api.Digest.CRC32C),
)  # fmt: skip


def keys(level: int = 2, connections: int = 4, wait: int = 0, retain: int = 20) -> list[tuple[str, str]]:
    return [
        ("ErrorRecoveryLevel", str(level)), ("MaxConnections", str(connections)), ("DataSequenceInOrder", "No"),
        ("DefaultTime2Wait", str(wait)), ("DefaultTime2Retain", str(retain)), ("iSCSIProtocolLevel", "2"),
    ]  # fmt: skip


class Joined:
    """A session of several raw connections."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.session = 0
        self.tsih = 0
        self.open: dict[int, RawInitiator] = {}

    async def lead(self, **options: Any) -> None:
        initiator = await self.bench.connect()
        response = await initiator.log_in(target=NAME, keys=keys(**options))
        assert response.status == 0
        self.tsih = response.tsih
        await self.bench.settle()
        self.session = max(self.bench.plane.sessions)
        self.open[1] = initiator

    async def join(self, cid: int, tsih: int | None = None) -> int:
        """The login status."""
        initiator = await self.bench.connect()
        response = await initiator.log_in(target=NAME, tsih=self.tsih if tsih is None else tsih, cid=cid)
        await self.bench.settle()
        if not response.status:
            self.open[cid] = initiator
        return response.status

    async def step(self, initiator: RawInitiator, cid: int, *, last: bool) -> int:
        """One Login Request of a further connection, the last to the full feature phase: the login status."""
        names = [("InitiatorName", INITIATOR), ("TargetName", NAME)]
        request = LoginRequest(
            transit=last, csg=1, nsg=3 if last else 0, isid=bytes.fromhex("400001370000"), tsih=self.tsih,
            initiator_task_tag=5, cid=cid, cmd_sn=1, data=b"" if last else join_pairs(names),
        )  # fmt: skip
        await initiator.send(request)
        response = await initiator.receive()
        assert isinstance(response, LoginResponse)
        await self.bench.settle()
        return response.status

    async def lose(self, cid: int) -> None:
        del self.bench.plane.connections[self.session, cid]
        self.bench.plane.inject(api.ConnectionLost(self.session, cid, "reset"))
        await self.bench.settle()

    def freeze(self, tag: int, cid: int, **fields: Any) -> None:
        self.bench.plane.tasks.append(api.TaskView(self.session, tag, cid, 0, 5, frozen=True, **fields))

    async def reassign(self, tag: int, **fields: Any) -> tuple[int, api.Effects]:
        request = TaskManagementRequest(
            function=TaskFunction.TASK_REASSIGN, initiator_task_tag=6, referenced_task_tag=tag, **fields
        )
        answer, effects = await self.bench.control(self.session, request)
        return TaskManagementResponse.decode(answer.header).response, effects

    async def log_out(self, reason: int, cid: int, on: int = 1) -> tuple[LogoutResponse, api.Effects]:
        answer, effects = await self.bench.control(
            self.session, LogoutRequest(reason=reason, initiator_task_tag=6, cid=cid), on
        )
        return LogoutResponse.decode(answer.header), effects

    def calls(self, name: str) -> list[tuple[Any, ...]]:
        return [call.arguments for call in self.bench.plane.calls if call.name == name]

    @property
    def alive(self) -> bool:
        return self.session in self.bench.plane.sessions


def scenario(run: Run, body: Any, **options: Any) -> None:
    async def test(bench: Bench) -> None:
        bench.plane.fake_limits = LIMITS
        for device in bench.server.devices.values():
            from blockwire.target.device import preferences

            device.preferences = preferences(LIMITS, {"DefaultTime2Wait": "0"})
        joined = Joined(bench)
        await joined.lead(**options)
        await body(joined)

    run(test)


# ---------------------------------------------------------------------- joining
def test_further_connections_join_up_to_max_connections(run: Run) -> None:
    async def body(joined: Joined) -> None:
        for cid in (2, 9, 3):
            assert await joined.join(cid) == 0
        assert await joined.join(4) == 0x0206
        assert sorted(cid for _, cid in joined.bench.plane.connections) == [1, 2, 3, 9]
        assert await joined.join(1, tsih=joined.tsih + 1) == 0x020A
        assert len(joined.bench.told("connection-up")) == 3

    scenario(run, body)


def test_of_two_logins_at_once_only_one_gets_the_last_place(run: Run) -> None:
    async def body(joined: Joined) -> None:
        both = {cid: await joined.bench.connect() for cid in (2, 3)}
        for cid, initiator in both.items():
            assert await joined.step(initiator, cid, last=False) == 0
        assert [await joined.step(initiator, cid, last=True) for cid, initiator in both.items()] == [0, 0x0206]
        assert sorted(cid for _, cid in joined.bench.plane.connections) == [1, 2]

    scenario(run, body, connections=2)


def test_a_place_is_kept_from_the_moment_of_the_last_answer(run: Run) -> None:
    async def body(joined: Joined) -> None:
        session = next(iter(joined.bench.server.sessions))
        both = {cid: await joined.bench.connect() for cid in (2, 3)}
        for cid, initiator in both.items():
            assert await joined.step(initiator, cid, last=False) == 0
        assert isinstance(session, TargetSession)
        session.reserve(2)  # the first is not in the plane yet
        assert await joined.step(both[3], 3, last=True) == 0x0206

    scenario(run, body, connections=2)


def test_a_failed_join_leaves_the_session_alone(run: Run) -> None:
    async def body(joined: Joined) -> None:
        joined.bench.plane.op_failures["adopt"] = api.Failure("transport.invalid", "no")
        await joined.join(2)
        assert joined.alive
        assert await joined.join(2) == 0

    scenario(run, body)


@pytest.mark.parametrize(("level", "mode"), [(0, api.ReleaseMode.TERMINATE), (2, api.ReleaseMode.FREEZE)])
def test_the_same_cid_reinstates_its_connection(run: Run, level: int, mode: api.ReleaseMode) -> None:
    # 6.3.4: an implicit logout; at level 2 "for recovery", below it the tasks end
    async def body(joined: Joined) -> None:
        assert await joined.join(1) == 0
        assert joined.calls("release") == [(joined.session, 1, mode)]
        assert joined.alive
        # The new one is a connection like any other: its loss is no old news.
        await joined.lose(1)
        await joined.bench.settle()
        assert len(joined.bench.told("connection-lost")) == 1
        assert joined.alive

    scenario(run, body, level=level)


# ---------------------------------------------------------------------- losing
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_session_waits_for_its_initiator(run: Run, level: int) -> None:
    # 6.3.5, 13.16: Time2Retain is the session state timeout, at every level
    async def body(joined: Joined) -> None:
        await joined.join(2)
        await joined.lose(1)
        assert joined.alive
        await joined.lose(2)
        await joined.bench.settle()
        assert joined.alive
        await asyncio.sleep(1.2)
        await joined.bench.settle()
        assert not joined.alive
        (down,) = joined.bench.told("session-down")
        assert down.details["reason"] == "timeout"

    scenario(run, body, level=level, retain=1)


@pytest.mark.parametrize("cid", [1, 7])
@pytest.mark.parametrize("level", [0, 1])
def test_below_level_2_a_session_is_continued_without_its_tasks(run: Run, level: int, cid: int) -> None:
    # 6.3.4, 6.3.6: a connection takes the place of the lost one, or one with a new CID does
    async def body(joined: Joined) -> None:
        assert isinstance(await joined.bench.command(joined.session, bytes(6)), api.Status)
        assert joined.bench.gate(joined.session) == {api.Gate.PASS}
        await joined.lose(1)
        assert await joined.join(cid) == 0
        assert sorted(joined.bench.plane.connections) == [(joined.session, cid)]
        # 11.14.5: its tasks ended without an answer
        answer = await joined.bench.command(joined.session, bytes(6))
        assert isinstance(answer, api.Status)
        assert (answer.sense[12], answer.sense[13]) == (0x47, 0x7F)
        await asyncio.sleep(1.2)
        assert joined.alive
        assert joined.calls("abort") == []

    scenario(run, body, level=level, retain=1)


def test_a_lost_connection_can_be_logged_out_below_level_2(run: Run) -> None:
    # 7.14 b
    async def body(joined: Joined) -> None:
        await joined.join(2)
        await joined.lose(1)
        response, _ = await joined.log_out(LogoutReason.CLOSE_CONNECTION, 1, on=2)
        assert response.response == 0
        response, _ = await joined.log_out(LogoutReason.CLOSE_CONNECTION, 1, on=2)
        assert response.response == 1

    scenario(run, body, level=1)


def test_connections_that_are_lost_one_after_the_other_are_not_remembered_without_end(run: Run) -> None:
    # each with a CID of its own, within the time that their tasks are kept
    async def body(joined: Joined) -> None:
        for cid in range(2, 22):
            assert await joined.join(cid) == 0
            joined.freeze(100 + cid, cid)
            await joined.lose(cid)
        (session,) = joined.bench.server.sessions
        assert list(session.recovery.connections.remains) == list(range(14, 22))  # type: ignore[attr-defined]
        assert [scope.initiator_task_tag for scope, *_ in joined.calls("abort")] == list(range(102, 114))
        assert joined.alive
        # the others are there to be reassigned
        response, _ = await joined.log_out(LogoutReason.REMOVE_FOR_RECOVERY, 21)
        assert response.response == 0
        assert (await joined.reassign(121))[0] == 0

    scenario(run, body, connections=2, retain=3600)


def test_without_time2retain_it_does_not(run: Run) -> None:
    async def body(joined: Joined) -> None:
        await joined.lose(1)
        await joined.bench.settle()
        assert not joined.alive

    scenario(run, body, retain=0)


def test_the_others_hear_of_a_lost_connection(run: Run) -> None:
    # Appendix D.4.3: an Async Message, event 2, with Time2Wait and Time2Retain
    async def body(joined: Joined) -> None:
        await joined.join(2)
        await joined.lose(1)
        ((session, cid, header, _),) = joined.bench.plane.sent
        message = AsyncMessage.decode(header)
        assert (session, cid, message.async_event) == (joined.session, 2, 2)
        assert (message.parameter1, message.parameter2, message.parameter3) == (1, 3, 20)

    scenario(run, body, wait=3)


def test_tasks_that_nobody_fetches_end_and_are_reported(run: Run) -> None:
    # 11.14.5 b: 47h/7Fh for each nexus that lost tasks
    async def body(joined: Joined) -> None:
        await joined.join(2)
        await joined.bench.command(joined.session, bytes(6))
        joined.freeze(77, 1)
        await joined.lose(1)
        await asyncio.sleep(1.2)
        await joined.bench.settle()
        assert [scope.initiator_task_tag for scope, _ in joined.calls("abort")] == [77]
        answer = await joined.bench.command(joined.session, bytes(6))
        assert isinstance(answer, api.Status)
        assert (answer.sense[2], answer.sense[12], answer.sense[13]) == (6, 0x47, 0x7F)
        assert joined.alive

    scenario(run, body, retain=1)


# ---------------------------------------------------------------------- logout
def test_logout_for_recovery(run: Run) -> None:
    async def body(joined: Joined) -> None:
        await joined.join(2)
        answer, effects = await joined.log_out(LogoutReason.REMOVE_FOR_RECOVERY, 2)
        assert (answer.response, answer.time2wait, answer.time2retain, effects.close) == (0, 0, 20, False)
        assert joined.calls("release") == [(joined.session, 2, api.ReleaseMode.FREEZE)]
        assert (await joined.log_out(LogoutReason.REMOVE_FOR_RECOVERY, 7))[0].response == 1

    scenario(run, body, wait=5)


@pytest.mark.parametrize("level", [0, 1])
def test_logout_for_recovery_below_level_2(run: Run, level: int) -> None:
    async def body(joined: Joined) -> None:
        await joined.join(2)
        assert (await joined.log_out(LogoutReason.REMOVE_FOR_RECOVERY, 2))[0].response == 2
        assert not joined.calls("release")

    scenario(run, body, level=level)


def test_a_connection_logs_itself_out_for_recovery(run: Run) -> None:
    async def body(joined: Joined) -> None:
        joined.freeze(77, 1)
        answer, effects = await joined.log_out(LogoutReason.REMOVE_FOR_RECOVERY, 1)
        assert (answer.response, effects.close) == (0, True)
        del joined.bench.plane.connections[joined.session, 1]
        joined.bench.plane.inject(api.ConnectionClosed(joined.session, 1))
        await joined.bench.settle()
        assert joined.alive
        assert await joined.join(2) == 0
        assert (await joined.reassign(77))[0] == 0

    scenario(run, body)


def test_logout_of_another_connection(run: Run) -> None:
    async def body(joined: Joined) -> None:
        await joined.join(2)
        answer, effects = await joined.log_out(LogoutReason.CLOSE_CONNECTION, 2)
        assert (answer.response, effects.close) == (0, False)
        await joined.bench.settle()
        assert joined.alive
        answer, effects = await joined.log_out(LogoutReason.CLOSE_CONNECTION, 1)
        assert (answer.response, effects.close) == (0, True)
        del joined.bench.plane.connections[joined.session, 1]
        joined.bench.plane.inject(api.ConnectionClosed(joined.session, 1))
        await joined.bench.settle()
        assert not joined.alive

    scenario(run, body)


def test_the_session_closes_with_all_its_connections(run: Run) -> None:
    async def body(joined: Joined) -> None:
        await joined.join(2)
        await joined.join(3)
        await joined.lose(3)
        answer, effects = await joined.log_out(LogoutReason.CLOSE_SESSION, 0)
        assert (answer.response, effects.close) == (0, True)
        assert joined.calls("release") == [(joined.session, 2, api.ReleaseMode.TERMINATE)]
        joined.bench.plane.inject(api.ConnectionClosed(joined.session, 1))
        await joined.bench.settle()
        assert not joined.alive
        (down,) = joined.bench.told("session-down")
        assert down.details["reason"] == "logout"

    scenario(run, body)


def test_a_reserved_logout_reason(run: Run) -> None:
    async def body(joined: Joined) -> None:
        answer, _ = await joined.bench.control(joined.session, LogoutRequest(reason=3, initiator_task_tag=6, cid=1))
        assert (answer.header[0], answer.header[2]) == (0x3F, 0x04)  # section 11

    scenario(run, body)


# ---------------------------------------------------------------------- TASK REASSIGN
def test_reassignment(run: Run) -> None:
    # 7.2.2, 11.5.1, 11.6.1
    async def body(joined: Joined) -> None:
        await joined.join(2)
        joined.bench.plane.tasks = [
            api.TaskView(joined.session, 50, 2, 0, 5), api.TaskView(joined.session, 51, 2, 0, 0, control=True),
        ]  # fmt: skip
        joined.freeze(77, 1)
        assert (await joined.reassign(99))[0] == 1
        assert (await joined.reassign(50))[0] == 3
        assert (await joined.reassign(51))[0] == 255
        await joined.lose(1)
        assert (await joined.reassign(77))[0] == 3  # lost, and not logged out
        assert (await joined.log_out(LogoutReason.REMOVE_FOR_RECOVERY, 1, on=2))[0].response == 0
        assert (await joined.reassign(77, immediate=False))[0] == 255
        response, effects = await joined.reassign(77, exp_data_sn=9)
        assert (response, effects.rebind, effects.exp_data_sn) == (0, (77, 1), 9)

    scenario(run, body)


def test_reassignment_after_an_implicit_logout(run: Run) -> None:
    async def body(joined: Joined) -> None:
        joined.freeze(77, 1)
        await joined.lose(1)
        assert await joined.join(1) == 0
        assert (await joined.reassign(77))[1].rebind == (77, 1)

    scenario(run, body)


@pytest.mark.parametrize("level", [0, 1])
def test_reassignment_below_level_2(run: Run, level: int) -> None:
    async def body(joined: Joined) -> None:
        assert (await joined.reassign(77))[0] == 4

    scenario(run, body, level=level)


# ---------------------------------------------------------------------- QUERY TASK
def test_query_task_gives_a_task_of_a_connection_that_was_logged_out_a_new_allegiance(run: Run) -> None:
    # RFC 7144 6.3
    async def body(joined: Joined) -> None:
        async def query(tag: int) -> tuple[int, api.Effects]:
            request = TaskManagementRequest(
                function=TaskFunction.QUERY_TASK, lun=bytes(8), initiator_task_tag=6, referenced_task_tag=tag
            )
            answer, effects = await joined.bench.control(joined.session, request, 2)
            return TaskManagementResponse.decode(answer.header).response, effects

        await joined.join(2)
        joined.freeze(77, 1)
        joined.freeze(78, 1, responded=True)
        await joined.lose(1)
        assert await query(77) == (7, api.Effects())  # not logged out: it has its allegiance
        await joined.log_out(LogoutReason.REMOVE_FOR_RECOVERY, 1, on=2)
        assert await query(77) == (7, api.Effects(rebind=(77, 1)))
        assert await query(78) == (0, api.Effects())  # not in the task set any more
        assert await query(79) == (0, api.Effects())

    scenario(run, body)


# ---------------------------------------------------------------------- logouts whose connection is lost meanwhile
@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("retain", [0, 20])
@pytest.mark.parametrize(("reason", "cid"), [(LogoutReason.CLOSE_SESSION, 0), (LogoutReason.CLOSE_CONNECTION, 2)])
@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_logout_and_the_loss_of_everything(
    run: Run, level: int, retain: int, reason: LogoutReason, cid: int, order: tuple[int, int]
) -> None:
    async def body(joined: Joined) -> None:
        assert await joined.join(2) == 0
        plane, session = joined.bench.plane, joined.session
        request = LogoutRequest(reason=reason, initiator_task_tag=6, cid=cid)
        plane.inject(api.ControlPdu(session, 1, request.encode(), b"", 77))
        for lost in order:
            del plane.connections[session, lost]
            plane.inject(api.ConnectionLost(session, lost, "reset"))
        await joined.bench.settle()
        if reason is LogoutReason.CLOSE_CONNECTION and retain:
            assert joined.alive  # the other connection may come back within Time2Retain
        else:
            assert not joined.alive
            assert len(joined.bench.server.sessions) == 0

    scenario(run, body, level=level, retain=retain)


def test_a_logout_of_a_connection_that_is_gone_says_nothing_about_the_next_one(run: Run) -> None:
    async def body(joined: Joined) -> None:
        assert await joined.join(2) == 0
        plane, session = joined.bench.plane, joined.session
        request = LogoutRequest(reason=LogoutReason.CLOSE_CONNECTION, initiator_task_tag=6, cid=2)
        del plane.connections[session, 2]
        plane.inject(api.ConnectionLost(session, 2, "reset"), api.ControlPdu(session, 2, request.encode(), b"", 77))
        await joined.bench.settle()
        assert await joined.join(2) == 0
        await joined.lose(2)
        (found,) = (s for s in joined.bench.server.sessions)
        # It was lost, not logged out: its tasks wait.
        assert list(found.recovery.connections.remains) == [2]  # type: ignore[attr-defined]

    scenario(run, body)
