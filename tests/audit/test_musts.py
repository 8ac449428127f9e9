"""The table of requirements (docs/audit): whole, its references resolve, and no more rows are open than there were."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_musts", ROOT / "scripts" / "audit_musts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


AUDIT = load()
SPECS = Path(os.environ.get("BLOCKWIRE_SPECS", ROOT.parent / "shared" / "specs"))


def test_every_file_symbol_and_test_that_is_named_exists() -> None:
    rows, _ = AUDIT.read_table()
    assert AUDIT.problems(rows) == []


def test_no_more_rows_are_open_than_there_were() -> None:
    rows, ceiling = AUDIT.read_table()
    count = sum(row.open for row in rows.values())
    print(f"{count} of {len(rows)} requirements are open")
    assert count <= ceiling
    assert count == ceiling, f"only {count} rows are open: lower open_rows in docs/audit/musts.toml"


def test_ordinals_of_a_section_have_no_gap() -> None:
    rows, _ = AUDIT.read_table()
    sections: dict[str, list[int]] = {}
    for id_ in rows:
        section, _, ordinal = id_.rpartition("-")
        sections.setdefault(section, []).append(int(ordinal))
    assert [s for s, found in sections.items() if found != list(range(1, len(found) + 1))] == []


@pytest.mark.skipif(not (SPECS / "rfc7143.txt").is_file(), reason="the RFC texts are not here (BLOCKWIRE_SPECS)")
def test_every_must_of_the_texts_has_its_row() -> None:
    rows, _ = AUDIT.read_table()
    assert AUDIT.differences(rows, AUDIT.read_specs(SPECS)) == []


TEXT = """\
1.  Front matter

   A target MUST NOT be counted here.

4.  Overview

   It MUST do this.  It MUST NOT do
   that, and SHALL do the other.

Author                     Standards Track                     [Page 7]
\f
RFC 7143                         iSCSI                        April 2014

4.1.  Below

   - a list item that MUST count
"""


def test_the_cutting_of_the_text() -> None:
    found = AUDIT.musts_of(TEXT, "7143")
    assert [(must.id, must.keyword) for must in found] == [
        ("7143:4-1", "MUST"),
        ("7143:4-2", "MUST NOT"),
        ("7143:4-3", "SHALL"),
        ("7143:4.1-1", "MUST"),
    ]
    assert len({must.digest for must in found}) == 4


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("src/blockwire/nowhere.py::x", "enforced"),
        ("src/blockwire/wire/serial.py::no_such_symbol", "enforced"),
        ("src/blockwire/wire/serial.py", "enforced"),
        ("src/blockwire/wire/serial.py::less", "tested"),
    ],
)
def test_wrong_references_are_found(reference: str, kind: str) -> None:
    assert AUDIT.reference_problem(reference, kind) is not None
