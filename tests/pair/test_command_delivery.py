"""How our initiator issues commands (RFC 7143 4.2.2.1, 10.6), seen on the wire."""

from __future__ import annotations

import asyncio

from blockwire.scsi.status import Status
from blockwire.testing.memory_link import INITIATOR
from blockwire.testing.stepped_pair import SteppedPair
from blockwire.wire.constants import Opcode
from tests.pair.exchange import pattern

SPACE_BACKWARD_ONE_FILEMARK = bytes.fromhex("1101ffffff00")  # SSC-3 7.7
EXCHANGE_MEDIUM = bytes.fromhex("a600000000010001000100000000"[:24])  # SMC-3 6.4
START_STOP_UNIT = bytes.fromhex("1b0000000100")
PERSISTENT_RESERVE_OUT_REGISTER = bytes.fromhex("5f000000000000001800")
MODE_SELECT = bytes.fromhex("151000000000")
WRITE_AND_VERIFY = bytes.fromhex("2e000000000000000100")


def test_commands_that_change_the_device_are_never_immediate() -> None:
    """10.6: MUST be non-immediate, for ordered delivery. There is no way to ask for anything else, and nothing of our
    own does: each takes the next CmdSN."""
    with SteppedPair("ram:1M", tapped=True) as pair:

        async def body() -> None:
            lun = await pair.open()
            await lun.pwrite(pattern(1, 8192), 0)
            await lun.pwrite(pattern(2, 512), 512, fua=True)
            await asyncio.gather(*(lun.pwrite(pattern(n, 512), 4096 + 512 * n) for n in range(5)))
            await lun.zero(0, 4096)
            await lun.discard(8192, 4096)
            await lun.flush()
            async with lun.queue(4) as queue:
                await queue.pwrite(pattern(3, 4096), 16384)
                await queue.flush()
            for command, data in (
                (SPACE_BACKWARD_ONE_FILEMARK, b""),
                (EXCHANGE_MEDIUM, b""),
                (START_STOP_UNIT, b""),
                (MODE_SELECT, b""),
                (PERSISTENT_RESERVE_OUT_REGISTER, bytes(24)),
                (WRITE_AND_VERIFY, pattern(4, 512)),
            ):
                result = await lun.scsi(command, 0, data)
                assert result.status in (Status.GOOD, Status.CHECK_CONDITION)
            await lun.close()

        pair.run(body())
        commands = [pdu.header for pdu in pair.link.tap.pdus(INITIATOR) if pdu.opcode == Opcode.SCSI_COMMAND]
        operations = {header[32] for header in commands}
        assert operations >= {0x11, 0xA6, 0x1B, 0x15, 0x5F, 0x2E, 0x35}, "what this is about did pass"
        assert len(commands) > 20
        assert {header[0] & 0x40 for header in commands} == {0}
        numbers = [int.from_bytes(header[24:28], "big") for header in commands]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
