"""Logins, reinstatement, logout, task management and the end, with a fake plane on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from blockwire import errors
from blockwire.dataplane import api
from blockwire.dataplane.fake import FakePlane
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import LogoutReason, RejectReason, TaskFunction
from blockwire.wire.keys import join_pairs, split_pairs
from blockwire.wire.logout import LogoutRequest
from blockwire.wire.nop import NopOut
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse
from blockwire.wire.text import TextRequest
from tests.unit.target.conftest import NAME, Bench, Run
from tests.unit.target.raw_initiator import INITIATOR

ISID2 = bytes.fromhex("400001370002")
LUN0 = bytes(8)


# ---------------------------------------------------------------------- login
def test_a_login_hands_its_connection_to_the_plane(run: Run) -> None:
    async def test(bench: Bench) -> None:
        initiator, session = await bench.log_in(keys=[("HeaderDigest", "CRC32C"), ("MaxRecvDataSegmentLength", "4096")])
        spec = bench.plane.sessions[session]
        assert (spec.role, spec.initiator_name, spec.target_name) == (api.Role.TARGET, INITIATOR, NAME)
        assert (spec.isid, spec.cmd_sn) == (bytes.fromhex("400001370000"), 1)
        given = bench.plane.connections[session, 1]
        assert given.header_digest == api.Digest.CRC32C
        assert given.max_send_data_segment_length == 4096
        assert given.max_recv_data_segment_length == 262144
        assert initiator.keys["TargetPortalGroupTag"] == "1"
        assert (session, 0) in bench.plane.mappings
        (up,) = bench.told("session-up")
        assert up.details["initiator"] == INITIATOR
        assert len(bench.server.half_open) == 0

    run(test)


def test_bytes_after_the_login_reach_the_plane(run: Run) -> None:
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        ping = NopOut(initiator_task_tag=3, cmd_sn=1).to_bytes()
        from blockwire.wire.login import LoginRequest

        login = LoginRequest(
            transit=True, csg=1, nsg=3, isid=ISID2, initiator_task_tag=5, cmd_sn=1,
            data=join_pairs([("InitiatorName", INITIATOR), ("TargetName", NAME)]),
        )  # fmt: skip
        await initiator.send(login.to_bytes() + ping)
        await initiator.receive()
        await bench.settle()
        (given,) = bench.plane.connections.values()
        assert given.over_read == ping

    run(test)


@pytest.mark.parametrize(
    ("login", "status"),
    [
        ({"target": "iqn.2024-01.com.example:other"}, 0x0203),
        ({"target": NAME, "tsih": 77}, 0x020A),
        ({"target": NAME, "initiator": "iqn.2024-01.com.example:stranger"}, 0x0202),
        ({"target": NAME, "keys": [("MaxBurstLength", "x")]}, 0x0200),
    ],
)
def test_refusals(run: Run, login: dict[str, Any], status: int) -> None:
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        assert (await initiator.log_in(**login)).status == status
        assert await initiator.closed()
        await bench.settle()
        (refused,) = bench.told("login-refused") or bench.told("login-failed")
        assert refused.details["target"] == login["target"]
        assert not bench.plane.sessions
        assert len(bench.server.sessions) == 0

    run(test, allow=[INITIATOR])


def test_too_many_sessions_and_a_plane_that_fails_are_login_statuses(run: Run) -> None:
    async def test(bench: Bench) -> None:
        await bench.log_in()
        initiator = await bench.connect()
        assert (await initiator.log_in(NAME, isid=ISID2)).status == 0x0302

    run(test, limits={"sessions": 1})

    async def failing(bench: Bench) -> None:
        bench.plane.op_failures["map_lun"] = api.Failure("plane.out-of-memory", "no memory")
        initiator = await bench.connect()
        assert (await initiator.log_in(NAME)).status == 0x0300
        await bench.settle()
        assert not bench.plane.sessions
        assert len(bench.server.sessions) == 0

    run(failing)


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 48, b"\xff" * 200, bytes([0x05]) + bytes(47),
              bytes([0x43, 0x87, 0, 0, 0, 0xFF, 0xFF, 0xFF]) + bytes(40), b"\x16\x03\x01"],
)  # fmt: skip
def test_noise_closes_its_own_connection_only(run: Run, noise: bytes) -> None:
    async def test(bench: Bench) -> None:
        stranger = await bench.connect()
        await stranger.send(noise)
        assert await stranger.closed()
        await bench.log_in()
        await bench.settle()
        assert bench.told("login-failed") or bench.told("login-refused")

    run(test)


def test_a_silent_connection_ends_at_the_deadline(run: Run) -> None:
    async def test(bench: Bench) -> None:
        silent = await bench.connect()
        assert await silent.closed()
        (failed,) = bench.told("login-failed")
        assert failed.details["code"] == "login.timeout"

    run(test, limits={"login_seconds": 0.1})


def test_idle_connections_do_not_keep_others_out(run: Run) -> None:
    async def test(bench: Bench) -> None:
        idle = [await bench.connect() for _ in range(40)]
        await bench.settle()
        assert len(bench.server.half_open) == 8
        await bench.log_in()
        assert await idle[0].closed()
        assert len(bench.told("evicted")) >= 32
        for one in idle:
            one.close()

    run(test, limits={"half_open": 8, "half_open_per_address": 8})


def test_session_reinstatement_ends_the_old_session_first(run: Run) -> None:
    async def test(bench: Bench) -> None:
        old, first = await bench.log_in()
        _, second = await bench.log_in()
        assert second != first
        assert await old.closed()
        assert set(bench.plane.sessions) == {second}
        (down,) = bench.told("session-down")
        assert down.details["reason"] == "reinstated"
        names = [call.name for call in bench.plane.calls]
        assert names.index("close_session") < len(names) - 1 - names[::-1].index("create_session")
        _, third = await bench.log_in(isid=ISID2)
        assert set(bench.plane.sessions) == {second, third}

    run(test)


def test_connection_reinstatement_keeps_the_session(run: Run) -> None:
    async def test(bench: Bench) -> None:
        old, session = await bench.log_in()
        tsih = bench.plane.sessions[session].tsih
        new = await bench.connect()
        assert (await new.log_in(NAME, tsih=tsih, cid=1)).status == 0
        await bench.settle()
        assert await old.closed()
        assert list(bench.plane.connections) == [(session, 1)]
        assert not bench.told("session-down")
        second = await bench.connect()
        assert (await second.log_in(NAME, tsih=tsih, cid=2)).status == 0x0206

    run(test)


# ---------------------------------------------------------------------- the full feature phase
def test_text_in_a_normal_session(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        answer, effects = await bench.control(
            session, TextRequest(initiator_task_tag=4, data=join_pairs([("MaxRecvDataSegmentLength", "65536")]))
        )
        assert answer.header[0] == 0x24
        assert effects.apply["max_send_data_segment_length"] == 65536
        answer, _ = await bench.control(session, TextRequest(initiator_task_tag=4, data=b"SendTargets=\0"))
        assert dict(split_pairs(answer.data))["TargetName"] == NAME
        answer, _ = await bench.control(session, TextRequest(initiator_task_tag=4, data=b"SendTargets=All\0"))
        assert (answer.header[0], answer.header[2]) == (0x3F, RejectReason.PROTOCOL_ERROR)
        answer, _ = await bench.control(session, TextRequest(initiator_task_tag=4, data=b"MaxBurstLength=4096\0"))
        assert answer.header[0] == 0x3F

    run(test)


@pytest.mark.parametrize(
    ("reason", "cid", "result", "closes"),
    [
        (LogoutReason.CLOSE_SESSION, 0, 0, True),
        (LogoutReason.CLOSE_CONNECTION, 1, 0, True),
        (LogoutReason.CLOSE_CONNECTION, 5, 1, False),
        (LogoutReason.REMOVE_FOR_RECOVERY, 1, 2, False),
    ],
)
def test_logout(run: Run, reason: int, cid: int, result: int, closes: bool) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        answer, effects = await bench.control(session, LogoutRequest(reason=reason, initiator_task_tag=2, cid=cid))
        assert (answer.header[0], answer.header[2], effects.close) == (0x26, result, closes)
        if closes:
            bench.plane.inject(api.ConnectionClosed(session, 1))
            await bench.settle()
            assert not bench.plane.sessions
            assert bench.told("session-down")[0].details["reason"] == "logout"

    run(test)


def test_a_lost_connection_ends_its_session(run: Run) -> None:
    # 13.16: with Time2Retain 0 its state is discarded at once
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in(keys=[("DefaultTime2Retain", "0")])
        bench.plane.lose(session, "reset")
        await bench.settle()
        (down,) = bench.told("session-down")
        assert down.details["reason"] == "reset"
        assert not bench.plane.sessions
        assert not bench.server.devices[NAME].units[0].nexuses

    run(test)


async def task_function(bench: Bench, session: int, function: int, **fields: Any) -> int:
    answer, _ = await bench.control(
        session, TaskManagementRequest(function=function, initiator_task_tag=6, cmd_sn=20, **fields)
    )
    assert answer.header[0] == 0x22
    return TaskManagementResponse.decode(answer.header).response


def test_task_management(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        _, other = await bench.log_in(isid=ISID2)
        for one in (session, other):
            await bench.command(one, bytes(6))
        plane: FakePlane = bench.plane

        assert await task_function(bench, session, TaskFunction.ABORT_TASK, referenced_task_tag=3, ref_cmd_sn=1) == 0
        scope = plane.calls[-1].arguments[0]
        assert (scope.kind, scope.session, scope.initiator_task_tag) == (api.AbortKind.TASK, session, 3)

        plane.abort_report = api.AbortReport((), found=True, complete=True, already_responded=True)
        assert await task_function(bench, session, TaskFunction.ABORT_TASK, referenced_task_tag=3, ref_cmd_sn=1) == 1
        plane.abort_report = api.AbortReport((), found=False, complete=True)
        # Outside the window (ExpCmdSN is 1, MaxCmdSN is 0 in the fake): not a command that may still come.
        assert await task_function(bench, session, TaskFunction.ABORT_TASK, referenced_task_tag=3, ref_cmd_sn=9) == 1
        assert await task_function(bench, session, TaskFunction.ABORT_TASK, lun=b"\0\x09" + bytes(6)) == 2
        for function, wanted in (
            (TaskFunction.CLEAR_ACA, 5), (TaskFunction.TASK_REASSIGN, 4), (TaskFunction.QUERY_TASK, 5),
            (TaskFunction.I_T_NEXUS_RESET, 5), (77, 5), (TaskFunction.ABORT_TASK_SET, 0),
        ):  # fmt: skip
            assert await task_function(bench, session, function) == wanted

        plane.abort_report = api.AbortReport(((other, 5),), found=True, complete=True)
        assert await task_function(bench, session, TaskFunction.CLEAR_TASK_SET) == 0
        assert (bench.gate(session), bench.gate(other)) == ({api.Gate.PASS}, {api.Gate.DIVERT_ONE})
        answer = await bench.command(other, bytes(6))
        assert isinstance(answer, api.Status)
        assert answer.sense[12:14] == b"\x2f\x00"

    run(test)


def test_a_reset_closes_the_gates_first_and_tells_everybody(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        _, other = await bench.log_in(isid=ISID2)
        for one in (session, other):
            await bench.command(one, bytes(6))
        mode = bytes(4) + bytes.fromhex("08 12 00") + bytes(17)
        await bench.command(session, bytes.fromhex("15 10 00 00 18 00"), out=24, data=mode)
        bench.plane.calls.clear()
        assert await task_function(bench, session, TaskFunction.LOGICAL_UNIT_RESET) == 0
        calls = [(call.name, call.arguments) for call in bench.plane.calls]
        assert calls[0][0] == "set_gate"
        assert set(calls[0][1][1].values()) == {api.Gate.HOLD}
        assert sorted(calls[0][1][0]) == sorted([(session, 0), (other, 0)])
        assert [name for name, _ in calls].index("abort") == 1
        for one in (session, other):
            assert bench.plane.mappings[one, 0].write_cache  # mode pages went back to their defaults
            assert bench.gate(one) == {api.Gate.DIVERT_ONE}
            answer = await bench.command(one, bytes(6))
            assert isinstance(answer, api.Status)
            assert answer.sense[12:14] == b"\x29\x03"

    run(test)


def test_an_abort_that_cannot_end_is_rejected_and_takes_the_unit_offline(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        await bench.command(session, bytes(6))
        bench.plane.abort_report = api.AbortReport(((session, 5),), found=True, complete=False)
        assert await task_function(bench, session, TaskFunction.LOGICAL_UNIT_RESET) == 255
        assert bench.gate(session) == {api.Gate.DIVERT}
        await bench.command(session, bytes(6))
        answer = await bench.command(session, bytes.fromhex("28 00 00 00 00 00 00 00 01 00"), diverted=True)
        assert isinstance(answer, api.Status)
        assert answer.sense[2] == 4
        assert bench.gate(session) == {api.Gate.DIVERT}

    run(test)


def test_cold_reset_ends_every_session_of_the_target(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        await bench.log_in(isid=ISID2)
        assert await task_function(bench, session, TaskFunction.TARGET_WARM_RESET) == 0
        assert len(bench.plane.sessions) == 2
        assert await task_function(bench, session, TaskFunction.TARGET_COLD_RESET) == 0
        assert len(bench.plane.sessions) == 1  # the one that asked gets its answer first
        await asyncio.sleep(1.1)
        await bench.settle()
        assert not bench.plane.sessions
        await bench.log_in()

    run(test)


def test_a_resized_store_is_told(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        await bench.command(session, bytes(6))
        store = bench.plane.mappings[session, 0].store
        bench.plane.store_op(store, api.StoreOp.RESIZE, length=2 << 20)
        await bench.settle()
        assert bench.plane.mappings[session, 0].blocks == 4096
        answer = await bench.command(session, bytes(6))
        assert isinstance(answer, api.Status)
        assert answer.sense[12:14] == b"\x2a\x09"

    run(test)


def test_logical_units_come_and_go_live(run: Run) -> None:
    async def test(bench: Bench) -> None:
        from blockwire.config.model import LunConfig

        _, session = await bench.log_in()
        await bench.command(session, bytes(6))
        server = bench.server
        await server.add_unit(NAME, LunConfig.model_validate({"lun": 4, "store": "ram:1M"}))
        assert bench.plane.mappings[session, 4 << 48].blocks == 2048
        assert bench.gate(session) == {api.Gate.DIVERT_ONE}
        answer = await bench.command(session, bytes(6))
        assert isinstance(answer, api.Status)
        assert answer.sense[12:14] == b"\x3f\x0e"
        with pytest.raises(errors.ConfigurationError, match="has a LUN 4 already"):
            await server.add_unit(NAME, LunConfig.model_validate({"lun": 4, "store": "ram:1M"}))

        bench.plane.abort_report = api.AbortReport((), found=False, complete=False)
        with pytest.raises(errors.ResourceError, match="busy"):
            await server.remove_unit(NAME, 4)
        assert 4 in server.devices[NAME].units
        bench.plane.abort_report = api.AbortReport((), found=False, complete=True)
        await server.remove_unit(NAME, 4)
        assert len(bench.plane.stores) == 1
        answer = await bench.command(session, bytes(6), lun=4)
        assert isinstance(answer, api.Status)
        assert answer.sense[12:14] == b"\x25\x00"
        answer = await bench.command(session, bytes(6))
        assert isinstance(answer, api.Status)
        assert answer.sense[12:14] == b"\x3f\x0e"
        with pytest.raises(errors.ConfigurationError, match="has no LUN 4"):
            await server.remove_unit(NAME, 4)

    run(test)


def test_of_two_changes_of_a_logical_unit_at_once_the_second_is_refused(run: Run) -> None:
    async def test(bench: Bench) -> None:
        from blockwire.config.model import LunConfig

        _, session = await bench.log_in()
        server = bench.server

        def added(size: str) -> Coroutine[Any, Any, object]:
            return server.add_unit(NAME, LunConfig.model_validate({"lun": 4, "store": f"ram:{size}"}))

        first, second = await asyncio.gather(added("1M"), added("2M"), return_exceptions=True)
        assert first is server.devices[NAME].units[4]
        assert isinstance(second, errors.ConfigurationError)
        assert second.code == "configuration.lun"
        assert second.next
        assert bench.plane.mappings[session, 4 << 48].blocks == 2048
        assert len(bench.plane.stores) == 2, "nothing was opened for the second one"

        changes = (server.remove_unit(NAME, 4), server.remove_unit(NAME, 4), added("2M"))
        first, second, third = await asyncio.gather(*changes, return_exceptions=True)
        assert first is None
        assert isinstance(second, errors.ConfigurationError)
        assert isinstance(third, errors.ConfigurationError)
        assert len(bench.plane.stores) == 1
        await added("2M")
        assert bench.plane.mappings[session, 4 << 48].blocks == 4096

        # An attempt that fails leaves the number free.
        with pytest.raises(errors.Error):
            await server.add_unit(NAME, LunConfig.model_validate({"lun": 5, "store": "file:missing.img"}))
        await server.add_unit(NAME, LunConfig.model_validate({"lun": 5, "store": "ram:1M"}))

    run(test)


# ---------------------------------------------------------------------- beginning and end
def test_shutdown_asks_for_a_logout_and_waits(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        stopping = asyncio.ensure_future(bench.server.stop())
        await bench.settle()
        (sent,) = [item for item in bench.plane.sent if item[0] == session]
        message = AsyncMessage.decode(sent[2])
        assert (message.async_event, message.parameter3) == (1, 5)
        assert not stopping.done()
        with pytest.raises(ConnectionRefusedError):
            await bench.connect()
        bench.plane.inject(api.ConnectionClosed(session, 1))
        await bench.settle()
        async with asyncio.timeout(1):
            await stopping
        assert not bench.plane.stores

    run(test, limits={"drain_seconds": 5.0})


def test_shutdown_is_bounded_and_happens_once(run: Run) -> None:
    async def test(bench: Bench) -> None:
        await bench.log_in()
        waiting = await bench.connect()
        discovery = await bench.connect()
        await discovery.log_in(isid=ISID2)
        async with asyncio.timeout(2):
            await asyncio.gather(bench.server.stop(), bench.server.stop())
        assert await waiting.closed()
        assert await discovery.closed()
        assert not bench.plane.sessions
        assert len(bench.told("closed")) == 1

    run(test, limits={"drain_seconds": 0.1})


def test_a_start_that_fails_leaves_nothing(run: Run) -> None:
    async def test(bench: Bench) -> None:
        port = bench.server.portals[0].port
        from blockwire.config import arguments
        from blockwire.net.asyncio_runtime import AsyncioRuntime
        from blockwire.target.server import TargetServer

        for words, portals, kind, said in (
            (["ram:1M", "ram:1M"], [f"127.0.0.1:{port}"], errors.ConfigurationError, "in use"),
            (["ram:1M"], ["192.0.2.1:0"], errors.ConfigurationError, "no such address"),
            (["ram:1M", "missing.img"], ["127.0.0.1:0"], errors.MissingFileError, "missing.img"),
        ):
            plane = FakePlane()
            from blockwire.dataplane.dispatch import Dispatch

            dispatch = Dispatch(plane)
            dispatch.attach()
            configuration = arguments.build(words, portals=portals, host="h")
            server = TargetServer(configuration, plane, dispatch, AsyncioRuntime(), host_id="h")
            with pytest.raises(kind, match=said) as caught:
                await server.start()
            assert caught.value.exit_code == 2
            assert caught.value.next
            assert not plane.stores
            dispatch.close()
            plane.shutdown(1)

    run(test, tcp=True)
