"""Flipped bits: with digests no bad data ever, without a header digest at least no hang and a clear end."""

from __future__ import annotations

import random

import pytest

from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.virtual_network import Faults
from tests.pair.exchange import exchange, expected, places, small_pair

ENDS = pytest.mark.parametrize("end", [INITIATOR, TARGET], ids=["to target", "to initiator"])


def after_login(end: int) -> tuple[tuple[int, int, int], ...]:
    """PDUs of the full feature phase, the only ones with digests."""
    found = places(True).to_target if end == INITIATOR else places(True).to_initiator
    return found[2:]


@ENDS
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 6))])
def test_with_digests_every_flipped_bit_is_found(end: int, part: int) -> None:
    """RFC 7143 7.7 and 7.8 at ERL 0: the connection or the task is given up, the session comes back, data are right."""
    choose = random.Random(part)
    for start, header, stop in after_login(end)[part::6]:
        offsets = {start + choose.randrange(header)}
        if stop > start + header:
            offsets.add(choose.randrange(start + header, stop))
        for at in sorted(offsets):
            mask = 1 << choose.randrange(8)
            with small_pair(digests=True) as pair:
                damage = ((at, mask),)
                to_target = end == INITIATOR
                pair.network.plan(Faults(damage_to_target=damage) if to_target else Faults(damage_to_initiator=damage))
                pair.run(exchange(pair))
                assert pair.stored(0, 16384) == expected(), f"bit {mask:#x} of byte {at}"
                assert pair.now < 1000 + 300
