"""Writes the ring of PDU headers of a session to a directory, as pcapng files that Wireshark reads."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from pathlib import Path

from blockwire import errors
from blockwire.dataplane.api import DataPlane, SessionId

_log = logging.getLogger("blockwire.trace")

MOST_FILES = 64
"""Files that one `Dumps` writes: a line that fails all night must not fill the disk."""
EVENTS = frozenset({"ConnectionLost", "ProtocolViolation", "DigestFailure"})
"""The plane's events that a dump is written for."""


class Dumps:
    """A directory that traces go to; it is made when it is missing. ConfigurationError when it cannot be written."""

    def __init__(self, directory: str | Path, most: int = MOST_FILES) -> None:
        self.directory = Path(directory)
        self.files: list[Path] = []
        """What was written, oldest first."""
        self._most = most
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.from_os_error(error, f"cannot write traces to {directory}") from error
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise errors.NotAllowedError(f"cannot write traces to {directory}", next="name another directory")

    def write(self, plane: DataPlane, session: SessionId, why: str) -> Path | None:
        """The headers of `session` that the plane still has, in a new file whose name tells time, session and `why`.
        None when nothing was written: that never stands in the way of what goes on."""
        if len(self.files) >= self._most:
            return None
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        word = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z])(?=[A-Z])", "-", why).lower()).strip("-")[:40] or "trace"
        path = self.directory / f"{stamp}-{os.getpid()}-{session}-{len(self.files)}-{word}.pcapng"
        unfinished = path.with_suffix(".part")
        try:
            # Whoever watches the directory finds whole files only.
            unfinished.write_bytes(plane.trace(session))
            unfinished.replace(path)
        except OSError as error:
            _log.error("no trace of session %d: %s", session, error)
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            return None
        self.files.append(path)
        _log.error("the last PDUs of session %d are in %s", session, path)
        return path
