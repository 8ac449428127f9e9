"""REPORT TARGET PORT GROUPS parameter data (SPC-4 6.37)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from blockwire.scsi.layout import MalformedScsiData, fits, need


class AccessState(enum.IntEnum):
    """Asymmetric access states (SPC-4 table 288)."""

    ACTIVE_OPTIMIZED = 0x0
    ACTIVE_NON_OPTIMIZED = 0x1
    STANDBY = 0x2
    UNAVAILABLE = 0x3
    LOGICAL_BLOCK_DEPENDENT = 0x4
    OFFLINE = 0xE
    TRANSITIONING = 0xF


@dataclass(frozen=True, slots=True)
class TargetPortGroup:
    """One target port group: its access state, what it supports, its relative target port identifiers.

    ``supported`` is the byte of bits T_SUP, O_SUP, LBD_SUP, U_SUP, S_SUP, AN_SUP, AO_SUP (bit 7 to bit 0).
    ``status_code`` 0: none, 1: changed by SET TARGET PORT GROUPS, 2: changed implicitly.
    """

    group: int
    ports: tuple[int, ...]
    state: int = AccessState.ACTIVE_OPTIMIZED
    supported: int = 0x01
    preferred: bool = False
    status_code: int = 0


def encode_target_port_groups(groups: tuple[TargetPortGroup, ...], *, transition_seconds: int | None = None) -> bytes:
    """Parameter data; with ``transition_seconds`` (0..255) in the extended header format."""
    body = b"" if transition_seconds is None else bytes([0x10, fits(transition_seconds, 8, "transition time"), 0, 0])
    for group in groups:
        body += bytes(
            [(0x80 if group.preferred else 0) | fits(group.state, 4, "state"), fits(group.supported, 8, "support")]
        )
        body += fits(group.group, 16, "target port group").to_bytes(2, "big")
        body += bytes([0, group.status_code, 0, fits(len(group.ports), 8, "target port count")])
        body += b"".join(
            b"\x00\x00" + fits(port, 16, "relative target port").to_bytes(2, "big") for port in group.ports
        )
    return len(body).to_bytes(4, "big") + body


def parse_target_port_groups(raw: bytes) -> tuple[TargetPortGroup, ...]:
    """Groups of an answer in either format; MalformedScsiData when a group is cut short."""
    what = "REPORT TARGET PORT GROUPS data"
    need(raw, 4, what)
    end = int.from_bytes(raw[0:4], "big") + 4
    if end > len(raw):
        raise MalformedScsiData(what, f"RETURN DATA LENGTH {end - 4} in {len(raw)} bytes")
    at = 8 if end >= 8 and raw[4] & 0x70 == 0x10 else 4
    groups = []
    while at < end:
        need(raw[:end], at + 8, what)
        count = raw[at + 7]
        need(raw[:end], at + 8 + 4 * count, what)
        groups.append(
            TargetPortGroup(
                group=int.from_bytes(raw[at + 2 : at + 4], "big"),
                ports=tuple(
                    int.from_bytes(raw[place + 2 : place + 4], "big") for place in range(at + 8, at + 8 + 4 * count, 4)
                ),
                state=raw[at] & 0x0F,
                supported=raw[at + 1],
                preferred=bool(raw[at] & 0x80),
                status_code=raw[at + 5],
            )
        )
        at += 8 + 4 * count
    return tuple(groups)
