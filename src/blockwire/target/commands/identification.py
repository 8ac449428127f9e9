"""INQUIRY: standard data and vital product data pages (SPC-4 6.6, 7.8; SBC-3 6.6)."""

from __future__ import annotations

from collections.abc import Callable

from blockwire.dataplane.api import Answer
from blockwire.scsi.cdb import Inquiry
from blockwire.scsi.inquiry import DeviceType, InquiryData, Qualifier, StandardVersion
from blockwire.scsi.layout import ascii_field
from blockwire.scsi.vpd import page
from blockwire.scsi.vpd.block import BlockCharacteristics, BlockLimits, LogicalBlockProvisioning, ProvisioningType
from blockwire.scsi.vpd.device_identification import (
    DeviceIdentification,
    naa_designator,
    relative_target_port,
    t10_designator,
    target_device_name,
    target_port_group,
    target_port_name,
)
from blockwire.scsi.vpd.identification import ExtendedInquiry, SupportedPages, UnitSerialNumber
from blockwire.target.commands.call import Call, good, invalid_field
from blockwire.target.logical_unit import LogicalUnit

RELATIVE_TARGET_PORT = 1
"""All portals of a portal group are one SCSI target port (RFC 7143 4.4.1)."""

NO_LIMIT = 0xFFFFFFFF
"""SBC-3 6.6.4: no limit on UNMAP."""


def standard_data(unit: LogicalUnit, protocol_level: int) -> bytes:
    """Standard INQUIRY data of a logical unit, for a session with this iSCSIProtocolLevel."""
    return InquiryData(
        unit.config.vendor,
        unit.config.product,
        unit.revision,
        alua=1,
        multiport=True,
        version_descriptors=(
            StandardVersion.SAM5,
            # RFC 7144 4.2: MUST be the base value plus the negotiated iSCSIProtocolLevel
            StandardVersion.ISCSI + protocol_level,
            StandardVersion.SPC4,
            StandardVersion.SBC3,
        ),
    ).encode()


def absent_data(vendor: str = "BLKWIRE", product: str = "Blockwire disk") -> bytes:
    """Standard INQUIRY data where no logical unit is (SPC-4 6.6.2: qualifier 3, type 1Fh)."""
    return InquiryData(vendor, product, "", device_type=DeviceType.UNKNOWN, qualifier=Qualifier.NOT_CAPABLE).encode()


def _serial(call: Call) -> bytes:
    return UnitSerialNumber(call.unit.identity.serial).encode()


def _identification(call: Call) -> bytes:
    unit, target = call.unit, call.target
    # The identifier has to be unique together with the vendor only: product, then serial (SPC-4 7.8.6.4, table 459).
    identifier = ascii_field(unit.config.product, 16, "product").decode("ascii") + unit.identity.serial
    return DeviceIdentification(
        (
            naa_designator(unit.identity.naa),
            t10_designator(unit.config.vendor, identifier),
            relative_target_port(RELATIVE_TARGET_PORT),
            target_port_group(target.portal_group_tag),
            target_port_name(target.name, target.portal_group_tag),
            target_device_name(target.name),
        )
    ).encode()


def _extended(call: Call) -> bytes:
    # HEADSUP and ORDSUP stay 0: a command with such an attribute is done as a SIMPLE one. ORDERED would have to hold
    # the commands of every nexus, on every worker of the plane, until the older ones have ended (SAM-5 8.6).
    return ExtendedInquiry(simple=True, volatile_cache=call.unit.info.can_flush).encode()


def _limits(call: Call) -> bytes:
    unit = call.unit
    physical = max(1, unit.info.physical_block // unit.block_size)
    optimal = unit.info.optimal_io // unit.block_size
    most = unit.max_transfer_blocks
    return BlockLimits(
        optimal_granularity=min(physical, 0xFFFF),
        max_transfer=most,
        optimal_transfer=min(optimal, most) if most else optimal,
        max_unmap_blocks=NO_LIMIT if unit.can_unmap else 0,
        # a number, not "no limit": libiscsi takes the count for a signed one
        max_unmap_descriptors=256 if unit.can_unmap else 0,
        unmap_granularity=physical if unit.can_unmap else 0,
        unmap_alignment=0 if unit.can_unmap else None,
        # hosts write and read back what they may write the same into, in one command
        max_write_same=most,
    ).encode()


def _characteristics(call: Call) -> bytes:
    return BlockCharacteristics(rotation_rate=1).encode()


def _provisioning(call: Call) -> bytes:
    unmap = call.unit.can_unmap
    return LogicalBlockProvisioning(
        unmap=unmap,
        write_same_16_unmap=unmap,
        write_same_10_unmap=unmap,
        reads_zeros=unmap,
        type=ProvisioningType.THIN if unmap else ProvisioningType.NOT_REPORTED,
    ).encode()


def _supported(call: Call) -> bytes:
    return SupportedPages(tuple(PAGES)).encode()


PAGES: dict[int, Callable[[Call], bytes]] = {
    page.SUPPORTED_PAGES: _supported,
    page.UNIT_SERIAL_NUMBER: _serial,
    page.DEVICE_IDENTIFICATION: _identification,
    page.EXTENDED_INQUIRY: _extended,
    page.BLOCK_LIMITS: _limits,
    page.BLOCK_CHARACTERISTICS: _characteristics,
    page.LOGICAL_BLOCK_PROVISIONING: _provisioning,
}
"""VPD pages by code."""


def inquiry(call: Call) -> Answer:
    """INQUIRY."""
    cdb = call.parse(Inquiry)
    if not cdb.vital:
        if cdb.page_code:
            raise invalid_field(2)  # SPC-4 6.6.1
        return good(standard_data(call.unit, call.target.protocol_level), cdb.allocation_length)
    build = PAGES.get(cdb.page_code)
    if build is None:
        raise invalid_field(2)
    return good(build(call), cdb.allocation_length)
