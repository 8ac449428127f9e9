"""The synchronous faces of `Session` and `Lun`.

Control calls run on the control thread. `pread`, `preadinto` and `pwrite` of what fits one command are one call of the
plane on the caller's own thread; whatever is not plain success goes to the asynchronous `Lun`, where the policy is.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
import weakref
from typing import TYPE_CHECKING, Any, NoReturn, Self

from blockwire import errors
from blockwire.dataplane.api import IoKind, TaskDone, TaskView
from blockwire.initiator.blocking_queue import Queue
from blockwire.initiator.geometry import Geometry, Identity, LunInfo
from blockwire.initiator.logical_unit import ScsiResult, octets
from blockwire.initiator.retry_policy import LOST_CODES
from blockwire.names import Portal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockwire.initiator import logical_unit
    from blockwire.initiator import session as aio_session
    from blockwire.net.control_thread import ControlThread
    from blockwire.wire.constants import TaskFunction
    from blockwire.wire.task import TaskManagementResponse

_READ, _WRITE, _FLUSH = IoKind.READ, IoKind.WRITE, IoKind.FLUSH

_handles: weakref.WeakSet[Lun] = weakref.WeakSet()


class Lun:
    """One logical unit of a session. Offsets and lengths in bytes, multiples of `block_size`. Thread-safe.

    Every call may raise `blockwire.Error`: UsageError for a bad range, DeviceError with the sense, ConnectionLostError
    when the session did not come back within its replacement timeout, ForkedError in a child process.
    """

    __slots__ = (
        "__weakref__", "_block", "_execute_io", "_field", "_longest", "_opener", "_session", "_size", "_timeout",
        "_writable", "control", "core",
    )  # fmt: skip

    def __init__(self, core: logical_unit.Lun, control: ControlThread, opener: Session | None = None) -> None:
        self.core = core
        self.control = control
        self._opener = opener  # kept, so that `connect(url).lun(0)` does not lose its session
        self._session = core.session
        self._execute_io: Any = core.session.plane.execute_io
        self._field = core._field
        self._block = core.geometry.block_size
        self._size = core.geometry.size
        self._longest = core.geometry.max_transfer
        self._timeout = core.session.timers.timeout
        self._writable = not core.read_only
        _handles.add(self)

    # ------------------------------------------------------------------ what it is
    @property
    def session(self) -> Session:
        """The session it belongs to."""
        return self._opener or Session(self.core.session, self.control)

    @property
    def lun(self) -> int:
        """Its number."""
        return self.core.lun

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    @property
    def block_size(self) -> int:
        """Bytes of a logical block."""
        return self._block

    @property
    def geometry(self) -> Geometry:
        """Sizes and limits."""
        return self.core.geometry

    @property
    def identity(self) -> Identity:
        """Vendor, product, serial number and name."""
        return self.core.identity

    @property
    def read_only(self) -> bool:
        """Whether it was opened read-only, or the device is write-protected."""
        return self.core.read_only

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.core._closed

    def __repr__(self) -> str:
        return repr(self.core)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Lun belongs to its process: open its URL in another one")

    def __enter__(self) -> Self:
        self.core._check_open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        core = getattr(self, "core", None)
        if core is not None and core._owns_session:
            _dropped(self, core.session, self.control)

    def close(self) -> None:
        """Ends the use of the LUN; the session too when it was opened for it. Idempotent."""
        if not self.core._closed:
            self._execute_io = _closed
            self.control.run(self.core.close())

    # ------------------------------------------------------------------ block I/O
    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`."""
        block = self._block
        if (
            length % block or offset % block or not 0 < length <= self._longest
            or not 0 <= offset <= self._size - length
        ):  # fmt: skip
            return self.control.run(self.core.pread(length, offset))
        try:
            done = self._execute_io(
                self._session.id, self._field, _READ, offset // block, length // block, block, timeout=self._timeout
            )
        except errors.Error as error:
            done = lost(error)
        if done.status or done.code or done.residual:
            data: bytes = self._slow(done, _READ, offset, length, None)
            return data
        result: bytes = done.data
        return result

    def preadinto(self, buffer: Any, offset: int) -> int:
        """Fills `buffer` from `offset`; its contents are undefined until this ends. Gives its length."""
        length = memoryview(buffer).nbytes
        block = self._block
        if (
            length % block or offset % block or not 0 < length <= self._longest
            or not 0 <= offset <= self._size - length
        ):  # fmt: skip
            return self.control.run(self.core.preadinto(buffer, offset))
        try:
            done = self._execute_io(
                self._session.id, self._field, _READ, offset // block, length // block, block, buffer,
                timeout=self._timeout,
            )  # fmt: skip
        except errors.Error as error:
            done = lost(error)
        if done.status or done.code or done.residual:
            self._slow(done, _READ, offset, length, octets(buffer))
        return length

    def pwrite(self, data: Any, offset: int, fua: bool = False) -> int:
        """Writes `data` at `offset`; with `fua` it is on stable storage when this ends. Gives its length."""
        length = len(data) if type(data) is bytes else memoryview(data).nbytes
        block = self._block
        if (
            length % block or offset % block or not 0 < length <= self._longest
            or not 0 <= offset <= self._size - length or not self._writable
        ):  # fmt: skip
            return self.control.run(self.core.pwrite(data, offset, fua))
        try:
            done = self._execute_io(
                self._session.id, self._field, _WRITE, offset // block, length // block, block, data,
                fua=fua, timeout=self._timeout,
            )  # fmt: skip
        except errors.Error as error:
            done = lost(error)
        if done.status or done.code or done.residual:
            self._slow(done, _WRITE, offset, length, data, fua)
        return length

    def _slow(self, done: Any, kind: IoKind, offset: int, length: int, buffer: Any, fua: bool = False) -> Any:
        if not done.status and not done.code:
            raise self.core.short_transfer(kind, offset, length, done.residual)
        return self.control.run(self.core.resume(done, kind, offset, length, buffer, fua))

    def flush(self) -> None:
        """Everything written so far is on stable storage when this ends (SYNCHRONIZE CACHE)."""
        try:
            done = self._execute_io(self._session.id, self._field, _FLUSH, 0, 0, self._block, timeout=self._timeout)
        except errors.Error as error:
            done = lost(error)
        if done.status or done.code:
            self._slow(done, _FLUSH, 0, 0, None)

    def discard(self, offset: int, length: int) -> None:
        """Tells the device that a range is not needed (UNMAP); what it reads as then is up to the device."""
        self.control.run(self.core.discard(offset, length))

    def zero(self, offset: int, length: int) -> None:
        """Makes a range read as zeros: by WRITE SAME where the device has it, else by writing zeros."""
        self.control.run(self.core.zero(offset, length))

    def scsi(self, cdb: bytes, data_in: Any = 0, data_out: Any = b"") -> ScsiResult:
        """Any SCSI command. `data_in` is how many bytes may come back, or a writable buffer for them.

        Raises only when there was no answer; a status other than GOOD is in the result.
        """
        return self.control.run(self.core.scsi(cdb, data_in, data_out))

    def reset(self) -> None:
        """LOGICAL UNIT RESET (RFC 7143 11.5.1): the tasks of every initiator on it end. Those of this session are sent
        again where that is harmless."""
        self.control.run(self.core.reset())

    def abort_task_set(self) -> None:
        """ABORT TASK SET: the tasks that this session has on it end."""
        self.control.run(self.core.abort_task_set())

    def clear_task_set(self) -> None:
        """CLEAR TASK SET: the tasks of every initiator on it end; the others are told."""
        self.control.run(self.core.clear_task_set())

    # ------------------------------------------------------------------ views
    def queue(self, depth: int = 32) -> Queue:
        """Many requests in flight from one thread; see `Queue`."""
        self.core._check_open()
        self._check_process()
        return Queue(self, depth)

    def makefile(self, mode: str = "rb", buffer_size: int = 1 << 20) -> io.BufferedIOBase | io.RawIOBase:
        """A seekable file over the LUN, at any offset. `mode` is "rb", "r+b" or "wb" (which truncates nothing)."""
        from blockwire.initiator.file import open_file

        self.core._check_open()
        self._check_process()
        return open_file(self, mode, buffer_size)

    def _check_process(self) -> None:
        if self._execute_io is _forked:
            _forked()


def lost(error: errors.Error) -> TaskDone:
    """A request that the plane refused because its session just ended, as a lost request; other errors rise."""
    if error.code not in LOST_CODES:
        raise error
    return TaskDone(0, 0, code=error.code)


def _forked(*_: object, **__: object) -> NoReturn:
    raise errors.ForkedError()


def _closed(*_: object, **__: object) -> NoReturn:
    raise errors.ClosedError("the logical unit was closed")


def _after_fork() -> None:
    # The plane's workers and the control thread exist in the parent only. Setting one attribute here costs the data
    # path nothing, where a look at the process id would cost every call.
    for handle in list(_handles):
        handle._execute_io = _forked


os.register_at_fork(after_in_child=_after_fork)


def _dropped(handle: Lun | Session, session: aio_session.Session, control: ControlThread) -> None:
    """What happens to a session whose handle nobody has any more: it ends, as an open file does."""
    if session.closed:
        return
    try:
        _ = control.loop
    except errors.Error:  # the parent's, or the interpreter ends, and its farewell closes what is open
        return
    warnings.warn(f"unclosed {handle!r}", ResourceWarning, source=handle, stacklevel=3)
    with contextlib.suppress(errors.Error, RuntimeError):
        control.start(session.close())


class Session:
    """One session with one target. Close it, or use it as a context manager."""

    __slots__ = ("_opened", "control", "core")

    def __init__(self, core: aio_session.Session, control: ControlThread, opened: bool = False) -> None:
        self.core = core
        self.control = control
        self._opened = opened
        """Whether this is what `connect` gave, and no view of a LUN's."""

    @property
    def keys(self) -> dict[str, str]:
        """The negotiated keys, RFC 7143 names and values."""
        return self.core.keys

    @property
    def target_name(self) -> str:
        """iSCSI name of the target."""
        return self.core.target_name

    @property
    def portal(self) -> Portal:
        """The portal that is in use (after redirects)."""
        return self.core.portal

    @property
    def reopened(self) -> int:
        """How often the session was opened again after a loss."""
        return self.core.reopened

    def __repr__(self) -> str:
        return repr(self.core)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Session belongs to its process: connect to its URL in another one")

    def __enter__(self) -> Self:
        if self.core.closed:
            raise errors.ClosedError("the session was closed")
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_opened", False):
            _dropped(self, self.core, self.control)

    def luns(self) -> list[LunInfo]:
        """Every logical unit with size, block size and identity, by number."""
        return self.control.run(self.core.luns())

    def lun(self, lun: int = 0, read_only: bool = False) -> Lun:
        """Opens one logical unit. NothingFoundError when there is none, DeviceError when it is no disk or not ready."""
        return Lun(self.control.run(self.core.lun(lun, read_only)), self.control, self)

    def retry_now(self) -> None:
        """The target is said to be back: a lost session is opened again at once."""
        self.control.loop.call_soon_threadsafe(self.core.retry_now)

    @property
    def cids(self) -> tuple[int, ...]:
        """Its live connections."""
        return self.core.cids

    def add_connection(self) -> int:
        """One more connection of the session; gives its CID. UsageError when MaxConnections allows no more, LoginError
        when the target refuses it."""
        return self.control.run(self.core.add_connection())

    def remove_connection(self, cid: int) -> None:
        """Logs one connection out; not the last. At ErrorRecoveryLevel 2 its tasks go on on the others."""
        self.control.run(self.core.remove_connection(cid))

    def set_rate(self, bytes_per_second: float, cid: int | None = None) -> None:
        """Limits what the session sends over all its connections, or what one connection sends, without a new login; 0
        lifts the limit. That of the session outlives its connections. What the target sends is limited there."""
        self.control.run(self.core.set_rate(bytes_per_second, cid))

    def renegotiate(self, keys: Mapping[str, str] | None = None, cid: int | None = None) -> dict[str, str]:
        """Negotiates keys anew on one live connection, or on each of them (RFC 7143 6.4), MaxRecvDataSegmentLength
        above all; what was declared for all is offered by later logins too. Gives the keys in force."""
        return self.control.run(self.core.renegotiate(keys, cid))

    def task_management(
        self, function: TaskFunction, lun: int = 0, *, task: TaskView | None = None, cid: int | None = None,
        timeout: float | None = None,
    ) -> TaskManagementResponse:  # fmt: skip
        """One task management function and its response (RFC 7143 11.5, RFC 7144 6). `task` names the task of ABORT
        TASK and QUERY TASK (see `tasks`). Functions 9 to 12 need iSCSIProtocolLevel=2. TimedOutError after it."""
        return self.control.run(self.core.task_management(function, lun, task=task, cid=cid, timeout=timeout))

    def tasks(self) -> tuple[TaskView, ...]:
        """The SCSI tasks that have not ended."""
        return self.control.run(self.core.tasks())

    def target_reset(self, cold: bool = False) -> None:
        """TARGET WARM RESET: the tasks of every initiator on every logical unit of the target end. A cold one ends
        every session besides, this one too."""
        self.control.run(self.core.target_reset(cold))

    def close(self) -> None:
        """Logs out and closes; idempotent."""
        self.control.run(self.core.close())
