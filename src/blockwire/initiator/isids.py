"""Which ISID a session gets: the same towards the same target after every restart, and never one that is in use.

The ISID names the SCSI initiator port, so persistent reservations and a target's state follow it (RFC 7143 4.4.3,
10.1.1 "conservative reuse"). The authority is drawn once per user; towards each target the lowest qualifier that no
session of any program of this user has is taken. Programs see each other by byte-range locks on a file per target.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import struct
from pathlib import Path
from typing import Final, Protocol

from blockwire.errors import ResourceError
from blockwire.names import Isid, prepare_name
from blockwire.session import IsidAllocator

_SET_LOCK: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)
"""Locks that belong to the open file, not to the process: two initiators of one program see each other too."""


class Isids(Protocol):
    """Hands out ISIDs. `target` is a target's name, or a portal for discovery."""

    def take(self, initiator_name: str, target: str) -> Isid:
        """One that no session has which `initiator_name` has with `target`."""
        ...

    def release(self, initiator_name: str, target: str, isid: Isid) -> None:
        """The session is over."""
        ...

    def close(self) -> None:
        """Nothing is in use any more."""
        ...


class RandomIsids:
    """ISIDs of this object's own random authority (type 10b, RFC 7143 11.12.5): for tests, and where no file can be
    kept."""

    def __init__(self) -> None:
        self._allocator = IsidAllocator(Isid.from_random(secrets.randbits(24), 0))

    def take(self, initiator_name: str, target: str) -> Isid:
        """See `Isids`."""
        return self._allocator.take(_key(initiator_name, target))

    def release(self, initiator_name: str, target: str, isid: Isid) -> None:
        """See `Isids`."""
        self._allocator.release(_key(initiator_name, target), isid)

    def close(self) -> None:
        """See `Isids`."""


class KeptIsids:
    """ISIDs that stay over restarts, kept under `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, int] = {}
        """By initiator and target: the open file whose bytes are locked."""
        self._used: dict[str, set[int]] = {}
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._base = Isid.from_random(_authority(directory / "authority"), 0)
        self._others = RandomIsids()

    def take(self, initiator_name: str, target: str) -> Isid:
        """See `Isids`; ResourceError when all 65536 are in use."""
        key = _key(initiator_name, target)
        used = self._used.setdefault(key, set())
        if not self._usable(key):
            return self._others.take(initiator_name, target)
        try:
            for qualifier in range(1 << 16):
                if qualifier not in used and self._lock(key, qualifier):
                    used.add(qualifier)
                    return self._base.with_qualifier(qualifier)
        except OSError:  # a file system without locks
            return self._others.take(initiator_name, target)
        raise ResourceError(f"every ISID towards {target} is in use")

    def release(self, initiator_name: str, target: str, isid: Isid) -> None:
        """See `Isids`."""
        key, qualifier = _key(initiator_name, target), isid.d
        if isid != self._base.with_qualifier(qualifier):
            self._others.release(initiator_name, target, isid)
            return
        used = self._used.get(key, set())
        if qualifier in used:
            used.discard(qualifier)
            self._set(self._files[key], fcntl.F_UNLCK, qualifier)
        if not used:
            self._used.pop(key, None)
            file = self._files.pop(key, None)
            if file is not None:
                os.close(file)

    def close(self) -> None:
        """See `Isids`."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()
        self._used.clear()

    def _usable(self, key: str) -> bool:
        """Opens the file of `key`; False where there can be none (a full disk, too many files)."""
        if key not in self._files:
            name = hashlib.sha256(key.encode()).hexdigest()[:32]
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._files[key] = os.open(self._directory / f"{name}.lock", flags, 0o600)
            except OSError:
                return False
        return True

    def _lock(self, key: str, qualifier: int) -> bool:
        return self._set(self._files[key], fcntl.F_WRLCK, qualifier)

    @staticmethod
    def _set(file: int, kind: int, at: int) -> bool:
        assert _SET_LOCK is not None
        # struct flock with its natural padding: type, whence, start, length, pid (which has to be 0).
        try:
            fcntl.fcntl(file, _SET_LOCK, struct.pack("hhqqi4x", kind, os.SEEK_SET, at, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        return True


def _key(initiator_name: str, target: str) -> str:
    return f"{prepare_name(initiator_name)}\n{prepare_name(target)}"


def _authority(path: Path) -> int:
    """24 random bits, drawn on first use; of two programs that start at once one wins."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(path.read_text(encoding="ascii").strip(), 16) & 0xFFFFFF
    drawn = secrets.randbits(24)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")
    draft.write_text(f"{drawn:06x}\n", encoding="ascii")
    try:
        os.link(draft, path)
    except FileExistsError:
        return int(path.read_text(encoding="ascii").strip(), 16) & 0xFFFFFF
    finally:
        draft.unlink()
    return drawn


def state_directory() -> Path:
    """`$XDG_STATE_HOME/blockwire/isid`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "blockwire" / "isid"


def kept_isids() -> Isids:
    """Those of this user; random ones where no file can be kept (a read-only container) or locked."""
    if _SET_LOCK is None:
        return RandomIsids()
    try:
        return KeptIsids(state_directory())
    except (OSError, RuntimeError, ValueError):
        return RandomIsids()
