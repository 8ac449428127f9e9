"""NOP-Out and NOP-In (RFC 7143 sections 11.18 and 11.19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from blockwire.wire.constants import IMMEDIATE_FLAG, RESERVED_TAG, Opcode
from blockwire.wire.pdu import NO_LUN, Header, Pdu, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class NopOut(Pdu):
    """NOP-Out (11.18)."""

    OPCODE: ClassVar = Opcode.NOP_OUT
    SECTION: ClassVar = "11.18"

    immediate: bool = True
    lun: bytes = NO_LUN
    initiator_task_tag: int = RESERVED_TAG
    target_transfer_tag: int = RESERVED_TAG
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            flag(self.immediate, IMMEDIATE_FLAG), 0x80, 0, 0, self.lun,
            self.initiator_task_tag, self.target_transfer_tag, self.cmd_sn, self.exp_stat_sn,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            immediate=header.immediate,
            lun=header.eight,
            initiator_task_tag=header.w16,
            target_transfer_tag=header.w20,
            cmd_sn=header.w24,
            exp_stat_sn=header.w28,
            data=data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NopIn(Pdu):
    """NOP-In (11.19)."""

    OPCODE: ClassVar = Opcode.NOP_IN
    SECTION: ClassVar = "11.19"

    lun: bytes = NO_LUN
    initiator_task_tag: int = RESERVED_TAG
    target_transfer_tag: int = RESERVED_TAG
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            0, 0x80, 0, 0, self.lun,
            self.initiator_task_tag, self.target_transfer_tag, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn,
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
            data=data,
        )
