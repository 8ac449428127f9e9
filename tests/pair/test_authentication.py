"""CHAP between our own ends under virtual time: statuses, accounts, reflection, retry with MD5, nothing shown."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from blockwire import errors
from blockwire.auth import Account, InitiatorCredentials, Secret
from blockwire.config.authentication import AccountConfig, AuthenticationConfig, IdentityConfig
from blockwire.initiator.discovery import discover
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import INITIATOR_NAME, SteppedPair
from blockwire.testing.tap import Intercept, PassingPdu
from blockwire.testing.virtual_network import Link
from blockwire.wire.constants import Opcode
from tests.pair.exchange import write_and_read

IN, OUT = b"initiator-proves", b"the-target-does!"


def account(name: str, secret: bytes) -> Account:
    return Account(name, Secret(secret))


def asks(initiators: tuple[str, ...] = (), identity: bool = True, required: bool = True) -> AuthenticationConfig:
    own = IdentityConfig(user="disk").with_secret(Secret(OUT)) if identity else None
    accounts = (AccountConfig(user="alice", initiators=initiators).with_secret(Secret(IN)),)
    return AuthenticationConfig(accounts=accounts, identity=own, required=required)


class ChapPair(SteppedPair):
    """A pair whose target asks for CHAP."""

    def __init__(self, authentication: AuthenticationConfig | None = None, **options: Any) -> None:
        self.asked = authentication or asks()
        super().__init__("ram:1M", **options)

    async def _set_up(self) -> None:
        (target,) = self.configuration.targets
        target = target.model_copy(update={"authentication": self.asked})
        self.configuration = self.configuration.model_copy(update={"targets": (target,), "discovery": self.asked})
        await super()._set_up()

    def become(self, mine: Account | None, theirs: Account | None = None) -> None:
        self.options = replace(self.options, credentials=InitiatorCredentials(mine, theirs) if mine else None)


@pytest.mark.parametrize("mutual", [False, True])
def test_normal_and_discovery_sessions(mutual: bool) -> None:
    with ChapPair() as pair:
        pair.become(account("alice", IN), account("disk", OUT) if mutual else None)

        async def body() -> None:
            async with await pair.open() as lun:
                await write_and_read(lun)
            assert len(await discover(pair.initiator, pair.url, pair.options)) == 1

        pair.run(body())
        (up,) = [event for event in pair.events if event.event == "session-up"]
        assert (up.details["account"], up.details["mutual"]) == ("alice", mutual)
        assert not pair.initiator.challenges
        assert not pair.target.challenges


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (None, None),
        (account("alice", b"another-secret"), None),
        (account("bob", IN), None),
        (account("alice", OUT), None),
        (account("alice", IN), account("disk", b"not-the-target's")),
        (account("alice", IN), account("other", OUT)),
    ],
    ids=["none", "secret", "user", "target's own", "mutual secret", "mutual user"],
)
def test_who_does_not_prove_it_is_refused_with_0201(mine: Account | None, theirs: Account | None) -> None:
    """RFC 7143 11.13.5: authentication failure, one message for a wrong name and a wrong secret."""
    with ChapPair() as pair:
        pair.become(mine, theirs)
        for attempt in (pair.connect(), discover(pair.initiator, pair.url, pair.options)):
            with pytest.raises(errors.AuthenticationError) as caught:
                pair.run(attempt)
            assert caught.value.status == 0x0201
        assert not pair.initiator.challenges
        assert not pair.target.challenges
        assert pair.target.statistics()["sessions"] == 0


def test_an_account_of_other_initiators_is_refused_with_0202() -> None:
    with ChapPair(asks(("iqn.2025-01.org.example:somebody",))) as pair:
        pair.become(account("alice", IN))
        with pytest.raises(errors.AuthorizationError) as caught:
            pair.run(pair.connect())
        assert caught.value.status == 0x0202
    with ChapPair(asks((INITIATOR_NAME.upper(),))) as pair:
        pair.become(account("alice", IN))
        pair.run(pair.connect())


def test_mutual_chap_without_an_identity_is_refused() -> None:
    with ChapPair(asks(identity=False)) as pair:
        pair.become(account("alice", IN), account("disk", OUT))
        with pytest.raises(errors.AuthenticationError):
            pair.run(pair.connect())


def test_not_required_lets_others_in_and_checks_those_that_offer() -> None:
    with ChapPair(asks(required=False)) as pair:
        pair.run(pair.connect())
        pair.become(account("alice", IN))
        pair.run(pair.connect())
        pair.become(account("alice", b"wrong-secret-1"))
        with pytest.raises(errors.AuthenticationError):
            pair.run(pair.connect())


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("joining", ["bob", None])
@pytest.mark.parametrize("required", [True, False])
def test_all_connections_of_a_session_prove_the_same_account(level: int, joining: str | None, required: bool) -> None:
    """RFC 7143 9.2: at once or one after the other, another account or none is an authentication failure."""
    others = b"somebody-else-9"
    accounts = (
        AccountConfig(user="alice").with_secret(Secret(IN)),
        AccountConfig(user="bob").with_secret(Secret(others)),
    )
    asked = AuthenticationConfig(accounts=accounts, required=required)
    keys = {"MaxConnections": "2", "ErrorRecoveryLevel": str(level), "DefaultTime2Wait": "0"}
    with ChapPair(asked, target_keys={"DefaultTime2Wait": "0"}) as pair:
        pair.become(account("alice", IN))

        async def body() -> None:
            async with await pair.open(keys=keys) as lun:
                session = lun.session
                assert session.cids == (1, 2)
                await session.remove_connection(2)
                mine = InitiatorCredentials(account(joining, others)) if joining else None
                leading = session._open_login()
                leading.options = replace(leading.options, credentials=mine)
                with pytest.raises(errors.AuthenticationError) as caught:
                    await session.add_connection()
                assert caught.value.status == 0x0201
                # nor does one of these take the place of alice's own
                with pytest.raises(errors.AuthenticationError):
                    await session.connections._add(1, reinstate=True)
                leading.options = session.options
                await write_and_read(lun)
                assert await session.add_connection() == 2

        pair.run(body())


def test_a_target_that_authenticates_connections_of_one_session_differently() -> None:
    with ChapPair() as pair:
        pair.become(account("alice", IN))

        async def body() -> None:
            async with await pair.open(keys={"MaxConnections": "2"}) as lun:
                session = lun.session
                await session.remove_connection(2)
                session._open_login().account = ""  # as if it had not asked on the leading connection
                with pytest.raises(errors.AuthenticationError, match="differently") as caught:
                    await session.add_connection()
                assert caught.value.whose == "peer"

        pair.run(body())


def test_a_lost_session_authenticates_again() -> None:
    with ChapPair(target_keys={"DefaultTime2Wait": "0"}) as pair:
        pair.become(account("alice", IN), account("disk", OUT))

        async def body() -> None:
            async with await pair.open() as lun:
                pair.link.cut_now()
                await write_and_read(lun)

        pair.run(body())
        assert len(pair.links) == 2


def next_link(pair: SteppedPair, intercept: Intercept) -> None:
    """The next connection is one through the hands of whoever wrote `intercept`."""

    def on_link(link: Link) -> None:
        link.tap.intercept = intercept
        pair.network.on_link = None

    pair.network.on_link = on_link


def test_secrets_are_on_no_wire_and_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "blockwire")
    with ChapPair(tapped=True) as pair:
        pair.become(account("alice", IN), account("disk", OUT))
        pair.run(pair.connect())
        seen = b"".join(pdu.raw for end in (INITIATOR, TARGET) for pdu in pair.link.tap.pdus(end))
        traces = b"".join(pair.traces().values())
        said = caplog.text + repr(pair.events) + repr(pair.options) + repr(pair.configuration)
    for secret in (IN, OUT):
        assert secret not in seen
        assert secret not in traces
        assert secret.decode() not in said
    assert b"CHAP_R=" in seen


def test_a_challenge_reflected_on_another_connection_is_refused() -> None:
    """RFC 7143 9.2.1 b to d: a rogue target sends the initiator's challenge of connection 1 back on connection 2."""
    with ChapPair(tapped=True) as pair:
        pair.become(account("alice", IN), account("disk", OUT))
        challenge: list[bytes] = []

        def first(pdu: PassingPdu) -> list[bytes]:
            # The rogue lets the initiator challenge it on connection 1, and keeps it waiting there.
            if pdu.end == INITIATOR and b"CHAP_C=" in pdu.data:
                challenge.append(next(p for p in bytes(pdu.data).split(b"\0") if p.startswith(b"CHAP_C=")))
                return []
            return [pdu.raw]

        def second(pdu: PassingPdu) -> list[bytes]:
            if pdu.end == TARGET and pdu.opcode == Opcode.LOGIN_RESPONSE and b"CHAP_C=" in pdu.data:
                parts = [challenge[0] if p.startswith(b"CHAP_C=") else p for p in bytes(pdu.data).split(b"\0")]
                data = b"\0".join(parts)
                raw = bytearray(pdu.raw[:48])
                raw[5:8] = len(data).to_bytes(3, "big")
                return [bytes(raw) + data + bytes(-len(data) % 4)]
            return [pdu.raw]

        async def body() -> None:
            next_link(pair, first)
            waiting = asyncio.create_task(pair.connect())
            while not challenge:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.01)
            next_link(pair, second)
            with pytest.raises(errors.AuthenticationError) as caught:
                await pair.connect()
            assert "came back" in str(caught.value)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert not pair.initiator.challenges

        pair.run(body())


def test_a_target_that_dislikes_the_list_is_asked_with_md5_alone() -> None:
    with ChapPair(tapped=True) as pair:
        pair.become(account("alice", IN))

        def choke(pdu: PassingPdu) -> list[bytes]:
            if pdu.end == INITIATOR and b"CHAP_A=" in pdu.data:
                data = bytes(pdu.data).replace(b"CHAP_A=8,7,6,5", b"CHAP_A=9,99,77")
                assert len(data) == len(pdu.data)
                return [pdu.raw[:48] + data + bytes(-len(data) % 4)]
            return [pdu.raw]

        next_link(pair, choke)
        pair.run(pair.connect())
        assert len(pair.links) == 2
        offers = [bytes(pdu.data) for pdu in pair.links[1].tap.pdus(INITIATOR) if b"CHAP_A" in pdu.data]
        assert offers == [b"CHAP_A=5\0"]
