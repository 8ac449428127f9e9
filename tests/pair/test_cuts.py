"""The link lost at every PDU boundary, inside every header and in payloads, during login, writes and reads.

At ERL 0 the initiator opens its session again and repeats what was unfinished; a login that is cut fails with a clear
error and works the next time. Nothing hangs, and the data are compared every time.
"""

from __future__ import annotations

import pytest

from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.virtual_network import Faults
from tests.pair.exchange import exchange, expected, places, small_pair

LONGEST = 60.0
"""Virtual seconds of an exchange with one cut."""


def run_with_cut(end: int, at: int, chunk: int | None, digests: bool = False) -> None:
    with small_pair(digests) as pair:
        faults = Faults(cut_to_target=at, chunk=chunk) if end == INITIATOR else Faults(cut_to_initiator=at, chunk=chunk)
        pair.network.plan(faults)
        began = pair.now
        pair.run(exchange(pair))
        assert pair.now - began < LONGEST
        assert pair.stored(0, 16384) == expected(), f"cut after {at}"
        assert len(pair.links) == 2, f"cut after {at}"


def slices(count: int) -> list[int]:
    return list(range(count))


PARTS = 8


@pytest.mark.parametrize("end", [INITIATOR, TARGET], ids=["to target", "to initiator"])
def test_cut_at_every_boundary(end: int) -> None:
    cuts = places().boundaries(end)
    assert len(cuts) > 20
    for at in cuts:
        run_with_cut(end, at, None)


@pytest.mark.slow
@pytest.mark.parametrize("part", slices(PARTS))
@pytest.mark.parametrize("end", [INITIATOR, TARGET], ids=["to target", "to initiator"])
def test_cut_inside(end: int, part: int) -> None:
    for at in places().cuts(end)[part::PARTS]:
        run_with_cut(end, at, None)


@pytest.mark.slow
@pytest.mark.parametrize("part", slices(PARTS))
@pytest.mark.parametrize("end", [INITIATOR, TARGET], ids=["to target", "to initiator"])
def test_cut_with_digests_and_small_pieces(end: int, part: int) -> None:
    for at in places(True).cuts(end)[part :: PARTS * 3]:
        run_with_cut(end, at, 33, digests=True)


@pytest.mark.soak
@pytest.mark.parametrize("part", slices(32))
@pytest.mark.parametrize("end", [INITIATOR, TARGET], ids=["to target", "to initiator"])
def test_cut_after_every_byte(end: int, part: int) -> None:
    for at in places().cuts(end, every_byte=True)[part::32]:
        run_with_cut(end, at, None)


@pytest.mark.parametrize("end", [INITIATOR, TARGET], ids=["to target", "to initiator"])
def test_cut_again_and_again(end: int) -> None:
    """Five connections in a row are cut, each a little later."""
    length = places().to_target[-1][2] if end == INITIATOR else places().to_initiator[-1][2]
    with small_pair() as pair:
        login = length // 4
        for number in range(5):
            at = login + number * (length - login) // 5
            pair.network.plan(Faults(cut_to_target=at) if end == INITIATOR else Faults(cut_to_initiator=at))
        pair.run(exchange(pair))
        assert pair.stored(0, 16384) == expected()
        assert len(pair.links) >= 3
