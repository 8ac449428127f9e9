"""The conformance suite of stores, seen through a plane's `open_store` and `store_op`: what whoever wrote a store runs.

    from blockwire.testing.store_suite import StoreSuite, StoreUse

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def use(self, tmp_path):
            return StoreUse(StoreSpec("file", path=str(tmp_path / "disk"), size=SIZE))

Each test opens the store anew and overwrites it. Stores must have `SIZE` bytes (4 MiB) or more. What a store declares
not to be able to do (`StoreInfo.can_punch`, …) must be refused with `store.unsupported`, and nothing else.

Not promised, so not tested: any order among operations in flight together, and which bytes of which of two overlapping
writes remain. The Rust crate's own suite (`blockwire_store::conformance`) covers what bytes and threads add.
"""

from __future__ import annotations

import random
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from blockwire.dataplane.api import DataPlane, Failure, OpDone, OpId, StoreInfo, StoreOp, StoreSpec
from blockwire.dataplane.native import new_plane

SIZE = 4 << 20
"""Size of the stores under test, bytes."""

PATIENCE = 30.0
"""How long one operation may take, seconds."""


def same(data: bytes, expected: bytes | bytearray, what: str = "") -> None:
    """Compares long data and names the first byte that differs; a full diff of megabytes would take minutes."""
    if data == expected:
        return
    place = next(
        (i for i, (a, b) in enumerate(zip(data, expected, strict=False)) if a != b), min(len(data), len(expected))
    )
    raise AssertionError(
        f"{what or 'data'}: byte {place} of {len(expected)} differs, "
        f"read {data[place : place + 8].hex()} expected {bytes(expected[place : place + 8]).hex()}"
    )


class StoreRefusal(Exception):
    """An operation failed; `failure` is the plane's."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure


@dataclass(frozen=True)
class StoreUse:
    """What the suite should know of the store."""

    spec: StoreSpec
    """How it is opened; `size` may be given for what already exists."""
    retains: bool = True
    """It returns what was written (a null store does not)."""
    durable: bool = False
    """It has the same content when it is closed and opened again."""
    resizable: bool = False
    steps: int = 300
    """Operations of the random comparison with a model."""


class OpenStore:
    """A store of a plane, used synchronously."""

    def __init__(self, plane: DataPlane, spec: StoreSpec) -> None:
        self.plane = plane
        self._done: dict[OpId, OpDone] = {}
        info = self.wait(plane.open_store(spec))
        assert isinstance(info, StoreInfo), info
        self.info = info
        self.id = info.store
        self.size = info.size

    def wait(self, op: OpId) -> object:
        """The result of `op`; StoreRefusal when it failed."""
        end = time.monotonic() + PATIENCE
        while op not in self._done:
            for event in self.plane.drain():
                if isinstance(event, OpDone):
                    self._done[event.op] = event
            if op in self._done:
                break
            left = end - time.monotonic()
            assert left > 0, f"the operation did not end within {PATIENCE:.0f} s"
            select.select([self.plane.event_fd()], [], [], left)
        done = self._done.pop(op)
        if done.failure is not None:
            raise StoreRefusal(done.failure)
        return done.result

    def op(self, kind: StoreOp, offset: int = 0, length: int = 0, data: bytes = b"", to: int = 0) -> object:
        """One operation, waited for."""
        return self.wait(self.plane.store_op(self.id, kind, offset, length, data, to))

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`."""
        data = self.op(StoreOp.READ, offset, length)
        assert isinstance(data, bytes)
        assert len(data) == length
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Writes `data` at `offset`."""
        self.op(StoreOp.WRITE, offset, len(data), data)

    def geometry(self) -> StoreInfo:
        """What the store says of itself now."""
        info = self.op(StoreOp.GEOMETRY)
        assert isinstance(info, StoreInfo), info
        return info

    def close(self) -> None:
        """Closes it in the plane."""
        self.wait(self.plane.close_store(self.id))

    def refused(
        self, code: str, kind: StoreOp, offset: int = 0, length: int = 0, data: bytes = b"", to: int = 0
    ) -> None:
        """Expects that an operation is refused with `code`."""
        with pytest.raises(StoreRefusal) as caught:
            self.op(kind, offset, length, data, to)
        assert caught.value.failure.code == code, f"{kind.name} was refused as {caught.value.failure}"


def pattern(seed: int, length: int) -> bytes:
    """Bytes that are the same for the same seed and never all alike."""
    return random.Random(seed).randbytes(length)


class StoreSuite:
    """Override `use`; override `make_plane` to test another plane than the native one."""

    EDGES: ClassVar[tuple[tuple[int, int], ...]] = (
        (0, 1), (0, 512), (1, 511), (511, 2), (4095, 2), (4096, 4096), (65535, 65538), (1 << 20, 1 << 20),
    )  # fmt: skip
    """(offset, length) around every boundary a store may have inside."""

    @pytest.fixture
    def use(self) -> StoreUse:
        """The store under test."""
        raise NotImplementedError("override the fixture `use`")

    @pytest.fixture
    def plane(self) -> Iterator[DataPlane]:
        """The plane that opens it."""
        plane = new_plane()
        yield plane
        plane.shutdown(2.0)

    @pytest.fixture
    def store(self, plane: DataPlane, use: StoreUse) -> Iterator[OpenStore]:
        """The store, open."""
        store = OpenStore(plane, use.spec)
        assert store.size >= SIZE, f"the suite needs a store of {SIZE} bytes"
        yield store
        store.close()

    @pytest.fixture
    def writable(self, store: OpenStore, use: StoreUse) -> OpenStore:
        """A store that keeps what is written, or a skip."""
        if store.info.read_only:
            pytest.skip("the store is read-only")
        if not use.retains:
            pytest.skip("the store keeps no data")
        return store

    # ------------------------------------------------------------------ what it says
    def test_says_what_it_is(self, store: OpenStore, use: StoreUse) -> None:
        info = store.geometry()
        assert info.size == store.size
        assert info.physical_block >= 512
        assert info.physical_block & (info.physical_block - 1) == 0
        assert store.size % use.spec.block_size == 0
        if use.spec.size is not None:
            assert info.size == use.spec.size

    def test_is_the_same_store_when_opened_again(self, plane: DataPlane, use: StoreUse) -> None:
        first = OpenStore(plane, use.spec)
        identity = first.info.identity
        first.close()
        second = OpenStore(plane, use.spec)
        assert second.info.identity == identity
        second.close()

    def test_knows_nothing_after_closing(self, plane: DataPlane, use: StoreUse) -> None:
        store = OpenStore(plane, use.spec)
        store.close()
        with pytest.raises(StoreRefusal):
            store.read(0, 512)

    # ------------------------------------------------------------------ data
    def test_reads_what_was_written_and_nothing_else_changes(self, writable: OpenStore) -> None:
        for number, (offset, length) in enumerate(self.EDGES):
            before = pattern(99, length + 1024)
            start = max(0, offset - 512)
            writable.write(start, before)
            data = pattern(number, length)
            writable.write(offset, data)
            expected = bytearray(before)
            expected[offset - start : offset - start + length] = data
            same(writable.read(start, len(before)), bytes(expected), f"{length} bytes at {offset}")

    def test_the_last_byte_belongs_to_it(self, writable: OpenStore) -> None:
        writable.write(writable.size - 1, b"\xa5")
        assert writable.read(writable.size - 1, 1) == b"\xa5"
        assert writable.read(writable.size, 0) == b""

    def test_a_null_store_reads_zeros(self, store: OpenStore, use: StoreUse) -> None:
        if use.retains:
            pytest.skip("the store keeps data")
        store.write(4096, pattern(1, 4096))
        same(store.read(4096, 4096), bytes(4096))

    def test_zeroing_reads_as_zeros(self, writable: OpenStore) -> None:
        self._erased(writable, StoreOp.ZERO)

    def test_punching_reads_as_zeros_or_is_refused(self, writable: OpenStore) -> None:
        if writable.info.can_punch:
            self._erased(writable, StoreOp.PUNCH)
        else:
            writable.refused("store.unsupported", StoreOp.PUNCH, 0, 4096)

    def _erased(self, store: OpenStore, kind: StoreOp) -> None:
        for offset, length in self.EDGES:
            start = max(0, offset - 512)
            before = pattern(offset, length + 1024)
            store.write(start, before)
            store.op(kind, offset, length)
            expected = bytearray(before)
            expected[offset - start : offset - start + length] = bytes(length)
            same(store.read(start, len(before)), bytes(expected), f"{length} bytes at {offset}")

    def test_copies_also_onto_itself(self, writable: OpenStore) -> None:
        length = 65536 + 7
        for source, to in ((0, 1 << 20), (1 << 20, 3), (4096, 4096 + 100), (4096 + 100, 4096), (777, 777)):
            data = pattern(source + to, length)
            writable.write(source, data)
            writable.op(StoreOp.COPY, source, length, to=to)
            same(writable.read(to, length), data, f"from {source} to {to}")

    def test_flushing_always_works(self, store: OpenStore) -> None:
        store.op(StoreOp.FLUSH)
        if not store.info.read_only:
            store.write(0, pattern(5, 4096))
            store.op(StoreOp.FLUSH)

    def test_keeps_its_content_when_closed(self, plane: DataPlane, use: StoreUse) -> None:
        if not use.durable or use.spec.read_only:
            pytest.skip("the store lives no longer than it is open")
        data = pattern(11, 70_000)
        first = OpenStore(plane, use.spec)
        first.write(12345, data)
        first.op(StoreOp.FLUSH)
        first.close()
        second = OpenStore(plane, use.spec)
        same(second.read(12345, len(data)), data)
        second.close()

    def test_nothing_at_all_is_allowed_up_to_the_end(self, store: OpenStore) -> None:
        assert store.read(0, 0) == b""
        assert store.read(store.size, 0) == b""
        if not store.info.read_only:
            store.write(store.size, b"")
            store.op(StoreOp.ZERO, store.size, 0)

    def test_many_at_once(self, writable: OpenStore) -> None:
        length, count = 8192, 64
        plane = writable.plane
        ops = [
            plane.store_op(writable.id, StoreOp.WRITE, number * length, length, pattern(number, length))
            for number in range(count)
        ]
        for op in ops:
            writable.wait(op)
        reads = [plane.store_op(writable.id, StoreOp.READ, number * length, length) for number in range(count)]
        for number, op in enumerate(reads):
            got = writable.wait(op)
            assert isinstance(got, bytes)
            same(got, pattern(number, length), f"range {number}")

    def test_agrees_with_a_model(self, writable: OpenStore, use: StoreUse) -> None:
        """Random operations on the store and on a bytearray; the whole is compared at the end."""
        choose = random.Random(2024)
        area = 1 << 20
        model = bytearray(area)
        writable.op(StoreOp.ZERO, 0, area)
        kinds = [StoreOp.WRITE, StoreOp.WRITE, StoreOp.READ, StoreOp.READ, StoreOp.ZERO, StoreOp.COPY]
        if writable.info.can_punch:
            kinds.append(StoreOp.PUNCH)
        for step in range(use.steps):
            kind = choose.choice(kinds)
            length = choose.choice((1, 100, 512, 4096, 4097, 65536, 70001))
            offset = choose.randrange(area - length)
            if kind is StoreOp.READ:
                same(writable.read(offset, length), model[offset : offset + length], f"step {step} at {offset}")
            elif kind is StoreOp.WRITE:
                data = choose.randbytes(length)
                writable.write(offset, data)
                model[offset : offset + length] = data
            elif kind is StoreOp.COPY:
                to = choose.randrange(area - length)
                writable.op(kind, offset, length, to=to)
                model[to : to + length] = model[offset : offset + length]
            else:
                writable.op(kind, offset, length)
                model[offset : offset + length] = bytes(length)
        same(writable.read(0, area), bytes(model))

    # ------------------------------------------------------------------ refusals
    @pytest.mark.parametrize(
        "place", [lambda size: size, lambda size: size - 512, lambda size: size - 1023, lambda size: 1 << 62]
    )
    def test_refuses_ranges_that_end_outside(
        self, store: OpenStore, use: StoreUse, place: Callable[[int], int]
    ) -> None:
        offset, length = place(store.size), 1024
        tail = store.read(store.size - 4096, 4096)
        store.refused("store.out-of-range", StoreOp.READ, offset, length)
        if not store.info.read_only:
            store.refused("store.out-of-range", StoreOp.WRITE, offset, length, bytes(length))
            store.refused("store.out-of-range", StoreOp.ZERO, offset, length)
            store.refused("store.out-of-range", StoreOp.COPY, offset, length, to=0)
            store.refused("store.out-of-range", StoreOp.COPY, 0, length, to=offset)
        same(store.read(store.size - 4096, 4096), tail)
        assert store.geometry().size == store.size

    def test_refuses_every_change_when_read_only(self, plane: DataPlane, use: StoreUse) -> None:
        if not use.spec.read_only:
            OpenStore(plane, use.spec).close()  # so that a file exists
        store = OpenStore(plane, replace(use.spec, read_only=True))
        assert store.info.read_only
        before = store.read(0, 8192)
        store.refused("store.read-only", StoreOp.WRITE, 0, 512, bytes(512))
        store.refused("store.read-only", StoreOp.ZERO, 0, 512)
        store.refused("store.read-only", StoreOp.COPY, 0, 512, to=4096)
        store.op(StoreOp.FLUSH)
        same(store.read(0, 8192), before)
        store.close()

    def test_resizes_or_refuses_to(self, store: OpenStore, use: StoreUse) -> None:
        if store.info.read_only:
            pytest.skip("the store is read-only")
        if not use.resizable:
            store.refused("store.unsupported", StoreOp.RESIZE, 0, store.size * 2)
            assert store.geometry().size == store.size
            return
        store.write(store.size - 512, pattern(3, 512))
        store.op(StoreOp.RESIZE, 0, store.size + 65536)
        assert store.geometry().size == store.size + 65536
        if use.retains:
            same(store.read(store.size - 512, 512 + 65536), pattern(3, 512) + bytes(65536))
        store.op(StoreOp.RESIZE, 0, store.size)
        assert store.geometry().size == store.size
        store.refused("store.out-of-range", StoreOp.READ, store.size, 1)
