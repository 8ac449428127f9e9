"""Sense data, fixed and descriptor format (SPC-4 4.5), and the additional sense codes used here by name."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass

from blockwire.scsi.layout import MalformedScsiData, fits, need

_WHAT = "sense data"

CURRENT_FIXED, DEFERRED_FIXED = 0x70, 0x71
CURRENT_DESCRIPTOR, DEFERRED_DESCRIPTOR = 0x72, 0x73


class SenseKey(enum.IntEnum):
    """SPC-4 4.5.6, table 48."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    RESERVED = 0xC
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


class SenseCode(enum.IntEnum):
    """Additional sense code and qualifier as one number, ``ASC << 8 | ASCQ`` (SPC-4 annex F)."""

    NO_ADDITIONAL_SENSE_INFORMATION = 0x0000
    LOGICAL_UNIT_NOT_READY_CAUSE_NOT_REPORTABLE = 0x0400
    LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY = 0x0401
    LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED = 0x0402
    LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE = 0x040B
    LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE = 0x040C
    LOGICAL_UNIT_DOES_NOT_RESPOND_TO_SELECTION = 0x0500
    LOGICAL_UNIT_COMMUNICATION_FAILURE = 0x0800
    UNEXPECTED_UNSOLICITED_DATA = 0x0C0C
    NOT_ENOUGH_UNSOLICITED_DATA = 0x0C0D
    WRITE_ERROR = 0x0C00
    UNRECOVERED_READ_ERROR = 0x1100
    PARAMETER_LIST_LENGTH_ERROR = 0x1A00
    MISCOMPARE_DURING_VERIFY_OPERATION = 0x1D00
    INVALID_COMMAND_OPERATION_CODE = 0x2000
    LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE = 0x2100
    INVALID_FIELD_IN_CDB = 0x2400
    LOGICAL_UNIT_NOT_SUPPORTED = 0x2500
    INVALID_FIELD_IN_PARAMETER_LIST = 0x2600
    PARAMETER_NOT_SUPPORTED = 0x2601
    PARAMETER_VALUE_INVALID = 0x2602
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION = 0x2604
    WRITE_PROTECTED = 0x2700
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x2707
    NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED = 0x2800
    POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED = 0x2900
    POWER_ON_OCCURRED = 0x2901
    SCSI_BUS_RESET_OCCURRED = 0x2902
    BUS_DEVICE_RESET_FUNCTION_OCCURRED = 0x2903
    I_T_NEXUS_LOSS_OCCURRED = 0x2907
    PARAMETERS_CHANGED = 0x2A00
    MODE_PARAMETERS_CHANGED = 0x2A01
    RESERVATIONS_PREEMPTED = 0x2A03
    RESERVATIONS_RELEASED = 0x2A04
    REGISTRATIONS_PREEMPTED = 0x2A05
    ASYMMETRIC_ACCESS_STATE_CHANGED = 0x2A06
    CAPACITY_DATA_HAS_CHANGED = 0x2A09
    COMMAND_SEQUENCE_ERROR = 0x2C00
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = 0x2F00
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x3900
    MEDIUM_NOT_PRESENT = 0x3A00
    TARGET_OPERATING_CONDITIONS_HAVE_CHANGED = 0x3F00
    INQUIRY_DATA_HAS_CHANGED = 0x3F03
    REPORTED_LUNS_DATA_HAS_CHANGED = 0x3F0E
    INTERNAL_TARGET_FAILURE = 0x4400
    PROTOCOL_SERVICE_CRC_ERROR = 0x4705
    NAK_RECEIVED = 0x4706
    SOME_COMMANDS_CLEARED_BY_ISCSI_PROTOCOL_EVENT = 0x477F
    INVALID_MESSAGE_ERROR = 0x4900
    OVERLAPPED_COMMANDS_ATTEMPTED = 0x4E00
    MEDIUM_REMOVAL_PREVENTED = 0x5302
    INSUFFICIENT_RESOURCES = 0x5503
    INSUFFICIENT_REGISTRATION_RESOURCES = 0x5504

    @property
    def asc(self) -> int:
        """Additional sense code."""
        return self.value >> 8

    @property
    def ascq(self) -> int:
        """Additional sense code qualifier."""
        return self.value & 0xFF


def sense_code_name(asc: int, ascq: int) -> str:
    """The standard's words for ASC/ASCQ; codes that are not in :class:`SenseCode` are shown in hexadecimal."""
    try:
        return SenseCode(asc << 8 | ascq).name.replace("_", " ")
    except ValueError:
        return f"ASC {asc:02X}h ASCQ {ascq:02X}h"


@dataclass(frozen=True, slots=True)
class FieldPointer:
    """Sense-key specific data of ILLEGAL REQUEST (SPC-4 4.5.2.4.2): which field was wrong.

    ``in_cdb`` is False for a field of the parameter list; ``bit`` None when the whole byte is meant.
    """

    byte: int
    bit: int | None = None
    in_cdb: bool = True

    def encode(self) -> bytes:
        """Three bytes with SKSV set."""
        first = 0x80 | (0x40 if self.in_cdb else 0) | (0 if self.bit is None else 0x08 | fits(self.bit, 3, "bit"))
        return bytes([first]) + fits(self.byte, 16, "field pointer").to_bytes(2, "big")

    @classmethod
    def parse(cls, raw: bytes) -> FieldPointer:
        """From the three sense-key specific bytes."""
        need(raw, 3, "sense-key specific field")
        return cls(
            byte=int.from_bytes(raw[1:3], "big"),
            bit=raw[0] & 0x07 if raw[0] & 0x08 else None,
            in_cdb=bool(raw[0] & 0x40),
        )


@dataclass(frozen=True, slots=True)
class Sense:
    """Sense data in host terms.

    ``information`` is the INFORMATION field when it is valid: for a medium error or a miscompare the LBA or the
    offset; ``key_specific`` the raw three bytes when SKSV is set; ``deferred`` a deferred error.
    """

    key: SenseKey
    asc: int = 0
    ascq: int = 0
    information: int | None = None
    command_specific: int | None = None
    key_specific: bytes | None = None
    incorrect_length: bool = False
    deferred: bool = False

    @classmethod
    def of(
        cls,
        key: SenseKey,
        code: SenseCode,
        *,
        field: FieldPointer | None = None,
        information: int | None = None,
    ) -> Sense:
        """Sense from a named code, with the field at fault or the INFORMATION value."""
        return cls(
            key,
            code.asc,
            code.ascq,
            information=information,
            key_specific=None if field is None else field.encode(),
        )

    @property
    def field(self) -> FieldPointer | None:
        """The field at fault, for ILLEGAL REQUEST with sense-key specific data."""
        if self.key != SenseKey.ILLEGAL_REQUEST or self.key_specific is None:
            return None
        return FieldPointer.parse(self.key_specific)

    def describe(self) -> str:
        """One line for people: sense key, code by name, and what is known of the place."""
        text = f"{self.key.name.replace('_', ' ')}: {sense_code_name(self.asc, self.ascq)}"
        pointer = self.field
        if pointer is not None:
            bit = "" if pointer.bit is None else f" bit {pointer.bit}"
            text += f" (byte {pointer.byte}{bit} of the {'CDB' if pointer.in_cdb else 'parameter list'})"
        if self.information is not None:
            text += f" (information {self.information})"
        return text

    def encode(self, *, descriptor: bool = False) -> bytes:
        """Sense data bytes: fixed format (18 bytes), or descriptor format.

        An INFORMATION value above 32 bits does not fit the fixed format (SPC-4 4.5.3): VALID is then 0.
        """
        return self._encode_descriptor() if descriptor else self._encode_fixed()

    def _encode_fixed(self) -> bytes:
        raw = bytearray(18)
        raw[0] = DEFERRED_FIXED if self.deferred else CURRENT_FIXED
        raw[2] = self.key | (0x20 if self.incorrect_length else 0)
        if self.information is not None and 0 <= self.information < 1 << 32:
            raw[0] |= 0x80
            raw[3:7] = self.information.to_bytes(4, "big")
        raw[7] = 10
        if self.command_specific is not None and 0 <= self.command_specific < 1 << 32:
            raw[8:12] = self.command_specific.to_bytes(4, "big")
        raw[12], raw[13] = self.asc, self.ascq
        if self.key_specific is not None:
            raw[15:18] = self._sks()
        return bytes(raw)

    def _encode_descriptor(self) -> bytes:
        body = b""
        if self.information is not None:
            body += bytes([0x00, 0x0A, 0x80, 0x00]) + fits(self.information, 64, "INFORMATION").to_bytes(8, "big")
        if self.command_specific is not None:
            value = fits(self.command_specific, 64, "COMMAND-SPECIFIC INFORMATION")
            body += bytes([0x01, 0x0A, 0x00, 0x00]) + value.to_bytes(8, "big")
        if self.key_specific is not None:
            body += bytes([0x02, 0x06, 0x00, 0x00]) + self._sks() + b"\x00"
        if self.incorrect_length:
            body += bytes([0x05, 0x02, 0x00, 0x20])
        code = DEFERRED_DESCRIPTOR if self.deferred else CURRENT_DESCRIPTOR
        return bytes([code, self.key, self.asc, self.ascq, 0, 0, 0, len(body)]) + body

    def _sks(self) -> bytes:
        raw = self.key_specific or b""
        if len(raw) != 3 or not raw[0] & 0x80:
            raise ValueError(f"sense-key specific data {raw.hex()} is not 3 bytes with SKSV set")
        return raw


def parse_sense(raw: bytes) -> Sense:
    """Sense data of a peer in either format; MalformedScsiData for an unknown response code or too few bytes.

    A field that a short sense buffer cuts off counts as absent, as SPC-4 4.5.3 lets allocation lengths do.
    """
    need(raw, 1, _WHAT)
    code = raw[0] & 0x7F
    if code in (CURRENT_FIXED, DEFERRED_FIXED):
        return _parse_fixed(raw, code == DEFERRED_FIXED)
    if code in (CURRENT_DESCRIPTOR, DEFERRED_DESCRIPTOR):
        return _parse_descriptor(raw, code == DEFERRED_DESCRIPTOR)
    raise MalformedScsiData(_WHAT, f"response code {code:02X}h")


def _parse_fixed(raw: bytes, deferred: bool) -> Sense:
    need(raw, 3, "fixed format sense data")
    end = min(len(raw), 8 + raw[7]) if len(raw) > 7 else len(raw)
    has_code = end >= 14
    return Sense(
        SenseKey(raw[2] & 0x0F),
        raw[12] if has_code else 0,
        raw[13] if has_code else 0,
        information=int.from_bytes(raw[3:7], "big") if raw[0] & 0x80 and end >= 7 else None,
        command_specific=int.from_bytes(raw[8:12], "big") if end >= 12 and any(raw[8:12]) else None,
        key_specific=bytes(raw[15:18]) if end >= 18 and raw[15] & 0x80 else None,
        incorrect_length=bool(raw[2] & 0x20),
        deferred=deferred,
    )


def _parse_descriptor(raw: bytes, deferred: bool) -> Sense:
    need(raw, 8, "descriptor format sense data")
    sense = Sense(SenseKey(raw[1] & 0x0F), raw[2], raw[3], deferred=deferred)
    at, end = 8, min(len(raw), 8 + raw[7])
    while at + 2 <= end:
        kind, length = raw[at], raw[at + 1]
        body = raw[at + 2 : min(at + 2 + length, end)]
        at += 2 + length
        if kind == 0x00 and len(body) >= 10 and body[0] & 0x80:
            sense = dataclasses.replace(sense, information=int.from_bytes(body[2:10], "big"))
        elif kind == 0x01 and len(body) >= 10:
            sense = dataclasses.replace(sense, command_specific=int.from_bytes(body[2:10], "big"))
        elif kind == 0x02 and len(body) >= 5 and body[2] & 0x80:
            sense = dataclasses.replace(sense, key_specific=bytes(body[2:5]))
        elif kind == 0x05 and len(body) >= 2:
            sense = dataclasses.replace(sense, incorrect_length=bool(body[1] & 0x20))
    return sense


def illegal_request(code: SenseCode, byte: int | None = None, bit: int | None = None, *, in_cdb: bool = True) -> Sense:
    """ILLEGAL REQUEST, pointing at a byte (and bit) of the CDB or the parameter list when one is at fault."""
    return Sense.of(SenseKey.ILLEGAL_REQUEST, code, field=None if byte is None else FieldPointer(byte, bit, in_cdb))


def unit_attention(code: SenseCode) -> Sense:
    """UNIT ATTENTION with a named code."""
    return Sense.of(SenseKey.UNIT_ATTENTION, code)
