"""The wheel, as a user gets it: built, installed into an empty environment, and its demonstration run from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path = ROOT, timeout: float = 600) -> str:
    # The environment of the tests must not be found by the programs of the empty one.
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"$ {' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    maturin = Path(sys.executable).parent / "maturin"
    program = str(maturin) if maturin.exists() else shutil.which("maturin")
    assert program, "maturin is part of the locked environment: make build"
    out = tmp_path_factory.mktemp("dist")
    run(
        program,
        "build",
        "--release",
        "--locked",
        "--strip",
        "--quiet",
        "--out",
        str(out),
        "--interpreter",
        sys.executable,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.timeout(900)
def test_it_is_one_wheel_for_every_python(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert any(name.startswith("blockwire/_native") and name.endswith(".so") for name in names)
    assert "blockwire/py.typed" in names
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bench/")) or "__pycache__" in name]


@pytest.mark.timeout(900)
def test_the_demonstration_runs_from_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    binaries = tmp_path / "venv" / "bin"
    # The versions of the lock, so that a release of a dependency cannot break this test.
    run(
        str(binaries / "pip"), "install", "--quiet", "--disable-pip-version-check",
        "--constraint", str(ROOT / "requirements-dev.txt"), str(wheel),
    )  # fmt: skip
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = run(str(binaries / "python"), "-c", "import blockwire; print(blockwire.__file__)", cwd=elsewhere)
    assert str(tmp_path / "venv") in where
    printed = run(str(binaries / "blockwire"), "demo", cwd=elsewhere)
    assert "iscsi://" in printed
