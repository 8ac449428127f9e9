"""How a store and a filter are written in one word: ``ram:1G?serial=A1``, ``file:PATH``, ``delay:all=5ms``.

A word without a known scheme is a literal path: ``?`` and ``:`` in it are part of the file's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from blockwire.errors import ConfigurationError, UsageError
from blockwire.names import parse_size

SIZED = {"ram", "null"}
"""Schemes whose word is a size."""
PATHS = {"file"}
"""Schemes whose word is a path."""
PLANNED = {"rbd", "ceph", "gluster", "nbd", "tcmu", "vhost", "python"}
"""Schemes that have a place and are not there yet: a clear error, never a file of that name."""

UNIT_OPTIONS = ("serial", "vendor", "product", "revision", "block_size", "read_only", "size")
"""Options of a store's query that describe the logical unit."""
STORE_OPTIONS: dict[str, tuple[str, ...]] = {"ram": ("file",), "file": ("io", "threads", "direct"), "null": ()}
"""Options of a store's query that go to the store."""

FILTER_OPTIONS: dict[str, tuple[str, ...]] = {
    "check": (),
    "delay": ("all", "read", "write", "zero", "punch", "copy", "flush", "resize"),
    "fault": ("op", "offset", "len", "after", "count", "probability", "seed", "errno"),
    "readonly": (),
}
"""Filters and their parameters."""
PLANNED_FILTERS = {"cow", "rate", "trace"}

_TRUE = {"1", "yes", "true", "on", ""}
_FALSE = {"0", "no", "false", "off"}


@dataclass(frozen=True, slots=True)
class StoreWord:
    """A parsed store: scheme, path or size, and the options of its query, split by whom they concern."""

    scheme: str
    path: str
    size: int | None
    store_options: dict[str, str]
    unit_options: dict[str, str]


def _fail(message: str, evidence: str, then: str, code: str) -> ConfigurationError:
    return ConfigurationError(message, evidence=evidence, next=then, code=code)


def bytes_of(text: str | int, what: str) -> int:
    """A size in bytes from ``10G`` or a number; ConfigurationError that names ``what``."""
    if isinstance(text, int):
        return text
    try:
        return parse_size(text)
    except UsageError as error:
        raise _fail(
            f"{what}: {text!r} is not a size", error.evidence or what, error.next, "configuration.size"
        ) from None


def truth(text: str, what: str) -> bool:
    """A yes or no written as a word."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise _fail(f"{what}: {text!r} is neither yes nor no", what, "write yes or no", "configuration.value")


def _query(word: str, query: str, scheme: str) -> tuple[dict[str, str], dict[str, str]]:
    store: dict[str, str] = {}
    unit: dict[str, str] = {}
    for item in query.split("&") if query else ():
        key, equals, value = item.partition("=")
        known = STORE_OPTIONS[scheme]
        if key in known:
            into = store
        elif key in UNIT_OPTIONS:
            into = unit
        else:
            names = ", ".join(sorted((*known, *UNIT_OPTIONS)))
            raise _fail(f"{scheme}: has no option {key!r}", word, f"it has {names}", "configuration.store-option")
        if not equals and key not in ("read_only", "direct"):
            raise _fail(f"option {key!r} has no value", word, f"write {key}=VALUE", "configuration.store-option")
        if key in store or key in unit:
            raise _fail(f"option {key!r} stands twice", word, "give it once", "configuration.store-option")
        into[key] = unquote(value)
    return store, unit


def parse_store(word: str) -> StoreWord:
    """The parts of a store word; ConfigurationError says what is wrong with it and what would be right."""
    if not word:
        raise _fail("a store is empty", repr(word), "write ram:1G, a path or null:10G", "configuration.store")
    try:
        word.encode()
    except UnicodeEncodeError:
        # A configuration is a document, in TOML or JSON: it has no way to write such a name.
        then = "rename it, or serve it by a symbolic link"
        raise _fail("a store's name has to be UTF-8", ascii(word), then, "configuration.store") from None
    scheme, colon, rest = word.partition(":")
    if colon and scheme in SIZED | PATHS:
        body, _, query = rest.partition("?")
        store, unit = _query(word, query, scheme)
        if scheme in SIZED:
            if not body and "size" not in unit:
                then = f"write {scheme}:1G"
                raise _fail(f"{scheme}: needs a size", word, then, "configuration.store")
            size = bytes_of(body, word) if body else None
            return StoreWord(scheme, "", size, store, unit)
        if not body:
            raise _fail("file: needs a path", word, "write file:disk.img", "configuration.store")
        return StoreWord(scheme, unquote(body), None, store, unit)
    if colon and scheme in PLANNED and "/" not in scheme:
        known = ", ".join(f"{name}:" for name in sorted(SIZED | PATHS))
        then = f"use one of {known} or a path"
        raise _fail(f"{scheme}: stores are planned, not there yet", word, then, "configuration.store-scheme")
    return StoreWord("file", word, None, {}, {})


def unknown_scheme(path: str) -> str | None:
    """The scheme a missing file's name looks like having (``rdb:pool/image``), for the hint of an error."""
    scheme, colon, _ = path.partition(":")
    return scheme if colon and scheme.isalnum() and scheme.islower() else None


@dataclass(frozen=True, slots=True)
class FilterWord:
    """A parsed filter: its name and its parameters."""

    name: str
    options: dict[str, str]


def parse_filter(word: str) -> FilterWord:
    """``NAME`` or ``NAME:key=value,key=value``; ConfigurationError for what is not known."""
    name, _, rest = word.partition(":")
    if name in PLANNED_FILTERS:
        known = ", ".join(sorted(FILTER_OPTIONS))
        raise _fail(f"filter {name} is planned, not there yet", word, f"filters: {known}", "configuration.filter")
    if name not in FILTER_OPTIONS:
        known = ", ".join(sorted(FILTER_OPTIONS))
        raise _fail(f"there is no filter {name!r}", word, f"filters: {known}", "configuration.filter")
    options: dict[str, str] = {}
    for item in rest.split(",") if rest else ():
        key, equals, value = item.partition("=")
        if not equals and name == "delay" and not options:
            key, value = "all", key  # delay:5ms means every operation
        elif not equals:
            raise _fail(f"{item!r} is not KEY=VALUE", word, f"write {name}:KEY=VALUE", "configuration.filter")
        if key not in FILTER_OPTIONS[name]:
            known = ", ".join(FILTER_OPTIONS[name]) or "none"
            raise _fail(f"filter {name} has no option {key!r}", word, f"it has {known}", "configuration.filter")
        options[key] = value
    return FilterWord(name, options)
