"""Both ends of a login against each other (RFC 7143 section 6.3)."""

from __future__ import annotations

import pytest

from blockwire.auth import MD5_ONLY, Account, InitiatorCredentials, Secret, TargetAuthentication
from blockwire.errors import AuthenticationError, Error, RedirectError, TargetNotFoundError, login_error
from blockwire.login import (
    Action,
    ExistingSession,
    InitiatorLogin,
    LoginDone,
    LoginFailed,
    LoginLimits,
    TargetLogin,
)
from blockwire.names import Isid
from blockwire.negotiate import Parameters, Preferences
from tests.unit.login.pair import INITIATOR, TARGET, Ended, Policy, counter, plan, run

JOE = Account("joe", Secret(b"joes-secret-12"))
DISK = Account("disk", Secret(b"disks-secret-1"))


def log_in(policy: Policy | None = None, limits: LoginLimits | None = None, **changes: object) -> Ended:
    return run(
        InitiatorLogin(plan(**changes), counter(), limits=limits),
        TargetLogin(policy or Policy(), 0.0, counter(1000), limits=limits),
    )


def results(ended: Ended) -> tuple[LoginDone, LoginDone]:
    assert isinstance(ended.initiator, LoginDone), ended.initiator
    assert isinstance(ended.target, LoginDone), ended.target
    return ended.initiator, ended.target


def failures(ended: Ended) -> tuple[LoginFailed, LoginFailed]:
    assert isinstance(ended.initiator, LoginFailed), ended.initiator
    assert isinstance(ended.target, LoginFailed), ended.target
    return ended.initiator, ended.target


def test_both_ends_agree() -> None:
    initiator, target = results(log_in())
    left, right = initiator.result, target.result
    assert left.parameters == right.parameters
    assert left.parameters.target_max_recv_data_segment_length == 262144
    assert (left.tsih, left.cid, left.isid, left.portal_group_tag) == (77, 1, Isid.from_random(0x123456, 7), 1)
    assert left.target_alias == "Disk One"
    assert (left.cmd_sn, left.max_cmd_sn, left.stat_sn) == (right.cmd_sn, right.max_cmd_sn, right.stat_sn)
    assert left.max_cmd_sn - left.cmd_sn + 1 == 128
    assert right.initiator_name == INITIATOR
    assert right.target_name == TARGET
    assert right.action is Action.NEW_SESSION


def test_mutual_chap() -> None:
    policy = Policy(authentication=TargetAuthentication((JOE,), DISK))
    initiator, target = results(log_in(policy, credentials=InitiatorCredentials(JOE, DISK)))
    assert initiator.result.target_authenticated
    assert target.result.target_authenticated
    assert target.result.authenticated_as == initiator.result.authenticated_as == "joe"


def test_one_way_chap_and_a_target_that_asks_nothing() -> None:
    policy = Policy(authentication=TargetAuthentication((JOE,), DISK))
    _, target = results(log_in(policy, credentials=InitiatorCredentials(JOE)))
    assert target.result.authenticated_as == "joe"
    assert not target.result.target_authenticated
    _, target = results(log_in(credentials=InitiatorCredentials(JOE)))
    assert target.result.authenticated_as == ""


def test_an_initiator_that_wants_proof_does_not_do_without() -> None:
    initiator, _ = failures(log_in(credentials=InitiatorCredentials(JOE, DISK)))
    assert isinstance(initiator.error, AuthenticationError)


def test_wrong_secret() -> None:
    policy = Policy(authentication=TargetAuthentication((JOE,)))
    wrong = InitiatorCredentials(Account("joe", Secret(b"wrong-secret-xx")))
    initiator, target = failures(log_in(policy, credentials=wrong))
    assert isinstance(initiator.error, AuthenticationError)
    assert isinstance(target.error, AuthenticationError)
    assert not initiator.retry_with_md5


def test_no_credentials_where_they_are_required() -> None:
    initiator, _ = failures(log_in(Policy(authentication=TargetAuthentication((JOE,)))))
    assert isinstance(initiator.error, AuthenticationError)


def test_a_target_that_chokes_on_the_algorithm_list_is_retried_with_md5() -> None:
    policy = Policy(authentication=TargetAuthentication((JOE,)))
    credentials = InitiatorCredentials(JOE)
    for algorithms, retry in (((8, 5), True), (MD5_ONLY, False)):
        login = InitiatorLogin(plan(credentials=credentials, algorithms=algorithms), counter())
        target = TargetLogin(policy, 0.0, counter(1000))
        login.start(0.0)
        target.handle_bytes(login.poll_transmit(), 0.0)
        login.handle_bytes(target.poll_transmit(), 0.0)
        assert b"CHAP_A" in login.poll_transmit()
        target.refuse(login_error(0x0201))
        login.handle_bytes(target.poll_transmit(), 0.0)
        event = login.poll_event()
        assert isinstance(event, LoginFailed)
        assert event.retry_with_md5 is retry


def test_a_target_without_room_for_a_long_response_is_retried_with_md5() -> None:
    # tgt 1.0.85 picks SHA-256 and answers the response with 0200.
    policy = Policy(authentication=TargetAuthentication((JOE,)))
    for status, retry in ((0x0200, True), (0x0201, False)):
        login = InitiatorLogin(plan(credentials=InitiatorCredentials(JOE)), counter())
        target = TargetLogin(policy, 0.0, counter(1000))
        login.start(0.0)
        for _ in range(2):
            target.handle_bytes(login.poll_transmit(), 0.0)
            login.handle_bytes(target.poll_transmit(), 0.0)
        assert b"CHAP_R" in login.poll_transmit()
        target.refuse(login_error(status))
        login.handle_bytes(target.poll_transmit(), 0.0)
        event = login.poll_event()
        assert isinstance(event, LoginFailed)
        assert event.retry_with_md5 is retry


def test_challenges_do_not_stay_outstanding() -> None:
    policy = Policy(authentication=TargetAuthentication((JOE,), DISK))
    left, right = set[bytes](), set[bytes]()
    wrong = InitiatorCredentials(Account("joe", Secret(b"wrong-secret-xx")), DISK)
    run(InitiatorLogin(plan(credentials=wrong), counter(), left), TargetLogin(policy, 0.0, counter(9), right))
    assert not left
    assert not right


def test_discovery() -> None:
    initiator, target = results(log_in(session_type="Discovery", target_name=""))
    assert initiator.result.discovery
    assert target.result.discovery
    assert initiator.result.parameters == target.result.parameters
    assert initiator.result.parameters.error_recovery_level == 0


def test_unknown_target() -> None:
    initiator, _ = failures(log_in(target_name="iqn.2024-01.com.example:none"))
    assert isinstance(initiator.error, TargetNotFoundError)


@pytest.mark.parametrize(("status", "permanent"), [(0x0101, False), (0x0102, True)])
def test_redirect(status: int, permanent: bool) -> None:
    policy = Policy(error=login_error(status, addresses=("10.0.0.1:3260", "[::1]:3261")))
    initiator, _ = failures(log_in(policy))
    assert isinstance(initiator.error, RedirectError)
    assert initiator.error.addresses == ("10.0.0.1:3260", "[::1]:3261")
    assert initiator.error.permanent is permanent


@pytest.mark.parametrize("status", [0x0202, 0x0203, 0x0204, 0x0209, 0x0300, 0x0301, 0x0302])
def test_every_refusal_of_the_policy_arrives(status: int) -> None:
    initiator, _ = failures(log_in(Policy(error=login_error(status))))
    assert isinstance(initiator.error, Error)
    assert getattr(initiator.error, "status", None) == status


SESSION = ExistingSession(
    tsih=5,
    parameters=Parameters(max_connections=2, max_burst_length=4096, first_burst_length=4096, error_recovery_level=2),
    cids=frozenset({1}), exp_cmd_sn=500, max_cmd_sn=600,
)  # fmt: skip


def test_a_further_connection() -> None:
    policy = Policy(session=SESSION)
    ended = run(
        InitiatorLogin(plan(tsih=5, cid=2, session=SESSION.parameters, cmd_sn=500), counter()),
        TargetLogin(policy, 0.0, counter(1000)),
        tsih=5,
    )
    initiator, target = results(ended)
    assert target.result.action is Action.ADD_CONNECTION
    assert initiator.result.parameters == target.result.parameters
    assert initiator.result.parameters.max_burst_length == 4096
    assert (target.result.cmd_sn, target.result.max_cmd_sn) == (500, 600)
    assert initiator.result.max_cmd_sn == 600


@pytest.mark.parametrize(
    ("changes", "there"),
    [({}, True), ({"tsih": 5, "cid": 2, "session": SESSION.parameters}, False)],
)
def test_session_type_goes_with_the_leading_login_alone(changes: dict[str, object], there: bool) -> None:
    """13.21, Use: LO. Linux's target refuses a further login that names it."""
    login = InitiatorLogin(plan(**changes), counter())
    login.start(0.0)
    assert (b"SessionType=Normal\0" in login.poll_transmit()) is there


def test_connection_and_session_reinstatement() -> None:
    policy = Policy(session=SESSION)
    login = InitiatorLogin(plan(tsih=5, cid=1, session=SESSION.parameters, reinstate=True, exp_stat_sn=9), counter())
    ended = run(login, TargetLogin(policy, 0.0, counter()), tsih=5)
    assert ended.admissions[0].action is Action.REINSTATE_CONNECTION
    assert ended.admissions[0].exp_stat_sn == 9
    ended = run(InitiatorLogin(plan(), counter()), TargetLogin(policy, 0.0, counter()))
    assert ended.admissions[0].action is Action.REINSTATE_SESSION


@pytest.mark.parametrize(
    ("session", "changes", "status"),
    [
        (None, {"tsih": 5, "cid": 2, "session": SESSION.parameters}, 0x020A),
        (SESSION, {"tsih": 6, "cid": 2, "session": SESSION.parameters}, 0x020A),
        (
            ExistingSession(5, Parameters(max_connections=1), frozenset({1})),
            {"tsih": 5, "cid": 2, "session": SESSION.parameters},
            0x0206,
        ),
    ],
)
def test_sessions_that_cannot_be_joined(
    session: ExistingSession | None, changes: dict[str, object], status: int
) -> None:
    initiator, _ = failures(log_in(Policy(session=session), **changes))
    assert getattr(initiator.error, "status", None) == status


def test_admission_can_be_refused() -> None:
    login, target = InitiatorLogin(plan(), counter()), TargetLogin(Policy(), 0.0, counter())
    login.start(0.0)
    for _ in range(4):
        target.handle_bytes(login.poll_transmit(), 0.0)
        if target.poll_event() is not None:
            target.refuse(login_error(0x0302))
        login.handle_bytes(target.poll_transmit(), 0.0)
    event = login.poll_event()
    assert isinstance(event, LoginFailed)
    assert getattr(event.error, "status", None) == 0x0302


def test_over_read_bytes_are_handed_on() -> None:
    login, target = InitiatorLogin(plan(), counter()), TargetLogin(Policy(), 0.0, counter())
    login.start(0.0)
    target.handle_bytes(login.poll_transmit(), 0.0)
    login.handle_bytes(target.poll_transmit(), 0.0)
    target.handle_bytes(login.poll_transmit() + b"first command", 0.0)
    target.poll_event()
    target.admit(1)
    done = target.poll_event()
    assert isinstance(done, LoginDone)
    assert done.result.over_read == b"first command"
    login.handle_bytes(target.poll_transmit() + b"nop", 0.0)
    done = login.poll_event()
    assert isinstance(done, LoginDone)
    assert done.result.over_read == b"nop"


def test_long_texts_use_the_c_bit_both_ways() -> None:
    # 200 keys that nobody understands: both texts are longer than the 8192 bytes of a login PDU.
    keys = {f"X-com.example.key-{number:03}{'x' * 20}": "y" * 200 for number in range(60)}
    initiator, target = results(log_in(preferences=Preferences.of("initiator", keys)))
    assert initiator.result.parameters == target.result.parameters


def test_too_much_text() -> None:
    keys = {f"X-com.example.key-{number:03}": "y" * 250 for number in range(300)}
    ended = log_in(preferences=Preferences.of("initiator", keys))
    assert isinstance(ended.target, LoginFailed)
    assert ended.target.error.code == "login.too-long"
    assert isinstance(ended.initiator, LoginFailed)


def test_deadlines() -> None:
    login, target = (
        InitiatorLogin(plan(), counter()),
        TargetLogin(Policy(), 100.0, counter(), limits=LoginLimits(seconds=5)),
    )
    login.start(100.0)
    assert (login.deadline, target.deadline) == (130.0, 105.0)
    target.handle_timeout(104.9)
    assert target.poll_event() is None
    target.handle_timeout(105.0)
    event = target.poll_event()
    assert isinstance(event, LoginFailed)
    assert isinstance(event.error, TimeoutError)
    assert target.deadline is None
    login.handle_eof(101.0)
    event = login.poll_event()
    assert isinstance(event, LoginFailed)
    assert isinstance(event.error, ConnectionError)
