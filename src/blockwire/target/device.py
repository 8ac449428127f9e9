"""One target device: its name, its logical units, who may use it, what it negotiates."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Mapping
from typing import Any

from blockwire.config.authentication import OPEN
from blockwire.config.model import LunConfig, TargetConfig
from blockwire.config.store_words import unknown_scheme
from blockwire.dataplane.api import DataPlane, Digest, Limits, SessionId, StoreInfo, StoreOp, StoreSpec
from blockwire.dataplane.dispatch import Dispatch
from blockwire.errors import ConfigurationError, Error
from blockwire.names import encode_lun
from blockwire.negotiate.preferences import Preferences
from blockwire.scsi.supported import TaskManagementSupport
from blockwire.target.access import AccessRules
from blockwire.target.commands.call import TargetView
from blockwire.target.logical_unit import LogicalUnit

TASK_MANAGEMENT = (
    TaskManagementSupport.ABORT_TASK
    | TaskManagementSupport.ABORT_TASK_SET
    | TaskManagementSupport.CLEAR_TASK_SET
    | TaskManagementSupport.LOGICAL_UNIT_RESET
    | TaskManagementSupport.TARGET_RESET
)
"""What :mod:`blockwire.target.task_management` does."""

TASK_MANAGEMENT_LEVEL_2 = (
    TaskManagementSupport.QUERY_TASK
    | TaskManagementSupport.QUERY_TASK_SET
    | TaskManagementSupport.QUERY_ASYNCHRONOUS_EVENT
    | TaskManagementSupport.I_T_NEXUS_RESET
)
"""What it does besides in sessions of iSCSIProtocolLevel 2 (RFC 7144)."""


def lun_number(lun: int) -> int:
    """The LUN field as a 64-bit number, as the plane takes it."""
    return int.from_bytes(encode_lun(lun), "big")


def served_limits(limits: Limits) -> dict[str, int]:
    """The plane's limits by key name: what must not be offered beyond."""
    return {
        "MaxRecvDataSegmentLength": limits.max_recv_data_segment_length,
        "MaxBurstLength": limits.max_burst_length,
        "FirstBurstLength": limits.first_burst_length,
        "MaxOutstandingR2T": limits.max_outstanding_r2t,
        "MaxConnections": limits.max_connections,
        "ErrorRecoveryLevel": limits.error_recovery_level,
    }


def preferences(limits: Limits, keys: Mapping[str, str]) -> Preferences:
    """What a target negotiates: its keys, below the plane's limits."""
    wanted = Preferences.of("target", keys, served_limits(limits))
    if Digest.CRC32C not in limits.digests:
        wanted = wanted.with_keys({"HeaderDigest": "None", "DataDigest": "None"})
    return wanted


class TargetDevice:
    """A target that is served. Made by :func:`open_device`."""

    def __init__(self, config: TargetConfig, portal_group_tag: int, limits: Limits) -> None:
        self.config = config
        self.name = config.name
        self.portal_group_tag = portal_group_tag
        self.access = AccessRules(config.allow)
        self.authentication = config.authentication.load() if config.authentication is not None else OPEN
        """Accounts, read when the target starts."""
        self.preferences = preferences(limits, config.keys)
        self.rate = float(config.rate)
        """Bytes per second that each session is sent at the most; 0: no limit."""
        self.units: dict[int, LogicalUnit] = {}
        """Logical units by LUN."""
        self.changing: set[int] = set()
        """LUNs that are being added or taken away at the moment."""
        self.sessions: dict[SessionId, Any] = {}
        """Sessions in the full feature phase (`task_management.SessionView`) by the plane's number."""

    @property
    def view(self) -> TargetView:
        """What commands may know of this target."""
        return TargetView(self.name, self.portal_group_tag, tuple(sorted(self.units)), int(TASK_MANAGEMENT))

    def unit_of(self, field: int) -> LogicalUnit | None:
        """The logical unit that a LUN field (64-bit number) of a PDU names, None where there is none."""
        return next((unit for lun, unit in self.units.items() if lun_number(lun) == field), None)


async def open_device(
    config: TargetConfig,
    portal_group_tag: int,
    plane: DataPlane,
    dispatch: Dispatch,
    *,
    host_id: str,
    revision: str,
) -> TargetDevice:
    """Opens every store of a target; when one fails those opened before are closed again and its error is raised."""
    device = TargetDevice(config, portal_group_tag, plane.limits())
    try:
        for unit in config.luns:
            device.units[unit.lun] = await open_unit(device, unit, plane, dispatch, host_id=host_id, revision=revision)
    except BaseException:
        await close_stores(device, plane, dispatch)
        raise
    return device


async def open_unit(
    device: TargetDevice, config: LunConfig, plane: DataPlane, dispatch: Dispatch, *, host_id: str, revision: str
) -> LogicalUnit:
    """Opens the store of one logical unit; the unit is not yet part of the device."""
    spec = StoreSpec(
        scheme=config.store.scheme,
        path=config.store.path,
        size=config.store.size,
        read_only=config.read_only,
        block_size=config.block_size,
        options={**config.store.options, **({"serial": config.serial} if config.serial else {})},
        filters=tuple((item.name, item.options) for item in config.filters),
    )
    try:
        info: StoreInfo = await dispatch.op(plane.open_store(spec))
    except Error as error:
        raise _dressed(error, config) from error
    return LogicalUnit(device.name, config, info, host_id, revision, plane.limits().max_transfer)


def _dressed(error: Error, config: LunConfig) -> Error:
    """What opening a store failed with, as the fault in the configuration that it is, with evidence and advice."""
    found = error
    if not isinstance(error, ConfigurationError):
        found = ConfigurationError(error.message, code=error.code, evidence=error.evidence, next=error.next)
        found.errno = error.errno
    found.evidence = found.evidence or f"LUN {config.lun}: {config.store.describe()}"
    scheme = unknown_scheme(config.store.path)
    if scheme is not None and isinstance(found, FileNotFoundError):
        found.next = f"{scheme}: is no kind of store; these are: ram:SIZE, file:PATH, null:SIZE, or a path"
    elif isinstance(found, FileNotFoundError):
        found.next = "check the path" if config.read_only or config.store.size else "create it with --size SIZE"
    elif found.errno == errno.EEXIST:
        found.next = "it is a symbolic link to nothing: make what it points to, or remove it"
    elif found.errno == errno.ENOMEM:
        found.next = "use a smaller size"
    elif _is_ragged(config):
        found.next = f"round it up: truncate --size=%{config.block_size} {shlex.quote(config.store.path)}"
    found.next = _ADVICE.get(found.code) or found.next or "check the path, its size and its permissions"
    return found


def _is_ragged(config: LunConfig) -> bool:
    """Whether it is a file whose end is no end of a block."""
    if config.store.scheme != "file":
        return False
    try:
        state = os.stat(config.store.path)
    except OSError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_size % config.block_size != 0


_ADVICE = {
    "store.locked": "stop who has it open, or serve it read-only (-r) from both",
    "store.wrong-size": "leave the size out, or use another path",
    "store.permission-denied": "check who may use it, and as whom this runs; -r needs no right to write",
    "store.no-space": "free space there, or use a smaller size",
}
"""What to do about a store that does not open, by the plane's code."""


async def close_unit(unit: LogicalUnit, plane: DataPlane, dispatch: Dispatch) -> None:
    """Flushes and closes the store of a unit that no nexus uses any more."""
    try:
        if unit.info.can_flush and not unit.info.read_only:
            await dispatch.op(plane.store_op(unit.store, StoreOp.FLUSH))
    finally:
        await dispatch.op(plane.close_store(unit.store))


async def close_stores(device: TargetDevice, plane: DataPlane, dispatch: Dispatch) -> list[Error]:
    """Closes the stores of a device, each whatever becomes of the others; returns what went wrong."""
    failures: list[Error] = []
    for unit in device.units.values():
        try:
            await close_unit(unit, plane, dispatch)
        except Error as error:
            failures.append(error)
    device.units.clear()
    return failures
