"""libiscsi's tools against our target."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop import peers
from tests.interop.serving import Served, serve

GOOD_SUITES = [
    # The commands that the target implements.
    # UnmapSingle has a test of its own, below.
    "SCSI.GetLBAStatus.Simple",
    "SCSI.GetLBAStatus.BeyondEol",
    "SCSI.Inquiry",
    "SCSI.Mandatory",
    "SCSI.ModeSense6",
    "SCSI.NoMedia",
    "SCSI.Read6",
    "SCSI.Read10",
    "SCSI.Read12",
    "SCSI.Read16",
    "SCSI.ReadCapacity10",
    "SCSI.ReadCapacity16",
    "SCSI.ReportSupportedOpcodes",
    "SCSI.StartStopUnit",
    "SCSI.TestUnitReady",
    "SCSI.Unmap",
    "SCSI.Verify10",
    "SCSI.Verify12",
    "SCSI.Verify16",
    "SCSI.Write10",
    "SCSI.Write12",
    "SCSI.Write16",
    "SCSI.WriteSame10",
    "SCSI.WriteSame16",
    # The protocol.
    "iSCSI.iSCSIcmdsn",
    "iSCSI.iSCSIdatasn",
    "iSCSI.iSCSIResiduals",
    "iSCSI.iSCSITMF",
]
REFUSED_SUITES = [
    # Commands that are not asked for yet: each test ends by seeing ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE.
    "SCSI.CompareAndWrite",
    "SCSI.ExtendedCopy",
    "SCSI.OrWrite",
    "SCSI.Prefetch10",
    "SCSI.Prefetch16",
    "SCSI.PrinReadKeys",
    "SCSI.ReadDefectData10",
    "SCSI.ReadDefectData12",
    "SCSI.ReceiveCopyResults",
    "SCSI.Reserve6",
    "SCSI.WriteAtomic16",
    "SCSI.WriteVerify10",
    "SCSI.WriteVerify12",
    "SCSI.WriteVerify16",
]
MUST_RUN = {
    "SCSI.Inquiry.Standard", "SCSI.Inquiry.BlockLimits", "SCSI.Inquiry.SupportedVPD", "SCSI.Read10.Simple",
    "SCSI.Read16.BeyondEol", "SCSI.Write16.Simple", "SCSI.Unmap.Simple", "SCSI.WriteSame16.Unmap",
    "SCSI.Verify10.Mismatch", "iSCSI.iSCSIResiduals.Read10Residuals", "iSCSI.iSCSIdatasn.iSCSIDataSnInvalid",
}  # fmt: skip
"""Tests that may not report themselves skipped: a target that implements nothing fails no test of libiscsi."""


def test_discovery(ours: Served) -> None:
    assert ours.iqn in peers.iscsi_ls(ours.portal)


def test_ls_shows_the_lun_with_its_size(ours: Served) -> None:
    printed = peers.iscsi_ls(ours.portal, show_luns=True)
    assert ours.iqn in printed
    assert "Lun:0" in printed
    # It multiplies the last block's address, not the number of blocks, and rounds down.
    assert "Size:127M" in printed, printed


def test_capacity(ours: Served) -> None:
    assert peers.iscsi_readcapacity16(ours.url) == 128 << 20


def test_standard_inquiry(ours: Served) -> None:
    printed = peers.iscsi_inq(ours.url)
    assert "DIRECT_ACCESS" in printed
    assert "Version" in printed


VPD_PAGES = {
    0x00: ["Supported", "0x83", "0xb0", "0xb1", "0xb2"],
    0x80: ["Serial"],
    0x83: ["NAA", "T10"],
    0xB0: ["maximum transfer length", "maximum unmap lba count"],
    0xB1: ["rotation"],
    0xB2: ["lbpu", "provisioning type"],
}


@pytest.mark.parametrize("page", VPD_PAGES, ids=hex)
def test_vpd_page(ours: Served, page: int) -> None:
    printed = peers.iscsi_inq(ours.url, page).lower()
    for word in VPD_PAGES[page]:
        assert word.lower() in printed, printed


def test_identity_is_stable_across_restarts(tmp_path: Path) -> None:
    seen = []
    disk = tmp_path / "disk.img"
    for _ in range(2):
        with serve(str(disk), "--size", "16M") as served:
            seen.append((served.iqn, peers.iscsi_inq(served.url, 0x80), peers.iscsi_inq(served.url, 0x83)))
    assert seen[0] == seen[1]


def test_perf(ours: Served) -> None:
    assert peers.iscsi_perf(ours.url, depth=32, seconds=2) > 0


@pytest.mark.parametrize("suite", GOOD_SUITES)
def test_conformance(ours: Served, suite: str) -> None:
    passes(peers.iscsi_test_cu(ours.url, suite))


LONG_CDB = "CDB[0] Usage Data was 0x00, expected 0x7f for opcode 0x7f"
"""libiscsi 1.19 keeps 16 bytes of CDB usage data and copies none of a longer CDB (`cdb_usage_data` in
lib/scsi-lowlevel.c), so that its test fails for every command of 32 bytes that a target reports."""


def passes(result: peers.SuiteResult) -> None:
    """Something ran, and nothing failed but what libiscsi cannot know."""
    assert result.tests > 0, result.output
    excused = result.output.count(LONG_CDB)
    assert result.asserts_failed == excused, result.output
    assert result.failed == (excused > 0), result.output


@pytest.mark.parametrize("test", sorted(MUST_RUN))
def test_what_applies_is_not_skipped(ours: Served, test: str) -> None:
    result = peers.iscsi_test_cu(ours.url, test)
    assert result.tests == 1, result.output
    assert result.failed == 0, result.output
    assert not result.skipped, result.output


@pytest.mark.parametrize("suite", REFUSED_SUITES)
def test_the_rest_is_refused_properly(ours: Served, suite: str) -> None:
    result = peers.iscsi_test_cu(ours.url, suite)
    assert result.failed == 0, result.output
    assert result.asserts_failed == 0, result.output


@pytest.fixture(scope="module")
def read_only() -> Iterator[Served]:
    with serve("ram:128M", "-r") as served:
        yield served


@pytest.mark.parametrize("suite", ["SCSI.ReadOnly", "SCSI.ModeSense6", "SCSI.Read10", "SCSI.Inquiry"])
def test_conformance_of_a_read_only_disk(read_only: Served, suite: str) -> None:
    result = peers.iscsi_test_cu(read_only.url, suite)
    assert result.failed == 0, result.output
    assert result.asserts_failed == 0, result.output


@pytest.mark.parametrize("suite", ["SCSI.Read10", "SCSI.Write16", "SCSI.WriteSame16", "SCSI.Unmap", "SCSI.Verify16"])
def test_conformance_of_a_file(tmp_path: Path, suite: str) -> None:
    with serve(str(tmp_path / "disk.img"), "--size", "128M") as served:
        result = peers.iscsi_test_cu(served.url, suite)
    assert result.failed == 0, result.output
    assert result.asserts_failed == 0, result.output


@pytest.fixture(scope="module")
def large_blocks() -> Iterator[Served]:
    with serve("ram:128M?block_size=4096") as served:
        yield served


@pytest.mark.parametrize("suite", [suite for suite in GOOD_SUITES if suite.startswith("SCSI.")])
def test_conformance_with_blocks_of_4096(large_blocks: Served, suite: str) -> None:
    passes(peers.iscsi_test_cu(large_blocks.url, suite))


def test_capacity_with_blocks_of_4096(large_blocks: Served) -> None:
    assert peers.iscsi_readcapacity16(large_blocks.url) == 128 << 20


@pytest.mark.parametrize("kind", ["ram", "file"])
def test_lba_status_after_unmap(kind: str, tmp_path: Path) -> None:
    """With blocks of 4096 bytes. With several logical blocks in a physical one (ours: 8 of 512) the second half of the
    test cannot pass: it asks for the status of block i + 1 and wants a descriptor that begins at i + 8."""
    store = "ram:128M" if kind == "ram" else f"file:{tmp_path / 'disk.img'}?size=128M"
    with serve(store, "--block-size", "4096") as served:
        result = peers.iscsi_test_cu(served.url, "SCSI.GetLBAStatus.UnmapSingle")
    assert (result.tests, result.failed, result.asserts_failed) == (1, 0, 0), result.output


def test_several_luns() -> None:
    with serve("ram:8M", "ram:16M") as served:
        assert [peers.iscsi_readcapacity16(url) for url in served.urls] == [8 << 20, 16 << 20]
        printed = peers.iscsi_ls(served.portal, show_luns=True)
    assert "Lun:0" in printed
    assert "Lun:1" in printed


@pytest.mark.parametrize(
    "keys",
    [
        ("InitialR2T=Yes", "ImmediateData=No"),
        ("InitialR2T=No", "ImmediateData=No"),
        ("InitialR2T=Yes", "ImmediateData=Yes"),
        ("MaxRecvDataSegmentLength=512",),
        ("FirstBurstLength=512", "MaxBurstLength=1024"),
    ],
    ids=",".join,
)
def test_conformance_under_negotiated_keys(keys: tuple[str, ...]) -> None:
    flags = [part for key in keys for part in ("--key", key)]
    with serve("ram:128M", *flags) as served:
        for suite in ("SCSI.Read16", "SCSI.Write16", "SCSI.WriteSame10", "iSCSI.iSCSIResiduals"):
            result = peers.iscsi_test_cu(served.url, suite)
            assert result.failed == 0, result.output


def test_header_digest(ours: Served) -> None:
    assert peers.iscsi_readcapacity16(f"{ours.url}?header_digest=crc32c") == 128 << 20
