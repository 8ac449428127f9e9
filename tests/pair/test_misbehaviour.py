"""PDUs lost, repeated or spoiled on the way: a clear end or the right data, never a hang, and the next use works.

At ERL 0 nothing asks for a lost PDU again, so a request may end with an error; what must not happen is wrong data, a
wait without end, or an exception of ours.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blockwire.initiator.options import Timers
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.tap import PassingPdu
from blockwire.wire.constants import Opcode
from tests.pair.exchange import expected, places, small_pair, use

TIMERS = Timers(timeout=6.0, replacement_timeout=60.0, keep_alive_interval=3.0, keep_alive_timeout=3.0, logout=2.0)
LONGEST = 200.0

FIRST = 2
"""PDUs of each direction that are the login's; losing those is in test_login_faults."""


def run_spoiled(end: int, number: int, spoil: Callable[[PassingPdu], list[bytes]]) -> str:
    """The exchange with PDU `number` of `end` on the first connection spoiled; gives how it ended."""
    with small_pair(tapped=True, timers=TIMERS) as pair:
        seen = 0

        def intercept(pdu: PassingPdu) -> list[bytes]:
            nonlocal seen
            if pdu.end != end or pair.links[0].tap is not pair.link.tap:
                return [pdu.raw]
            seen += 1
            return spoil(pdu) if seen == number + 1 else [pdu.raw]

        pair.network.on_link = lambda link: setattr(link.tap, "intercept", intercept) if link.number == 0 else None
        began = pair.now
        outcome = pair.run(use(pair))
        assert pair.now - began < LONGEST
        assert seen > number
        pair.network.on_link = None
        assert pair.run(use(pair)) == "right", "afterwards"
        assert pair.stored(0, 16384) == expected()
        return outcome


def count(end: int) -> int:
    return len(places().to_target if end == INITIATOR else places().to_initiator)


CASES = [
    pytest.param(end, number, id=f"{'to target' if end == INITIATOR else 'to initiator'} {number}",
                 marks=() if number % 7 == 2 else pytest.mark.slow)
    for end in (INITIATOR, TARGET)
    for number in range(FIRST, 26 if end == INITIATOR else 44)
]  # fmt: skip
each_pdu = pytest.mark.parametrize(("end", "number"), CASES)


def test_there_are_so_many() -> None:
    assert count(INITIATOR) >= 26
    assert count(TARGET) >= 43


@each_pdu
def test_lost(end: int, number: int) -> None:
    run_spoiled(end, number, lambda pdu: [])


@each_pdu
def test_repeated(end: int, number: int) -> None:
    run_spoiled(end, number, lambda pdu: [pdu.raw, pdu.raw])


@each_pdu
def test_another_opcode(end: int, number: int) -> None:
    """An opcode that RFC 7143 does not define (11.2.1.2)."""
    run_spoiled(
        end, number, lambda pdu: [bytes([pdu.raw[0] & 0x40 | (0x1B if pdu.end == INITIATOR else 0x3B)]) + pdu.raw[1:]]
    )


@each_pdu
def test_another_task_tag(end: int, number: int) -> None:
    run_spoiled(end, number, lambda pdu: [pdu.raw[:16] + b"\x7e\xad\xbe\xef" + pdu.raw[20:]])


@pytest.mark.parametrize("opcode", [Opcode.DATA_IN, Opcode.R2T, Opcode.SCSI_RESPONSE, Opcode.DATA_OUT])
@pytest.mark.parametrize("field", ["StatSN or ExpStatSN", "DataSN or R2TSN", "offset", "length"])
def test_numbers_that_are_wrong(opcode: Opcode, field: str) -> None:
    """The first such PDU has a number changed; where the figure has another field there, that one is."""
    place = {"StatSN or ExpStatSN": 24, "DataSN or R2TSN": 36, "offset": 40, "length": 44}[field]
    with small_pair(tapped=True, timers=TIMERS) as pair:
        spoiled = 0

        def intercept(pdu: PassingPdu) -> list[bytes]:
            nonlocal spoiled
            if pdu.opcode != opcode or spoiled:
                return [pdu.raw]
            spoiled += 1
            value = int.from_bytes(pdu.raw[place : place + 4], "big") + 0x100
            return [pdu.raw[:place] + (value & 0xFFFFFFFF).to_bytes(4, "big") + pdu.raw[place + 4 :]]

        pair.network.on_link = lambda link: setattr(link.tap, "intercept", intercept)
        pair.run(use(pair))
        assert spoiled == 1
        pair.network.on_link = None
        assert pair.run(use(pair)) == "right"
        assert pair.stored(0, 16384) == expected()
