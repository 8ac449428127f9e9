"""CHAP with foreign peers: libiscsi and QEMU log in to our target, our initiator logs in to tgt and istgt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop import peers
from tests.interop.conftest import IMAGE_SIZE
from tests.interop.peer_targets import Chap, PeerTarget, istgt, tgt
from tests.interop.serving import Served, blockwire, serve

CHAP = Chap()
WRONG = "not-the-secret-0"


def secret_file(path: Path, text: str) -> str:
    path.touch(0o600)
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("secrets")
    return {
        name: secret_file(directory / name, text)
        for name, text in (("own", CHAP.own_secret), ("secret", CHAP.secret), ("wrong", WRONG))
    }


# ---------------------------------------------------------------------- foreign initiators
@pytest.fixture(scope="module")
def guarded(files: dict[str, str]) -> Iterator[Served]:
    with serve(
        "ram:32M", "--chap-user", CHAP.user, "--chap-secret-file", files["secret"],
        "--chap-mutual-user", CHAP.own_user, "--chap-mutual-secret-file", files["own"],
    ) as served:  # fmt: skip
        yield served


def url(served: Served, secret: str = CHAP.secret, user: str = CHAP.user, query: str = "") -> str:
    return served.url.replace("iscsi://", f"iscsi://{user}%{secret}@") + query


MUTUAL = f"?target_user={CHAP.own_user}&target_password={CHAP.own_secret}"


@pytest.mark.parametrize("query", ["", MUTUAL], ids=["one-way", "mutual"])
def test_libiscsi_logs_in(guarded: Served, query: str) -> None:
    assert "DIRECT_ACCESS" in peers.iscsi_inq(url(guarded, query=query))
    assert peers.iscsi_readcapacity16(url(guarded, query=query)) == IMAGE_SIZE


def test_libiscsi_discovers(guarded: Served) -> None:
    portal = f"{CHAP.user}%{CHAP.secret}@{guarded.portal}"
    printed = peers.iscsi_ls(portal, show_luns=True)
    assert guarded.iqn in printed
    assert "Lun:0" in printed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda served: url(served, secret=WRONG),
        lambda served: url(served, user="mallory"),
        lambda served: served.url,
        lambda served: url(served, query=f"?target_user={CHAP.own_user}&target_password={WRONG}"),
    ],
    ids=["secret", "user", "none", "mutual"],
)
def test_libiscsi_is_kept_out(guarded: Served, spoil: Callable[[Served], str]) -> None:
    output = peers.run("iscsi-inq", spoil(guarded), check=False)
    assert output.returncode != 0
    assert "DIRECT_ACCESS" not in output.stdout


@pytest.mark.parametrize("suite", ["iSCSI.iSCSIcmdsn", "SCSI.Read10"])
def test_libiscsi_suites(guarded: Served, suite: str) -> None:
    result = peers.iscsi_test_cu(url(guarded), suite)
    assert result.tests > 0, result.output
    assert result.failed == 0, result.output


def test_qemu(guarded: Served, image: Path, tmp_path: Path) -> None:
    peers.require_qemu_iscsi()
    peers.qemu_convert(str(image), url(guarded), create=False)
    back = tmp_path / "back.raw"
    peers.qemu_convert(url(guarded), str(back), create=True)
    assert back.read_bytes() == image.read_bytes()
    with pytest.raises(peers.ToolFailure):
        peers.qemu_convert(url(guarded, secret=WRONG), str(back), create=True)


# ---------------------------------------------------------------------- foreign targets
@pytest.fixture(scope="module", params=[tgt, istgt], ids=["tgt", "istgt"])
def strict(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeerTarget]:
    with request.param(tmp_path_factory.mktemp("peer"), IMAGE_SIZE, chap=CHAP) as started:
        yield started


def flags(files: dict[str, str], mutual: bool = False, secret: str = "secret", own: str = "own") -> list[str]:
    words = ["--chap-user", CHAP.user, "--chap-secret-file", files[secret]]
    return words + (["--chap-mutual-user", CHAP.own_user, "--chap-mutual-secret-file", files[own]] if mutual else [])


@pytest.mark.parametrize("mutual", [False, True], ids=["one-way", "mutual"])
@pytest.mark.parametrize("query", ["", "?HeaderDigest=CRC32C,None&DataDigest=CRC32C,None"], ids=["plain", "digests"])
def test_we_log_in(
    strict: PeerTarget, image: Path, files: dict[str, str], tmp_path: Path, mutual: bool, query: str
) -> None:
    back = tmp_path / "back.raw"
    blockwire("cp", str(image), strict.url + query, *flags(files, mutual), timeout=150)
    blockwire("cp", strict.url + query, str(back), *flags(files, mutual), timeout=150)
    assert back.read_bytes() == image.read_bytes()


def test_we_discover(strict: PeerTarget, files: dict[str, str]) -> None:
    assert strict.iqn in blockwire("discover", strict.portal, *flags(files))


def test_we_are_kept_out(strict: PeerTarget, files: dict[str, str]) -> None:
    blockwire("info", strict.url, *flags(files, secret="wrong"), expect=4)
    blockwire("info", strict.url, expect=4)
    blockwire("info", strict.url, *flags(files, mutual=True, own="wrong"), expect=4)
