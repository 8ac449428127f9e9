"""Every example runs to its end, as a user would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(path)]
    if path.name.startswith("test_"):
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=150, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_the_table_of_the_readme_names_them_all() -> None:
    table = (ROOT / "examples" / "README.md").read_text()
    for path in EXAMPLES:
        assert f"`{path.name}`" in table, path.name
