"""Who may log in to a target: initiator names and networks; what is not listed is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from blockwire.names import prepare_name

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def peer_host(peer: str) -> str:
    """The numeric address in a transport's ``host:port`` (``[v6%scope]:port``), without brackets and scope."""
    host = peer.rpartition(":")[0] if peer.count(":") == 1 or peer.startswith("[") else peer
    return host.strip("[]").partition("%")[0]


class AccessRules:
    """The `allow` list of a target. Empty: everybody who reaches a portal."""

    def __init__(self, rules: Iterable[str] = ()) -> None:
        self.rules = tuple(rules)
        self._names: set[str] = set()
        self._networks: list[_Network] = []
        for rule in self.rules:
            if rule[:4] in ("iqn.", "eui.", "naa."):
                self._names.add(prepare_name(rule))
            else:
                self._networks.append(ipaddress.ip_network(rule, strict=False))

    def allows(self, initiator_name: str, peer: str) -> bool:
        """Whether the initiator at ``peer`` (``host:port``) may log in: by its name or by its address."""
        if not self.rules:
            return True
        if prepare_name(initiator_name) in self._names:
            return True
        try:
            address = ipaddress.ip_address(peer_host(peer))
        except ValueError:
            return False
        return any(address in network for network in self._networks if network.version == address.version)
