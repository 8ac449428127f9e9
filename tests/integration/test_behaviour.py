"""Rate, keep-alive and quirks from the command line to the session, and keys negotiated anew by the blocking API."""

from __future__ import annotations

import json
from typing import Any

import pytest

import blockwire
from blockwire.cli.main import run


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_commands_take_the_flags_and_urls_the_options(
    blockwire_target: blockwire.Target, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--rate", "100M", "--keep-alive-interval", "1", "--keep-alive-timeout", "2", "--quirk", "reassign-lun")
    found = printed(capsys, "info", blockwire_target.url, *flags)
    for option in ("rate=104857600", "keep_alive_interval=1.0", "keep_alive_timeout=2.0", "quirks=reassign-lun"):
        assert option in found["url"]
    listed = printed(capsys, "ls", f"{blockwire_target.url}?rate=1M")
    assert listed["targets"][0]["luns"][0]["url"].endswith("/0?rate=1M")
    assert printed(capsys, "discover", f"{blockwire_target.portals[0]}?rate=1M")["targets"]
    measured = printed(capsys, "bench", blockwire_target.url, "--time", "0.2", "--rate", "100M")
    assert measured["errors"] == 0


def test_the_configuration_of_serve(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("serve", "ram:1M", "--rate", "100M", "--keep-alive-interval", "0", "--keep-alive-timeout", "7")
    found = printed(capsys, *words, "--print-config")
    assert found["targets"][0]["rate"] == 100 << 20
    assert (found["limits"]["keep_alive_seconds"], found["limits"]["keep_alive_timeout"]) == (0, 7)


def test_info_names_each_designator_once(
    blockwire_target: blockwire.Target, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["info", blockwire_target.url]) == 0
    text = capsys.readouterr().out
    values = [line.split(None, 1)[1] for line in text.splitlines() if line.startswith(("name ", "designator "))]
    assert len(values) == len(set(values)) == 6
    assert values[0].startswith("naa.")
    assert {"relative target port 1", "target port group 1"} <= set(values)
    assert text.count(values[0]) == 1


def test_keys_are_negotiated_anew_by_the_blocking_api(blockwire_target: blockwire.Target) -> None:
    keys = {"MaxConnections": "2", "MaxRecvDataSegmentLength": "65536"}
    with blockwire.open(blockwire_target.url, keys=keys) as lun:
        data = bytes(range(256)) * 1024
        lun.pwrite(data, 0)
        agreed = lun.session.renegotiate({"MaxRecvDataSegmentLength": "4096"})
        assert agreed["InitiatorMaxRecvDataSegmentLength"] == "4096"
        assert lun.pread(len(data), 0) == data
        lun.session.remove_connection(lun.session.cids[1])
        lun.session.add_connection()
        assert lun.session.keys["InitiatorMaxRecvDataSegmentLength"] == "4096"
        assert lun.pread(len(data), 0) == data
        assert lun.session.renegotiate() == lun.session.keys
