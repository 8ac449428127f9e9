"""Names of a logical unit that are the same after every restart: pure functions of (host id, store identity).

The host id is any text that stays with the machine (``/etc/machine-id``); the store identity is the plane's stable key
of the store. Nothing here reads a file or draws a random number.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


def _digest(purpose: str, host_id: str, store_identity: str) -> bytes:
    # Lengths stand before the parts, so that ("ab", "c") and ("a", "bc") differ.
    parts = [part.encode() for part in (purpose, host_id, store_identity)]
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def serial_number(host_id: str, store_identity: str) -> str:
    """Unit serial number: 16 upper-case hexadecimal digits."""
    return _digest("serial", host_id, store_identity)[:8].hex().upper()


def naa_locally_assigned(host_id: str, store_identity: str) -> int:
    """NAA 3h, locally assigned (SPC-4 7.8.6.6.4): 4 bits NAA and 60 bits of our own choice.

    No IEEE company id is claimed, which NAA 6h would need; 60 bits keep collisions on one SAN out of reach.
    """
    return 3 << 60 | int.from_bytes(_digest("naa3", host_id, store_identity)[:8], "big") >> 4


def naa_registered_extended(company_id: int, host_id: str, store_identity: str) -> int:
    """NAA 6h, IEEE Registered Extended (SPC-4 7.8.6.6.5): ``company_id`` (24 bits), 36 and 64 bits of identifier."""
    if not 0 <= company_id < 1 << 24:
        raise ValueError(f"company id {company_id:#x} does not fit 24 bits")
    rest = int.from_bytes(_digest("naa6", host_id, store_identity)[:13], "big") >> 4
    return 6 << 124 | company_id << 100 | rest


@dataclass(frozen=True, slots=True)
class UnitIdentity:
    """What a logical unit calls itself in pages 80h and 83h."""

    serial: str
    naa: int


def unit_identity(
    host_id: str, store_identity: str, *, serial: str | None = None, company_id: int | None = None
) -> UnitIdentity:
    """Serial number and NAA identifier of a logical unit.

    A serial number given by the user replaces the store identity as the seed of the NAA identifier too, so that the
    same data served from another path keeps its name.
    """
    seed = store_identity if serial is None else f"serial={serial}"
    if company_id is None:
        naa = naa_locally_assigned(host_id, seed)
    else:
        naa = naa_registered_extended(company_id, host_id, seed)
    return UnitIdentity(serial if serial is not None else serial_number(host_id, store_identity), naa)
