"""What `serve` says when it is ready: what there is, who may use it, and one line for each kind of client."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blockwire.names import Portal, Url, format_size

if TYPE_CHECKING:
    from blockwire.target.server import TargetServer


def _luns(server: TargetServer) -> list[dict[str, Any]]:
    found = []
    urls = iter(server.urls)
    configured = {(target.name, unit.lun): unit for target in server.configuration.targets for unit in target.luns}
    for device in server.devices.values():
        for lun in sorted(device.units):
            unit = device.units[lun]
            config = configured[device.name, lun]
            found.append(
                {
                    "url": next(urls),
                    "target": device.name,
                    "lun": lun,
                    "size": unit.size,
                    "block_size": config.block_size,
                    "read_only": config.read_only,
                    "store": config.store.describe(),
                }
            )
    return found


def as_json(server: TargetServer) -> dict[str, Any]:
    """The fields of the `ready` event."""
    return {"portals": list(server.portals), "luns": _luns(server)}


def who(server: TargetServer) -> list[str]:
    """Who may do what, in one line for each target."""
    loopback = all(portal.is_loopback for portal in server.portals)
    lines = []
    for target in server.configuration.targets:
        modes = {unit.read_only for unit in target.luns}
        what = "read" if modes == {True} else "read and write" if modes == {False} else "read and partly write"
        if target.allow:
            people = ", ".join(target.allow)
        elif loopback:
            people = "every user of this machine"
        else:
            people = "everybody who can reach " + ", ".join(map(str, server.portals))
        asked = target.authentication
        if asked is not None and asked.required:
            people += ", with the CHAP secret of " + " or ".join(account.user for account in asked.accounts)
        lines.append(f"may {what}: {people}")
    return lines


def attach_lines(url: Url, writable: bool) -> list[tuple[str, str]]:
    """(client, command) for a LUN."""
    portal: Portal = url.portal
    target = url.target
    shown = str(url)
    return [
        ("blockwire", f"blockwire {'cp disk.img' if writable else 'info'} '{shown}'"),
        (
            "Linux",
            f"iscsiadm -m discovery -t sendtargets -p {portal} && iscsiadm -m node -T {target} -p {portal} --login",
        ),
        ("QEMU", f"qemu-img info '{shown}'"),
        ("Windows", f"iscsicli AddTargetPortal {portal.host} {portal.port} && iscsicli QLoginTarget {target}"),
        (
            "PowerShell",
            f"New-IscsiTargetPortal {portal.host} -TargetPortalPortNumber {portal.port}; "
            f"Connect-IscsiTarget -NodeAddress {target}",
        ),
    ]


ELSEWHERE = {"0.0.0.0": ("192.0.2.1", socket.AF_INET), "::": ("2001:db8::1", socket.AF_INET6)}
"""By address that means all of them: some address beyond this machine (RFC 5737, RFC 3849)."""


def outward(url: Url, server: TargetServer) -> Url:
    """The same by an address that other machines can use, where the portal listens on all of them."""
    listening = server.portals[0].host
    if server.configuration.advertise or listening not in ELSEWHERE:
        return url
    there, family = ELSEWHERE[listening]
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((there, 9))  # sends nothing; asks the routing table whence it would be sent
        return replace(url, portal=Portal(probe.getsockname()[0], url.portal.port))
    return url


def text(server: TargetServer) -> str:
    """For people."""
    luns = _luns(server)
    lines = [f"target {name}" for name in server.devices]
    lines.append("listening on " + ", ".join(map(str, server.portals)))
    for lun in luns:
        extra = ", read-only" if lun["read_only"] else ""
        lines.append(
            f"LUN {lun['lun']}: {lun['store']}, {format_size(lun['size'])}, {lun['block_size']}-byte blocks{extra}"
        )
        lines.append(f"  {lun['url']}")
    lines += who(server)
    first = outward(Url.parse(luns[0]["url"]), server)
    lines.append("attach it with")
    commands = attach_lines(first, not luns[0]["read_only"])
    width = max(len(client) for client, _ in commands)
    lines += [f"  {client.ljust(width)}  {command}" for client, command in commands]
    lines.append("Ctrl-C ends it")
    return "\n".join(lines)
