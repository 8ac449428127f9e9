"""Every command against a real target, and every bad input with its exit code."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import blockwire as api
from tests import loopback
from tests.waiting import ending, wait_until

SRC = str(Path(__file__).resolve().parents[2] / "src")
ENV = {**os.environ, "PYTHONPATH": SRC, "NO_COLOR": "1"}


PATIENCE = 150
"""Seconds in which any command of these ends on a loaded machine."""


def blockwire(*words: str, stdin: bytes | None = None, timeout: float = PATIENCE) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "blockwire", *words],
        env=ENV,
        input=stdin,
        check=False,
        capture_output=True,
        timeout=timeout,
    )


def good(*words: str, stdin: bytes | None = None) -> Any:
    done = blockwire(*words, "--json", stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def bad(code: int, *words: str, stdin: bytes | None = None) -> dict[str, str]:
    done = blockwire(*words, "--json", stdin=stdin)
    assert done.returncode == code, (done.returncode, done.stderr.decode())
    assert b"Traceback" not in done.stderr
    found: dict[str, str] = json.loads(done.stderr.decode().splitlines()[-1])["error"]
    assert found["message"]
    return found


def start_serve(*words: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "blockwire", "serve", *words, "--json"], env=ENV, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, child.communicate()[1]
    ready = json.loads(line)
    assert ready["event"] == "ready"
    return child, ready


def until_written(url: str, child: subprocess.Popen[str]) -> None:
    """Waits until `child` has changed the first block of a disk that was empty."""
    with api.open(url) as lun:
        wait_until(lambda: any(lun.pread(512, 0)), "the first block of the copy", useless=ending(child))


# ---------------------------------------------------------------------------------------------- what works


def test_demo() -> None:
    done = blockwire("demo", "--time", "0.3")
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "next steps" in text
    assert text.count("all equal") == 2
    assert good("demo", "--time", "0.2")["schema"] == "blockwire.demo/1"


def test_discover_ls_info(blockwire_target_factory) -> None:
    target = blockwire_target_factory("ram:8M?serial=A1", "ram:16M?block_size=4096")
    portal = target.portals[0]
    found = good("discover", portal)
    assert found["schema"] == "blockwire.discover/1"
    assert found["targets"][0]["name"] == target.name
    assert found["targets"][0]["portals"][0]["portal_group_tag"] == 1
    listed = good("ls", portal)["targets"][0]
    assert [(unit["lun"], unit["size"], unit["block_size"]) for unit in listed["luns"]] == [
        (0, 8 << 20, 512),
        (1, 16 << 20, 4096),
    ]
    assert listed["luns"][0]["serial"] == "A1"
    assert [unit["url"] for unit in listed["luns"]] == target.urls
    info = good("info", target.urls[1])
    assert (info["size"], info["block_size"]) == (16 << 20, 4096)
    assert info["keys"]["HeaderDigest"] == "None"
    assert info["name"]
    assert [unit["lun"] for unit in good("ls", target.urls[1])["targets"][0]["luns"]] == [1]
    absent = bad(7, "ls", target.url[:-1] + "9")
    assert (absent["code"], absent["evidence"]) == ("device.no-such-lun", "LUNs: 0, 1")
    digests = good("info", target.url + "?header_digest=crc32c")
    assert digests["keys"]["HeaderDigest"] == "CRC32C"
    for words in (("discover", portal), ("ls", portal), ("info", target.url)):
        text = blockwire(*words).stdout.decode()
        assert target.name in text


def test_names_that_are_too_shallow_list_the_choices(blockwire_target_factory) -> None:
    target = blockwire_target_factory("ram:1M", "ram:1M")
    found = bad(2, "info", target.portals[0])
    assert found["evidence"].split() == target.urls
    one = blockwire_target_factory("ram:2M")
    assert good("info", one.portals[0])["size"] == 2 << 20


def test_cp_there_back_and_between(blockwire_target_factory, tmp_path: Path) -> None:
    target = blockwire_target_factory("ram:16M", "ram:16M?block_size=4096")
    source, back = tmp_path / "a.img", tmp_path / "b.img"
    content = bytearray(10_000_001)
    content[100:5000] = os.urandom(4900)
    content[6_000_000:8_000_000] = os.urandom(2_000_000)
    content[-1] = 7
    source.write_bytes(content)
    report = good("cp", str(source), target.urls[0], "--verify")
    assert (report["bytes"], report["verified"]) == (len(content), True)
    assert report["zero_bytes"] > 4_000_000
    assert good("cp", target.urls[0], target.urls[1], "--verify")["bytes"] == 16 << 20
    good("cp", target.urls[1], str(back), "--verify")
    read = back.read_bytes()
    assert len(read) == 16 << 20
    assert read[: len(content)] == content
    assert not any(read[len(content) :])
    assert back.stat().st_blocks * 512 < 8 << 20
    out = blockwire("cp", target.urls[1], "-")
    assert out.stdout == read
    assert blockwire("cp", "-", target.urls[0], stdin=b"z" * 1_000_000).returncode == 0
    assert blockwire("cp", target.urls[0], "-").stdout[:1_000_000] == b"z" * 1_000_000


def test_cp_overwrites_old_data_with_zeros(blockwire_target_factory, tmp_path: Path) -> None:
    target = blockwire_target_factory("ram:4M")
    good("cp", "-", target.url, stdin=os.urandom(4 << 20))
    empty = tmp_path / "empty.img"
    with empty.open("wb") as file:
        file.truncate(4 << 20)
    good("cp", str(empty), target.url, "--verify")
    assert not any(blockwire("cp", target.url, "-").stdout)


def test_bench(blockwire_target_factory) -> None:
    target = blockwire_target_factory("ram:16M")
    report = good("bench", target.url, "--rw", "randread", "--bs", "4k", "--qd", "8", "--time", "0.5")
    assert report["schema"] == "blockwire.bench/1"
    assert report["iops"] > 0
    assert report["errors"] == 0
    assert set(report["latency_us"]) == {"mean", "p50", "p90", "p99", "p999", "max"}
    assert report["latency_us"]["p50"] <= report["latency_us"]["p999"] <= report["latency_us"]["max"]
    mixed = ("--rw", "randrw", "--overwrite", "--iodepth", "16", "--runtime", "0.5")
    report = good("bench", target.url, *mixed, "--numjobs", "2")
    assert report["reads"]
    assert report["writes"]
    good("bench", target.url, "--time", "0.1", "--numjobs", "2", "--seed", str((1 << 64) - 1))
    text = blockwire("bench", target.url, "--time", "0.3").stdout.decode()
    assert "IOPS" in text
    assert "█" in text


@pytest.mark.parametrize("rw", ["randread", "randwrite", "randrw"])
def test_bench_verify_always_compares_something(blockwire_target_factory, rw: str) -> None:
    target = blockwire_target_factory("ram:16M")
    report = good("bench", target.url, "--rw", rw, "--overwrite", "--verify", "--time", "0.5")
    assert report["verified_reads"] > 0
    assert 0 < report["verified_places"] <= (16 << 20) // 4096
    assert report["miscompares"] == 0


def test_bench_verify_fails_when_the_data_are_changed_behind_it(blockwire_target_factory) -> None:
    target = blockwire_target_factory("ram:1M")
    running = subprocess.Popen(
        [sys.executable, "-m", "blockwire", "bench", target.url, "--rw", "randrw", "--overwrite", "--verify",
         "--time", "3", "--json"], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with api.open(target.url) as lun:
        while running.poll() is None:
            lun.pwrite(os.urandom(1 << 20), 0)
    _, err = running.communicate()
    assert running.returncode == 6, err
    assert json.loads(err.splitlines()[-1])["error"]["code"] == "data.differs"
    bad(2, "bench", target.url, "--rw", "randrw", "--overwrite", "--verify", "--numjobs", "2")


def test_serve_makes_files_tells_events_and_ends_in_order(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    child, ready = start_serve(
        str(disk), "--size", "8M", "-p", loopback.ANY, "-T", "iqn.2025-01.org.test:disk", "--statistics", "0.2"
    )
    assert disk.stat().st_size == 8 << 20
    lun = ready["luns"][0]
    assert (lun["target"], lun["lun"], lun["size"]) == ("iqn.2025-01.org.test:disk", 0, 8 << 20)
    good("cp", "-", lun["url"], stdin=b"served" * 1000)
    assert child.stdout is not None
    assert child.stderr is not None
    events, asked = [], False
    for line in child.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "statistics" and not asked:
            child.send_signal(signal.SIGTERM)
            asked = True
    assert child.wait(PATIENCE) == 0, child.stderr.read()
    child.stderr.close()
    names = {event["event"] for event in events}
    assert {"session-up", "session-down", "statistics"} <= names
    assert all("time" in event for event in events)
    assert disk.read_bytes()[:6000] == b"served" * 1000


def test_serve_for_the_length_of_a_command() -> None:
    code = (
        "import os, blockwire; l = blockwire.open(os.environ['BLOCKWIRE_URL']); l.pwrite(b'x' * 512, 0);"
        "print(l.size); l.close(); raise SystemExit(7)"
    )
    done = blockwire("serve", "ram:4M", "--", sys.executable, "-c", code)
    assert (done.returncode, done.stdout) == (7, b"4194304\n"), done.stderr
    assert bad(2, "serve", "ram:4M", "--json", "--", "/no/such/command")["code"] == "configuration.file-not-found"


def test_a_command_under_serve_gets_an_address_it_can_reach() -> None:
    words = ("serve", "ram:1M", "--advertise", "192.0.2.1:3260", "-p", loopback.ANY)
    done = blockwire(*words, "--", "sh", "-c", 'echo "$BLOCKWIRE_URL"; ulimit -n')
    url, files = done.stdout.decode().split()
    assert url.startswith(f"iscsi://{loopback.AUTHORITY}:")
    assert int(files) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_serve_prints_its_configuration_and_takes_it_back(tmp_path: Path) -> None:
    words = (
        "serve",
        "ram:4M?serial=A1",
        "--lun",
        "3=ram:8M",
        "--key",
        "MaxBurstLength=65536",
        "--allow",
        "10.0.0.0/8",
        "-p",
        loopback.ANY,
    )
    printed = blockwire(*words, "--print-config")
    assert printed.returncode == 0
    file = tmp_path / "c.toml"
    file.write_bytes(printed.stdout)
    again = blockwire("serve", "--config", str(file), "--print-config")
    assert again.stdout == printed.stdout


def test_serve_says_how_to_attach() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "blockwire", "serve", "ram:1M", "-p", loopback.ANY], env=ENV, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    out = ""
    for line in child.stdout:
        out += line
        if "Connect-IscsiTarget" in line:  # what it says last
            child.send_signal(signal.SIGINT)
    child.communicate(timeout=PATIENCE)
    assert child.returncode == 0
    assert f"iscsi://{loopback.AUTHORITY}:" in out
    for word in ("may read and write", "iscsiadm", "qemu-img", "iscsicli", "Connect-IscsiTarget"):
        assert word in out


# ---------------------------------------------------------------------------------------------- bad input


def test_bad_input_of_serve(tmp_path: Path) -> None:
    odd = tmp_path / "odd.img"
    odd.write_bytes(b"x" * 1000)
    assert bad(2, "serve", str(tmp_path / "missing.img"))["message"]
    assert "512" in json.dumps(bad(2, "serve", str(odd), "-p", loopback.ANY))
    assert "truncate --size=%512" in bad(2, "serve", str(odd), "-p", loopback.ANY)["next"]
    missing = bad(2, "serve", str(tmp_path / "missing.img"), "-r", "-p", loopback.ANY)
    assert "read-only creates nothing" in missing["message"]
    assert missing["next"] == "check the path"
    assert "smaller" in bad(2, "serve", "ram:99999T", "-p", loopback.ANY)["next"]
    bad(2, "serve", "nonsense:1G")
    bad(2, "serve", "rbd:pool/image")
    bad(2, "serve", "ram:1G", "-T", "no name")
    bad(2, "serve", "ram:1G", "--key", "MaxBurstLenght=1")
    bad(2, "serve", "ram:1G", "--allow", "nobody")
    bad(2, "serve")
    bad(2, "serve", str(odd), "--size", "2000")
    bad(2, "serve", "ram:1G", "--chap-user", "x")
    child, ready = start_serve("ram:1M", "-p", loopback.ANY)
    port = ready["luns"][0]["url"].split("/")[2].rpartition(":")[2]
    try:
        taken = bad(2, "serve", "ram:1M", "-p", f"{loopback.AUTHORITY}:{port}")
        assert port in taken["message"]
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=PATIENCE)


def test_bad_input_of_the_clients(blockwire_target_factory, tmp_path: Path) -> None:
    target = blockwire_target_factory("ram:1M", allow=["iqn.2025-01.org.test:me"])
    with socket.socket(loopback.FAMILY) as deaf:
        deaf.bind((loopback.HOST, 0))  # and does not listen
        nobody = f"{loopback.AUTHORITY}:{deaf.getsockname()[1]}"
        assert bad(3, "discover", nobody)["whose"] == "network"
        assert bad(3, "cp", "/dev/null", f"{nobody}/iqn.2025-01.org.test:x/0")
    assert bad(4, "info", target.url)["code"] == "login.authorization-failure"
    me = ("-i", "iqn.2025-01.org.test:me")
    assert bad(4, "info", f"{target.portals[0]}/iqn.2025-01.org.test:other/0", *me)["code"] == "target.not-found"
    assert bad(7, "discover", target.portals[0], "-i", "iqn.2025-01.org.test:you")["code"] == "nothing.found"
    bad(2, "info", target.url, "--key", "Nonsense=1", *me)
    big = tmp_path / "big.img"
    with big.open("wb") as file:
        file.truncate(2 << 20)
    found = bad(2, "cp", str(big), target.url, *me)
    assert found["code"] == "copy.too-large"
    assert "2 MiB" in found["evidence"]
    assert "1 MiB" in found["evidence"]
    bad(2, "cp", "-", target.url, *me, stdin=bytes((1 << 20) + 512))
    bad(2, "bench", target.url, "--rw", "randwrite", *me)
    bad(2, "bench", target.url, "--bs", "1000", *me)


def test_a_device_error_has_its_own_exit_code(blockwire_target_factory, tmp_path: Path) -> None:
    target = blockwire_target_factory("ram:4M", filters=["fault:op=write,offset=1048576,len=4096,errno=EIO"])
    source = tmp_path / "s.img"
    source.write_bytes(os.urandom(4 << 20))
    found = bad(5, "cp", str(source), target.url)
    assert found["whose"] == "device"
    assert "incomplete" in found["message"]
    reads = blockwire_target_factory("ram:4M", filters=["fault:op=read,offset=1048576,len=4096,errno=EIO"])
    bad(5, "cp", reads.url, str(tmp_path / "out.img"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.img"]


def test_a_full_disk_under_a_write(tmp_path: Path) -> None:
    disk, source = tmp_path / "disk.img", tmp_path / "s.img"
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    source.write_bytes(os.urandom(8 << 20))
    # a file that may not grow beyond 4 MiB stands for a file system that is full
    child = subprocess.Popen(
        ["sh", "-c", 'ulimit -f $((4 << 11)); exec "$@"', "sh", sys.executable, "-m", "blockwire", "serve", str(disk),
         "-p", loopback.ANY, "--json", "--statistics", "0"],
        env=ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    url = json.loads(child.stdout.readline())["luns"][0]["url"]
    try:
        found = bad(5, "cp", str(source), url)
        assert (found["code"], found["whose"]) == ("device.no-space", "device")
        assert "incomplete" in found["message"]
        assert "free space" in found["next"]
        first = bad(5, "bench", url, "--rw", "write", "--bs", "1M", "--time", "0.5", "--overwrite")
        assert first["code"] == "device.no-space"
        assert blockwire("info", url).returncode == 0
    finally:
        child.send_signal(signal.SIGTERM)
        told, _ = child.communicate(timeout=PATIENCE)
    assert "store-fault" in told
    assert bad(1, "cp", str(source), "/dev/full")["next"].startswith("free space")


def test_a_connection_that_is_cut_in_the_middle_of_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "s.img"
    source.write_bytes(os.urandom(24 << 20))
    child, ready = start_serve("ram:32M", "-p", loopback.ANY, "--filter", "delay:write=300ms")
    url = ready["luns"][0]["url"]
    copy = subprocess.Popen(
        [sys.executable, "-m", "blockwire", "cp", str(source), url, "--depth", "2", "--timeout", "4", "--json"],
        env=ENV, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    until_written(url, copy)
    child.kill()
    child.communicate()
    out, err = copy.communicate(timeout=PATIENCE)
    assert copy.returncode == 3, err
    assert out == ""
    found = json.loads(err.splitlines()[-1])["error"]
    assert "incomplete" in found["message"]
    assert "bytes were copied" in found["evidence"]


@pytest.mark.parametrize("word", ["serve", "discover", "ls", "info", "cp", "bench", "demo", "completion"])
def test_help_has_examples(word: str) -> None:
    text = blockwire(word, "--help").stdout.decode()
    assert "xamples" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_serve_ends_in_order_by_either_signal(number: signal.Signals) -> None:
    child, _ = start_serve("ram:1M", "-p", loopback.ANY)
    child.send_signal(number)
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["event"] == "closed"


def test_the_exit_code_of_a_command_that_ctrl_c_ended_with_serve() -> None:
    # Both get it at the same time, as from a terminal: the command has ended already when it is passed on.
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-m", "blockwire", "serve", "ram:1M", "--", "sh", "-c", "echo there; exec sleep 99"],
            env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "there\n"
        os.killpg(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=PATIENCE)
        assert (child.returncode, err) == (130, "")
