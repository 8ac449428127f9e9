"""Reads CHAP secrets from where they are kept: a file of mode 0600, an environment variable, or a command's output.

Nothing here shows a secret: errors name the place it was looked for, never what was found there.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from blockwire import errors
from blockwire.auth.secrets import MAX_SECRET, Secret

VARIABLE: Final = "BLOCKWIRE_CHAP_SECRET"
"""The secret that authenticates the initiator."""
MUTUAL_VARIABLE: Final = "BLOCKWIRE_CHAP_MUTUAL_SECRET"
"""The secret that authenticates the target."""

COMMAND_SECONDS: Final = 30.0
"""How long a command may take; a password store may have to ask its agent."""
_LONGEST: Final = 4 * MAX_SECRET
"""No encoding of a secret is longer than this, in bytes; a file that goes on is none."""


def from_file(path: str) -> Secret:
    """From a file that nobody else can read: one line, its newline dropped.

    NotAllowedError when its mode is wider than 0600, MissingFileError when there is none. Pipes
    (``--chap-secret-file <(pass show disk)``) have no mode to check.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise errors.NotAllowedError(
                    f"{path} can be read by others", code="configuration.secret-readable",
                    evidence=f"mode {stat.S_IMODE(mode):04o}", next=f"chmod 600 {path}",
                )  # fmt: skip
            raw = file.read(_LONGEST + 1)
    except OSError as error:
        if isinstance(error, errors.Error):
            raise
        raise errors.from_os_error(error, f"cannot read the secret file {path}") from error
    return _parse(raw, f"the secret file {path}")


def from_environment(name: str, environment: Mapping[str, str] | None = None) -> Secret:
    """From a variable; ConfigurationError when it is not set or empty."""
    value = (os.environ if environment is None else environment).get(name, "")
    return _parse(value.encode(errors="surrogateescape"), f"${name}")


def from_command(words: str | Sequence[str]) -> Secret:
    """From the first line that a command prints; its errors go to our standard error. No shell is involved."""
    try:
        arguments = shlex.split(words) if isinstance(words, str) else list(words)
    except ValueError as error:
        raise errors.ConfigurationError(
            "the secret command cannot be split into words", code="configuration.secret-command", evidence=str(error),
            next="close its quotes",
        ) from None  # fmt: skip
    if not arguments:
        raise errors.ConfigurationError("the secret command is empty", code="configuration.secret-command")
    name = arguments[0]
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise errors.ConfigurationError(
            f"the secret command {name} did not end", code="configuration.secret-command",
            evidence=f"not within {COMMAND_SECONDS:g} s", next="run it by hand",
        ) from None  # fmt: skip
    except OSError as error:
        raise errors.from_os_error(error, f"cannot run the secret command {name}") from error
    if done.returncode:
        raise errors.ConfigurationError(
            f"the secret command {name} failed", code="configuration.secret-command",
            evidence=f"exit code {done.returncode}", next="run it by hand",
        )  # fmt: skip
    return _parse(done.stdout.partition(b"\n")[0], f"what the command {name} prints")


def from_text(text: str | bytes, what: str) -> Secret:
    """From a value that was given in place; ``what`` names it in errors."""
    return _parse(text if isinstance(text, bytes) else text.encode(), what)


def _parse(raw: bytes, where: str) -> Secret:
    """Text, or binary as ``0x…`` or ``0b…`` (RFC 7143 6.1); bytes that are no UTF-8 are taken as they are."""
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not raw:
        raise errors.ConfigurationError(
            f"there is no CHAP secret: {where} is empty" if not where.startswith("$") else f"{where} is not set",
            code="configuration.no-secret",
            next="put 12 to 255 bytes there" + (", or name a file with the secret" if where.startswith("$") else ""),
        )  # fmt: skip
    try:
        try:
            return Secret.from_text(raw.decode())
        except UnicodeDecodeError:
            return Secret(raw)
    except errors.ConfigurationError as error:
        error.evidence = f"{where}: {error.evidence}"
        raise
