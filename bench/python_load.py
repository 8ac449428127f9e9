"""Load from the public Python API: a loop of `pread` at depth 1, `queue(depth)` above. One JSON object.

python -m bench.python_load URL --rw randread --bs 4096 --qd 1 --time 2
"""

from __future__ import annotations

import argparse
import json
import random
import time

import blockwire


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--rw", choices=["randread", "randwrite"], default="randread")
    parser.add_argument("--bs", type=int, default=4096)
    parser.add_argument("--qd", type=int, default=1)
    parser.add_argument("--time", type=float, default=2.0)
    options = parser.parse_args()
    writing = options.rw == "randwrite"
    length: int = options.bs
    data = bytes(range(256)) * (length // 256)
    with blockwire.open(options.url, read_only=not writing) as lun:
        # Drawn before the clock starts: the generator is not what is measured.
        draw = random.Random(1)
        offsets = [draw.randrange(lun.size // length) * length for _ in range(1 << 16)]
        mask = len(offsets) - 1
        count = 0
        errors = 0
        begun = time.monotonic()
        end = begun + options.time
        if options.qd == 1:
            while time.monotonic() < end:
                if writing:
                    lun.pwrite(data, offsets[count & mask])
                else:
                    lun.pread(length, offsets[count & mask])
                count += 1
            seconds = time.monotonic() - begun
        else:
            with lun.queue(depth=options.qd) as queue:
                submitted = 0
                while time.monotonic() < end:
                    while submitted - count < options.qd:
                        if writing:
                            queue.pwrite(data, offsets[submitted & mask])
                        else:
                            queue.pread(length, offsets[submitted & mask])
                        submitted += 1
                    for done in queue.completions(min=1):
                        errors += done.error is not None
                        count += 1
                seconds = time.monotonic() - begun
    print(
        json.dumps(
            {
                "schema": "blockwire.bench.python/1",
                "iops": count / seconds,
                "bytes_per_second": count * length / seconds,
                "reads": 0 if writing else count,
                "writes": count if writing else 0,
                "errors": errors,
                "seconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
