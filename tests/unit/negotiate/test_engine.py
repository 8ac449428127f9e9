"""The engine: RFC 7143 sections 6.2, 6.3, 7.12 and the cross-key rules of section 13."""

from __future__ import annotations

import pytest

from blockwire.errors import ConfigurationError, NegotiationError
from blockwire.negotiate import KEYS, Negotiation, Parameters, Preferences
from blockwire.negotiate.engine import Phase, Received
from blockwire.wire.keys import Pairs


def target(**keys: str) -> Negotiation:
    return Negotiation("target", Preferences.of("target", keys))


def answers(negotiation: Negotiation, *pairs: tuple[str, str], phase: Phase = "operational") -> dict[str, str]:
    return dict(negotiation.receive(list(pairs), phase).answers)


@pytest.mark.parametrize(
    ("key", "own", "offered", "answer"),
    [
        ("MaxBurstLength", "65536", "1048576", "65536"),
        ("MaxBurstLength", "1048576", "65536", "65536"),
        ("MaxBurstLength", "1048576", "0x10000", "65536"),
        ("DefaultTime2Wait", "5", "2", "5"),
        ("DefaultTime2Wait", "0", "2", "2"),
        ("DefaultTime2Retain", "20", "0", "0"),
        ("InitialR2T", "No", "No", "No"),
        ("InitialR2T", "Yes", "No", "Yes"),
        ("InitialR2T", "No", "Yes", "Yes"),
        ("ImmediateData", "Yes", "Yes", "Yes"),
        ("ImmediateData", "No", "Yes", "No"),
        ("ImmediateData", "Yes", "No", "No"),
        ("DataPDUInOrder", "No", "No", "No"),
        ("DataPDUInOrder", "Yes", "No", "Yes"),
        ("MaxOutstandingR2T", "64", "65535", "64"),
        ("ErrorRecoveryLevel", "0", "2", "0"),
        # 6.2.1: the first of the originator's list that is supported, not the responder's favourite.
        ("HeaderDigest", "None,CRC32C", "CRC32C,None", "CRC32C"),
        ("HeaderDigest", "CRC32C,None", "None,CRC32C", "None"),
        ("HeaderDigest", "None", "CRC32C", "Reject"),
        ("HeaderDigest", "None,CRC32C", "Y-com.example.x,CRC32C", "CRC32C"),
        ("TaskReporting", "RFC3720", "FastAbort,ResponseFence,RFC3720", "RFC3720"),
        ("iSCSIProtocolLevel", "1", "2", "1"),
        # 6.2.2: out of bounds may be answered with Reject; 6.2: a range is only for keys that allow one.
        ("MaxBurstLength", "65536", "511", "Reject"),
        ("MaxConnections", "1", "65536", "Reject"),
        ("MaxBurstLength", "65536", "512~1024", "Reject"),
    ],
)
def test_the_target_answers_by_the_result_function(key: str, own: str, offered: str, answer: str) -> None:
    negotiation = target(**{key: own})
    assert answers(negotiation, (key, offered))[key] == answer
    field = KEYS[key].field
    assert field is not None
    expected = KEYS[key].default if answer == "Reject" else KEYS[key].parse(answer)
    assert getattr(negotiation.parameters(), field) == expected


def test_obsolete_and_unknown_keys() -> None:
    # 13.25: never NotUnderstood; 6.2: unknown keys always NotUnderstood.
    got = answers(
        target(), ("IFMarker", "No"), ("OFMarker", "Yes"), ("IFMarkInt", "2048~4096"), ("OFMarkInt", "1"),
        ("X-com.example.y", "1"), ("Whatever", "x"),
    )  # fmt: skip
    assert got == {
        "IFMarker": "Reject", "OFMarker": "Reject", "IFMarkInt": "Reject", "OFMarkInt": "Reject",
        "X-com.example.y": "NotUnderstood", "Whatever": "NotUnderstood",
    }  # fmt: skip


def test_declarations_get_no_answer() -> None:
    negotiation = target()
    assert (
        answers(
            negotiation, ("MaxRecvDataSegmentLength", "16777215"), ("InitiatorAlias", "x"), ("X#NodeArchitecture", "a")
        )
        == {}
    )
    assert negotiation.parameters().initiator_max_recv_data_segment_length == 2**24 - 1


@pytest.mark.parametrize(
    ("pairs", "phase"),
    [
        ([("MaxBurstLength", "512"), ("MaxBurstLength", "512")], "operational"),  # 6.3: twice
        ([("X-a", "1"), ("X-a", "1")], "operational"),
        ([("MaxRecvDataSegmentLength", "511")], "operational"),  # 7.12: unacceptable declaration
        ([("MaxRecvDataSegmentLength", "16777216")], "operational"),
        ([("MaxBurstLength", "x")], "operational"),
        ([("InitialR2T", "yes")], "operational"),
        ([("HeaderDigest", "")], "operational"),
        ([("MaxBurstLength", "Reject")], "operational"),  # 6.2: reserved constants are no proposals
        ([("MaxBurstLength", "Irrelevant")], "operational"),
        ([("MaxBurstLength", "NotUnderstood")], "operational"),
        ([("TargetAlias", "x")], "operational"),  # 13.6: the target's key
        ([("TargetPortalGroupTag", "1")], "operational"),
        ([("MaxBurstLength", "512")], "security"),  # 6.3: not in this stage
        ([("AuthMethod", "None")], "operational"),
        ([("SendTargets", "All")], "operational"),  # FFPO
        ([("MaxBurstLength", "512")], "full-feature"),  # LO
        ([("HeaderDigest", "None")], "full-feature"),  # IO
        ([("InitiatorName", "iqn.2024-01.a")], "full-feature"),
        ([("SessionType", "Other")], "security"),
        ([("InitiatorAlias", "x" * 256)], "security"),
    ],
)
def test_protocol_errors(pairs: Pairs, phase: Phase) -> None:
    with pytest.raises(NegotiationError):
        target().receive(pairs, phase)


def test_leading_only_keys_on_a_further_connection() -> None:
    negotiation = Negotiation("target", Preferences.of("target"), leading=False)
    assert answers(negotiation, ("HeaderDigest", "None")) == {"HeaderDigest": "None"}
    with pytest.raises(NegotiationError):
        negotiation.receive([("MaxBurstLength", "512")], "operational")


def test_the_architecture_of_a_node_makes_no_difference() -> None:
    # 13.26: "Use: LO, Declarative"; 13.26.2: nothing "MUST … depend on the presence, absence, or content"
    assert answers(target(), ("X#NodeArchitecture", "ExampleOS/v1234,CPU_Arch/i686")) == {}
    further = Negotiation("target", Preferences.of("target"), leading=False)
    assert answers(further, ("X#NodeArchitecture", "ExampleOS/v1234"), ("HeaderDigest", "None")) == {
        "HeaderDigest": "None"
    }
    phases: tuple[Phase, ...] = ("security", "operational", "full-feature")
    for phase in phases:
        for negotiation in (
            target(),
            Negotiation("target", Preferences.of("target"), leading=False),
            Negotiation("initiator", Preferences.of("initiator")),
        ):
            received = negotiation.receive([("X#NodeArchitecture", "x" * 256)], phase)
            assert received == Received()
            with pytest.raises(NegotiationError, match="twice"):  # 13.26.1: "MUST NOT be redeclared"
                negotiation.receive([("X#NodeArchitecture", "x")], phase)


def test_discovery() -> None:
    negotiation = target(ErrorRecoveryLevel="2")
    negotiation.receive([("SessionType", "Discovery")], "security")
    got = answers(negotiation, ("MaxBurstLength", "512"), ("ErrorRecoveryLevel", "2"), ("DefaultTime2Wait", "2"))
    # 7.4.1: ErrorRecoveryLevel MUST be answered with 0.
    assert got == {"MaxBurstLength": "Irrelevant", "ErrorRecoveryLevel": "0", "DefaultTime2Wait": "2"}
    assert negotiation.finish().session_type == "Discovery"


@pytest.mark.parametrize("together", [True, False])
def test_first_burst_gives_way_to_max_burst(together: bool) -> None:
    # 13.14
    negotiation = target()
    pairs = [("MaxBurstLength", "4096"), ("FirstBurstLength", "65536")]
    got: dict[str, str] = {}
    for batch in [pairs] if together else [[pair] for pair in pairs]:
        got |= answers(negotiation, *batch)
    assert got == {"MaxBurstLength": "4096", "FirstBurstLength": "4096"}
    assert negotiation.finish().first_burst_length == 4096


def test_the_target_offers_first_burst_when_the_default_is_too_long() -> None:
    negotiation = target()
    answers(negotiation, ("MaxBurstLength", "4096"), ("InitialR2T", "No"))
    offers = dict(negotiation.needed_offers())
    assert offers["FirstBurstLength"] == "4096"
    assert negotiation.waiting
    with pytest.raises(NegotiationError):
        negotiation.finish()
    negotiation.receive([("FirstBurstLength", "4096")], "operational")
    assert negotiation.finish().first_burst_length == 4096


def test_first_burst_does_not_matter_without_unsolicited_data() -> None:
    negotiation = target()
    answers(negotiation, ("MaxBurstLength", "4096"), ("ImmediateData", "No"))
    assert "FirstBurstLength" not in dict(negotiation.needed_offers())
    assert negotiation.finish().first_burst_length == 4096


def test_a_silent_initiator_is_asked_where_the_default_does_not_fit() -> None:
    negotiation = target(ImmediateData="No", MaxBurstLength="65536", FirstBurstLength="8192", DefaultTime2Wait="10")
    assert dict(negotiation.needed_offers()) == {
        "ImmediateData": "No",
        "MaxRecvDataSegmentLength": "262144",
        "MaxBurstLength": "65536",
        "FirstBurstLength": "8192",
        "DefaultTime2Wait": "10",
    }
    # 6.2.2: with AND and No the answer is optional.
    negotiation.receive(
        [("MaxBurstLength", "65536"), ("FirstBurstLength", "4096"), ("DefaultTime2Wait", "12")], "operational"
    )
    result = negotiation.finish()
    assert (result.immediate_data, result.max_burst_length, result.first_burst_length, result.default_time2wait) == (
        False, 65536, 4096, 12,
    )  # fmt: skip


def test_first_burst_keeps_below_what_the_target_will_offer_for_max_burst() -> None:
    negotiation = target(MaxBurstLength="65536")
    assert answers(negotiation, ("FirstBurstLength", "131072"), ("InitialR2T", "No"))["FirstBurstLength"] == "65536"


def test_outstanding_r2t_is_one_above_level_0_in_order() -> None:
    # 13.19
    offers = [("MaxOutstandingR2T", "8"), ("ErrorRecoveryLevel", "2"), ("DataSequenceInOrder", "Yes")]
    negotiation = target(ErrorRecoveryLevel="2")
    assert answers(negotiation, *offers)["MaxOutstandingR2T"] == "1"
    offers[2] = ("DataSequenceInOrder", "No")
    assert answers(target(ErrorRecoveryLevel="2", DataSequenceInOrder="No"), *offers)["MaxOutstandingR2T"] == "8"
    assert answers(target(ErrorRecoveryLevel="0"), *offers)["MaxOutstandingR2T"] == "8"  # level 0 in the end


def test_digest_that_is_required() -> None:
    negotiation = target(HeaderDigest="CRC32C")
    with pytest.raises(NegotiationError):
        negotiation.receive([("HeaderDigest", "None")], "operational")
    assert ("HeaderDigest", "CRC32C") in target(HeaderDigest="CRC32C").needed_offers()


# --- the initiator ---------------------------------------------------------------------------------------


def initiator(**keys: str) -> Negotiation:
    negotiation = Negotiation("initiator", Preferences.of("initiator", keys))
    negotiation.offers()
    return negotiation


@pytest.mark.parametrize(
    ("key", "offer", "answer"),
    [
        ("MaxBurstLength", "65536", "65537"),
        ("MaxBurstLength", "65536", "100"),
        ("MaxBurstLength", "65536", "Yes"),
        ("DefaultTime2Wait", "5", "4"),
        ("ImmediateData", "No", "Yes"),
        ("InitialR2T", "Yes", "No"),
        ("HeaderDigest", "None", "CRC32C"),
        ("HeaderDigest", "CRC32C", "None"),
        ("HeaderDigest", "CRC32C", "Reject"),
        ("MaxBurstLength", "65536", "NotUnderstood"),
        ("MaxBurstLength", "65536", "Reject"),
    ],
)
def test_inadmissible_answers(key: str, offer: str, answer: str) -> None:
    with pytest.raises(NegotiationError) as caught:
        initiator(**{key: offer}).receive([(key, answer)], "operational")
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("key", "offer", "answer", "result"),
    [
        ("MaxBurstLength", "1048576", "Reject", 262144),
        ("MaxBurstLength", "1048576", "Irrelevant", 262144),
        ("TaskReporting", "FastAbort,ResponseFence,RFC3720", "NotUnderstood", "RFC3720"),
        ("TaskReporting", "FastAbort,ResponseFence,RFC3720", "FastAbort", "FastAbort"),
        ("iSCSIProtocolLevel", "2", "NotUnderstood", 1),
        ("iSCSIProtocolLevel", "2", "0", 0),
    ],
)
def test_admissible_answers(key: str, offer: str, answer: str, result: object) -> None:
    negotiation = initiator(**{key: offer})
    negotiation.receive([(key, answer)], "operational")
    assert getattr(negotiation.parameters(), str(KEYS[key].field)) == result


def test_missing_answers() -> None:
    negotiation = initiator()
    with pytest.raises(NegotiationError) as caught:
        negotiation.finish()
    assert caught.value.key
    # Where the offer decides alone the answer may be missing.
    lone = Negotiation(
        "initiator", Preferences((("InitialR2T", "Yes"), ("ImmediateData", "No"), ("iSCSIProtocolLevel", "2")))
    )
    lone.offers()
    result = lone.finish()
    assert (result.initial_r2t, result.immediate_data, result.iscsi_protocol_level) == (True, False, 1)


def test_the_initiator_answers_the_targets_offers() -> None:
    negotiation = Negotiation("initiator", Preferences((("MaxBurstLength", "65536"),)))
    got = negotiation.receive([("DefaultTime2Wait", "7"), ("X-a", "1")], "operational")
    assert dict(got.answers) == {"DefaultTime2Wait": "7", "X-a": "NotUnderstood"}


def test_recovery_levels_ask_for_any_sequence_order() -> None:
    # 13.19, and issue 3 item 2
    preferences = Preferences.of("initiator", {"ErrorRecoveryLevel": "2"})
    assert preferences.get("DataSequenceInOrder") == "No"


def test_limits_of_the_data_plane_hold_offers_down() -> None:
    preferences = Preferences.of("initiator", limits={"MaxBurstLength": 65536, "MaxOutstandingR2T": 4})
    assert preferences.get("MaxBurstLength") == "65536"
    assert preferences.get("FirstBurstLength") == "65536"
    assert preferences.get("MaxOutstandingR2T") == "4"


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ({"MaxBurstLenght": "1"}, "MaxBurstLength"),
        ({"MaxBurstLength": "1"}, "13.13"),
        ({"HeaderDigest": "CRC64"}, "13.1"),
        ({"InitiatorName": "x"}, "--initiator-name"),
        ({"IFMarker": "No"}, "leave"),
        ({"FirstBurstLength": "1048576", "MaxBurstLength": "65536"}, "65536"),
        ({"ErrorRecoveryLevel": "1", "DataSequenceInOrder": "Yes", "MaxOutstandingR2T": "2"}, "1"),
        ({"TaskReporting": "FastAbort"}, "13.23"),
        ({"AuthMethod": "None"}, "--chap-user"),
    ],
)
def test_bad_keys_are_configuration_errors(keys: dict[str, str], hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Preferences.of("initiator", keys)
    assert hint in caught.value.next
    assert caught.value.exit_code == 2


def test_session_parameters_on_a_further_connection() -> None:
    session = Parameters(max_burst_length=4096, header_digest="CRC32C", error_recovery_level=2)
    further = Parameters().with_session(session)
    assert (further.max_burst_length, further.error_recovery_level, further.header_digest) == (4096, 2, "None")


@pytest.mark.parametrize(("offered", "answered"), [(1, 1), (8, 8), (64, 64), (65, 64), (65535, 64)])
def test_any_offer_of_outstanding_r2ts_is_answered_with_at_most_64(offered: int, answered: int) -> None:
    # 13.17: Minimum
    assert answers(target(), ("MaxOutstandingR2T", str(offered))) == {"MaxOutstandingR2T": str(answered)}


def test_an_initiator_that_asks_for_recovery_offers_sequences_in_any_order() -> None:
    # 13.19: with Yes only the last sequence could be asked for again
    assert Preferences.of("initiator").get("DataSequenceInOrder") == "Yes"
    for level in ("1", "2"):
        assert Preferences.of("initiator", {"ErrorRecoveryLevel": level}).get("DataSequenceInOrder") == "No"
    kept = Preferences.of(
        "initiator", {"ErrorRecoveryLevel": "2", "DataSequenceInOrder": "Yes", "MaxOutstandingR2T": "1"}
    )
    assert kept.get("DataSequenceInOrder") == "Yes"


def test_a_target_gives_what_is_asked_for_of_connections_and_recovery() -> None:
    offers = [("MaxConnections", "4"), ("ErrorRecoveryLevel", "2"), ("DataSequenceInOrder", "No")]
    assert answers(target(), *offers) == dict(offers)
    assert answers(target(ErrorRecoveryLevel="1", MaxConnections="2"), *offers) == {
        "MaxConnections": "2", "ErrorRecoveryLevel": "1", "DataSequenceInOrder": "No",
    }  # fmt: skip


def test_reports_of_tasks_and_protocol_level_are_what_the_initiator_wants() -> None:
    # 13.23: the first of its list; RFC 7144 7.1.1: the lower of the two levels
    offers = [("TaskReporting", "FastAbort,ResponseFence,RFC3720"), ("iSCSIProtocolLevel", "2")]
    assert answers(target(), *offers) == {"TaskReporting": "FastAbort", "iSCSIProtocolLevel": "2"}
    offers = [("TaskReporting", "ResponseFence,RFC3720"), ("iSCSIProtocolLevel", "1")]
    assert answers(target(), *offers) == {"TaskReporting": "ResponseFence", "iSCSIProtocolLevel": "1"}


def test_a_key_that_was_settled_is_not_offered_again() -> None:
    # 6.3: the initiator answered the target's offer; its own offer of the same key would be a renegotiation.
    negotiation = target(MaxBurstLength="65536", FirstBurstLength="65536")
    assert ("MaxBurstLength", "65536") in negotiation.needed_offers()
    negotiation.receive([("MaxBurstLength", "65536")], "operational")
    with pytest.raises(NegotiationError):
        negotiation.receive([("MaxBurstLength", "32768")], "operational")


def test_recovery_in_order_offers_one_outstanding_r2t() -> None:
    # 13.19: "if ErrorRecoveryLevel is not 0 and DataSequenceInOrder is set to Yes, then MaxOutstandingR2T MUST be set
    # to 1": a target that picks the number offered would make a session that cannot be.
    offered = Preferences.of("initiator", {"ErrorRecoveryLevel": "1", "DataSequenceInOrder": "Yes"})
    assert offered.get("MaxOutstandingR2T") == "1"


def test_keys_without_number_are_refused() -> None:
    negotiation = target()
    assert len(answers(negotiation, *((f"X-{n}", "1") for n in range(200)))) == 200
    with pytest.raises(NegotiationError, match="too many keys"):
        answers(negotiation, *((f"X-{n}", "1") for n in range(200, 300)))
