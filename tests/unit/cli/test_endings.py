"""How commands end when something outside of them breaks: the disk, the reader of their output, a secret's command."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import pytest

from blockwire import errors
from blockwire.cli import output, serve
from blockwire.cli.flags import set_up_logging
from blockwire.cli.main import run
from blockwire.target.events import TargetEvent


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_copy_that_cannot_be_made_durable_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    (tmp_path / "from").write_bytes(b"x" * 8192)

    def broken(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", broken)
    assert run(["cp", str(tmp_path / "from"), str(tmp_path / "to")]) == errors.EXIT_FAILED
    assert os.strerror(number) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["from"]


def test_a_copy_to_a_device_that_knows_no_fsync(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "from").write_bytes(b"x" * 8192)
    assert run(["cp", str(tmp_path / "from"), "/dev/null"]) == 0
    capsys.readouterr()


def test_a_secret_command_with_an_open_quote_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ls", "127.0.0.1:1", "--chap-user", "lab", "--chap-secret-command", "pass show 'disk"]
    assert run(words) == errors.EXIT_USAGE
    assert "internal" not in capsys.readouterr().err


def test_json_with_a_redacted_password_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.document("x/1", {"url": "iscsi://joe%secretsecret@h/iqn.x:y/0?target_user=t&target_password=alsosecret",
                            "deep": [{"at": "iscsi://joe%secretsecret@h/"}], "last": "CHAP_R=0x00"})  # fmt: skip
    text = capsys.readouterr().out
    assert json.loads(text)["schema"] == "blockwire.x/1"
    assert json.loads(text)["deep"] == [{"at": "iscsi://joe%***@h/"}]
    assert "secretsecret" not in text
    assert "alsosecret" not in text


def test_what_a_target_says_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "\x1b]0;owned\x07disk\x9b2J"
    output.plain(output.table(("PRODUCT",), [(hostile,)]))
    output.note(hostile)
    output.failure(errors.Error(hostile, evidence=hostile, next=hostile), as_json=False)
    said = capsys.readouterr()
    shown = r"\x1b]0;owned\x07disk\x9b2J"
    assert said.out == f"PRODUCT\n{shown}\n"
    assert said.err == f"{shown}\nblockwire: {shown}\n  next: {shown}\n"
    monkeypatch.setattr(output, "colourful", lambda stream: True)
    output.failure(errors.Error(hostile), as_json=False)
    assert capsys.readouterr().err == f"\x1b[31mblockwire: {shown}\x1b[0m\n"


def test_json_stays_json_whatever_a_target_says(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]0;owned\x07disk\x9b2J\x7f"
    output.failure(errors.Error(hostile), as_json=True)
    output.document("x/1", {"product": hostile})
    said = capsys.readouterr()
    assert json.loads(said.err)["error"]["message"] == json.loads(said.out)["product"] == hostile
    assert (said.err + said.out).isascii()
    assert "\x7f" not in said.err + said.out


@pytest.mark.parametrize(("verbose", "shown"), [(0, False), (1, False), (2, True)])
def test_a_traceback_is_for_those_who_ask(capsys: pytest.CaptureFixture[str], verbose: int, shown: bool) -> None:
    set_up_logging(verbose)
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("blockwire.target").exception("the handler failed")
    text = capsys.readouterr().err
    assert "the handler failed" in text
    assert "ValueError: inside" in text
    assert ("Traceback" in text) is shown


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_serve_goes_on_when_nobody_reads_its_events(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    teller = serve.Teller(True, 0, False, False)
    monkeypatch.setattr(serve, "settle", lambda stream: None)

    def closed(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(output, "event", closed)
    for _ in range(3):
        teller.event(TargetEvent("session-up"))
        teller.statistics({})
    # Said once.
    assert len(capsys.readouterr().err.splitlines()) == 1
