"""Target records of a SendTargets response (RFC 7143 appendix C)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from blockwire.errors import ProtocolError
from blockwire.names import Portal, parse_target_address
from blockwire.wire.keys import Pairs


@dataclass(frozen=True, slots=True, order=True)
class TargetRecordAddress:
    """One TargetAddress: a portal and its portal group tag (``None`` if the target left it out)."""

    portal: Portal
    portal_group_tag: int | None = None

    def __str__(self) -> str:
        return self.portal.target_address(self.portal_group_tag)


@dataclass(frozen=True, slots=True)
class TargetRecord:
    """A target and where it can be reached; no address means the portal that answered."""

    name: str
    addresses: tuple[TargetRecordAddress, ...] = ()


def format_records(records: Iterable[TargetRecord]) -> Pairs:
    """The pairs of a SendTargets response; every address carries its portal group tag (13.8)."""
    pairs: Pairs = []
    for record in records:
        pairs.append(("TargetName", record.name))
        for address in record.addresses:
            tag = 1 if address.portal_group_tag is None else address.portal_group_tag
            pairs.append(("TargetAddress", address.portal.target_address(tag)))
    return pairs


def parse_records(pairs: Pairs, asked: Portal) -> list[TargetRecord]:
    """The records in a SendTargets response of the portal ``asked``; a target without an address is reached there.

    Other keys than TargetName and TargetAddress are not permitted and skipped; an address that is none is a
    :class:`ProtocolError`. A target that is listed twice is one record.
    """
    found: dict[str, dict[TargetRecordAddress, None]] = {}
    current: dict[TargetRecordAddress, None] | None = None
    for key, value in pairs:
        if key == "TargetName":
            current = found.setdefault(value, {})
        elif key == "TargetAddress":
            if current is None:
                raise ProtocolError(
                    "a TargetAddress came before any TargetName", evidence=f"TargetAddress={value[:80]}"
                )
            try:
                address = TargetRecordAddress(*parse_target_address(value))
            except ValueError as error:
                raise ProtocolError("a TargetAddress is malformed", evidence=f"{value[:80]}: {error}") from None
            current[address] = None
    return [TargetRecord(name, tuple(addresses) or (TargetRecordAddress(asked),)) for name, addresses in found.items()]
