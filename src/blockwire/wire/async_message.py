"""Asynchronous Message (RFC 7143 section 11.9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from blockwire.wire.constants import RESERVED_TAG, Opcode
from blockwire.wire.pdu import NO_LUN, Header, Pdu


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncMessage(Pdu):
    """Asynchronous Message (11.9); the parameters' meaning depends on ``async_event`` (11.9.1)."""

    OPCODE: ClassVar = Opcode.ASYNC_MESSAGE
    SECTION: ClassVar = "11.9"
    WIDTHS: ClassVar = {"async_event": 8, "async_vcode": 8, "parameter1": 16, "parameter2": 16, "parameter3": 16}

    lun: bytes = NO_LUN
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    async_event: int
    async_vcode: int = 0
    parameter1: int = 0
    parameter2: int = 0
    parameter3: int = 0
    data: bytes = b""

    @property
    def sense(self) -> bytes:
        """The sense data of a SCSI event (11.9.4)."""
        return self.data[2 : 2 + int.from_bytes(self.data[:2], "big")]

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            0, 0x80, 0, 0, self.lun,
            RESERVED_TAG, 0, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn,
            self.async_event << 24 | self.async_vcode << 16 | self.parameter1, self.parameter2 << 16 | self.parameter3,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            lun=header.eight,
            stat_sn=header.w24,
            exp_cmd_sn=header.w28,
            max_cmd_sn=header.w32,
            async_event=header.w36 >> 24,
            async_vcode=header.w36 >> 16 & 0xFF,
            parameter1=header.w36 & 0xFFFF,
            parameter2=header.w40 >> 16,
            parameter3=header.w40 & 0xFFFF,
            data=data,
        )
