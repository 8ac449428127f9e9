"""tgt and istgt as targets: each on a free port of loopback, with one disk, gone when the block is left."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import subprocess
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import loopback
from tests.interop import peers
from tests.waiting import NeverCame, wait_until


@dataclass(frozen=True)
class PeerTarget:
    """A foreign target that serves one disk."""

    name: str
    pid: int
    port: int
    iqn: str
    lun: int
    size: int
    backing: Path

    @property
    def portal(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The disk's URL, as libiscsi, QEMU and Blockwire write it."""
        return f"iscsi://{self.portal}/{self.iqn}/{self.lun}"


@dataclass(frozen=True)
class Chap:
    """A CHAP account of an initiator, and the target's own for mutual CHAP."""

    user: str = "alice"
    secret: str = "initiators-sec-1"
    own_user: str = "disk"
    own_secret: str = "targets-secret-2"


def filled(path: Path, size: int) -> Path:
    """A backing file with every block allocated: an empty one on tmpfs reads faster than a disk ever would."""
    chunk = bytes(range(256)) * 4096
    with path.open("wb") as image:
        remaining = size
        while remaining:
            remaining -= image.write(chunk[: min(len(chunk), remaining)])
    return path


_control_ports = itertools.count(1)

PATIENCE = (20, 20, 20, 90)
"""Seconds in which a daemon has to listen, each time on another port: somebody else may have taken one before it did,
and tgtd goes on without it."""


def _placed(command: list[str], placement: Sequence[str]) -> list[str]:
    """Prefix a command with its placement (`taskset -c 1`), for the benchmark."""
    return [*placement, *command]


@contextlib.contextmanager
def _listening(
    name: str, log: Path, start: Callable[[int], subprocess.Popen[bytes]]
) -> Iterator[tuple[subprocess.Popen[bytes], int, Callable[[], str]]]:
    """A daemon that `start` runs on a port, once it listens there: its process, the port, and why it has ended."""
    for attempt, patience in enumerate(PATIENCE, 1):
        port = loopback.free_port("127.0.0.1")
        process = start(port)

        def ended(process: subprocess.Popen[bytes] = process) -> str:
            return "" if process.poll() is None else f"{name} ended: {log.read_text(errors='replace')}"

        with peers.killed_at_the_end(process):
            listens = functools.partial(peers.listens, process.pid, port)
            try:
                wait_until(listens, f"{name} listens", patience, ended)
            except NeverCame:
                if attempt == len(PATIENCE):
                    raise
                continue
            yield process, port, ended
            return


@contextlib.contextmanager
def tgt(
    directory: Path,
    size: int = 64 << 20,
    placement: Sequence[str] = (),
    chap: Chap | None = None,
    digests: str = "None,CRC32C",
) -> Iterator[PeerTarget]:
    """Run `tgtd` with one file-backed disk of `size` bytes as LUN 1 (its LUN 0 is a controller).

    :param directory: an empty directory for the disk and the control socket; a short path (a socket's limit is 107)
    :param digests: the values of HeaderDigest and DataDigest that it takes; of several it prefers its last one
    """
    peers.require("tgtd", "tgtadm")
    backing = filled(directory / "tgt.img", size)
    # Each daemon has its own management socket; -C counts within it.
    control = str(os.getpid() % 20000 + next(_control_ports) + 10)
    environment = peers.ENVIRONMENT | {"TGT_IPC_SOCKET": str(directory / "ipc")}
    log = directory / "tgtd.log"

    def start(port: int) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                _placed(["tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"], placement),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            )  # fmt: skip

    def tgtadm(*arguments: str, check: bool = True) -> bool:
        done = subprocess.run(
            ["tgtadm", "-C", control, "--lld", "iscsi", *arguments],
            capture_output=True, text=True, timeout=90, check=False, env=environment,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise peers.ToolFailure(f"tgtadm {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.returncode == 0

    with _listening("tgtd", log, start) as (process, port, ended):
        iqn = f"iqn.2026-01.test.blockwire:tgt.{port}"
        wait_until(
            lambda: tgtadm("--op", "new", "--mode", "target", "--tid", "1", "-T", iqn, check=False),
            "tgtd answers its management socket",
            useless=ended,
        )
        for digest in ("HeaderDigest", "DataDigest"):  # tgt does none unless told to
            tgtadm("--op", "update", "--mode", "target", "--tid", "1", "--name", digest, "--value", digests)
        tgtadm("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(backing))
        tgtadm("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        if chap is not None:
            for user, secret in ((chap.user, chap.secret), (chap.own_user, chap.own_secret)):
                tgtadm("--op", "new", "--mode", "account", "--user", user, "--password", secret)
            bind = ("--op", "bind", "--mode", "account", "--tid", "1", "--user")
            tgtadm(*bind, chap.user)
            tgtadm(*bind, chap.own_user, "--outgoing")
        yield PeerTarget("tgt", process.pid, port, iqn, 1, size, backing)


ISTGT_CONFIGURATION = """\
    [Global]
      Comment "tests"
      NodeBase "iqn.2026-01.test.blockwire"
      PidFile {directory}/istgt.pid
      AuthFile {directory}/auth.conf
      MediaDirectory {directory}
      LogFacility "local7"
      Timeout 30
      NopInInterval 20
      DiscoveryAuthMethod {method}
      DiscoveryAuthGroup {group}
      MaxSessions 16
      MaxConnections 4
      MaxR2T 32
      MaxOutstandingR2T 16
      DefaultTime2Wait 2
      DefaultTime2Retain 60
      FirstBurstLength 262144
      MaxBurstLength 1048576
      MaxRecvDataSegmentLength 262144
      InitialR2T Yes
      ImmediateData Yes
      DataPDUInOrder Yes
      DataSequenceInOrder Yes
      ErrorRecoveryLevel 0
    [UnitControl]
      Comment "unused"
      AuthMethod CHAP Mutual
      AuthGroup None
      Portal UC1 127.0.0.1:{control_port}
      Netmask 127.0.0.1
    [PortalGroup1]
      Comment "loopback"
      Portal DA1 127.0.0.1:{port}
    [InitiatorGroup1]
      Comment "loopback"
      InitiatorName "ALL"
      Netmask 127.0.0.0/8
    [LogicalUnit1]
      TargetName istgt.{port}
      TargetAlias "disk"
      Mapping PortalGroup1 InitiatorGroup1
      AuthMethod {method}
      AuthGroup {group}
      UseDigest Auto
      UnitType Disk
      LUN0 Storage {backing} Auto
"""


@contextlib.contextmanager
def istgt(
    directory: Path, size: int = 64 << 20, placement: Sequence[str] = (), chap: Chap | None = None
) -> Iterator[PeerTarget]:
    """Run `istgt` with one file-backed disk of `size` bytes as LUN 0."""
    peers.require("istgt")
    backing = filled(directory / "istgt.img", size)
    configuration = directory / "istgt.conf"
    secrets = directory / "auth.conf"
    secrets.write_text(
        f'[AuthGroup1]\n  Auth "{chap.user}" "{chap.secret}" "{chap.own_user}" "{chap.own_secret}"\n' if chap else ""
    )
    secrets.chmod(0o600)
    log = directory / "istgt.log"

    def start(port: int) -> subprocess.Popen[bytes]:
        configuration.write_text(
            textwrap.dedent(ISTGT_CONFIGURATION).format(
                directory=directory,
                port=port,
                control_port=loopback.free_port("127.0.0.1"),
                backing=backing,
                method="CHAP" if chap else "Auto",
                group="AuthGroup1" if chap else "None",
            )
        )
        with log.open("wb") as output:
            return subprocess.Popen(
                _placed(["istgt", "-D", "-c", str(configuration), "-p", str(directory / "istgt.pid")], placement),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=peers.ENVIRONMENT,
            )  # fmt: skip

    with _listening("istgt", log, start) as (process, port, _):
        iqn = f"iqn.2026-01.test.blockwire:istgt.{port}"
        yield PeerTarget("istgt", process.pid, port, iqn, 0, size, backing)
