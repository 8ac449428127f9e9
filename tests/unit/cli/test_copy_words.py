"""What the two words of `cp` mean, and which flags reach the ends."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest

import blockwire
from blockwire import errors
from blockwire.cli.copy_ends import is_pipe, is_url
from blockwire.cli.main import run

LUN = "127.0.0.1:1/iqn.2025-01.org.test:t/0"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (f"iscsi://{LUN}", True), (LUN, True), ("127.0.0.1:3260", True), ("127.0.0.1", True), ("[::1]:3260", True),
        ("[::1]", True), ("host.example:3260", True), ("host:3260/", True),
        ("disk.img", False), ("./127.0.0.1:3260", False), ("a:b", False), ("-", False), ("/dev/sda", False),
        ("dir/host:3260", False), ("12:30:45", False), ("10.iso", False), ("[draft].img", False),
    ],
)  # fmt: skip
def test_which_words_name_a_lun(word: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_url(word) is expected


def test_a_file_that_is_there_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "127.0.0.1:3260").touch()
    assert not is_url("127.0.0.1:3260")


def test_a_forgotten_target_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.img").write_bytes(bytes(4096))
    assert run(["cp", "a.img", "127.0.0.1:1"]) == errors.EXIT_UNREACHABLE
    assert [path.name for path in tmp_path.iterdir()] == ["a.img"]
    capsys.readouterr()


def test_the_flags_of_a_login_reach_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def no_target(url: Any, **_: Any) -> NoReturn:
        asked.append(str(url))
        raise errors.UnreachableError("not there")

    monkeypatch.setattr(blockwire, "open", no_target)
    (tmp_path / "a.img").write_bytes(bytes(4096))
    flags = ("--rate", "1M", "--keep-alive-interval", "7", "--quirk", "reassign-lun")
    assert run(["cp", LUN, str(tmp_path / "b.img"), *flags]) == errors.EXIT_UNREACHABLE
    assert run(["cp", str(tmp_path / "a.img"), LUN, *flags]) == errors.EXIT_UNREACHABLE
    assert len(asked) == 2
    for url in asked:
        assert {"rate=1048576", "keep_alive_interval=7.0", "quirks=reassign-lun"} <= set(
            url.partition("?")[2].split("&")
        )
    capsys.readouterr()


@pytest.mark.parametrize("flags", [("-T", "iqn.2025-01.org.test:other"), ("-p", "127.0.0.1:2")])
def test_what_contradicts_a_url_is_said(
    flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.img").write_bytes(bytes(4096))
    assert run(["cp", str(tmp_path / "a.img"), LUN, *flags, "--json"]) == errors.EXIT_USAGE
    assert flags[0] in json.loads(capsys.readouterr().err)["error"]["message"]


def test_a_named_pipe_is_written_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = os.urandom(5000) + bytes(2_000_000) + os.urandom(3_000_000)
    (tmp_path / "a.img").write_bytes(data)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert run(["cp", str(tmp_path / "a.img"), str(pipe)]) == 0
    reader.join()
    assert read == [data]
    assert is_pipe(str(pipe))
    assert not is_pipe(str(tmp_path / "a.img"))
    assert run(["cp", str(tmp_path / "a.img"), str(pipe), "--verify"]) == errors.EXIT_USAGE
    capsys.readouterr()


def test_the_longest_piece_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cp", "/dev/zero", "/dev/null", "--chunk", "1T"]) == errors.EXIT_USAGE
    assert "64 MiB" in capsys.readouterr().err
