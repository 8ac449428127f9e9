"""The whole target, control plane and native data plane, against PDUs written one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import blockwire
from blockwire import errors
from blockwire.names import Url
from blockwire.wire.constants import LogoutReason, TaskFunction
from blockwire.wire.data import DataIn
from blockwire.wire.keys import join_pairs, split_pairs
from blockwire.wire.logout import LogoutRequest, LogoutResponse
from blockwire.wire.pdu import Pdu
from blockwire.wire.scsi import ScsiCommand, ScsiResponse
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse
from blockwire.wire.text import TextRequest, TextResponse
from tests.unit.target.raw_initiator import RawInitiator

KEYS = [("InitialR2T", "No"), ("ImmediateData", "Yes"), ("MaxRecvDataSegmentLength", "65536")]


class Client(RawInitiator):
    """Commands one at a time."""

    cmd_sn = 1
    tag = 100

    async def command(self, cdb: str, read: int = 0, data: bytes = b"", lun: int = 0) -> tuple[int, bytes, bytes]:
        """Status, Data-In, sense data."""
        await self.send(
            ScsiCommand(
                initiator_task_tag=self.tag, cdb=bytes.fromhex(cdb), cmd_sn=self.cmd_sn, read=bool(read), attribute=1,
                write=bool(data), expected_data_transfer_length=read or len(data), data=data,
                lun=bytes([0, lun]) + bytes(6),
            )
        )  # fmt: skip
        self.cmd_sn += 1
        self.tag += 1
        found = b""
        while True:
            pdu = await self.receive()
            if isinstance(pdu, DataIn):
                found += pdu.data
                if pdu.has_status:
                    return pdu.status, found, b""
            else:
                assert isinstance(pdu, ScsiResponse), pdu
                return pdu.status, found, pdu.data[2:]

    async def ask(self, pdu: Pdu) -> Pdu:
        await self.send(pdu)
        return await self.receive()


async def log_in(url: str, isid: bytes = bytes.fromhex("400001370000")) -> Client:
    where = Url.parse(url)
    reader, writer = await asyncio.open_connection(where.portal.host, where.portal.port)
    client = Client(reader, writer)
    response = await client.log_in(where.target, isid=isid, keys=KEYS)
    assert response.status == 0
    status, _, sense = await client.command("00 00 00 00 00 00")
    assert (status, sense[12:14]) == (2, b"\x29\x00")
    return client


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 150))


def test_a_disk_is_found_written_and_read() -> None:
    with blockwire.Target("ram:1M?serial=A1", "null:1M") as target:

        async def test() -> None:
            client = await log_in(target.url)
            assert await client.command("00 00 00 00 00 00") == (0, b"", b"")
            assert (await client.command("25 00 00 00 00 00 00 00 00 00", 8))[1] == bytes.fromhex("000007ff 00000200")
            assert (await client.command("12 01 80 00 ff 00", 255))[1] == bytes.fromhex("00 80 00 02 41 31")
            luns = await client.command("a0 00 00 00 00 00 00 00 10 00 00 00", 4096)
            assert luns[1] == bytes.fromhex("00000010 00000000 0000000000000000 0001000000000000")
            pattern = bytes(range(256)) * 16
            assert (await client.command("2a 00 00 00 00 08 00 00 08 00", data=pattern))[0] == 0
            assert (await client.command("28 00 00 00 00 08 00 00 08 00", 4096))[1] == pattern
            assert (await client.command("28 00 00 00 00 00 00 00 08 00", 4096))[1] == bytes(4096)
            status, _, sense = await client.command("28 00 00 00 08 00 00 00 01 00", 512)
            assert (status, sense[2], sense[12:14]) == (2, 5, b"\x21\x00")
            status, _, sense = await client.command("c1 00 00 00 00 00")
            assert (status, sense[2], sense[12:14]) == (2, 5, b"\x20\x00")
            status, _, sense = await client.command("28 00 00 00 00 00 00 00 01 00", 512, lun=7)
            assert (status, sense[12:14]) == (2, b"\x25\x00")
            bye = await client.ask(
                LogoutRequest(reason=LogoutReason.CLOSE_SESSION, initiator_task_tag=1, cmd_sn=client.cmd_sn)
            )
            assert isinstance(bye, LogoutResponse)
            assert bye.response == 0
            assert await client.closed()

        run(test)


def test_mode_select_through_collect_and_its_unit_attention_elsewhere() -> None:
    with blockwire.Target("ram:1M") as target:

        async def test() -> None:
            one = await log_in(target.url)
            two = await log_in(target.url, bytes.fromhex("400001370001"))
            page = bytes(4) + bytes.fromhex("0a 0a 04 10 00 00 00 00 00 00 00 00")
            assert (await one.command("15 10 00 00 10 00", data=page))[0] == 0
            # A READ is held up by the gate: it is the command that reports the unit attention.
            status, _, sense = await two.command("28 00 00 00 00 00 00 00 01 00", 512)
            assert (status, sense) == (2, bytes.fromhex("72 06 2a 01 00 00 00 00"))
            assert (await two.command("28 00 00 00 00 00 00 00 01 00", 512))[0] == 0
            assert (await one.command("1a 08 0a 00 ff 00", 255))[1][4:7] == bytes.fromhex("0a 0a 04")
            # The plane's own sense data follows the page too.
            assert (await one.command("28 00 00 00 08 00 00 00 01 00", 512))[2][:4] == bytes.fromhex("72 05 21 00")

        run(test)


def test_task_management_and_text() -> None:
    with blockwire.Target("ram:1M") as target:

        async def test() -> None:
            one = await log_in(target.url)
            two = await log_in(target.url, bytes.fromhex("400001370001"))
            request = TaskManagementRequest(
                function=TaskFunction.LOGICAL_UNIT_RESET, initiator_task_tag=9, cmd_sn=one.cmd_sn
            )
            done = await one.ask(request)
            assert isinstance(done, TaskManagementResponse)
            assert done.response == 0
            for client in (one, two):
                status, _, sense = await client.command("28 00 00 00 00 00 00 00 01 00", 512)
                assert (status, sense[12:14]) == (2, b"\x29\x03")
                assert (await client.command("28 00 00 00 00 00 00 00 01 00", 512))[0] == 0
            gone = await one.ask(
                TaskManagementRequest(
                    function=TaskFunction.ABORT_TASK, initiator_task_tag=9, cmd_sn=one.cmd_sn,
                    referenced_task_tag=77, ref_cmd_sn=1,
                )
            )  # fmt: skip
            assert isinstance(gone, TaskManagementResponse)
            assert gone.response == 1
            text = TextRequest(initiator_task_tag=9, cmd_sn=one.cmd_sn, data=join_pairs([("SendTargets", "")]))
            answer = await one.ask(text)
            assert isinstance(answer, TextResponse)
            assert dict(split_pairs(answer.data))["TargetName"] == target.name

        run(test)


def test_noise_next_to_io_and_reinstatement() -> None:
    with blockwire.Target("ram:1M") as target:

        async def test() -> None:
            where = Url.parse(target.url).portal
            client = await log_in(target.url)
            for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, bytes([5]) + bytes(47)):
                reader, writer = await asyncio.open_connection(where.host, where.port)
                stranger = RawInitiator(reader, writer)
                await stranger.send(noise)
                assert await stranger.closed()
            assert (await client.command("28 00 00 00 00 00 00 00 01 00", 512))[0] == 0
            again = await log_in(target.url)
            assert await client.closed()
            assert (await again.command("28 00 00 00 00 00 00 00 01 00", 512))[0] == 0
            assert target.statistics()["sessions"] == 1

        run(test)


def test_a_file_keeps_data_and_names_over_a_restart(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    names: list[bytes] = []
    for round_number in range(2):
        with blockwire.Target(disk, size="1M" if not round_number else None, block_size=4096) as target:

            async def test(url: str = target.url, first: bool = not round_number) -> None:
                client = await log_in(url)
                names.append((await client.command("12 01 83 04 00 00", 1024))[1])
                if first:
                    assert (await client.command("2a 08 00 00 00 02 00 00 01 00", data=b"x" * 4096))[0] == 0
                assert (await client.command("28 00 00 00 00 02 00 00 01 00", 4096))[1] == b"x" * 4096

            run(test)
    assert names[0] == names[1]
    assert disk.read_bytes()[8192:12288] == b"x" * 4096


def test_two_targets_in_one_process_share_nothing() -> None:
    with blockwire.Target("ram:1M") as one, blockwire.Target("ram:2M") as two:
        assert one.url != two.url
        assert one.name != two.name

        async def test() -> None:
            first, second = await log_in(one.url), await log_in(two.url)
            assert (await first.command("25 00 00 00 00 00 00 00 00 00", 8))[1][:4] == bytes.fromhex("000007ff")
            assert (await second.command("25 00 00 00 00 00 00 00 00 00", 8))[1][:4] == bytes.fromhex("00000fff")

        run(test)


@pytest.mark.parametrize(
    ("store", "options", "kind", "said"),
    [
        ("missing.img", {}, errors.MissingFileError, "missing.img"),
        ("rdb:pool/image", {}, errors.MissingFileError, "rdb:pool/image"),
        ("/", {}, errors.ConfigurationError, "directory"),
        ("ram:1000", {}, errors.ConfigurationError, "multiple"),
        ("ram:1M", {"portals": ["192.0.2.1:0"]}, errors.ConfigurationError, "no such address"),
    ],
)
def test_what_cannot_be_served(store: str, options: dict[str, list[str]], kind: type[errors.Error], said: str) -> None:
    with pytest.raises(errors.Error, match=said) as caught:
        blockwire.Target(store, **options)  # type: ignore[arg-type]
    assert isinstance(caught.value, kind)
    assert caught.value.exit_code == 2
    assert caught.value.evidence
    assert caught.value.next
