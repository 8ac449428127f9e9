"""Half-open logins are bounded, in total and per peer address, and the oldest gives way.

So an honest login is never queued behind ten thousand idle connections: accepting always goes on, and whoever has
been silent the longest pays.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from blockwire.target.access import peer_host


def share_of(peer: str) -> str:
    """Whose share a peer's connections count against: its IPv4 address, its IPv6 /64."""
    host = peer_host(peer)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)


@dataclass(eq=False, slots=True)
class Ticket:
    """One half-open connection's place."""

    share: str
    evict: Callable[[], None] = field(repr=False)


class HalfOpen:
    """The places. ``evict`` of the ticket that has to go is called after its place was given away."""

    def __init__(self, total: int = 1024, per_address: int = 256) -> None:
        self.total = total
        self.per_address = per_address
        self.evicted = 0
        """How many had to go since the start."""
        self._all: OrderedDict[Ticket, None] = OrderedDict()
        self._shares: dict[str, OrderedDict[Ticket, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, peer: str, evict: Callable[[], None]) -> Ticket:
        """A place for a new connection from ``peer``; may evict the oldest of its address, or the oldest of all."""
        ticket = Ticket(share_of(peer), evict)
        mine = self._shares.get(ticket.share)
        victim: Ticket | None = None
        if mine is not None and len(mine) >= self.per_address:
            victim = next(iter(mine))
        elif len(self._all) >= self.total:
            victim = next(iter(self._all))
        if victim is not None:
            self.leave(victim)
            self.evicted += 1
        self._all[ticket] = None
        self._shares.setdefault(ticket.share, OrderedDict())[ticket] = None
        if victim is not None:
            victim.evict()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """The login ended, in either way; idempotent."""
        if ticket not in self._all:
            return
        del self._all[ticket]
        mine = self._shares[ticket.share]
        del mine[ticket]
        if not mine:
            del self._shares[ticket.share]

    def close(self) -> None:
        """Everybody has to go."""
        for ticket in list(self._all):
            self.leave(ticket)
            ticket.evict()
