"""Tests never ask how long something took on the clock of the machine: a busy one has no bound.

What has to happen is waited for, with patience; what has to happen *soon* is shown where time is virtual, or by taking
every other way out of reach. That something took *at least* so long may be asked, and processor time may be measured.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def reads_clock(node: ast.AST) -> bool:
    """Whether a clock of the module `time` is read somewhere in it."""
    return any(isinstance(part, ast.Call) and is_clock(part) for part in ast.walk(node))


def is_clock(call: ast.Call) -> bool:
    """Whether this call reads a clock of the module `time`."""
    return (
        isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and (call.func.value.id, call.func.attr in CLOCKS) == ("time", True)
    )


def own(scope: ast.AST) -> Iterator[ast.AST]:
    """What is in a module or a function, without the functions in it."""
    for part in ast.iter_child_nodes(scope):
        if not isinstance(part, FUNCTIONS):
            yield part
            yield from own(part)


def is_time(node: ast.AST | None, names: set[str]) -> bool:
    """Whether it is a clock that is read, one of the names, or computed from them."""
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.BinOp):
        return is_time(node.left, names) or is_time(node.right, names)
    return isinstance(node, ast.Call) and is_clock(node)


def times(scope: ast.AST) -> set[str]:
    """Names that are assigned a time of the real clock there."""
    names: set[str] = set()
    for part in own(scope):
        if isinstance(part, ast.Assign | ast.AnnAssign | ast.NamedExpr) and is_time(part.value, names):
            targets = part.targets if isinstance(part, ast.Assign) else [part.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def is_number(node: ast.AST) -> bool:
    """Whether it is made of numbers alone; a deadline that a wait compares with has a name."""
    return not any(isinstance(part, ast.Name | ast.Call | ast.Attribute) for part in ast.walk(node))


def bounds(source: str) -> list[int]:
    """Lines that assert an upper bound on a time of the real clock."""
    tree = ast.parse(source)
    scopes = [tree, *(node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))]
    return sorted(line for scope in scopes for line in bounds_in(scope))


def bounds_in(scope: ast.AST) -> list[int]:
    """The same of one function."""
    found = []
    names = times(scope)
    for node in own(scope):
        if not isinstance(node, ast.Assert):
            continue
        for part in ast.walk(node.test):
            if isinstance(part, ast.Compare):
                sides = [part.left, *part.comparators]
                for left, operator, right in zip(sides, part.ops, sides[1:], strict=False):
                    if isinstance(operator, ast.Gt | ast.GtE):
                        left, right = right, left
                    elif not isinstance(operator, ast.Lt | ast.LtE):
                        continue
                    if (reads_clock(left) or is_time(left, names)) and is_number(right):
                        found.append(node.lineno)
    return found


def test_no_test_bounds_what_the_clock_of_the_machine_says() -> None:
    found = [f"{path.relative_to(TESTS)}:{line}" for path in sorted(TESTS.rglob("*.py"))
             for line in bounds(path.read_text(encoding="utf-8"))]  # fmt: skip
    assert found == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("assert time.monotonic() - began < 3", 1),
        ("assert 5.0 > time.perf_counter() - began", 1),
        ("assert 0.2 < time.monotonic() - began < 3 * 2", 1),
        ("took = time.monotonic() - began; assert took < 6", 1),
        ("def f():\n now = time.time()\n took = now - began\n assert 0 < took <= 6", 1),
        ("def f():\n took = time.time() - began\ndef g():\n assert took < 6", 0),
        ("took = time.monotonic() - began; assert took >= 6", 0),
        ("got = read(time.monotonic() + 5); assert got < 6", 0),
        ("assert time.monotonic() - began >= 0.2", 0),
        ("assert time.monotonic() < deadline", 0),
        ("assert time.process_time() - before < 0.5", 0),
        ("assert loop.time() - began < 1", 0),
    ],
)
def test_a_bound_is_found(source: str, count: int) -> None:
    assert len(bounds(source)) == count
