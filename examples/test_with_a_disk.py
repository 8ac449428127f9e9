"""A test with a disk of the pytest plug-in, which comes with the wheel: `pytest examples/test_with_a_disk.py`."""

from __future__ import annotations

from typing import Any

import blockwire


def test_what_was_written_is_read(blockwire_target: Any) -> None:
    with blockwire.open(blockwire_target.url) as lun:
        lun.pwrite(b"\xa5" * 4096, 8192)
        assert lun.pread(4096, 8192) == b"\xa5" * 4096
