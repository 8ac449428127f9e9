"""Commands about the medium that move no logical blocks, and block commands that a gate sent up."""

from __future__ import annotations

from blockwire.dataplane.api import Answer, Resume
from blockwire.scsi import cdb as cdbs
from blockwire.scsi.capacity import Capacity10, Capacity16, LbaStatus, Provisioning, encode_lba_status
from blockwire.scsi.sense import Sense, SenseCode, SenseKey
from blockwire.target.commands.call import Call, Refused, good, invalid_field


def read_capacity_10(call: Call) -> Answer:
    """READ CAPACITY(10); PMI and a nonzero LBA without it are refused (SBC-3 5.15.1)."""
    cdb = call.parse(cdbs.ReadCapacity10)
    if not cdb.partial_medium and cdb.lba:
        raise invalid_field(2)
    return good(Capacity10.of(call.unit.blocks, call.unit.block_size).encode())


def read_capacity_16(call: Call) -> Answer:
    """READ CAPACITY(16)."""
    cdb = call.parse(cdbs.ReadCapacity16)
    if not cdb.partial_medium and cdb.lba:
        raise invalid_field(2)
    unit = call.unit
    data = Capacity16(
        unit.blocks - 1,
        unit.block_size,
        physical_exponent=unit.physical_exponent,
        provisioned=unit.can_unmap,
        reads_zeros=unit.can_unmap,
    )
    return good(data.encode(), cdb.allocation_length)


def _in_range(call: Call, lba: int, blocks: int) -> None:
    if lba + blocks > call.unit.blocks or lba >= call.unit.blocks:
        code = SenseCode.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
        raise Refused(Sense.of(SenseKey.ILLEGAL_REQUEST, code, information=lba))


def get_lba_status(call: Call) -> Answer:
    """GET LBA STATUS: one descriptor up to the end. Stores are not asked what they have allocated, and provisioning
    status 0 says just that: mapped, or unknown (SBC-3 table 39)."""
    cdb = call.parse(cdbs.GetLbaStatus)
    _in_range(call, cdb.lba, 1)
    blocks = min(call.unit.blocks - cdb.lba, 0xFFFFFFFF)
    return good(encode_lba_status((LbaStatus(cdb.lba, blocks, Provisioning.MAPPED),)), cdb.allocation_length)


def pre_fetch_10(call: Call) -> Answer:
    """PRE-FETCH(10): the range is checked; there is no cache of our own to fill, which GOOD says (SBC-3 5.9)."""
    cdb = call.parse(cdbs.PreFetch10)
    _in_range(call, cdb.lba, cdb.blocks)
    return good()


def pre_fetch_16(call: Call) -> Answer:
    """PRE-FETCH(16)."""
    cdb = call.parse(cdbs.PreFetch16)
    _in_range(call, cdb.lba, cdb.blocks)
    return good()


def read_defect_data_10(call: Call) -> Answer:
    """READ DEFECT DATA(10): empty lists, in the format asked for (SBC-3 5.17)."""
    cdb = call.parse(cdbs.ReadDefectData10)
    flags = (0x10 if cdb.primary else 0) | (0x08 if cdb.grown else 0) | cdb.list_format
    return good(bytes([0, flags, 0, 0]), cdb.allocation_length)


def read_defect_data_12(call: Call) -> Answer:
    """READ DEFECT DATA(12)."""
    cdb = call.parse(cdbs.ReadDefectData12)
    flags = (0x10 if cdb.primary else 0) | (0x08 if cdb.grown else 0) | cdb.list_format
    return good(bytes([0, flags, 0, 0, 0, 0, 0, 0]), cdb.allocation_length)


def resume(call: Call) -> Answer:
    """A command the plane serves: it came up because of a gate or its task attribute, and goes back down."""
    return Resume()
