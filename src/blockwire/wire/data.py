"""Data-Out, Data-In and Ready To Transfer (RFC 7143 sections 11.7 and 11.8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from blockwire.wire.constants import RESERVED_TAG, Opcode
from blockwire.wire.pdu import NO_LUN, Header, Pdu, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOut(Pdu):
    """SCSI Data-Out (11.7)."""

    OPCODE: ClassVar = Opcode.DATA_OUT
    SECTION: ClassVar = "11.7"

    final: bool = True
    lun: bytes = NO_LUN
    initiator_task_tag: int
    target_transfer_tag: int = RESERVED_TAG
    exp_stat_sn: int = 0
    data_sn: int = 0
    buffer_offset: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            0, flag(self.final, 0x80), 0, 0, self.lun,
            self.initiator_task_tag, self.target_transfer_tag, 0, self.exp_stat_sn, 0, self.data_sn, self.buffer_offset,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            final=bool(header.b1 & 0x80),
            lun=header.eight,
            initiator_task_tag=header.w16,
            target_transfer_tag=header.w20,
            exp_stat_sn=header.w28,
            data_sn=header.w36,
            buffer_offset=header.w40,
            data=data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataIn(Pdu):
    """SCSI Data-In (11.7); ``status`` and the residual are valid only with ``has_status`` (the S bit)."""

    OPCODE: ClassVar = Opcode.DATA_IN
    SECTION: ClassVar = "11.7"
    WIDTHS: ClassVar = {"status": 8}

    final: bool = True
    acknowledge: bool = False
    overflow: bool = False
    underflow: bool = False
    has_status: bool = False
    status: int = 0
    lun: bytes = NO_LUN
    initiator_task_tag: int
    target_transfer_tag: int = RESERVED_TAG
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data_sn: int = 0
    buffer_offset: int = 0
    residual_count: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        b1 = (
            flag(self.final, 0x80)
            | flag(self.acknowledge, 0x40)
            | flag(self.overflow, 0x04)
            | flag(self.underflow, 0x02)
            | flag(self.has_status, 0x01)
        )
        return self._pack(
            0, b1, 0, self.status, self.lun,
            self.initiator_task_tag, self.target_transfer_tag, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn,
            self.data_sn, self.buffer_offset, self.residual_count,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            final=bool(header.b1 & 0x80),
            acknowledge=bool(header.b1 & 0x40),
            overflow=bool(header.b1 & 0x04),
            underflow=bool(header.b1 & 0x02),
            has_status=bool(header.b1 & 0x01),
            status=header.b3,
            lun=header.eight,
            initiator_task_tag=header.w16,
            target_transfer_tag=header.w20,
            stat_sn=header.w24,
            exp_cmd_sn=header.w28,
            max_cmd_sn=header.w32,
            data_sn=header.w36,
            buffer_offset=header.w40,
            residual_count=header.w44,
            data=data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class R2t(Pdu):
    """Ready To Transfer (11.8)."""

    OPCODE: ClassVar = Opcode.R2T
    SECTION: ClassVar = "11.8"

    lun: bytes = NO_LUN
    initiator_task_tag: int
    target_transfer_tag: int
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    r2t_sn: int = 0
    buffer_offset: int = 0
    desired_data_transfer_length: int
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            0, 0x80, 0, 0, self.lun,
            self.initiator_task_tag, self.target_transfer_tag, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn,
            self.r2t_sn, self.buffer_offset, self.desired_data_transfer_length,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            lun=header.eight,
            initiator_task_tag=header.w16,
            target_transfer_tag=header.w20,
            stat_sn=header.w24,
            exp_cmd_sn=header.w28,
            max_cmd_sn=header.w32,
            r2t_sn=header.w36,
            buffer_offset=header.w40,
            desired_data_transfer_length=header.w44,
            data=data,
        )
