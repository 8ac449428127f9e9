"""Which addresses discovery answers: what is advertised, else what is listened on, seen from the connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from blockwire.names import Portal
from blockwire.target.access import peer_host


def _any_address(host: str) -> int | None:
    """4 or 6 when ``host`` is the address that means all of a family, else None."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return address.version if address.is_unspecified else None


def discovered(advertised: Sequence[Portal], listening: Sequence[Portal], local: str) -> tuple[Portal, ...]:
    """The portals to answer a SendTargets that came in on ``local`` (``host:port``), that one's own first.

    A portal that listens on all addresses is answered as the address the initiator reached us by, because that is
    the one known to work for it.
    """
    if advertised:
        return tuple(advertised)
    host = peer_host(local)
    try:
        version: int = ipaddress.ip_address(host).version
    except ValueError:
        version = 0
    found: list[Portal] = []
    for portal in listening:
        family = _any_address(portal.host)
        if family is None:
            found.append(portal)
        elif family == version:
            found.append(Portal(host, portal.port))
    own = [portal for portal in found if portal.host == host]
    return tuple(dict.fromkeys(own + found))
