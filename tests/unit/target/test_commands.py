"""What the slow path answers, through the whole target with a fake plane. Bytes typed from SPC-4 and SBC-3."""

from __future__ import annotations

from typing import Any

import pytest

from blockwire.dataplane import api
from blockwire.scsi import cdb
from blockwire.scsi.sense import Sense, parse_sense
from blockwire.scsi.vpd.device_identification import DeviceIdentification
from tests.unit.target.conftest import NAME, Bench, Run


def status(answer: api.Answer) -> tuple[int, bytes]:
    assert isinstance(answer, api.Status)
    return answer.status, answer.data


def sense(answer: api.Answer) -> Sense:
    assert isinstance(answer, api.Status)
    assert answer.status == 2
    return parse_sense(answer.sense)


def code(answer: api.Answer) -> tuple[int, int, int]:
    found = sense(answer)
    return int(found.key), found.asc, found.ascq


async def ready(bench: Bench) -> int:
    """A session whose unit attention has been reported."""
    _, session = await bench.log_in()
    assert code(await bench.command(session, cdb.TestUnitReady().encode())) == (6, 0x29, 0x00)
    return session


def test_the_first_command_reports_power_on_and_opens_the_gate(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        assert set(bench.plane.mappings[session, 0].gates.values()) == {api.Gate.DIVERT_ONE}
        # INQUIRY leaves it pending (SAM-5 5.14), and the gate is armed again.
        assert status(await bench.command(session, cdb.Inquiry().encode()))[0] == 0
        assert bench.gate(session) == {api.Gate.DIVERT_ONE}
        answer = await bench.command(session, cdb.Read10(0, 1).encode(), diverted=True)
        assert code(answer) == (6, 0x29, 0x00)
        assert bench.gate(session) == {api.Gate.PASS}
        assert isinstance(await bench.command(session, cdb.Read10(0, 1).encode(), diverted=True), api.Resume)
        assert status(await bench.command(session, cdb.TestUnitReady().encode())) == (0, b"")

    run(test)


def test_request_sense_takes_the_unit_attention(run: Run) -> None:
    async def test(bench: Bench) -> None:
        _, session = await bench.log_in()
        _, data = status(await bench.command(session, cdb.RequestSense().encode()))
        assert (parse_sense(data).key, parse_sense(data).asc) == (6, 0x29)
        _, data = status(await bench.command(session, cdb.RequestSense(descriptor=True).encode()))
        assert data == bytes.fromhex("72 00 00 00 00 00 00 00")
        assert bench.gate(session) == {api.Gate.PASS}

    run(test)


def test_inquiry_and_pages(run: Run) -> None:
    async def test(bench: Bench) -> None:
        session = await ready(bench)
        _, data = status(await bench.command(session, cdb.Inquiry(0, 96).encode()))
        assert data[:8] == bytes.fromhex("00 00 06 12 5b 10 10 02")
        assert data[8:36] == b"BLKWIRE Blockwire disk  0001"
        _, data = status(await bench.command(session, cdb.Inquiry(0, 5, vital=True).encode()))
        assert data == bytes.fromhex("00 00 00 07 00")
        _, data = status(await bench.command(session, cdb.Inquiry(0, 255, vital=True).encode()))
        assert data == bytes.fromhex("00 00 00 07 00 80 83 86 b0 b1 b2")
        _, data = status(await bench.command(session, cdb.Inquiry(0x80, 255, vital=True).encode()))
        assert data == bytes.fromhex("00 80 00 02 41 31")
        _, data = status(await bench.command(session, cdb.Inquiry(0x83, 1024, vital=True).encode()))
        names = [item.text() for item in DeviceIdentification.parse(data).designators]
        assert names[0].startswith("naa.3")
        assert names[1] == "t10.BLKWIRE Blockwire disk  A1"
        assert names[4:] == [f"{NAME},t,0x0001", NAME]
        _, data = status(await bench.command(session, cdb.Inquiry(0xB2, 255, vital=True).encode()))
        assert data == bytes.fromhex("00 b2 00 04 00 e4 02 00")
        for page in (0xB0, 0xB1, 0x86):
            _, data = status(await bench.command(session, cdb.Inquiry(page, 255, vital=True).encode()))
            assert len(data) == 64
        assert data[5] & 0x07 == 0x01  # SIMPSUP and no other attribute (SPC-4 7.8.7)
        refused = sense(await bench.command(session, cdb.Inquiry(0xC7, 255, vital=True).encode()))
        assert (refused.asc, refused.field is not None and refused.field.byte) == (0x24, 2)
        assert sense(await bench.command(session, cdb.Inquiry(0x80, 255).encode())).asc == 0x24

    run(test)


def test_capacity(run: Run) -> None:
    async def test(bench: Bench) -> None:
        session = await ready(bench)
        assert status(await bench.command(session, cdb.ReadCapacity10().encode()))[1] == bytes.fromhex(
            "000007ff00000200"
        )
        _, data = status(await bench.command(session, cdb.ReadCapacity16().encode()))
        assert data[:16] == bytes.fromhex("00000000000007ff 00000200 00 00 c000")
        assert len(status(await bench.command(session, cdb.ReadCapacity16(12).encode()))[1]) == 12
        assert sense(await bench.command(session, cdb.ReadCapacity10(5).encode())).asc == 0x24

    run(test)


def test_blocks_of_4096(run: Run) -> None:
    async def test(bench: Bench) -> None:
        session = await ready(bench)
        assert status(await bench.command(session, cdb.ReadCapacity10().encode()))[1] == bytes.fromhex(
            "000000ff00001000"
        )

    run(test, "ram:1M?block_size=4096")


def test_luns_that_are_and_that_are_not(run: Run) -> None:
    async def test(bench: Bench) -> None:
        session = await ready(bench)
        both = bytes.fromhex("00000010 00000000 0000000000000000 0003000000000000")
        assert status(await bench.command(session, cdb.ReportLuns().encode()))[1] == both
        assert status(await bench.command(session, cdb.ReportLuns(2).encode()))[1] == both
        assert status(await bench.command(session, cdb.ReportLuns(1).encode()))[1] == bytes(8)
        assert sense(await bench.command(session, cdb.ReportLuns(3).encode())).asc == 0x24
        assert status(await bench.command(session, cdb.ReportLuns().encode(), lun=9))[1] == both
        _, data = status(await bench.command(session, cdb.Inquiry(0, 36).encode(), lun=9))
        assert data[0] == 0x7F
        assert code(await bench.command(session, cdb.Read10(0, 1).encode(), lun=9)) == (5, 0x25, 0)
        _, data = status(await bench.command(session, cdb.RequestSense().encode(), lun=9))
        assert (parse_sense(data).key, parse_sense(data).asc) == (5, 0x25)

    run(test, "ram:1M", luns=["3=ram:1M"])


def test_mode_sense_and_select(run: Run) -> None:
    async def test(bench: Bench) -> None:
        session = await ready(bench)
        _, other = await bench.log_in(isid=bytes.fromhex("400001370001"))
        await bench.command(other, cdb.TestUnitReady().encode())
        _, data = status(await bench.command(session, cdb.ModeSense6(0, 255, page_code=8).encode()))
        assert data == bytes.fromhex("1f 00 10 08 00 00 08 00 00 00 02 00 08 12 04") + bytes(17)
        everything = cdb.ModeSense10(0, 4096, page_code=0x3F, no_block_descriptors=True).encode()
        _, data = status(await bench.command(session, everything))
        assert [data[8], data[20], data[40], data[52]] == [0x01, 0x08, 0x0A, 0x1C]
        assert int.from_bytes(data[:2], "big") == len(data) - 2
        saved = cdb.ModeSense6(0, 255, page_code=8, page_control=3).encode()
        assert code(await bench.command(session, saved)) == (5, 0x39, 0)
        assert sense(await bench.command(session, cdb.ModeSense6(0, 255, page_code=0x19).encode())).asc == 0x24

        select = cdb.ModeSelect6(24, page_format=True).encode()
        off = bytes(4) + bytes.fromhex("08 12 00") + bytes(17)
        assert await bench.command(session, select, out=24) == api.Collect(24)
        assert status(await bench.command(session, select, out=24, data=off)) == (0, b"")
        assert bench.plane.mappings[session, 0].write_cache is False
        assert bench.plane.mappings[other, 0].write_cache is False
        assert bench.plane.mappings[other, 0].gates[api.CommandClass.READ] == api.Gate.DIVERT_ONE
        assert bench.plane.mappings[session, 0].gates[api.CommandClass.READ] == api.Gate.PASS
        assert code(await bench.command(other, cdb.TestUnitReady().encode())) == (6, 0x2A, 0x01)

        fixed = bytes(4) + bytes.fromhex("08 12 01") + bytes(17)
        refused = sense(await bench.command(session, select, out=24, data=fixed))
        assert refused.asc == 0x26
        assert refused.field is not None
        assert (refused.field.byte, refused.field.bit, refused.field.in_cdb) == (6, 0, False)
        short = cdb.ModeSelect6(10, page_format=True).encode()
        assert code(await bench.command(session, short, out=10, data=off[:10])) == (5, 0x1A, 0)
        assert code(await bench.command(session, select, out=8)) == (5, 0x1A, 0)
        save = cdb.ModeSelect6(24, page_format=True, save_pages=True).encode()
        assert sense(await bench.command(session, save, out=24, data=off)).asc == 0x24
        assert status(await bench.command(session, cdb.ModeSelect6(0, page_format=True).encode())) == (0, b"")

    run(test)


def test_descriptor_sense_is_obeyed(run: Run) -> None:
    async def test(bench: Bench) -> None:
        session = await ready(bench)
        page = bytes(4) + bytes.fromhex("0a 0a 04 10 00 00 00 00 00 00 00 00")
        select = cdb.ModeSelect6(16, page_format=True).encode()
        assert status(await bench.command(session, select, out=16, data=page)) == (0, b"")
        answer = await bench.command(session, bytes([0xC1]))
        assert isinstance(answer, api.Status)
        assert answer.sense == bytes.fromhex("72 05 20 00 00 00 00 00")
        assert bench.plane.mappings[session, 0].descriptor_sense

    run(test)


def test_write_protection_shows_everywhere(run: Run) -> None:
    async def test(bench: Bench) -> None:
        session = await ready(bench)
        assert bench.plane.mappings[session, 0].read_only
        _, data = status(await bench.command(session, cdb.ModeSense6(0, 255, page_code=8).encode()))
        assert data[2] == 0x90
        assert code(await bench.command(session, cdb.Unmap(24).encode(), out=24)) == (5, 0x20, 0)

    run(test, read_only=True)


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("c1", (5, 0x20, 0)),
        ("5e 00 00 00 00 00 00 00 08 00", (5, 0x20, 0)),
        ("9e 1f", (5, 0x24, 0)),
        ("a3 1f", (5, 0x24, 0)),
        ("28 00 00 00 00 00 00 00 01 04", (5, 0x24, 0)),
        ("28 00 00 00 00 00 00 00 01 01", (5, 0x24, 0)),
        ("1b 00 00 00 00 00", (5, 0x24, 0)),
        ("1b 00 00 00 02 00", (5, 0x24, 0)),
        ("1b 00 00 00 11 00", (5, 0x24, 0)),
        ("34 00 00 00 08 00 00 00 01 00", (5, 0x21, 0)),
        ("1d 00 00 00 00 00", (5, 0x24, 0)),
        ("4d 00 7f 00 00 00 00 00 ff 00", (5, 0x24, 0)),
    ],
)
def test_what_is_refused(run: Run, raw: str, wanted: tuple[int, int, int]) -> None:
    async def test(bench: Bench) -> None:
        session = await ready(bench)
        assert code(await bench.command(session, bytes.fromhex(raw), diverted=True)) == wanted

    run(test)


@pytest.mark.parametrize(
    ("command", "data"),
    [
        (cdb.StartStopUnit(start=True), ""),
        (cdb.PreventAllowMediumRemoval(prevent=1), ""),
        (cdb.PreFetch16(0, 8), ""),
        (cdb.SendDiagnostic(self_test=True), ""),
        (cdb.ReadDefectData10(8, primary=True, list_format=5), "00 15 00 00"),
        (cdb.ReadDefectData12(8, grown=True), "00 08 00 00 00 00 00 00"),
        (cdb.LogSense(), "00 00 00 01 00"),
        (cdb.GetLbaStatus(0x700, 24), "00000014 00000000 0000000000000700 00000100 00 000000"),
        (cdb.LogSense(0xFF), "40 ff 00 04 00 00 00 ff"),
        (cdb.ReportTargetPortGroups(), "00 00 00 0c 00 01 00 01 00 00 00 01 00 00 00 01"),
        (cdb.ReportSupportedTaskManagement(4), "da 00 00 00"),
        (cdb.ReportSupportedOperationCodes(0x28, reporting_options=1), "00 03 00 0a 28 f8 ff ff ff ff 00 ff ff 00"),
        (cdb.ReportSupportedOperationCodes(0x9E, 0x10, reporting_options=2),
         "00 03 00 10 9e 10 00 00 00 00 00 00 00 00 ff ff ff ff 00 00"),
        (cdb.ReportSupportedOperationCodes(0xC1, reporting_options=3), "00 01 00 00"),
    ],
)  # fmt: skip
def test_what_is_answered(run: Run, command: Any, data: str) -> None:
    async def test(bench: Bench) -> None:
        session = await ready(bench)
        assert status(await bench.command(session, command.encode())) == (0, bytes.fromhex(data))

    run(test)


def test_task_attributes(run: Run) -> None:
    async def test(bench: Bench) -> None:
        session = await ready(bench)
        read = cdb.Read10(0, 1).encode()
        assert isinstance(await bench.command(session, read, attribute=3), api.Resume)
        assert code(await bench.command(session, read, attribute=4)) == (5, 0x49, 0)

    run(test)


def test_identity_is_the_same_after_a_restart_and_differs_between_units(run: Run) -> None:
    seen: list[list[str]] = []

    async def test(bench: Bench) -> None:
        units = bench.server.devices[NAME].units
        seen.append([f"{unit.identity.naa:x} {unit.identity.serial}" for _, unit in sorted(units.items())])

    for _ in range(2):
        run(test, "ram:1M", "ram:1M", "null:1M")
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 3
