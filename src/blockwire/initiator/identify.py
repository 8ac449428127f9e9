"""Asks a logical unit who it is: INQUIRY, VPD pages, READ CAPACITY, MODE SENSE. A page that is missing is no error."""

from __future__ import annotations

from typing import Any, Protocol

from blockwire.errors import DeviceError
from blockwire.initiator.geometry import Geometry, Identity
from blockwire.scsi import cdb
from blockwire.scsi.capacity import Capacity10, Capacity16
from blockwire.scsi.inquiry import InquiryData
from blockwire.scsi.layout import MalformedScsiData
from blockwire.scsi.vpd import page
from blockwire.scsi.vpd.block import BlockLimits, LogicalBlockProvisioning
from blockwire.scsi.vpd.device_identification import DeviceIdentification
from blockwire.scsi.vpd.identification import SupportedPages, UnitSerialNumber


class Asks(Protocol):
    """Sends a command and gives its Data-In; DeviceError when the status is not GOOD. Repeats by policy."""

    async def ask(self, lun: int, command: bytes, length: int) -> bytes: ...


_VPD_LENGTH = 1024
_NO_CAPACITY = 0xFFFFFFFF


async def inquiry(session: Asks, lun: int) -> InquiryData:
    """Standard INQUIRY data. 36 bytes first: some devices hang or fail when asked for more than they have."""
    raw = await session.ask(lun, cdb.Inquiry(0, 36).encode(), 36)
    if len(raw) >= 36 and raw[4] + 5 > 36:
        longer = min(raw[4] + 5, 255)
        raw = await session.ask(lun, cdb.Inquiry(0, longer).encode(), longer)
    try:
        return InquiryData.parse(raw)
    except MalformedScsiData as error:
        raise DeviceError(f"LUN {lun}: {error}", code="device.malformed-data", status=0) from error


async def vital(session: Asks, lun: int, code: int) -> bytes:
    """One VPD page, asked for again when it is longer than the first guess."""
    raw = await session.ask(lun, cdb.Inquiry(code, _VPD_LENGTH, vital=True).encode(), _VPD_LENGTH)
    if len(raw) >= 4 and (size := page.page_size(raw)) > len(raw):
        raw = await session.ask(lun, cdb.Inquiry(code, size, vital=True).encode(), size)
    return raw


async def _page(session: Asks, lun: int, code: int, parse: Any) -> Any:
    try:
        return parse(await vital(session, lun, code))
    except (DeviceError, MalformedScsiData):
        return None


async def supported_pages(session: Asks, lun: int) -> tuple[int, ...]:
    """VPD page 00h; () from a device without vital product data."""
    found = await _page(session, lun, page.SUPPORTED_PAGES, SupportedPages.parse)
    return found.pages if found is not None else ()


async def identity(session: Asks, lun: int, pages: tuple[int, ...]) -> Identity:
    """Standard data, serial number and designators."""
    standard = await inquiry(session, lun)
    serial, name, designators = "", "", ()
    if page.UNIT_SERIAL_NUMBER in pages:
        found = await _page(session, lun, page.UNIT_SERIAL_NUMBER, UnitSerialNumber.parse)
        serial = found.serial.strip() if found is not None else ""
    if page.DEVICE_IDENTIFICATION in pages:
        found = await _page(session, lun, page.DEVICE_IDENTIFICATION, DeviceIdentification.parse)
        if found is not None:
            name = found.best_unit_name() or ""
            designators = tuple(designator.text() for designator in found.designators)
    return Identity(standard.vendor, standard.product, standard.revision, serial, name, designators)


async def capacity(session: Asks, lun: int) -> Capacity16:
    """READ CAPACITY(16), or (10) from a device that does not know it."""
    try:
        raw = await session.ask(lun, cdb.ReadCapacity16(32).encode(), 32)
        return Capacity16.parse(raw)
    except DeviceError as error:
        if error.asc not in (0x20, 0x24):
            raise
    except MalformedScsiData:
        pass
    raw = await session.ask(lun, cdb.ReadCapacity10().encode(), 8)
    try:
        short = Capacity10.parse(raw)
    except MalformedScsiData as error:
        raise DeviceError(f"LUN {lun}: {error}", code="device.malformed-data", status=0) from error
    if short.last_lba == _NO_CAPACITY:
        raise DeviceError(f"LUN {lun}: READ CAPACITY(16) fails and (10) is too small for it", status=0)
    return Capacity16(short.last_lba, short.block_length)


async def write_protected(session: Asks, lun: int) -> bool:
    """The WP bit of the mode parameter header (SBC-3 6.4.1); False from a device without mode pages."""
    try:
        raw = await session.ask(lun, cdb.ModeSense6(page_code=0x3F, allocation_length=252).encode(), 252)
        return len(raw) > 2 and bool(raw[2] & 0x80)
    except DeviceError:
        return False


async def geometry(session: Asks, lun: int, pages: tuple[int, ...], plane_transfer: int) -> Geometry:
    """Capacity and limits; `plane_transfer` is the longest transfer of the data plane, bytes."""
    found = await capacity(session, lun)
    block = found.block_length
    if block < 1 or block & (block - 1) or block > 1 << 20:
        raise DeviceError(f"LUN {lun}: a block length of {block} bytes cannot be used", status=0)
    limits = BlockLimits()
    provisioning = LogicalBlockProvisioning()
    if page.BLOCK_LIMITS in pages:
        limits = await _page(session, lun, page.BLOCK_LIMITS, BlockLimits.parse) or limits
    if page.LOGICAL_BLOCK_PROVISIONING in pages:
        provisioning = (
            await _page(session, lun, page.LOGICAL_BLOCK_PROVISIONING, LogicalBlockProvisioning.parse) or provisioning
        )
    longest = plane_transfer // block * block or block
    if limits.max_transfer:
        longest = min(longest, limits.max_transfer * block)
    return Geometry(
        size=found.blocks * block,
        block_size=block,
        physical_block_size=block << found.physical_exponent,
        max_transfer=longest,
        optimal_transfer=limits.optimal_transfer * block,
        read_only=await write_protected(session, lun),
        can_discard=provisioning.unmap and (limits.max_unmap_blocks > 0 or not limits.max_unmap_descriptors),
        max_discard=min(limits.max_unmap_blocks or 0xFFFFFFFF, 0x7FFFFFFF // block) * block,
        max_zero=min(limits.max_write_same or 0xFFFF, 0x7FFFFFFF // block) * block,
        reads_zeros=found.reads_zeros or provisioning.reads_zeros,
    )
