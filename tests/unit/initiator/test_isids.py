"""ISIDs: the same towards the same target after a restart, never one that another program uses."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockwire.initiator.isids import KeptIsids, RandomIsids, kept_isids

ME, T1, T2 = "iqn.2025-01.org.test:i", "iqn.2025-01.org.test:t1", "iqn.2025-01.org.test:t2"


def test_the_same_after_a_restart(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        isids = KeptIsids(tmp_path)
        seen.append((isids.take(ME, T1), isids.take(ME, T1), isids.take(ME, T2)))
        isids.close()
    assert len(set(seen)) == 1
    first, second, elsewhere = seen[0]
    # Conservative reuse (RFC 7143 10.1.1): sessions with different targets share ISIDs.
    assert first == elsewhere != second
    assert first.t == 2  # type 10b, random
    assert oct((tmp_path / "authority").stat().st_mode & 0o600) == oct(0o600)


def test_the_lowest_that_is_free(tmp_path: Path) -> None:
    isids = KeptIsids(tmp_path)
    taken = [isids.take(ME, T1) for _ in range(4)]
    assert [isid.d for isid in taken] == [0, 1, 2, 3]
    isids.release(ME, T1, taken[1])
    isids.release(ME, T1, taken[1])
    assert isids.take(ME.upper(), T1.upper()) == taken[1]
    assert isids.take("iqn.2025-01.org.test:other", T1) == taken[0]
    isids.close()


def test_two_initiators_of_one_program_never_share(tmp_path: Path) -> None:
    one, two = KeptIsids(tmp_path), KeptIsids(tmp_path)
    assert one.take(ME, T1) != two.take(ME, T1)
    one.close()
    three = KeptIsids(tmp_path)
    assert three.take(ME, T1).d == 0
    two.close()
    three.close()


def test_a_file_that_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isids = KeptIsids(tmp_path)
    kept = isids.take(ME, T1)

    def no_locks(*_: object) -> int:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", no_locks)
        stray = isids.take(ME, T1)
    assert stray != kept
    # Its release is not that of the ISID which has the same qualifier.
    isids.release(ME, T1, stray)
    assert isids.take(ME, T1) != kept
    isids.close()


def test_two_programs_never_share(tmp_path: Path) -> None:
    isids = KeptIsids(tmp_path)
    mine = isids.take(ME, T1)
    code = (
        "import sys; from pathlib import Path; from blockwire.initiator.isids import KeptIsids;"
        "print(KeptIsids(Path(sys.argv[1])).take(sys.argv[2], sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), ME, T1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def other() -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=True, env=environment)
        return done.stdout.strip()

    assert other() != str(mine)
    isids.release(ME, T1, mine)
    # A program that ended without a word holds nothing either.
    assert other() == str(mine) == other()
    isids.close()


def test_a_thousand(tmp_path: Path) -> None:
    isids = KeptIsids(tmp_path)
    taken = {isids.take(ME, T1) for _ in range(1000)}
    assert len(taken) == 1000
    assert len(os.listdir(tmp_path)) == 2
    isids.close()


def test_where_nothing_can_be_kept(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert isinstance(kept_isids(), RandomIsids)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert isinstance(kept_isids(), KeptIsids)
    isids = RandomIsids()
    assert isids.take(ME, T1) != isids.take(ME, T1)
