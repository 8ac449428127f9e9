"""Bounds of one text exchange."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextLimits:
    """How much one exchange may take; who receives applies them."""

    seconds: float = 30.0
    """From one request to the next (target) or in all (initiator)."""
    text_bytes: int = 65536
    """Text received, in all PDUs together. An initiator that lists targets allows more."""
    empty_rounds: int = 16
    """Answers without text and without an end."""


LISTING = TextLimits(seconds=60.0, text_bytes=16 * 1024 * 1024)
"""For SendTargets at the initiator: some 100,000 target records."""
