"""One field of one PDU is wrong: what the wire answers, what the events of the target and the log of the initiator say,
and that the data is right afterwards (RFC 7143 section 7). The rules one by one are tested in `blockwire-proto`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from blockwire.initiator.options import Timers
from blockwire.testing.memory_link import INITIATOR, TARGET
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.testing.tap import PassingPdu
from blockwire.wire.constants import Opcode
from tests.pair.exchange import expected, small_pair, use

TIMERS = Timers(timeout=6.0, replacement_timeout=60.0, keep_alive_interval=3.0, keep_alive_timeout=3.0, logout=2.0)

Spoil = Callable[[bytes], bytes]


def word(place: int, change: int) -> Spoil:
    """Adds to the 32-bit number at `place`."""

    def spoil(raw: bytes) -> bytes:
        value = (int.from_bytes(raw[place : place + 4], "big") + change) & 0xFFFFFFFF
        return raw[:place] + value.to_bytes(4, "big") + raw[place + 4 :]

    return spoil


def put(place: int, *values: int) -> Spoil:
    """Puts bytes in the place of others."""
    return lambda raw: raw[:place] + bytes(values) + raw[place + len(values) :]


def spoiled(end: int, opcode: int, spoil: Spoil) -> tuple[SteppedPair, list[int]]:
    """Runs the exchange with the first such PDU spoiled; the pair, and the reasons of Rejects."""
    reasons: list[int] = []
    with small_pair(tapped=True, timers=TIMERS) as pair:
        done = 0

        def intercept(pdu: PassingPdu) -> list[bytes]:
            nonlocal done
            if pdu.opcode == Opcode.REJECT:
                reasons.append(pdu.header[2])
            if pdu.end != end or pdu.opcode != opcode or done:
                return [pdu.raw]
            done += 1
            return [spoil(pdu.raw)]

        pair.network.on_link = lambda link: setattr(link.tap, "intercept", intercept)
        pair.run(use(pair))
        assert done == 1
        pair.network.on_link = None
        assert pair.run(use(pair)) == "right"
        assert pair.stored(0, 16384) == expected()
        return pair, reasons


REJECTED = [
    ("Data-Out for another task", Opcode.DATA_OUT, put(16, 0x7E, 0xAD, 0xBE, 0xEF), 0x09, "not in progress"),
    ("Data-Out for another R2T", Opcode.DATA_OUT, put(20, 0x7E, 0xAD, 0xBE, 0xEF), 0x09, "waits for none"),
    ("Data-Out past the end", Opcode.DATA_OUT, put(40, 0x7F, 0, 0, 0), 0x04, "outside of what was asked for"),
    ("Data-Out out of order", Opcode.DATA_OUT, word(36, 5), 0x04, "out of order"),
    ("a command that is none", Opcode.SCSI_COMMAND, put(0, 0x1B), 0x05, "does not define"),
    ("a reserved attribute", Opcode.SCSI_COMMAND, lambda raw: put(1, raw[1] | 7)(raw), 0x04, "task attribute"),
]  # fmt: skip


@pytest.mark.parametrize(("opcode", "spoil", "reason", "says"), [row[1:] for row in REJECTED],
                         ids=[row[0] for row in REJECTED])  # fmt: skip
def test_the_target_rejects_and_says_why(opcode: Opcode, spoil: Spoil, reason: int, says: str) -> None:
    pair, reasons = spoiled(INITIATOR, opcode, spoil)
    assert reason in reasons
    told = [event.details["what"] for event in pair.events if event.event == "protocol-violation"]
    assert any(says in what and "RFC 7143" in what for what in told), told


def test_a_number_above_the_window_is_ignored_and_named() -> None:
    pair, reasons = spoiled(INITIATOR, Opcode.SCSI_COMMAND, word(24, 0x1000))
    assert reasons == []  # 4.2.2.1: silently, on the wire
    told = [event.details["what"] for event in pair.events if event.event == "protocol-violation"]
    assert any("CmdSN above the window" in what for what in told), told


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(put(4, 0xFF), "AHS"), (put(5, 0xFF, 0xFF, 0xFF), "MaxRecvDataSegmentLength"), (put(0, 0x25), "target's opcode")],
    ids=["additional headers", "a data segment of 2^24 - 1", "an opcode of ours"],
)
def test_the_target_drops_the_connection_and_says_why(spoil: Spoil, says: str) -> None:
    pair, _ = spoiled(INITIATOR, Opcode.SCSI_COMMAND, spoil)
    (lost,) = [event.details for event in pair.events if event.event == "connection-lost"]
    assert lost["reason"] == "protocol-violation"
    assert says in lost["evidence"]
    assert any(says in event.details["what"] for event in pair.events if event.event == "protocol-violation")


NAMED = [
    ("Data-In beyond the buffer", Opcode.DATA_IN, put(40, 0x7F, 0, 0, 0), "beyond the end of the buffer"),
    ("Data-In for another task", Opcode.DATA_IN, put(16, 0x7E, 0xAD, 0xBE, 0xEF), "not in progress"),
    ("Data-In out of order", Opcode.DATA_IN, word(36, 5), "DataSN out of sequence"),
    ("R2T for another task", Opcode.R2T, put(16, 0x7E, 0xAD, 0xBE, 0xEF), "not in progress"),
    ("R2T for bytes already sent", Opcode.R2T, put(40, 0, 0, 0, 0), "sent already"),
    ("R2T past the end", Opcode.R2T, put(40, 0x7F, 0, 0, 0), "beyond the end of the transfer"),
    ("R2T without a tag", Opcode.R2T, put(20, 0xFF, 0xFF, 0xFF, 0xFF), "reserved Target Transfer Tag"),
    ("R2T out of order", Opcode.R2T, word(36, 5), "R2TSN out of sequence"),
    ("a status ahead of others", Opcode.SCSI_RESPONSE, word(24, 1), "a status is missing"),
    ("a reserved response", Opcode.SCSI_RESPONSE, put(2, 5), "reserved Response code"),
    ("a status for another task", Opcode.SCSI_RESPONSE, put(16, 0x7E, 0xAD, 0xBE, 0xEF), "not in progress"),
    ("ExpCmdSN ahead", Opcode.SCSI_RESPONSE, lambda raw: word(28, 9)(word(32, 9)(raw)), "was not sent"),
    ("an opcode of ours", Opcode.SCSI_RESPONSE, put(0, 0x01), "only an initiator sends"),
    ("additional headers", Opcode.SCSI_RESPONSE, put(4, 1), "AHS"),
]  # fmt: skip


@pytest.mark.parametrize(("opcode", "spoil", "says"), [row[1:] for row in NAMED], ids=[row[0] for row in NAMED])
def test_the_initiator_drops_the_connection_and_says_why(
    caplog: pytest.LogCaptureFixture, opcode: Opcode, spoil: Spoil, says: str
) -> None:
    with caplog.at_level(logging.WARNING, "blockwire.initiator"):
        spoiled(TARGET, opcode, spoil)
    told = [record.getMessage() for record in caplog.records if "broke the protocol" in record.getMessage()]
    assert any(says in what and "RFC 7143" in what for what in told), caplog.messages
