"""`blockwire secret`: a new CHAP secret, random and nothing else (RFC 7143 9.2.1)."""

from __future__ import annotations

import os

import click

from blockwire import errors
from blockwire.auth.secrets import Secret
from blockwire.cli import output

EPILOG = """\b
Examples:
  blockwire secret lab.secret
  blockwire serve disk.img --chap-user lab --chap-secret-file lab.secret
  blockwire secret --text windows.secret       # for a peer that takes no binary secret
  pass insert -m lab < <(blockwire secret -)   # '-' is the standard output"""


@click.command(epilog=EPILOG)
@click.argument("file")
@click.option("--text", is_flag=True, help="16 printable characters (96 random bits) instead of 128 random bits.")
def command(file: str, text: bool) -> None:
    """Make a new CHAP secret and keep it in FILE, which only you can read.

    An existing file is left alone. The secret is not shown.
    """
    line = Secret.draw(os.urandom, text=text).to_text() + "\n"
    if file == "-":
        output.plain(line.rstrip("\n"))
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise errors.from_os_error(error, f"cannot make the secret file {file}") from error
    with open(descriptor, "w", encoding="ascii") as out:
        out.write(line)
