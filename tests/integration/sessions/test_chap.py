"""CHAP through the Python API and the commands, both ends ours, on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import blockwire
from blockwire import aio, errors
from blockwire.target.events import TargetEvent
from tests import loopback

SECRET, OWN = "initiator-says-1", "target-answers-2"
ME = {"chap_user": "alice", "chap_secret": SECRET}
BOTH = {**ME, "mutual_user": "disk", "mutual_secret": OWN}


@pytest.fixture
def seen() -> list[TargetEvent]:
    return []


@pytest.fixture
def target(seen: list[TargetEvent]) -> Iterator[blockwire.Target]:
    with blockwire.Target("ram:4M", **BOTH, observe=seen.append) as target:  # type: ignore[arg-type]
        yield target


@pytest.mark.parametrize("how", [ME, BOTH], ids=["one-way", "mutual"])
def test_open_connect_discover(target: blockwire.Target, how: dict[str, str]) -> None:
    with blockwire.open(target.url, **how) as lun:  # type: ignore[arg-type]
        lun.pwrite(b"\x42" * 512, 0)
        assert lun.pread(512, 0) == b"\x42" * 512
    with blockwire.connect(target.url, **how) as session:  # type: ignore[arg-type]
        assert len(session.luns()) == 1
    assert [found.name for found in blockwire.discover(target.portals[0], **how)] == [target.name]  # type: ignore[arg-type]

    async def body() -> None:
        async with aio.open(target.url, **how) as lun:  # type: ignore[arg-type]
            assert await lun.pread(512, 0) == b"\x42" * 512

    asyncio.run(body())


def test_secrets_as_bytes_and_as_hexadecimal() -> None:
    binary = bytes(range(200, 216))
    text = "0x" + binary.hex()
    with blockwire.Target("ram:1M", chap_user="b", chap_secret=text) as target:
        blockwire.open(target.url, chap_user="b", chap_secret=binary).close()


@pytest.mark.parametrize(
    "how",
    [{}, {**ME, "chap_secret": OWN + "x"}, {**ME, "chap_user": "bob"}, {**BOTH, "mutual_secret": "another-secret-9"}],
    ids=["none", "secret", "user", "mutual"],
)
def test_wrong(target: blockwire.Target, seen: list[TargetEvent], how: dict[str, str]) -> None:
    with pytest.raises(errors.AuthenticationError) as caught:
        blockwire.open(target.url, **how)  # type: ignore[arg-type]
    error = caught.value
    assert (error.status, error.code, error.exit_code) == (0x0201, "login.authentication-failure", 4)
    assert isinstance(error, PermissionError)
    assert error.next
    told = repr(seen) + repr(error) + str(error.to_json())
    for secret in (SECRET, OWN, *(value for name, value in how.items() if "secret" in name)):
        assert secret not in told


def test_refused_at_configuration_time() -> None:
    with pytest.raises(errors.ConfigurationError):
        blockwire.Target("ram:1M", chap_user="a", chap_secret="short")
    with pytest.raises(errors.ConfigurationError, match="share a secret"):
        blockwire.Target("ram:1M", chap_user="a", chap_secret=SECRET, mutual_user="t", mutual_secret=SECRET)


def test_accounts_for_initiators_and_targets_in_a_document(tmp_path: Path) -> None:
    """Two targets with accounts of their own; an account that is bound to one initiator name; open discovery."""
    for name, text in (("one", SECRET), ("two", "second-secret-22")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(text)
    document = tmp_path / "disks.toml"
    document.write_text(f"""
portals = ["127.0.0.1:0"]
[[targets]]
name = "iqn.2025-01.org.example:one"
luns = [{{ lun = 0, store = "ram:1M" }}]
[[targets.authentication.accounts]]
user = "alice"
secret_file = "{tmp_path}/one"
initiators = ["iqn.2025-01.org.example:alices-host"]
[[targets]]
name = "iqn.2025-01.org.example:two"
luns = [{{ lun = 0, store = "ram:1M" }}]
[[targets.authentication.accounts]]
user = "bob"
secret_command = "cat {tmp_path}/two"
""")
    from blockwire.config.document import load

    with blockwire.Target(configuration=load(document)) as target:
        assert len(blockwire.discover(target.portals[0])) == 2
        one, two = target.urls
        bob = {"chap_user": "bob", "chap_secret": "second-secret-22"}
        blockwire.open(one, **ME, initiator_name="iqn.2025-01.org.example:alices-host").close()  # type: ignore[arg-type]
        blockwire.open(two, **bob).close()  # type: ignore[arg-type]
        with pytest.raises(errors.AuthorizationError) as caught:
            blockwire.open(one, **ME, initiator_name="iqn.2025-01.org.example:other")  # type: ignore[arg-type]
        assert caught.value.status == 0x0202
        for url, how in ((one, bob), (two, ME)):
            with pytest.raises(errors.AuthenticationError):
                blockwire.open(url, **how)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- the commands
def blockwire_command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "blockwire", *words], capture_output=True, text=True, timeout=150, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )  # fmt: skip


def kept(path: Path, text: str) -> str:
    path.touch(0o600)
    path.write_text(text + "\n")
    return str(path)


def test_every_command_logs_in(target: blockwire.Target, tmp_path: Path) -> None:
    flags = ["--chap-user", "alice", "--chap-secret-file", kept(tmp_path / "s", SECRET),
             "--chap-mutual-user", "disk", "--chap-mutual-secret-file", kept(tmp_path / "m", OWN)]  # fmt: skip
    image = tmp_path / "image"
    image.write_bytes(os.urandom(1 << 20))
    back = tmp_path / "back"
    for words in (
        ["discover", target.portals[0]], ["ls", target.portals[0]], ["info", target.url],
        ["cp", str(image), target.url], ["cp", target.url, str(back)],
        ["bench", target.url, "--time", "0.2"],
    ):  # fmt: skip
        done = blockwire_command(*words, *flags)
        assert done.returncode == 0, (words, done.stderr)
        assert blockwire_command(*words).returncode == 4
    assert back.read_bytes()[: 1 << 20] == image.read_bytes()


def test_the_other_places_of_a_secret(target: blockwire.Target) -> None:
    url = target.url.replace("iscsi://", f"iscsi://alice%{SECRET}@") + f"?target_user=disk&target_password={OWN}"
    done = blockwire_command("info", url, "-vv", "--json")
    assert done.returncode == 0, done.stderr
    for secret in (SECRET, OWN):
        assert secret not in done.stdout + done.stderr
    assert blockwire_command("info", target.url, "--chap-user", "alice", BLOCKWIRE_CHAP_SECRET=SECRET).returncode == 0
    libiscsi = {"LIBISCSI_CHAP_USERNAME": "alice", "LIBISCSI_CHAP_PASSWORD": SECRET}
    assert blockwire_command("info", target.url, **libiscsi).returncode == 0
    command = ["--chap-user", "alice", "--chap-secret-command", f"echo {SECRET}"]
    assert blockwire_command("info", target.url, *command).returncode == 0


def test_serve_asks_for_it_and_prints_places_only(tmp_path: Path) -> None:
    secret = kept(tmp_path / "s", SECRET)
    flags = ["--chap-user", "alice", "--chap-secret-file", secret]
    inner = [sys.executable, "-m", "blockwire", "info"]
    script = f"{' '.join(inner)} $BLOCKWIRE_URL && exit 9; exec {' '.join(inner)} $BLOCKWIRE_URL {' '.join(flags)}"
    done = blockwire_command("serve", "ram:1M", *flags, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    printed = blockwire_command("serve", "ram:1M", *flags, "--print-config", "--json")
    account = json.loads(printed.stdout)["targets"][0]["authentication"]["accounts"][0]
    assert (account["user"], account["secret_file"]) == ("alice", secret)
    assert SECRET not in printed.stdout
    os.chmod(secret, 0o640)
    wide = blockwire_command("serve", "ram:1M", *flags, "-p", loopback.ANY, "--", "true")
    assert wide.returncode == 2
    assert "chmod 600" in wide.stderr
    missing = blockwire_command("serve", "ram:1M", "--chap-user", "x", "-p", loopback.ANY, "--", "true")
    assert missing.returncode == 2
    assert "BLOCKWIRE_CHAP_SECRET" in missing.stderr
