"""Finds the command, runs it, and turns what went wrong into one clear message and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from blockwire import __version__, errors
from blockwire.cli import output
from blockwire.cli.process import EndedBySignal

# Name -> (module, one line of help). The line stands here so that `blockwire --help` loads no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("blockwire.cli.serve", "Share stores (disk images, block devices, RAM) as a target."),
    "discover": ("blockwire.cli.discover", "List the targets of a portal."),
    "ls": ("blockwire.cli.ls", "List targets and their LUNs."),
    "info": ("blockwire.cli.info", "Show a LUN's capacity, identity and negotiated keys."),
    "cp": ("blockwire.cli.cp", "Copy between files and LUNs."),
    "bench": ("blockwire.cli.bench", "Measure IOPS, throughput and latency of a LUN."),
    "secret": ("blockwire.cli.secret", "Make a new random CHAP secret."),
    "demo": ("blockwire.cli.demo", "Try it all on this machine in a few seconds."),
    "completion": ("blockwire.cli.completion", "Print the shell's completion script."),
}

EPILOG = """\b
Examples:
  blockwire demo
  blockwire serve disk.img --size 10G
  blockwire ls 127.0.0.1:3260
  blockwire cp disk.img 'iscsi://HOST/IQN/0' --verify

A thing is named [iscsi://]HOST[:PORT][/IQN[/LUN]]; quote it for the shell.
Exit codes: 0 done, 1 failed, 2 usage, 3 unreachable, 4 refused at login,
5 device error, 6 data differ, 7 nothing found, 130 interrupted."""


class Commands(click.Group):
    """A group whose commands are loaded by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads the module of one command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = importlib.import_module(entry[0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, so that help needs none of the modules."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the nearest command when there is none of this name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Commands, epilog=EPILOG, context_settings=SETTINGS)
@click.version_option(__version__, "-V", "--version", prog_name="blockwire")
def command() -> None:
    """iSCSI in user space: serve disks, and use them, without root or kernel modules."""


def _usage(error: click.ClickException) -> errors.UsageError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "blockwire"
    return errors.UsageError(error.format_message(), next=f"see `{path} --help`")


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code; what went wrong is on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own = words[: words.index("--")] if "--" in words else words  # behind it stand those of another command
    as_json = "--json" in own
    verbose = any(word in ("-v", "-vv", "--verbose") for word in own)
    try:
        result = command.main(words, prog_name="blockwire", standalone_mode=False)
        output.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.exceptions.NoArgsIsHelpError as shown:
        output.note(shown.format_message())
        return errors.EXIT_USAGE
    except click.ClickException as error:
        output.failure(_usage(error), as_json)
        return errors.EXIT_USAGE
    except (KeyboardInterrupt, click.Abort) as raised:
        why = raised.__cause__ if isinstance(raised, click.Abort) else raised
        if isinstance(why, EndedBySignal):
            output.failure(errors.Error(f"ended by {why.name}", code="local.ended", whose="user"), as_json)
            return why.exit_code
        output.failure(errors.Error("interrupted", code="local.interrupted", whose="user"), as_json)
        return errors.EXIT_INTERRUPTED
    except BrokenPipeError as error:
        if isinstance(error, errors.Error):
            output.failure(error, as_json)
            return error.exit_code
        return errors.EXIT_FAILED  # whoever read our output has gone; there is nobody to tell
    except errors.Error as error:
        output.failure(error, as_json)
        if verbose:
            output.note("".join(traceback.format_exception(error)))
        return error.exit_code
    except OSError as raised:
        name = raised.filename if isinstance(raised.filename, str) else next(iter(own), "failed")
        found = errors.from_os_error(raised, name)
        output.failure(found, as_json)
        return found.exit_code
    except MemoryError as raised:
        lacking = errors.ResourceError.wrap(
            raised, "there is not enough memory", code="local.out-of-memory",
            next="ask for less, or raise the limit (`ulimit -v`, the container's)",
        )  # fmt: skip
        output.failure(lacking, as_json)
        return lacking.exit_code
    except Exception as raised:
        place = traceback.extract_tb(raised.__traceback__)[-1]
        output.failure(
            errors.Error(
                f"an error inside blockwire: {type(raised).__name__}: {raised}", code="internal.error",
                evidence=f"{os.path.basename(place.filename)}:{place.lineno} in {place.name}",
                next="run it again with -v and report what it prints",
            ), as_json,
        )  # fmt: skip
        if verbose:
            output.note(errors.redact("".join(traceback.format_exception(raised))))
        return errors.EXIT_FAILED
