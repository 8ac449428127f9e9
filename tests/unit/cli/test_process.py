"""The process around a command: closed and full standard streams, encodings, signals at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE, ending, wait_until

SRC = str(Path(__file__).resolve().parents[3] / "src")


def start(*words: str, shell: str = "", **environment: str) -> subprocess.Popen[str]:
    """A command; `shell` redirects its streams."""
    command = [sys.executable, "-m", "blockwire", *words]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": SRC, **environment}, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="surrogateescape",
    )  # fmt: skip


def end(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    assert "inside blockwire" not in err
    return child.returncode, out, err


@pytest.mark.parametrize(
    "words", [["--version"], ["--help"], ["completion", "bash"], ["serve", "ram:1M", "--print-config"]]
)
@pytest.mark.parametrize("shell", [">&-", ">/dev/full"])
def test_a_result_that_cannot_be_written_is_a_failure(words: list[str], shell: str) -> None:
    code, _, err = end(start(*words, shell=shell))
    assert code == 1
    assert "Bad file descriptor" in err or "No space left" in err
    assert "  next: " in err


@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_a_failure_that_cannot_be_told_has_its_exit_code(shell: str) -> None:
    assert end(start("discover", "127.0.0.1:1", shell=shell))[0] == 3


def test_what_is_copied_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"x" * 8192)
    child = start("cp", str(tmp_path / "from"), str(tmp_path / "to"), "--verify", shell=">&- 2>&- <&-")
    assert end(child)[0] == 0
    assert (tmp_path / "to").read_bytes() == b"x" * 8192  # and no message in it


def test_a_copy_from_or_to_a_closed_stream_is_none(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"x" * 8192)
    assert end(start("cp", str(tmp_path / "from"), "-", shell=">&-"))[0] == 1
    assert end(start("cp", "-", str(tmp_path / "to"), shell="<&-"))[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["from"]


def test_a_name_that_is_no_text_is_copied_and_stays_json(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.img")
    Path(name).write_bytes(b"x" * 4096)
    code, out, _ = end(start("cp", name, f"{name}2", "--json", PYTHONIOENCODING="utf-8"))
    assert code == 0
    assert json.loads(out)["destination"] == f"{name}2"
    code, _, err = end(start("serve", name, "--", "true"))
    assert code == 2
    assert "UTF-8" in err


def test_json_in_an_encoding_that_lacks_a_character() -> None:
    words = ("serve", "ram:1M", "-T", "iqn.2025-01.org.test:ü", "--print-config", "--json")
    code, out, _ = end(start(*words, PYTHONIOENCODING="ascii"))
    assert code == 0
    assert json.loads(out)["targets"][0]["name"] == "iqn.2025-01.org.test:ü"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_copy_that_a_signal_ends_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    child = start("cp", "/dev/urandom", str(tmp_path / "to"))
    going = lambda: any(path.stat().st_size for path in tmp_path.iterdir())  # noqa: E731
    wait_until(going, "the first bytes of the copy", useless=ending(child))
    child.send_signal(number)
    code, _, err = end(child)
    assert code == 128 + number
    assert "was left as it was" in err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_the_program_is_loaded_is_no_traceback(tmp_path: Path) -> None:
    # The first import after the signals are set meets it; which one that is does not matter.
    (tmp_path / "click.py").write_text(
        "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)"
    )
    child = start("--version", PYTHONPATH=f"{tmp_path}:{SRC}")
    assert end(child) == (130, "", "blockwire: interrupted\n")


def test_ctrl_c_twice_is_no_traceback(tmp_path: Path) -> None:
    child = start("cp", "/dev/zero", str(tmp_path / "to"))
    wait_until(lambda: list(tmp_path.iterdir()), "the file of the copy", useless=ending(child))
    while child.poll() is None:
        child.send_signal(signal.SIGINT)
    assert end(child)[0] in (130, -signal.SIGINT)  # Python itself ends by the signal where it was compiling something


def test_words_behind_the_dashes_are_not_ours() -> None:
    _, _, err = end(start("serve", "ram:1M", "--size", "1M", "--", "true", "-v", "--json"))
    assert err.startswith("blockwire: --size does not go with ram:1M")
    assert len(err.splitlines()) == 3  # neither JSON nor a traceback
