"""The foreign tools of the interop tests: where they are, how they are run, what their output means.

Every tool runs with a time limit, because some hang (`iscsi-ls -s` against istgt). A tool that is not installed skips
the test with its Debian package named; with `CI` set in the environment it fails the test instead, so that a suite
that ran without its strangers can never be called done.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import AnyStr

import pytest

PACKAGES = {
    "iscsi-ls": "libiscsi-bin",
    "iscsi-inq": "libiscsi-bin",
    "iscsi-readcapacity16": "libiscsi-bin",
    "iscsi-perf": "libiscsi-bin",
    "iscsi-test-cu": "libiscsi-bin",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "tgtd": "tgt",
    "tgtadm": "tgt",
    "istgt": "istgt",
    "tshark": "tshark",
    "reordercap": "wireshark-common",
}
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": SEARCH_PATH, "HOME": os.environ.get("HOME", "/")}


def absent(reason: str) -> None:
    """Skip the test for `reason`, or fail it where every peer has to be present (`CI` is set)."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (a failure because CI is set; `make peers` installs what is missing)", pytrace=False)
    pytest.skip(f"{reason}: `make peers` installs it")


def require(*tools: str) -> None:
    """Skip (in CI: fail) unless all of these commands are installed."""
    for tool in tools:
        if shutil.which(tool, path=SEARCH_PATH) is None:
            absent(f"{tool} (Debian package {PACKAGES[tool]}) is not installed")


def require_qemu_iscsi() -> None:
    """Skip (in CI: fail) unless QEMU's tools are installed with the iSCSI driver, which Debian ships apart."""
    require("qemu-img", "qemu-io")
    helped = subprocess.run(
        ["qemu-img", "--help"], capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT
    )
    formats = re.search(r"Supported formats:(.*)", helped.stdout)
    if formats is None or "iscsi" not in formats.group(1).split():
        absent("QEMU's iSCSI driver (Debian package qemu-block-extra) is not installed")


class ToolFailure(AssertionError):
    """A foreign tool failed, or did not end in its time; the message carries all it printed."""


@dataclass(frozen=True)
class Output:
    """What a tool printed and how it ended."""

    command: str
    returncode: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"$ {self.command}\n[exit {self.returncode}]\n{self.stdout}\n{self.stderr}"


def run(tool: str, *arguments: str, timeout: float = 120, check: bool = True, cwd: Path | None = None) -> Output:
    """Run a foreign tool to its end.

    :param timeout: seconds; afterwards the tool is killed and `ToolFailure` says so
    :param check: an exit code other than 0 is a `ToolFailure`
    """
    require(tool)
    command = [shutil.which(tool, path=SEARCH_PATH) or tool, *arguments]
    text = " ".join([tool, *arguments])
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as late:
        printed = b"".join(part for part in (late.stdout, late.stderr) if isinstance(part, bytes))
        raise ToolFailure(f"$ {text}\nno end within {timeout} s\n{printed.decode(errors='replace')}") from None
    output = Output(text, done.returncode, done.stdout, done.stderr)
    if check and done.returncode != 0:
        raise ToolFailure(str(output))
    return output


# libiscsi


@dataclass(frozen=True)
class SuiteResult:
    """The closing table of `iscsi-test-cu` for one suite."""

    tests: int
    passed: int
    failed: int
    asserts_failed: int
    skipped: tuple[str, ...]
    output: str


def iscsi_ls(portal: str, show_luns: bool = False, timeout: float = 120) -> str:
    """`iscsi-ls [-s] iscsi://PORTAL`, its text."""
    return run("iscsi-ls", *(["-s"] if show_luns else []), f"iscsi://{portal}", timeout=timeout).stdout


def iscsi_inq(url: str, page: int | None = None) -> str:
    """Standard INQUIRY data, or one VPD page, as `iscsi-inq` decodes it."""
    wanted = [] if page is None else ["-e", "1", "-c", str(page)]
    return run("iscsi-inq", *wanted, url).stdout


def iscsi_readcapacity16(url: str) -> int:
    """The size in bytes that `iscsi-readcapacity16` works out."""
    printed = run("iscsi-readcapacity16", url).stdout
    found = re.search(r"Total size:\s*(\d+)", printed)
    assert found, printed
    return int(found.group(1))


def iscsi_perf(
    url: str, *, depth: int = 32, blocks: int = 8, random: bool = True, seconds: int = 2, margin: float = 120
) -> float:
    """Reads for `seconds` with libiscsi's own load generator; returns I/Os per second. It can only read.

    :param blocks: logical blocks per request
    """
    printed = run(
        "iscsi-perf",
        *(["-r"] if random else []),
        *("-m", str(depth), "-b", str(blocks), "-t", str(seconds), url),
        timeout=seconds + margin,
    ).stdout
    # One line rewritten in place: "iops average 51234 (200 MB/s)    iops current …"
    found = re.findall(r"iops average\s+(\d+)", printed)
    assert found, printed
    return float(found[-1])


def iscsi_test_cu(url: str, suite: str, *, dataloss: bool = True, timeout: float = 150) -> SuiteResult:
    """One suite (or test) of libiscsi's conformance tests: `SCSI.Read10`, `SCSI.Read10.Simple`."""
    flags = ["--dataloss"] if dataloss else []
    output = run("iscsi-test-cu", *flags, f"--test={suite}", url, timeout=timeout, check=False)
    printed = output.stdout + output.stderr
    # "              tests      5      5      5      0        0": total, ran, passed, failed, inactive
    row = re.search(r"^\s*tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", printed, re.MULTILINE)
    asserts = re.search(r"^\s*asserts\s+\d+\s+\d+\s+\d+\s+(\d+)", printed, re.MULTILINE)
    if row is None or asserts is None:
        raise ToolFailure(str(output))
    # Before and after every suite the tool itself asks for reservations left over, and says so where it cannot.
    skipped = tuple(
        line.strip()
        for line in printed.splitlines()
        if "[SKIPPED]" in line and "PERSISTENT RESERVE IN is not implemented" not in line
    )
    return SuiteResult(
        tests=int(row.group(2)),
        passed=int(row.group(3)),
        failed=int(row.group(4)),
        asserts_failed=int(asserts.group(1)),
        skipped=skipped,
        output=str(output),
    )


# QEMU


def qemu_convert(source: str, destination: str, *, create: bool, timeout: float = 150) -> None:
    """`qemu-img convert` between raw files and iSCSI URLs.

    :param create: make the destination file; a LUN is there already (`-n`)
    """
    run(
        "qemu-img", "convert", *([] if create else ["-n"]), "-f", "raw", "-O", "raw", source, destination,
        timeout=timeout,
    )  # fmt: skip


def qemu_compare(left: str, right: str, timeout: float = 150) -> None:
    """`qemu-img compare`: raises `ToolFailure` naming the offset where two images differ."""
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", left, right, timeout=timeout)


def qemu_io(url: str, *commands: str, timeout: float = 150) -> str:
    """`qemu-io` commands in order; a failed pattern verification raises."""
    flags = [part for command in commands for part in ("-c", command)]
    output = run("qemu-io", "-f", "raw", *flags, url, timeout=timeout)
    # qemu-io has ended with 0 after a failed `read -P` in some versions.
    if "Pattern verification failed" in output.stdout or "failed:" in output.stdout + output.stderr:
        raise ToolFailure(str(output))
    return output.stdout


def qemu_bench(
    url: str, *, count: int, depth: int, size: int = 4096, write: bool = False, timeout: float = 150
) -> float:
    """`qemu-img bench`: sequential I/O with QEMU's iSCSI driver; returns I/Os per second."""
    printed = run(
        "qemu-img", "bench", "-f", "raw", "-t", "none", *(["-w"] if write else []),
        *("-c", str(count), "-d", str(depth), "-s", str(size), url),
        timeout=timeout,
    ).stdout  # fmt: skip
    found = re.search(r"Run completed in ([\d.]+) seconds", printed)
    assert found, printed
    return count / max(float(found.group(1)), 1e-3)


# Shared by the modules that start servers


def listens(process: int, port: int) -> bool:
    """Whether this process, and not somebody else, listens on `port` by IPv4."""
    with contextlib.suppress(OSError):
        open_files = {os.readlink(entry) for entry in Path(f"/proc/{process}/fd").iterdir()}
        for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()  # sl, local address, remote address, state (0A is LISTEN), …, inode
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                return f"socket:[{fields[9]}]" in open_files
    return False


@contextlib.contextmanager
def killed_at_the_end(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """End one process by its own pid with SIGKILL: tgtd ignores SIGTERM while it has targets."""
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=60)
