"""What the guides show is so: the flags they name exist, what can run does, the documents load, the codes are ours."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from blockwire.cli.main import command as root
from blockwire.config import document

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "guide").glob("*.md")),
    ROOT / "bench" / "README.md", ROOT / "examples" / "README.md",
]  # fmt: skip


def shown(page: Path) -> list[str]:
    """Every command line that a page shows, in blocks and between backquotes."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return [
        match[1]
        for line in lines
        for match in re.finditer(r"(?:^|(?<=[\s'\"|(]))(blockwire [a-z].*?)(?= -- | #|[;|)]|$)", line)
    ]


def test_every_flag_that_a_page_names_is_there() -> None:
    context = click.Context(root)
    seen = 0
    for page in PAGES:
        for line in shown(page):
            words = [word.strip("'\"…,") for word in line.split()]
            names = root.list_commands(context)
            assert words[1] in names, f"{page.name}: {line}"
            known = {
                flag
                for parameter in root.get_command(context, words[1]).params  # type: ignore[union-attr]
                for flag in (*parameter.opts, *parameter.secondary_opts)
            } | {"--help", "-h"}
            for word in words[2:]:
                if word.startswith("-") and word != "-":
                    assert word.split("=")[0] in known, f"{page.name}: {line}"
                    seen += 1
    assert seen > 20


def block(page: str, number: int, kind: str = "") -> str:
    """One fenced block of a guide."""
    text = (ROOT / "docs" / "guide" / page).read_text(encoding="utf-8")
    found: list[str] = re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found[number]


@pytest.mark.slow
def test_the_steps_of_the_authentication_guide(tmp_path: Path) -> None:
    secret, serve, use = (
        shlex.join(shlex.split(line, comments=True)) for line in block("authentication.md", 0).splitlines()
    )
    shim = tmp_path / "blockwire"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m blockwire "$@"\n')
    shim.chmod(0o755)
    inner = use.replace("127.0.0.1", '"${BLOCKWIRE_URL%/iqn*}"')
    script = f"{secret}\n{serve} --size 1M -- sh -c {shlex.quote(inner)}"
    done = subprocess.run(
        ["bash", "-eu", "-c", script], capture_output=True, text=True, timeout=150, check=False, cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1",
                          "XDG_CONFIG_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 MiB" in done.stdout


def test_the_configuration_of_the_authentication_guide_loads() -> None:
    found = document.parse(block("authentication.md", 0, "toml"), "the guide", toml=True)
    asked = found.targets[0].authentication
    assert asked is not None
    assert [account.user for account in asked.accounts] == ["alice", "bob"]
    assert found.discovery is not None


def test_the_fields_that_the_guide_names_are_there() -> None:
    text = (ROOT / "docs" / "guide" / "sessions.md").read_text(encoding="utf-8")
    assert "`targets.rate`, `limits.keep_alive_seconds` and\n`limits.keep_alive_timeout`" in text
    value = 'targets = [{ name = "iqn.2025-01.x:t", luns = [{ lun = 0, store = "ram:1M" }], rate = "100M" }]\n'
    found = document.parse(
        value + "[limits]\nkeep_alive_seconds = 5\nkeep_alive_timeout = 10\n", "the guide", toml=True
    )
    assert (found.targets[0].rate, found.limits.keep_alive_seconds, found.limits.keep_alive_timeout) == (
        100 << 20,
        5,
        10,
    )


def test_the_codes_that_a_guide_explains_are_used() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    text = (ROOT / "docs" / "guide" / "authentication.md").read_text(encoding="utf-8")
    codes = re.findall(r"^\| `([a-z]+\.[a-z-]+)`", text, re.MULTILINE)
    assert len(codes) >= 4
    for code in codes:
        assert f'"{code}"' in source, code
