"""Login properties: any fragmentation, any pair of offers, any bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from blockwire.auth import Account, InitiatorCredentials, OutstandingChallenges, Secret, TargetAuthentication
from blockwire.errors import ConfigurationError, Error
from blockwire.login import Admission, InitiatorLogin, LoginDone, LoginFailed, TargetLogin
from blockwire.negotiate import KEYS, Function, Preferences
from blockwire.negotiate.rules import broken_rules
from blockwire.wire import LoginRequest, LoginResponse, keys
from tests.unit.login.pair import INITIATOR, TARGET, Policy, counter, plan, run

JOE = Account("joe", Secret(b"joes-secret-12"))
DISK = Account("disk", Secret(b"disks-secret-1"))


def value_of(name: str) -> st.SearchStrategy[str]:
    key = KEYS[name]
    if key.kind == "boolean":
        return st.sampled_from(["Yes", "No"])
    if key.function is Function.FIRST:
        return st.sampled_from(["None", "CRC32C", "None,CRC32C", "CRC32C,None"])
    return st.one_of(st.sampled_from([key.low, key.high]), st.integers(key.low, key.high)).map(str)


OPERATIONAL = [
    "HeaderDigest", "DataDigest", "MaxConnections", "InitialR2T", "ImmediateData", "MaxRecvDataSegmentLength",
    "MaxBurstLength", "FirstBurstLength", "DefaultTime2Wait", "DefaultTime2Retain", "MaxOutstandingR2T",
    "DataPDUInOrder", "DataSequenceInOrder", "ErrorRecoveryLevel",
]  # fmt: skip
OFFERS = st.fixed_dictionaries({}, optional={name: value_of(name) for name in OPERATIONAL})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.booleans())
def test_any_fragmentation_gives_the_same_login(sizes: list[int], chap: bool) -> None:
    policy = Policy(authentication=TargetAuthentication((JOE,), DISK) if chap else TargetAuthentication(required=False))
    credentials = InitiatorCredentials(JOE, DISK) if chap else None

    def ends() -> tuple[InitiatorLogin, TargetLogin]:
        return InitiatorLogin(plan(credentials=credentials), counter()), TargetLogin(policy, 0.0, counter(1000))

    whole, pieces = run(*ends()), run(*ends(), sizes=iter(sizes))
    assert isinstance(whole.initiator, LoginDone)
    assert whole.initiator == pieces.initiator
    assert whole.target == pieces.target


def test_every_single_cut_of_a_login_ends_it_cleanly() -> None:
    """A login that stops after any number of bytes fails at the end of the stream and holds nothing back."""
    policy = Policy(authentication=TargetAuthentication((JOE,), DISK))
    login = InitiatorLogin(plan(credentials=InitiatorCredentials(JOE, DISK)), counter())
    total = run(login, TargetLogin(policy, 0.0, counter(1000))).exchanged
    assert total > 1000
    first = InitiatorLogin(plan(), counter())
    first.start(0.0)
    stream = first.poll_transmit()
    for cut in range(len(stream)):
        target = TargetLogin(Policy(), 0.0, counter())
        target.handle_bytes(stream[:cut], 0.0)
        assert target.poll_event() is None
        target.handle_eof(0.0)
        assert isinstance(target.poll_event(), LoginFailed)


@settings(max_examples=300, deadline=None)
@given(OFFERS, OFFERS)
def test_every_pair_of_offers_ends_in_agreement_or_a_clear_error(
    offered: dict[str, str], wanted: dict[str, str]
) -> None:
    try:
        left, right = Preferences.of("initiator", offered), Preferences.of("target", wanted)
    except ConfigurationError:
        return  # the keys of one side cannot stand together; nothing is offered
    ended = run(
        InitiatorLogin(plan(preferences=left), counter()), TargetLogin(Policy(preferences=right), 0.0, counter(1000))
    )
    if isinstance(ended.initiator, LoginFailed):
        # Only a digest that one side requires and the other refuses cannot be agreed on.
        refused = [
            name
            for name in ("HeaderDigest", "DataDigest")
            if not set(offered.get(name, "None").split(",")) & set(wanted.get(name, "None,CRC32C").split(","))
        ]
        assert refused, (ended.initiator.error, ended.initiator.error.evidence)
        return
    assert isinstance(ended.initiator, LoginDone)
    assert isinstance(ended.target, LoginDone)
    result = ended.initiator.result.parameters
    assert result == ended.target.result.parameters
    assert broken_rules(result) == []
    for name in OPERATIONAL:
        key = KEYS[name]
        if key.field is None or name not in offered or name not in wanted:
            continue
        got = getattr(result, key.field)
        assert key.admissible(key.parse(dict(left.values)[name]), got)
        if key.function is not Function.FIRST:
            assert key.admissible(key.parse(dict(right.values)[name]), got)


def drive(target: TargetLogin, chunks: list[bytes]) -> None:
    for chunk in chunks:
        target.handle_bytes(chunk, 0.0)
        event = target.poll_event()
        if isinstance(event, Admission):
            target.admit(1)
        elif event is not None:
            assert isinstance(event, LoginFailed | LoginDone)
            if isinstance(event, LoginFailed):
                assert isinstance(event.error, Error)
            break
    assert len(target.poll_transmit()) < 1 << 20


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=6))
def test_random_bytes_never_break_the_target(chunks: list[bytes]) -> None:
    drive(TargetLogin(Policy(), 0.0, counter()), chunks)
    drive(TargetLogin(Policy(), 0.0, counter()), [b"\x43", *chunks])


KEY_TEXT = st.lists(
    st.tuples(
        st.sampled_from([*KEYS, "X-com.example.a", "Nonsense", "iqn"]),
        st.one_of(
            st.sampled_from(["Yes", "No", "None", "Reject", "Irrelevant", "NotUnderstood", "CHAP", "5", "0x", "0b==",
                             INITIATOR, TARGET, "Discovery", "512", "16777216", "1~2", "", ","]),
            st.text(max_size=20).filter(lambda text: "\0" not in text),
        ),
    ),
    max_size=6,
)  # fmt: skip


@st.composite
def login_requests(draw: st.DrawFn) -> bytes:
    pairs = draw(KEY_TEXT)
    if draw(st.booleans()):
        pairs = [("InitiatorName", INITIATOR), ("TargetName", TARGET), *pairs]
    fields: dict[str, Any] = {
        "transit": draw(st.booleans()), "continued": draw(st.sampled_from([False, False, False, True])),
        "csg": draw(st.sampled_from([0, 0, 1, 1, 2, 3])), "nsg": draw(st.sampled_from([0, 1, 3, 3])),
        "tsih": draw(st.sampled_from([0, 0, 0, 1])),
    }  # fmt: skip
    data = keys.join_pairs([(name, text.encode("utf-8", "replace").decode()) for name, text in pairs])
    return LoginRequest(isid=bytes(6), initiator_task_tag=0, data=data[:8000], **fields).to_bytes()


@settings(max_examples=500, deadline=None)
@given(st.lists(login_requests(), min_size=1, max_size=8), st.booleans())
def test_random_login_requests_never_break_the_target(requests: list[bytes], guarded: bool) -> None:
    policy = Policy(
        authentication=TargetAuthentication((JOE,), DISK) if guarded else TargetAuthentication(required=False)
    )
    drive(TargetLogin(policy, 0.0, counter()), requests)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=4), st.integers(0, 400), st.integers(0, 7))
def test_a_target_gone_wild_never_breaks_the_initiator(chunks: list[bytes], position: int, bit: int) -> None:
    login, target = InitiatorLogin(plan(), counter()), TargetLogin(Policy(), 0.0, counter())
    login.start(0.0)
    target.handle_bytes(login.poll_transmit(), 0.0)
    answer = bytearray(target.poll_transmit())
    answer[position % len(answer)] ^= 1 << bit
    for chunk in [bytes(answer), *chunks]:
        login.handle_bytes(chunk, 0.0)
        login.poll_transmit()
        event = login.poll_event()
        if event is not None:
            assert isinstance(event, LoginFailed | LoginDone)
            return


@st.composite
def login_responses(draw: st.DrawFn) -> LoginResponse:
    pairs = [(name, text.encode("utf-8", "replace").decode()) for name, text in draw(KEY_TEXT)]
    proper = draw(st.sampled_from([
        [], [("AuthMethod", "CHAP")], [("AuthMethod", "None")],
        [("CHAP_A", "5"), ("CHAP_I", "1"), ("CHAP_C", "0x" + "ab" * 16)],
        [("CHAP_N", "disk"), ("CHAP_R", "0x" + "cd" * 16)], [("TargetPortalGroupTag", "1")],
    ]))  # fmt: skip
    return LoginResponse(
        transit=draw(st.booleans()), continued=draw(st.sampled_from([False, False, False, True])),
        csg=draw(st.sampled_from([0, 0, 1, 1, 2, 3])), nsg=draw(st.integers(0, 3)), isid=bytes(plan().isid),
        tsih=draw(st.sampled_from([0, 1])), initiator_task_tag=0,
        status_class=draw(st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4])), status_detail=draw(st.integers(0, 12)),
        data=keys.join_pairs([*proper, *(pairs if draw(st.booleans()) else [])])[:8000],
    )  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    st.lists(login_responses(), min_size=1, max_size=8),
    st.sampled_from([None, InitiatorCredentials(JOE), InitiatorCredentials(JOE, DISK)]),
)
def test_random_login_responses_never_break_the_initiator(
    responses: list[LoginResponse], credentials: InitiatorCredentials | None
) -> None:
    outstanding = OutstandingChallenges()
    login = InitiatorLogin(plan(credentials=credentials), counter(), outstanding)
    login.start(0.0)
    stage = 0
    for response in responses:
        assert len(login.poll_transmit()) < 1 << 16
        # Mostly in the stage that the login is in, so that it gets somewhere.
        given_stage = replace(response, csg=stage) if response.csg < 2 else response
        login.handle_bytes(given_stage.to_bytes(), 0.0)
        event = login.poll_event()
        if isinstance(event, LoginFailed):
            assert isinstance(event.error, Error)
        if isinstance(event, LoginDone):
            # Nobody gets in who had to prove himself and did not.
            assert credentials is None or credentials.target is None
        if event is not None:
            assert not outstanding
            return
        stage = 1 if response.transit and response.nsg == 1 else stage
