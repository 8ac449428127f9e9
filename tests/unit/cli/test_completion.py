"""Shell completion: the scripts, and what they are answered."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blockwire.cli.main import COMMANDS, run
from tests.unit.cli.test_command_line import call


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"{shell}_complete" in script
    assert "_BLOCKWIRE_COMPLETE" in script


def answered(words: str, at: int) -> list[str]:
    """What bash is told for the word number `at`."""
    found = call(environment={"_BLOCKWIRE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)})
    assert not found.stderr, found.stderr
    return [line.partition(",")[2] for line in found.stdout.decode().splitlines()]


def test_commands_and_flags_are_known() -> None:
    assert set(answered("blockwire ", 1)) == set(COMMANDS)
    assert answered("blockwire inf", 1) == ["info"]
    assert {"--chap-user", "--chap-secret-file"} <= set(answered("blockwire serve --chap", 2))
    assert {"--keep-alive-interval", "--keep-alive-timeout"} == set(answered("blockwire cp --keep", 2))
    assert "randrw" in answered("blockwire bench --rw rand", 3)


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes(tmp_path: Path) -> None:
    shim = tmp_path / "blockwire"
    source = Path(__file__).parents[3] / "src"
    shim.write_text(f'#!/bin/sh\nPYTHONPATH="{source}" exec "{sys.executable}" -m blockwire "$@"\n')
    shim.chmod(0o755)
    script = (
        'PATH="$1:$PATH"; source <(blockwire completion bash); complete -p blockwire >&2; '
        'COMP_WORDS=(blockwire dis); COMP_CWORD=1; _blockwire_completion blockwire; echo "${COMPREPLY[*]}"'
    )
    done = subprocess.run(
        ["bash", "-eu", "-c", script, "bash", str(tmp_path)], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.stdout.split() == ["discover"], done.stderr
