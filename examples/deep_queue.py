"""Keeps 32 reads in flight from one thread: `python examples/deep_queue.py [URL]`."""

from __future__ import annotations

import contextlib
import random
import sys
import time

import blockwire

BLOCK = 4096
READS = 20_000


def main(url: str) -> None:
    with blockwire.open(url, read_only=True) as lun, lun.queue(depth=32) as queue:
        blocks = lun.size // BLOCK
        began, done, failed = time.perf_counter(), 0, 0
        for submitted in range(READS):
            queue.pread(BLOCK, random.randrange(blocks) * BLOCK)
            if submitted >= 31:
                for completion in queue.completions(min=1):
                    done += 1
                    failed += completion.error is not None
        while done < READS:
            for completion in queue.completions(min=1):
                done += 1
                failed += completion.error is not None
        seconds = time.perf_counter() - began
    print(f"{done} reads of {BLOCK} bytes, {failed} failed, {done / seconds:.0f} per second")


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        main(sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(blockwire.Target("ram:64M")).url)
