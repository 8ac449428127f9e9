"""Opens a LUN, reads, writes, flushes, and looks at it as a file: `python examples/read_write.py [URL]`."""

from __future__ import annotations

import contextlib
import sys

import blockwire


def main(url: str) -> None:
    with blockwire.open(url) as lun:
        print(f"{lun.size} bytes in blocks of {lun.block_size}: {lun.identity}")
        block = b"hello, disk".ljust(lun.block_size, b"\0")
        lun.pwrite(block, 0)
        lun.flush()
        assert lun.pread(lun.block_size, 0) == block

        # A file takes any offset and length; whole blocks are read and written underneath.
        with lun.makefile("r+b") as file:
            file.seek(7)
            file.write(b"world")
        print(lun.pread(lun.block_size, 0)[:12].decode())

        try:
            lun.pread(10, 3)
        except blockwire.Error as error:
            print(f"{error.code}: {error} ({error.next})")


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        main(sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(blockwire.Target("ram:64M")).url)
