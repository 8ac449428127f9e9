"""A program whose connection is cut again and again: `python examples/flaky_network.py`.

The initiator opens its session again and repeats what was unfinished. The program sees no error; the data are right.
"""

from __future__ import annotations

import os

import blockwire
from blockwire.initiator.options import Timers
from blockwire.testing.fault_proxy import Fault, FaultProxy

BLOCK = 64 * 1024


def main() -> None:
    with blockwire.Target("ram:16M", keys={"DefaultTime2Wait": "0"}) as target, FaultProxy(target.portals[0]) as proxy:
        # The first connection is lost while it writes, the second while it reads.
        proxy.plan(Fault(cut_to_server=1_000_000), Fault(cut_to_client=40_000))
        data = os.urandom(8 << 20)
        timers = Timers(timeout=10, reopen_first=0.02)
        url = f"iscsi://{proxy.address}/{target.name}/0"
        with blockwire.open(url, timers=timers, keys={"DefaultTime2Wait": "0"}) as lun:
            for offset in range(0, len(data), BLOCK):
                lun.pwrite(data[offset : offset + BLOCK], offset)
            assert b"".join(lun.pread(BLOCK, offset) for offset in range(0, len(data), BLOCK)) == data
        for connection in proxy.connections:
            print(f"connection {connection.number}: {connection.to_server} bytes there, {connection.ended or 'open'}")
        print("the data are right")


if __name__ == "__main__":
    main()
