"""What users get wrong about the protocol's own features, one line each: the exit code, the cause, what to do next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

import blockwire
from blockwire import errors
from blockwire.cli.main import run

GOOD, OTHER = "abcdefghijklmnop", "zyxwvutsrqponmlk"
SECRETS = {"good": GOOD, "other": OTHER, "short": "elevenbytes", "long": "x" * 256, "empty": ""}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with secrets, good and bad."""
    path = tmp_path_factory.mktemp("secrets")
    for name, text in (*SECRETS.items(), ("readable", GOOD)):
        (path / name).write_text(text)
        (path / name).chmod(0o644 if name == "readable" else 0o600)
    return path


class Fails(Protocol):
    """Runs a command that fails."""

    def __call__(self, *words: str) -> tuple[int, dict[str, str]]:
        """Exit code and error, which is one JSON object and nothing else; no secret stands in it."""


@pytest.fixture
def fails(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fails:
    for name in ("BLOCKWIRE_CHAP_SECRET", "BLOCKWIRE_CHAP_MUTUAL_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(place)

    def call(*words: str) -> tuple[int, dict[str, str]]:
        code = run([*words, "--json"])
        said = capsys.readouterr()
        assert said.out == ""
        assert not any(text in said.err for text in SECRETS.values() if len(text) > 8), said.err
        error: dict[str, str] = json.loads(said.err)["error"]
        assert error["message"], error
        assert "\n" not in error["message"], error
        assert error["next"], error
        return code, error

    return call


CHAP = ("--chap-user", "lab", "--chap-secret-file")
MUTUAL = ("--chap-mutual-user", "disk", "--chap-mutual-secret-file")

CONFIGURATION = [
    ((*CHAP, "short"), "at least 12 bytes", "blockwire secret"),
    ((*CHAP, "long"), "at most 255 bytes", "12 to 16"),
    ((*CHAP, "empty"), "is empty", "12 to 255"),
    ((*CHAP, "readable"), "readable can be read by others", "chmod 600 readable"),
    ((*CHAP, "none"), "cannot read the secret file none", "check the path"),
    (("--chap-user", "lab"), "CHAP", "file"),
    (("--chap-secret-file", "good"), "without a user", "--chap-user"),
    ((*MUTUAL, "other"), "without", "--chap-user"),
    ((*CHAP, "good", "--chap-mutual-user", "disk"), "CHAP", "file"),
    ((*CHAP, "good", *MUTUAL, "good"), "share a secret", "of its own"),
    ((*CHAP, "good", "--chap-secret-command", "echo x"), "", "one"),
    (("--chap-user", "lab", "--chap-secret-command", "false"), "the secret command false failed", "by hand"),
    (("--key", "MaxConnections=0"), "MaxConnections=0 is not possible", "13.2"),
    (("--key", "MaxConnections=65536"), "MaxConnections=65536 is not possible", "13.2"),
    (("--key", "ErrorRecoveryLevel=3"), "ErrorRecoveryLevel=3 is not possible", "13.20"),
    (("--key", "HeaderDigest=CRC64"), "HeaderDigest=CRC64 is not possible", "13.1"),
    (("--key", "MaxRecvDataSegmentLength=511"), "=511 is not possible", "13.12"),
    (("--key", "InitialR2T=maybe"), "InitialR2T=maybe is not possible", "13.10"),
    (("--key", "iSCSIProtocolLevel=77"), "=77 is not possible", "7144"),
    (("--key", "MaxBurstLenght=65536"), "unknown key 'MaxBurstLenght'", "did you mean MaxBurstLength?"),
    (("--key", "MaxBurstLength"), "not NAME=VALUE", "--key MaxBurstLength="),
    (("--key", "OFMarker=Yes"), "OFMarker is obsolete", "leave it out"),
    (("--key", "SendTargets=All"), "SendTargets cannot be set", "leave it out"),
    (("--key", "InitiatorName=joe"), "InitiatorName is not set by a key", "--initiator-name"),
    (("--rate", "fast"), "--rate", "--help"),
    (("--keep-alive-interval", "soon"), "--keep-alive-interval", "--help"),
    (("--keep-alive-timeout", "0"), "--keep-alive-timeout", "--help"),
]
"""Flags that both roles take, what the message says, what the advice says."""


@pytest.mark.parametrize(
    "command", [("serve", "ram:1M", "-p", "127.0.0.1:0"), ("info", "127.0.0.1:1/iqn.2025-01.x:t/0")]
)
@pytest.mark.parametrize(
    ("words", "said", "following"),
    CONFIGURATION,
    ids=lambda value: "_".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_what_cannot_work_is_said_before_anything_happens(
    fails: Fails, command: tuple[str, ...], words: tuple[str, ...], said: str, following: str
) -> None:
    code, error = fails(*command, *words)
    assert code == 2, error
    assert error["whose"] == "user"
    assert said in error["message"], error
    assert following in error["next"], error


@pytest.mark.parametrize(
    ("words", "said", "following"),
    [
        (("--quirk", "lio"), "no quirk is called 'lio'", "reassign-lun, reassign-answer"),
        (("--key", "TaskReporting=FastAbort"), "TaskReporting=FastAbort is not possible", "13.23"),
        (
            ("--key", "ErrorRecoveryLevel=2", "--key", "DataSequenceInOrder=Yes", "--key", "MaxOutstandingR2T=8"),
            "MaxOutstandingR2T=8 cannot be offered", "can be 1 at most",
        ),
        (
            ("--key", "FirstBurstLength=262144", "--key", "MaxBurstLength=65536"),
            "FirstBurstLength=262144 cannot be offered", "65536 at most",
        ),
    ],
    ids=lambda value: "_".join(value)[:60] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_an_initiator_cannot_offer(fails: Fails, words: tuple[str, ...], said: str, following: str) -> None:
    code, error = fails("info", "127.0.0.1:1/iqn.2025-01.x:t/0", *words)
    assert code == 2, error
    assert said in error["message"], error
    assert following in error["next"], error


@pytest.mark.parametrize(
    ("query", "following"),
    [
        ("quirks=lio", "reassign-lun, reassign-answer"),
        ("rate=fast", "100M"),
        ("keep_alive_interval=soon", "keep_alive_interval=5"),
        ("header_digest=maybe", "none or crc32c"),
        ("maxconnections=4", "RFC 7143 keys"),
        ("MaxConnections=4&MaxConnections=2", "in quotes"),
    ],
)
def test_what_a_url_cannot_say(fails: Fails, query: str, following: str) -> None:
    code, error = fails("info", f"127.0.0.1:1/iqn.2025-01.x:t/0?{query}")
    assert code == 2, error
    assert following in error["next"], error


@pytest.fixture(scope="module")
def guarded() -> Iterator[blockwire.Target]:
    """A target that asks for CHAP and cannot prove itself."""
    with blockwire.Target("ram:1M", chap_user="lab", chap_secret=GOOD) as target:
        yield target


@pytest.mark.parametrize(
    ("words", "following"),
    [
        ((), "give a user and a secret"),
        ((*CHAP, "other"), "check the CHAP user and secret"),
        (("--chap-user", "nobody", "--chap-secret-file", "good"), "check the CHAP user and secret"),
        ((*CHAP, "good", *MUTUAL, "other"), "check the CHAP user and secret"),
    ],
    ids=["nothing", "wrong secret", "wrong user", "mutual"],
)
def test_who_is_refused_at_login(
    guarded: blockwire.Target, fails: Fails, words: tuple[str, ...], following: str
) -> None:
    code, error = fails("info", guarded.url, *words)
    assert (code, error["code"]) == (4, "login.authentication-failure")
    assert "login status 0201" in error["evidence"]
    assert following in error["next"]


def test_read_only_creates_nothing(place: Path, fails: Fails) -> None:
    for words in ((), ("--size", "1M")):
        code, error = fails("serve", "missing.img", "-r", *words, "-p", "127.0.0.1:0")
        assert code == 2
        assert "missing.img: does not exist, and read-only creates nothing" in error["message"]
        assert "--size" not in error["next"]
        assert not (place / "missing.img").exists()
    _, error = fails("serve", "missing.img", "-p", "127.0.0.1:0")
    assert error["next"] == "create it with --size SIZE"


def test_more_connections_than_the_target_grants() -> None:
    """A larger offer is no error: what both can do is negotiated. Asking for one more afterwards is."""
    with (
        blockwire.Target("ram:1M", keys={"MaxConnections": "2"}) as target,
        blockwire.open(target.url + "?MaxConnections=4") as lun,
    ):
        assert lun.session.keys["MaxConnections"] == "2"
        assert len(lun.session.cids) == 2
        with pytest.raises(errors.UsageError, match="has 2 connections and may have 2") as caught:
            lun.session.add_connection()
        assert caught.value.next == "negotiate more with MaxConnections"
