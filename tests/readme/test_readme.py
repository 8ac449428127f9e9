"""What the README shows is so: its `sh` and `python` blocks run, its `console` block is what the command prints.

Blocks marked `shell` install things; `tests/packaging` does that with a built wheel.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [text for name, text in BLOCKS if name == kind]


def commands(block: str) -> list[str]:
    """One command a line; comments are for readers."""
    return [line for line in block.splitlines() if line.strip() and not line.startswith("#")]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A `blockwire` on the path that is this source tree, and a home of its own."""
    shim = tmp_path / "bin" / "blockwire"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m blockwire "$@"\n')
    shim.chmod(0o755)
    (tmp_path / "work").mkdir()
    return os.environ | {
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "XDG_CONFIG_HOME": str(tmp_path),
        "NO_COLOR": "1",
    }


def test_there_is_something_to_run() -> None:
    assert {kind for kind, _ in BLOCKS} == {"console", "sh", "shell", "python"}
    assert sum(len(commands(block)) for block in blocks("sh")) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("sh"))
def test_commands_run(block: str, environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-eu", "-c", block], capture_output=True, text=True, timeout=150, check=False,
        cwd=tmp_path / "work", env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block: str, environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, timeout=150, check=False,
        cwd=tmp_path / "work", env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "hello, disk" in done.stdout


def guide_blocks() -> list[str]:
    """Python of the guides that needs nothing around it."""
    found = []
    for path in sorted((ROOT / "docs" / "guide").glob("*.md")):
        for block in re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            if "..." not in block and "iscsi://" not in block and "def test_" not in block:
                found.append(block)
    return found


@pytest.mark.parametrize("block", guide_blocks())
def test_python_of_the_guides_runs(block: str, environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, timeout=150, check=False,
        cwd=tmp_path / "work", env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def normal(text: str) -> list[str]:
    """Without what differs from machine to machine: the target's name and the port."""
    text = re.sub(r"iqn\.2025-01\.org\.blockwire:[\w.-]+", "IQN", text)
    text = re.sub(r"(127\.0\.0\.1|\[?::1\]?)([: ])\d+", r"\1\2PORT", text)
    text = re.sub(r"-TargetPortalPortNumber \d+", "-TargetPortalPortNumber PORT", text)
    return [line.rstrip() for line in text.strip().splitlines()]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("console"))
def test_console_output_is_real(block: str, environment: dict[str, str], tmp_path: Path) -> None:
    first, _, shown = block.partition("\n")
    assert first.startswith("$ blockwire serve ")
    # The default port may be taken on this machine; what is printed is the same but for the number.
    portals = "-p 127.0.0.1:0" + (" -p '[::1]:0'" if has_ipv6() else "")
    process = subprocess.Popen(
        ["bash", "-c", f"exec {first[2:]} {portals}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=tmp_path / "work", env=environment,
    )  # fmt: skip
    killer = threading.Timer(150, process.kill)
    killer.start()
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait() == 0
    finally:
        killer.cancel()
        process.kill()
    expected = shown if has_ipv6() else shown.replace(", [::1]:3260", "")
    assert normal("".join(lines)) == normal(expected)


DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_map_names_files_that_are_there() -> None:
    """Every path of a walk in ARCHITECTURE.md exists, so that the text follows the tree."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    # `engine/src/x.rs` is short for `crates/blockwire-engine/src/x.rs`.
    there = [
        f"/{path}".replace("/blockwire-", "/")
        for top in ("src", "crates", "tests")
        for path in (ROOT / top).rglob("*.*")
    ]
    for name in re.findall(r"`([\w/-]+\.(?:rs|py))`", text):
        wanted = "/" + name.removeprefix("blockwire-").removeprefix("src/")
        assert any(path.endswith(wanted) for path in there), name
    for name in re.findall(r"`(tests/[\w/]+)`", text):
        assert (ROOT / name).exists(), name
