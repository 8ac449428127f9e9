"""Copies one LUN to another with the asyncio API: `python examples/asyncio_copy.py [FROM TO]`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import blockwire
import blockwire.aio

CHUNK = 256 * 1024


async def copy(source_url: str, destination_url: str) -> int:
    async with (
        blockwire.aio.open(source_url, read_only=True) as source,
        blockwire.aio.open(destination_url) as destination,
    ):
        if source.size > destination.size:
            raise SystemExit(f"{source.size} bytes do not fit into {destination.size}")
        offsets = iter(range(0, source.size, CHUNK))

        async def worker() -> None:
            for offset in offsets:
                length = min(CHUNK, source.size - offset)
                await destination.pwrite(await source.pread(length, offset), offset)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(worker())
        await destination.flush()
        return source.size


def main(source_url: str, destination_url: str) -> None:
    print(f"copied {asyncio.run(copy(source_url, destination_url))} bytes")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(sys.argv[1], sys.argv[2])
    else:
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(blockwire.Target("ram:16M", "ram:16M"))
            data = os.urandom(16 << 20)
            with blockwire.open(target.urls[0]) as lun:
                lun.pwrite(data, 0)
            main(target.urls[0], target.urls[1])
            with blockwire.open(target.urls[1]) as lun:
                assert lun.pread(len(data), 0) == data
