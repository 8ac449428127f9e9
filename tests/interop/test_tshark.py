"""tshark reads what both of our ends put on the wire, and finds nothing wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import peers
from tests.interop.capture import MALFORMED, capture
from tests.interop.peer_targets import tgt
from tests.interop.serving import Served, blockwire, serve

COMMAND, LOGIN, TEXT, LOGOUT = 0x01, 0x03, 0x04, 0x06
RESPONSE, DATA_IN = 0x21, 0x25


@pytest.mark.parametrize("keys", ["", "?HeaderDigest=CRC32C&DataDigest=CRC32C", "?InitialR2T=Yes&ImmediateData=No"],
                         ids=["default", "digests", "r2t-only"])  # fmt: skip
def test_both_ends_are_ours(tmp_path: Path, keys: str) -> None:
    source = tmp_path / "source.raw"
    source.write_bytes(bytes(range(256)) * 4096)
    with serve("ram:1M") as served, capture(tmp_path / "both.pcapng", served.port) as seen:
        blockwire("discover", served.portal)
        blockwire("ls", served.portal)
        blockwire("info", served.url + keys)
        blockwire("cp", str(source), served.url + keys, "--verify")
        blockwire("bench", served.url + keys, "--rw", "randread", "--bs", "4k", "--qd", "1", "--time", "0.1")
    assert {COMMAND, LOGIN, TEXT, LOGOUT, 0x23, 0x24, 0x26, DATA_IN, RESPONSE} <= seen.iscsi_opcodes()
    assert seen.problems() == []


FIRST_INQUIRY = 64
"""Allocation length of libiscsi's first INQUIRY for a page."""


def test_our_target_and_libiscsi(tmp_path: Path) -> None:
    with serve("ram:16M") as served, capture(tmp_path / "target.pcapng", served.port) as seen:
        peers.iscsi_ls(served.portal, show_luns=True)
        for page in (0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2):
            peers.iscsi_inq(served.url, page)
        for suite in ("SCSI.Read10", "SCSI.Write10", "SCSI.ModeSense6"):
            peers.iscsi_test_cu(served.url, suite)
    assert {COMMAND, LOGIN, TEXT} <= seen.iscsi_opcodes()
    # Only what the target wrote: libiscsi's suites send broken CDBs on purpose. `iscsi-inq` asks for 64 bytes of a
    # page first and then for all of it; tshark cannot dissect the first answer, whose designators end in the middle.
    cut_short = f"iscsi.datasegmentlength == {FIRST_INQUIRY}"
    ours = f"tcp.srcport == {served.port}"
    assert seen.frames(f"{ours} && {MALFORMED} && !({cut_short})") == []
    identification = f"{ours} && scsi.inquiry.evpd.pagecode == 0x83 && iscsi.datasegmentlength > {FIRST_INQUIRY}"
    assert seen.frames(identification), "the whole page was asked for and dissected"


def test_our_initiator_and_tgt(tmp_path: Path) -> None:
    source = tmp_path / "source.raw"
    source.write_bytes(bytes(range(256)) * 4096)
    with tgt(tmp_path, 1 << 20) as target, capture(tmp_path / "initiator.pcapng", target.port) as seen:
        blockwire("discover", target.portal)
        blockwire("info", target.url)
        blockwire("cp", str(source), target.url, "--verify")
    assert {COMMAND, LOGIN, TEXT, LOGOUT} <= seen.iscsi_opcodes()
    # Only what our initiator wrote: tgt answers MODE SENSE with a page that tshark does not know.
    assert seen.problems(f"tcp.dstport == {target.port}") == []


def test_capture_of_an_idle_session_is_not_empty(ours: Served, tmp_path: Path) -> None:
    """A filter that matches nothing proves nothing: the same filter finds frames of our port."""
    with capture(tmp_path / "any.pcapng", ours.port) as seen:
        peers.iscsi_readcapacity16(ours.url)
    assert len(seen.frames("iscsi")) > 4
