"""Every store of the native plane, and stacks of filters on it, through the public conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockwire.dataplane.api import StoreSpec
from blockwire.testing.store_suite import SIZE, StoreSuite, StoreUse


class TestRam(StoreSuite):
    @pytest.fixture
    def use(self) -> StoreUse:
        return StoreUse(StoreSpec("ram", size=SIZE), resizable=True)


class TestRamOf4096(StoreSuite):
    @pytest.fixture
    def use(self) -> StoreUse:
        return StoreUse(StoreSpec("ram", size=SIZE, block_size=4096), resizable=True)


class TestRamInAFile(StoreSuite):
    @pytest.fixture
    def use(self, tmp_path: Path) -> StoreUse:
        spec = StoreSpec("ram", size=SIZE, options={"file": str(tmp_path / "ram.img")})
        return StoreUse(spec, durable=True)


class TestFile(StoreSuite):
    @pytest.fixture
    def use(self, tmp_path: Path) -> StoreUse:
        return StoreUse(StoreSpec("file", path=str(tmp_path / "disk.img"), size=SIZE), durable=True, resizable=True)


class TestFileByPool(StoreSuite):
    @pytest.fixture
    def use(self, tmp_path: Path) -> StoreUse:
        spec = StoreSpec("file", path=str(tmp_path / "disk.img"), size=SIZE, options={"io": "pool", "threads": "2"})
        return StoreUse(spec, durable=True, resizable=True)


class TestFileDirect(StoreSuite):
    @pytest.fixture
    def use(self, tmp_path: Path) -> StoreUse:
        spec = StoreSpec("file", path=str(tmp_path / "disk.img"), size=SIZE, options={"direct": "yes"})
        return StoreUse(spec, durable=True, resizable=True, steps=100)


class TestNull(StoreSuite):
    @pytest.fixture
    def use(self) -> StoreUse:
        return StoreUse(StoreSpec("null", size=SIZE), retains=False, resizable=True)


class TestReadOnlyFile(StoreSuite):
    @pytest.fixture
    def use(self, tmp_path: Path) -> StoreUse:
        path = tmp_path / "disk.img"
        path.write_bytes(bytes(range(256)) * (SIZE // 256))
        return StoreUse(StoreSpec("file", path=str(path), read_only=True))


class TestCheckedRam(StoreSuite):
    @pytest.fixture
    def use(self) -> StoreUse:
        return StoreUse(StoreSpec("ram", size=SIZE, filters=(("check", {}),)), resizable=True)


class TestDelayedFile(StoreSuite):
    @pytest.fixture
    def use(self, tmp_path: Path) -> StoreUse:
        filters: tuple[tuple[str, dict[str, str]], ...] = (("delay", {"write": "0.001"}), ("check", {}))
        spec = StoreSpec("file", path=str(tmp_path / "disk.img"), size=SIZE, filters=filters)
        return StoreUse(spec, durable=True, resizable=True, steps=60)
