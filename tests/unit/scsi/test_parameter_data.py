"""Parameter data typed by hand from SPC-4 and SBC-3 tables."""

from __future__ import annotations

import pytest

from blockwire.scsi import commands, identity, supported
from blockwire.scsi.capacity import Capacity10, Capacity16, LbaStatus, Provisioning, encode_lba_status, parse_lba_status
from blockwire.scsi.inquiry import InquiryData, StandardVersion
from blockwire.scsi.layout import MalformedScsiData
from blockwire.scsi.log_pages import encode_supported_pages, encode_supported_subpages, parse_log_page
from blockwire.scsi.luns import encode_lun_list, parse_lun_list
from blockwire.scsi.mode import (
    CACHING_PAGE,
    CONTROL_PAGE,
    EXCEPTIONS_PAGE,
    BlockDescriptor,
    ModeData,
    find_page,
    parse_mode_data,
    split_pages,
)
from blockwire.scsi.target_ports import TargetPortGroup, encode_target_port_groups, parse_target_port_groups
from blockwire.scsi.unmap import UnmapRange, encode_unmap, parse_unmap
from blockwire.scsi.vpd.block import BlockCharacteristics, BlockLimits, LogicalBlockProvisioning, ProvisioningType
from blockwire.scsi.vpd.device_identification import (
    DeviceIdentification,
    naa_designator,
    relative_target_port,
    t10_designator,
    target_device_name,
    target_port_group,
    target_port_name,
)
from blockwire.scsi.vpd.identification import ExtendedInquiry, SupportedPages, UnitSerialNumber


def test_standard_inquiry_data() -> None:
    data = InquiryData(
        "ACME", "DISK", "0001", alua=1, third_party_copy=True, multiport=True,
        version_descriptors=(StandardVersion.SAM5, StandardVersion.ISCSI, StandardVersion.SPC4, StandardVersion.SBC3),
    )  # fmt: skip
    wanted = bytes.fromhex(
        "00 00 06 12 5b 18 10 02"
        "41 43 4d 45 20 20 20 20"
        "44 49 53 4b 20 20 20 20 20 20 20 20 20 20 20 20"
        "30 30 30 31" + "00" * 22 + "00 a0 09 60 04 60 04 c0" + "00" * 30
    )
    assert data.encode() == wanted
    assert InquiryData.parse(wanted) == data
    assert InquiryData.parse(wanted[:36]).version_descriptors == ()
    with pytest.raises(MalformedScsiData):
        InquiryData.parse(wanted[:35])
    with pytest.raises(ValueError, match="longer than 8"):
        InquiryData("TOO LONG NAME", "", "").encode()


def test_vpd_00_80_86() -> None:
    assert SupportedPages((0x83, 0x00, 0x80)).encode() == bytes.fromhex("00 00 00 03 00 80 83")
    assert SupportedPages.parse(bytes.fromhex("00 00 00 02 00 83 ff")).pages == (0x00, 0x83)
    assert UnitSerialNumber("A1").encode() == bytes.fromhex("00 80 00 02 41 31")
    assert UnitSerialNumber.parse(bytes.fromhex("00 80 00 04 20 41 31 20")).serial == "A1"
    page = ExtendedInquiry(head_of_queue=True, ordered=True, volatile_cache=True)
    wanted = bytes.fromhex("00 86 00 3c 00 07 01 00" + "00" * 56)
    assert page.encode() == wanted
    assert ExtendedInquiry.parse(wanted) == page


def test_vpd_83() -> None:
    page = DeviceIdentification(
        (
            naa_designator(0x3123456789ABCDEF),
            t10_designator("ACME", "A1"),
            target_device_name("iqn.2024-01.x:a"),
            target_port_name("iqn.2024-01.x:a", 1),
            relative_target_port(2),
            target_port_group(3),
        )
    )
    wanted = bytes.fromhex(
        "00 83 00 5e"
        "01 03 00 08 31 23 45 67 89 ab cd ef"
        "02 01 00 0a 41 43 4d 45 20 20 20 20 41 31"
        "53 a8 00 10 69 71 6e 2e 32 30 32 34 2d 30 31 2e 78 3a 61 00"
        "53 98 00 1c 69 71 6e 2e 32 30 32 34 2d 30 31 2e 78 3a 61 2c 74 2c 30 78 30 30 30 31 00 00 00 00"
        "51 94 00 04 00 00 00 02"
        "51 95 00 04 00 00 00 03"
    )
    assert page.encode() == wanted
    parsed = DeviceIdentification.parse(wanted)
    assert parsed == page
    assert [item.text() for item in parsed.designators] == [
        "naa.3123456789abcdef", "t10.ACME    A1", "iqn.2024-01.x:a", "iqn.2024-01.x:a,t,0x0001",
        "relative target port 2", "target port group 3",
    ]  # fmt: skip
    assert parsed.best_unit_name() == "naa.3123456789abcdef"
    with pytest.raises(MalformedScsiData):
        DeviceIdentification.parse(bytes.fromhex("00 83 00 05 01 03 00 08 31"))
    with pytest.raises(ValueError, match="NAA"):
        naa_designator(0x4123456789ABCDEF)
    assert len(naa_designator(6 << 124).value) == 16


def test_vpd_b0_b1_b2() -> None:
    limits = BlockLimits(
        max_compare_and_write=1, optimal_granularity=8, max_transfer=0x10000, optimal_transfer=0x800,
        max_prefetch=0x20, max_unmap_blocks=0x400000, max_unmap_descriptors=0x100, unmap_granularity=8,
        unmap_alignment=4, max_write_same=0x0102030405060708, write_same_nonzero=True,
    )  # fmt: skip
    wanted = bytes.fromhex(
        "00 b0 00 3c 01 01 00 08 00 01 00 00 00 00 08 00 00 00 00 20 00 40 00 00 00 00 01 00 00 00 00 08"
        "80 00 00 04 01 02 03 04 05 06 07 08" + "00" * 20
    )
    assert limits.encode() == wanted
    assert BlockLimits.parse(wanted) == limits
    assert BlockLimits.parse(bytes.fromhex("00 b0 00 0c 00 00 00 08 00 00 00 00 00 00 00 00")).optimal_granularity == 8
    with pytest.raises(MalformedScsiData):
        BlockLimits.parse(wanted[:40])
    spinning = BlockCharacteristics(rotation_rate=0x1C20, form_factor=2)
    assert spinning.encode() == bytes.fromhex("00 b1 00 3c 1c 20 00 02" + "00" * 56)
    assert BlockCharacteristics.parse(spinning.encode()) == spinning
    thin = LogicalBlockProvisioning(
        unmap=True, write_same_16_unmap=True, write_same_10_unmap=True, reads_zeros=True, anchors=True,
        type=ProvisioningType.THIN,
    )  # fmt: skip
    assert thin.encode() == bytes.fromhex("00 b2 00 04 00 e6 02 00")
    assert LogicalBlockProvisioning.parse(thin.encode()) == thin


def test_capacity() -> None:
    assert Capacity10.of(0x100, 512).encode() == bytes.fromhex("00 00 00 ff 00 00 02 00")
    assert Capacity10.of(1 << 33, 512).last_lba == 0xFFFFFFFF
    assert Capacity10.of(0xFFFFFFFF, 512).last_lba == 0xFFFFFFFE
    data = Capacity16(0x0102030405060708, 4096, 3, 5, provisioned=True, reads_zeros=True)
    wanted = bytes.fromhex("01 02 03 04 05 06 07 08 00 00 10 00 00 03 c0 05" + "00" * 16)
    assert data.encode() == wanted
    assert Capacity16.parse(wanted) == data
    assert Capacity16.parse(wanted[:12]) == Capacity16(0x0102030405060708, 4096)
    status = (LbaStatus(8, 16, Provisioning.DEALLOCATED),)
    raw = bytes.fromhex("00 00 00 14 00 00 00 00 00 00 00 00 00 00 00 08 00 00 00 10 01 00 00 00")
    assert encode_lba_status(status) == raw
    assert parse_lba_status(raw) == status
    with pytest.raises(MalformedScsiData):
        parse_lba_status(raw[:20] + b"\x0f\0\0\0")


def test_lun_list() -> None:
    luns = (bytes(8), bytes.fromhex("0005000000000000"))
    raw = bytes.fromhex("00 00 00 10 00 00 00 00" + "00" * 8 + "00 05 00 00 00 00 00 00")
    assert encode_lun_list(luns) == raw
    assert parse_lun_list(raw) == (luns, 2)
    assert parse_lun_list(raw[:16]) == (luns[:1], 2)
    with pytest.raises(MalformedScsiData):
        parse_lun_list(bytes.fromhex("00 00 00 07 00 00 00 00"))


def test_unmap_list() -> None:
    ranges = (UnmapRange(0x0102030405060708, 0x090A0B0C),)
    raw = bytes.fromhex("00 16 00 10 00 00 00 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00 00 00")
    assert encode_unmap(ranges) == raw
    assert parse_unmap(raw) == ranges
    assert parse_unmap(b"") == ()
    assert parse_unmap(bytes.fromhex("00 06 00 00 00 00 00 00")) == ()
    for bad in (raw[:7], raw[:20], bytes.fromhex("00 06 00 10 00 00 00 00")):
        with pytest.raises(MalformedScsiData):
            parse_unmap(bad)


def test_mode_pages() -> None:
    cache = CACHING_PAGE.build(write_cache_enabled=1)
    assert cache == bytes.fromhex("08 12 04" + "00" * 17)
    assert CACHING_PAGE.mask() == bytes.fromhex("08 12 04" + "00" * 17)
    control = CONTROL_PAGE.build(descriptor_sense=1, queue_algorithm=1, task_aborted_status=1, busy_timeout=0xFFFF)
    assert control == bytes.fromhex("0a 0a 04 10 00 40 00 00 ff ff 00 00")
    assert CONTROL_PAGE.mask() == bytes.fromhex("0a 0a 04 00 08 40 00 00 00 00 00 00")
    assert EXCEPTIONS_PAGE.build(disable_exception_control=1)[:4] == bytes.fromhex("1c 0a 08 00")
    data = ModeData((cache,), ModeData.DPO_FUA | ModeData.WRITE_PROTECTED, BlockDescriptor(0x100, 512))
    six = bytes.fromhex("1f 00 90 08 00 00 01 00 00 00 02 00") + cache
    ten = bytes.fromhex("00 22 00 90 00 00 00 08 00 00 01 00 00 00 02 00") + cache
    long = bytes.fromhex("00 2a 00 90 01 00 00 10 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02 00") + cache
    assert data.encode6() == six
    assert data.encode10() == ten
    assert data.encode10(long=True) == long
    assert parse_mode_data(six, ten=False) == data
    assert parse_mode_data(ten, ten=True) == data
    assert parse_mode_data(long, ten=True) == data
    assert parse_mode_data(six[:20], ten=False).pages == ()
    assert find_page(data.pages, 0x08) == cache
    assert find_page(data.pages, 0x0A) is None
    for bad in (b"", six[:3], six[:8], bytes.fromhex("00 00 00 04 00 00 00 00")):
        with pytest.raises(MalformedScsiData):
            parse_mode_data(bad, ten=False)
    with pytest.raises(MalformedScsiData):
        split_pages(cache[:5], whole=True)


def test_supported_operation_codes() -> None:
    rows = (commands.BY_NAME["READ CAPACITY(16)"], commands.BY_NAME["INQUIRY"])
    raw = bytes.fromhex("00 00 00 10 12 00 00 00 00 00 00 06 9e 00 00 10 00 01 00 10")
    assert supported.encode_all_commands(rows, timeouts=False) == raw
    assert supported.parse_all_commands(raw) == (
        supported.SupportedCommand(0x12, None, 6), supported.SupportedCommand(0x9E, 0x10, 16),
    )  # fmt: skip
    timed = supported.encode_all_commands(rows[1:], timeouts=True)
    assert timed == bytes.fromhex("00 00 00 14 12 00 00 00 00 02 00 06 00 0a" + "00" * 10)
    assert supported.parse_all_commands(timed) == (supported.SupportedCommand(0x12, None, 6),)
    usage = bytes.fromhex("12 01 ff ff ff 00")
    one = supported.encode_one_command(supported.Support.SUPPORTED, usage, timeouts=False)
    assert one == bytes.fromhex("00 03 00 06 12 01 ff ff ff 00")
    assert supported.parse_one_command(one) == (supported.Support.SUPPORTED, usage)
    none = supported.encode_one_command(supported.Support.NOT_SUPPORTED, b"", timeouts=True)
    assert none == bytes.fromhex("00 01 00 00")
    tmf = supported.TaskManagementSupport
    assert supported.encode_task_management(tmf.ABORT_TASK | tmf.QUERY_TASK_SET, extended=False) == bytes.fromhex(
        "80020000"
    )
    assert supported.encode_task_management(tmf.LOGICAL_UNIT_RESET, extended=True) == bytes.fromhex(
        "0800000c" + "00" * 12
    )
    assert supported.parse_task_management(b"\x82\x00") == tmf.ABORT_TASK | tmf.TARGET_RESET


def test_target_port_groups() -> None:
    groups = (TargetPortGroup(1, (1, 2)),)
    raw = bytes.fromhex("00 00 00 10 00 01 00 01 00 00 00 02 00 00 00 01 00 00 00 02")
    assert encode_target_port_groups(groups) == raw
    assert parse_target_port_groups(raw) == groups
    extended = bytes.fromhex("00 00 00 14 10 05 00 00") + raw[4:]
    assert encode_target_port_groups(groups, transition_seconds=5) == extended
    assert parse_target_port_groups(extended) == groups
    with pytest.raises(MalformedScsiData):
        parse_target_port_groups(raw[:-1])


def test_log_pages() -> None:
    assert encode_supported_pages((0x0D, 0)) == bytes.fromhex("00 00 00 02 00 0d")
    assert encode_supported_subpages(((0, 0), (0, 0xFF))) == bytes.fromhex("40 ff 00 04 00 00 00 ff")
    assert parse_log_page(bytes.fromhex("40 ff 00 02 00 00")) == (0, 0xFF, b"\0\0")


def test_identity_is_stable_and_differs() -> None:
    # Typed once from the definition; a change would rename every disk in the field.
    first = identity.unit_identity("host", "file:/a")
    assert first == identity.unit_identity("host", "file:/a")
    assert first.naa >> 60 == 3
    assert len(first.serial) == 16
    others = {identity.unit_identity(h, s) for h, s in (("host", "file:/b"), ("hos", "tfile:/a"), ("h2", "file:/a"))}
    assert len({item.naa for item in others} | {first.naa}) == 4
    assert identity.unit_identity("h", "a", serial="S").naa == identity.unit_identity("h", "b", serial="S").naa
    six = identity.unit_identity("host", "file:/a", company_id=0x001405)
    assert six.naa >> 100 == 0x6001405
    assert six.naa >> 124 == 6
