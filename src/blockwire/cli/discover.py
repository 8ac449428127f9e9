"""`blockwire discover`: the targets of a portal."""

from __future__ import annotations

import click

from blockwire import errors
from blockwire.cli import output
from blockwire.cli.flags import Login, login_flags, output_flags, set_up_logging

EPILOG = """\b
Examples:
  blockwire discover 127.0.0.1:3260
  blockwire discover '[::1]:3260' --json"""


@click.command(epilog=EPILOG)
@click.argument("url", metavar="HOST[:PORT]", required=False)
@login_flags
@output_flags
def command(url: str | None, login: Login, as_json: bool, verbose: int, quiet: bool) -> None:
    """List the targets of a portal with their addresses and portal groups. Stores nothing."""
    set_up_logging(verbose)
    import blockwire

    where = login.url(url)
    listed = blockwire.discover(where, **login.arguments)
    found = [target for target in listed if not where.target or target.name == where.target]
    if as_json:
        output.document(
            "discover/1",
            {
                "portal": where.portal,
                "targets": [
                    {
                        "name": target.name,
                        "portals": [
                            {"host": at.portal.host, "port": at.portal.port, "portal_group_tag": at.portal_group_tag}
                            for at in target.addresses
                        ],
                    }
                    for target in found
                ],
            },
        )
    else:
        for target in found:
            output.plain(target.name)
            for at in target.addresses:
                group = "" if at.portal_group_tag is None else f"  portal group {at.portal_group_tag}"
                output.plain(f"  {at.portal}{group}")
    if not found:
        raise errors.NothingFoundError(
            f"no target at {where.portal}" + (f" has the name {where.target}" if where.target else ""),
            next="the target may show itself to certain initiators only; see -i",
        )
