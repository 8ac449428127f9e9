"""Sizes and rates as people write and read them."""

from __future__ import annotations

import re
from typing import Final

from blockwire.errors import UsageError

_SIZE = re.compile(r"([0-9]+)(?:\.([0-9]+))?\s*([KMGTPE]?)(iB|B)?", re.IGNORECASE)
_UNITS: Final = "KMGTPE"


def parse_size(text: str) -> int:
    """Bytes: K, M, G, T = 1024 (KiB too), KB, MB = 1000; a fraction must come out in whole bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"not a size: {text!r}", code="usage.size", next="write it like 512M, 10G or 1000000")
    whole, fraction, unit, suffix = match.groups()
    base = 1000 if (suffix or "").lower() == "b" and unit else 1024
    factor: int = base ** (_UNITS.index(unit.upper()) + 1) if unit else 1
    scale = int("1" + "0" * len(fraction or ""))
    value, rest = divmod(int(whole + (fraction or "")) * factor, scale)
    if rest:
        raise UsageError(
            f"not a whole number of bytes: {text!r}", code="usage.size", next="write the size in a smaller unit"
        )
    return value


def format_size(size: int) -> str:
    """For people: ``10 GiB (10737418240 bytes)``."""
    if size < 1024:
        return f"{size} bytes"
    index = min((size.bit_length() - 1) // 10, len(_UNITS))
    amount = f"{size / 1024**index:.2f}".rstrip("0").rstrip(".")
    return f"{amount} {_UNITS[index - 1]}iB ({size} bytes)"


def format_rate(bytes_per_second: float) -> str:
    """For people: MB/s, 10^6 bytes each."""
    return f"{bytes_per_second / 1e6:.1f} MB/s"
