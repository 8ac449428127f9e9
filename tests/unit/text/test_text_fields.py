"""Fields of Text Requests and Text Responses: LUN, Target Transfer Tag, data length (RFC 7143 11.10, 11.11)."""

from __future__ import annotations

import pytest

from blockwire.negotiate import Parameters, Preferences
from blockwire.text import TextDone, TextInitiator, TextTarget
from blockwire.wire import TextRequest, TextResponse

LUN = bytes.fromhex("0005000000000000")
LISTING = [("TargetName", f"iqn.2024-01.com.example:disk{number}") for number in range(60)]


def target() -> TextTarget:
    return TextTarget(
        Parameters(initiator_max_recv_data_segment_length=512),
        lambda value: LISTING,
        Preferences.of("target"),
    )


def test_a_response_that_goes_on_carries_the_lun() -> None:
    # 11.10.4: with a Target Transfer Tag the LUN field MUST be there; the initiator copies both
    end = target()
    reply = end.handle_request(TextRequest(initiator_task_tag=9, lun=LUN, data=b"SendTargets=All\0"), 0.0).response
    rounds = 0
    while not reply.final:
        header = reply.encode()
        assert header[20:24] != b"\xff" * 4
        assert header[8:16] == LUN
        rounds += 1
        request = TextRequest(initiator_task_tag=9, lun=LUN, target_transfer_tag=reply.target_transfer_tag)
        reply = end.handle_request(request, 0.0).response
    assert rounds > 2
    assert reply.encode()[20:24] == b"\xff" * 4


def test_the_initiator_copies_lun_and_tag() -> None:
    initiator = TextInitiator(7, [("SendTargets", "All")], 8192, 0.0)
    first = initiator.poll_request()
    assert first is not None
    assert first.encode()[8:24] == bytes(8) + (7).to_bytes(4, "big") + b"\xff" * 4
    initiator.handle_pdu(
        TextResponse(
            final=False, continued=True, initiator_task_tag=7, lun=LUN, target_transfer_tag=0x1234, data=b"A=b"
        )
    )
    second = initiator.poll_request()
    assert second is not None
    assert second.encode()[8:24] == LUN + (7).to_bytes(4, "big") + (0x1234).to_bytes(4, "big")
    # with the F bit the tag is ignored: the exchange is over
    initiator.handle_pdu(TextResponse(final=True, initiator_task_tag=7, target_transfer_tag=0x1234, data=b"c\0"))
    assert initiator.poll_request() is None
    done = initiator.poll_event()
    assert isinstance(done, TextDone)
    assert done.pairs == [("A", "bc")]


@pytest.mark.parametrize("most", [512, 513, 1000, 8192])
def test_no_request_is_longer_than_the_target_takes(most: int) -> None:
    # 11.10.5; what is longer goes in several requests, all but the last with the C bit (6.2)
    pairs = [(f"X-com.example.key{n}", "v" * 200) for n in range(30)]
    whole = b"".join(f"{key}={value}\0".encode() for key, value in pairs)
    initiator = TextInitiator(7, pairs, most, 0.0)
    sent = b""
    while (request := initiator.poll_request()) is not None:
        header = request.encode()
        length = int.from_bytes(header[5:8], "big")
        assert 0 < length <= most
        assert length == len(request.data)
        sent += request.data
        more = len(sent) < len(whole)
        assert header[1] == (0x40 if more else 0x80)
        if not more:
            break
        initiator.handle_pdu(TextResponse(final=False, initiator_task_tag=7, target_transfer_tag=3))
    assert sent == whole
