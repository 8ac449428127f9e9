"""Both ends in one process under virtual time, without threads or sockets: `python examples/virtual_time.py`."""

from __future__ import annotations

import time

from blockwire.testing.stepped_pair import SteppedPair


def main() -> None:
    began = time.perf_counter()
    with SteppedPair("ram:1M") as pair:

        async def body() -> None:
            async with await pair.open() as lun:
                await lun.pwrite(b"x" * 4096, 0)
                # The cable is out for a minute, and nobody is told: the keep-alive finds out, the session is opened
                # again, and the read that was under way is repeated.
                pair.link.stall()
                pair.loop.call_later(60.0, pair.network.restore)
                assert await lun.pread(4096, 0) == b"x" * 4096

        start = pair.now
        pair.run(body())
        print(f"{pair.now - start:.1f} virtual seconds, {len(pair.links)} connections")
    print(f"{time.perf_counter() - began:.3f} real seconds")


if __name__ == "__main__":
    main()
