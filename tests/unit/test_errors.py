"""The error family: codes, culprits, exit codes, wire answers, redaction, pickling."""

from __future__ import annotations

import errno
import pickle

import pytest

import blockwire
from blockwire import errors
from blockwire.wire.constants import LoginStatus

# RFC 7143 section 11.13.5, typed from its table.
LOGIN_STATUS_TABLE = [
    0x0000, 0x0101, 0x0102, 0x0200, 0x0201, 0x0202, 0x0203, 0x0204, 0x0205, 0x0206, 0x0207, 0x0208, 0x0209, 0x020A,
    0x020B, 0x0300, 0x0301, 0x0302,
]  # fmt: skip


def test_login_statuses_are_those_of_the_rfc() -> None:
    assert [int(status) for status in LoginStatus] == LOGIN_STATUS_TABLE


@pytest.mark.parametrize("status", LOGIN_STATUS_TABLE[1:])
def test_every_login_status_maps_both_ways(status: int) -> None:
    error = errors.login_error(status)
    assert errors.login_status(error) == (status >> 8, status & 0xFF)
    assert not error.code.startswith("login.status-")
    assert error.exit_code == 4
    assert error.retryable is (status >> 8 == 3)


def test_an_unknown_detail_of_a_known_class_is_still_an_error() -> None:
    error = errors.login_error(0x02EE)
    assert type(error) is errors.LoginError
    assert error.code == "login.status-02ee"


@pytest.mark.parametrize(
    ("status", "also"), [(0x0201, PermissionError), (0x0202, PermissionError), (0x0203, FileNotFoundError)]
)
def test_leaves_are_the_errors_that_python_knows(status: int, also: type[Exception]) -> None:
    assert isinstance(errors.login_error(status), also)
    assert isinstance(errors.login_error(status), blockwire.Error)


@pytest.mark.parametrize(
    ("cls", "also", "code"),
    [
        (errors.RefusedError, ConnectionRefusedError, 3),
        (errors.TimedOutError, TimeoutError, 3),
        (errors.ConnectionLostError, ConnectionError, 3),
        (errors.ReadOnlyError, PermissionError, 5),
        (errors.NothingFoundError, FileNotFoundError, 7),
        (errors.DataDiffersError, OSError, 6),
        (errors.UsageError, OSError, 2),
        (errors.ConfigurationError, OSError, 2),
    ],
)
def test_exit_codes(cls: type[errors.Error], also: type[Exception], code: int) -> None:
    error = cls("m")
    assert isinstance(error, also)
    assert errors.exit_code(error) == code
    assert str(error) == "m"


def test_exit_codes_of_strangers() -> None:
    assert errors.exit_code(KeyboardInterrupt()) == 130
    assert errors.exit_code(ValueError()) == 1


@pytest.mark.parametrize(
    "error",
    [
        errors.login_error(0x0201, "no", evidence="e", next="n"),
        errors.login_error(0x0101, addresses=("[::1]:3260",)),
        errors.ProtocolError("p", 9),
        errors.NegotiationError("n", key="MaxBurstLength"),
        errors.DeviceError("d", sense_key=5, asc=0x21, sense=b"\x70"),
        errors.ForkedError(),
        errors.Error("plain", code="x.y", whose="device"),
    ],
)
def test_errors_pickle(error: errors.Error) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.__dict__ == error.__dict__
    assert copy.errno == error.errno
    assert str(copy) == str(error)


@pytest.mark.parametrize(
    "text",
    [
        "cannot parse iscsi://joe%hunter2/@hunter2@host/iqn.2024-01.a:b",
        "joe%hunter2@host",
        "evidence 'iscsi://joe%hunter2@[::1]:3260/'",
        "?target_user=bob&target_password=hunter2&x",
        "CHAP_R=hunter2 CHAP_N=joe",
    ],
)
def test_secrets_never_survive(text: str) -> None:
    error = errors.Error(text, evidence=text, next=text)
    shown = f"{error} {error!r} {error.to_json()} {error.args} {error.__dict__}"
    assert "hunter2" not in shown
    assert "***" in shown


def test_to_json_has_the_fields_of_the_interface() -> None:
    assert errors.login_error(0x0203).to_json() == {
        "error": {
            "code": "target.not-found",
            "whose": "user",
            "message": "there is no such target at this address",
            "evidence": "login status 0203",
            "next": "list the targets with `blockwire discover`",
        }
    }


def test_wire_answers() -> None:
    assert errors.login_status(errors.ProtocolError()) == (2, 0)
    assert errors.login_status(ValueError()) == (3, 0)
    assert errors.login_status(errors.ResourceError()) == (3, 2)
    assert errors.reject_reason(errors.ProtocolError("", 0x09)) == 0x09
    assert errors.sense(OSError(errno.ENOSPC, "full")) == (7, 0x27, 7)
    assert errors.sense(errors.ReadOnlyError()) == (7, 0x27, 0)
    assert errors.sense(ValueError()) == (4, 0x44, 0)


def test_from_os_error() -> None:
    error = errors.from_os_error(ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "connect to x")
    assert isinstance(error, errors.RefusedError)
    assert error.errno == errno.ECONNREFUSED
    assert isinstance(error.__cause__, ConnectionRefusedError)


def test_redaction_takes_a_password_whole_and_leaves_what_is_redacted() -> None:
    assert errors.redact("?target_user=a&target_password=one,two&x=1") == "?target_user=a&target_password=***&x=1"
    shown = "blockwire ls 'iscsi://h/iqn.2024-01.com.example:d?target_password=***'"
    assert errors.redact(shown) == shown
