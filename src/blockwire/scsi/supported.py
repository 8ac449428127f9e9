"""REPORT SUPPORTED OPERATION CODES (SPC-4 6.35) and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (6.36) data."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from blockwire.scsi.commands import Command
from blockwire.scsi.layout import MalformedScsiData, fits, need

_NO_TIMEOUTS = bytes([0x00, 0x0A]) + bytes(10)
"""Command timeouts descriptor that states no timeout (SPC-4 6.35.4)."""


class Support(enum.IntEnum):
    """SUPPORT field (SPC-4 table 274)."""

    NOT_AVAILABLE = 0
    NOT_SUPPORTED = 1
    SUPPORTED = 3
    SUPPORTED_VENDOR = 5


@dataclass(frozen=True, slots=True)
class SupportedCommand:
    """One command descriptor of the all-commands format; ``service_action`` None where there is none."""

    operation_code: int
    service_action: int | None
    cdb_length: int


def encode_all_commands(rows: tuple[Command, ...], *, timeouts: bool) -> bytes:
    """All-commands parameter data, ordered by operation code and service action."""
    body = b""
    for row in sorted(rows, key=lambda row: (row.operation_code, row.service_action or 0)):
        action = row.service_action
        body += bytes([row.operation_code, 0]) + (action or 0).to_bytes(2, "big")
        body += bytes([0, (0x02 if timeouts else 0) | (0 if action is None else 0x01)])
        body += row.cdb_length.to_bytes(2, "big") + (_NO_TIMEOUTS if timeouts else b"")
    return len(body).to_bytes(4, "big") + body


def parse_all_commands(raw: bytes) -> tuple[SupportedCommand, ...]:
    """Command descriptors of an answer; MalformedScsiData when one is cut short."""
    what = "REPORT SUPPORTED OPERATION CODES data"
    need(raw, 4, what)
    end = int.from_bytes(raw[0:4], "big") + 4
    if end > len(raw):
        raise MalformedScsiData(what, f"COMMAND DATA LENGTH {end - 4} in {len(raw)} bytes")
    at, found = 4, []
    while at < end:
        need(raw[:end], at + 8, what)
        flags = raw[at + 5]
        found.append(
            SupportedCommand(
                raw[at],
                int.from_bytes(raw[at + 2 : at + 4], "big") if flags & 1 else None,
                int.from_bytes(raw[at + 6 : at + 8], "big"),
            )
        )
        at += 20 if flags & 2 else 8
    return tuple(found)


def encode_one_command(support: Support, usage: bytes, *, timeouts: bool) -> bytes:
    """One-command parameter data; ``usage`` is empty where the command is not supported."""
    head = bytes([0, (0x80 if timeouts and usage else 0) | support])
    return (
        head
        + fits(len(usage), 16, "CDB SIZE").to_bytes(2, "big")
        + usage
        + (_NO_TIMEOUTS if timeouts and usage else b"")
    )


def parse_one_command(raw: bytes) -> tuple[Support, bytes]:
    """SUPPORT and the CDB usage data of a one-command answer."""
    what = "REPORT SUPPORTED OPERATION CODES data"
    need(raw, 4, what)
    try:
        support = Support(raw[1] & 0x07)
    except ValueError:
        raise MalformedScsiData(what, f"SUPPORT {raw[1] & 7}") from None
    size = int.from_bytes(raw[2:4], "big")
    need(raw, 4 + size, what)
    return support, bytes(raw[4 : 4 + size])


class TaskManagementSupport(enum.IntFlag):
    """Task management functions in bytes 0 and 1 of the parameter data (SPC-4 table 281), byte 0 the upper one."""

    ABORT_TASK = 0x8000
    ABORT_TASK_SET = 0x4000
    CLEAR_ACA = 0x2000
    CLEAR_TASK_SET = 0x1000
    LOGICAL_UNIT_RESET = 0x0800
    QUERY_TASK = 0x0400
    TARGET_RESET = 0x0200
    WAKEUP = 0x0100
    QUERY_ASYNCHRONOUS_EVENT = 0x0004
    QUERY_TASK_SET = 0x0002
    I_T_NEXUS_RESET = 0x0001


def encode_task_management(functions: TaskManagementSupport, *, extended: bool) -> bytes:
    """Four bytes, or sixteen with ADDITIONAL DATA LENGTH 0Ch when ``extended`` (no timeouts are stated)."""
    head = int(functions).to_bytes(2, "big")
    return head + b"\x00\x0c" + bytes(12) if extended else head + b"\x00\x00"


def parse_task_management(raw: bytes) -> TaskManagementSupport:
    """The functions a device server says it supports."""
    need(raw, 2, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS data")
    return TaskManagementSupport(int.from_bytes(raw[0:2], "big"))
