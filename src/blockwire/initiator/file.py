"""A LUN as a file: any offset, any length. Partial blocks are read, changed and written back."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any, Self

from blockwire import errors

if TYPE_CHECKING:
    from blockwire.initiator import blocking, logical_unit

_MODES = {"rb": (True, False), "r+b": (True, True), "rb+": (True, True), "wb": (False, True), "w+b": (True, True)}


def parse_mode(mode: str) -> tuple[bool, bool]:
    """(readable, writable). "wb" does not truncate: a LUN has the size that it has."""
    try:
        return _MODES[mode]
    except KeyError:
        raise errors.UsageError(f'makefile: mode {mode!r} is none of "rb", "r+b", "wb"', code="usage.mode") from None


class LunRawFile(io.RawIOBase):
    """The unbuffered file. One position, one thread at a time; unaligned writes read the edge blocks first."""

    _can_write = False  # until it is known: one whose making fails is closed by its base class

    def __init__(self, lun: blocking.Lun, mode: str) -> None:
        super().__init__()
        self._lun = lun
        readable, writable = parse_mode(mode)
        if writable and lun.read_only:
            raise errors.ReadOnlyError("makefile: the logical unit is read-only", status=0)
        self._can_read, self._can_write = readable, writable
        self._position = 0
        self._lock = threading.Lock()
        self.name = repr(lun)
        self.mode = mode

    def readable(self) -> bool:
        """Whether the mode lets it read."""
        return self._can_read

    def writable(self) -> bool:
        """Whether the mode lets it write."""
        return self._can_write

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position, bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position; past the end is allowed, as in a file."""
        self._check()
        self._position = _moved(self._position, self._lun.size, offset, whence)
        return self._position

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def readinto(self, buffer: Any) -> int:
        """Fills as much of `buffer` as the LUN has from the position."""
        self._check()
        if not self._can_read:
            raise io.UnsupportedOperation("not readable")
        view = memoryview(buffer).cast("B")
        with self._lock:
            length = max(0, min(view.nbytes, self._lun.size - self._position))
            if length:
                read_range(self._lun, self._position, view[:length])
            self._position += length
        return length

    def write(self, data: Any) -> int:
        """Writes at the position; less than `data` only at the end of the LUN, ENOSPC there."""
        self._check()
        if not self._can_write:
            raise io.UnsupportedOperation("not writable")
        view = memoryview(data).cast("B")
        with self._lock:
            length = max(0, min(view.nbytes, self._lun.size - self._position))
            if not length and view.nbytes:
                raise OSError(28, f"the logical unit ends at byte {self._lun.size}")
            if length:
                write_range(self._lun, self._position, view[:length])
            self._position += length
        return length

    def truncate(self, size: int | None = None) -> int:
        """Not possible: a LUN has the size that it has."""
        raise io.UnsupportedOperation("a logical unit cannot be truncated")

    def close(self) -> None:
        """Flushes to stable storage when it could write."""
        if not self.closed:
            try:
                if self._can_write and not self._lun.closed:
                    self._lun.flush()
            finally:
                super().close()


def _moved(position: int, size: int, offset: int, whence: int) -> int:
    """Where a seek leads."""
    base = {io.SEEK_SET: 0, io.SEEK_CUR: position, io.SEEK_END: size}.get(whence)
    if base is None:
        raise ValueError(f"whence {whence} is none of 0, 1, 2")
    if base + offset < 0:
        raise ValueError("the position would be negative")
    return base + offset


def read_range(lun: blocking.Lun, offset: int, view: memoryview) -> None:
    """Fills `view` from any byte offset."""
    block = lun.block_size
    head, length = offset % block, view.nbytes
    if not head and not length % block:
        lun.preadinto(view, offset)
        return
    start, end = offset - head, -(-(offset + length) // block) * block
    view[:] = memoryview(lun.pread(end - start, start))[head : head + length]


def write_range(lun: blocking.Lun, offset: int, view: memoryview) -> None:
    """Writes `view` at any byte offset: whole blocks as they are, the edge blocks read first."""
    block = lun.block_size
    head = offset % block
    if head:
        size = min(block - head, view.nbytes)
        _change(lun, offset - head, head, view[:size])
        offset, view = offset + size, view[size:]
    whole = view.nbytes // block * block
    if whole:
        lun.pwrite(view[:whole], offset)
        offset, view = offset + whole, view[whole:]
    if view.nbytes:
        _change(lun, offset, 0, view)


def _change(lun: blocking.Lun, start: int, at: int, view: memoryview) -> None:
    old = bytearray(lun.pread(lun.block_size, start))
    old[at : at + view.nbytes] = view
    lun.pwrite(bytes(old), start)


def open_file(lun: blocking.Lun, mode: str, buffer_size: int) -> io.BufferedIOBase | LunRawFile:
    """The buffered file of `Lun.makefile`; `buffer_size` 0 gives the raw one."""
    raw = LunRawFile(lun, mode)
    if not buffer_size:
        return raw
    buffer_size = max(buffer_size, lun.block_size)
    if raw.readable() and raw.writable():
        return io.BufferedRandom(raw, buffer_size)
    if raw.writable():
        return io.BufferedWriter(raw, buffer_size)
    return io.BufferedReader(raw, buffer_size)


class AsyncLunFile:
    """The file of `blockwire.aio`: the same calls, awaited; unbuffered. For one task at a time."""

    def __init__(self, lun: logical_unit.Lun, mode: str, buffer_size: int) -> None:
        self._lun = lun
        self._can_read, self._can_write = parse_mode(mode)
        if self._can_write and lun.read_only:
            raise errors.ReadOnlyError("makefile: the logical unit is read-only", status=0)
        self._position = 0
        self.closed = False
        self.mode = mode

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def tell(self) -> int:
        """The position, bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position."""
        self._check()
        self._position = _moved(self._position, self._lun.size, offset, whence)
        return self._position

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    async def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from the position; all that is left when it is negative."""
        self._check()
        if not self._can_read:
            raise io.UnsupportedOperation("not readable")
        left = max(0, self._lun.size - self._position)
        length = left if size < 0 else min(size, left)
        if not length:
            return b""
        block = self._lun.block_size
        start = self._position // block * block
        end = -(-(self._position + length) // block) * block
        data = await self._lun.pread(end - start, start)
        at = self._position - start
        self._position += length
        return data if end - start == length else data[at : at + length]

    async def write(self, data: Any) -> int:
        """Writes `data` at the position; less than it only at the end of the LUN, ENOSPC there."""
        self._check()
        if not self._can_write:
            raise io.UnsupportedOperation("not writable")
        view = memoryview(data).cast("B")
        length = max(0, min(view.nbytes, self._lun.size - self._position))
        if not length and view.nbytes:
            raise OSError(28, f"the logical unit ends at byte {self._lun.size}")
        block = self._lun.block_size
        start = self._position // block * block
        end = -(-(self._position + length) // block) * block
        at = self._position - start
        if end - start == length:
            await self._lun.pwrite(view[:length], start)
        else:
            whole = bytearray(end - start)
            whole[:block] = await self._lun.pread(block, start)
            if end - start > block:
                whole[-block:] = await self._lun.pread(block, end - block)
            whole[at : at + length] = view[:length]
            await self._lun.pwrite(bytes(whole), start)
        self._position += length
        return length

    async def flush(self) -> None:
        """What was written is on stable storage when this ends."""
        self._check()
        await self._lun.flush()

    async def close(self) -> None:
        """Flushes when it could write; idempotent."""
        if not self.closed:
            self.closed = True
            if self._can_write:
                await self._lun.flush()
