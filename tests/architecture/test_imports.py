"""The rooms of the tree, who may import whom, and what `import blockwire` may load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture import rules

PYTHON_FILES = sorted((rules.SOURCE / "blockwire").rglob("*.py"))
RUST_FILES = sorted(path for path in rules.CRATES.rglob("*.rs") if "target" not in path.parts)
TEST_FILES = sorted((rules.ROOT / "tests").rglob("*.py"))


def test_every_module_keeps_to_its_room() -> None:
    found = [
        violation
        for path in PYTHON_FILES
        for violation in rules.import_violations(
            path.read_text(), rules.module_name(path), is_package=path.name == "__init__.py"
        )
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("crate", sorted(rules.CRATE_MAY_USE))
def test_crates_depend_in_one_direction(crate: str) -> None:
    found = rules.crate_violations((rules.CRATES / crate / "Cargo.toml").read_text(), crate)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("crate", sorted(rules.SANS_IO_CRATES))
def test_sans_io_crates_have_no_unsafe(crate: str) -> None:
    # An attribute in the source, because a crate that inherits the workspace's lints cannot add one of its own.
    text = (rules.CRATES / crate / "src" / "lib.rs").read_text()
    assert "#![forbid(unsafe_code)]" in text or (
        crate == "blockwire-wire" and "#![deny(unsafe_code)]" in text  # CRC32C's instructions
    )


def test_unsafe_stands_where_the_design_puts_it() -> None:
    found = []
    for path in RUST_FILES:
        name = str(path.relative_to(rules.CRATES))
        if "unsafe {" not in path.read_text() and "unsafe fn" not in path.read_text():
            continue
        in_crc = name.startswith("blockwire-wire/") and "crc" in name
        allowed = in_crc or name.startswith(("blockwire-engine/", "blockwire-py/", "blockwire-store/"))
        if not allowed:
            found.append(name)
    assert not found, f"unsafe outside the engine, the buffers, the stores and CRC32C: {found}"


def test_no_file_holds_a_second_duty() -> None:
    long = {
        str(path.relative_to(rules.ROOT)): lines
        for path in [*PYTHON_FILES, *RUST_FILES, *TEST_FILES]
        if (lines := len(path.read_text().splitlines())) > rules.MAX_LINES
    }
    assert not long, f"over {rules.MAX_LINES} lines: {long}"


def test_no_room_is_named_after_nothing() -> None:
    found = [
        str(path.relative_to(rules.ROOT))
        for path in [*PYTHON_FILES, *RUST_FILES]
        if rules.BANNED_NAMES & {part.removesuffix(path.suffix) for part in path.relative_to(rules.ROOT).parts}
    ]
    assert not found


def test_import_blockwire_loads_nothing_heavy() -> None:
    code = (
        "import sys, blockwire\n"
        f"heavy = sorted(set({sorted(rules.HEAVY)!r}) & {{name.split('.')[0] for name in sys.modules}})\n"
        "print(' '.join(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd="/",
        env={"PYTHONPATH": str(rules.SOURCE), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", f"import blockwire loaded {done.stdout.strip()}"


# The rules themselves: each must be able to fail.

BROKEN = [
    ("blockwire.wire.bhs", "from blockwire.errors import Error", "wire imports nothing"),
    ("blockwire.wire.bhs", "from .. import names", "wire imports nothing"),
    ("blockwire.wire.bhs", "import socket", "no socket"),
    ("blockwire.negotiate.engine", "from blockwire.scsi import sense", "may not import scsi"),
    ("blockwire.negotiate.engine", "def f():\n    import random", "no random"),
    ("blockwire.auth.chap", "from secrets import token_bytes", "no secrets"),
    ("blockwire.login.machine", "import asyncio", "no asyncio"),
    ("blockwire.text.machine", "import time", "no time"),
    ("blockwire.session.identity", "from ..target import nexus", "may not import target"),
    ("blockwire.scsi.sense", "import blockwire.initiator.session", "may not import initiator"),
    ("blockwire.initiator.session", "from blockwire.target import portal", "may not import target"),
    ("blockwire.target.portal", "from blockwire import initiator", "may not import initiator"),
    ("blockwire.target.portal", "from blockwire import _native", "only dataplane"),
    ("blockwire.target.portal", "import asyncio\nasync def f():\n    await asyncio.sleep(1)", "asyncio.sleep"),
    ("blockwire.initiator.session", "from asyncio import sleep", "timers from the runtime"),
    ("blockwire.initiator.session", "from time import monotonic", "clock from the runtime"),
    ("blockwire.qualify.sweep", "from blockwire.target import portal", "may not import target"),
    ("blockwire.target.portal", "from blockwire.metrics import prometheus", "may not import metrics"),
    ("blockwire.net.listener", "from blockwire.cli import main", "may not import cli"),
    ("blockwire", "from blockwire.cli import main", "outermost"),
]


@pytest.mark.parametrize(("module", "source", "why"), BROKEN)
def test_a_violation_is_found(module: str, source: str, why: str) -> None:
    found = rules.import_violations(source, module)
    assert any(why in violation for violation in found), found


KEPT = [
    ("blockwire.login.machine", "from blockwire.wire import login\nfrom blockwire.negotiate import engine"),
    ("blockwire.dataplane.native", "from blockwire import _native"),
    ("blockwire.qualify.sweep", "from blockwire.initiator import session"),
    ("blockwire.initiator.session", "import asyncio\nasync def f():\n    await asyncio.sleep(0)"),
    ("blockwire.cli.serve", "import time, click\nfrom blockwire import target, initiator"),
    ("blockwire.initiator.session", "import asyncio\nfrom blockwire.dataplane import api"),
]


@pytest.mark.parametrize(("module", "source"), KEPT)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert rules.import_violations(source, module) == []


def test_a_wrong_crate_direction_is_found() -> None:
    assert rules.crate_violations("[dependencies]\nblockwire-engine = {}\n", "blockwire-proto")
    assert rules.crate_violations("[dependencies]\nlibc = '0.2'\n", "blockwire-wire")
    assert rules.crate_violations("[dependencies]\npyo3 = '1'\n", "blockwire-engine")
    assert not rules.crate_violations("[dependencies]\nblockwire-wire = {}\n", "blockwire-proto")


def test_relative_imports_are_resolved() -> None:
    (item,) = rules.imports_of("from ..names import Iqn", "blockwire.login.machine", is_package=False)
    assert (item.module, item.name) == ("blockwire.names", "Iqn")
    (item,) = rules.imports_of("from . import machine", "blockwire.login", is_package=True)
    assert (item.module, item.name) == ("blockwire.login", "machine")
