"""Where an initiator's account comes from, in which order, and what is refused before anything is sent."""

from __future__ import annotations

import pytest

from blockwire import errors
from blockwire.auth import Secret
from blockwire.initiator import api
from blockwire.initiator.credentials import credentials
from blockwire.names import Url

A, B, C = "secret-number-1a", "secret-number-2b", "secret-number-3c"
PLAIN = Url.parse("iscsi://h/iqn.2025-01.x:t/0")
FULL = Url.parse(f"iscsi://u%{A}@h/iqn.2025-01.x:t/0?target_user=t&target_password={B}")


def test_nobody_asked() -> None:
    assert credentials(PLAIN, environment={}) is None
    assert credentials(PLAIN, environment={"BLOCKWIRE_CHAP_SECRET": A}) is None


def test_the_url() -> None:
    found = credentials(FULL, environment={"BLOCKWIRE_CHAP_SECRET": C})
    assert found is not None
    assert found.target is not None
    assert (found.account.name, found.account.secret) == ("u", Secret(A.encode()))
    assert (found.target.name, found.target.secret) == ("t", Secret(B.encode()))


def test_arguments_come_before_the_url() -> None:
    found = credentials(FULL, "me", C, environment={})
    assert found is not None
    assert (found.account.name, found.account.secret) == ("me", Secret(C.encode()))
    assert credentials(PLAIN, "me", Secret(C.encode()), environment={}) is not None
    assert credentials(PLAIN, "me", C.encode(), environment={}) is not None


def test_the_environment_as_libiscsi_has_it() -> None:
    environment = {
        "LIBISCSI_CHAP_USERNAME": "u", "LIBISCSI_CHAP_PASSWORD": A,
        "LIBISCSI_CHAP_TARGET_USERNAME": "t", "LIBISCSI_CHAP_TARGET_PASSWORD": B,
    }  # fmt: skip
    found = credentials(PLAIN, environment=environment)
    assert found is not None
    assert found.target is not None
    assert (found.account.secret, found.target.secret) == (Secret(A.encode()), Secret(B.encode()))
    ours = credentials(PLAIN, environment=environment | {"BLOCKWIRE_CHAP_SECRET": C})
    assert ours is not None
    assert ours.account.secret == Secret(C.encode())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("u", "short"), "at least 12"),
        (("u", "x" * 256), "at most 255"),
        (("u", None), "no CHAP secret"),
        ((None, A), "without a user"),
        (("u", A, None, B), "without a user"),
        ((None, None, "t", B), "without a user"),
        (("u", A, "t", A), "share a secret"),
        (("u", A, "t", None), "no CHAP secret"),
        (("u" * 256, A), "1 to 255"),
    ],
)
def test_refused_before_anything_is_sent(arguments: tuple[str | None, ...], said: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=said) as caught:
        credentials(PLAIN, *arguments, environment={})
    assert A not in str(caught.value) + caught.value.evidence + caught.value.next


def test_options_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLOCKWIRE_CHAP_SECRET", raising=False)
    options = api.options(FULL, None, None, None, None, None, None, None, None)
    for shown in (repr(options), str(options), repr(FULL), str(FULL), repr(options.credentials)):
        assert A not in shown
        assert B not in shown
