"""iSCSI names (RFC 7143 section 4.2.7)."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from blockwire.errors import UsageError

MAX_NAME_LENGTH: Final = 223
"""Longest iSCSI name in bytes of UTF-8 (RFC 7143 section 4.2.7.1)."""

_IQN = re.compile(r"iqn\.\d{4}-(0[1-9]|1[0-2])\.[a-z0-9][a-z0-9-]*(\.[a-z0-9-]+)*(:.+)?", re.DOTALL)
_EUI = re.compile(r"eui\.[0-9a-f]{16}")
_NAA = re.compile(r"naa\.([0-9a-f]{16}|[0-9a-f]{32})")
_ASCII_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-:")
# General categories that RFC 3722 section 5 and RFC 3454 tables C.1 to C.9 prohibit: separators, controls,
# unassigned, surrogates, private use.
_PROHIBITED = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Cn", "Cs", "Co"})


def prepare_name(name: str) -> str:
    """``name`` in the form in which iSCSI names are compared: lower case, Unicode form KC (RFC 3722)."""
    return unicodedata.normalize(
        "NFKC", unicodedata.normalize("NFKC", name).casefold() if not name.isascii() else name.lower()
    )


def name_fault(name: str) -> str | None:
    """Why a prepared ``name`` is no iSCSI name by RFC 7143 section 4.2.7, or ``None`` if it is one."""
    if not name:
        return "the name is empty"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_LENGTH:
        return f"the name is longer than {MAX_NAME_LENGTH} bytes"
    for character in name:
        if character in _ASCII_ALLOWED:
            continue
        if character.isascii() or unicodedata.category(character) in _PROHIBITED:
            return f"the character {character!r} is not allowed in an iSCSI name"
    if name.startswith("iqn."):
        return None if _IQN.fullmatch(name) else "an iqn name is iqn.YYYY-MM.REVERSED.DOMAIN[:anything]"
    if name.startswith("eui."):
        return None if _EUI.fullmatch(name) else "an eui name is eui. and 16 hexadecimal digits"
    if name.startswith("naa."):
        return None if _NAA.fullmatch(name) else "an naa name is naa. and 16 or 32 hexadecimal digits"
    return "an iSCSI name starts with iqn., eui. or naa."


def iscsi_name(name: str) -> str:
    """The prepared form of a valid iSCSI name; anything else is a :class:`UsageError`."""
    prepared = prepare_name(name)
    fault = name_fault(prepared)
    if fault is not None:
        raise UsageError(
            f"not an iSCSI name: {name!r}",
            code="usage.name",
            evidence=fault,
            next="write it like iqn.2024-01.com.example:disk1",
        )
    return prepared


def peer_name(name: str) -> str:
    """A name that a peer uses, accepted as it stands if it can be sent at all.

    Targets in the field have names with capitals and underscores. They are not ours to correct: the name is
    what that target compares with, byte by byte. Only the type designator, the length and the absence of
    blanks and controls are required.
    """
    fault = None
    if name[:4].lower() not in ("iqn.", "eui.", "naa."):
        fault = "an iSCSI name starts with iqn., eui. or naa."
    elif len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_LENGTH:
        fault = f"the name is longer than {MAX_NAME_LENGTH} bytes"
    elif any(c.isspace() or unicodedata.category(c) in _PROHIBITED for c in name):
        fault = "the name holds a blank or a control character"
    if fault is not None:
        raise UsageError(
            f"not an iSCSI name: {name!r}",
            code="usage.name",
            evidence=fault,
            next="list the targets with `blockwire discover`",
        )
    return name
