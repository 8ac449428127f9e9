"""Several connections and recovery at level 2 at the initiator, with a fake plane: what is asked of plane and target,
and what happens when the answers are bad."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from blockwire import errors
from blockwire.dataplane import api
from blockwire.errors import login_error
from blockwire.initiator import connect
from blockwire.initiator.options import Timers
from blockwire.initiator.session import Session
from blockwire.names import Portal
from blockwire.negotiate.parameters import Parameters
from blockwire.session import ConnectionState, UndefinedTransitionError
from blockwire.wire.constants import LoginStatus, TaskFunction
from blockwire.wire.logout import LogoutRequest, LogoutResponse
from tests.unit.initiator.conftest import FAST, Bench, Nowhere
from tests.waiting import until

Scenario = Callable[[Callable[[], Awaitable[Any]]], Any]


class Several(Bench):
    """A bench whose logins agree on several connections."""

    def __init__(self, connections: int = 3, level: int = 2, wait: int = 0, retain: int = 2) -> None:
        super().__init__()
        self.parameters = Parameters(
            default_time2wait=wait, default_time2retain=retain, max_connections=connections, error_recovery_level=level
        )
        self.further: list[tuple[int, bool]] = []
        """CID, and whether it was a reinstatement."""
        self.fail_further: list[Exception] = []
        self.logouts: list[tuple[int | None, LogoutRequest]] = []
        """On which connection."""
        self.answers: list[LogoutResponse] = []
        self.plane.on_pdu = self._answer

    async def log_in(self, *arguments: Any, **named: Any) -> connect.LoggedIn:
        found = await super().log_in(*arguments, **named)
        spec = connect.session_spec(
            self.parameters, initiator_name=found.spec.initiator_name, target_name=found.spec.target_name,
            isid=found.spec.isid, tsih=found.spec.tsih, portal_group_tag=1, cmd_sn=1, exp_cmd_sn=1, max_cmd_sn=32,
        )  # fmt: skip
        found.parameters, found.spec, found.cid = self.parameters, spec, 1
        return found

    async def log_in_further(
        self, runtime: Any, limits: Any, leading: connect.LoggedIn, cid: int, numbers: Any, *, reinstate: bool = False,
        exp_stat_sn: int = 0,
    ) -> connect.LoggedIn:  # fmt: skip
        self.further.append((cid, reinstate))
        if self.fail_further:
            raise self.fail_further.pop(0)
        transport: Any = Nowhere()
        return connect.LoggedIn(
            transport, Portal("127.0.0.1"), self.parameters, leading.spec, cid, 1, b"", leading.options
        )

    def _answer(self, session: int, header: bytes, data: bytes) -> tuple[bytes, bytes] | None:
        if header[0] & 0x3F != 0x06:
            return None
        request = LogoutRequest.decode(header)
        self.logouts.append((self.plane.sent[-1][1], request))
        answer = self.answers.pop(0) if self.answers else LogoutResponse(initiator_task_tag=0)
        return answer.encode(), b""

    async def open(self, timers: Timers = FAST) -> Session:
        from blockwire.initiator.initiator import Initiator
        from blockwire.initiator.options import Options
        from tests.unit.initiator.conftest import URL

        self.initiator = Initiator(self.plane, name="iqn.2025-01.org.test:i")
        self.initiator.log_in = self.log_in
        self.initiator.log_in_further = self.log_in_further
        return await self.initiator.connect(URL, Options(timers=timers))

    async def lose(self, session: Session, *cids: int) -> None:
        """Connections are gone, each with a frozen task; returns when the session knows."""
        for cid in cids:
            self.plane.connections.pop((session.id, cid), None)
            self.plane.tasks.append(api.TaskView(session.id, 100 + cid, cid, 0, cid, frozen=True))
            self.plane.inject(api.ConnectionLost(session.id, cid, "reset"))
        while self.plane._events:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def calls(self, name: str) -> list[tuple[Any, ...]]:
        return [call.arguments for call in self.plane.calls if call.name == name]


def test_all_negotiated_connections_are_opened(scenario: Scenario) -> None:
    async def body() -> None:
        bench = Several(4)
        session = await bench.open()
        assert session.cids == (1, 2, 3, 4)
        assert bench.further == [(2, False), (3, False), (4, False)]
        await session.close()

    scenario(body)


def test_a_target_that_takes_fewer_is_believed(scenario: Scenario) -> None:
    async def body() -> None:
        bench = Several(4)
        bench.fail_further = [login_error(LoginStatus.TOO_MANY_CONNECTIONS, whose="peer")]
        session = await bench.open()
        assert session.cids == (1,)
        await asyncio.sleep(0.1)
        assert bench.further == [(2, False)]
        await session.close()

    scenario(body)


def test_a_further_login_that_fails_is_tried_again(scenario: Scenario) -> None:
    async def body() -> None:
        bench = Several(2)
        bench.fail_further = [errors.RefusedError("no"), errors.TimedOutError("no")]
        session = await bench.open()
        assert session.cids == (1,)
        await until(lambda: session.connections.replaced == 1, "the replacement of a connection")
        assert session.cids == (1, 2)
        await session.close()

    scenario(body)


def test_tasks_go_on_on_a_living_connection(scenario: Scenario) -> None:
    # 7.2.2: first the logout "for recovery", then TASK REASSIGN
    async def body() -> None:
        bench = Several(3)
        session = await bench.open()
        await bench.lose(session, 1)
        await until(lambda: session.connections.replaced == 1, "the replacement of a connection")
        ((on, request),) = bench.logouts
        assert (on, request.reason, request.cid) == (2, 2, 1)
        assert bench.calls("reassign") == [(session.id, 1, 2)]
        assert bench.further[2:] == [(1, False)]
        assert (session.connections.recovered, session.connections.replaced, session.reopened) == (1, 1, 0)
        await session.close()

    scenario(body)


def test_the_last_connection_is_reinstated(scenario: Scenario) -> None:
    # 6.3.4: a new login with the same CID is the logout; the tasks go on there
    async def body() -> None:
        bench = Several(1)
        session = await bench.open()
        bench.fail_further = [errors.RefusedError("not yet")]
        await bench.lose(session, 1)
        await until(lambda: session.connections.recovered == 1, "the recovery of a connection")
        assert bench.further == [(1, True), (1, True)]
        assert bench.plane.connections[session.id, 1].reassigned_from == 1
        assert (session.connections.recovered, session.reopened, bench.logouts) == (1, 0, [])
        await session.close()

    scenario(body)


def test_all_connections_lost(scenario: Scenario) -> None:
    async def body() -> None:
        bench = Several(3)
        session = await bench.open()
        await bench.lose(session, 1, 2, 3)
        await until(lambda: session.connections.recovered == 3 and session.cids == (1, 2, 3), "three recoveries")
        assert bench.further[2] == (1, True)
        assert sorted(request.cid for _, request in bench.logouts) == [2, 3]
        assert sorted(arguments[1:] for arguments in bench.calls("reassign")) == [(2, 1), (3, 1)]
        assert (session.connections.recovered, session.reopened) == (3, 0)
        await session.close()

    scenario(body)


def test_time2wait_is_waited_for(scenario: Scenario) -> None:
    async def body() -> None:
        bench = Several(2, wait=1)
        session = await bench.open()
        await bench.lose(session, 2)
        await asyncio.sleep(0.8)
        assert (bench.logouts, len(bench.further)) == ([], 1)
        await until(lambda: session.cids == (1, 2), "both connections")
        assert len(bench.logouts) == 1
        await session.close()

    scenario(body)


def test_no_path_within_time2retain(scenario: Scenario) -> None:
    async def body() -> None:
        bench = Several(1, retain=1)
        session = await bench.open()
        number = session.id
        bench.fail_further = [errors.RefusedError("away")] * 1000
        await bench.lose(session, 1)
        await until(lambda: session.reopened == 1, "a session opened again")
        assert (number, 1, api.ReleaseMode.TERMINATE) in bench.calls("release")
        assert session.id != number
        await session.close()

    scenario(body)


@pytest.mark.parametrize("status", [LoginStatus.SESSION_DOES_NOT_EXIST, LoginStatus.NOT_FOUND])
def test_a_target_that_forgot_the_session(scenario: Scenario, status: LoginStatus) -> None:
    async def body() -> None:
        bench = Several(1, retain=20)
        session = await bench.open()
        bench.fail_further = [login_error(status, whose="peer")]
        await bench.lose(session, 1)
        await until(lambda: session.reopened == 1, "a session opened again")
        await session.close()

    scenario(body)


def test_a_connection_that_the_target_does_not_know(scenario: Scenario) -> None:
    """Logout response 1: it has gone there already; whether its tasks are still there, TASK REASSIGN tells."""

    async def body() -> None:
        bench = Several(2)
        session = await bench.open()
        bench.answers = [LogoutResponse(response=1, initiator_task_tag=0)]
        await bench.lose(session, 2)
        await until(lambda: session.cids == (1, 2) and not session.connections.lost, "both connections")
        assert bench.calls("reassign") == [(session.id, 2, 1)]
        await session.close()

    scenario(body)


def test_a_target_that_does_not_recover_after_all(scenario: Scenario) -> None:
    """Logout response 2: the tasks end at once, and the session goes on."""

    async def body() -> None:
        bench = Several(2, retain=20)
        session = await bench.open()
        bench.answers = [LogoutResponse(response=2, initiator_task_tag=0)]
        await bench.lose(session, 2)
        await until(lambda: session.cids == (1, 2) and not session.connections.lost, "both connections")
        assert not bench.calls("reassign")
        assert (session.id, 2, api.ReleaseMode.TERMINATE) in bench.calls("release")
        assert session.reopened == 0
        await session.close()

    scenario(body)


def test_a_cleanup_that_failed_is_tried_again(scenario: Scenario) -> None:
    async def body() -> None:
        bench = Several(2, retain=20)
        session = await bench.open()
        bench.answers = [LogoutResponse(response=3, initiator_task_tag=0)]
        await bench.lose(session, 2)
        await until(lambda: not session.connections.lost, "the end of the recovery")
        assert len(bench.logouts) == 2
        assert bench.calls("reassign") == [(session.id, 2, 1)]
        await session.close()

    scenario(body)


def test_time2wait_of_the_logout_response(scenario: Scenario) -> None:
    # 11.15.3
    async def body() -> None:
        bench = Several(2)
        session = await bench.open()
        bench.answers = [LogoutResponse(initiator_task_tag=0, time2wait=1, time2retain=5)]
        await bench.lose(session, 2)
        await until(lambda: bench.logouts, "the logout")
        await asyncio.sleep(0.8)
        assert not bench.calls("reassign")
        await until(lambda: bench.calls("reassign"), "the reassignment")
        assert len(bench.logouts) == 1
        await session.close()

    scenario(body)


def test_below_level_2_only_the_connection_comes_back(scenario: Scenario) -> None:
    async def body() -> None:
        bench = Several(2, level=1)
        session = await bench.open()
        bench.plane.connections.pop((session.id, 2))
        bench.plane.inject(api.ConnectionLost(session.id, 2, "reset"))
        await until(lambda: session.connections.replaced == 1, "the replacement of a connection")
        assert (session.cids, bench.logouts, session.reopened) == ((1, 2), [], 0)
        await session.close()

    scenario(body)


def test_task_management_is_checked_before_it_is_sent(scenario: Scenario) -> None:
    async def body() -> None:
        bench = Several(1)
        session = await bench.open()
        for function in (TaskFunction.TASK_REASSIGN, TaskFunction.QUERY_TASK_SET, TaskFunction.ABORT_TASK):
            with pytest.raises(errors.UsageError):
                await session.task_management(function)
        with pytest.raises(errors.UsageError, match="rate"):
            await session.set_rate(-1)
        with pytest.raises(errors.TimedOutError):
            await session.task_management(TaskFunction.LOGICAL_UNIT_RESET, timeout=0.05)
        await session.close()

    scenario(body)


def test_the_rate_of_a_session_is_one_for_all_its_connections(scenario: Scenario) -> None:
    async def body() -> None:
        bench = Several(4)
        session = await bench.open()
        await session.set_rate(8e6)
        await session.set_rate(1e6, cid=2)
        assert [arguments[1:] for arguments in bench.calls("configure")] == [(None, {"rate": 8e6}), (2, {"rate": 1e6})]
        first = session.id
        session.lost("gone")
        await session.ready()
        # the session that took its place has the same limit
        assert bench.calls("configure")[-1] == (session.id, None, {"rate": 8e6})
        assert session.id != first
        await session.set_rate(0)
        assert bench.calls("configure")[-1][1:] == (None, {"rate": 0.0})
        await session.close()

    scenario(body)


def test_a_connection_is_reinstated_from_cleanup_wait(scenario: Scenario) -> None:
    # 6.3.4: MUST be CLEANUP_WAIT when the reinstatement is attempted, also the second time
    async def body() -> None:
        bench = Several(1)
        session = await bench.open()
        connection, seen = session.connections.live[1], []
        log_in_further = bench.initiator.log_in_further

        async def further(*arguments: Any, **named: Any) -> connect.LoggedIn:
            seen.append((connection.state, 1 in session.connections.live))
            return await log_in_further(*arguments, **named)

        bench.initiator.log_in_further = further
        bench.fail_further = [errors.RefusedError("not yet")]
        await bench.lose(session, 1)
        await until(lambda: session.connections.recovered == 1, "the recovery of a connection")
        assert seen == [(ConnectionState.CLEANUP_WAIT, False)] * 2
        await session.close()

    scenario(body)


@pytest.mark.parametrize("state", [ConnectionState.LOGGED_IN, ConnectionState.IN_LOGOUT, ConnectionState.FREE])
def test_no_other_connection_is_reinstated(scenario: Scenario, state: ConnectionState) -> None:
    async def body() -> None:
        bench = Several(1, wait=1)
        session = await bench.open()
        await bench.lose(session, 1)
        lost = session.connections.lost[1]
        lost.connection = state
        with pytest.raises(UndefinedTransitionError):
            await session.connections._reinstate(lost)
        assert bench.further == []
        lost.connection = ConnectionState.CLEANUP_WAIT
        await session.close()

    scenario(body)
