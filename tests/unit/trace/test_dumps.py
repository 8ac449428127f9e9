"""Where traces go, how many, and what does not stand in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blockwire import errors
from blockwire.trace import Dumps


class Plane:
    """As much of a data plane as a trace needs."""

    def trace(self, session: int | None = None) -> bytes:
        return f"the headers of {session}".encode()


PLANE: Any = Plane()


def test_a_file_names_session_and_reason(tmp_path: Path) -> None:
    dumps = Dumps(tmp_path / "made" / "for" / "it")
    path = dumps.write(PLANE, 7, "ConnectionLost")
    assert path is not None
    assert path.read_bytes() == b"the headers of 7"
    assert path.name.endswith("-7-0-connection-lost.pcapng")
    assert dumps.write(PLANE, 7, "../../etc: \n") != path
    assert len(list(dumps.directory.iterdir())) == 2
    assert [found.parent for found in dumps.files] == [dumps.directory] * 2


def test_a_line_that_fails_all_night_does_not_fill_the_disk(tmp_path: Path) -> None:
    dumps = Dumps(tmp_path, most=3)
    written = [dumps.write(PLANE, 1, "DigestFailure") for _ in range(10)]
    assert [path is not None for path in written] == [True] * 3 + [False] * 7
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_is_seen_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(unfinished: Path, path: Path) -> None:
        assert unfinished.read_bytes() == b"the headers of 1"
        assert not list(tmp_path.glob("*.pcapng"))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", name)
    assert Dumps(tmp_path).write(PLANE, 1, "ConnectionLost") is None
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_said_at_the_start_and_harmless_later(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.Error, match="cannot write traces"):
        Dumps(tmp_path / "file" / "below")
    dumps = Dumps(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert dumps.write(PLANE, 1, "ConnectionLost") is None
