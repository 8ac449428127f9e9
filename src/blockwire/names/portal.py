"""Portals and TargetAddress (RFC 7143 section 13.8)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self

from blockwire.errors import UsageError

DEFAULT_PORT: Final = 3260
"""The IANA-assigned TCP port of iSCSI (RFC 7143 section 14)."""


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
            if not is_ipv6(host):
                raise fail("no IPv6 address in the brackets")
        elif text.count(":") > 1:
            host = text
            if not is_ipv6(host):
                raise fail("an IPv6 address with a port needs brackets")
        else:
            host, colon, after = text.partition(":")
            port_text = after if colon else None
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", host):
                raise fail("there is no host in it" if not host else "the host holds characters that no host name has")
            if len(host) > 253 or not all(0 < len(label) < 64 for label in host.removesuffix(".").split(".")):
                raise fail("a host has labels of 1 to 63 characters, 253 in all")  # RFC 1035 2.3.4
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


def is_ipv6(text: str) -> bool:
    """Whether ``text`` is an IPv6 address, without brackets; a scope (``%eth0``) may stand behind it."""
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
