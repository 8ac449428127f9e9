"""CHAP secrets are made at random, and taken from elsewhere (RFC 7143 9.2.1)."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockwire.auth import Account, ChapInitiator, InitiatorCredentials, OutstandingChallenges, Secret
from blockwire.cli.main import run
from blockwire.config import secrets


def test_secrets_of_128_bits_are_what_the_random_source_gives() -> None:
    # "MUST NOT provide secret generation (or expansion) means other than random generation": every bit is the source's
    asked: list[int] = []

    def source(count: int) -> bytes:
        asked.append(count)
        return bytes(range(0xF0, 0xF0 + count))

    assert Secret.draw(source).reveal() == bytes(range(0xF0, 0x100))
    assert asked == [16]
    with pytest.raises(ValueError, match="instead of 16"):
        Secret.draw(lambda count: b"short")


def test_text_secrets_keep_six_bits_of_each_byte() -> None:
    seen = {Secret.draw(lambda count, n=n: bytes([n]) * count, text=True).reveal() for n in range(256)}
    assert len(seen) == 64
    assert all(len(secret) == 16 and secret.isascii() and b" " not in secret for secret in seen)


def rounds() -> Iterator[Secret]:
    for _ in range(50):
        yield Secret.draw(os.urandom)
        yield Secret.draw(os.urandom, text=True)
    yield Secret(b"0x3456789abcde")
    yield Secret(bytes(16))


def test_what_is_kept_is_read_again() -> None:
    for secret in rounds():
        assert Secret.from_text(secret.to_text() + "\n") == secret


@pytest.mark.parametrize("text", ["0x" + "c3" * 16, "0b" + "w8PDw8PDw8PDw8PDw8PDww=="])
def test_secrets_of_128_bits_are_accepted_from_elsewhere_and_used(text: str) -> None:
    # "to accept them from an external generation source"
    secret = Secret.from_text(text)
    assert len(secret.reveal()) * 8 == 128
    initiator = ChapInitiator(InitiatorCredentials(Account("joe", secret)), os.urandom, OutstandingChallenges())
    answer = dict(initiator.receive({"CHAP_A": "5", "CHAP_I": "9", "CHAP_C": "0x" + "11" * 16}))
    assert answer["CHAP_R"] == "0x" + hashlib.md5(b"\x09" + b"\xc3" * 16 + b"\x11" * 16).hexdigest()


@pytest.mark.parametrize("options", [[], ["--text"]])
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    places = [str(tmp_path / name) for name in ("one", "two")]
    for place in places:
        assert run(["secret", place, *options]) == 0
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o600
    made = [secrets.from_file(place) for place in places]
    assert made[0] != made[1]
    assert [len(secret.reveal()) for secret in made] == [16, 16]
    shown = capsys.readouterr()
    assert made[0].to_text() not in shown.out + shown.err
    # it never replaces one that is in use
    assert run(["secret", places[0], *options]) != 0
    assert secrets.from_file(places[0]) == made[0]
    capsys.readouterr()
    assert run(["secret", "-", *options]) == 0
    assert len(Secret.from_text(capsys.readouterr().out).reveal()) == 16
