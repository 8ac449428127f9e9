"""Block requests of the initiator's side, and runs of the plane's own load generator."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class IoKind(enum.IntEnum):
    """Block requests that the initiator's plane builds the CDB for."""

    READ = 0
    WRITE = 1
    FLUSH = 2
    UNMAP = 3
    WRITE_SAME_ZERO = 4


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One run of the plane's own load generator, on the caller's thread."""

    lun: int
    block_size: int
    size: int
    """Bytes of the logical unit that are used, from offset 0."""
    transfer: int
    """Bytes per request."""
    depth: int
    read_percent: int = 100
    random: bool = True
    seconds: float = 0.0
    """How long; 0 means `requests` decides."""
    requests: int = 0
    verify: bool = False
    """Writes carry a pattern of offset and generation; reads compare it. Reads alone in order, with the table of runs
    that wrote, read each place that was written once, and end."""
    seed: int = 1
    fua: bool = False


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load run did."""

    reads: int
    writes: int
    bytes: int
    errors: int
    miscompares: int
    seconds: float
    histogram_ns: tuple[tuple[int, int], ...]
    """(upper bound in nanoseconds, count), ascending, non-empty buckets only."""
    mean_ns: float
    max_ns: int
    first_error: str = ""
    swept: int = 0
    """Places that were compared once more when all was written."""
