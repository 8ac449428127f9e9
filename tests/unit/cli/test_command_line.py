"""What needs no target: help, usage errors, exit codes, the form of failures, redaction, start-up."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from blockwire import errors
from blockwire.cli import bench, output
from blockwire.cli.main import COMMANDS, run

SRC = str(Path(__file__).resolve().parents[3] / "src")


def call(
    *words: str, environment: dict[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "PYTHONPATH": SRC, "NO_COLOR": "1", **(environment or {})}
    return subprocess.run(
        [sys.executable, "-m", "blockwire", *words], env=env, input=stdin, check=False, capture_output=True, timeout=150
    )


def failure(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    found: dict[str, str] = json.loads(capsys.readouterr().err)["error"]
    assert set(found) == {"code", "whose", "message", "evidence", "next"}
    return found


def test_help_names_every_command_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in text
        assert line.split()[0] in text
    for name in COMMANDS:
        assert run([name, "--help"]) == 0
        assert f"blockwire {name}" in capsys.readouterr().out.split("xamples", 1)[1]


@pytest.mark.parametrize(
    "words",
    [
        ["frobnicate"], ["ls"], ["ls", "--nonsense"], ["discover", "127.0.0.1:99999"], ["info", "http://x/iqn.x"],
        ["ls", "127.0.0.1", "-p", "127.0.0.1"], ["ls", "127.0.0.1", "-T", "not a name"], ["cp", "only-one"],
        ["bench", "127.0.0.1", "--rw", "randwrite"], ["bench", "127.0.0.1", "--verify"],
        ["bench", "127.0.0.1", "--rwmixread", "30"], ["cp", "/dev/zero", "-", "--verify"],
        ["ls", "127.0.0.1", "--key", "x"], ["bench", "127.0.0.1", "--seed", "-1"],
        ["bench", "127.0.0.1", "--seed", str(1 << 64)], ["bench", "127.0.0.1", "--time", "nan"],
        ["bench", "127.0.0.1", "--time", "inf"], ["ls", "127.0.0.1", "--timeout", "nan"], ["demo", "--time", "nan"],
        ["serve", "null:1M", "--statistics", "inf"],
        ["ls", "127.0.0.1", "--timeout", "-1"], ["discover", "127.0.0.1", "--key", "Nonsense=1"],
    ],
)  # fmt: skip
def test_usage_errors_exit_with_two_and_say_what_next(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--json"]) == 2
    found = failure(capsys)
    assert found["whose"] == "user"
    assert found["message"]


def test_a_target_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["discover", "127.0.0.1:1", "--json"]) == 3
    found = failure(capsys)
    assert (found["code"], found["whose"]) == ("network.refused", "network")
    assert "127.0.0.1:1" in found["message"]
    assert run(["info", "127.0.0.1:1/iqn.2025-01.org.test:t/0"]) == 3
    text = capsys.readouterr().err
    assert text.startswith("blockwire: nothing listens at 127.0.0.1:1")
    assert "Traceback" not in text


def test_a_missing_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["cp", str(tmp_path / "no.img"), str(tmp_path / "out.img"), "--json"]) == 2
    assert failure(capsys)["code"] == "configuration.file-not-found"
    assert not list(tmp_path.iterdir())


def test_each_failure_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "a.img"
    file.write_bytes(bytes(4096))
    for words, code, said, following in (
        (["serve", "ram:1000"], "configuration.size", "1000", "512 or 1024"),
        (["serve", "ram:0"], "", "size 0 has to be more than 0", "correct"),
        (["serve", "null:16E"], "", "has to be less than", "correct"),
        (["serve", "no.img", "--size", str(1 << 64)], "", "has to be less than", "correct"),
        (["serve", "--lun", "99999=ram:1M"], "", "lun 99999 has to be less than 16384", "correct"),
        (["serve", "--config", str(tmp_path / "no.toml")], "", "no.toml", "check the path"),
        (["cp", str(tmp_path / "no"), str(file)], "", "cannot read", "check the path"),
        (["cp", str(file), str(tmp_path / "no" / "a.img")], "", "cannot write", "check the path"),
        (["cp", str(file), str(file)], "copy.same", "are the same", "another destination"),
        (["info", "127.0.0.1:1/iqn.2025-01.org.test:t/0", "-i", "bad"], "", "'bad'", "iqn."),
        (["info", "127.0.0.1:1/iqn.2025-01.org.test:t/0", "--trace", "/dev/null/x"], "", "traces", "path"),
    ):
        assert run([*words, "--json"]) == 2, words
        found = failure(capsys)
        assert code in ("", found["code"]), found
        assert said in found["message"], found
        assert following in found["next"], found


def test_a_peer_that_speaks_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with server.accept()[0] as sock:
                sock.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3 and so on, until it is a header\r\n")
                while sock.recv(4096):
                    pass

        thread = threading.Thread(target=greet)
        thread.start()
        assert run(["discover", f"127.0.0.1:{server.getsockname()[1]}", "--json"]) == 3
        thread.join()
    assert failure(capsys)["code"] == "login.not-iscsi"


def test_secrets_never_come_out(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["ls", "iscsi://me%topsecret123@127.0.0.1:1/iqn.2025-01.org.test:t"],
        ["ls", "-v", "--json", "iscsi://me%topsecret123@127.0.0.1:1/iqn.2025-01.org.test:t/0/1"],
        ["ls", "iscsi://me%topsecret123@127.0.0.1:1/iqn.2025-01.org.test:t?Bad=1"],
    ):
        assert run(words) != 0
        out = capsys.readouterr()
        assert "topsecret" not in out.out + out.err


def test_a_secret_file_that_others_can_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-16-b")
    secret.chmod(0o644)
    words = ["ls", "127.0.0.1:1", "--chap-user", "me", "--chap-secret-file", str(secret), "--json"]
    assert run(words) == 2
    found = failure(capsys)
    assert found["next"] == f"chmod 600 {secret}"
    secret.chmod(0o600)
    assert run(words) == 3


def test_files_are_copied_with_their_holes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "a.img", tmp_path / "b.img"
    content = bytearray(9 << 20)
    content[5000:6000] = os.urandom(1000)
    content[(4 << 20) + 1 : (4 << 20) + 5] = b"data"
    content[-3:] = b"end"
    with source.open("wb") as file:
        file.truncate(len(content))
        for at in (5000, 4 << 20, len(content) - 3):
            file.seek(at)
            file.write(content[at : at + 1000])
    assert run(["cp", str(source), str(target), "--verify", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == "blockwire.cp/1"
    assert (result["bytes"], result["verified"]) == (len(content), True)
    assert result["zero_bytes"] > 6 << 20
    assert target.read_bytes() == bytes(content)
    assert target.stat().st_blocks * 512 < 4 << 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.img", "b.img"]


def test_pipes_on_either_side(tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    target = tmp_path / "x.img"
    assert call("cp", "-", str(target), stdin=data).returncode == 0
    assert target.read_bytes() == data
    out = call("cp", str(target), "-")
    assert (out.returncode, out.stdout) == (0, data)


def test_an_existing_file_is_named_before_it_is_overwritten_and_kept_when_the_copy_fails(tmp_path: Path) -> None:
    target = tmp_path / "x.img"
    target.write_bytes(b"old")
    failed = call("cp", str(tmp_path / "missing"), str(target))
    assert failed.returncode == 2
    assert target.read_bytes() == b"old"
    done = call("cp", "-", str(target), stdin=b"new")
    assert f"overwriting {target}".encode() in done.stderr
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_BLOCKWIRE_COMPLETE" in capsys.readouterr().out


def test_completion_completes() -> None:
    out = call(environment={"_BLOCKWIRE_COMPLETE": "bash_complete", "COMP_WORDS": "blockwire di", "COMP_CWORD": "1"})
    assert b"discover" in out.stdout


def test_start_up_is_quick_and_loads_little() -> None:
    code = (
        "import sys, blockwire.cli.main as m; m.run(['--version']);"
        "heavy = ('rich', 'pydantic', 'asyncio', 'blockwire.initiator', 'blockwire._native');"
        "print([n for n in heavy if n in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SRC}, check=False, capture_output=True, text=True
    )
    assert out.stdout.splitlines()[-1] == "[]"
    best = min(_processor_seconds() for _ in range(5))
    assert best < 0.5, f"{best:.3f} s"


def _processor_seconds() -> float:
    """What `blockwire --version` costs, whatever else the machine does meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert call("--version").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_import_loads_no_third_party_package() -> None:
    code = "import sys, blockwire; blockwire.open; print([n for n in ('click','rich','pydantic') if n in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SRC}, check=False, capture_output=True, text=True
    )
    assert out.stdout.strip() == "[]", out.stderr


def test_an_unforeseen_error_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from blockwire.cli import flags

    def broken(*_: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(flags.Login, "url", broken)
    assert run(["ls", "127.0.0.1"]) == 1
    text = capsys.readouterr().err
    assert "surprise" in text
    assert "Traceback" not in text
    assert run(["ls", "127.0.0.1", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from blockwire.cli import flags

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flags.Login, "url", interrupted)
    assert run(["ls", "127.0.0.1"]) == 130


def test_the_histogram_adds_up() -> None:
    text = bench.draw(((900, 10), (1500, 30), (64_000, 60)))
    assert [line.split("%")[0].split()[-1] for line in text.splitlines() if "█" in line] == ["10.00", "30.00", "60.00"]
    coarse = bench.draw(((900, 10), (1500, 30), (64_000, 60)), fine=False)
    assert coarse.isascii()
    assert [line.count("#") for line in coarse.splitlines() if "#" in line] == [7, 20, 40]


def test_no_command_at_all_is_told_on_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.split()[0]) == ("", "Usage:")


def test_a_lack_of_memory_is_no_error_inside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from blockwire.cli import flags

    def lacking(*_: object) -> None:
        raise MemoryError("cannot allocate memory")

    monkeypatch.setattr(flags.Login, "url", lacking)
    assert run(["ls", "127.0.0.1", "--json"]) == 1
    assert failure(capsys)["code"] == "local.out-of-memory"


def test_tables_align() -> None:
    assert output.table(("A", "B"), [("x", 1), ("long", 22)]) == "A     B\nx     1\nlong  22"


def test_errors_family_is_what_the_api_exports() -> None:
    import blockwire

    assert blockwire.Error is errors.Error
    for name in blockwire.__all__:
        if name != "Target":
            assert getattr(blockwire, name) is not None
    with pytest.raises(AttributeError):
        _ = blockwire.nonsense
