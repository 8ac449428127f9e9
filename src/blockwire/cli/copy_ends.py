"""The two ends of a copy: files, pipes and LUNs. A source gives pieces, a destination takes them at their offsets."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import struct
import sys
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from blockwire import errors
from blockwire.cli.flags import URL_HELP, Login
from blockwire.initiator.geometry import pieces
from blockwire.names import Url, format_size

if TYPE_CHECKING:
    from blockwire.initiator.blocking import Lun

Piece: TypeAlias = "tuple[int, bytes | int]"
"""Offset, and the bytes or how many zeros."""

Identity: TypeAlias = "tuple[object, ...]"
"""What makes two ends the same thing."""

_BLKGETSIZE64 = 0x80081272
_ZEROS = bytes(1 << 20)
_GRAIN = 4096


def is_zero(data: bytes) -> bool:
    """Whether there is nothing but zeros; a memory comparison, which ends at the first other byte."""
    length = len(data)
    return data == (_ZEROS if length == len(_ZEROS) else _ZEROS[:length]) if length <= len(_ZEROS) else not any(data)


_PORTAL = re.compile(
    r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.%a-z]+\]):[0-9]{1,5}/?|[0-9]+(?:\.[0-9]+){3}/?|\[[0-9A-Fa-f:.%a-z]+\]/?"
)
"""HOST:PORT, an IPv4 address or one in brackets: nobody calls a file so, but who forgets the target writes it."""


def is_url(word: str) -> bool:
    """Whether a word names a LUN rather than a file: a scheme, HOST/IQN, or what can only be a portal. `./` in front
    makes it a file; one that is there is a file."""
    if "://" in word:
        return True
    named = any(f"/{kind}." in word for kind in ("iqn", "eui", "naa")) or _PORTAL.fullmatch(word) is not None
    return named and not os.path.exists(word)


def is_pipe(word: str) -> bool:
    """Whether a destination takes its bytes one after the other: `-`, a named pipe, a character device."""
    if word == "-":
        return True
    if is_url(word):
        return False
    try:
        mode = os.stat(word).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def lun_identity(lun: Lun) -> Identity | None:
    """Target and LUN: the same over whichever portal."""
    return ("lun", lun.core.session.url.target, lun.lun)


def file_identity(state: os.stat_result) -> Identity | None:
    """Device and inode of a file, the device's number of a block device."""
    if stat.S_ISREG(state.st_mode):
        return ("file", state.st_dev, state.st_ino)
    return ("device", state.st_rdev) if stat.S_ISBLK(state.st_mode) else None


class Source(Protocol):
    """Where bytes come from."""

    name: str
    size: int | None
    """Bytes; None for a pipe."""
    identity: Identity | None
    """Equal for the same thing under two names; None when it cannot be told."""

    def pieces(self) -> Iterator[Piece]:
        """All of it, each byte once."""
        ...


class Destination(Protocol):
    """Where bytes go."""

    name: str
    capacity: int | None
    """Bytes it can take; None when it grows."""
    overwrites: str
    """What is lost by the copy, for people; empty when nothing is."""
    in_place: bool
    """Whether what was written stays when the copy does not end."""
    identity: Identity | None
    """As for a source."""

    def write(self, offset: int, data: bytes) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...

    def finish(self, size: int) -> None:
        """All `size` bytes were given: wait for them, and make them durable."""
        ...

    def read_back(self, offset: int, length: int, depth: int) -> Iterator[tuple[int, bytes]]:
        """What is there now, in pieces of `length` bytes up to `offset`."""
        ...

    def commit(self) -> None:
        """The copy is complete."""
        ...


# ---------------------------------------------------------------------------------------------- LUNs


class LunSource:
    """Reads a LUN with many requests in flight."""

    def __init__(self, lun: Lun, chunk: int, depth: int, in_order: bool) -> None:
        self.lun = lun
        self.name = str(lun.core.session.url.at(lun=lun.lun))
        self.size: int | None = lun.size
        self.identity: Identity | None = lun_identity(lun)
        self._chunk = max(chunk, lun.block_size)
        self._depth = depth
        self._in_order = in_order

    def pieces(self) -> Iterator[Piece]:
        """In the order of the answers, or of the offsets."""
        for offset, data in read_lun(self.lun, self.lun.size, self._chunk, self._depth, self._in_order):
            yield offset, (len(data) if is_zero(data) else data)


def read_lun(lun: Lun, length: int, chunk: int, depth: int, in_order: bool = False) -> Iterator[tuple[int, bytes]]:
    """The first `length` bytes (whole blocks) with `depth` requests in flight."""
    todo = pieces(0, length, chunk)
    waiting: dict[int, int] = {}
    expected: deque[int] = deque()
    held: dict[int, bytes] = {}
    with lun.queue(depth) as queue:
        more = True
        while more or waiting or held:
            while more and len(waiting) < depth and len(held) < 4 * depth:
                try:
                    offset, size = next(todo)
                except StopIteration:
                    more = False
                    break
                waiting[queue.pread(size, offset)] = offset
                expected.append(offset)
            for done in queue.completions():
                if done.error is not None:
                    raise done.error
                offset = waiting.pop(done.tag)
                if not in_order:
                    yield offset, done.data or b""
                else:
                    held[offset] = done.data or b""
            while in_order and expected and expected[0] in held:
                offset = expected.popleft()
                yield offset, held.pop(offset)


class LunDestination:
    """Writes a LUN with many requests in flight; an edge that is no whole block is read first."""

    def __init__(self, lun: Lun, depth: int) -> None:
        self.lun = lun
        self.name = str(lun.core.session.url.at(lun=lun.lun))
        self.capacity: int | None = lun.size
        self.in_place = True
        self.identity: Identity | None = lun_identity(lun)
        self.overwrites = f"{self.name} ({lun.identity}, {format_size(lun.size)})"
        self._queue = lun.queue(depth)
        self._tail: tuple[int, bytes] | None = None

    def close(self, kind: Any, error: Any, trace: Any) -> None:
        """Waits for what is in flight; with an exception it is aborted."""
        self._queue.__exit__(kind, error, trace)

    def _collect(self, minimum: int = 0) -> None:
        for done in self._queue.completions(minimum):
            if done.error is not None:
                raise done.error

    def write(self, offset: int, data: bytes) -> None:
        """Submits; waits while the queue is full."""
        rest = len(data) % self.lun.block_size
        if rest:
            self._edge(offset + len(data) - rest, data[-rest:])
            data = data[:-rest]
        if data:
            self._queue.pwrite(data, offset)
            self._collect()

    def zero(self, offset: int, length: int) -> None:
        """WRITE SAME, where the device has it."""
        rest = length % self.lun.block_size
        if rest:
            self._edge(offset + length - rest, bytes(rest))
            length -= rest
        for start, size in pieces(offset, length, 1 << 30):
            self._queue.zero(start, size)
        self._collect()

    def _edge(self, offset: int, data: bytes) -> None:
        old = self.lun.pread(self.lun.block_size, offset)
        self.lun.pwrite(data + old[len(data) :], offset)

    def finish(self, size: int) -> None:
        """Drains the queue and flushes the device."""
        while self._queue.in_flight:
            self._collect(1)
        self._collect()
        self.lun.flush()

    def read_back(self, offset: int, length: int, depth: int) -> Iterator[tuple[int, bytes]]:
        """From the device."""
        whole = -(-offset // self.lun.block_size) * self.lun.block_size
        for start, data in read_lun(self.lun, whole, length, depth):
            yield start, data[: offset - start]

    def commit(self) -> None:
        """Nothing is left to do."""


# ---------------------------------------------------------------------------------------------- files


def _file_size(descriptor: int) -> int | None:
    state = os.fstat(descriptor)
    if stat.S_ISREG(state.st_mode):
        return state.st_size
    if stat.S_ISBLK(state.st_mode):
        size: int = struct.unpack("Q", fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8)))[0]
        return size
    return None


class FileSource:
    """Reads a file; its holes are found by SEEK_DATA and never read."""

    def __init__(self, descriptor: int, name: str, chunk: int) -> None:
        self.name = name
        self.size = _file_size(descriptor)
        self.identity: Identity | None = file_identity(os.fstat(descriptor))
        self._descriptor = descriptor
        self._chunk = chunk

    def pieces(self) -> Iterator[Piece]:
        """In order."""
        if self.size is None:
            yield from self._stream()
            return
        position = 0
        while position < self.size:
            start, end = self._extent(position)
            if start > position:
                yield position, start - position
            position = start
            while position < end:
                data = os.pread(self._descriptor, min(self._chunk, end - position), position)
                if not data:
                    raise errors.Error(
                        f"{self.name} became shorter while it was read", code="copy.source-changed", whose="local",
                        evidence=f"{self.size} bytes at the start, ends at {position}",
                    )  # fmt: skip
                yield position, (len(data) if is_zero(data) else data)
                position += len(data)

    def _extent(self, position: int) -> tuple[int, int]:
        """Where the next data starts and ends."""
        size = self.size or 0
        try:
            start = os.lseek(self._descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return size, size
            return position, size
        # To whole 4 KiB: what lies between is read as the zeros it is, and no write starts inside a block.
        start = start // _GRAIN * _GRAIN
        try:
            end = os.lseek(self._descriptor, start, os.SEEK_HOLE)
            if end == start:
                end = os.lseek(self._descriptor, start + _GRAIN, os.SEEK_HOLE)
        except OSError:
            return start, size
        return min(start, size), min(-(-end // _GRAIN) * _GRAIN, size)

    def _stream(self) -> Iterator[Piece]:
        position = 0
        while True:
            parts, have = [], 0
            while have < self._chunk:
                part = os.read(self._descriptor, self._chunk - have)
                if not part:
                    break
                parts.append(part)
                have += len(part)
            data = b"".join(parts)
            if data:
                yield position, (len(data) if is_zero(data) else data)
                position += len(data)
            if have < self._chunk:
                return


class FileDestination:
    """Writes a file. A regular file appears under its name only when the copy is complete (and verified)."""

    def __init__(self, path: str, size: int | None) -> None:
        self.name = path
        self.capacity: int | None = None
        self.overwrites = ""
        self.in_place = False
        self.identity: Identity | None = None
        self._final: str | None = None
        self._path = path
        try:
            state = os.stat(path)
        except FileNotFoundError:
            state = None
        if state is not None:
            self.identity = file_identity(state)
        if state is not None and stat.S_ISDIR(state.st_mode):
            raise errors.UsageError(f"{path} is a directory", next="name a file in it")
        if state is None or stat.S_ISREG(state.st_mode):
            target = os.path.realpath(path)
            if state is not None:
                self.overwrites = f"{path} ({format_size(state.st_size)})"
            self._final = target
            self._path = os.path.join(
                os.path.dirname(target) or ".", f".{os.path.basename(target)}.{secrets.token_hex(4)}.part"
            )
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            if state is not None:
                with contextlib.suppress(OSError):
                    os.fchmod(self._descriptor, stat.S_IMODE(state.st_mode))
            try:
                if size is not None:
                    free = os.fstatvfs(self._descriptor)
                    os.ftruncate(self._descriptor, size)
                    self._free = free.f_bavail * free.f_frsize
            except OSError:
                self.abandon()
                raise
        else:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self.in_place = True
            self.capacity = _file_size(self._descriptor)
            self.overwrites = path if self.capacity is not None else ""

    def abandon(self) -> None:
        """Closes, and removes what is not complete."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if self._final is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)

    def write(self, offset: int, data: bytes) -> None:
        """At once; the page cache is the queue."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            offset, view = offset + written, view[written:]

    def zero(self, offset: int, length: int) -> None:
        """A new file has a hole there already; a device gets zeros."""
        if self._final is None:
            for start, size in pieces(offset, length, len(_ZEROS)):
                self.write(start, _ZEROS[:size])

    def finish(self, size: int) -> None:
        """Sets the size and syncs."""
        if self._final is not None:
            os.ftruncate(self._descriptor, size)
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):  # a pipe or character device has none
                raise

    def read_back(self, offset: int, length: int, depth: int) -> Iterator[tuple[int, bytes]]:
        """From the file."""
        for start, size in pieces(0, offset, length):
            data = b""
            while len(data) < size:
                part = os.pread(self._descriptor, size - len(data), start + len(data))
                if not part:
                    break
                data += part
            yield start, data

    def commit(self) -> None:
        """Puts the file under its name."""
        if self._final is not None:
            os.replace(self._path, self._final)
            self._final = None


class PipeDestination:
    """Standard output, or another pipe: in order, zeros as zeros."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self.capacity: int | None = None
        self.overwrites = ""
        self.in_place = True
        self.identity: Identity | None = None
        self._descriptor = descriptor

    def write(self, offset: int, data: bytes) -> None:
        """All of it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def zero(self, offset: int, length: int) -> None:
        """As bytes."""
        for _, size in pieces(0, length, len(_ZEROS)):
            self.write(0, _ZEROS[:size])

    def finish(self, size: int) -> None:
        """The reader decides what is durable."""

    def read_back(self, offset: int, length: int, depth: int) -> Iterator[tuple[int, bytes]]:
        """A pipe cannot be read again."""
        raise errors.UsageError("a pipe cannot be verified")

    def commit(self) -> None:
        """Nothing is left to do."""


# ---------------------------------------------------------------------------------------------- opening


def _url(word: str, login: Login) -> Url:
    if login.portal:
        raise errors.UsageError("-p is for commands with one URL", next=f"write the portal in front: {URL_HELP}")
    return login.url(word)


@contextlib.contextmanager
def open_source(word: str, login: Login, chunk: int, depth: int, in_order: bool) -> Iterator[Source]:
    """The source that a word names."""
    import blockwire

    if word == "-":
        yield FileSource(sys.stdin.fileno(), "-", chunk)
    elif is_url(word):
        with blockwire.open(_url(word, login), read_only=True, **login.timed) as lun:
            yield LunSource(lun, chunk, depth, in_order)
    else:
        try:
            descriptor = os.open(word, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise errors.from_os_error(error, f"cannot read {word}") from error
        try:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise errors.UsageError(f"{word} is a directory", next="name a file")
            yield FileSource(descriptor, word, chunk)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def open_destination(word: str, login: Login, size: int | None, depth: int) -> Iterator[Destination]:
    """The destination that a word names; what is incomplete at an exception is aborted or removed."""
    import blockwire

    if word == "-":
        yield PipeDestination(sys.stdout.fileno(), "-")
    elif is_url(word):
        with blockwire.open(_url(word, login), **login.timed) as lun:
            if lun.read_only:
                raise errors.ReadOnlyError(
                    f"{word} is read-only", evidence="MODE SENSE, WP", status=0,
                    next="serve it without -r, or copy to another LUN",
                )  # fmt: skip
            there = LunDestination(lun, depth)
            try:
                yield there
            except BaseException:
                there.close(*sys.exc_info())
                raise
            there.close(None, None, None)
    else:
        try:
            file = None if is_pipe(word) else FileDestination(word, size)
            descriptor = os.open(word, os.O_WRONLY | os.O_CLOEXEC) if file is None else -1
        except errors.Error:
            raise
        except OSError as error:
            raise errors.from_os_error(error, f"cannot write {word}") from error
        try:
            yield PipeDestination(descriptor, word) if file is None else file
        finally:
            if file is None:
                os.close(descriptor)
            else:
                file.abandon()
