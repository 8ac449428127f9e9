"""The disk behind the fake plane's initiator side: blocks in a dict, and as much SCSI as an initiator asks at start.

Layouts are typed by hand from SPC-4 and SBC-3, on purpose not with `blockwire.scsi`: what is tested must not answer
itself.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field

from blockwire.dataplane import api


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """One request as it reached the plane: either `cdb` or `kind` is set."""

    token: api.Token
    session: api.SessionId
    lun: int
    cdb: bytes | None
    kind: api.IoKind | None
    lba: int
    blocks: int
    block_size: int
    data_out: bytes
    data_in: int
    """Bytes that may come back."""
    fua: bool = False


def fixed_sense(key: int, asc: int, ascq: int) -> bytes:
    """Fixed-format sense data, current error (SPC-4 4.5.3)."""
    return bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])


@dataclass
class FakeDisk:
    """Blocks that were never written read as zeros. `answers` holds (status, sense, code) that come before anything
    else, one per request: how a test makes it busy or report a unit attention."""

    blocks: int = 2048
    block_size: int = 512
    read_only: bool = False
    content: dict[int, bytes] = field(default_factory=dict)
    answers: deque[tuple[int, bytes, str]] = field(default_factory=deque)
    requests: list[FakeRequest] = field(default_factory=list)
    max_transfer_blocks: int = 0
    serial: str = "FAKE0001"
    naa: bytes = bytes.fromhex("6001405000000000000000000000abcd")
    luns: tuple[int, ...] = (0,)

    @staticmethod
    def absent(request: FakeRequest) -> api.TaskDone:
        """What a LUN without a logical unit answers: ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED."""
        return api.TaskDone(request.token, 2, fixed_sense(5, 0x25, 0))

    def answer(self, request: FakeRequest) -> api.TaskDone:
        """Runs the request."""
        self.requests.append(request)
        if self.answers:
            status, sense, code = self.answers.popleft()
            return api.TaskDone(request.token, status, sense, code=code)
        if request.cdb is not None:
            return self._command(request, request.cdb)
        if request.lba + request.blocks > self.blocks:
            return api.TaskDone(request.token, 2, fixed_sense(5, 0x21, 0))
        if request.kind == api.IoKind.READ:
            return api.TaskDone(request.token, 0, data=self.read(request.lba, request.blocks))
        if request.kind != api.IoKind.FLUSH and self.read_only:
            return api.TaskDone(request.token, 2, fixed_sense(7, 0x27, 0))
        if request.kind == api.IoKind.WRITE:
            self.write(request.lba, request.data_out)
        elif request.kind in (api.IoKind.UNMAP, api.IoKind.WRITE_SAME_ZERO):
            for lba in range(request.lba, request.lba + request.blocks):
                self.content.pop(lba, None)
        return api.TaskDone(request.token, 0)

    def read(self, lba: int, blocks: int) -> bytes:
        """The bytes of a range."""
        zero = bytes(self.block_size)
        return b"".join(self.content.get(number, zero) for number in range(lba, lba + blocks))

    def write(self, lba: int, data: bytes) -> None:
        """Whole blocks only."""
        if len(data) % self.block_size:
            raise ValueError("not whole blocks")
        for index in range(len(data) // self.block_size):
            self.content[lba + index] = data[index * self.block_size : (index + 1) * self.block_size]

    def _command(self, request: FakeRequest, cdb: bytes) -> api.TaskDone:
        token = request.token
        data: bytes | None = None
        match cdb[0]:
            case 0x00 | 0x1B:
                data = b""
            case 0x12:
                data = self._vpd(cdb[2]) if cdb[1] & 1 else self._inquiry()
            case 0xA0:
                entries = b"".join(struct.pack(">HHHH", lun, 0, 0, 0) for lun in self.luns)
                data = struct.pack(">II", len(entries), 0) + entries
            case 0x25:
                data = struct.pack(">II", min(self.blocks - 1, 0xFFFFFFFF), self.block_size)
            case 0x9E if cdb[1] & 0x1F == 0x10:
                # LBPME and LBPRZ set: unmapped blocks read as zeros (SBC-3 5.16).
                data = struct.pack(">QIBBBB", self.blocks - 1, self.block_size, 0, 0, 0xC0, 0) + bytes(16)
            case 0x1A:
                header = bytes([3, 0, 0x80 if self.read_only else 0, 0])
                data = header
            case 0x5A:
                data = bytes([0, 6, 0, 0x80 if self.read_only else 0, 0, 0, 0, 0])
            case 0x35 | 0x91:
                data = b""
            case _:
                return api.TaskDone(token, 2, fixed_sense(5, 0x20, 0))
        if data is None:
            return api.TaskDone(token, 2, fixed_sense(5, 0x24, 0))
        if cdb[0] == 0x12:
            allocation = int.from_bytes(cdb[3:5], "big")
        elif cdb[0] == 0xA0:
            allocation = int.from_bytes(cdb[6:10], "big")
        elif cdb[0] == 0x9E:
            allocation = int.from_bytes(cdb[10:14], "big")
        else:
            allocation = request.data_in
        data = data[: min(allocation, request.data_in)]
        return api.TaskDone(token, 0, data=data, residual=request.data_in - len(data))

    def _inquiry(self) -> bytes:
        # Direct access, SPC-4 (06h), response format 2, CMDQUE.
        return bytes([0x00, 0x00, 0x06, 0x02, 31, 0, 0, 2]) + b"BLOCKWIR" + b"fake disk       " + b"0001"

    def _vpd(self, page: int) -> bytes | None:
        match page:
            case 0x00:
                body = bytes([0x00, 0x80, 0x83, 0xB0, 0xB2])
            case 0x80:
                body = self.serial.encode()
            case 0x83:
                # Binary code set, associated with the logical unit, type 3 (NAA).
                body = bytes([0x01, 0x03, 0x00, len(self.naa)]) + self.naa
            case 0xB0:
                body = struct.pack(">BBHIII", 0, 0, 0, self.max_transfer_blocks, 0, 0)
                body += struct.pack(">IIIIQ", 0xFFFFFFFF, 16, 0, 0, 0) + bytes(20)
            case 0xB2:
                body = bytes([0, 0xE0, 0x02, 0])
            case _:
                return None
        return bytes([0x00, page]) + struct.pack(">H", len(body)) + body
