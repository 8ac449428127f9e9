"""What the query of a URL says beside keys: rate, keep-alive, quirks. Over the flags and arguments, and in errors."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from blockwire import errors
from blockwire.cli import flags
from blockwire.cli.flags import Login
from blockwire.initiator import api
from blockwire.initiator.options import QUIRKS, Options, Timers
from blockwire.names import Url
from blockwire.negotiate.preferences import Preferences

IQN = "iqn.2025-01.org.test:t"


def meant(text: str, timers: Timers | None = None, quirks: tuple[str, ...] = ()) -> Options:
    return api.options(Url.parse(text), None, None, None, None, None, None, None, timers, quirks)


def test_the_query_says_how_the_session_behaves() -> None:
    found = meant(
        f"h/{IQN}/0?rate=100M&keep_alive_interval=0.5&keep_alive_timeout=2&quirks=reassign-lun&DataDigest=CRC32C"
    )
    assert found.rate == 100 << 20
    assert (found.timers.keep_alive_interval, found.timers.keep_alive_timeout) == (0.5, 2.0)
    assert found.quirks == ("reassign-lun",)
    assert found.keys == {"DataDigest": "CRC32C"}


def test_what_is_not_said_stays() -> None:
    found = meant(f"h/{IQN}/0?keep_alive_interval=0", Timers(keep_alive_interval=7.0, keep_alive_timeout=9.0))
    assert (found.timers.keep_alive_interval, found.timers.keep_alive_timeout) == (0.0, 9.0)
    assert (found.rate, found.quirks) == (0.0, ())


def test_quirks_of_url_and_argument_come_together() -> None:
    found = meant(f"h/{IQN}?quirks=reassign-lun,reassign-answer", quirks=("reassign-lun",))
    assert found.quirks == ("reassign-lun", "reassign-answer")


@pytest.mark.parametrize(
    ("query", "code", "following"),
    [
        ("quirks=nonsense", "usage.quirk", "reassign-lun, reassign-answer"),
        ("rate=fast", "usage.rate", "100M"),
        ("rate=-1", "usage.rate", "100M"),
        ("keep_alive_interval=soon", "usage.keep-alive", "0 for never"),
        ("keep_alive_interval=-1", "usage.keep-alive", "keep_alive_interval=5"),
        ("keep_alive_timeout=0", "usage.keep-alive", "keep_alive_timeout=5"),
        ("keep_alive_timeout=nan", "usage.keep-alive", "keep_alive_timeout=5"),
        ("Rate=1", "configuration.key", ""),
        ("speed=1", "usage.url", "quirks, rate"),
        ("rate=1&rate=2", "usage.url", ""),
    ],
)
def test_bad_options_say_what_there_is(query: str, code: str, following: str) -> None:
    def check() -> None:
        Preferences.of("initiator", meant(f"h/{IQN}/0?{query}").keys)

    with pytest.raises(errors.Error) as caught:
        check()
    assert caught.value.code == code
    assert following in caught.value.next


def test_a_url_shows_its_options() -> None:
    text = f"iscsi://h:3260/{IQN}/0?DataDigest=CRC32C&rate=1M&quirks=reassign-lun"
    url = Url.parse(text)
    assert str(url) == text
    assert str(url.at(lun=3)) == text.replace("/0?", "/3?")
    assert url.with_options({"rate": "2M"}).options == (("rate", "2M"), ("quirks", "reassign-lun"))


def test_flags_go_over_the_url() -> None:
    seen: list[Login] = []

    @click.command()
    @flags.login_flags
    def command(login: Login) -> None:
        seen.append(login)

    words = ["--rate", "10M", "--quirk", "reassign-lun", "--quirk", "reassign-answer", "--keep-alive-interval", "1"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    found = meant(str(seen[0].url(f"h/{IQN}?rate=1M&keep_alive_timeout=3")))
    assert (found.rate, found.quirks) == (10 << 20, tuple(QUIRKS))
    assert (found.timers.keep_alive_interval, found.timers.keep_alive_timeout) == (1.0, 3.0)
    defaults = Timers()
    help_text = CliRunner().invoke(command, ["--help"]).output.replace("\n", " ")
    said = " ".join(help_text.split())
    assert all(name in said for name in QUIRKS)
    assert f"0: never [{defaults.keep_alive_interval:g}]" in said
    assert f"for so long [{defaults.keep_alive_timeout:g}]" in said
