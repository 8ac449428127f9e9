"""What iSCSIProtocolLevel changes at the target (RFC 7144); reserved codes of requests (RFC 7143 section 11)."""

from __future__ import annotations

import pytest

from blockwire.dataplane import api
from blockwire.scsi import cdb
from blockwire.wire.constants import TaskFunction
from blockwire.wire.logout import LogoutRequest
from blockwire.wire.reject import Reject
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse
from tests.unit.target.conftest import Bench, Run


@pytest.mark.parametrize(("keys", "descriptor"), [([], "0961"), (["1"], "0961"), (["2"], "0962"), (["31"], "0962")])
def test_the_version_descriptor_says_the_negotiated_level(run: Run, keys: list[str], descriptor: str) -> None:
    # RFC 7144 4.2: 0960h plus the negotiated value; without the key it is 1
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in(keys=[("iSCSIProtocolLevel", value) for value in keys])
        await bench.command(session, bytes(6))  # its unit attention
        answer = await bench.command(session, cdb.Inquiry(0, 96).encode())
        assert isinstance(answer, api.Status)
        assert answer.data[60:62].hex() == descriptor

    run(test)


def test_a_nexus_reset_follows_the_steps_of_a_multi_task_abort(run: Run) -> None:
    # RFC 7144 6.5: earlier commands are waited for, the tasks end, then the fenced response, then the session
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in(keys=[("iSCSIProtocolLevel", "2")])
        _, other = await bench.log_in(isid=bytes.fromhex("400001370002"))
        bench.plane.abort_report = api.AbortReport(((session, 5),), found=True, complete=True)
        request = TaskManagementRequest(function=TaskFunction.I_T_NEXUS_RESET, initiator_task_tag=9, cmd_sn=20)
        answer, effects = await bench.control(session, request)
        scope = next(call.arguments[0] for call in bench.plane.calls if call.name == "abort")
        assert (scope.kind, scope.session, scope.before_cmd_sn, scope.plug) == (api.AbortKind.NEXUS, session, 20, False)
        decoded = TaskManagementResponse.decode(answer.header)
        assert decoded.response == 0
        assert effects.fence
        assert effects.close
        bench.plane.inject(api.ConnectionClosed(session, 1))
        await bench.settle()
        assert set(bench.plane.sessions) == {other}

    run(test)


@pytest.mark.parametrize("reason", [3, 4, 0x7F])
def test_a_reserved_logout_reason_is_a_protocol_error(run: Run, reason: int) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        answer, _ = await bench.control(session, LogoutRequest(reason=reason, initiator_task_tag=9, cid=1))
        assert Reject.decode(answer.header, b"", answer.data).reason == 0x04
        assert answer.data[0] & 0x3F == 0x06
        assert answer.data[1] == 0x80 | reason
        (told,) = bench.told("protocol-violation")
        assert "11.14.1" in told.details["what"]
        assert session in bench.plane.sessions
        # and in a discovery session
        discovery = await bench.connect()
        assert (await discovery.log_in(isid=bytes.fromhex("400001370009"))).status == 0
        await discovery.send(LogoutRequest(reason=reason, initiator_task_tag=9, cid=1, cmd_sn=1))
        found = await discovery.receive()
        assert isinstance(found, Reject)
        assert found.reason == 0x04
        await discovery.send(LogoutRequest(reason=0, initiator_task_tag=10, cmd_sn=2))
        assert await discovery.closed()

    run(test)
