"""Several connections in one session with the one foreign target of the suite that takes them."""

from __future__ import annotations

import os
from pathlib import Path

import blockwire
from tests.interop.peer_targets import istgt


def test_two_connections_to_istgt(tmp_path: Path) -> None:
    with (
        istgt(tmp_path, 16 << 20) as target,
        blockwire.open(target.url, keys={"MaxConnections": "2"}) as lun,
    ):
        assert list(lun.session.cids) == [1, 2]
        data = os.urandom(1 << 20)
        for place in range(8):
            lun.pwrite(data, place << 20)
        assert all(lun.pread(1 << 20, place << 20) == data for place in range(8))
        lun.session.remove_connection(1)
        assert list(lun.session.cids) == [2]
        assert lun.pread(1 << 20, 0) == data
