"""Accounts and secrets of a configuration: where they come from, what is refused, that nothing shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockwire import errors
from blockwire.auth import Secret
from blockwire.config import arguments, authentication, document, secrets
from blockwire.config.authentication import AccountConfig, AuthenticationConfig, IdentityConfig, chap
from blockwire.names import Portal

NAME = "iqn.2024-01.com.example:disk"
SECRET = "a-secret-of-16-b"
OTHER = "another-secret-1"


def kept(path: Path, text: str | bytes, mode: int = 0o600) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (SECRET + "\n", SECRET.encode()),
        (SECRET + "\r\n", SECRET.encode()),
        ("0x" + "00ff" * 6, b"\x00\xff" * 6),
        ("0bAAECAwQFBgcICQoL", bytes(range(12))),
        (b"\xff" * 12, b"\xff" * 12),
        ("x" * 255, b"x" * 255),
    ],
)
def test_what_a_file_means(tmp_path: Path, text: str | bytes, value: bytes) -> None:
    assert secrets.from_file(kept(tmp_path / "s", text)).reveal() == value


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_file_of_a_wider_mode_is_refused(tmp_path: Path, mode: int) -> None:
    path = kept(tmp_path / "s", SECRET, mode)
    with pytest.raises(errors.NotAllowedError) as caught:
        secrets.from_file(path)
    assert caught.value.next == f"chmod 600 {path}"
    assert f"{mode:04o}" in caught.value.evidence


@pytest.mark.parametrize("text", ["short", "x" * 256, "", "0x" + "ab" * 11, b"\xff" * 3])
def test_bad_lengths_name_the_place_and_not_the_secret(tmp_path: Path, text: str | bytes) -> None:
    path = kept(tmp_path / "s", text)
    with pytest.raises(errors.ConfigurationError) as caught:
        secrets.from_file(path)
    said = f"{caught.value} {caught.value.evidence} {caught.value.next} {caught.value!r}"
    assert path in said
    assert not text or str(text) not in said


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", SECRET)
    assert secrets.from_environment("MY_SECRET").reveal() == SECRET.encode()
    with pytest.raises(errors.ConfigurationError, match=r"\$NOT_SET is not set"):
        secrets.from_environment("NOT_SET")


def test_a_command() -> None:
    assert secrets.from_command(f"printf '{SECRET}\\nuser: x'").reveal() == SECRET.encode()
    assert secrets.from_command(["echo", SECRET]).reveal() == SECRET.encode()
    with pytest.raises(errors.ConfigurationError, match="false failed"):
        secrets.from_command("false")
    with pytest.raises(errors.MissingFileError):
        secrets.from_command("/no/such/command")
    with pytest.raises(errors.ConfigurationError) as caught:
        secrets.from_command("echo topsecret")
    assert "topsecret" not in str(caught.value) + caught.value.evidence + repr(caught.value)


def test_accounts_bind_initiators(tmp_path: Path) -> None:
    config = AuthenticationConfig(
        accounts=(
            AccountConfig(user="a", secret_file=kept(tmp_path / "a", SECRET), initiators=("iqn.2025-01.x:One",)),
            AccountConfig(user="b", secret_file=kept(tmp_path / "b", OTHER)),
        )
    )
    loaded = config.load()
    assert loaded.required
    assert loaded.permits("a", "iqn.2025-01.x:one")
    assert not loaded.permits("a", "iqn.2025-01.x:two")
    assert loaded.permits("b", "iqn.2025-01.x:two")


def test_a_secret_for_both_directions_is_refused(tmp_path: Path) -> None:
    """RFC 7143 9.2.1."""
    one, same = kept(tmp_path / "a", SECRET), kept(tmp_path / "b", SECRET)
    config = AuthenticationConfig(
        accounts=(AccountConfig(user="a", secret_file=one),), identity=IdentityConfig(user="t", secret_file=same)
    )
    with pytest.raises(errors.ConfigurationError, match="share a secret"):
        config.load()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"accounts": [{"user": "a"}, {"user": "a"}]}, "twice"),
        ({"accounts": [{"user": "a", "secret_file": "x", "secret_environment": "Y"}]}, "several places"),
        ({"identity": {"user": "a"}}, "needs accounts"),
        ({"accounts": [{"user": ""}]}, "1 to 255"),
        ({"accounts": [{"user": "a", "secret": SECRET}]}, "no field"),
    ],
)
def test_faults_of_a_document(value: dict[str, object], said: str) -> None:
    target = {"name": "iqn.2024-01.a:b", "luns": [{"lun": 0, "store": "ram:1M"}], "authentication": value}
    import json

    with pytest.raises(errors.ConfigurationError, match=said) as caught:
        document.parse(json.dumps({"targets": [target]}), "test", toml=False)
    assert SECRET not in str(caught.value) + caught.value.evidence


def test_an_account_without_a_place_has_no_secret() -> None:
    with pytest.raises(errors.ConfigurationError, match="no CHAP secret for 'a'"):
        AuthenticationConfig(accounts=(AccountConfig(user="a"),)).load()


def test_flags_print_places_and_load_back(tmp_path: Path) -> None:
    asked = chap("a", kept(tmp_path / "a", SECRET), "t", mutual_command=f"echo {OTHER}")
    configuration = arguments.build(["ram:1M"], authentication=asked, host="h")
    text = document.to_toml(configuration)
    assert str(tmp_path / "a") in text
    again = document.parse(text, "printed", toml=True)
    assert again == configuration
    assert again.discovery is not None
    assert again.discovery.load().policy.identity is not None


def test_a_secret_given_in_place_is_never_printed() -> None:
    asked = chap("a", secret=SECRET)
    configuration = arguments.build(["ram:1M"], authentication=asked, host="h")
    for shown in (repr(configuration), document.to_toml(configuration), document.to_json(configuration), repr(asked)):
        assert SECRET not in shown
    loaded = configuration.targets[0].authentication
    assert loaded is not None
    assert loaded.load().policy.accounts[0].secret == Secret(SECRET.encode())


@pytest.mark.parametrize(
    "arguments_",
    [{"user": None, "file": "x"}, {"user": "a", "mutual_file": "x"}, {"user": "a", "file": "x", "command": "y"},
     {"user": None, "mutual_user": "t"}],
)  # fmt: skip
def test_flags_that_do_not_go_together(arguments_: dict[str, str]) -> None:
    with pytest.raises(errors.ConfigurationError):
        authentication.chap(**arguments_)


def test_a_portal_with_chap_is_not_open_to_the_world() -> None:
    wide = arguments.build(["ram:1M"], portals=["0.0.0.0:3260"], host="h")
    assert wide.open_to_the_world()
    closed = arguments.build(["ram:1M"], portals=["0.0.0.0:3260"], host="h", authentication=chap("a", secret=SECRET))
    assert not closed.open_to_the_world()


def test_a_table_of_authentication_without_accounts_lets_nobody_believe_in_it() -> None:
    # It would let everybody in. `required = false` says so itself.
    with pytest.raises(ValueError, match="accounts"):
        AuthenticationConfig()
    with pytest.raises(ValueError, match="accounts"):
        AuthenticationConfig(required=True)
    assert not AuthenticationConfig(required=False).load().required
    for asked, warned in ((AuthenticationConfig(required=False), True), (chap("lab", secret=SECRET), False)):
        wide = arguments.build(["ram:1M"], portals=["0.0.0.0:3260"], target_name=NAME, authentication=asked)
        assert bool(wide.open_to_the_world()) is warned


def test_who_may_write_is_said_once() -> None:
    from blockwire.cli import ready

    class Server:
        portals = (Portal("127.0.0.1", 3260),)
        configuration = arguments.build(["ram:1M"], target_name=NAME, authentication=chap("lab", secret=SECRET))

    (line,) = ready.who(Server())  # type: ignore[arg-type]
    assert line == "may read and write: every user of this machine, with the CHAP secret of lab"
