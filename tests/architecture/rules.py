"""The import rules of the tree, as data and as functions from source text to a list of violations.

The rules are those of ARCHITECTURE.md ("Rooms"). They are read from the syntax tree, so that a rule holds for a
deferred import inside a function as well as for one at the top; only imports under `if TYPE_CHECKING:` do not count
for the rules about what is loaded (`import blockwire` loads no click), but they do count for the rooms.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
CRATES = ROOT / "crates"

LOW = {"errors", "names"}
"""Every room may import these two modules: the exception family, and names."""

NEGOTIATION = {"negotiate", "auth", "login", "text"}
NO_ROLE = {"session", "discovery", "isns", "scsi"}
MIDDLE = {"wire", *NEGOTIATION, *NO_ROLE}

ALLOWED: dict[str, set[str]] = {
    "errors": {"wire"},
    "names": {"errors", "wire"},
    "wire": set(),
    **{room: {"wire", *NEGOTIATION} for room in NEGOTIATION},
    **{room: set(MIDDLE) for room in NO_ROLE},
    "dataplane": set(MIDDLE),
    "net": {*MIDDLE, "dataplane"},
    "trace": {*MIDDLE, "dataplane"},
}
"""What a room may import besides itself and `LOW`. A room that is not named here falls under `FORBIDDEN` only."""

OUTERMOST = {"cli", "admin", "metrics"}

FORBIDDEN: dict[str, set[str]] = {
    "initiator": {"target", "qualify", *OUTERMOST},
    "target": {"initiator", "qualify", *OUTERMOST},
    "qualify": {"target", *OUTERMOST},
    "testing": set(OUTERMOST),
    "config": {"initiator", "target", "qualify", *OUTERMOST},
    "aio": set(OUTERMOST),
}
"""What a room must not import, for the rooms above the middle."""

PURE = {"wire", *NEGOTIATION}
"""Bytes and `now` in, bytes and events out: nothing in here can wait, look at a clock or draw a number."""

IMPURE_MODULES = {
    "socket", "asyncio", "time", "random", "secrets", "threading", "select", "selectors", "ssl", "subprocess",
    "multiprocessing", "concurrent", "signal",
}  # fmt: skip

CONTROL = {*PURE, *NO_ROLE, "initiator", "target"}
"""Control rooms take clock, dial, listen and spawn from an injected runtime: no `time`, no `asyncio.sleep`."""

NATIVE = "_native"
HEAVY = {"click", "rich", "pydantic"}
BANNED_NAMES = {"utils", "util", "common", "manager", "helper", "helpers", "misc", "base"}
MAX_LINES = 600
"""Where a second duty has certainly moved in; 500 is where one asks."""


@dataclass(frozen=True)
class Import:
    """One imported module (dotted, absolute) and where it stands."""

    module: str
    name: str | None
    line: int
    typing_only: bool


def module_name(path: Path) -> str:
    """The dotted name of a source file under src."""
    parts = list(path.relative_to(SOURCE).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def room_of(module: str) -> str | None:
    """`blockwire.wire.login` -> `wire`; None for `blockwire` itself and for foreign modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "blockwire" and len(parts) > 1 else None


def imports_of(source: str, module: str, is_package: bool) -> list[Import]:
    """Every import in a module's source, relative ones made absolute."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    found: list[Import] = []

    def visit(node: ast.AST, typing_only: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, None, node.lineno, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                prefix = package[: len(package) - (node.level - 1)]
                base = ".".join([*prefix, base] if base else prefix)
            found.extend(Import(base, alias.name, node.lineno, typing_only) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for statement in node.body:
                visit(statement, True)
            for statement in node.orelse:
                visit(statement, typing_only)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only)

    visit(ast.parse(source), False)
    return found


def resolved_rooms(item: Import) -> set[str]:
    """The rooms an import reaches: `from blockwire import wire` reaches `wire`."""
    room = room_of(item.module)
    if room is not None:
        return {room}
    if item.module == "blockwire" and item.name is not None:
        return {item.name}
    return set()


def _is_yield(call: ast.Call) -> bool:
    """`asyncio.sleep(0)` lets others run and has nothing to do with time."""
    return len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0


def import_violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What the source of `module` imports against the rules; empty when it keeps them."""
    room = room_of(module)
    found: list[str] = []

    def report(item: Import, why: str) -> None:
        target = item.module + (f".{item.name}" if item.name else "")
        found.append(f"{module}:{item.line} imports {target}: {why}")

    for item in imports_of(source, module, is_package):
        top = item.module.split(".")[0]
        rooms = resolved_rooms(item)
        if NATIVE in rooms and room != "dataplane":
            report(item, "only dataplane imports the native module")
        if room == "__main__":
            continue  # the program: it is the command line
        if room is None:
            if rooms & OUTERMOST:
                report(item, "cli, admin and metrics are outermost")
            continue
        for other in rooms - {room, NATIVE} - LOW:
            not_allowed = room in ALLOWED and other not in ALLOWED[room]
            if not_allowed or other in FORBIDDEN.get(room, set()):
                report(item, f"{room} may not import {other}")
            elif other in OUTERMOST and room not in OUTERMOST and room not in ALLOWED and room not in FORBIDDEN:
                report(item, "cli, admin and metrics are outermost")
        if room == "wire" and rooms & LOW:
            report(item, "wire imports nothing")
        if room in PURE and top in IMPURE_MODULES:
            report(item, f"{room} is sans-IO: no {top}")
        if room in CONTROL and top == "time":
            report(item, f"{room} takes its clock from the runtime")
        if room in CONTROL and item.module.startswith("asyncio") and item.name == "sleep":
            report(item, f"{room} takes its timers from the runtime")
    if room in CONTROL:
        found += [
            f"{module}:{node.lineno} calls asyncio.sleep: {room} takes its timers from the runtime"
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "asyncio.sleep" and not _is_yield(node)
        ]
    return found


CRATE_MAY_USE: dict[str, set[str]] = {
    "blockwire-wire": set(),
    "blockwire-proto": {"blockwire-wire"},
    "blockwire-store": {"blockwire-wire"},
    "blockwire-engine": {"blockwire-wire", "blockwire-proto", "blockwire-store"},
    "blockwire-py": {"blockwire-wire", "blockwire-proto", "blockwire-store", "blockwire-engine"},
}
SANS_IO_CRATES = {"blockwire-wire", "blockwire-proto"}
SYSTEM_CRATES = {"libc", "nix", "rustix", "mio", "tokio", "socket2", "io-uring", "polling"}
"""System calls belong to the engine; a store that maps or reads files needs libc for that."""


def crate_violations(manifest: str, crate: str) -> list[str]:
    """What a crate's Cargo.toml depends on against the directions py -> engine -> {proto, store} -> wire."""
    table = tomllib.loads(manifest)
    dependencies = set(table.get("dependencies", {}))
    dependencies |= {name for target in table.get("target", {}).values() for name in target.get("dependencies", {})}
    ours = {name for name in dependencies if name.startswith("blockwire-")}
    found = [f"{crate} may not depend on {name}" for name in sorted(ours - CRATE_MAY_USE[crate])]
    if crate in SANS_IO_CRATES:
        found += [f"{crate} is sans-IO: no {name}" for name in sorted(dependencies & SYSTEM_CRATES)]
    if crate != "blockwire-py" and "pyo3" in dependencies:
        found.append(f"{crate} knows nothing of Python: no pyo3")
    return found
