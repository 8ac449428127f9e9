"""The initiator's own name and the file it is kept in."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockwire import errors
from blockwire.initiator.identity import VARIABLE, default_initiator_name, name_file


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def test_the_same_name_ever_after() -> None:
    name = default_initiator_name()
    assert name.startswith("iqn.")
    assert default_initiator_name() == name


@pytest.mark.parametrize("content", [b"", b"no name\n", b"\xff\xfe\x00i"])
def test_a_file_that_holds_no_name_is_named(content: bytes) -> None:
    name_file().parent.mkdir(parents=True)
    name_file().write_bytes(content)
    with pytest.raises(errors.UsageError) as caught:
        default_initiator_name()
    assert str(name_file()) in caught.value.evidence + caught.value.next


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/nowhere")
    assert default_initiator_name() == default_initiator_name()
