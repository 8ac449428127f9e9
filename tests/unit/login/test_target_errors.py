"""What a target answers to wrong logins (RFC 7143 sections 4.2.4, 6.3, 11.12 and 11.13)."""

from __future__ import annotations

from typing import Any

import pytest

from blockwire.auth import Account, Secret, TargetAuthentication
from blockwire.login import Admission, LoginFailed, LoginLimits, TargetLogin
from blockwire.negotiate import Preferences
from blockwire.wire import LoginRequest, LoginResponse, NopOut, decode, keys
from blockwire.wire.framing import Deframer
from tests.unit.login.pair import INITIATOR, TARGET, Policy, counter

NAMES = [("InitiatorName", INITIATOR), ("TargetName", TARGET)]
JOE = Account("joe", Secret(b"joes-secret-12"))
GUARDED = Policy(authentication=TargetAuthentication((JOE,)))


def request(pairs: list[tuple[str, str]] | bytes = (), **changes: Any) -> LoginRequest:  # type: ignore[assignment]
    values: dict[str, Any] = {
        "transit": True, "csg": 1, "nsg": 3, "isid": bytes.fromhex("801234560007"), "initiator_task_tag": 1, "cid": 1,
        "data": pairs if isinstance(pairs, bytes) else keys.join_pairs(pairs),
    }  # fmt: skip
    values.update(changes)
    return LoginRequest(**values)


def talk(
    *requests: LoginRequest | bytes, policy: Policy | None = None, **options: Any
) -> tuple[list[LoginResponse], object]:
    target = TargetLogin(policy or Policy(), 0.0, counter(), **options)
    for item in requests:
        target.handle_bytes(item if isinstance(item, bytes) else item.to_bytes(), 0.0)
    deframer = Deframer()
    deframer.feed(target.poll_transmit())
    responses: list[LoginResponse] = []
    while (frame := deframer.next()) is not None:
        response = decode(*frame)
        assert isinstance(response, LoginResponse)
        responses.append(response)
    return responses, target.poll_event()


def pairs_of(response: LoginResponse) -> dict[str, str]:
    return dict(keys.split_pairs(response.data))


@pytest.mark.parametrize(
    ("requests", "status"),
    [
        ([request([])], 0x0207),  # no InitiatorName
        ([request(NAMES[:1])], 0x0207),  # no TargetName in a normal session
        ([request([*NAMES, ("SessionType", "Strange")])], 0x0209),
        ([request([("InitiatorName", INITIATOR), ("TargetName", "iqn.2024-01.x:none")])], 0x0203),
        ([request([("InitiatorName", "not a name"), NAMES[1]])], 0x0200),
        ([request(NAMES, version_min=1, version_max=2)], 0x0205),
        ([request(NAMES, tsih=9)], 0x020A),
        ([request(NAMES, csg=2)], 0x0200),
        ([request(NAMES, csg=3)], 0x0200),
        ([request(NAMES, nsg=1)], 0x0200),
        ([request(NAMES, nsg=2)], 0x0200),
        ([request(NAMES, csg=0, nsg=0)], 0x0200),
        ([request(NAMES, continued=True)], 0x0200),  # T and C
        ([request(b"InitiatorName=x")], 0x0200),  # no null
        ([request(b"nonsense\0")], 0x0200),
        ([request([*NAMES, NAMES[0]])], 0x0200),  # twice
        ([request([*NAMES, ("MaxBurstLength", "5"), ("MaxBurstLength", "5")])], 0x0200),
        ([request([*NAMES, ("SendTargets", "All")])], 0x0200),
        ([request([*NAMES, ("MaxRecvDataSegmentLength", "0")])], 0x0200),
        ([request(NAMES, transit=False), request(transit=False, initiator_task_tag=2)], 0x0200),
        ([request(NAMES, transit=False), request(transit=False, cid=2)], 0x0200),
        ([request(NAMES, transit=False), request(transit=False, isid=bytes(6))], 0x0200),
        ([request(NAMES, transit=False), request(transit=False, csg=0)], 0x0200),
        ([request(NAMES, transit=False), request(NAMES)], 0x0200),  # names again
        ([request(NAMES, transit=False), request([("SessionType", "Discovery")])], 0x0200),
        ([request(NAMES, transit=False), NopOut().to_bytes()], 0x020B),
        ([request([*NAMES, ("AuthMethod", "None")])], 0x0200),  # not in the operational stage
        ([request([*NAMES, ("MaxBurstLength", "4096")], csg=0, nsg=1)], 0x0200),  # not in the security stage
        ([request([*NAMES, ("AuthMethod", "KRB5")], csg=0, nsg=1)], 0x0201),
        ([request([*NAMES, ("CHAP_A", "5")], csg=0, nsg=1)], 0x0200),  # 9.2
    ],
)
def test_refusals(requests: list[LoginRequest | bytes], status: int) -> None:
    responses, event = talk(*requests)
    assert f"{responses[-1].status:04x}" == f"{status:04x}"
    assert not responses[-1].transit
    assert isinstance(event, LoginFailed)


@pytest.mark.parametrize(
    ("requests", "status"),
    [
        ([request(NAMES)], 0x0201),  # skips the security stage
        ([request([*NAMES, ("AuthMethod", "None")], csg=0, nsg=1)], 0x0201),
        (
            [
                request([*NAMES, ("AuthMethod", "CHAP")], csg=0, transit=False),
                request([("CHAP_A", "4")], csg=0, transit=False),
            ],
            0x0201,
        ),
        ([request(NAMES, csg=0, nsg=1), request([("AuthMethod", "Reject")], csg=0, nsg=1)], 0x0201),
        ([request(NAMES, csg=0, nsg=1), request(csg=0, nsg=1)], 0x0201),
    ],
)
def test_refusals_where_chap_is_required(requests: list[LoginRequest | bytes], status: int) -> None:
    responses, event = talk(*requests, policy=GUARDED)
    assert f"{responses[-1].status:04x}" == f"{status:04x}"
    assert isinstance(event, LoginFailed)


SECURITY = {"csg": 0, "transit": False}


@pytest.mark.parametrize(
    ("requests", "status"),
    [
        # 9.2: a step without its keys, or with others, is answered by "Missing Parameter" or "Initiator Error".
        ([request([*NAMES, ("AuthMethod", "CHAP")], **SECURITY), request(**SECURITY)], 0x0207),
        ([request([*NAMES, ("AuthMethod", "CHAP")], **SECURITY), request(csg=0, nsg=1)], 0x0207),
        ([request([*NAMES, ("AuthMethod", "CHAP")], **SECURITY), request([("CHAP_N", "joe")], **SECURITY)], 0x0207),
        ([request([*NAMES, ("AuthMethod", "CHAP"), ("CHAP_A", "5"), ("CHAP_N", "joe")], **SECURITY)], 0x0200),
        *(
            (
                [
                    request([*NAMES, ("AuthMethod", "CHAP")], **SECURITY),
                    request([("CHAP_A", "5")], **SECURITY),
                    request(answer, **changes),
                ],
                status,
            )
            for answer, changes, status in [
                ([], SECURITY, 0x0207),
                ([("CHAP_N", "joe")], SECURITY, 0x0207),
                ([("CHAP_N", "joe"), ("CHAP_I", "1"), ("CHAP_C", "0x00")], {"csg": 0, "nsg": 1}, 0x0207),
                ([("CHAP_N", "joe"), ("CHAP_R", "no number")], SECURITY, 0x0200),
                ([("CHAP_N", "joe"), ("CHAP_R", "0x1234")], {"csg": 0, "nsg": 1}, 0x0201),
            ]
        ),
    ],
)
def test_chap_steps_that_are_not_as_defined(requests: list[LoginRequest], status: int) -> None:
    responses, event = talk(*requests, policy=GUARDED)
    assert len(responses) == len(requests)
    assert f"{responses[-1].status:04x}" == f"{status:04x}"
    assert isinstance(event, LoginFailed)


def test_no_method_in_common_is_answered_by_a_reject() -> None:
    # 6.3.2: "Reject" where the target supports none of the list, here in the Login Response that ends the login (6.2).
    for offered in ("KRB5", "SRP", "KRB5,SRP,SPKM1", "None"):
        responses, event = talk(request([*NAMES, ("AuthMethod", offered)], csg=0, nsg=1), policy=GUARDED)
        assert [f"{response.status:04x}" for response in responses] == ["0201"]
        assert pairs_of(responses[0]) == {"AuthMethod": "Reject"}
        assert isinstance(event, LoginFailed)
    # the first of the list that it supports is taken (6.3.2), whatever stands before it
    responses, _ = talk(request([*NAMES, ("AuthMethod", "KRB5,CHAP,None")], csg=0, nsg=1), policy=GUARDED)
    assert responses[0].status == 0
    assert pairs_of(responses[0])["AuthMethod"] == "CHAP"


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01", NopOut().to_bytes(), b"\x00"])
def test_what_is_no_login_gets_no_answer(junk: bytes) -> None:
    # 4.2.4: before the login phase is started the connection is terminated at once.
    responses, event = talk(junk)
    assert responses == []
    assert isinstance(event, LoginFailed)
    assert event.error.code == "login.not-iscsi"


@pytest.mark.parametrize("length", [8193, 2**24 - 1])
def test_a_long_data_segment_is_refused_at_its_header(length: int) -> None:
    header = bytearray(request(NAMES).encode())
    header[5:8] = length.to_bytes(3, "big")
    _, event = talk(bytes(header))
    assert isinstance(event, LoginFailed)


def test_additional_headers_are_refused() -> None:
    header = bytearray(request(NAMES).encode())
    header[4] = 1
    _, event = talk(bytes(header))
    assert isinstance(event, LoginFailed)


def test_pdu_count_is_bounded() -> None:
    responses, event = talk(
        *[request(NAMES if n == 0 else [], transit=False) for n in range(10)], limits=LoginLimits(pdus=5)
    )
    assert len(responses) == 6
    assert isinstance(event, LoginFailed)
    assert event.error.code == "login.too-long"


def test_stat_sn_and_numbers() -> None:
    responses, _ = talk(
        *[request(NAMES if n == 0 else [], transit=False, cmd_sn=123) for n in range(3)], stat_sn=0xFFFFFFFF
    )
    assert [response.stat_sn for response in responses] == [0xFFFFFFFF, 0, 1]  # 11.13.4, with its wrap
    assert {(response.exp_cmd_sn, response.max_cmd_sn) for response in responses} == {(123, 250)}
    assert {response.tsih for response in responses} == {0}  # 11.13.3: only in the final response


def test_portal_group_tag_comes_with_the_first_answer_to_a_whole_text() -> None:
    # 6.3.1
    whole = keys.join_pairs(NAMES)
    responses, _ = talk(
        request(whole[:10], transit=False, continued=True), request(whole[10:], transit=False), request(transit=False)
    )
    assert responses[0].data == b""  # 6.2: C is answered with no text
    assert pairs_of(responses[1])["TargetPortalGroupTag"] == "1"
    assert "TargetPortalGroupTag" not in pairs_of(responses[2])


def test_the_rfc_example_without_security() -> None:
    # Appendix B, last but one example: one request, one final response.
    responses, event = talk(request([*NAMES, ("MaxBurstLength", "65536")]))
    assert isinstance(event, Admission)
    assert responses == []  # the final response waits for admit()


def test_security_may_be_skipped_when_nothing_is_required() -> None:
    # 6.3.1: T=1, CSG=SecurityNegotiation, NSG=LoginOperationalNegotiation
    responses, _ = talk(request(NAMES, csg=0, nsg=1))
    assert responses[0].transit
    assert (responses[0].csg, responses[0].nsg) == (0, 1)
    assert "AuthMethod" not in pairs_of(responses[0])


def test_the_target_directs_when_the_initiator_proposes_nothing() -> None:
    # 6.3.2, last paragraph
    responses, event = talk(
        request(NAMES, csg=0, nsg=1),
        request([("AuthMethod", "CHAP"), ("CHAP_A", "5")], csg=0, transit=False),
        policy=GUARDED,
    )
    assert pairs_of(responses[0])["AuthMethod"] == "CHAP"
    assert not responses[0].transit
    assert set(pairs_of(responses[1])) == {"CHAP_A", "CHAP_I", "CHAP_C"}
    assert event is None


def test_straight_from_security_to_full_feature() -> None:
    _, event = talk(request([*NAMES, ("AuthMethod", "None")], csg=0, nsg=3))
    assert isinstance(event, Admission)
    # Where a default does not fit, the target selects the operational stage instead (6.3).
    policy = Policy(preferences=Preferences.of("target", {"ImmediateData": "No"}))
    responses, event = talk(request([*NAMES, ("AuthMethod", "None")], csg=0, nsg=3), policy=policy)
    assert event is None
    assert (responses[0].transit, responses[0].nsg) == (True, 1)


def test_own_offers_of_the_target_hold_the_transition_back() -> None:
    policy = Policy(preferences=Preferences.of("target", {"MaxBurstLength": "65536", "FirstBurstLength": "65536"}))
    first = request(NAMES)
    responses, event = talk(first, policy=policy)
    assert not responses[0].transit
    assert pairs_of(responses[0])["MaxBurstLength"] == "65536"
    # The default FirstBurstLength would now be above MaxBurstLength (13.14), so that is offered too.
    responses, event = talk(first, request([("MaxBurstLength", "32768")]), policy=policy)
    assert (event, pairs_of(responses[1])) == (None, {"FirstBurstLength": "32768"})
    _, event = talk(first, request([("MaxBurstLength", "65536")]), policy=policy)
    assert isinstance(event, Admission)
    assert event.parameters.max_burst_length == 65536
