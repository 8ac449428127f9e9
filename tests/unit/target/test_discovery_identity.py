"""Unnamed discovery sessions: one for each initiator port and portal (RFC 7143 7.4.2.1)."""

from __future__ import annotations

from tests.unit.target.conftest import NAME, Bench, Run
from tests.unit.target.raw_initiator import RawInitiator

ISID = bytes.fromhex("400001370000")


async def answers(initiator: RawInitiator, cmd_sn: int) -> bool:
    """Whether the session is there: it answers SendTargets."""
    from blockwire.wire.keys import join_pairs
    from blockwire.wire.text import TextRequest

    try:
        await initiator.send(
            TextRequest(initiator_task_tag=cmd_sn, cmd_sn=cmd_sn, data=join_pairs([("SendTargets", "All")]))
        )
        return b"TargetName=" in (await initiator.receive()).data
    except ConnectionError:
        return False


def test_sessions_at_other_portals_are_independent(run: Run) -> None:
    # "MUST be treated as independent sessions", "MUST NOT reinstate the other"
    async def test(bench: Bench) -> None:
        first, second = await bench.connect(0), await bench.connect(1)
        tsih = [(await each.log_in(isid=ISID)).tsih for each in (first, second)]
        assert len(set(tsih)) == 2
        await bench.settle()
        assert [await answers(each, 1) for each in (first, second)] == [True, True]
        assert len(bench.server.sessions) == 2

    run(test, portals=["127.0.0.1:0", "127.0.0.2:0"])


def test_the_same_port_at_the_same_portal_reinstates(run: Run) -> None:
    # the 4-tuple is unique; the new one "MUST reinstate the existing" one
    async def test(bench: Bench) -> None:
        old = await bench.connect(0)
        assert (await old.log_in(isid=ISID)).status == 0
        other_port = await bench.connect(0)
        assert (await other_port.log_in(isid=bytes.fromhex("400001370001"))).status == 0
        other_node = await bench.connect(0)
        assert (await other_node.log_in(isid=ISID, initiator="iqn.2024-01.com.example:other")).status == 0
        assert len(bench.server.sessions) == 3
        new = await bench.connect(0)
        response = await new.log_in(isid=ISID)
        assert response.status == 0
        assert await old.closed()
        await bench.settle()
        assert len(bench.server.sessions) == 3
        assert [await answers(each, 1) for each in (new, other_port, other_node)] == [True, True, True]

    run(test)


def test_only_unnamed_ones_reinstate_unnamed_ones(run: Run) -> None:
    # 7.4.2.1, last paragraph
    async def test(bench: Bench) -> None:
        unnamed = await bench.connect(0)
        assert (await unnamed.log_in(isid=ISID)).status == 0
        named = await bench.connect(0)
        assert (await named.log_in(NAME, isid=ISID, keys=[("SessionType", "Discovery")])).status == 0
        normal, _ = await bench.log_in(isid=ISID)
        await bench.settle()
        assert await answers(unnamed, 1)
        assert normal is not None

    run(test)
