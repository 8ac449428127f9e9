#!/usr/bin/env python3
"""Which MUST of the RFCs is enforced where and tested where.

    scripts/audit_musts.py                      check docs/audit/musts.toml against the tree; list the open rows
    scripts/audit_musts.py --specs FOLDER       also against the texts (rfc7143.txt, rfc7144.txt): no MUST without a row
    scripts/audit_musts.py --specs FOLDER --print SECTION    the sentences of a section with their identifiers

A row stands for one MUST, MUST NOT, SHALL or SHALL NOT in the text: RFC, section and its ordinal in the section. The
digest of its sentence tells when the text or the way it is cut changes. docs/audit/README.md explains the columns.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "audit" / "musts.toml"

SECTIONS = {"7143": ("4", "6", "7", "8", "9.2", "10", "11", "12", "13"), "7144": ("4", "5", "6", "7")}
"""The sections of each RFC that are audited, with everything below them."""

KEYWORD = re.compile(r"\b(MUST NOT|MUST|SHALL NOT|SHALL)\b")
HEADING = re.compile(r"^(\d+(?:\.\d+)*)\.  \S")
RUNNING = re.compile(r"\[Page \d+\]$|^RFC 71\d\d ")


@dataclass(frozen=True)
class Must:
    """One requirement as it stands in the text."""

    id: str
    keyword: str
    digest: str
    sentence: str


@dataclass
class Row:
    """One row of the table."""

    id: str
    digest: str
    about: str
    applies: bool
    reason: str
    enforced: list[str] = field(default_factory=list)
    tested: list[str] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """It applies, and its enforcement or its test is missing."""
        return self.applies and not (self.enforced and self.tested)


def sections_of(text: str) -> dict[str, str]:
    """Section number to its own text (without subsections); running heads and table of contents are left out."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in text.splitlines():
        line = line.replace("\f", "").rstrip()
        if RUNNING.search(line):
            continue
        heading = HEADING.match(line)
        if heading and "...." not in line:
            current = heading[1]
        if current:
            found.setdefault(current, []).append(line.strip())
    return {number: "\n".join(lines) for number, lines in found.items()}


def musts_of(text: str, rfc: str) -> list[Must]:
    """Every requirement of the audited sections, in order."""
    found = []
    for number, body in sections_of(text).items():
        if not any(number == top or number.startswith(top + ".") for top in SECTIONS[rfc]):
            continue
        # a sentence ends at a full stop before a capital, and at an empty line
        flat = re.sub(r"\n\n+", " ¶ ", body).replace("\n", " ")
        flat = re.sub(r" +", " ", flat)
        sentences = re.split(r"(?<=[.:;])\s+(?=[A-Z(*-])|¶", flat)
        ordinal = 0
        for sentence in map(str.strip, sentences):
            for match in KEYWORD.finditer(sentence):
                ordinal += 1
                digest = hashlib.sha256(f"{match.start()} {sentence}".encode()).hexdigest()[:8]
                found.append(Must(f"{rfc}:{number}-{ordinal}", match[1], digest, sentence))
    return found


def read_specs(folder: Path) -> list[Must]:
    """The requirements of all audited RFCs."""
    return [must for rfc in SECTIONS for must in musts_of((folder / f"rfc{rfc}.txt").read_text(), rfc)]


def read_table(path: Path = TABLE) -> tuple[dict[str, Row], int]:
    """The rows by identifier, and the ceiling of open rows."""
    table = tomllib.loads(path.read_text())
    rows = {}
    for id_, entry in table["must"].items():
        reason = entry.get("not", "")
        row = Row(id_, entry["digest"], entry["about"], not reason, reason)
        row.enforced, row.tested = list(entry.get("enforced", [])), list(entry.get("tested", []))
        rows[id_] = row
    return rows, table["open_rows"]


@functools.cache
def source(path: str) -> str | None:
    """The text of a file of the tree; None when there is none."""
    file = ROOT / path
    return file.read_text() if file.is_file() else None


def reference_problem(reference: str, kind: str) -> str | None:
    """What is wrong with `path::symbol`: the file must exist and define the symbol (a test function for tests)."""
    path, _, symbol = reference.partition("::")
    text = source(path)
    if text is None:
        return f"{reference}: no such file"
    if not symbol:
        return f"{reference}: names no symbol"
    for name in symbol.split("::"):
        name = name.partition("[")[0]
        defined = rf"\b(fn|def|class|struct|enum|const|static|mod|trait|macro_rules!)\s+{re.escape(name)}\b"
        assigned = rf"^\s*{re.escape(name)}\s*(:[^=\n]+)?="
        if not re.search(defined, text) and not re.search(assigned, text, re.MULTILINE):
            return f"{reference}: {name} is not defined there"
    if kind == "tested" and not re.search(r"(^|/)(tests?|fuzz)(/|\.rs|_)|#\[cfg\(test\)\]", path + "\n" + text):
        return f"{reference}: not a test"
    return None


def problems(rows: dict[str, Row]) -> list[str]:
    """References that do not resolve, and rows that say both that they apply and that they do not."""
    found = []
    for row in rows.values():
        for kind, references in (("enforced", row.enforced), ("tested", row.tested)):
            found += [f"{row.id}: {p}" for r in references if (p := reference_problem(r, kind))]
        if not row.applies and (row.enforced or row.tested):
            found.append(f"{row.id}: does not apply, and is enforced or tested")
    return found


def differences(rows: dict[str, Row], musts: list[Must]) -> list[str]:
    """Requirements without a row, rows without a requirement, sentences that changed."""
    by_id = {must.id: must for must in musts}
    found = [f"{id_}: no row" for id_ in by_id if id_ not in rows]
    found += [f"{id_}: no such requirement" for id_ in rows if id_ not in by_id]
    found += [
        f"{id_}: the sentence changed" for id_, m in by_id.items() if id_ in rows and rows[id_].digest != m.digest
    ]
    return found


def main() -> int:
    """Prints what is open; exit status 1 when the table is wrong or grew more open rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specs", type=Path, help="folder with rfc7143.txt and rfc7144.txt")
    parser.add_argument("--print", dest="section", help="print the sentences of a section (of --specs) and stop")
    arguments = parser.parse_args()
    musts = read_specs(arguments.specs) if arguments.specs else []
    if arguments.section:
        for must in musts:
            rfc, _, rest = must.id.partition(":")
            if rest.startswith(arguments.section) or f"{rfc}:{rest}".startswith(arguments.section):
                print(f"{must.id} {must.digest} {must.sentence}")
        return 0
    rows, ceiling = read_table()
    wrong = problems(rows) + (differences(rows, musts) if musts else [])
    for line in wrong:
        print(line, file=sys.stderr)
    for row in rows.values():
        if row.open:
            lacks = " and ".join(n for n, r in (("enforcement", row.enforced), ("test", row.tested)) if not r)
            print(f"open  {row.id:22} {row.about}  (no {lacks})")
    count = sum(row.open for row in rows.values())
    applying = sum(row.applies for row in rows.values())
    print(f"{len(rows)} requirements, {applying} apply, {count} open (at most {ceiling})")
    return 1 if wrong or count > ceiling else 0


if __name__ == "__main__":
    sys.exit(main())
