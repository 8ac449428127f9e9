"""Departures of targets that are gone along with by name."""

from __future__ import annotations

import pytest

from blockwire import errors
from blockwire.initiator import api
from blockwire.initiator.options import QUIRKS
from blockwire.names import Url

URL = Url.parse("iscsi://127.0.0.1/iqn.2025-01.org.test:t/0")


def options(*quirks: str) -> tuple[str, ...]:
    return api.options(URL, None, None, None, None, None, None, None, None, quirks).quirks


def test_none_is_the_default() -> None:
    assert api.options(URL, None, None, None, None, None, None, None, None).quirks == ()


def test_known_ones_pass_and_others_are_named() -> None:
    assert options("reassign-lun", "reassign-answer") == tuple(QUIRKS)
    with pytest.raises(errors.UsageError) as caught:
        options("reassign-lun", "be-lenient")
    assert caught.value.code == "usage.quirk"
    assert "be-lenient" in str(caught.value)
