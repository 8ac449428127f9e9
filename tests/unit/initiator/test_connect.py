"""Login and discovery over real loopback sockets against the target's login machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from blockwire import errors
from blockwire.auth import OutstandingChallenges
from blockwire.dataplane.fake import DEFAULT_LIMITS, FakePlane
from blockwire.errors import RedirectError
from blockwire.initiator import connect
from blockwire.initiator.discovery import discover
from blockwire.initiator.initiator import Initiator
from blockwire.initiator.options import Options, Timers
from blockwire.login.policy import ExistingSession, Identification, Reception
from blockwire.login.result import Admission, LoginDone, LoginFailed
from blockwire.login.target import TargetLogin
from blockwire.names import Portal, Url
from blockwire.negotiate.preferences import Preferences
from blockwire.net import listener
from blockwire.net.asyncio_runtime import AsyncioRuntime

NAME = "iqn.2025-01.org.test:t"
OURS = "iqn.2025-01.org.test:i"
PATIENT = Options(timers=Timers(timeout=60.0, logout=60.0))
"""Nobody here is silent but where a test says so, and then it has a timer of its own."""


@dataclass
class Answers:
    """A target's policy: a function of the identification, or a plain welcome."""

    receive_with: Callable[[Identification], Reception] | None = None
    seen: list[Identification] = field(default_factory=list)

    def receive(self, request: Identification) -> Reception:
        self.seen.append(request)
        if self.receive_with is not None:
            return self.receive_with(request)
        return Reception(request.target_name, 1, Preferences.of("target"))

    def existing_session(self, request: Identification, reception: Reception) -> ExistingSession | None:
        return None


class Host:
    """Accepts connections and logs them in; `after` goes on with what was logged in."""

    def __init__(self, answers: Answers, after: Callable[..., Any] | None = None) -> None:
        self.answers = answers
        self.after = after
        self.portal = Portal("127.0.0.1", 0)

    async def __aenter__(self) -> Host:
        self.listener = await listener.listen(self.portal)
        self.portal = self.listener.addresses[0]
        self.task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.task.cancel()
        self.listener.close()

    async def _serve(self) -> None:
        while True:
            await self._one(await self.listener.accept())

    async def _one(self, transport: Any) -> None:
        machine = TargetLogin(self.answers, 0.0, bytes)
        while True:
            if data := machine.poll_transmit():
                await transport.send(data)
            event = machine.poll_event()
            if isinstance(event, Admission):
                machine.admit(7)
                continue
            if isinstance(event, LoginFailed):
                transport.close()
                return
            if isinstance(event, LoginDone):
                await transport.send(machine.poll_transmit()) if self.after is None else None
                if self.after is not None:
                    await self.after(transport, event.result, machine.poll_transmit())
                return
            data = await transport.recv(8192)
            machine.handle_bytes(data, 0.0) if data else machine.handle_eof(0.0)


def log_in(portal: Portal, options: Options = PATIENT) -> Any:
    return connect.log_in(
        AsyncioRuntime(),
        DEFAULT_LIMITS,
        Url(portal, NAME),
        options,
        initiator_name=OURS,
        isid=bytes([0x80, 0, 0, 0, 0, 1]),
        challenges=OutstandingChallenges(),
    )


@pytest.fixture
def scenario() -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Runs a coroutine function on the real clock: here are sockets."""

    def run(function: Callable[[], Awaitable[Any]]) -> Any:
        return asyncio.run(asyncio.wait_for(function(), 150))  # type: ignore[arg-type]

    return run


def test_a_login_ends_in_a_hand_over_with_the_negotiated_values(scenario) -> None:
    async def work() -> None:
        async with Host(Answers()) as host:
            options = Options(keys={"MaxBurstLength": "65536", "HeaderDigest": "CRC32C"}, timers=PATIENT.timers)
            found = await log_in(host.portal, options)
            assert found.spec.tsih == 7
            assert found.spec.max_burst_length == 65536
            assert found.spec.exp_cmd_sn == found.spec.cmd_sn
            assert found.portal == host.portal
            handoff = found.handoff()
            assert handoff.header_digest == 1
            assert handoff.data_digest == 0
            assert handoff.max_send_data_segment_length == 262144
            socket.socket(fileno=handoff.transport.descriptor).close()

    scenario(work)


def test_redirects_are_followed_and_remembered_when_they_are_for_good(scenario) -> None:
    async def work() -> None:
        async with Host(Answers()) as last:

            def elsewhere(status: int) -> Callable[[Identification], Reception]:
                def moved(_: Identification) -> Reception:
                    raise RedirectError(status >> 8, status & 0xFF, addresses=(str(last.portal),))

                return moved

            async with Host(Answers(elsewhere(0x0102))) as permanent, Host(Answers(elsewhere(0x0101))) as temporary:
                found = await log_in(permanent.portal)
                assert (found.portal, found.home) == (last.portal, last.portal)
                found.close()
                found = await log_in(temporary.portal)
                assert (found.portal, found.home) == (last.portal, temporary.portal)
                found.close()

    scenario(work)


def test_a_circle_of_redirects_ends(scenario) -> None:
    async def work() -> None:
        one, two = Answers(), Answers()
        async with Host(one) as first, Host(two) as second:

            def to(host: Host) -> Callable[[Identification], Reception]:
                def moved(_: Identification) -> Reception:
                    raise RedirectError(1, 1, addresses=(str(host.portal),))

                return moved

            one.receive_with, two.receive_with = to(second), to(first)
            with pytest.raises(errors.LoginError) as caught:
                await log_in(first.portal)
            assert caught.value.code == "login.redirect-loop"
            assert str(first.portal) in caught.value.evidence
            assert (len(one.seen), len(two.seen)) == (1, 1)

    scenario(work)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0x0201, errors.AuthenticationError),
        (0x0202, errors.AuthorizationError),
        (0x0203, errors.TargetNotFoundError),
        (0x0302, errors.LoginError),
    ],
)
def test_refusals_keep_their_status(scenario, status: int, kind: type[errors.LoginError]) -> None:
    async def work() -> None:
        def refuse(_: Identification) -> Reception:
            raise errors.login_error(status)

        async with Host(Answers(refuse)) as host:
            with pytest.raises(kind) as caught:
                await log_in(host.portal)
            assert caught.value.status == status
            assert caught.value.exit_code == 4

    scenario(work)


def test_nobody_there_is_unreachable(scenario) -> None:
    async def work() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(errors.RefusedError) as caught:
                await log_in(Portal("127.0.0.1", taken.getsockname()[1]))
            assert caught.value.exit_code == 3
        with pytest.raises(errors.UnreachableError):
            await log_in(Portal("no-such-host.invalid", 3260))

    scenario(work)


def test_a_silent_peer_and_one_that_speaks_http(scenario) -> None:
    async def work() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(300)

        async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" + bytes(100))
            await writer.drain()
            writer.close()

        async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.close()

        for behaviour, kind, timeout in (
            (silent, errors.TimedOutError, 0.3),
            (web, errors.Error, 60.0),
            (hangs_up, errors.ConnectionLostError, 60.0),
        ):
            server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
            portal = Portal("127.0.0.1", server.sockets[0].getsockname()[1])
            with pytest.raises(kind):
                await log_in(portal, Options(timers=Timers(timeout=timeout)))
            server.close()

    scenario(work)


def test_unknown_keys_are_refused_before_anything_is_sent(scenario) -> None:
    async def work() -> None:
        with pytest.raises(errors.ConfigurationError, match="MaxBurstLenght"):
            await log_in(Portal("127.0.0.1", 1), Options(keys={"MaxBurstLenght": "1"}))

    scenario(work)


def text_response(tag: int, stat_sn: int, data: bytes, *, final: bool, continued: bool = False) -> bytes:
    # RFC 7143 11.11, typed from the figure: opcode 24h, F and C, length, ITT at 16, TTT at 20, StatSN at 24.
    header = bytearray(48)
    header[0], header[1] = 0x24, (0x80 if final else 0) | (0x40 if continued else 0)
    header[5:8] = len(data).to_bytes(3, "big")
    header[16:20] = tag.to_bytes(4, "big")
    header[20:24] = b"\xff\xff\xff\xff" if final else b"\x00\x00\x00\x09"
    header[24:28] = stat_sn.to_bytes(4, "big")
    header[28:32] = (2).to_bytes(4, "big")
    header[32:36] = (33).to_bytes(4, "big")
    return bytes(header) + data + bytes(-len(data) % 4)


def test_discovery_collects_all_pages_answers_a_nop_and_logs_out(scenario) -> None:
    requests: list[bytes] = []

    async def after(transport: Any, result: Any, last: bytes) -> None:
        # A keep-alive straight behind the login response: it arrives as over-read bytes.
        nop = bytearray(48)
        nop[0], nop[1] = 0x20, 0x80
        nop[16:20] = b"\xff\xff\xff\xff"
        nop[20:24] = b"\x00\x00\x00\x05"
        nop[24:28] = result.stat_sn.to_bytes(4, "big")
        await transport.send(last + bytes(nop))
        stat_sn = result.stat_sn
        pages = [
            (b"TargetName=iqn.2025-01.org.test:a\0TargetAddress=10.0.0.1:3260,1\0TargetAd", False, True),
            (b"dress=[fe80::1]:3261,2\0TargetName=iqn.2025-01.org.test:b\0", True, False),
        ]
        buffer = b""
        while True:
            data = await transport.recv(8192)
            if not data:
                return
            buffer += data
            while len(buffer) >= 48:
                length = int.from_bytes(buffer[5:8], "big")
                size = 48 + length + -length % 4
                if len(buffer) < size:
                    break
                pdu, buffer = buffer[:size], buffer[size:]
                requests.append(pdu)
                if pdu[0] & 0x3F == 0x04:
                    tag = int.from_bytes(pdu[16:20], "big")
                    page, final, continued = pages.pop(0)
                    await transport.send(text_response(tag, stat_sn, page, final=final, continued=continued))
                    stat_sn += 1
                elif pdu[0] & 0x3F == 0x06:
                    answer = bytearray(48)
                    answer[0], answer[1] = 0x26, 0x80
                    answer[16:20] = pdu[16:20]
                    answer[24:28] = stat_sn.to_bytes(4, "big")
                    await transport.send(bytes(answer))

    async def work() -> None:
        async with Host(Answers(), after) as host:
            plane = FakePlane()
            initiator = Initiator(plane, name=OURS)
            found = await discover(initiator, Url(host.portal), PATIENT)
            assert [target.name for target in found] == ["iqn.2025-01.org.test:a", "iqn.2025-01.org.test:b"]
            assert [(str(a.portal), a.portal_group_tag) for a in found[0].addresses] == [
                ("10.0.0.1:3260", 1), ("[fe80::1]:3261", 2),
            ]  # fmt: skip
            assert found[1].portals == (host.portal,)
            assert sorted(pdu[0] & 0x3F for pdu in requests) == [0x00, 0x04, 0x04, 0x06]
            nop = next(pdu for pdu in requests if pdu[0] & 0x3F == 0)
            assert (nop[0], nop[20:24]) == (0x40, b"\x00\x00\x00\x05")
            text = next(pdu for pdu in requests if pdu[0] & 0x3F == 4)
            assert b"SendTargets=All\0" in text
            await initiator.close()

    scenario(work)
