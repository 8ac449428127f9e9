"""What is encoded parses back to itself; what is hostile raises only MalformedScsiData."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwire.scsi import cdb
from blockwire.scsi.capacity import Capacity10, Capacity16, parse_lba_status
from blockwire.scsi.inquiry import InquiryData
from blockwire.scsi.layout import MalformedScsiData
from blockwire.scsi.log_pages import parse_log_page
from blockwire.scsi.luns import parse_lun_list
from blockwire.scsi.mode import BlockDescriptor, ModeData, parse_mode_data
from blockwire.scsi.sense import Sense, SenseKey, parse_sense
from blockwire.scsi.supported import parse_all_commands, parse_one_command
from blockwire.scsi.target_ports import TargetPortGroup, encode_target_port_groups, parse_target_port_groups
from blockwire.scsi.unmap import UnmapRange, encode_unmap, parse_unmap
from blockwire.scsi.vpd.block import BlockCharacteristics, BlockLimits, LogicalBlockProvisioning
from blockwire.scsi.vpd.device_identification import Designator, DeviceIdentification
from blockwire.scsi.vpd.identification import ExtendedInquiry, SupportedPages, UnitSerialNumber


@st.composite
def any_cdb(draw: st.DrawFn) -> cdb.Cdb:
    layout = draw(st.sampled_from(cdb.LAYOUTS))
    values: dict[str, int | bool] = {"control": draw(st.integers(0, 255))}
    for name, place in layout.places().items():
        if place.width == 1:
            values[name] = draw(st.booleans())
        elif name == "service_action":
            values[name] = draw(st.integers(0, 3))
        else:
            values[name] = draw(st.integers(0, (1 << place.width) - 1))
    return layout(**values)


@given(any_cdb())
def test_cdb(command: cdb.Cdb) -> None:
    raw = command.encode()
    assert len(raw) == command.LENGTH
    assert cdb.parse(raw) == command


senses = st.builds(
    Sense,
    st.sampled_from(SenseKey),
    st.integers(0, 255),
    st.integers(0, 255),
    information=st.none() | st.integers(0, (1 << 32) - 1),
    command_specific=st.none() | st.integers(1, (1 << 32) - 1),
    key_specific=st.none() | st.binary(min_size=3, max_size=3).map(lambda raw: bytes([raw[0] | 0x80]) + raw[1:]),
    incorrect_length=st.booleans(),
    deferred=st.booleans(),
)


@given(senses, st.booleans())
def test_sense(sense: Sense, descriptor: bool) -> None:
    assert parse_sense(sense.encode(descriptor=descriptor)) == sense


@given(st.lists(st.builds(UnmapRange, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)), max_size=300).map(tuple))
def test_unmap(ranges: tuple[UnmapRange, ...]) -> None:
    if ranges:
        assert parse_unmap(encode_unmap(ranges)) == ranges


designators = st.builds(
    Designator,
    st.integers(0, 15),
    st.integers(1, 3),
    st.integers(0, 2),
    st.binary(max_size=255),
    st.none() | st.integers(0, 15),
)


@given(st.lists(designators, max_size=20).map(tuple))
def test_device_identification(items: tuple[Designator, ...]) -> None:
    page = DeviceIdentification(items)
    parsed = DeviceIdentification.parse(page.encode())
    assert parsed == page
    for item in parsed.designators:
        assert isinstance(item.text(), str)


@given(
    st.lists(st.builds(TargetPortGroup, st.integers(0, 65535), st.lists(st.integers(1, 65535), max_size=9).map(tuple)))
)
def test_target_port_groups(groups: list[TargetPortGroup]) -> None:
    assert parse_target_port_groups(encode_target_port_groups(tuple(groups))) == tuple(groups)


@given(
    st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 15), st.integers(0, 2**14 - 1), st.booleans()
)
def test_capacity(last: int, length: int, exponent: int, aligned: int, thin: bool) -> None:
    data = Capacity16(last, length, exponent, aligned, thin)
    assert Capacity16.parse(data.encode()) == data


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**24 - 1), st.booleans(), st.binary(max_size=40))
def test_mode_data(blocks: int, length: int, long: bool, body: bytes) -> None:
    page = bytes([0x08, len(body)]) + body
    data = ModeData((page,), 0x10, BlockDescriptor(blocks, length))
    assert parse_mode_data(data.encode10(long=long), ten=True) == data
    assert parse_mode_data(data.encode6(), ten=False) == data


PARSERS: list[Callable[[bytes], object]] = [
    cdb.parse,
    parse_sense,
    parse_unmap,
    parse_lun_list,
    parse_lba_status,
    parse_log_page,
    parse_all_commands,
    parse_one_command,
    parse_target_port_groups,
    lambda raw: parse_mode_data(raw, ten=True),
    lambda raw: parse_mode_data(raw, ten=False),
    InquiryData.parse,
    Capacity10.parse,
    Capacity16.parse,
    SupportedPages.parse,
    UnitSerialNumber.parse,
    ExtendedInquiry.parse,
    DeviceIdentification.parse,
    BlockLimits.parse,
    BlockCharacteristics.parse,
    LogicalBlockProvisioning.parse,
]


@pytest.mark.parametrize("parser", PARSERS)
@given(st.binary(max_size=96), st.sampled_from(range(256)))
def test_hostile_bytes(parser: Callable[[bytes], object], raw: bytes, code: int) -> None:
    for data in (raw, bytes([0, code, 0, len(raw)]) + raw):
        with contextlib.suppress(MalformedScsiData):
            parser(data)
