"""What commands print: text for people, one JSON object for programs, failures on stderr. Secrets never pass."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blockwire import errors
from blockwire.names import Portal


def plain(text: str = "") -> None:
    """A line on stdout."""
    sys.stdout.write(errors.redact(text) + "\n")


def note(text: str) -> None:
    """A line on stderr, beside the result."""
    sys.stderr.write(errors.redact(text.rstrip("\n")) + "\n")
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
    """One line of JSON."""
    return json.dumps(_shown(value), ensure_ascii=False)


def document(schema: str, value: Mapping[str, Any]) -> None:
    """The one JSON object of a command; `schema` is `ls/1`."""
    sys.stdout.write(dumps({"schema": f"blockwire.{schema}", **value}) + "\n")


def event(name: str, value: Mapping[str, Any]) -> None:
    """One line of a JSON Lines stream."""
    sys.stdout.write(dumps({"event": name, "time": round(time.time(), 6), **value}) + "\n")
    sys.stdout.flush()


def failure(error: errors.Error, as_json: bool) -> None:
    """A failure on stderr: cause, what was seen, what to do."""
    if as_json:
        sys.stderr.write(dumps(error.to_json()) + "\n")
        return
    lines = [f"blockwire: {error.message}"]
    if error.evidence and error.evidence not in error.message:
        first, *more = error.evidence.splitlines()
        lines.append(f"  seen: {first}")
        lines += [f"        {line}" for line in more]
    if error.next:
        lines.append(f"  next: {error.next}")
    lines[0] = style(lines[0], "31")
    note("\n".join(lines))


def colourful(stream: Any) -> bool:
    """Whether `stream` is a terminal that wants colour (NO_COLOR, TERM=dumb)."""
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


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
