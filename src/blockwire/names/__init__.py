"""How things are named: iSCSI names, ISIDs, portals, target addresses, URLs, LUNs and sizes.

Parsing what a user typed raises :class:`blockwire.errors.UsageError` with the next step in it. What comes
from a peer is parsed by the functions that say so, and those return ``None`` or raise ``ValueError``.
"""

from blockwire.names.iscsi import MAX_NAME_LENGTH, iscsi_name, name_fault, peer_name, prepare_name
from blockwire.names.isid import Isid
from blockwire.names.lun import decode_lun, encode_lun, parse_lun
from blockwire.names.portal import DEFAULT_PORT, Portal, parse_target_address
from blockwire.names.size import format_rate, format_size, parse_size
from blockwire.names.url import URL_OPTIONS, Url

__all__ = [
    "DEFAULT_PORT",
    "MAX_NAME_LENGTH",
    "URL_OPTIONS",
    "Isid",
    "Portal",
    "Url",
    "decode_lun",
    "encode_lun",
    "format_rate",
    "format_size",
    "iscsi_name",
    "name_fault",
    "parse_lun",
    "parse_size",
    "parse_target_address",
    "peer_name",
    "prepare_name",
]
