"""The store suite passes on a store that is right, and sees what is wrong with one that is not."""

from __future__ import annotations

from typing import Any

import pytest

from blockwire.dataplane import api
from blockwire.dataplane.api import Failure, StoreOp, StoreSpec
from blockwire.dataplane.fake import FakePlane
from blockwire.testing.store_suite import SIZE, OpenStore, StoreRefusal, StoreSuite, StoreUse


class RightPlane(FakePlane):
    """The fake plane's bytearrays, with the refusals that a real store has."""

    def store_op(
        self, store: int, kind: StoreOp, offset: int = 0, length: int = 0, data: bytes = b"", to: int = 0
    ) -> int:
        spec = self.store_specs.get(store)
        size = len(self.stores.get(store, b""))
        if spec and spec.read_only and kind in (StoreOp.WRITE, StoreOp.ZERO, StoreOp.PUNCH, StoreOp.COPY):
            return self._fail("store_op", Failure("store.read-only", "the store is read-only"))
        if kind is StoreOp.RESIZE and spec and spec.scheme == "fixed":
            return self._fail("store_op", Failure("store.unsupported", "it cannot be resized"))
        if kind is StoreOp.COPY and to + length > size:
            return self._fail("store_op", Failure("store.out-of-range", "the copy ends outside"))
        return super().store_op(store, kind, offset, length, data, to)


class OnTheFake(StoreSuite):
    @pytest.fixture
    def plane(self) -> api.DataPlane:
        return RightPlane()


class TestRight(OnTheFake):
    @pytest.fixture
    def use(self) -> StoreUse:
        return StoreUse(StoreSpec("fixed", path="a", size=SIZE))


class TestRightAndResizable(OnTheFake):
    @pytest.fixture
    def use(self) -> StoreUse:
        return StoreUse(StoreSpec("ram", path="a", size=SIZE), resizable=True)


class ForgetsTheTail(RightPlane):
    def store_op(
        self, store: int, kind: StoreOp, offset: int = 0, length: int = 0, data: bytes = b"", *a: Any, **k: Any
    ) -> int:
        if kind is StoreOp.WRITE and len(data) > 65536:
            data = data[:-1] + b"\0"
        return super().store_op(store, kind, offset, length, data, *a, **k)


class CopiesForwards(RightPlane):
    def store_op(
        self, store: int, kind: StoreOp, offset: int = 0, length: int = 0, data: bytes = b"", to: int = 0
    ) -> int:
        if kind is StoreOp.COPY and offset < to < offset + length:
            memory = self.stores[store]
            for i in range(0, length, 50):
                end = min(length, i + 50)
                memory[to + i : to + end] = memory[offset + i : offset + end]
            return self._op("store_op", None)
        return super().store_op(store, kind, offset, length, data, to)


class WritesPastTheEnd(RightPlane):
    def store_op(
        self, store: int, kind: StoreOp, offset: int = 0, length: int = 0, data: bytes = b"", to: int = 0
    ) -> int:
        if kind is StoreOp.WRITE and offset + len(data) > len(self.stores[store]):
            return self._op("store_op", None)
        return super().store_op(store, kind, offset, length, data, to)


USE = StoreUse(StoreSpec("fixed", path="a", size=SIZE))


@pytest.mark.parametrize(
    ("plane", "test"),
    [
        (ForgetsTheTail, lambda suite, store: suite.test_reads_what_was_written_and_nothing_else_changes(store)),
        (ForgetsTheTail, lambda suite, store: suite.test_agrees_with_a_model(store, USE)),
        (CopiesForwards, lambda suite, store: suite.test_copies_also_onto_itself(store)),
        (WritesPastTheEnd, lambda suite, store: suite.test_refuses_ranges_that_end_outside(store, USE, lambda n: n)),
        (RightPlane, lambda suite, store: suite.test_resizes_or_refuses_to(store, StoreUse(USE.spec, resizable=True))),
    ],
)  # fmt: skip
def test_a_store_that_is_wrong_fails(plane: type[FakePlane], test: Any) -> None:
    store = OpenStore(plane(), USE.spec)
    with pytest.raises((AssertionError, StoreRefusal, pytest.fail.Exception)):
        test(StoreSuite(), store)


def test_a_store_that_cannot_be_opened_says_why() -> None:
    with pytest.raises(StoreRefusal, match=r"store\.not-found"):
        OpenStore(FakePlane(), StoreSpec("file", path="/nowhere"))
