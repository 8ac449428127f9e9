"""URLs: ``iscsi://[user[%secret]@]host[:port]/iqn/lun[?Key=Value&…]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from blockwire.errors import UsageError
from blockwire.names.iscsi import peer_name
from blockwire.names.lun import parse_lun
from blockwire.names.portal import Portal, is_ipv6

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PATH_START = re.compile(r"/(?:(?:iqn|eui|naa)\.)", re.IGNORECASE)
# libiscsi's words for a digest -> what we offer.
_DIGEST_WORDS = {"none": "None", "none_crc32c": "None,CRC32C", "crc32c_none": "CRC32C,None", "crc32c": "CRC32C"}
_DIGEST_ALIASES = {"header_digest": "HeaderDigest", "data_digest": "DataDigest"}
_CHAP_WORDS = ("target_user", "target_password")

URL_OPTIONS: Final = ("keep_alive_interval", "keep_alive_timeout", "quirks", "rate")
"""What the query takes beside keys: how this side behaves, not what is negotiated. The initiator checks the values."""


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
    options: tuple[tuple[str, str], ...] = ()
    """`URL_OPTIONS` of the query, in order, as written (``("rate", "100M")``)."""

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
        if "%" in host and not host.startswith("[") and not is_ipv6(host):
            # A secret whose @ was forgotten is not shown.
            raise UsageError(
                "not an iSCSI URL: there is a % in it, and no @ behind that", code="usage.url", next=_URL_HINT
            )

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
            options=tuple((name, values.pop(name)) for name in list(values) if name in URL_OPTIONS),
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
                # Behind a password it may be the rest of that.
                what = "" if "target_password" in values else f": {name!r}"
                raise UsageError(f"not Key=Value in the URL's query{what}", code="usage.url", next=_URL_HINT)
            if name in _DIGEST_ALIASES:
                word = _DIGEST_WORDS.get(value.lower())
                if word is None:
                    raise UsageError(f"unknown value of {name}: {value!r}", code="usage.url", next="use none or crc32c")
                name, value = _DIGEST_ALIASES[name], word
            if name not in (*_CHAP_WORDS, *URL_OPTIONS) and not name[:1].isupper() and name != "iSCSIProtocolLevel":
                raise UsageError(
                    f"unknown option in the URL's query: {name!r}",
                    code="usage.url",
                    next=f"the query takes RFC 7143 keys, {', '.join((*_DIGEST_ALIASES, *_CHAP_WORDS, *URL_OPTIONS))}",
                )
            if name in values:
                raise UsageError(f"{name} stands twice in the URL's query", code="usage.url", next=_URL_HINT)
            values[name] = value
        return values

    def at(self, target: str | None = None, lun: int | None = None) -> Self:
        """The same portal, user and keys with another target or LUN."""
        return replace(self, target=self.target if target is None else target, lun=self.lun if lun is None else lun)

    def with_options(self, options: Mapping[str, str]) -> Self:
        """The same with these options in place of those of the same names."""
        return replace(self, options=tuple({**dict(self.options), **options}.items()))

    def __str__(self) -> str:
        text = "iscsi://"
        if self.user:
            text += self.user + ("%***" if self.secret else "") + "@"
        text += str(self.portal)
        if self.target:
            text += f"/{self.target}"
            if self.lun is not None:
                text += f"/{self.lun}"
        query = [f"{name}={value}" for name, value in (*self.keys, *self.options)]
        if self.mutual_user:
            query.append(f"target_user={self.mutual_user}")
        if self.mutual_secret:
            query.append("target_password=***")
        return text + ("?" + "&".join(query) if query else "")


_URL_HINT: Final = "write 'iscsi://HOST[:PORT][/IQN[/LUN]][?Key=Value&…]', in quotes"
