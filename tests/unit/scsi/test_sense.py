"""Sense data bytes typed by hand from SPC-4 4.5."""

from __future__ import annotations

import errno

import pytest

from blockwire import errors
from blockwire.scsi.failure import device_error, sense_of
from blockwire.scsi.layout import MalformedScsiData
from blockwire.scsi.sense import (
    FieldPointer,
    Sense,
    SenseCode,
    SenseKey,
    illegal_request,
    parse_sense,
    sense_code_name,
    unit_attention,
)
from blockwire.scsi.status import Status, status_name

GOLDEN = [
    (unit_attention(SenseCode.POWER_ON_OCCURRED), False, "70 00 06 00 00 00 00 0a 00 00 00 00 29 01 00 00 00 00"),
    (unit_attention(SenseCode.POWER_ON_OCCURRED), True, "72 06 29 01 00 00 00 00"),
    (illegal_request(SenseCode.INVALID_FIELD_IN_CDB, 2, 7), False,
     "70 00 05 00 00 00 00 0a 00 00 00 00 24 00 00 cf 00 02"),
    (illegal_request(SenseCode.INVALID_FIELD_IN_PARAMETER_LIST, 0x0104, in_cdb=False), True,
     "72 05 26 00 00 00 00 08 02 06 00 00 80 01 04 00"),
    (Sense.of(SenseKey.MISCOMPARE, SenseCode.MISCOMPARE_DURING_VERIFY_OPERATION, information=513), False,
     "f0 00 0e 00 00 02 01 0a 00 00 00 00 1d 00 00 00 00 00"),
    (Sense.of(SenseKey.MEDIUM_ERROR, SenseCode.UNRECOVERED_READ_ERROR, information=0x0102030405060708), True,
     "72 03 11 00 00 00 00 0c 00 0a 80 00 01 02 03 04 05 06 07 08"),
    (Sense(SenseKey.NO_SENSE, deferred=True), False, "71 00 00 00 00 00 00 0a" + " 00" * 10),
    (Sense(SenseKey.NO_SENSE, incorrect_length=True), True, "72 00 00 00 00 00 00 04 05 02 00 20"),
]  # fmt: skip


@pytest.mark.parametrize(("sense", "descriptor", "raw"), GOLDEN)
def test_bytes_are_those_of_the_standard(sense: Sense, descriptor: bool, raw: str) -> None:
    assert sense.encode(descriptor=descriptor) == bytes.fromhex(raw)
    assert parse_sense(bytes.fromhex(raw)) == sense


def test_an_information_value_above_32_bits_is_not_valid_in_fixed_format() -> None:
    raw = Sense(SenseKey.MEDIUM_ERROR, 0x11, 0, information=1 << 32).encode()
    assert raw[0] == 0x70
    assert parse_sense(raw).information is None


@pytest.mark.parametrize("raw", ["", "70", "7000", "72 06 29", "00" * 18, "7f 00 00"])
def test_short_or_unknown_sense_data_is_refused(raw: str) -> None:
    with pytest.raises(MalformedScsiData):
        parse_sense(bytes.fromhex(raw))


def test_fields_beyond_additional_length_are_absent() -> None:
    sense = parse_sense(bytes.fromhex("70 00 05 00 00 00 00 02 00 00 00 00 24 00 00 cf 00 02"))
    assert (sense.asc, sense.key_specific) == (0, None)


def test_text_names_code_and_place() -> None:
    assert illegal_request(SenseCode.INVALID_FIELD_IN_CDB, 1, 3).describe() == (
        "ILLEGAL REQUEST: INVALID FIELD IN CDB (byte 1 bit 3 of the CDB)"
    )
    assert sense_code_name(0x77, 0x99) == "ASC 77h ASCQ 99h"
    assert status_name(0x18) == "RESERVATION CONFLICT"
    assert status_name(0x55) == "STATUS 55h"
    assert FieldPointer.parse(bytes.fromhex("c00005")) == FieldPointer(5, None, True)


def test_errors_carry_the_sense_data() -> None:
    raw = bytes.fromhex("70 00 03 00 00 00 00 0a 00 00 00 00 11 00 00 00 00 00")
    error = device_error(Status.CHECK_CONDITION, raw, bytes.fromhex("28000000000000000100"))
    assert (error.sense_key, error.asc, error.ascq, error.sense) == (3, 0x11, 0, raw)
    assert str(error).startswith("READ(10) failed: MEDIUM ERROR: UNRECOVERED READ ERROR")
    protected = bytes.fromhex("70 00 07 00 00 00 00 0a 00 00 00 00 27 00 00 00 00 00")
    assert isinstance(device_error(Status.CHECK_CONDITION, protected), errors.ReadOnlyError)
    assert "BUSY" in str(device_error(Status.BUSY))
    assert device_error(Status.CHECK_CONDITION, b"\x00").sense == b"\x00"


def test_sense_of_errors() -> None:
    full = OSError(errno.ENOSPC, "no space left")
    assert sense_of(full) == Sense(SenseKey.DATA_PROTECT, 0x27, 0x07)
    assert sense_of(MalformedScsiData("x", "y")).asc == 0x1A
    assert sense_of(RuntimeError()) == Sense(SenseKey.HARDWARE_ERROR, 0x44, 0)
