"""Reject (RFC 7143 section 11.17)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from blockwire.wire.constants import RESERVED_TAG, Opcode, RejectReason
from blockwire.wire.pdu import NO_LUN, Header, Pdu, WireError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject(Pdu):
    """Reject (11.17); ``data`` is the header of the PDU in error, without its digest (11.17.4)."""

    OPCODE: ClassVar = Opcode.REJECT
    SECTION: ClassVar = "11.17"
    WIDTHS: ClassVar = {"reason": 8}

    reason: int
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data_sn: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header; :class:`WireError` for the deprecated reason 0x0B, which MUST NOT be used (11.17.1)."""
        if self.reason == RejectReason.NEGOTIATION_RESET:
            raise WireError("a Reject has no reason 0x0B any more", field="Reason", section="11.17.1")
        return self._pack(
            0, 0x80, self.reason, 0, NO_LUN,
            RESERVED_TAG, 0, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn, self.data_sn,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            reason=header.b2,
            stat_sn=header.w24,
            exp_cmd_sn=header.w28,
            max_cmd_sn=header.w32,
            data_sn=header.w36,
            data=data,
        )
