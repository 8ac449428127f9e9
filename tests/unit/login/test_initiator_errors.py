"""What an initiator makes of wrong Login Responses (RFC 7143 sections 6.2, 6.3 and 11.13)."""

from __future__ import annotations

from typing import Any

import pytest

from blockwire.auth import Account, InitiatorCredentials, Secret
from blockwire.errors import AuthenticationError, NegotiationError, ProtocolError, RedirectError
from blockwire.login import InitiatorLogin, LoginFailed
from blockwire.wire import LoginResponse, keys
from tests.unit.login.pair import counter, plan

ISID = bytes(plan().isid)


def response(csg: int, nsg: int = 0, pairs: list[tuple[str, str]] | None = None, **changes: Any) -> LoginResponse:
    values: dict[str, Any] = {
        "transit": bool(nsg), "csg": csg, "nsg": nsg, "isid": ISID, "initiator_task_tag": 0,
        "tsih": 5 if nsg == 3 else 0, "data": keys.join_pairs(pairs or []),
    }  # fmt: skip
    return LoginResponse(**{**values, **changes})


def talk(*responses: LoginResponse, **changes: Any) -> LoginFailed:
    login = InitiatorLogin(plan(**changes), counter())
    login.start(0.0)
    for item in responses:
        login.poll_transmit()
        login.handle_bytes(item.to_bytes(), 0.0)
    event = login.poll_event()
    assert isinstance(event, LoginFailed), event
    return event


def test_a_transition_to_the_stage_that_does_not_exist() -> None:
    # 11.12.3: 2 is no stage.
    failed = talk(response(0, 1), response(1, 2))
    assert isinstance(failed.error, ProtocolError)


@pytest.mark.parametrize("again", ["262144", "4096"])
def test_a_key_that_is_answered_twice(again: str) -> None:
    # 6.3: "an attempt to renegotiate/redeclare parameters … MUST be detected".
    failed = talk(
        response(0, 1),
        response(1, 0, [("MaxBurstLength", "262144")]),
        response(1, 3, [("MaxBurstLength", again)]),
    )
    assert isinstance(failed.error, NegotiationError)
    assert failed.error.key == "MaxBurstLength"


@pytest.mark.parametrize("nsg", [1, 3])
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_target_that_goes_on_without_its_proof(rounds: int, nsg: int) -> None:
    # 9.2, 12.1.3: with mutual CHAP the target has to answer, at whatever step it would like to go on
    credentials = InitiatorCredentials(
        Account("joe", Secret(b"joes-secret-12")), Account("disk", Secret(b"disks-secret-1"))
    )
    steps = [
        response(0, 0, [("AuthMethod", "CHAP")]),
        response(0, 0, [("CHAP_A", "5"), ("CHAP_I", "1"), ("CHAP_C", "0x1234")]),
    ]
    failed = talk(*steps[:rounds], response(0, nsg), credentials=credentials)
    assert isinstance(failed.error, ProtocolError | AuthenticationError)


def test_a_redirect_of_an_unknown_kind_is_a_redirect() -> None:
    # 11.13.5: the class alone is enough to go by.
    failed = talk(response(0, 0, [("TargetAddress", "192.0.2.7:3260")], status_class=1, status_detail=9))
    assert isinstance(failed.error, RedirectError)
    assert failed.error.addresses == ("192.0.2.7:3260",)
    assert not failed.error.permanent
