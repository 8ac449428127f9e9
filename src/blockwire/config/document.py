"""Configuration documents: TOML or JSON in, the same out; every fault one line with where, what and how."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from blockwire import errors
from blockwire.config.model import Configuration

_T = TypeVar("_T")


def checked(build: Callable[[], _T], source: str) -> _T:
    """What ``build`` returns; a pydantic fault becomes one ConfigurationError line that names the field."""
    try:
        return build()
    except ValidationError as fault:
        raise _one_line(fault, source) from None
    except errors.UsageError as error:
        raise errors.ConfigurationError(
            error.message, evidence=error.evidence or source, next=error.next, code=error.code
        ) from None


_BOUNDS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}
"""pydantic's faults with a bound, and how they are said."""


def _one_line(fault: ValidationError, source: str) -> errors.ConfigurationError:
    # A misspelt field is the cause of what else is missing; a list that became too short is the effect of a bad item.
    order = {"extra_forbidden": 0, "too_short": 2}
    first = min(fault.errors(include_url=False), key=lambda item: order.get(item["type"], 1))
    place = ".".join(str(part) for part in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, errors.Error):
        return errors.ConfigurationError(
            cause.message, evidence=cause.evidence or place, next=cause.next, code=cause.code
        )
    message = str(cause) if cause is not None else first["msg"]
    kind = first["type"]
    if kind == "extra_forbidden":
        message = f"there is no field {first['loc'][-1]!r}"
    elif kind == "missing":
        message = f"the field {first['loc'][-1]!r} is missing"
    elif kind == "literal_error":
        message = f"{first['input']!r} is not {first['ctx']['expected']}"
    elif kind in _BOUNDS:
        ((_, bound),) = first["ctx"].items()
        message = f"{first['loc'][-1]} {first['input']!r} has to be {_BOUNDS[kind]} {bound}"
    text = message if not place or cause is not None or kind in _BOUNDS else f"{place}: {message}"
    return errors.ConfigurationError(
        text, evidence=f"{source}{': ' + place if place else ''}", next="correct it and start again"
    )


def parse(text: str, source: str, *, toml: bool) -> Configuration:
    """The configuration in a document's text; ``source`` names it in errors."""
    try:
        value = tomllib.loads(text) if toml else json.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as fault:
        raise errors.ConfigurationError(
            f"{source} is no {'TOML' if toml else 'JSON'}", evidence=str(fault), next="correct the document"
        ) from None
    return checked(lambda: Configuration.model_validate(value), source)


def load(path: str | Path) -> Configuration:
    """The configuration in a file: JSON when its name ends so or it begins with a brace, else TOML."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as fault:
        raise errors.from_os_error(fault, f"configuration {path}") from fault
    except UnicodeDecodeError as fault:
        raise errors.ConfigurationError(
            f"{path} is no text", evidence=str(fault), next="give a TOML or JSON file"
        ) from None
    toml = not str(path).endswith(".json") and not text.lstrip().startswith("{")
    return parse(text, str(path), toml=toml)


def to_dict(configuration: Configuration) -> dict[str, Any]:
    """Plain data: what is a default is left out where it only makes noise (None), everything else stands."""
    return configuration.model_dump(mode="json", by_alias=True, exclude_none=True)


def to_json(configuration: Configuration) -> str:
    """One JSON object."""
    return json.dumps(to_dict(configuration), indent=2)


def to_toml(configuration: Configuration) -> str:
    """A TOML document that loads back to the same value."""
    lines: list[str] = []
    _table(lines, (), to_dict(configuration))
    return "\n".join(lines).strip() + "\n"


def _table(lines: list[str], path: tuple[str, ...], table: dict[str, Any]) -> None:
    nested: list[tuple[str, Any]] = []
    for key, value in table.items():
        tables = isinstance(value, list) and value and isinstance(value[0], dict)
        if tables or (isinstance(value, dict) and value):
            nested.append((key, value))
        elif value != {}:
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in nested:
        place = (*path, _key(key))
        if isinstance(value, dict):
            lines += ["", f"[{'.'.join(place)}]"]
            _table(lines, place, value)
        else:
            for item in value:
                lines += ["", f"[[{'.'.join(place)}]]"]
                _table(lines, place, item)


def _key(text: str) -> str:
    return text if text.replace("-", "").replace("_", "").isalnum() and text.isascii() else json.dumps(text)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
