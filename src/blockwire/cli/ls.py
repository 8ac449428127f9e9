"""`blockwire ls`: targets and their LUNs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from blockwire import errors
from blockwire.cli import output
from blockwire.cli.flags import Login, login_flags, output_flags, set_up_logging
from blockwire.names import Portal, format_size

EPILOG = """\b
Examples:
  blockwire ls 127.0.0.1:3260
  blockwire ls 'iscsi://127.0.0.1:3260/IQN' --json"""


@click.command(epilog=EPILOG)
@click.argument("url", metavar="URL", required=False)
@login_flags
@output_flags
def command(url: str | None, login: Login, as_json: bool, verbose: int, quiet: bool) -> None:
    """List the targets of a portal (or the one that URL names) and their LUNs with size, block size and serial."""
    set_up_logging(verbose)
    import blockwire
    from blockwire.initiator.inventory import no_such_lun

    where = login.url(url)
    portals: dict[str, list[Portal]] = {where.target: [where.portal]}
    if not where.target:
        found = blockwire.discover(where, **login.arguments)
        if not found:
            raise errors.NothingFoundError(
                f"no target at {where.portal}", next="the target may show itself to certain initiators only; see -i"
            )
        portals = {target.name: [at.portal for at in target.addresses] for target in found}

    targets: list[dict[str, Any]] = []
    failure: errors.Error | None = None
    for name, addresses in portals.items():
        # The address that answered is better than what the target says of itself (mapped ports, containers).
        portal = where.portal if where.portal in addresses or not addresses else addresses[0]
        at = replace(where, portal=portal, target=name, lun=None)
        entry: dict[str, Any] = {"name": name, "portal": portal, "luns": []}
        targets.append(entry)
        try:
            with blockwire.connect(at, **login.timed) as session:
                units = session.luns()
                if where.lun is not None:
                    there = [unit.lun for unit in units]
                    units = [unit for unit in units if unit.lun == where.lun]
                    if not units:
                        raise no_such_lun(at, where.lun, there)
                for unit in units:
                    entry["luns"].append(
                        {
                            "lun": unit.lun,
                            "url": str(at.at(lun=unit.lun)),
                            "size": unit.size,
                            "block_size": unit.block_size,
                            "vendor": unit.vendor,
                            "product": unit.product,
                            "revision": unit.revision,
                            "serial": unit.serial,
                            "name": unit.name,
                            "device_type": unit.device_type,
                            "read_only": unit.read_only,
                            "error": unit.error or None,
                        }
                    )
        except errors.Error as error:
            if where.target:
                raise
            # One target that refuses must not hide the others; it decides the exit code though.
            failure = error
            entry["error"] = error.to_json()["error"]
    if as_json:
        output.document("ls/1", {"portal": where.portal, "targets": targets})
    else:
        _print(targets)
    if failure is not None:
        raise failure
    if not any(entry["luns"] for entry in targets):
        raise errors.NothingFoundError(
            "no LUN", code="nothing.no-lun", evidence=f"targets: {', '.join(portals)}",
            next="the target may map its LUNs to certain initiators only; see -i",
        )  # fmt: skip


def _print(targets: list[dict[str, Any]]) -> None:
    for entry in targets:
        output.plain(f"{entry['name']}  ({entry['portal']})")
        if "error" in entry:
            output.plain(f"  {entry['error']['message']}")
            continue
        rows = [
            (
                f"  {unit['lun']}",
                format_size(unit["size"])
                if unit["size"]
                else unit["error"] or f"device type {unit['device_type']:02X}h",
                unit["block_size"] or "-",
                unit["vendor"],
                unit["product"],
                unit["serial"] or "-",
                "read-only" if unit["read_only"] else "",
            )
            for unit in entry["luns"]
        ]
        if rows:
            output.plain(output.table(("  LUN", "SIZE", "BLOCK", "VENDOR", "PRODUCT", "SERIAL", ""), rows))
        else:
            output.plain("  no LUN")
