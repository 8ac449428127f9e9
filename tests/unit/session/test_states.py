"""The state tables against those printed in RFC 7143 section 8, cell by cell."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from blockwire.errors import ResourceError
from blockwire.names import Isid
from blockwire.session import (
    CLEANUP,
    INITIATOR_CONNECTION,
    INITIATOR_SESSION,
    TARGET_CONNECTION,
    TARGET_SESSION,
    ConnectionState,
    IsidAllocator,
    StateTable,
    UndefinedTransitionError,
)
from blockwire.session.recovery import Backoff

# Typed from the tables of 8.1.3, 8.1.4, 8.2, 8.3.1 and 8.3.2.
PRINTED = {
    "8.1.3": (INITIATOR_CONNECTION, """
         S1   S2   S4   S5   S6   S7   S8
    S1   -    T1   -    -    -    -    -
    S2   T2   -    T4   -    -    -    -
    S4   T7   -    -    T5   -    -    -
    S5   T8   -    -    -    T9   T11  T15
    S6   T13  -    -    -    T14  -    T17
    S7   T18  -    -    -    T10  T12  T16
    S8   -    -    -    -    -    -    -"""),
    "8.1.4": (TARGET_CONNECTION, """
         S1   S3   S4   S5   S6   S7   S8
    S1   -    T3   -    -    -    -    -
    S3   T6   -    T4   -    -    -    -
    S4   T7   -    -    T5   -    -    -
    S5   T8   -    -    -    T9   T11  T15
    S6   T13  -    -    -    -    -    T17
    S7   T18  -    -    -    T10  T12  T16
    S8   -    -    -    -    -    -    -"""),
    "8.2": (CLEANUP, """
         R1   R2   R3
    R1   -    M2   M1
    R2   M3   -    M4
    R3   -    -    -"""),
    "8.3.1": (INITIATOR_SESSION, """
         Q1   Q3   Q4
    Q1   -    N1   -
    Q3   N3   -    N5
    Q4   N6   N4   -"""),
    "8.3.2": (TARGET_SESSION, """
         Q1   Q2   Q3   Q4   Q5
    Q1   -    N1   -    -    -
    Q2   N9   -    N2   -    -
    Q3   N3   -    -    N5   -
    Q4   N6   -    -    -    N7
    Q5   N11  -    N10  N8   -"""),
}  # fmt: skip


@pytest.mark.parametrize("section", PRINTED)
def test_every_cell(section: str) -> None:
    table: StateTable[Any]
    table, text = PRINTED[section]  # type: ignore[assignment]
    assert table.section == section
    header, *lines = [line.split() for line in text.strip().splitlines()]
    states: type[Enum] = type(table.start)
    cells = 0
    for source, *labels in lines:
        for target, label in zip(header, labels, strict=True):
            assert table.between(states(source), states(target)) == (None if label == "-" else label)
            cells += label != "-"
            if label != "-":
                assert table.step(states(source), label) is states(target)
    assert cells == len(table.rows)


def test_what_the_rfc_leaves_out_cannot_happen() -> None:
    with pytest.raises(UndefinedTransitionError):
        TARGET_CONNECTION.step(ConnectionState.FREE, "T5")
    assert ConnectionState.LOGOUT_REQUESTED.full_feature
    assert not ConnectionState.IN_LOGIN.full_feature


def test_isids_are_reused_conservatively() -> None:
    # 10.1.1: the same ISID towards different targets, different ones towards the same.
    allocator = IsidAllocator(Isid.from_random(0x123456, 0xFFFF))
    first, second = allocator.take("a"), allocator.take("a")
    assert (first.d, second.d) == (0xFFFF, 0)
    assert allocator.take("b") == first
    allocator.release("a", first)
    assert allocator.take("a") == first
    assert len({allocator.take("c") for _ in range(1000)}) == 1000


def test_isids_run_out_with_an_error() -> None:
    allocator = IsidAllocator(Isid.from_random(1, 0))
    for number in range(1 << 16):
        allocator.keep("a", Isid.from_random(1, number))
    with pytest.raises(ResourceError):
        allocator.take("a")


def test_backoff_grows_to_a_bound_and_respects_time2wait() -> None:
    backoff = Backoff()
    assert [backoff.pause(attempt) for attempt in (0, 1, 2, 100)] == [0.5, 1.0, 2.0, 30.0]
    assert backoff.pause(0, time2wait=2) == 2
