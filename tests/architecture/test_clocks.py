"""Tests never ask how long something took on the clock of the machine: a busy one has no bound.

What has to happen is waited for, with patience; what has to happen *soon* is shown where time is virtual, or by taking
every other way out of reach. That something took *at least* so long may be asked, and processor time may be measured.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns"}


def reads_clock(node: ast.AST) -> bool:
    """Whether a clock of the module `time` is read somewhere in it."""
    return any(
        isinstance(part, ast.Call)
        and isinstance(part.func, ast.Attribute)
        and isinstance(part.func.value, ast.Name)
        and (part.func.value.id, part.func.attr in CLOCKS) == ("time", True)
        for part in ast.walk(node)
    )


def is_number(node: ast.AST) -> bool:
    """Whether it is made of numbers alone; a deadline that a wait compares with has a name."""
    return not any(isinstance(part, ast.Name | ast.Call | ast.Attribute) for part in ast.walk(node))


def bounds(source: str) -> list[int]:
    """Lines that assert an upper bound on a time of the real clock."""
    found = []
    for node in ast.walk(ast.parse(source)):
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
                    if reads_clock(left) and is_number(right):
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
        ("assert time.monotonic() - began >= 0.2", 0),
        ("assert time.monotonic() < deadline", 0),
        ("assert time.process_time() - before < 0.5", 0),
        ("assert loop.time() - began < 1", 0),
    ],
)
def test_a_bound_is_found(source: str, count: int) -> None:
    assert len(bounds(source)) == count
