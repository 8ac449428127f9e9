"""The key table against RFC 7143 section 13, typed from its text; and the value formats of section 6.1."""

from __future__ import annotations

import pytest

from blockwire.negotiate import KEYS, Function, Use, values
from blockwire.negotiate.parameters import SESSION_FIELDS, Parameters

F, U = Function, Use
# key: (use, senders, scope, default, result function, irrelevant in discovery), from each key's own section.
SECTION_13 = {
    "HeaderDigest": (U.IO, "IT", "CO", "None", F.FIRST, False),
    "DataDigest": (U.IO, "IT", "CO", "None", F.FIRST, False),
    "MaxConnections": (U.LO, "IT", "SW", 1, F.MINIMUM, True),
    "SendTargets": (U.FFPO, "I", "SW", None, F.SECURITY, False),
    "InitialR2T": (U.LO, "IT", "SW", True, F.OR, True),
    "ImmediateData": (U.LO, "IT", "SW", True, F.AND, True),
    "MaxRecvDataSegmentLength": (U.ALL, "IT", "CO", 8192, F.DECLARE, False),
    "MaxBurstLength": (U.LO, "IT", "SW", 262144, F.MINIMUM, True),
    "FirstBurstLength": (U.LO, "IT", "SW", 65536, F.MINIMUM, True),
    "DefaultTime2Wait": (U.LO, "IT", "SW", 2, F.MAXIMUM, False),
    "DefaultTime2Retain": (U.LO, "IT", "SW", 20, F.MINIMUM, False),
    "MaxOutstandingR2T": (U.LO, "IT", "SW", 1, F.MINIMUM, True),
    "DataPDUInOrder": (U.LO, "IT", "SW", True, F.OR, True),
    "DataSequenceInOrder": (U.LO, "IT", "SW", True, F.OR, True),
    "ErrorRecoveryLevel": (U.LO, "IT", "SW", 0, F.MINIMUM, False),
    "SessionType": (U.LO, "I", "SW", "Normal", F.DECLARE, False),
    "TaskReporting": (U.LO, "IT", "SW", "RFC3720", F.FIRST, True),
    "iSCSIProtocolLevel": (U.LO, "IT", "SW", 1, F.MINIMUM, True),  # RFC 7144 section 7.1.1
    "X#NodeArchitecture": (U.LO, "IT", "SW", None, F.DECLARE, False),
}
BOUNDS = {
    "MaxConnections": (1, 65535),
    "MaxRecvDataSegmentLength": (512, 2**24 - 1),
    "MaxBurstLength": (512, 2**24 - 1),
    "FirstBurstLength": (512, 2**24 - 1),
    "DefaultTime2Wait": (0, 3600),
    "DefaultTime2Retain": (0, 3600),
    "MaxOutstandingR2T": (1, 65535),
    "ErrorRecoveryLevel": (0, 2),
    "TargetPortalGroupTag": (0, 65535),
    "iSCSIProtocolLevel": (0, 31),
}


@pytest.mark.parametrize("name", SECTION_13)
def test_rows(name: str) -> None:
    use, senders, scope, default, function, irrelevant = SECTION_13[name]
    row = KEYS[name]
    assert row.use is use
    assert {who[0].upper() for who in row.senders} == set(senders)
    assert row.scope == scope
    assert row.default == default
    assert row.function is function
    assert row.discovery_irrelevant is irrelevant


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds(name: str) -> None:
    low, high = BOUNDS[name]
    row = KEYS[name]
    assert row.parse(str(low)) == low
    assert row.parse(hex(high)) == high
    for bad in (low - 1, high + 1):
        if bad >= 0:
            with pytest.raises(ValueError):
                row.parse(str(bad))


def test_any_stage_keys_are_those_of_section_12() -> None:
    assert {name for name, row in KEYS.items() if row.any_stage} == {
        "SessionType", "InitiatorName", "TargetName", "TargetAddress", "InitiatorAlias", "TargetAlias",
        "TargetPortalGroupTag",
    }  # fmt: skip


def test_defaults_of_parameters_are_those_of_the_table() -> None:
    parameters = Parameters()
    for row in KEYS.values():
        if row.field is not None:
            assert getattr(parameters, row.field) == row.default
            assert (row.field in SESSION_FIELDS) is (row.scope == "SW")
    assert parameters.initiator_max_recv_data_segment_length == KEYS["MaxRecvDataSegmentLength"].default
    assert parameters.to_keys()["InitialR2T"] == "Yes"


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("65536", 65536), ("0x10", 16), ("0XfF", 255), (str(2**64 - 1), 2**64 - 1)]
)
def test_numbers(text: str, number: int) -> None:
    assert values.parse_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", "01", "0x", "0b11", " 1", "1 ", "١", str(2**64), "0x1" + "0" * 16]
)
def test_bad_numbers(text: str) -> None:
    with pytest.raises(ValueError):
        values.parse_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x00ff", b"\x00\xff"),
        ("0xf", b"\x0f"),
        ("0Xabc", b"\x0a\xbc"),
        ("0bYWJj", b"abc"),
        ("0BYWI=", b"ab"),
        ("0bYQ==", b"a"),
        ("0bYQ", b"a"),
    ],
)
def test_binaries(text: str, value: bytes) -> None:
    assert values.parse_binary(text, 10) == value


@pytest.mark.parametrize("text", ["", "12", "0x", "0xg", "0b", "0b*", "0bY", "0x" + "00" * 11, "0b" + "AAAA" * 4])
def test_bad_binaries(text: str) -> None:
    with pytest.raises(ValueError):
        values.parse_binary(text, 10)


def test_binary_formats_round_trip() -> None:
    for value in (b"\0", b"abc", bytes(range(9))):
        assert values.parse_binary(values.format_binary(value), 10) == value
        assert values.parse_binary(values.format_binary(value, "base64"), 10) == value


def test_ranges_and_lists() -> None:
    assert values.parse_range("2~0x10") == (2, 16)
    for bad in ("2", "3~2", "~", "a~b"):
        with pytest.raises(ValueError):
            values.parse_range(bad)
    assert values.parse_list("CRC32C,None") == ["CRC32C", "None"]
    for bad in ("", "a,,b", "a b", "a,"):
        with pytest.raises(ValueError):
            values.parse_list(bad)
    assert values.parse_boolean("Yes") is True
    for bad in ("yes", "YES", "1", ""):
        with pytest.raises(ValueError):
            values.parse_boolean(bad)
