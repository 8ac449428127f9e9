"""`blockwire serve`: the command. It builds a configuration value and runs it; `ready` says what is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from blockwire import errors
from blockwire.cli import output
from blockwire.cli.flags import (
    SIZE,
    TRACE_HELP,
    Seconds,
    chap_flags,
    keep_alive_flags,
    output_flags,
    read_only_flag,
    set_up_logging,
)
from blockwire.cli.process import settle

if TYPE_CHECKING:
    from blockwire.config.model import Configuration
    from blockwire.target.events import TargetEvent
    from blockwire.target.service import Service

EPILOG = """\b
Examples:
  blockwire serve disk.img --size 10G                  # creates it if missing
  blockwire serve ram:1G /dev/vdb -r -p 127.0.0.1:0    # LUN 0 and 1, read-only, a free port
  blockwire serve disk.img -p 0.0.0.0:3260 --allow 10.0.0.0/8 --allow iqn.2025-01.com.example:host
  blockwire serve disk.img --chap-user lab --chap-secret-file lab.secret
  blockwire serve disk.img --rate 100M --keep-alive-interval 5
  blockwire serve ram:1G -- pytest tests/              # for the length of one command
  blockwire serve --config disks.toml

\b
Stores: a path, file:PATH, ram:SIZE, ram:SIZE?file=PATH, null:SIZE; options of a LUN in
the query: 'ram:1G?serial=A1&block_size=4096'. Filters: check, readonly, delay:read=5ms,
fault:op=write,errno=EIO. COMMAND finds the first URL in $BLOCKWIRE_URL, all of them in
$BLOCKWIRE_URLS; its exit code is returned. Without COMMAND, Ctrl-C or SIGTERM ends it
in order, with exit code 0."""


def option(*names: str, many: bool = False, help: str, **settings: Any) -> Callable[[Any], Any]:
    """A `click.option`; `many` may be given again and again, and its help says so."""
    return click.option(*names, multiple=many, help=help[:-1] + " (repeatable)." if many else help, **settings)


class ServeCommand(click.Command):
    """Keeps what stands behind `--` apart from the stores."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Splits at the first `--`."""
        if "--" in args:
            at = args.index("--")
            ctx.obj = args[at + 1 :]
            args = args[:at]
            if not ctx.obj:
                raise click.UsageError("there is no command behind --", ctx)
        else:
            ctx.obj = []
        return super().parse_args(ctx, args)


@click.command(cls=ServeCommand, epilog=EPILOG, options_metavar="[OPTIONS]")
@click.argument("stores", nargs=-1, metavar="[STORE]... [-- COMMAND [ARG]...]")
@option("-p", "--portal", "portals", many=True, metavar="HOST[:PORT]", help="Listen here; port 0 takes a free one.")
@option("-T", "--target-name", "--targetname", "target_name", metavar="IQN", help="The target's name.")
@option("--size", metavar="SIZE", help="Create a file that is missing with this size.")
@option("--block-size", type=click.Choice(["512", "4096"]), help="Bytes of a logical block [512].")
@option("--lun", "luns", many=True, metavar="N=STORE", help="Place a store at LUN N.")
@option("--filter", "filters", many=True, metavar="NAME[:OPTIONS]", help="Put a filter on the stores.")
@option("--serial", metavar="TEXT", help="Unit serial number of a single LUN.")
@option("--allow", many=True, metavar="IQN|CIDR", help="Who may log in; all others are refused.")
@option("--advertise", many=True, metavar="HOST:PORT", help="What discovery answers (for mapped ports).")
@option("--key", "keys", many=True, metavar="NAME=VALUE", help="An RFC 7143 key of the target.")
@chap_flags
@option("--rate", type=SIZE, metavar="SIZE", help="Send each session at most so many bytes per second, such as 100M.")
@keep_alive_flags(30, 30)
@option("--workers", type=click.IntRange(0, 64), default=0, help="Data plane threads [one per core, at most 4].")
@option("--config", "config_file", metavar="FILE", help="Serve what FILE (TOML or JSON) says, not arguments.")
@option("--print-config", is_flag=True, help="Print the configuration that the arguments mean, and exit.")
@option("--timeout", type=Seconds(0), metavar="SECONDS", help="Wait so long for initiators at the end [3].")
@option("--trace", metavar="DIR", help=TRACE_HELP)
@option(
    "--statistics",
    type=Seconds(0),
    default=10.0,
    metavar="SECONDS",
    help="Period of --json's statistics [10].",
)
@read_only_flag
@output_flags
@click.pass_context
def command(
    ctx: click.Context, stores: tuple[str, ...], portals: tuple[str, ...], target_name: str | None, size: str | None,
    block_size: str | None, luns: tuple[str, ...], filters: tuple[str, ...], serial: str | None,
    allow: tuple[str, ...], advertise: tuple[str, ...], keys: tuple[str, ...], chap_user: str | None,
    chap_secret_file: str | None, chap_secret_command: str | None, chap_mutual_user: str | None,
    chap_mutual_secret_file: str | None, chap_mutual_secret_command: str | None, workers: int,
    rate: int | None, keep_alive_interval: float | None, keep_alive_timeout: float | None,
    config_file: str | None, print_config: bool, timeout: float | None, trace: str | None, statistics: float,
    read_only: bool, as_json: bool, verbose: int, quiet: bool,
) -> int:  # fmt: skip
    """Share STOREs as the logical units of a target: no root, no kernel module, no configuration file."""
    set_up_logging(verbose)
    words: list[str] = ctx.obj
    from blockwire.config import arguments, authentication, document

    asked = authentication.chap(
        chap_user, chap_secret_file, chap_mutual_user, chap_mutual_secret_file, command=chap_secret_command,
        mutual_command=chap_mutual_secret_command,
    )  # fmt: skip
    if config_file is not None:
        given = [
            stores,
            portals,
            target_name,
            size,
            block_size,
            luns,
            filters,
            serial,
            allow,
            advertise,
            keys,
            asked,
            read_only,
            rate,
            keep_alive_interval is not None,
            keep_alive_timeout is not None,
        ]
        if any(given):
            raise errors.UsageError("--config stands for all arguments", next="put them into the file")
        configuration = document.load(config_file)
    else:
        if words and not portals:
            portals = ("127.0.0.1:0",)  # several of these may run side by side; the URL is in the environment
        configuration = arguments.build(
            stores, luns=luns, portals=portals, advertise=advertise, target_name=target_name, read_only=read_only,
            size=size, block_size=int(block_size) if block_size else None, allow=allow, keys=keys, filters=filters,
            serial=serial, authentication=asked, rate=rate or 0, keep_alive_interval=keep_alive_interval,
            keep_alive_timeout=keep_alive_timeout,
        )  # fmt: skip
    if timeout is not None:
        limits = configuration.limits.model_copy(update={"drain_seconds": timeout})
        configuration = configuration.model_copy(update={"limits": limits})
    if print_config:
        text = document.to_json(configuration) if as_json else document.to_toml(configuration)
        output.plain(text.rstrip("\n"))
        return errors.EXIT_DONE
    teller = Teller(as_json, verbose, quiet, bool(words))
    return asyncio.run(serve(configuration, words, workers, teller, statistics, trace))


class Teller:
    """Says what happens, in the form that was asked for."""

    def __init__(self, as_json: bool, verbose: int, quiet: bool, has_command: bool) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self.quiet = quiet
        self.has_command = has_command
        self._unread = False

    def _stream(self, name: str, values: dict[str, Any]) -> None:
        """A line of the JSON stream. When its reader has gone, or the disk that it goes to is full, initiators must not
        suffer for it: serving goes on."""
        if self._unread:
            return
        try:
            output.event(name, values)
        except OSError as error:
            self._unread = True
            settle(sys.stdout)
            why = "nobody reads the events any more" if isinstance(error, BrokenPipeError) else str(error)
            output.note(f"{why}; serving goes on without them")

    def event(self, event: TargetEvent) -> None:
        """Something happened to the target."""
        if self.as_json:
            self._stream(event.event, dict(event.details))
        elif self.verbose or event.event in ("store-fault", "protocol-violation"):
            details = " ".join(f"{name}={value}" for name, value in event.details.items() if value not in ("", None))
            output.note(f"{event.event} {details}")

    def ready(self, service: Service) -> None:
        """Initiators may come."""
        from blockwire.cli import ready

        server = service.server
        if self.as_json:
            self._unread = True  # unless this arrives: without it nobody knows what to attach, and there is no serving
            output.event("ready", {"schema": "blockwire.serve/1", **ready.as_json(server)})
            self._unread = False
        elif self.has_command:
            if self.verbose:
                output.note("\n".join(server.urls))
        elif self.quiet:
            for url in server.urls:
                output.plain(url)
        else:
            output.plain(ready.text(server))
        output.flush()

    def warn(self, configuration: Configuration) -> None:
        """A portal that others can reach, without a limit to who may write."""
        wide = configuration.open_to_the_world()
        writable = any(not unit.read_only for target in configuration.targets for unit in target.luns)
        if wide and not self.as_json:
            what = "read and write" if writable else "read"
            who = f"everybody who reaches {', '.join(wide)} can {what}"
            output.note(f"warning: {who}; limit it with --allow or --chap-user")

    def statistics(self, values: dict[str, Any]) -> None:
        """Periodically."""
        self._stream("statistics", values)

    def stopping(self, why: str) -> None:
        """The end has begun."""
        if not self.as_json and not self.quiet:
            output.note(f"{why}: stopping")


async def serve(
    configuration: Configuration, words: list[str], workers: int, teller: Teller, statistics_every: float,
    trace: str | None = None,
) -> int:  # fmt: skip
    """Serves until a signal comes, or until the command ends. Gives the exit code."""
    from blockwire.target.service import Service

    loop = asyncio.get_running_loop()
    stop: asyncio.Event = asyncio.Event()
    reasons: list[str] = []

    def on_signal(number: int) -> None:
        reasons.append(signal.Signals(number).name)
        if len(reasons) > 2:  # whoever presses it three times means it
            os._exit(errors.EXIT_INTERRUPTED)
        stop.set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    teller.warn(configuration)
    files = raise_open_files()
    service = Service(configuration, workers=workers, observe=teller.event, trace=trace)
    await service.start()
    try:
        teller.ready(service)
        ticker = None
        if teller.as_json and statistics_every > 0:
            ticker = asyncio.create_task(
                _tick(statistics_every, lambda: teller.statistics(service.server.statistics()))
            )
        try:
            if words:
                return await run_command(words, service.server.local_urls, stop, reasons, files)
            await stop.wait()
            teller.stopping(reasons[0])
            return errors.EXIT_DONE
        finally:
            if ticker is not None:
                ticker.cancel()
    finally:
        await service.stop()
        for number in numbers:
            loop.remove_signal_handler(number)


async def _tick(seconds: float, tell: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        tell()


def raise_open_files() -> tuple[int, int]:
    """Takes as many open files as the process may have, and gives the limit that was set before, which a command gets
    back. The usual 1024 are fewer than the half-open logins that are let wait, let alone the sessions."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    return before


COMMAND_SECONDS = 5.0
"""How long a command may take to end after a signal, before it is killed."""


async def run_command(
    words: list[str], urls: list[str], stop: asyncio.Event, reasons: list[str], files: tuple[int, int]
) -> int:
    """Runs the command with the URLs in its environment and the limit of open files that there was; signals are passed
    on to it."""
    environment = {**os.environ, "BLOCKWIRE_URL": urls[0], "BLOCKWIRE_URLS": " ".join(urls)}
    try:
        child = await asyncio.create_subprocess_exec(*words, env=environment)
        with contextlib.suppress(OSError):
            resource.prlimit(child.pid, resource.RLIMIT_NOFILE, files)
    except FileNotFoundError as error:
        raise errors.MissingFileError(f"there is no command {words[0]}", next="check its name and $PATH") from error
    except OSError as error:
        raise errors.from_os_error(error, f"cannot run {words[0]}") from error
    ended = asyncio.ensure_future(child.wait())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            # Ctrl-C reached the child through the terminal already; a second one does no harm.
            # Not by `send_signal`: of a command that has just ended that takes the exit code, and who waits gets none.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.Signals[reasons[0]])
            await asyncio.wait({ended}, timeout=COMMAND_SECONDS)
            if not ended.done():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
        code = await ended
    finally:
        stopping.cancel()
    return code if code >= 0 else 128 - code
