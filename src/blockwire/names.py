"""How things are named: iSCSI names, ISIDs, portals, target addresses, URLs, LUNs and sizes.

Parsing what a user typed raises :class:`blockwire.errors.UsageError` with the next step in it. What comes
from a peer is parsed by the functions that say so, and those return ``None`` or raise ``ValueError``.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final, Self

from blockwire.errors import UsageError

DEFAULT_PORT: Final = 3260
"""The IANA-assigned TCP port of iSCSI (RFC 7143 section 14)."""
MAX_NAME_LENGTH: Final = 223
"""Longest iSCSI name in bytes of UTF-8 (RFC 7143 section 4.2.7.1)."""

# --- iSCSI names (RFC 7143 section 4.2.7) ---------------------------------------------------------------

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


# --- ISID (RFC 7143 section 11.12.5) --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Isid:
    """The initiator's part of the session identifier: 48 bits, of which T (two bits) names the format."""

    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value < 1 << 48:
            raise ValueError("an ISID has 48 bits")

    @classmethod
    def from_oui(cls, oui: int, qualifier: int) -> Self:
        """T=00b: a 22-bit OUI (without the I/G and U/L bits) and a 24-bit qualifier."""
        return cls._make(0, oui, 22, qualifier, 24)

    @classmethod
    def from_enterprise(cls, number: int, qualifier: int) -> Self:
        """T=01b: a 24-bit IANA enterprise number and a 16-bit qualifier."""
        return cls._make(1, number, 24, qualifier, 16)

    @classmethod
    def from_random(cls, random24: int, qualifier: int) -> Self:
        """T=10b: 24 random bits, which the caller draws, and a 16-bit qualifier."""
        return cls._make(2, random24, 24, qualifier, 16)

    @classmethod
    def _make(cls, kind: int, authority: int, authority_bits: int, qualifier: int, qualifier_bits: int) -> Self:
        if not (0 <= authority < 1 << authority_bits and 0 <= qualifier < 1 << qualifier_bits):
            raise ValueError(f"an ISID of type {kind} has {authority_bits} + {qualifier_bits} bits")
        return cls(kind << 46 | authority << qualifier_bits | qualifier)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """From the six bytes 8 to 13 of a login PDU."""
        if len(data) != 6:
            raise ValueError("an ISID has 6 bytes")
        return cls(int.from_bytes(data, "big"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``0x`` and 12 hexadecimal digits; colons between bytes are accepted."""
        digits = text.strip().lower().removeprefix("0x").replace(":", "")
        if not re.fullmatch(r"[0-9a-f]{12}", digits):
            raise UsageError(
                f"not an ISID: {text!r}", code="usage.isid", next="write it as 0x and 12 hexadecimal digits"
            )
        return cls(int(digits, 16))

    @property
    def t(self) -> int:
        """The format: 0 OUI, 1 enterprise number, 2 random, 3 reserved."""
        return self.value >> 46

    @property
    def a(self) -> int:
        """Field A, 6 bits."""
        return self.value >> 40 & 0x3F

    @property
    def b(self) -> int:
        """Field B, 16 bits."""
        return self.value >> 24 & 0xFFFF

    @property
    def c(self) -> int:
        """Field C, 8 bits."""
        return self.value >> 16 & 0xFF

    @property
    def d(self) -> int:
        """Field D, 16 bits."""
        return self.value & 0xFFFF

    def with_qualifier(self, qualifier: int) -> Self:
        """The same authority with another qualifier (its low bits: 24 for T=00b, 16 otherwise)."""
        bits = 24 if self.t == 0 else 16
        return type(self)(self.value >> bits << bits | qualifier & (1 << bits) - 1)

    def __bytes__(self) -> bytes:
        return self.value.to_bytes(6, "big")

    def __str__(self) -> str:
        return f"0x{self.value:012x}"


# --- portals and TargetAddress (RFC 7143 section 13.8) --------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Portal:
    """A host (name, IPv4 or IPv6 address without brackets) and a TCP port."""

    host: str
    port: int = DEFAULT_PORT

    @classmethod
    def parse(cls, text: str, default_port: int = DEFAULT_PORT) -> Self:
        """From ``HOST``, ``HOST:PORT``, ``[V6]`` or ``[V6]:PORT``; a bare IPv6 address is taken whole."""
        text = text.strip()

        def fail(why: str) -> UsageError:
            return UsageError(
                f"not a portal: {text!r}",
                code="usage.portal",
                evidence=why,
                next="write HOST:PORT, for IPv6 [ADDRESS]:PORT",
            )

        if "," in text:
            raise UsageError(
                "several hosts in one address are not supported yet",
                code="usage.several-hosts",
                evidence=text,
                next="name one portal; multipath has a place in the grammar and comes later",
            )
        port_text: str | None = None
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket:
                raise fail("the bracket is not closed")
            if rest:
                if not rest.startswith(":"):
                    raise fail(f"unexpected {rest!r} after the bracket")
                port_text = rest[1:]
            if not _is_ipv6(host):
                raise fail("no IPv6 address in the brackets")
        elif text.count(":") > 1:
            host = text
            if not _is_ipv6(host):
                raise fail("an IPv6 address with a port needs brackets")
        else:
            host, colon, after = text.partition(":")
            port_text = after if colon else None
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", host):
                raise fail("there is no host in it" if not host else "the host holds characters that no host name has")
        port = default_port
        if port_text is not None:
            if not re.fullmatch(r"[0-9]{1,5}", port_text) or int(port_text) > 65535:
                raise fail(f"{port_text!r} is no port number")
            port = int(port_text)
        return cls(host, port)

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def target_address(self, portal_group_tag: int | None = None) -> str:
        """The TargetAddress value: without a tag in a redirect, with one in a SendTargets answer (13.8)."""
        return str(self) if portal_group_tag is None else f"{self},{portal_group_tag}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def parse_target_address(value: str) -> tuple[Portal, int | None]:
    """A peer's TargetAddress value as (portal, portal group tag or ``None``); ``ValueError`` if it is none."""
    address, comma, tag_text = value.rpartition(",")
    if not comma:
        address, tag_text = value, ""
    tag: int | None = None
    if comma:
        tag = int(tag_text, 16) if tag_text[:2].lower() == "0x" else int(tag_text)
        if not 0 <= tag <= 65535:
            raise ValueError("the portal group tag has 16 bits")
    try:
        return Portal.parse(address), tag
    except UsageError as error:
        raise ValueError(f"{error}: {error.evidence}") from None


# --- LUNs (SAM-5 section 4.7; RFC 7143 section 11.2.1.7) -------------------------------------------------


def encode_lun(lun: int) -> bytes:
    """The 8-byte LUN field: peripheral addressing to 255, flat to 16383, extended flat (24 bits) above."""
    if 0 <= lun < 256:
        return bytes([0, lun]) + bytes(6)
    if 256 <= lun < 1 << 14:
        return (0x4000 | lun).to_bytes(2, "big") + bytes(6)
    if 1 << 14 <= lun < 1 << 24:
        return b"\xd2" + lun.to_bytes(3, "big") + bytes(4)
    raise ValueError(f"{lun} is no LUN of one level")


def decode_lun(field: bytes) -> int | None:
    """The LUN that a peer's 8-byte field names, or ``None`` where it names a lower level or another bus."""
    method = field[0] >> 6
    if method == 0 and field[0] == 0 and not any(field[2:8]):
        return field[1]
    if method == 1 and not any(field[2:8]):
        return (field[0] & 0x3F) << 8 | field[1]
    if field[0] == 0xD2 and not any(field[4:8]):
        return int.from_bytes(field[1:4], "big")
    return None


def parse_lun(text: str) -> int:
    """A LUN as users write it: a decimal number."""
    if not re.fullmatch(r"[0-9]{1,8}", text) or int(text) >= 1 << 24:
        raise UsageError(f"not a LUN: {text!r}", code="usage.lun", next="a LUN is a number such as 0")
    return int(text)


# --- URLs (iscsi://[user[%secret]@]host[:port]/iqn/lun[?Key=Value&…]) -------------------------------------

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PATH_START = re.compile(r"/(?:(?:iqn|eui|naa)\.)", re.IGNORECASE)
# libiscsi's words for a digest -> what we offer.
_DIGEST_WORDS = {"none": "None", "none_crc32c": "None,CRC32C", "crc32c_none": "CRC32C,None", "crc32c": "CRC32C"}
_DIGEST_ALIASES = {"header_digest": "HeaderDigest", "data_digest": "DataDigest"}


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed ``[iscsi://]HOST[:PORT][/IQN[/LUN]]``; its text never shows a secret."""

    portal: Portal
    target: str = ""
    lun: int | None = None
    user: str = ""
    secret: str = field(default="", repr=False)
    mutual_user: str = ""
    mutual_secret: str = field(default="", repr=False)
    keys: tuple[tuple[str, str], ...] = ()
    """RFC 7143 keys of the query, in order, as offered (``("HeaderDigest", "CRC32C")``)."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From what a user typed; the scheme may be left out, the port is 3260 by default.

        The userinfo ends at the last ``@`` before the target and is split at its first literal ``%``;
        neither part is percent-decoded, so a secret may hold any character.
        """
        rest = text.strip()
        scheme = _SCHEME.match(rest)
        if scheme:
            word = scheme.group(1).lower()
            if word == "iser":
                raise UsageError(
                    "iser:// is not supported yet",
                    code="usage.scheme-reserved",
                    next="use iscsi:// (the scheme is reserved for iSER)",
                )
            if word in ("iscsis", "iscsi+tls"):
                raise UsageError(
                    f"{word}:// is not supported yet",
                    code="usage.scheme-reserved",
                    next="use iscsi:// (the scheme is reserved for TLS)",
                )
            if word != "iscsi":
                raise UsageError(f"not an iSCSI URL: scheme {word!r}", code="usage.url", next=_URL_HINT)
            rest = rest[scheme.end() :]

        start = _PATH_START.search(rest)
        if start:
            authority, path = rest[: start.start()], rest[start.start() + 1 :]
        else:
            at = rest.rfind("@")
            cut = re.search(r"[/?]", rest[at + 1 :])
            split = at + 1 + cut.start() if cut else len(rest)
            authority, path = (
                rest[:split],
                rest[split:].removeprefix("/") if rest[split : split + 1] == "/" else rest[split:],
            )
        userinfo, at_sign, host = authority.rpartition("@")
        if userinfo and not at_sign:
            raise UsageError("not an iSCSI URL", code="usage.url", next=_URL_HINT)
        user, _, secret = userinfo.partition("%")

        path, _, query = path.partition("?")
        target, slash, lun_text = path.partition("/")
        lun_text = lun_text.rstrip("/")
        if "/" in lun_text:
            raise UsageError(f"too many parts after the LUN in the URL: {lun_text!r}", code="usage.url", next=_URL_HINT)
        values = cls._query(query)
        return cls(
            portal=Portal.parse(host),
            target=peer_name(target) if target else "",
            lun=parse_lun(lun_text) if slash and lun_text else None,
            user=user,
            secret=secret,
            mutual_user=values.pop("target_user", ""),
            mutual_secret=values.pop("target_password", ""),
            keys=tuple(values.items()),
        )

    @staticmethod
    def _query(query: str) -> dict[str, str]:
        values: dict[str, str] = {}
        for item in query.split("&") if query else ():
            name, equals, value = item.partition("=")
            if name == "iser":
                raise UsageError(
                    "iSER is not supported yet", code="usage.scheme-reserved", next="leave ?iser out of the URL"
                )
            if not equals or not name:
                raise UsageError(f"not Key=Value in the URL's query: {name!r}", code="usage.url", next=_URL_HINT)
            if name in _DIGEST_ALIASES:
                word = _DIGEST_WORDS.get(value.lower())
                if word is None:
                    raise UsageError(f"unknown value of {name}: {value!r}", code="usage.url", next="use none or crc32c")
                name, value = _DIGEST_ALIASES[name], word
            if (
                name not in ("target_user", "target_password")
                and not name[:1].isupper()
                and name != "iSCSIProtocolLevel"
            ):
                raise UsageError(
                    f"unknown option in the URL's query: {name!r}",
                    code="usage.url",
                    next="the query takes RFC 7143 keys, header_digest, target_user, target_password",
                )
            if name in values:
                raise UsageError(f"{name} stands twice in the URL's query", code="usage.url", next=_URL_HINT)
            values[name] = value
        return values

    def at(self, target: str | None = None, lun: int | None = None) -> Self:
        """The same portal, user and keys with another target or LUN."""
        return type(self)(
            self.portal,
            self.target if target is None else target,
            self.lun if lun is None else lun,
            self.user,
            self.secret,
            self.mutual_user,
            self.mutual_secret,
            self.keys,
        )

    def __str__(self) -> str:
        text = "iscsi://"
        if self.user:
            text += self.user + ("%***" if self.secret else "") + "@"
        text += str(self.portal)
        if self.target:
            text += f"/{self.target}"
            if self.lun is not None:
                text += f"/{self.lun}"
        query = [f"{name}={value}" for name, value in self.keys]
        if self.mutual_user:
            query.append(f"target_user={self.mutual_user}")
        if self.mutual_secret:
            query.append("target_password=***")
        return text + ("?" + "&".join(query) if query else "")


_URL_HINT: Final = "write 'iscsi://HOST[:PORT][/IQN[/LUN]][?Key=Value&…]', in quotes"

# --- sizes ------------------------------------------------------------------------------------------------

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
