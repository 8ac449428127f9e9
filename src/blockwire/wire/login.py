"""Login Request and Login Response (RFC 7143 sections 11.12 and 11.13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from blockwire.wire.constants import IMMEDIATE_FLAG, VERSION, Opcode
from blockwire.wire.pdu import Header, Pdu, WireError, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRequest(Pdu):
    """Login Request (11.12); always immediate. ``isid`` is six bytes."""

    OPCODE: ClassVar = Opcode.LOGIN_REQUEST
    SECTION: ClassVar = "11.12"
    WIDTHS: ClassVar = {"csg": 2, "nsg": 2, "version_max": 8, "version_min": 8, "tsih": 16, "cid": 16}

    transit: bool = False
    continued: bool = False
    csg: int = 0
    nsg: int = 0
    version_max: int = VERSION
    version_min: int = VERSION
    isid: bytes
    tsih: int = 0
    initiator_task_tag: int
    cid: int = 0
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    data: bytes = b""

    def __post_init__(self) -> None:
        super(LoginRequest, self).__post_init__()
        if len(self.isid) != 6:
            raise WireError("an ISID has 6 bytes", field="ISID", section="11.12.5")

    def encode(self) -> bytes:
        """The 48-byte header."""
        b1 = flag(self.transit, 0x80) | flag(self.continued, 0x40) | self.csg << 2 | self.nsg
        return self._pack(
            IMMEDIATE_FLAG, b1, self.version_max, self.version_min, self.isid + self.tsih.to_bytes(2, "big"),
            self.initiator_task_tag, self.cid << 16, self.cmd_sn, self.exp_stat_sn,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            transit=bool(header.b1 & 0x80),
            continued=bool(header.b1 & 0x40),
            csg=header.b1 >> 2 & 3,
            nsg=header.b1 & 3,
            version_max=header.b2,
            version_min=header.b3,
            isid=header.eight[:6],
            tsih=int.from_bytes(header.eight[6:], "big"),
            initiator_task_tag=header.w16,
            cid=header.w20 >> 16,
            cmd_sn=header.w24,
            exp_stat_sn=header.w28,
            data=data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginResponse(Pdu):
    """Login Response (11.13)."""

    OPCODE: ClassVar = Opcode.LOGIN_RESPONSE
    SECTION: ClassVar = "11.13"
    WIDTHS: ClassVar = {
        "csg": 2, "nsg": 2, "version_max": 8, "version_active": 8, "tsih": 16, "status_class": 8, "status_detail": 8,
    }  # fmt: skip

    transit: bool = False
    continued: bool = False
    csg: int = 0
    nsg: int = 0
    version_max: int = VERSION
    version_active: int = VERSION
    isid: bytes
    tsih: int = 0
    initiator_task_tag: int
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    status_class: int = 0
    status_detail: int = 0
    data: bytes = b""

    def __post_init__(self) -> None:
        super(LoginResponse, self).__post_init__()
        if len(self.isid) != 6:
            raise WireError("an ISID has 6 bytes", field="ISID", section="11.12.5")

    @property
    def status(self) -> int:
        """Status-Class << 8 | Status-Detail."""
        return self.status_class << 8 | self.status_detail

    def encode(self) -> bytes:
        """The 48-byte header."""
        b1 = flag(self.transit, 0x80) | flag(self.continued, 0x40) | self.csg << 2 | self.nsg
        return self._pack(
            0, b1, self.version_max, self.version_active, self.isid + self.tsih.to_bytes(2, "big"),
            self.initiator_task_tag, 0, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn, self.status << 16,
        )  # fmt: skip

    @classmethod
    def _from_header(cls, header: Header, bhs: bytes, ahs: bytes, data: bytes) -> Self:
        return cls(
            transit=bool(header.b1 & 0x80),
            continued=bool(header.b1 & 0x40),
            csg=header.b1 >> 2 & 3,
            nsg=header.b1 & 3,
            version_max=header.b2,
            version_active=header.b3,
            isid=header.eight[:6],
            tsih=int.from_bytes(header.eight[6:], "big"),
            initiator_task_tag=header.w16,
            stat_sn=header.w24,
            exp_cmd_sn=header.w28,
            max_cmd_sn=header.w32,
            status_class=header.w36 >> 24,
            status_detail=header.w36 >> 16 & 0xFF,
            data=data,
        )
