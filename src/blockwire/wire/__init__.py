"""The iSCSI PDU codec (RFC 7143 section 11): one frozen class per PDU, text keys, serial numbers, CRC32C; no I/O.

``decode(bhs, ahs, data)`` gives the PDU of any opcode; ``Pdu.encode()`` gives back the 48-byte header and
``Pdu.to_bytes()`` the whole PDU without digests.
"""

from __future__ import annotations

from typing import Final

from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import OPCODE_MASK
from blockwire.wire.data import DataIn, DataOut, R2t
from blockwire.wire.framing import Deframer, Frame, frame_pdu
from blockwire.wire.login import LoginRequest, LoginResponse
from blockwire.wire.logout import LogoutRequest, LogoutResponse
from blockwire.wire.nop import NopIn, NopOut
from blockwire.wire.pdu import DigestError, Header, Pdu, WireError
from blockwire.wire.reject import Reject
from blockwire.wire.scsi import ScsiCommand, ScsiResponse
from blockwire.wire.snack import Snack
from blockwire.wire.task import TaskManagementRequest, TaskManagementResponse
from blockwire.wire.text import TextRequest, TextResponse

PDU_CLASSES: Final[dict[int, type[Pdu]]] = {
    cls.OPCODE: cls
    for cls in (
        NopOut,
        ScsiCommand,
        TaskManagementRequest,
        LoginRequest,
        TextRequest,
        DataOut,
        LogoutRequest,
        Snack,
        NopIn,
        ScsiResponse,
        TaskManagementResponse,
        LoginResponse,
        TextResponse,
        DataIn,
        LogoutResponse,
        R2t,
        AsyncMessage,
        Reject,
    )
}
"""Opcode -> class."""


def decode(bhs: bytes, ahs: bytes = b"", data: bytes = b"") -> Pdu:
    """The PDU in these segments; :class:`WireError` for an opcode without a class."""
    cls = PDU_CLASSES.get(bhs[0] & OPCODE_MASK) if bhs else None
    if cls is None:
        raise WireError(
            f"unassigned opcode {bhs[0] & OPCODE_MASK:#04x}" if bhs else "no header", field="Opcode", section="11.2.1.2"
        )
    return cls.decode(bhs, ahs, data)


__all__ = [
    "PDU_CLASSES",
    "AsyncMessage",
    "DataIn",
    "DataOut",
    "Deframer",
    "DigestError",
    "Frame",
    "Header",
    "LoginRequest",
    "LoginResponse",
    "LogoutRequest",
    "LogoutResponse",
    "NopIn",
    "NopOut",
    "Pdu",
    "R2t",
    "Reject",
    "ScsiCommand",
    "ScsiResponse",
    "Snack",
    "TaskManagementRequest",
    "TaskManagementResponse",
    "TextRequest",
    "TextResponse",
    "WireError",
    "decode",
    "frame_pdu",
]
