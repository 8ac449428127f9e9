"""SCSI Command and SCSI Response (RFC 7143 sections 11.3 and 11.4; PRI and Status Qualifier: RFC 7144 section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from blockwire.wire import ahs as segments
from blockwire.wire.constants import IMMEDIATE_FLAG, Opcode
from blockwire.wire.pdu import NO_LUN, Header, Pdu, WireError, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiCommand(Pdu):
    """SCSI Command (11.3). A CDB longer than 16 bytes and a bidirectional read length travel in AHS."""

    OPCODE: ClassVar = Opcode.SCSI_COMMAND
    SECTION: ClassVar = "11.3"
    WIDTHS: ClassVar = {"attribute": 3, "priority": 4}

    immediate: bool = False
    final: bool = True
    read: bool = False
    write: bool = False
    attribute: int = 0
    priority: int = 0
    lun: bytes = NO_LUN
    initiator_task_tag: int
    expected_data_transfer_length: int = 0
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    cdb: bytes
    bidirectional_read_length: int | None = None
    data: bytes = b""

    def __post_init__(self) -> None:
        super(ScsiCommand, self).__post_init__()
        if len(self.cdb) < 16:
            object.__setattr__(self, "cdb", self.cdb.ljust(16, b"\0"))
        elif len(self.cdb) > 260:
            raise WireError("a CDB has at most 260 bytes", field="CDB", section="11.3.5")

    @property
    def ahs(self) -> bytes:
        """The Extended CDB and Bidirectional Read Length segments."""
        return segments.encode_command_ahs(self.cdb, self.bidirectional_read_length)

    def encode(self) -> bytes:
        """The 48-byte header."""
        b1 = flag(self.final, 0x80) | flag(self.read, 0x40) | flag(self.write, 0x20) | self.attribute
        cdb = (int.from_bytes(self.cdb[i : i + 4], "big") for i in range(0, 16, 4))
        return self._pack(
            flag(self.immediate, IMMEDIATE_FLAG), b1, self.priority << 4, 0, self.lun,
            self.initiator_task_tag, self.expected_data_transfer_length, self.cmd_sn, self.exp_stat_sn, *cdb,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        cdb, read_length = segments.decode_command_ahs(bhs[32:48], ahs)
        return cls(
            immediate=header.immediate,
            final=bool(header.b1 & 0x80),
            read=bool(header.b1 & 0x40),
            write=bool(header.b1 & 0x20),
            attribute=header.b1 & 0x07,
            priority=header.b2 >> 4,
            lun=header.eight,
            initiator_task_tag=header.w16,
            expected_data_transfer_length=header.w20,
            cmd_sn=header.w24,
            exp_stat_sn=header.w28,
            cdb=cdb,
            bidirectional_read_length=read_length,
            data=data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiResponse(Pdu):
    """SCSI Response (11.4); ``sense`` and ``response_data`` make up the data segment (11.4.7)."""

    OPCODE: ClassVar = Opcode.SCSI_RESPONSE
    SECTION: ClassVar = "11.4"
    WIDTHS: ClassVar = {"response": 8, "status": 8, "status_qualifier": 16}

    bidirectional_overflow: bool = False
    bidirectional_underflow: bool = False
    overflow: bool = False
    underflow: bool = False
    response: int = 0
    status: int = 0
    status_qualifier: int = 0
    initiator_task_tag: int
    snack_tag: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    exp_data_sn: int = 0
    bidirectional_residual_count: int = 0
    residual_count: int = 0
    data: bytes = b""

    @staticmethod
    def sense_data(sense: bytes, response_data: bytes = b"") -> bytes:
        """The data segment that carries ``sense`` (11.4.7)."""
        return len(sense).to_bytes(2, "big") + sense + response_data

    @property
    def sense(self) -> bytes:
        """The sense data in the data segment; empty if there is none."""
        length = int.from_bytes(self.data[:2], "big")
        return self.data[2 : 2 + length]

    def encode(self) -> bytes:
        """The 48-byte header."""
        b1 = (
            0x80
            | flag(self.bidirectional_overflow, 0x10)
            | flag(self.bidirectional_underflow, 0x08)
            | flag(self.overflow, 0x04)
            | flag(self.underflow, 0x02)
        )
        return self._pack(
            0, b1, self.response, self.status, self.status_qualifier.to_bytes(2, "big") + bytes(6),
            self.initiator_task_tag, self.snack_tag, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn,
            self.exp_data_sn, self.bidirectional_residual_count, self.residual_count,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            bidirectional_overflow=bool(header.b1 & 0x10),
            bidirectional_underflow=bool(header.b1 & 0x08),
            overflow=bool(header.b1 & 0x04),
            underflow=bool(header.b1 & 0x02),
            response=header.b2,
            status=header.b3,
            status_qualifier=int.from_bytes(header.eight[:2], "big"),
            initiator_task_tag=header.w16,
            snack_tag=header.w20,
            stat_sn=header.w24,
            exp_cmd_sn=header.w28,
            max_cmd_sn=header.w32,
            exp_data_sn=header.w36,
            bidirectional_residual_count=header.w40,
            residual_count=header.w44,
            data=data,
        )
