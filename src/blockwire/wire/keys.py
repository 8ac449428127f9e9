"""Text key=value blocks (RFC 7143 sections 6.1 and 6.2): splitting, joining and cutting them into segments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from blockwire.wire.pdu import WireError

_KEY_NAME: Final = re.compile(r"[A-Z][A-Za-z0-9.\-+@_]{0,62}")
# iSCSIProtocolLevel (13.24) and the X# keys of RFC 3720 do not fit the standard-label of 6.1, yet both are in use.
_ODD_NAMES: Final = re.compile(r"iSCSIProtocolLevel|X#[A-Za-z0-9.\-+@_]{1,61}")

Pairs = list[tuple[str, str]]


def is_key_name(name: str) -> bool:
    """Whether ``name`` can be a key name (6.1)."""
    return bool(_KEY_NAME.fullmatch(name) or _ODD_NAMES.fullmatch(name))


def join_pairs(pairs: Iterable[tuple[str, str]]) -> bytes:
    """The block of these pairs, each followed by its null (6.1)."""
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs)


def split_pairs(block: bytes) -> Pairs:
    """The pairs of a whole logical text data segment; :class:`WireError` where it is none.

    Further nulls between pairs are skipped: several initiators send their padding as text.
    """
    if block and block[-1]:
        raise WireError("the last key=value pair is not followed by a null", field="text", section="6.1")
    pairs: Pairs = []
    for item in block.split(b"\0"):
        if not item:
            continue
        name, equals, value = item.partition(b"=")
        if not equals:
            raise WireError(f"no = in the text item {_show(item)}", field="text", section="6.1")
        try:
            key, text = name.decode("ascii"), value.decode("utf-8")
        except UnicodeDecodeError:
            raise WireError(f"the text item {_show(name)} is not UTF-8", field="text", section="6.1") from None
        if not is_key_name(key):
            raise WireError(f"{_show(name)} is no key name", field="text", section="6.1")
        pairs.append((key, text))
    return pairs


def _show(item: bytes) -> str:
    return repr(item[:40].decode("ascii", "backslashreplace"))


def cut(block: bytes, limit: int) -> list[bytes]:
    """``block`` in pieces of at most ``limit`` bytes, for PDUs with the C bit; an empty block is one empty piece.

    A pair may span pieces (6.1), so the cuts need not respect pairs.
    """
    return [block[start : start + limit] for start in range(0, len(block), limit)] or [b""]
