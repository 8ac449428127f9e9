"""What commands print: text for people, one JSON object for programs, failures on stderr. Secrets never pass."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from blockwire import errors
from blockwire.names import Portal


def plain(text: str = "") -> None:
    """A line on stdout."""
    _print(visible(errors.redact(text)))


_UNSEEN = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


def visible(text: str) -> str:
    """With control characters written out: what a target says of itself must not steer the terminal."""
    return text.translate(_UNSEEN)


def _print(line: str) -> None:
    with _said():
        sys.stdout.write(line + "\n")


def flush() -> None:
    """What was printed has arrived, or this raises: a result that nobody gets is no success."""
    with _said():
        sys.stdout.flush()


@contextlib.contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader has gone, which is no fault of anybody
        raise
    except OSError as error:
        raise errors.from_os_error(error, "writing to the standard output") from error


def note(text: str) -> None:
    """A line on stderr, beside the result. Where that cannot be written the exit code has to do."""
    _tell(visible(errors.redact(text.rstrip("\n"))))


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _shown(value: Any) -> Any:
    """`value` as JSON takes it, every text in it redacted by itself: in JSON's own text a quote may look like a part of
    a secret."""
    if isinstance(value, str):
        return errors.redact(value)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Portal):
        return {"host": value.host, "port": value.port}
    if isinstance(value, Mapping):
        return {errors.redact(str(key)): _shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(item) for item in value]
    return errors.redact(str(value))


def dumps(value: Mapping[str, Any]) -> str:
    """One line of JSON, which stays JSON where the encoding lacks a character or a file's name is no text."""
    text = json.dumps(_shown(value), ensure_ascii=False)
    # JSON leaves DEL and the C1 control characters as they are, which a terminal obeys
    return text if can_show(text) and visible(text) == text else json.dumps(_shown(value))


def document(schema: str, value: Mapping[str, Any]) -> None:
    """The one JSON object of a command; `schema` is `ls/1`."""
    _print(dumps({"schema": f"blockwire.{schema}", **value}))


def event(name: str, value: Mapping[str, Any]) -> None:
    """One line of a JSON Lines stream."""
    _print(dumps({"event": name, "time": round(time.time(), 6), **value}))
    flush()


def failure(error: errors.Error, as_json: bool) -> None:
    """A failure on stderr: cause, what was seen, what to do."""
    if as_json:
        note(dumps(error.to_json()))
        return
    lines = [f"blockwire: {error.message}"]
    if error.evidence and error.evidence not in error.message:
        first, *more = error.evidence.splitlines()
        lines.append(f"  seen: {first}")
        lines += [f"        {line}" for line in more]
    if error.next:
        lines.append(f"  next: {error.next}")
    first, *more = visible(errors.redact("\n".join(lines))).splitlines()
    _tell("\n".join((style(first, "31"), *more)))


def colourful(stream: Any) -> bool:
    """Whether `stream` is a terminal that wants colour (NO_COLOR, TERM=dumb)."""
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def can_show(text: str) -> bool:
    """Whether the encoding of stdout has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def style(text: str, code: str) -> str:
    """`text` in an SGR colour, on a stderr that wants it."""
    return f"\x1b[{code}m{text}\x1b[0m" if colourful(sys.stderr) else text


def table(head: Sequence[str], rows: Iterable[Sequence[object]], right: frozenset[int] = frozenset()) -> str:
    """Columns by spaces, no frames: easy to read, and for `awk`. `right` are the columns that align right."""
    cells = [list(map(str, head)), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
