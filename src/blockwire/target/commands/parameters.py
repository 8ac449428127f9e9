"""MODE SENSE, MODE SELECT and LOG SENSE (SPC-4 6.9 to 6.14)."""

from __future__ import annotations

from blockwire.dataplane.api import Answer, Collect
from blockwire.scsi import cdb as cdbs
from blockwire.scsi.layout import MalformedScsiData
from blockwire.scsi.log_pages import ALL_SUBPAGES as ALL_LOG_SUBPAGES
from blockwire.scsi.log_pages import SUPPORTED_PAGES, encode_supported_pages, encode_supported_subpages
from blockwire.scsi.mode import ALL_PAGES, ALL_SUBPAGES, BlockDescriptor, ModeData, PageControl
from blockwire.scsi.sense import SenseCode, illegal_request
from blockwire.target.commands.call import Call, Refused, good, invalid_field
from blockwire.target.mode_pages import PageRefused


def _mode_data(call: Call, page_code: int, subpage: int, control: int, *, descriptor: bool) -> ModeData:
    if control == PageControl.SAVED:
        raise Refused(illegal_request(SenseCode.SAVING_PARAMETERS_NOT_SUPPORTED))
    if subpage not in (0, ALL_SUBPAGES):
        raise invalid_field(3)
    values = call.unit.modes.values(PageControl(control))
    if page_code == ALL_PAGES:
        pages = tuple(values[code] for code in sorted(values))
    elif page_code in values:
        pages = (values[page_code],)
    else:
        raise invalid_field(2, 5)
    specific = ModeData.DPO_FUA | (ModeData.WRITE_PROTECTED if call.unit.write_protected else 0)
    block = BlockDescriptor(call.unit.blocks, call.unit.block_size) if descriptor else None
    return ModeData(pages, specific, block)


def mode_sense_6(call: Call) -> Answer:
    """MODE SENSE(6)."""
    cdb = call.parse(cdbs.ModeSense6)
    descriptor = not cdb.no_block_descriptors
    data = _mode_data(call, cdb.page_code, cdb.subpage_code, cdb.page_control, descriptor=descriptor)
    return good(data.encode6(), cdb.allocation_length)


def mode_sense_10(call: Call) -> Answer:
    """MODE SENSE(10); a long block descriptor when LLBAA allows it and the capacity needs it."""
    cdb = call.parse(cdbs.ModeSense10)
    descriptor = not cdb.no_block_descriptors
    data = _mode_data(call, cdb.page_code, cdb.subpage_code, cdb.page_control, descriptor=descriptor)
    return good(data.encode10(long=cdb.long_lba_accepted), cdb.allocation_length)


def _select(call: Call, length: int, page_format: bool, save: bool, *, ten: bool) -> Answer:
    if not page_format:
        raise invalid_field(1, 4)
    if save:
        raise invalid_field(1, 0)
    if length == 0:
        return good()
    raw = call.parameter_list(length)
    if isinstance(raw, Collect):
        return raw
    head = 8 if ten else 4
    if len(raw) < head:
        raise Refused(illegal_request(SenseCode.PARAMETER_LIST_LENGTH_ERROR))
    descriptor = int.from_bytes(raw[6:8], "big") if ten else raw[3]
    long = ten and bool(raw[4] & 1)
    if head + descriptor > len(raw):
        raise Refused(illegal_request(SenseCode.PARAMETER_LIST_LENGTH_ERROR))
    if descriptor not in (0, 16 if long else 8):
        raise Refused(illegal_request(SenseCode.INVALID_FIELD_IN_PARAMETER_LIST, 6 if ten else 3, in_cdb=False))
    if descriptor:
        _check_descriptor(call, raw[head : head + descriptor], head, long=long)
    try:
        changed = call.unit.modes.select(raw[head + descriptor :], head + descriptor)
    except PageRefused as refused:
        code = SenseCode.INVALID_FIELD_IN_PARAMETER_LIST
        raise Refused(illegal_request(code, refused.byte, refused.bit, in_cdb=False)) from None
    except MalformedScsiData:
        raise Refused(illegal_request(SenseCode.PARAMETER_LIST_LENGTH_ERROR)) from None
    if changed:
        call.mode_changed(call.unit, call.nexus)
    return good()


def _check_descriptor(call: Call, raw: bytes, at: int, *, long: bool) -> None:
    """A block descriptor may only repeat what is: neither the capacity nor the block length can be selected."""
    blocks = int.from_bytes(raw[0:8] if long else raw[0:4], "big")
    length = int.from_bytes(raw[12:16] if long else raw[5:8], "big")
    now = call.unit.blocks if long else min(call.unit.blocks, 0xFFFFFFFF)
    if blocks not in (0, now):
        raise Refused(illegal_request(SenseCode.INVALID_FIELD_IN_PARAMETER_LIST, at, in_cdb=False))
    if length != call.unit.block_size:
        where = at + (12 if long else 5)
        raise Refused(illegal_request(SenseCode.INVALID_FIELD_IN_PARAMETER_LIST, where, in_cdb=False))


def mode_select_6(call: Call) -> Answer:
    """MODE SELECT(6)."""
    cdb = call.parse(cdbs.ModeSelect6)
    return _select(call, cdb.parameter_list_length, cdb.page_format, cdb.save_pages, ten=False)


def mode_select_10(call: Call) -> Answer:
    """MODE SELECT(10)."""
    cdb = call.parse(cdbs.ModeSelect10)
    return _select(call, cdb.parameter_list_length, cdb.page_format, cdb.save_pages, ten=True)


def log_sense(call: Call) -> Answer:
    """LOG SENSE: the list of pages, and that of pages and subpages, are the pages there are."""
    cdb = call.parse(cdbs.LogSense)
    if cdb.save_parameters:
        raise invalid_field(1, 0)
    if cdb.page_code != SUPPORTED_PAGES:
        raise invalid_field(2, 5)
    if cdb.subpage_code == 0:
        data = encode_supported_pages((SUPPORTED_PAGES,))
    elif cdb.subpage_code == ALL_LOG_SUBPAGES:
        data = encode_supported_subpages(((SUPPORTED_PAGES, 0), (SUPPORTED_PAGES, ALL_LOG_SUBPAGES)))
    else:
        raise invalid_field(3)
    return good(data, cdb.allocation_length)
