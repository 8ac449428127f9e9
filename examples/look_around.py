"""What a portal offers, down to a SCSI command: `python examples/look_around.py [HOST:PORT]`."""

from __future__ import annotations

import contextlib
import sys

import blockwire


def main(portal: str) -> None:
    for target in blockwire.discover(portal):
        print(target.name)
        with blockwire.connect(f"iscsi://{portal}/{target.name}") as session:
            print("  agreed:", ", ".join(f"{name}={value}" for name, value in sorted(session.keys.items())))
            for found in session.luns():
                print(f"  LUN {found.lun}: {found.size} bytes, {found.vendor} {found.product}, serial {found.serial}")
                # INQUIRY, page 83h: how the device names itself (SPC-4 7.8.6).
                with session.lun(found.lun) as lun:
                    answer = lun.scsi(bytes([0x12, 1, 0x83, 0, 252, 0]), data_in=252)
                    print(f"    status {answer.status}, {len(answer.data)} bytes of identification")


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        if len(sys.argv) > 1:
            main(sys.argv[1])
        else:
            main(stack.enter_context(blockwire.Target("ram:64M", "null:1G")).portals[0])
