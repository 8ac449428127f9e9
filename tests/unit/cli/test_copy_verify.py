"""The comparison after a copy has to find every kind of difference; a check that cannot fail is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from blockwire.cli import copying
from blockwire.errors import DataDiffersError

CHUNK = 4096


class Memory:
    """Source and destination in one: pieces of `content`, zeros as holes; `stored` is what is read back."""

    def __init__(self, content: bytes) -> None:
        self.name = "memory"
        self.size: int | None = len(content)
        self.capacity: int | None = len(content)
        self.overwrites = ""
        self.content = content
        self.stored = bytearray(len(content))

    def pieces(self) -> Iterator[Any]:
        for offset in range(0, len(self.content), CHUNK):
            piece = self.content[offset : offset + CHUNK]
            yield offset, (piece if any(piece) else len(piece))

    def write(self, offset: int, data: bytes) -> None:
        self.stored[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.stored[offset : offset + length] = bytes(length)

    def finish(self, size: int) -> None:
        pass

    def commit(self) -> None:
        pass

    def read_back(self, offset: int, length: int, depth: int) -> Iterator[tuple[int, bytes]]:
        # Other cuts than those of the source, and out of order, as a queue gives them.
        cuts = list(range(0, min(offset, len(self.stored)), 3000))
        for start in [*cuts[1::2], *cuts[0::2]]:
            yield start, bytes(self.stored[start : min(start + 3000, offset)])


def copied() -> tuple[Memory, copying.Report]:
    content = b"a" * 10_000 + bytes(20_000) + b"b" * 5_001
    memory = Memory(content)
    report = copying.copy(memory, memory, CHUNK, copying.Progress(None, "copy", False), digests=True)
    return memory, report


def check(memory: Memory, report: copying.Report) -> None:
    login: Any = None
    copying.verify(memory, report, CHUNK, copying.Progress(None, "verify", False), login, 4)


def test_what_was_copied_compares_equal() -> None:
    memory, report = copied()
    assert bytes(memory.stored) == memory.content
    assert report.zeros > 10_000
    check(memory, report)


@pytest.mark.parametrize("offset", [0, 4095, 4096, 9_999, 10_000, 15_000, 29_999, 30_000, 35_000])
def test_one_bit_anywhere_is_found(offset: int) -> None:
    memory, report = copied()
    memory.stored[offset] ^= 0x10
    with pytest.raises(DataDiffersError) as caught:
        check(memory, report)
    assert caught.value.exit_code == 6


def test_a_destination_that_ends_early_is_found() -> None:
    memory, report = copied()
    del memory.stored[-1:]
    with pytest.raises(DataDiffersError):
        check(memory, report)
