"""`blockwire completion`: the shell's completion script."""

from __future__ import annotations

import click

from blockwire import errors
from blockwire.cli import output

EPILOG = """\b
Examples:
  source <(blockwire completion bash)                              # this shell
  blockwire completion bash > ~/.local/share/bash-completion/completions/blockwire
  blockwire completion zsh > "${fpath[1]}/_blockwire"
  blockwire completion fish > ~/.config/fish/completions/blockwire.fish"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL."""
    from click.shell_completion import get_completion_class

    from blockwire.cli.main import command as root

    found = get_completion_class(shell)
    if found is None:
        raise errors.UsageError(f"no completion for {shell}")
    # `source` would ask bash for its version first; the template itself is good for every bash of this decade.
    maker = found(root, {}, "blockwire", "_BLOCKWIRE_COMPLETE")
    output.plain(maker.source_template % maker.source_vars())
