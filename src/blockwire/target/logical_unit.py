"""A logical unit: a store, its identity, its mode pages, and the nexuses that see it."""

from __future__ import annotations

from collections.abc import Mapping

from blockwire.config.model import LunConfig
from blockwire.dataplane.api import CommandClass, DataPlane, Gate, LunMapping, OpId, StoreInfo
from blockwire.scsi.identity import UnitIdentity, unit_identity
from blockwire.scsi.sense import SenseCode
from blockwire.target.mode_pages import ModePages
from blockwire.target.nexus import Nexus, set_gates

VOLATILE_SCHEMES = {"ram", "null"}
"""Stores whose identity names no data: two RAM disks of a size are told apart by target and LUN."""


def identity_seed(target_name: str, unit: LunConfig, info: StoreInfo) -> str:
    """What a logical unit's names are made from: the store's own identity where it has one that lasts.

    A file keeps its names when it moves to another LUN or target name; memory has nothing but its place.
    """
    if unit.store.scheme in VOLATILE_SCHEMES and not unit.store.options.get("file"):
        return f"{target_name}/{unit.lun}/{unit.store.scheme}:{info.size}"
    return info.identity


class LogicalUnit:
    """One logical unit of a target, shared by all its nexuses."""

    def __init__(
        self, target_name: str, config: LunConfig, info: StoreInfo, host_id: str, revision: str, max_transfer: int
    ) -> None:
        self.config = config
        self.lun = config.lun
        self.info = info
        self.store = info.store
        self.block_size = config.block_size
        self.size = info.size
        self.read_only = config.read_only or info.read_only
        self.revision = (config.revision or revision)[:4]
        self.max_transfer = max_transfer
        """Bytes one command may move; 0: no bound."""
        self.identity: UnitIdentity = unit_identity(
            host_id, identity_seed(target_name, config, info), serial=config.serial
        )
        self.modes = ModePages(write_cache=config.write_cache and info.can_flush, cache_changeable=info.can_flush)
        self.nexuses: set[Nexus] = set()
        self.offline = False
        """An abort could not end: nothing is served until the target restarts (design.md, "Abort")."""
        self.closed_gates = 0
        """How many functions hold the gates of this unit shut at the moment."""

    @property
    def blocks(self) -> int:
        """Logical blocks; a tail smaller than a block is not reachable."""
        return self.size // self.block_size

    @property
    def max_transfer_blocks(self) -> int:
        """Longest transfer of one command in blocks, 0: no bound."""
        return self.max_transfer // self.block_size

    @property
    def write_protected(self) -> bool:
        """Read-only by configuration or store, or by SWP of the control mode page."""
        return self.read_only or self.modes.write_protected

    @property
    def physical_exponent(self) -> int:
        """Physical blocks are ``1 << n`` logical blocks (READ CAPACITY(16))."""
        ratio = max(1, self.info.physical_block // self.block_size)
        return min(15, ratio.bit_length() - 1)

    @property
    def can_unmap(self) -> bool:
        """Thin provisioning is offered: the store can give space back and reads zeros there."""
        return self.info.can_punch and not self.read_only

    def mapping(self, gates: Mapping[CommandClass, Gate]) -> LunMapping:
        """How the plane shall serve it now."""
        return LunMapping(
            store=self.store,
            block_size=self.block_size,
            blocks=self.blocks,
            read_only=self.write_protected,
            write_cache=self.modes.write_cache,
            descriptor_sense=self.modes.descriptor_sense,
            can_unmap=self.can_unmap,
            max_transfer_blocks=self.max_transfer_blocks,
            gates=gates,
        )

    def show(self, plane: DataPlane) -> list[OpId]:
        """Tells the plane what changed about this unit (size, protection, cache, sense format), and the gates, on every
        nexus. The gates go by `set_gate`: those in a mapping are a nexus's first ones only."""
        ops = [plane.map_lun(*nexus.key, self.mapping(nexus.first_gates())) for nexus in self.nexuses]
        return ops + set_gates(plane, self.nexuses)

    def attention(self, code: SenseCode, *, but: Nexus | None = None, fence: bool = False) -> list[Nexus]:
        """Establishes a unit attention on every nexus ``but`` one, ``fence`` as in `Nexus.establish`; returns those
        that have a new one."""
        return [nexus for nexus in self.nexuses if nexus is not but and nexus.establish(code, fence=fence)]
