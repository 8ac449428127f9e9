"""An initiator's end made of PDUs written one by one: what reaches the target is what the test says."""

from __future__ import annotations

import asyncio
from typing import Protocol

from blockwire.wire import Deframer, decode
from blockwire.wire.keys import Pairs, join_pairs, split_pairs
from blockwire.wire.login import LoginRequest, LoginResponse
from blockwire.wire.pdu import Pdu

INITIATOR = "iqn.2024-01.com.example:client"


PATIENCE = 60.0
"""Seconds until an answer counts as missing: much longer than a loaded machine takes."""


class Reader(Protocol):
    """What is read from: `asyncio.StreamReader`, or an end in memory."""

    async def read(self, most: int, /) -> bytes: ...


class Writer(Protocol):
    """What is written to: `asyncio.StreamWriter`, or an end in memory."""

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


class RawInitiator:
    """One connection."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self.reader = reader
        self.writer = writer
        self._deframer = Deframer(1 << 24)

    async def send(self, pdu: Pdu | bytes) -> None:
        self.writer.write(pdu if isinstance(pdu, bytes) else pdu.to_bytes())
        await self.writer.drain()

    async def receive(self) -> Pdu:
        """The next PDU; ConnectionError at the end of the stream."""
        while True:
            frame = self._deframer.next()
            if frame is not None:
                return decode(*frame)
            async with asyncio.timeout(PATIENCE):
                data = await self.reader.read(65536)
            if not data:
                raise ConnectionError("closed")
            self._deframer.feed(data)

    async def closed(self) -> bool:
        """Whether the target closes the connection; what it sends before is not looked at."""
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.reader.read(1 << 20):
                    pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    async def log_in(
        self,
        target: str = "",
        initiator: str = INITIATOR,
        isid: bytes = bytes.fromhex("400001370000"),
        tsih: int = 0,
        cid: int = 1,
        keys: Pairs | None = None,
    ) -> LoginResponse:
        """One Login Request from the operational stage to the full feature phase, as simple initiators send it."""
        pairs: Pairs = [("InitiatorName", initiator)]
        pairs += [("TargetName", target)] if target else [("SessionType", "Discovery")]
        pairs += keys or []
        await self.send(
            LoginRequest(
                transit=True, csg=1, nsg=3, isid=isid, tsih=tsih, initiator_task_tag=5, cid=cid, cmd_sn=1,
                data=join_pairs(pairs),
            )
        )  # fmt: skip
        response = await self.receive()
        assert isinstance(response, LoginResponse)
        self.keys = dict(split_pairs(response.data))
        return response

    def close(self) -> None:
        self.writer.close()
