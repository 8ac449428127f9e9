"""Task Management Function Request and Response (RFC 7143 sections 11.5 and 11.6, RFC 7144 section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from blockwire.wire.constants import IMMEDIATE_FLAG, RESERVED_TAG, Opcode
from blockwire.wire.pdu import NO_LUN, Header, Pdu, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskManagementRequest(Pdu):
    """Task Management Function Request (11.5)."""

    OPCODE: ClassVar = Opcode.TASK_MANAGEMENT_REQUEST
    SECTION: ClassVar = "11.5"
    WIDTHS: ClassVar = {"function": 7}

    immediate: bool = True
    function: int
    lun: bytes = NO_LUN
    initiator_task_tag: int
    referenced_task_tag: int = RESERVED_TAG
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    ref_cmd_sn: int = 0
    exp_data_sn: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            flag(self.immediate, IMMEDIATE_FLAG), 0x80 | self.function, 0, 0, self.lun,
            self.initiator_task_tag, self.referenced_task_tag, self.cmd_sn, self.exp_stat_sn,
            self.ref_cmd_sn, self.exp_data_sn,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            immediate=header.immediate,
            function=header.b1 & 0x7F,
            lun=header.eight,
            initiator_task_tag=header.w16,
            referenced_task_tag=header.w20,
            cmd_sn=header.w24,
            exp_stat_sn=header.w28,
            ref_cmd_sn=header.w32,
            exp_data_sn=header.w36,
            data=data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskManagementResponse(Pdu):
    """Task Management Function Response (11.6; ``additional_information``: RFC 7144 section 6.4.1)."""

    OPCODE: ClassVar = Opcode.TASK_MANAGEMENT_RESPONSE
    SECTION: ClassVar = "11.6"
    WIDTHS: ClassVar = {"response": 8, "additional_information": 24}

    response: int = 0
    additional_information: int = 0
    initiator_task_tag: int
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            0, 0x80, self.response, 0, self.additional_information.to_bytes(3, "big") + bytes(5),
            self.initiator_task_tag, 0, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            response=header.b2,
            additional_information=int.from_bytes(header.eight[:3], "big"),
            initiator_task_tag=header.w16,
            stat_sn=header.w24,
            exp_cmd_sn=header.w28,
            max_cmd_sn=header.w32,
            data=data,
        )
