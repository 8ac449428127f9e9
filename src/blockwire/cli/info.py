"""`blockwire info`: everything about one LUN."""

from __future__ import annotations

import click

from blockwire.cli import output
from blockwire.cli.flags import Login, login_flags, output_flags, set_up_logging
from blockwire.names import format_size

EPILOG = """\b
Examples:
  blockwire info 'iscsi://127.0.0.1:3260/IQN/0'
  blockwire info 127.0.0.1 --key HeaderDigest=CRC32C,None
  blockwire info 'iscsi://127.0.0.1/IQN/0?MaxConnections=4&keep_alive_interval=1'"""


@click.command(epilog=EPILOG)
@click.argument("url", metavar="URL", required=False)
@login_flags
@output_flags
def command(url: str | None, login: Login, as_json: bool, verbose: int, quiet: bool) -> None:
    """Show a LUN's capacity, identity (VPD pages) and the keys that the session negotiated."""
    set_up_logging(verbose)
    import blockwire

    with blockwire.open(login.url(url), read_only=True, **login.timed) as lun:
        session, shape, who = lun.session, lun.geometry, lun.identity
        device_read_only = shape.read_only
        if as_json:
            output.document(
                "info/1",
                {
                    "url": str(session.core.url),
                    "target": session.target_name,
                    "portal": session.portal,
                    "lun": lun.lun,
                    "size": lun.size,
                    "block_size": lun.block_size,
                    "physical_block_size": shape.physical_block_size,
                    "read_only": device_read_only,
                    "max_transfer": shape.max_transfer,
                    "optimal_transfer": shape.optimal_transfer or None,
                    "discard": shape.can_discard,
                    "discard_reads_zeros": shape.reads_zeros,
                    "vendor": who.vendor,
                    "product": who.product,
                    "revision": who.revision,
                    "serial": who.serial,
                    "name": who.name,
                    "designators": list(who.designators),
                    "keys": session.keys,
                },
            )
            return
        rows = [
            ("url", str(session.core.url)),
            ("portal", str(session.portal)),
            ("capacity", format_size(lun.size)),
            ("blocks", f"{lun.size // lun.block_size} of {lun.block_size} bytes, physical {shape.physical_block_size}"),
            ("access", "read-only" if device_read_only else "read and write"),
            ("discard", ("yes, reads as zeros" if shape.reads_zeros else "yes") if shape.can_discard else "no"),
            ("transfer", f"at most {format_size(shape.max_transfer)}"),
            ("vendor", f"{who.vendor}  product {who.product}  revision {who.revision}"),
            ("serial", who.serial or "-"),
            ("name", who.name or "-"),
        ]
        # The name is one of the designators.
        rows += [("designator", text) for text in dict.fromkeys(who.designators) if text != who.name]
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            output.plain(f"{name.ljust(width)}  {value}")
        output.plain()
        output.plain("negotiated keys")
        keys = session.keys
        wide = max(map(len, keys))
        for name in sorted(keys):
            output.plain(f"  {name.ljust(wide)}  {keys[name]}")
