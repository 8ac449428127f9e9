"""Which logical units a target has, what they are, and opening one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blockwire import errors
from blockwire.initiator import identify
from blockwire.initiator.geometry import LunInfo
from blockwire.initiator.logical_unit import Lun
from blockwire.names import Url, decode_lun
from blockwire.scsi import cdb
from blockwire.scsi.inquiry import DeviceType
from blockwire.scsi.layout import MalformedScsiData
from blockwire.scsi.luns import parse_lun_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockwire.initiator.session import Session

LONGEST_COMMAND = 1 << 20
"""Bytes of one READ or WRITE, unless the device or the data plane takes less or MaxBurstLength is longer: beyond it
several commands at once are worth more than a longer one."""
_MOST_LUN_DATA = 1 << 20
"""REPORT LUNS data that is asked for, bytes: 131071 LUNs."""


async def lun_numbers(session: Session) -> list[int]:
    """The LUNs that the target reports (REPORT LUNS)."""
    length = 4096
    while True:
        raw = await session.ask(0, cdb.ReportLuns(0, length).encode(), length)
        try:
            fields, count = parse_lun_list(raw)
        except MalformedScsiData as error:
            raise errors.DeviceError(str(error), code="device.malformed-data", status=0) from error
        whole = min(8 + 8 * count, _MOST_LUN_DATA)
        if len(fields) >= count or length >= whole:  # what was asked for had room: there are no more
            break
        length = whole
    return sorted(number for field in fields if (number := decode_lun(field)) is not None)


async def describe(session: Session, lun: int) -> LunInfo:
    """One logical unit as `Session.luns` lists it."""
    standard = await identify.inquiry(session, lun)
    pages = await identify.supported_pages(session, lun)
    who = await identify.identity(session, lun, pages)
    size, block, read_only, problem = 0, 0, False, ""
    if standard.device_type == DeviceType.BLOCK:
        try:
            found = await identify.capacity(session, lun)
            size, block = found.blocks * found.block_length, found.block_length
            read_only = await identify.write_protected(session, lun)
        except errors.DeviceError as error:
            problem = str(error)
    return LunInfo(
        lun, size, block, who.vendor, who.product, who.revision, who.serial, who.name,
        standard.device_type, read_only, problem,
    )  # fmt: skip


def no_such_lun(url: Url, lun: int, there: Sequence[int]) -> errors.NothingFoundError:
    """The error of a LUN that its target does not have; it lists those `there`."""
    return errors.NothingFoundError(
        f"there is no LUN {lun} on {url.target}", code="device.no-such-lun",
        evidence=f"LUNs: {', '.join(map(str, there)) or 'none'}",
        next=f"list them with `blockwire ls '{replace(url, lun=None)}'`",
    )  # fmt: skip


async def open_lun(session: Session, lun: int, read_only: bool, *, owns_session: bool) -> Lun:
    """Opens a logical unit; the session ends with it when it `owns_session`. Errors as `Session.lun` names them."""
    standard = await identify.inquiry(session, lun)
    if standard.qualifier == 3 or standard.device_type == DeviceType.UNKNOWN:
        numbers = await lun_numbers(session)
        raise no_such_lun(session.url, lun, numbers)
    if standard.device_type != DeviceType.BLOCK:
        raise errors.DeviceError(
            f"LUN {lun} of {session.url.target} is no disk (peripheral device type {standard.device_type:02X}h)",
            code="device.not-a-disk", status=0, evidence="INQUIRY",
        )  # fmt: skip
    pages = await identify.supported_pages(session, lun)
    who = await identify.identity(session, lun, pages)
    # MaxBurstLength (13.13) bounds a sequence, not a command: what it is set to only makes longer commands worthwhile.
    longest = min(session.plane.limits().max_transfer, max(LONGEST_COMMAND, session.parameters.max_burst_length))
    geometry = await identify.geometry(session, lun, pages, longest)
    return Lun(session, lun, geometry, who, read_only, owns_session)
