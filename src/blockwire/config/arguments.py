"""From the words of `serve` to the configuration value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blockwire.config.authentication import AuthenticationConfig
from blockwire.config.document import checked
from blockwire.config.host import default_target_name, host_id
from blockwire.config.model import Configuration
from blockwire.config.store_words import bytes_of, parse_store
from blockwire.errors import ConfigurationError


def placed(word: str) -> tuple[int, str]:
    """``3=STORE`` as (3, STORE)."""
    number, equals, store = word.partition("=")
    if not equals or not number.isdigit() or not store:
        raise ConfigurationError(
            f"{word!r} is not LUN=STORE", evidence=word, next="write --lun 3=ram:1G", code="configuration.lun"
        )
    return int(number), store


def key_value(word: str) -> tuple[str, str]:
    """``MaxBurstLength=1048576`` as a pair."""
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise ConfigurationError(
            f"{word!r} is not NAME=VALUE",
            evidence=word,
            next="write --key MaxBurstLength=1048576",
            code="configuration.key",
        )
    return name, value


def build(
    stores: Sequence[str] = (),
    *,
    luns: Sequence[str] = (),
    portals: Sequence[str] = (),
    advertise: Sequence[str] = (),
    target_name: str | None = None,
    read_only: bool = False,
    size: str | int | None = None,
    block_size: int | None = None,
    allow: Sequence[str] = (),
    keys: Sequence[str] = (),
    filters: Sequence[str] = (),
    serial: str | None = None,
    host: str | None = None,
    authentication: AuthenticationConfig | None = None,
    rate: int = 0,
    keep_alive_interval: float | None = None,
    keep_alive_timeout: float | None = None,
) -> Configuration:
    """The configuration that `serve`'s arguments mean.

    ``stores`` become LUN 0, 1, … in the places that ``luns`` (``3=STORE``) leave free. ``size`` creates files that are
    missing; it concerns path stores only. ``filters`` (next to the store first) and ``block_size`` concern every LUN;
    a store's own query wins. ``serial`` is for a single LUN. ``authentication`` is asked for by the target and by
    discovery. ``rate`` is in bytes per second for each session, ``keep_alive_…`` in seconds.
    """
    words: dict[int, str] = {}
    for word in luns:
        number, store = placed(word)
        if number in words:
            raise ConfigurationError(f"LUN {number} is given twice", evidence=word, next="give each LUN once")
        words[number] = store
    free = 0
    for store in stores:
        while free in words:
            free += 1
        words[free] = store
    if not words:
        raise ConfigurationError(
            "there is nothing to serve", evidence="no store was given", next="blockwire serve ram:1G, or a path"
        )
    if serial is not None and len(words) > 1:
        raise ConfigurationError(
            "one serial number for several LUNs", evidence=serial, next="write it into the store: ram:1G?serial=A1"
        )
    units = []
    for number in sorted(words):
        unit: dict[str, Any] = {
            "lun": number,
            "store": words[number],
            "filters": tuple(filters),
            "read_only": read_only,
        }
        if block_size is not None:
            unit["block_size"] = block_size
        if serial is not None:
            unit["serial"] = serial
        parsed = parse_store(words[number])
        if size is not None:
            if parsed.scheme != "file":
                raise ConfigurationError(
                    f"--size does not go with {words[number]}", evidence=f"--size {size}",
                    next=f"write the size into the store: {parsed.scheme}:SIZE", code="configuration.size",
                )  # fmt: skip
            options = {name: text for name, text in parsed.unit_options.items() if name != "size"}
            unit["store"] = {"scheme": "file", "path": parsed.path, "options": parsed.store_options}
            unit["store"]["size"] = bytes_of(parsed.unit_options.get("size", size), "--size")
            unit |= options
            if "block_size" in options:
                unit["block_size"] = bytes_of(options["block_size"], "block_size")
        units.append(unit)
    seeds = [
        str(Path(word).absolute()) if parse_store(word).scheme == "file" else word for _, word in sorted(words.items())
    ]
    name = target_name or default_target_name(host if host is not None else host_id(), seeds)
    value: dict[str, Any] = {
        "advertise": tuple(advertise),
        "targets": [
            {
                "name": name,
                "luns": units,
                "allow": tuple(allow),
                "keys": dict(key_value(word) for word in keys),
                "authentication": authentication,
                "rate": rate,
            }
        ],
        "discovery": authentication,
    }
    waits = {"keep_alive_seconds": keep_alive_interval, "keep_alive_timeout": keep_alive_timeout}
    value["limits"] = {name: seconds for name, seconds in waits.items() if seconds is not None}
    if portals:
        value["portals"] = tuple(portals)
    return checked(lambda: Configuration.model_validate(value), "arguments")
