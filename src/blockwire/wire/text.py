"""Text Request and Text Response (RFC 7143 sections 11.10 and 11.11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from blockwire.wire.constants import IMMEDIATE_FLAG, RESERVED_TAG, Opcode
from blockwire.wire.pdu import NO_LUN, Header, Pdu, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest(Pdu):
    """Text Request (11.10)."""

    OPCODE: ClassVar = Opcode.TEXT_REQUEST
    SECTION: ClassVar = "11.10"

    immediate: bool = False
    final: bool = True
    continued: bool = False
    lun: bytes = NO_LUN
    initiator_task_tag: int
    target_transfer_tag: int = RESERVED_TAG
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            flag(self.immediate, IMMEDIATE_FLAG), flag(self.final, 0x80) | flag(self.continued, 0x40), 0, 0, self.lun,
            self.initiator_task_tag, self.target_transfer_tag, self.cmd_sn, self.exp_stat_sn,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            immediate=header.immediate,
            final=bool(header.b1 & 0x80),
            continued=bool(header.b1 & 0x40),
            lun=header.eight,
            initiator_task_tag=header.w16,
            target_transfer_tag=header.w20,
            cmd_sn=header.w24,
            exp_stat_sn=header.w28,
            data=data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextResponse(Pdu):
    """Text Response (11.11)."""

    OPCODE: ClassVar = Opcode.TEXT_RESPONSE
    SECTION: ClassVar = "11.11"

    final: bool = True
    continued: bool = False
    lun: bytes = NO_LUN
    initiator_task_tag: int
    target_transfer_tag: int = RESERVED_TAG
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            0, flag(self.final, 0x80) | flag(self.continued, 0x40), 0, 0, self.lun,
            self.initiator_task_tag, self.target_transfer_tag, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            final=bool(header.b1 & 0x80),
            continued=bool(header.b1 & 0x40),
            lun=header.eight,
            initiator_task_tag=header.w16,
            target_transfer_tag=header.w20,
            stat_sn=header.w24,
            exp_cmd_sn=header.w28,
            max_cmd_sn=header.w32,
            data=data,
        )
