"""SNACK Request (RFC 7143 section 11.16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from blockwire.wire.constants import RESERVED_TAG, Opcode
from blockwire.wire.pdu import NO_LUN, Header, Pdu


@dataclass(frozen=True, slots=True, kw_only=True)
class Snack(Pdu):
    """SNACK Request (11.16); ``target_transfer_tag`` is the SNACK Tag of an R-Data SNACK (11.16.5)."""

    OPCODE: ClassVar = Opcode.SNACK
    SECTION: ClassVar = "11.16"
    WIDTHS: ClassVar = {"type": 4}

    type: int
    lun: bytes = NO_LUN
    initiator_task_tag: int = RESERVED_TAG
    target_transfer_tag: int = RESERVED_TAG
    exp_stat_sn: int = 0
    beg_run: int = 0
    run_length: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """The 48-byte header."""
        return self._pack(
            0, 0x80 | self.type, 0, 0, self.lun,
            self.initiator_task_tag, self.target_transfer_tag, 0, self.exp_stat_sn, 0, 0, self.beg_run, self.run_length,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            type=header.b1 & 0x0F,
            lun=header.eight,
            initiator_task_tag=header.w16,
            target_transfer_tag=header.w20,
            exp_stat_sn=header.w28,
            beg_run=header.w40,
            run_length=header.w44,
            data=data,
        )
