"""A logical unit as coroutines see it: block I/O by byte offsets, split to what the device takes, repeated by policy.

The synchronous `blocking.Lun` hands everything but its fast path to this class on the control thread.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from blockwire import errors
from blockwire.dataplane.api import IoKind, TaskDone
from blockwire.initiator import retry_policy, task_management
from blockwire.initiator.geometry import Geometry, Identity, pieces
from blockwire.initiator.ladder import STUCK, TIMED_OUT
from blockwire.initiator.retry_policy import Attempts, Verdict
from blockwire.names import encode_lun
from blockwire.wire.constants import TaskFunction

if TYPE_CHECKING:
    from blockwire.initiator.file import AsyncLunFile
    from blockwire.initiator.queue import Queue
    from blockwire.initiator.session import Session

PIECES_IN_FLIGHT = 8
"""How many pieces of one large request are under way at a time."""

LONGEST_CDB = 260
"""Bytes of a CDB, those of the longest variable-length one (SPC-4 4.3.3)."""

_VERBS = {
    IoKind.READ: "read",
    IoKind.WRITE: "write",
    IoKind.FLUSH: "flush",
    IoKind.UNMAP: "discard",
    IoKind.WRITE_SAME_ZERO: "zero",
}


def lun_field(lun: int) -> int:
    """The LUN field of a PDU as a 64-bit number, as the plane takes it; UsageError for what is no LUN."""
    try:
        return int.from_bytes(encode_lun(lun), "big")
    except ValueError as error:
        raise errors.UsageError(str(error), code="usage.lun", next="a LUN is a number such as 0") from error


def octets(buffer: Any) -> memoryview:
    """Any contiguous buffer as bytes."""
    view = memoryview(buffer)
    if not view.contiguous:
        raise errors.UsageError("the buffer is not contiguous", code="usage.buffer")
    return view.cast("B") if view.nbytes else memoryview(b"")


@dataclass(frozen=True, slots=True)
class ScsiResult:
    """How a SCSI command ended, as it came: nothing is repeated and no status raises."""

    status: int
    """SCSI status byte, 0 is GOOD (RFC 7143 11.4.2)."""
    sense: bytes
    """Raw sense data, b"" when there was none."""
    data: bytes
    """Data-In."""
    residual: int
    """Positive: bytes that were expected and not moved; negative: bytes the target had beyond (RFC 7143 11.4.5)."""

    @property
    def ok(self) -> bool:
        """Whether the status is GOOD."""
        return self.status == 0


class Lun:
    """One logical unit of a session. Offsets and lengths in bytes, multiples of `block_size`.

    Every call may raise `blockwire.Error`: UsageError for a bad range, DeviceError with the sense, ConnectionLostError
    when the session did not come back within its replacement timeout. Cancelling an await aborts the task and keeps the
    buffer until the target has answered.
    """

    def __init__(
        self,
        session: Session,
        lun: int,
        geometry: Geometry,
        identity: Identity,
        read_only: bool,
        owns_session: bool = False,
    ) -> None:
        self.session = session
        self.lun = lun
        self.geometry = geometry
        self.identity = identity
        self.read_only = read_only or geometry.read_only
        self._field = lun_field(lun)
        self._owns_session = owns_session
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes."""
        return self.geometry.size

    @property
    def block_size(self) -> int:
        """Bytes of a logical block."""
        return self.geometry.block_size

    def __repr__(self) -> str:
        return f"<Lun {self.session.url.at(lun=self.lun)} {self.size} bytes>"

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the use of the LUN; the session too when it was opened for it. Idempotent."""
        self.session.dispatch.check_loop()
        self._closed = True
        if self._owns_session:
            await self.session.close()

    # ------------------------------------------------------------------ block I/O
    async def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`."""
        self.geometry.check("read", offset, length)
        if length <= self.geometry.max_transfer:
            if not length:
                return b""
            data: bytes = await self.io(IoKind.READ, offset, length, None)
            return data
        whole = bytearray(length)
        await self.preadinto(whole, offset)
        return bytes(whole)

    async def preadinto(self, buffer: Any, offset: int) -> int:
        """Fills `buffer` from `offset`; its contents are undefined until this ends. Gives its length."""
        view = octets(buffer)
        if view.readonly and view.nbytes:
            raise errors.UsageError("read: the buffer is read-only", code="usage.buffer")
        self.geometry.check("read", offset, view.nbytes)
        with view:
            length = view.nbytes
            await self._in_pieces(IoKind.READ, offset, view)
        return length

    async def pwrite(self, data: Any, offset: int, fua: bool = False) -> int:
        """Writes `data` at `offset`; with `fua` it is on stable storage when this ends. Gives its length."""
        view = octets(data)
        self.check_write("write", offset, view.nbytes)
        with view:
            length = view.nbytes
            await self._in_pieces(IoKind.WRITE, offset, view, fua)
        return length

    async def flush(self) -> None:
        """Everything written so far is on stable storage when this ends (SYNCHRONIZE CACHE)."""
        await self.io(IoKind.FLUSH, 0, 0, None)

    async def discard(self, offset: int, length: int) -> None:
        """Tells the device that a range is not needed (UNMAP); what it reads as then is up to the device."""
        self.check_write("discard", offset, length)
        if not self.geometry.can_discard:
            raise errors.DeviceError(
                "discard: the device does not support UNMAP", code="device.command-not-supported", status=0,
                next="use zero(), which works everywhere",
            )  # fmt: skip
        for start, size in pieces(offset, length, self.geometry.max_discard):
            await self.io(IoKind.UNMAP, start, size, None)

    async def zero(self, offset: int, length: int) -> None:
        """Makes a range read as zeros: by WRITE SAME where the device has it, else by writing zeros."""
        self.check_write("zero", offset, length)
        done = offset
        try:
            for start, size in pieces(offset, length, self.geometry.max_zero):
                await self.io(IoKind.WRITE_SAME_ZERO, start, size, None)
                done = start + size
        except errors.DeviceError as error:
            if error.sense_key != 5 or error.asc not in (0x20, 0x24):
                raise
            zeros = bytes(min(self.geometry.max_transfer, 1 << 20))
            for start, size in pieces(done, offset + length - done, len(zeros)):
                await self.io(IoKind.WRITE, start, size, memoryview(zeros)[:size])

    async def reset(self) -> None:
        """LOGICAL UNIT RESET (RFC 7143 11.5.1): the tasks of every initiator on it end. Those of this session are sent
        again where that is harmless."""
        await task_management.perform(self.session, TaskFunction.LOGICAL_UNIT_RESET, self._field)

    async def abort_task_set(self) -> None:
        """ABORT TASK SET: the tasks that this session has on it end."""
        await task_management.perform(self.session, TaskFunction.ABORT_TASK_SET, self._field)

    async def clear_task_set(self) -> None:
        """CLEAR TASK SET: the tasks of every initiator on it end; the others are told."""
        await task_management.perform(self.session, TaskFunction.CLEAR_TASK_SET, self._field)

    async def scsi(self, cdb: bytes, data_in: Any = 0, data_out: Any = b"") -> ScsiResult:
        """Any SCSI command. `data_in` is how many bytes may come back, or a writable buffer for them.

        Raises only when there was no answer; a status other than GOOD is in the result.
        """
        self._check_open()
        cdb = bytes(octets(cdb))
        if not 1 <= len(cdb) <= LONGEST_CDB:
            raise errors.UsageError(f"scsi: a CDB has 1 to {LONGEST_CDB} bytes, not {len(cdb)}", code="usage.cdb")
        if isinstance(data_in, int) and not 0 <= data_in < 1 << 32:
            raise errors.UsageError(f"scsi: {data_in} is no number of bytes below 4 GiB", code="usage.length")
        session = self.session
        await session.ready()
        out = data_out if data_out is not None and len(octets(data_out)) else None
        done = await session.finish(
            lambda: session.plane.submit(session.id, self._field, cdb, out, data_in), self._field
        )
        if done.code:
            raise retry_policy.task_error(done, f"command {cdb[0]:02X}h", session.loss)
        return ScsiResult(done.status, bytes(done.sense), done.data or b"", done.residual)

    # ------------------------------------------------------------------ views
    def queue(self, depth: int = 32) -> Queue:
        """Many requests in flight from one task; see `Queue`."""
        from blockwire.initiator.queue import Queue

        self._check_open()
        return Queue(self, depth)

    def makefile(self, mode: str = "rb", buffer_size: int = 1 << 20) -> AsyncLunFile:
        """A seekable file over the LUN, at any offset. `mode` is "rb", "r+b" or "wb" (which truncates nothing)."""
        from blockwire.initiator.file import AsyncLunFile

        self._check_open()
        return AsyncLunFile(self, mode, buffer_size)

    # ------------------------------------------------------------------ inside
    def _check_open(self) -> None:
        if self._closed:
            raise errors.ClosedError("the logical unit was closed")

    def check_write(self, what: str, offset: int, length: int) -> None:
        """UsageError or ReadOnlyError for a change that must not be sent."""
        if self.read_only:
            raise errors.ReadOnlyError(
                f"{what}: the logical unit {'is' if self.geometry.read_only else 'was opened'} read-only",
                status=0,
            )
        self.geometry.check(what, offset, length)

    async def _in_pieces(self, kind: IoKind, offset: int, view: memoryview, fua: bool = False) -> None:
        longest = self.geometry.max_transfer
        if view.nbytes <= longest:
            if view.nbytes:
                await self.io(kind, offset, view.nbytes, view, fua)
            return
        todo = pieces(offset, view.nbytes, longest)

        async def work() -> None:
            for start, size in todo:
                at = start - offset
                # Released by hand: a traceback that is kept must not keep the caller's buffer from being resized.
                with view[at : at + size] as part:
                    await self.io(kind, start, size, part, fua)

        workers = [asyncio.ensure_future(work()) for _ in range(PIECES_IN_FLIGHT)]
        try:
            await asyncio.gather(*workers)
        finally:
            # After the first error, or a cancellation: abort the others and wait, because they use the buffer.
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def io(self, kind: IoKind, offset: int, length: int, buffer: Any, fua: bool = False) -> Any:
        """One request within the device's limits, repeated as `retry_policy` says. Gives what was read."""
        self._check_open()
        return await self._try(kind, offset, length, buffer, fua, Attempts(self.session.runtime.now()))

    async def resume(self, done: Any, kind: IoKind, offset: int, length: int, buffer: Any, fua: bool = False) -> Any:
        """Goes on with a request whose first answer, got from the plane on another thread, was not GOOD."""
        attempts = Attempts(self.session.runtime.now())
        if done.code == "task.aborted":
            # A reset of the recovery ladder ended it with others, or the plane aborted it because its time was up.
            reset = self.session.ladder.reset_since(self.session.timers.timeout)
            done = TaskDone(done.token, 0, code=retry_policy.RESET if reset else TIMED_OUT)
        elif done.code == TIMED_OUT:
            # Its time was up, and the abort was not answered either.
            done = TaskDone(done.token, 0, code=STUCK)
        await self.after_failure(done, kind, offset, length, attempts, 0)
        return await self._try(kind, offset, length, buffer, fua, attempts)

    async def _try(self, kind: IoKind, offset: int, length: int, buffer: Any, fua: bool, attempts: Attempts) -> Any:
        session = self.session
        block = self.geometry.block_size
        lba, blocks = offset // block, length // block
        while True:
            await session.ready()
            number = session.id
            done = await session.finish(
                lambda: session.plane.submit_io(session.id, self._field, kind, lba, blocks, block, buffer, fua=fua),
                self._field,
            )
            if not done.code and not done.status:
                if done.residual and length:
                    raise self.short_transfer(kind, offset, length, done.residual)
                return done.data
            await self.after_failure(done, kind, offset, length, attempts, number)

    def short_transfer(self, kind: IoKind, offset: int, length: int, residual: int) -> errors.Error:
        """The error of a request that ended GOOD without moving all of its data."""
        return errors.DeviceError(
            f"{_VERBS[kind]} of {length} bytes at {offset}: the target moved {residual} bytes less than asked",
            code="device.short-transfer", status=0, evidence=f"residual {residual}",
        )  # fmt: skip

    async def after_failure(
        self, done: Any, kind: IoKind, offset: int, length: int, attempts: Attempts, number: int
    ) -> None:
        """Returns when the request is to be sent again, else raises its error. `number` is the plane's session
        that gave the answer, 0 when that is not known."""
        session = self.session
        if done.code == STUCK:
            await session.ladder.reset(self._field, number or session.id)
            done = TaskDone(done.token, 0, code=retry_policy.RESET)
        verdict, pause = retry_policy.judge(done, attempts, session.runtime.now())
        if done.code in retry_policy.LOST_CODES and number == session.id:
            session.request_lost(done.code, number)  # else it was an earlier session's end, and this one may be well
        if verdict is Verdict.REOPEN:
            await session.ready()
        elif verdict is Verdict.REPEAT:
            if pause:
                await session.runtime.sleep(pause)
        else:
            raise retry_policy.task_error(done, f"{_VERBS[kind]} of {length} bytes at {offset}", session.loss)
