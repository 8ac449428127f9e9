"""Text exchanges of both roles (RFC 7143 sections 6.4, 11.10, 11.11 and appendix C)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwire.discovery import TargetRecord, TargetRecordAddress, answer, format_records, parse_records
from blockwire.errors import Error, ProtocolError
from blockwire.names import Portal
from blockwire.negotiate import Negotiation, Parameters, Preferences
from blockwire.text import TextDone, TextFailed, TextInitiator, TextLimits, TextTarget
from blockwire.text.limits import LISTING
from blockwire.wire import Reject, TextRequest, TextResponse, keys
from blockwire.wire.constants import RESERVED_TAG
from blockwire.wire.keys import Pairs

HERE = Portal("10.0.0.1")
ADDRESSES = (TargetRecordAddress(Portal("10.0.0.1"), 1), TargetRecordAddress(Portal("::1"), 1))
RECORDS = [TargetRecord(f"iqn.2024-01.com.example:disk{n}", ADDRESSES) for n in range(1000)]


def target(records: list[TargetRecord] = RECORDS, parameters: Parameters | None = None, **options: Any) -> TextTarget:
    return TextTarget(
        parameters or Parameters(),
        lambda value: answer(value, "", records),
        Preferences.of("target"),
        **options,
    )


def run(initiator: TextInitiator, end: TextTarget) -> tuple[TextDone | TextFailed | None, int, Parameters | None]:
    rounds, changed = 0, None
    while (request := initiator.poll_request()) is not None:
        rounds += 1
        assert rounds < 1000
        reply = end.handle_request(TextRequest.decode(request.encode(), b"", request.data), 0.0)
        changed = reply.parameters or changed
        initiator.handle_pdu(TextResponse.decode(reply.response.encode(), b"", reply.response.data))
    return initiator.poll_event(), rounds, changed


def ask(pairs: Pairs, **options: Any) -> TextInitiator:
    return TextInitiator(7, pairs, 8192, 0.0, **options)


def test_send_targets_all_over_64_kib() -> None:
    done, rounds, _ = run(ask([("SendTargets", "All")], limits=LISTING), target())
    assert isinstance(done, TextDone)
    assert parse_records(done.pairs, HERE) == RECORDS
    assert sum(len(key) + len(value) + 2 for key, value in done.pairs) > 65536
    assert rounds > 8


@pytest.mark.parametrize("segment", [512, 513, 8192, 262144])
def test_any_segment_length(segment: int) -> None:
    done, _, _ = run(
        ask([("SendTargets", "All")]), target(RECORDS[:20], Parameters(initiator_max_recv_data_segment_length=segment))
    )
    assert isinstance(done, TextDone)
    assert parse_records(done.pairs, HERE) == RECORDS[:20]


def test_send_targets_by_name_and_empty() -> None:
    done, rounds, _ = run(ask([("SendTargets", RECORDS[3].name.upper())]), target())
    assert isinstance(done, TextDone)
    assert parse_records(done.pairs, HERE) == [RECORDS[3]]
    assert rounds == 1
    with pytest.raises(ProtocolError):
        run(ask([("SendTargets", "")]), target())


def test_who_may_ask_what() -> None:
    # Appendix C
    own = RECORDS[0].name
    assert answer("", own, RECORDS) == format_records(RECORDS[:1])
    assert answer(own.upper(), own, RECORDS) == format_records(RECORDS[:1])
    assert answer(RECORDS[1].name, own, RECORDS) == format_records(RECORDS[1:2])
    assert answer("iqn.2024-01.com.example:none", own, RECORDS) == []
    assert answer("All", "", []) == []
    with pytest.raises(ProtocolError):
        answer("", "", RECORDS)
    with pytest.raises(ProtocolError):
        answer("All", own, RECORDS)


def test_a_target_of_very_many_addresses_takes_no_more_than_its_length() -> None:
    # 16 MiB of text is what discovery takes; compared each with each, this many would take minutes.
    addresses = [("TargetAddress", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:3260,1") for n in range(60_000)]
    started = time.process_time()
    (record,) = parse_records([("TargetName", "iqn.2024-01.com.example:disk"), *addresses, *addresses[:100]], HERE)
    assert len(record.addresses) == 60_000
    assert time.process_time() - started < 10


def test_records_of_the_rfc() -> None:
    # Appendix C, second example.
    pairs = [
        ("TargetName", "iqn.1993-11.com.example:diskarray.sn.8675309"),
        ("TargetAddress", "10.1.0.45:3000,1"),
        ("TargetAddress", "10.1.1.45:3000,2"),
        ("TargetName", "iqn.1993-11.com.example:diskarray.sn.1234567"),
    ]
    first, second = parse_records(pairs, HERE)
    assert [str(address) for address in first.addresses] == ["10.1.0.45:3000,1", "10.1.1.45:3000,2"]
    assert second.addresses == (TargetRecordAddress(HERE),)
    assert format_records([first]) == pairs[:3]
    for bad in ([pairs[1]], [pairs[0], ("TargetAddress", "x:y,z")]):
        with pytest.raises(ProtocolError):
            parse_records(bad, HERE)


def test_declaring_a_segment_length_anew() -> None:
    base = Parameters(max_burst_length=4096, first_burst_length=4096)
    negotiation = Negotiation("initiator", Preferences(()), base=base, leading=False)
    pairs = negotiation.offer("MaxRecvDataSegmentLength", "65536")
    end = target(parameters=base)
    done, _, changed = run(ask(pairs, negotiation=negotiation), end)
    assert isinstance(done, TextDone)
    assert done.parameters == changed == end.parameters == base.changed(initiator_max_recv_data_segment_length=65536)


def request(pairs: Pairs | bytes, **fields: Any) -> TextRequest:
    data = pairs if isinstance(pairs, bytes) else keys.join_pairs(pairs)
    return TextRequest(**{"initiator_task_tag": 1, "data": data, **fields})


@pytest.mark.parametrize(
    "bad",
    [
        request([("MaxBurstLength", "512")]),  # LO
        request([("InitiatorName", "iqn.2024-01.a")]),
        request([("MaxRecvDataSegmentLength", "1")]),
        request([("MaxRecvDataSegmentLength", "512"), ("MaxRecvDataSegmentLength", "512")]),
        request([("SendTargets", "All"), ("SendTargets", "All")]),
        request([("SendTargets", "All"), ("X-a", "1")]),
        request(b"no null"),
        request(b"x\0"),
        request([], final=True, continued=True),
        request([], target_transfer_tag=99),  # stale
    ],
)
def test_wrong_requests_are_rejected_and_change_nothing(bad: TextRequest) -> None:
    end = target()
    with pytest.raises(ProtocolError):
        end.handle_request(bad, 0.0)
    assert end.parameters == Parameters()
    assert end.deadline is None


def test_a_negotiation_is_atomic() -> None:
    # 7.12 b: partial results of a failed negotiation are discarded.
    end = target()
    reply = end.handle_request(request([("MaxRecvDataSegmentLength", "65536")], final=False), 0.0)
    assert not reply.response.final
    with pytest.raises(ProtocolError):
        end.handle_request(
            request([("MaxBurstLength", "512")], target_transfer_tag=reply.response.target_transfer_tag), 0.0
        )
    assert end.parameters == Parameters()


def test_a_reserved_tag_resets() -> None:
    # 11.10.4
    end = target()
    first = end.handle_request(request([("SendTargets", "All")]), 0.0).response
    assert first.target_transfer_tag != RESERVED_TAG
    assert first.continued
    again = end.handle_request(request([("SendTargets", RECORDS[0].name)]), 0.0).response
    assert again.final
    with pytest.raises(ProtocolError) as caught:
        end.handle_request(request([], target_transfer_tag=first.target_transfer_tag), 0.0)
    assert caught.value.reject_reason == 0x09


def test_a_stalled_exchange_is_forgotten() -> None:
    end = target()
    first = end.handle_request(request([("SendTargets", "All")]), 100.0).response
    assert end.deadline == 130.0
    end.handle_timeout(130.0)
    with pytest.raises(ProtocolError):
        end.handle_request(request([], target_transfer_tag=first.target_transfer_tag), 131.0)


def test_text_is_bounded_on_both_sides() -> None:
    end = target(limits=TextLimits(text_bytes=1000))
    with pytest.raises(ProtocolError):
        end.handle_request(request([("X-a", "y" * 1000)]), 0.0)
    done, _, _ = run(ask([("SendTargets", "All")], limits=TextLimits(text_bytes=10000)), target())
    assert isinstance(done, TextFailed)
    assert done.reset


def test_the_initiator_against_wrong_targets() -> None:
    def one(**fields: Any) -> TextDone | TextFailed | None:
        initiator = ask([("SendTargets", "All")])
        initiator.poll_request()
        initiator.handle_pdu(TextResponse(**{"initiator_task_tag": 7, **fields}))
        return initiator.poll_event()

    assert isinstance(one(initiator_task_tag=8), TextFailed)
    assert isinstance(one(final=True, continued=True), TextFailed)
    assert isinstance(one(final=False), TextFailed)  # no Target Transfer Tag
    assert isinstance(one(data=b"junk"), TextFailed)
    assert isinstance(one(data=b""), TextDone)

    initiator = ask([("SendTargets", "All")])
    initiator.handle_pdu(Reject(reason=4))
    failed = initiator.poll_event()
    assert isinstance(failed, TextFailed)
    assert isinstance(failed.error, ProtocolError)

    stuck = ask([("SendTargets", "All")])
    while stuck.poll_request() is not None:
        stuck.handle_pdu(TextResponse(final=False, initiator_task_tag=7, target_transfer_tag=1))
        if stuck.deadline is None:
            break
    assert isinstance(stuck.poll_event(), TextFailed)


def test_an_exchange_that_goes_on_too_late_is_over() -> None:
    end = target()
    first = end.handle_request(request([("SendTargets", "All")]), 100.0).response
    with pytest.raises(ProtocolError) as caught:
        end.handle_request(request([], target_transfer_tag=first.target_transfer_tag), 131.0)
    assert caught.value.reject_reason == 0x09


def test_initiator_timeout() -> None:
    initiator = ask([("SendTargets", "All")])
    initiator.handle_timeout(30.0)
    failed = initiator.poll_event()
    assert isinstance(failed, TextFailed)
    assert isinstance(failed.error, TimeoutError)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.binary(max_size=60),
            st.booleans(),
            st.booleans(),
            st.sampled_from([RESERVED_TAG, 1, 2]),
            st.integers(0, 1),
        ),
        max_size=8,
    )
)
def test_random_requests_never_break_the_target(requests: list[tuple[bytes, bool, bool, int, int]]) -> None:
    end = target(RECORDS[:300])
    for data, final, continued, tag, task in requests:
        try:
            reply = end.handle_request(
                TextRequest(
                    final=final, continued=continued, target_transfer_tag=tag, initiator_task_tag=task, data=data
                ),
                0.0,
            )
        except Error:
            continue
        assert reply.response.final == (reply.response.target_transfer_tag == RESERVED_TAG)
        assert not (reply.response.final and not final)
