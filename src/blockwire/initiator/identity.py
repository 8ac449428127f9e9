"""The initiator's own name: kept per user, the same after every restart, set by `BLOCKWIRE_INITIATOR_NAME`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
from pathlib import Path

from blockwire.config.host import NAMING_AUTHORITY
from blockwire.errors import Error, UsageError
from blockwire.names import iscsi_name

VARIABLE = "BLOCKWIRE_INITIATOR_NAME"


def name_file() -> Path:
    """Where the name is kept: `$XDG_CONFIG_HOME/blockwire/initiator-name`."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "blockwire" / "initiator-name"


def _host() -> str:
    host = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")
    return host[:63] or "host"


def _kept(path: Path) -> str:
    try:
        return iscsi_name(path.read_text(encoding="utf-8", errors="replace").strip())
    except UsageError as error:
        error.evidence = f"{path}: {error.evidence}"
        error.next = "correct what stands in the file, or remove it to get a new name"
        raise


def default_initiator_name() -> str:
    """From the environment, else from the user's file, which is written on first use. Where no file can be kept (a
    read-only container) the name comes from host and user."""
    given = os.environ.get(VARIABLE, "")
    if given:
        try:
            return iscsi_name(given)
        except UsageError as error:
            error.next = f"correct ${VARIABLE}; {error.next}"
            raise
    try:
        path = name_file()
        with contextlib.suppress(FileNotFoundError):
            return _kept(path)
        name = f"{NAMING_AUTHORITY}:{_host()}-{secrets.token_hex(6)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Linked into place whole: of two programs that start at once one wins, and nobody reads half a name.
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")
        draft.write_text(name + "\n", encoding="utf-8")
        try:
            os.link(draft, path)
        except FileExistsError:
            return _kept(path)
        finally:
            draft.unlink()
        return name
    except (OSError, RuntimeError) as error:
        if isinstance(error, Error):
            raise
        digest = hashlib.sha256(f"{socket.gethostname()}\0{os.getuid()}".encode()).hexdigest()[:12]
        return f"{NAMING_AUTHORITY}:{_host()}-{digest}"
