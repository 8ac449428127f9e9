"""The command table: one literal row per operation code and service action (SPC-4 annex E, SBC-3 table 30).

Both roles read it. The target finds from it which gate class a command belongs to, whether a unit
attention may be reported for it, whether a write-protected medium refuses it and what a persistent
reservation of another nexus does to it; REPORT SUPPORTED OPERATION CODES is answered from it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

VARIABLE_LENGTH = 0x7F
"""Operation code of variable-length CDBs (SPC-4 4.2.3)."""


class Direction(enum.Enum):
    """Which way a command moves data, seen from the initiator."""

    NONE = "none"
    IN = "in"
    OUT = "out"
    BIDIRECTIONAL = "bidirectional"


class CommandClass(enum.Enum):
    """The class of a command at a gate (design.md, "Gates")."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"
    UNMAP = "unmap"
    VERIFY = "verify"
    OTHER = "other"


class Reservation(enum.Enum):
    """What a persistent reservation held by another nexus does to the command (SPC-4 table 66, SBC-3 table 31).

    ``READS`` conflicts with exclusive-access types only, ``CONFLICT`` with write-exclusive types too.
    ``PARTIAL`` rows depend on fields of the CDB (START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, PERSISTENT
    RESERVE OUT), which the reservation rules of the target look into.
    """

    ALLOWED = "allowed"
    READS = "reads"
    CONFLICT = "conflict"
    PARTIAL = "partial"


class Attribute(enum.Flag):
    """Facts about a command that rules of the target depend on."""

    NOTHING = 0
    UNIT_ATTENTION_STAYS = enum.auto()
    """Performed although a unit attention is pending, which stays pending (SAM-5 5.14: INQUIRY, REPORT LUNS)."""
    UNIT_ATTENTION_IS_DATA = enum.auto()
    """The pending unit attention is the parameter data (SAM-5 5.14: REQUEST SENSE)."""
    WRITES_MEDIUM = enum.auto()
    """A write-protected medium refuses it with DATA PROTECT."""
    USES_MEDIUM = enum.auto()
    """Needs a medium that is ready."""
    NO_LOGICAL_UNIT = enum.auto()
    """Answered for a LUN where no logical unit is (SPC-4 6.4.1, 6.33, SAM-5 4.6.4)."""
    ATOMIC = enum.auto()
    """Reads and writes as one step against every other command of the logical unit."""


_N = Attribute.NOTHING
_UA = Attribute.UNIT_ATTENTION_STAYS | Attribute.NO_LOGICAL_UNIT
_RS = Attribute.UNIT_ATTENTION_IS_DATA | Attribute.NO_LOGICAL_UNIT
_MED = Attribute.USES_MEDIUM
_WR = Attribute.USES_MEDIUM | Attribute.WRITES_MEDIUM
_AT = _WR | Attribute.ATOMIC


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the command table.

    ``service_action`` is None where the operation code alone names the command. ``cdb_length`` is in
    bytes and includes CONTROL.
    """

    name: str
    operation_code: int
    service_action: int | None
    cdb_length: int
    direction: Direction
    command_class: CommandClass
    reservation: Reservation
    attributes: Attribute

    def has(self, attribute: Attribute) -> bool:
        """True when the row carries every attribute in ``attribute``."""
        return attribute in self.attributes


def _row(
    name: str,
    operation_code: int,
    service_action: int | None,
    cdb_length: int,
    direction: Direction,
    command_class: CommandClass,
    reservation: Reservation,
    attributes: Attribute = _N,
) -> Command:
    return Command(name, operation_code, service_action, cdb_length, direction, command_class, reservation, attributes)


_NO, _IN, _OUT, _BI = Direction.NONE, Direction.IN, Direction.OUT, Direction.BIDIRECTIONAL
_READ, _WRITE, _FLUSH = CommandClass.READ, CommandClass.WRITE, CommandClass.FLUSH
_UNMAP, _VERIFY, _OTHER = CommandClass.UNMAP, CommandClass.VERIFY, CommandClass.OTHER
_ALL, _RD, _CONF, _PART = Reservation.ALLOWED, Reservation.READS, Reservation.CONFLICT, Reservation.PARTIAL

# fmt: off
TABLE: tuple[Command, ...] = (
    #    name                                    op    service action  length  data  class  reservation  attributes
    _row("TEST UNIT READY",                      0x00, None, 6,  _NO,  _OTHER,  _RD,   _MED),
    _row("REQUEST SENSE",                        0x03, None, 6,  _IN,  _OTHER,  _ALL,  _RS),
    _row("READ(6)",                              0x08, None, 6,  _IN,  _READ,   _RD,   _MED),
    _row("WRITE(6)",                             0x0A, None, 6,  _OUT, _WRITE,  _CONF, _WR),
    _row("INQUIRY",                              0x12, None, 6,  _IN,  _OTHER,  _ALL,  _UA),
    _row("MODE SELECT(6)",                       0x15, None, 6,  _OUT, _OTHER,  _CONF),
    _row("RESERVE(6)",                           0x16, None, 6,  _NO,  _OTHER,  _CONF),
    _row("RELEASE(6)",                           0x17, None, 6,  _NO,  _OTHER,  _CONF),
    _row("MODE SENSE(6)",                        0x1A, None, 6,  _IN,  _OTHER,  _CONF),
    _row("START STOP UNIT",                      0x1B, None, 6,  _NO,  _OTHER,  _PART),
    _row("RECEIVE DIAGNOSTIC RESULTS",           0x1C, None, 6,  _IN,  _OTHER,  _CONF),
    _row("SEND DIAGNOSTIC",                      0x1D, None, 6,  _OUT, _OTHER,  _CONF),
    _row("PREVENT ALLOW MEDIUM REMOVAL",         0x1E, None, 6,  _NO,  _OTHER,  _PART),
    _row("READ CAPACITY(10)",                    0x25, None, 10, _IN,  _OTHER,  _ALL,  _MED),
    _row("READ(10)",                             0x28, None, 10, _IN,  _READ,   _RD,   _MED),
    _row("WRITE(10)",                            0x2A, None, 10, _OUT, _WRITE,  _CONF, _WR),
    _row("WRITE AND VERIFY(10)",                 0x2E, None, 10, _OUT, _WRITE,  _CONF, _WR),
    _row("VERIFY(10)",                           0x2F, None, 10, _OUT, _VERIFY, _RD,   _MED),
    _row("PRE-FETCH(10)",                        0x34, None, 10, _NO,  _OTHER,  _RD,   _MED),
    _row("SYNCHRONIZE CACHE(10)",                0x35, None, 10, _NO,  _FLUSH,  _CONF, _MED),
    _row("READ DEFECT DATA(10)",                 0x37, None, 10, _IN,  _OTHER,  _RD,   _MED),
    _row("WRITE SAME(10)",                       0x41, None, 10, _OUT, _WRITE,  _CONF, _WR),
    _row("UNMAP",                                0x42, None, 10, _OUT, _UNMAP,  _CONF, _WR),
    _row("LOG SENSE",                            0x4D, None, 10, _IN,  _OTHER,  _ALL),
    _row("XDWRITEREAD(10)",                      0x53, None, 10, _BI,  _OTHER,  _CONF, _WR),
    _row("MODE SELECT(10)",                      0x55, None, 10, _OUT, _OTHER,  _CONF),
    _row("MODE SENSE(10)",                       0x5A, None, 10, _IN,  _OTHER,  _CONF),
    _row("PERSISTENT RESERVE IN, READ KEYS",            0x5E, 0x00, 10, _IN,  _OTHER, _ALL),
    _row("PERSISTENT RESERVE IN, READ RESERVATION",     0x5E, 0x01, 10, _IN,  _OTHER, _ALL),
    _row("PERSISTENT RESERVE IN, REPORT CAPABILITIES",  0x5E, 0x02, 10, _IN,  _OTHER, _ALL),
    _row("PERSISTENT RESERVE IN, READ FULL STATUS",     0x5E, 0x03, 10, _IN,  _OTHER, _ALL),
    _row("PERSISTENT RESERVE OUT, REGISTER",            0x5F, 0x00, 10, _OUT, _OTHER, _PART),
    _row("PERSISTENT RESERVE OUT, RESERVE",             0x5F, 0x01, 10, _OUT, _OTHER, _PART),
    _row("PERSISTENT RESERVE OUT, RELEASE",             0x5F, 0x02, 10, _OUT, _OTHER, _PART),
    _row("PERSISTENT RESERVE OUT, CLEAR",               0x5F, 0x03, 10, _OUT, _OTHER, _PART),
    _row("PERSISTENT RESERVE OUT, PREEMPT",             0x5F, 0x04, 10, _OUT, _OTHER, _PART),
    _row("PERSISTENT RESERVE OUT, PREEMPT AND ABORT",   0x5F, 0x05, 10, _OUT, _OTHER, _PART),
    _row("PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", 0x5F, 0x06, 10, _OUT, _OTHER, _PART),
    _row("PERSISTENT RESERVE OUT, REGISTER AND MOVE",   0x5F, 0x07, 10, _OUT, _OTHER, _PART),
    _row("XDWRITEREAD(32)",                      0x7F, 0x0007, 32, _BI,  _OTHER,  _CONF, _WR),
    _row("READ(32)",                             0x7F, 0x0009, 32, _IN,  _READ,   _RD,   _MED),
    _row("VERIFY(32)",                           0x7F, 0x000A, 32, _OUT, _VERIFY, _RD,   _MED),
    _row("WRITE(32)",                            0x7F, 0x000B, 32, _OUT, _WRITE,  _CONF, _WR),
    _row("READ(16)",                             0x88, None, 16, _IN,  _READ,   _RD,   _MED),
    _row("COMPARE AND WRITE",                    0x89, None, 16, _OUT, _WRITE,  _CONF, _AT),
    _row("WRITE(16)",                            0x8A, None, 16, _OUT, _WRITE,  _CONF, _WR),
    _row("ORWRITE(16)",                          0x8B, None, 16, _OUT, _WRITE,  _CONF, _AT),
    _row("WRITE AND VERIFY(16)",                 0x8E, None, 16, _OUT, _WRITE,  _CONF, _WR),
    _row("VERIFY(16)",                           0x8F, None, 16, _OUT, _VERIFY, _RD,   _MED),
    _row("PRE-FETCH(16)",                        0x90, None, 16, _NO,  _OTHER,  _RD,   _MED),
    _row("SYNCHRONIZE CACHE(16)",                0x91, None, 16, _NO,  _FLUSH,  _CONF, _MED),
    _row("WRITE SAME(16)",                       0x93, None, 16, _OUT, _WRITE,  _CONF, _WR),
    _row("WRITE ATOMIC(16)",                     0x9C, None, 16, _OUT, _WRITE,  _CONF, _AT),
    _row("READ CAPACITY(16)",                    0x9E, 0x10, 16, _IN,  _OTHER,  _ALL,  _MED),
    _row("GET LBA STATUS",                       0x9E, 0x12, 16, _IN,  _OTHER,  _RD,   _MED),
    _row("REPORT LUNS",                          0xA0, None, 12, _IN,  _OTHER,  _ALL,  _UA),
    _row("REPORT TARGET PORT GROUPS",            0xA3, 0x0A, 12, _IN,  _OTHER,  _ALL),
    _row("REPORT SUPPORTED OPERATION CODES",     0xA3, 0x0C, 12, _IN,  _OTHER,  _ALL),
    _row("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", 0xA3, 0x0D, 12, _IN, _OTHER, _ALL),
    _row("READ(12)",                             0xA8, None, 12, _IN,  _READ,   _RD,   _MED),
    _row("WRITE(12)",                            0xAA, None, 12, _OUT, _WRITE,  _CONF, _WR),
    _row("WRITE AND VERIFY(12)",                 0xAE, None, 12, _OUT, _WRITE,  _CONF, _WR),
    _row("VERIFY(12)",                           0xAF, None, 12, _OUT, _VERIFY, _RD,   _MED),
    _row("READ DEFECT DATA(12)",                 0xB7, None, 12, _IN,  _OTHER,  _RD,   _MED),
)
# fmt: on

BY_KEY: dict[tuple[int, int | None], Command] = {(row.operation_code, row.service_action): row for row in TABLE}
"""Rows by (operation code, service action or None)."""

BY_NAME: dict[str, Command] = {row.name: row for row in TABLE}
"""Rows by the standard's name."""

WITH_SERVICE_ACTIONS: frozenset[int] = frozenset(row.operation_code for row in TABLE if row.service_action is not None)
"""Operation codes whose service action selects the command."""


def cdb_length(operation_code: int) -> int | None:
    """Length in bytes that the group of an operation code fixes (SPC-4 4.3.4.1), None for 60h..7Fh and C0h..FFh."""
    return {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}.get(operation_code >> 5)


def service_action(cdb: bytes) -> int | None:
    """The SERVICE ACTION field where the operation code has one in the table, else None (also when cut short)."""
    if not cdb or cdb[0] not in WITH_SERVICE_ACTIONS:
        return None
    if cdb[0] == VARIABLE_LENGTH:
        return int.from_bytes(cdb[8:10], "big") if len(cdb) >= 10 else None
    return cdb[1] & 0x1F if len(cdb) >= 2 else None


def lookup(cdb: bytes) -> Command | None:
    """The row of a CDB, None when operation code or service action is not in the table."""
    if not cdb:
        return None
    return BY_KEY.get((cdb[0], service_action(cdb)))


def describe(cdb: bytes) -> str:
    """A name for messages: the row's name, or the operation code (and service action) in hexadecimal."""
    row = lookup(cdb)
    if row is not None:
        return row.name
    if not cdb:
        return "empty CDB"
    action = service_action(cdb)
    return f"operation code {cdb[0]:02X}h" + ("" if action is None else f" service action {action:02X}h")
