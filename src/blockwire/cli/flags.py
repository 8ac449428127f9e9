"""The flags that mean the same in every command, and how a command line names a target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from blockwire import errors
from blockwire.names import Portal, Url, parse_size, peer_name

if TYPE_CHECKING:
    from blockwire.auth import Secret

_F = TypeVar("_F", bound=Callable[..., Any])

URL_HELP = "[iscsi://]HOST[:PORT][/IQN[/LUN]]"


TRACE_HELP = "Where to write a session's last PDUs (pcapng) when it breaks."


class Size(click.ParamType[int]):
    """A size such as 4k, 10G or 1000000; K, M, G, T = 1024, KB, MB = 1000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except errors.UsageError as error:
            self.fail(f"{error.message}; {error.next}", param, ctx)


SIZE = Size()


class Seconds(click.FloatRange):
    """A number of seconds; neither `nan`, with which no comparison holds, nor one without end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


def parse_keys(pairs: tuple[str, ...]) -> dict[str, str]:
    """`--key NAME=VALUE` words; the key table checks names and values later."""
    keys: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise errors.UsageError(f"--key {pair!r} is not NAME=VALUE", next="write --key MaxBurstLength=1048576")
        if name in keys:
            raise errors.UsageError(f"--key {name} is given twice")
        keys[name] = value
    return keys


def chap_flags(function: _F) -> _F:
    """`--chap-user --chap-secret-file --chap-secret-command` and the mutual three; the target's commands mean what it
    asks for and how it proves itself, the initiator's how they log in and whom they expect."""
    for option in (
        click.option("--chap-user", metavar="NAME", help="CHAP user name."),
        click.option("--chap-secret-file", metavar="FILE", help="File with the CHAP secret (mode 0600)."),
        click.option("--chap-secret-command", metavar="COMMAND", help="Command that prints the CHAP secret."),
        click.option("--chap-mutual-user", "--mutual-chap-user", "chap_mutual_user", metavar="NAME",
                     help="Name under which the target proves itself."),
        click.option("--chap-mutual-secret-file", "--mutual-chap-secret-file", "chap_mutual_secret_file",
                     metavar="FILE", help="File with the target's secret (mode 0600)."),
        click.option("--chap-mutual-secret-command", "--mutual-chap-secret-command", "chap_mutual_secret_command",
                     metavar="COMMAND", help="Command that prints the target's secret."),
    )[::-1]:  # fmt: skip
        function = option(function)
    return function


def read_secret(path: str | None, command: str | None) -> Secret | None:
    """A secret from a file that nobody else can read, or from what a command prints."""
    from blockwire.config import secrets

    if path and command:
        raise errors.UsageError("a secret has a file or a command", next="give one of the two")
    if path:
        return secrets.from_file(path)
    return secrets.from_command(command) if command else None


@dataclass(frozen=True, slots=True)
class Login:
    """The client flags of one command, ready for the API."""

    portal: str | None
    target_name: str | None
    arguments: dict[str, Any]
    """Keyword arguments of `blockwire.discover`."""
    options: dict[str, str] = field(default_factory=dict)
    """`--rate`, `--keep-alive-…` and `--quirk` as options of the URL; they go over those that it has."""

    @property
    def timed(self) -> dict[str, Any]:
        """Those of `open` and `connect`: a lost session has `--timeout` to come back, and a rung of the recovery ladder
        takes no longer, because somebody waits."""
        from blockwire.initiator.options import Timers
        from blockwire.session.recovery import LADDER, ladder_with

        seconds = self.arguments["timeout"] or Timers().timeout
        ladder = ladder_with({step.rung: min(step.seconds, seconds) for step in LADDER})
        return {**self.arguments, "timers": Timers(replacement_timeout=seconds, ladder=ladder)}

    def url(self, text: str | None) -> Url:
        """The thing that was named, by URL or by `-p` and `-T`."""
        if text is None:
            if not self.portal:
                raise errors.UsageError("name a portal or a URL", next=f"write {URL_HELP}, or use -p and -T")
            url = Url(Portal.parse(self.portal))
        else:
            url = Url.parse(text)
            if self.portal:
                raise errors.UsageError("-p and a URL both name a portal", next="give one of the two")
        if self.target_name:
            if url.target and url.target != self.target_name:
                raise errors.UsageError(
                    f"-T names {self.target_name}, the URL {url.target}", next="give one of the two"
                )
            url = url.at(target=peer_name(self.target_name))
        return url.with_options(self.options)


def keep_alive_flags(interval: int, timeout: int) -> Callable[[_F], _F]:
    """`--keep-alive-interval --keep-alive-timeout` of both roles, whose defaults differ."""

    def add(function: _F) -> _F:
        for option in (
            click.option("--keep-alive-timeout", type=Seconds(0, min_open=True), metavar="SECONDS",
                         help=f"Give a connection up when a NOP has no answer for so long [{timeout}]."),
            click.option("--keep-alive-interval", type=Seconds(0), metavar="SECONDS",
                         help=f"Send a NOP after so much silence; 0: never [{interval}]."),
        ):  # fmt: skip
            function = option(function)
        return function

    return add


def login_flags(function: _F) -> _F:
    """`-p -T -i --key --chap-… --rate --keep-alive-… --quirk --timeout --trace` of the initiator's commands, in one
    `login` argument."""
    options = [
        click.option("-p", "--portal", metavar="HOST[:PORT]", help="The portal, instead of a URL."),
        click.option("-T", "--target-name", "--targetname", "target_name", metavar="IQN", help="The target's name."),
        click.option("-i", "--initiator-name", metavar="IQN", help="Log in under this name."),
        click.option("--key", "keys", multiple=True, metavar="NAME=VALUE", help="Offer an RFC 7143 key (repeatable)."),
        click.option("--rate", type=SIZE, metavar="SIZE", help="Send at most so many bytes per second, such as 100M."),
        click.option(
            "--quirk",
            "quirks",
            multiple=True,
            metavar="NAME",
            help="Go along with a departure of the target: reassign-lun, reassign-answer (repeatable).",
        ),
        click.option(
            "--timeout",
            type=Seconds(0, min_open=True),
            metavar="SECONDS",
            help="For login, command, and return of a lost session [30].",
        ),
        click.option("--trace", metavar="DIR", help=TRACE_HELP),
    ]

    def wrapper(
        *args: Any,
        portal: str | None,
        target_name: str | None,
        initiator_name: str | None,
        keys: tuple[str, ...],
        chap_user: str | None,
        chap_secret_file: str | None,
        chap_secret_command: str | None,
        chap_mutual_user: str | None,
        chap_mutual_secret_file: str | None,
        chap_mutual_secret_command: str | None,
        rate: int | None,
        quirks: tuple[str, ...],
        keep_alive_interval: float | None,
        keep_alive_timeout: float | None,
        timeout: float | None,
        trace: str | None,
        **kwargs: Any,
    ) -> Any:
        if trace is not None:
            from blockwire.initiator.sync_api import trace_to

            trace_to(trace)
        arguments = {
            "keys": parse_keys(keys),
            "initiator_name": initiator_name,
            "timeout": timeout,
            "chap_user": chap_user,
            "chap_secret": read_secret(chap_secret_file, chap_secret_command),
            "mutual_user": chap_mutual_user,
            "mutual_secret": read_secret(chap_mutual_secret_file, chap_mutual_secret_command),
        }
        behaviour = {
            "rate": rate, "quirks": ",".join(quirks) or None,
            "keep_alive_interval": keep_alive_interval, "keep_alive_timeout": keep_alive_timeout,
        }  # fmt: skip
        options = {name: str(value) for name, value in behaviour.items() if value is not None}
        return function(*args, login=Login(portal, target_name, arguments, options), **kwargs)

    wrapper.__name__ = function.__name__
    wrapper.__doc__ = function.__doc__
    wrapped: Any = wrapper
    wrapped.__click_params__ = list(getattr(function, "__click_params__", []))
    # Decorators put parameters in front of those that are there, so the last group comes first.
    for option in reversed(options[-2:]):
        wrapped = option(wrapped)
    wrapped = keep_alive_flags(5, 10)(wrapped)
    for option in reversed(options[-4:-2]):
        wrapped = option(wrapped)
    wrapped = chap_flags(wrapped)
    for option in reversed(options[:-4]):
        wrapped = option(wrapped)
    result: _F = wrapped
    return result


def output_flags(function: _F) -> _F:
    """`--json -v -q`."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print results and errors only."),
        click.option("-v", "--verbose", count=True, help="Say more; twice for the protocol's steps."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object (a stream for serve)."),
    ):
        function = option(function)
    return function


def read_only_flag(function: _F) -> _F:
    """`-r/--read-only`."""
    return click.option("-r", "--read-only", is_flag=True, help="Never write.")(function)


def set_up_logging(verbose: int) -> None:
    """Log lines of the package on stderr: errors always, steps with -v, details with -vv."""
    import logging

    handler = logging.StreamHandler()

    class Redacting(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return errors.redact(super().format(record))

        def formatException(self, ei: Any) -> str:
            return super().formatException(ei) if verbose > 1 else f"  {type(ei[1]).__name__}: {ei[1]}"

    handler.setFormatter(Redacting("blockwire: %(message)s" if verbose < 2 else "%(asctime)s %(name)s: %(message)s"))
    logger = logging.getLogger("blockwire")
    logger.handlers[:] = [handler]
    logger.setLevel({0: logging.ERROR, 1: logging.INFO}.get(verbose, logging.DEBUG))
