"""Logout Request and Logout Response (RFC 7143 sections 11.14 and 11.15)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from blockwire.wire.constants import IMMEDIATE_FLAG, NO_CID, Opcode
from blockwire.wire.pdu import NO_LUN, Header, Pdu, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutRequest(Pdu):
    """Logout Request (11.14); ``cid`` is reserved when the session is closed."""

    OPCODE: ClassVar = Opcode.LOGOUT_REQUEST
    SECTION: ClassVar = "11.14"
    WIDTHS: ClassVar = {"reason": 7, "cid": 16}

    immediate: bool = True
    reason: int = 0
    initiator_task_tag: int
    cid: int = NO_CID
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            flag(self.immediate, IMMEDIATE_FLAG), 0x80 | self.reason, 0, 0, NO_LUN,
            self.initiator_task_tag, self.cid << 16, self.cmd_sn, self.exp_stat_sn,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            immediate=header.immediate,
            reason=header.b1 & 0x7F,
            initiator_task_tag=header.w16,
            cid=header.w20 >> 16,
            cmd_sn=header.w24,
            exp_stat_sn=header.w28,
            data=data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutResponse(Pdu):
    """Logout Response (11.15); times in seconds."""

    OPCODE: ClassVar = Opcode.LOGOUT_RESPONSE
    SECTION: ClassVar = "11.15"
    WIDTHS: ClassVar = {"response": 8, "time2wait": 16, "time2retain": 16}

    response: int = 0
    initiator_task_tag: int
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    time2wait: int = 0
    time2retain: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            0, 0x80, self.response, 0, NO_LUN,
            self.initiator_task_tag, 0, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn, 0,
            self.time2wait << 16 | self.time2retain,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            response=header.b2,
            initiator_task_tag=header.w16,
            stat_sn=header.w24,
            exp_cmd_sn=header.w28,
            max_cmd_sn=header.w32,
            time2wait=header.w40 >> 16,
            time2retain=header.w40 & 0xFFFF,
            data=data,
        )
