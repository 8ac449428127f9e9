"""Discovery sessions: SendTargets, what it shows to whom, digests, answers longer than a segment; portals."""

from __future__ import annotations

import errno

import pytest

from blockwire import errors
from blockwire.wire.constants import RejectReason
from blockwire.wire.keys import join_pairs, split_pairs
from blockwire.wire.logout import LogoutRequest, LogoutResponse
from blockwire.wire.nop import NopIn, NopOut
from blockwire.wire.reject import Reject
from blockwire.wire.scsi import ScsiCommand
from blockwire.wire.text import TextRequest, TextResponse
from tests.unit.target.conftest import NAME, Bench, Run
from tests.unit.target.raw_initiator import INITIATOR, RawInitiator


async def ask_targets(initiator: RawInitiator, value: str, cmd_sn: int = 1) -> list[tuple[str, str]]:
    await initiator.send(TextRequest(initiator_task_tag=9, cmd_sn=cmd_sn, data=join_pairs([("SendTargets", value)])))
    answer = await initiator.receive()
    assert isinstance(answer, TextResponse), answer
    return split_pairs(answer.data)


def test_discovery(run: Run) -> None:
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        assert (await initiator.log_in()).status == 0
        port = bench.server.portals[0].port
        assert await ask_targets(initiator, "All") == [
            ("TargetName", NAME), ("TargetAddress", f"127.0.0.1:{port},1")
        ]  # fmt: skip
        assert await ask_targets(initiator, NAME, 2) == [("TargetName", NAME), ("TargetAddress", f"127.0.0.1:{port},1")]
        assert await ask_targets(initiator, "iqn.2024-01.com.example:none", 3) == []
        await initiator.send(NopOut(initiator_task_tag=7, cmd_sn=4, immediate=False, data=b"ping"))
        pong = await initiator.receive()
        assert isinstance(pong, NopIn)
        assert (pong.data, pong.exp_cmd_sn) == (b"ping", 5)
        await initiator.send(ScsiCommand(initiator_task_tag=8, cdb=bytes(16), cmd_sn=5))
        refused = await initiator.receive()
        assert isinstance(refused, Reject)
        assert refused.reason == RejectReason.PROTOCOL_ERROR
        await initiator.send(LogoutRequest(initiator_task_tag=9, cmd_sn=6))
        bye = await initiator.receive()
        assert isinstance(bye, LogoutResponse)
        assert bye.response == 0
        assert await initiator.closed()
        assert bench.told("discovery")[0].details["reason"] == "logout"
        assert not bench.plane.sessions
        assert len(bench.server.sessions) == 0

    run(test)


def test_discovery_with_digests_over_odd_pieces(run: Run) -> None:
    async def test(bench: Bench) -> None:
        from blockwire.wire.framing import Deframer, frame_pdu

        initiator = await bench.connect()
        assert (await initiator.log_in(keys=[("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")])).status == 0
        request = TextRequest(initiator_task_tag=9, cmd_sn=1, data=join_pairs([("SendTargets", "All")]))
        for byte in frame_pdu(request, header_digest=True, data_digest=True):
            await initiator.send(bytes([byte]))
        initiator._deframer = Deframer(1 << 24, header_digest=True, data_digest=True)
        answer = await initiator.receive()
        assert split_pairs(answer.data)[0] == ("TargetName", NAME)

    run(test)


def test_discovery_shows_only_what_is_allowed_and_what_is_advertised(run: Run) -> None:
    async def test(bench: Bench) -> None:
        stranger = await bench.connect()
        await stranger.log_in(initiator="iqn.2024-01.com.example:stranger")
        assert await ask_targets(stranger, "All") == []
        friend = await bench.connect()
        await friend.log_in()
        assert await ask_targets(friend, "All") == [
            ("TargetName", NAME),
            ("TargetAddress", "storage.example:13260,1"),
            ("TargetAddress", "[2001:db8::1]:3260,1"),
        ]  # fmt: skip

    run(test, allow=[INITIATOR], advertise=["storage.example:13260", "[2001:db8::1]"])


def test_send_targets_longer_than_a_segment(run: Run) -> None:
    async def test(bench: Bench) -> None:
        initiator = await bench.connect()
        await initiator.log_in(keys=[("MaxRecvDataSegmentLength", "512")])
        await initiator.send(TextRequest(initiator_task_tag=9, cmd_sn=1, data=join_pairs([("SendTargets", "All")])))
        text, rounds, sn = b"", 0, 2
        while True:
            answer = await initiator.receive()
            assert isinstance(answer, TextResponse)
            assert len(answer.data) <= 512
            text += answer.data
            rounds += 1
            if answer.final:
                break
            await initiator.send(
                TextRequest(initiator_task_tag=9, target_transfer_tag=answer.target_transfer_tag, cmd_sn=sn)
            )
            sn += 1
        assert rounds > 5
        assert len(split_pairs(text)) == 201

    run(test, advertise=[f"gateway{number}.example:3260" for number in range(200)])


def test_ipv6_and_a_shared_free_port(run: Run) -> None:
    shared = False

    async def test(bench: Bench) -> None:
        nonlocal shared
        first, second = bench.server.portals
        assert (first.host, second.host) == ("127.0.0.1", "::1")
        shared = first.port == second.port
        if not shared:
            return
        initiator = await bench.connect(1)
        assert (await initiator.log_in()).status == 0
        found = await ask_targets(initiator, "All")
        assert found[1:] == [
            ("TargetAddress", f"[::1]:{second.port},1"),
            ("TargetAddress", f"127.0.0.1:{first.port},1"),
        ]
        assert bench.server.urls == [f"iscsi://127.0.0.1:{first.port}/{NAME}/0"]

    try:
        for _ in range(5):  # somebody else may have the port of one in the other family
            run(test, portals=["127.0.0.1:0", "[::1]:0"], tcp=True)
            if shared:
                break
        assert shared
    except errors.ConfigurationError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            pytest.skip("this host has no IPv6")
        raise
