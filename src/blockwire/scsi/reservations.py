"""Words of persistent reservations (SPC-4 6.15, 6.16): types, scopes, service actions."""

from __future__ import annotations

import enum


class ReservationType(enum.IntEnum):
    """TYPE field (SPC-4 table 208)."""

    WRITE_EXCLUSIVE = 0x1
    EXCLUSIVE_ACCESS = 0x3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 0x5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 0x6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 0x7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 0x8


LOGICAL_UNIT_SCOPE = 0x0
"""LU_SCOPE (SPC-4 table 207), the only scope."""


class InAction(enum.IntEnum):
    """PERSISTENT RESERVE IN service actions (SPC-4 table 203)."""

    READ_KEYS = 0x00
    READ_RESERVATION = 0x01
    REPORT_CAPABILITIES = 0x02
    READ_FULL_STATUS = 0x03


class OutAction(enum.IntEnum):
    """PERSISTENT RESERVE OUT service actions (SPC-4 table 215)."""

    REGISTER = 0x00
    RESERVE = 0x01
    RELEASE = 0x02
    CLEAR = 0x03
    PREEMPT = 0x04
    PREEMPT_AND_ABORT = 0x05
    REGISTER_AND_IGNORE_EXISTING_KEY = 0x06
    REGISTER_AND_MOVE = 0x07
