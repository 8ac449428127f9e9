"""CDB bytes typed by hand from the tables of SPC-4 and SBC-3."""

from __future__ import annotations

import pytest

from blockwire.scsi import cdb, commands
from blockwire.scsi.layout import MalformedScsiData

GOLDEN = [
    (cdb.TestUnitReady(), "00 00 00 00 00 00"),
    (cdb.RequestSense(252), "03 00 00 00 fc 00"),
    (cdb.RequestSense(18, descriptor=True), "03 01 00 00 12 00"),
    (cdb.Inquiry(0, 36), "12 00 00 00 24 00"),
    (cdb.Inquiry(0x83, 0x1234, vital=True), "12 01 83 12 34 00"),
    (cdb.ReportLuns(0, 16), "a0 00 00 00 00 00 00 00 00 10 00 00"),
    (cdb.ReadCapacity10(), "25 00 00 00 00 00 00 00 00 00"),
    (cdb.ReadCapacity16(32), "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00"),
    (cdb.GetLbaStatus(0x0102030405060708, 24), "9e 12 01 02 03 04 05 06 07 08 00 00 00 18 00 00"),
    (cdb.ModeSense6(0, 192, page_code=0x3F), "1a 00 3f 00 c0 00"),
    (cdb.ModeSense6(0, 192, page_code=0x08, page_control=1, no_block_descriptors=True), "1a 08 48 00 c0 00"),
    (cdb.ModeSense10(0, 512, page_code=0x0A, long_lba_accepted=True), "5a 10 0a 00 00 00 00 02 00 00"),
    (cdb.ModeSelect6(24, page_format=True, save_pages=True), "15 11 00 00 18 00"),
    (cdb.ModeSelect10(0x0102, page_format=True), "55 10 00 00 00 00 00 01 02 00"),
    (cdb.Read6(0x012345, 0), "08 01 23 45 00 00"),
    (cdb.Write6(0x1FFFFF, 1), "0a 1f ff ff 01 00"),
    (cdb.Read10(0x01020304, 0x0506), "28 00 01 02 03 04 00 05 06 00"),
    (cdb.Read10(1, 2, dpo=True, fua=True, protect=1), "28 38 00 00 00 01 00 00 02 00"),
    (cdb.Write10(0x01020304, 0x0506, fua=True), "2a 08 01 02 03 04 00 05 06 00"),
    (cdb.Read12(0x01020304, 0x05060708), "a8 00 01 02 03 04 05 06 07 08 00 00"),
    (cdb.Write12(0x01020304, 0x05060708), "aa 00 01 02 03 04 05 06 07 08 00 00"),
    (cdb.Read16(0x0102030405060708, 0x090A0B0C), "88 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00"),
    (cdb.Write16(0x0102030405060708, 0x090A0B0C, fua=True), "8a 08 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00"),
    (cdb.Orwrite16(1, 2), "8b 00 00 00 00 00 00 00 00 01 00 00 00 02 00 00"),
    (cdb.WriteAndVerify10(3, 4, byte_check=1), "2e 02 00 00 00 03 00 00 04 00"),
    (cdb.WriteAndVerify12(3, 4, byte_check=1), "ae 02 00 00 00 03 00 00 00 04 00 00"),
    (cdb.WriteAndVerify16(3, 4), "8e 00 00 00 00 00 00 00 00 03 00 00 00 04 00 00"),
    (cdb.Verify10(3, 4, byte_check=3), "2f 06 00 00 00 03 00 00 04 00"),
    (cdb.Verify12(3, 4), "af 00 00 00 00 03 00 00 00 04 00 00"),
    (cdb.Verify16(3, 4, dpo=True), "8f 10 00 00 00 00 00 00 00 03 00 00 00 04 00 00"),
    (cdb.SynchronizeCache10(0, 0, immediate=True), "35 02 00 00 00 00 00 00 00 00"),
    (cdb.SynchronizeCache16(1, 2), "91 00 00 00 00 00 00 00 00 01 00 00 00 02 00 00"),
    (cdb.PreFetch10(5, 6, immediate=True), "34 02 00 00 00 05 00 00 06 00"),
    (cdb.PreFetch16(5, 6), "90 00 00 00 00 00 00 00 00 05 00 00 00 06 00 00"),
    (cdb.StartStopUnit(start=True, load_eject=True), "1b 00 00 00 03 00"),
    (cdb.StartStopUnit(immediate=True, power_condition=3), "1b 01 00 00 30 00"),
    (cdb.PreventAllowMediumRemoval(prevent=1), "1e 00 00 00 01 00"),
    (cdb.Unmap(24), "42 00 00 00 00 00 00 00 18 00"),
    (cdb.Unmap(24, anchor=True), "42 01 00 00 00 00 00 00 18 00"),
    (cdb.WriteSame10(7, 8, unmap=True), "41 08 00 00 00 07 00 00 08 00"),
    (cdb.WriteSame16(7, 8, no_data_out=True, unmap=True), "93 09 00 00 00 00 00 00 00 07 00 00 00 08 00 00"),
    (cdb.CompareAndWrite(9, 1), "89 00 00 00 00 00 00 00 00 09 00 00 00 01 00 00"),
    (cdb.WriteAtomic16(9, 0x0102, 0x0304), "9c 00 00 00 00 00 00 00 00 09 03 04 01 02 00 00"),
    (cdb.XdWriteRead10(9, 1, disable_write=True), "53 04 00 00 00 09 00 00 01 00"),
    (cdb.PersistentReserveIn(allocation_length=8, service_action=1), "5e 01 00 00 00 00 00 00 08 00"),
    (cdb.PersistentReserveOut(24, service_action=4, reservation_type=5), "5f 04 05 00 00 00 00 00 18 00"),
    (cdb.Reserve6(), "16 00 00 00 00 00"),
    (cdb.Release6(), "17 00 00 00 00 00"),
    (cdb.LogSense(0, 4, page_control=1), "4d 00 40 00 00 00 00 00 04 00"),
    (cdb.ReadDefectData10(8, primary=True, list_format=5), "37 00 15 00 00 00 00 00 08 00"),
    (cdb.ReadDefectData12(8, grown=True), "b7 08 00 00 00 00 00 00 00 08 00 00"),
    (cdb.ReportTargetPortGroups(64, data_format=1), "a3 2a 00 00 00 00 00 00 00 40 00 00"),
    (cdb.ReportSupportedOperationCodes(0x9E, 0x10, 64, reporting_options=2, timeouts=True),
     "a3 0c 82 9e 00 10 00 00 00 40 00 00"),
    (cdb.ReportSupportedTaskManagement(16, extended=True), "a3 0d 80 00 00 00 00 00 00 10 00 00"),
    (cdb.Read32(0x0102030405060708, 0x090A0B0C, fua=True),
     "7f 00 00 00 00 00 00 18 00 09 08 00 01 02 03 04 05 06 07 08 00 00 00 00 00 00 00 00 09 0a 0b 0c"),
    (cdb.Write32(1, 2), "7f 00 00 00 00 00 00 18 00 0b 00 00" + " 00" * 7 + " 01" + " 00" * 8 + " 00 00 00 02"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "raw"), GOLDEN, ids=lambda item: type(item).__name__)
def test_bytes_are_those_of_the_standard(command: cdb.Cdb, raw: str) -> None:
    wanted = bytes.fromhex(raw)
    assert command.encode() == wanted
    assert cdb.parse(wanted) == command
    row = commands.lookup(wanted)
    assert row is not None
    assert row.cdb_length == len(wanted)


def test_iscsi_carries_short_cdbs_in_16_bytes() -> None:
    assert cdb.parse(bytes.fromhex("28 00 00 00 00 05 00 00 02 00") + bytes(6)) == cdb.Read10(5, 2)


def test_read_6_of_length_zero_is_256_blocks() -> None:
    assert cdb.Read6(0, 0).blocks == 256
    assert cdb.Read6(0, 255).blocks == 255


def test_control_byte_of_a_variable_length_cdb_is_byte_1() -> None:
    assert cdb.Read32(0, 1, control=4).encode()[1] == 4
    assert cdb.Read10(0, 1, control=4).encode()[9] == 4


def test_values_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"Read10\.lba is 4294967296.*32 bits"):
        cdb.Read10(1 << 32, 1).encode()
    with pytest.raises(ValueError, match=r"Write6\.length_byte is 256"):
        cdb.Write6(0, 256).encode()
    with pytest.raises(ValueError, match="-1"):
        cdb.Read16(-1, 1).encode()


@pytest.mark.parametrize(
    "raw",
    ["", "28", "28 00 00 00 00 00 00 00 01", "ff" * 16, "9e 1f" + " 00" * 14, "7f" + " 00" * 31, "7f 00",
     "7f 00 00 00 00 00 00 10 00 09" + " 00" * 22],
)  # fmt: skip
def test_short_or_unknown_cdbs_are_refused(raw: str) -> None:
    with pytest.raises(MalformedScsiData):
        cdb.parse(bytes.fromhex(raw))


def test_usage_data_marks_evaluated_bits() -> None:
    assert cdb.usage_data(commands.BY_NAME["READ(10)"]) == bytes.fromhex("28 f8 ff ff ff ff 00 ff ff 00")
    assert cdb.usage_data(commands.BY_NAME["WRITE SAME(16)"]) == bytes.fromhex("93 f9" + " ff" * 12 + " 00 00")
    assert cdb.usage_data(commands.BY_NAME["READ CAPACITY(16)"]) == bytes.fromhex(
        "9e 10 00 00 00 00 00 00 00 00 ff ff ff ff 00 00"
    )
    assert cdb.usage_data(commands.BY_NAME["PERSISTENT RESERVE OUT, PREEMPT"]) == bytes.fromhex(
        "5f 04 ff 00 00 ff ff ff ff 00"
    )
    assert cdb.usage_data(commands.BY_NAME["READ(32)"]) == bytes.fromhex(
        "7f 00 00 00 00 00 00 18 00 09 f8 00" + " ff" * 8 + " 00" * 8 + " ff" * 4
    )


def test_every_row_is_consistent() -> None:
    assert len(commands.BY_KEY) == len(commands.TABLE)
    assert len(commands.BY_NAME) == len(commands.TABLE)
    for row in commands.TABLE:
        layout = cdb.layout_of(row)
        if row.name == "XDWRITEREAD(32)":
            assert layout is None
            continue
        assert layout is not None, row.name
        assert row.cdb_length == layout.LENGTH, row.name
        group = commands.cdb_length(row.operation_code)
        assert group is None or group == row.cdb_length, row.name


def test_descriptions() -> None:
    assert commands.describe(bytes.fromhex("9e 10")) == "READ CAPACITY(16)"
    assert commands.describe(bytes.fromhex("9e 1f")) == "operation code 9Eh service action 1Fh"
    assert commands.describe(b"\xc1") == "operation code C1h"
    assert commands.describe(b"") == "empty CDB"
