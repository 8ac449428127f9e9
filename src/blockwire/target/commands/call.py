"""One command on its way through the slow path: what a handler sees, and the two ways it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from blockwire.dataplane.api import Answer, Collect, CommandForControl, DataPlane
from blockwire.dataplane.api import Status as StatusAnswer
from blockwire.dataplane.dispatch import Dispatch
from blockwire.scsi.cdb import Cdb
from blockwire.scsi.sense import Sense, SenseCode, illegal_request
from blockwire.scsi.status import Status
from blockwire.target.logical_unit import LogicalUnit
from blockwire.target.nexus import Nexus

_C = TypeVar("_C", bound=Cdb)


class Refused(Exception):
    """The command ends with CHECK CONDITION and this sense data."""

    def __init__(self, sense: Sense) -> None:
        super().__init__(sense.describe())
        self.sense = sense


@dataclass(frozen=True, slots=True)
class TargetView:
    """What commands may know of the target device beyond their own logical unit."""

    name: str
    portal_group_tag: int
    luns: tuple[int, ...]
    task_management: int
    """Supported functions as :class:`blockwire.scsi.supported.TaskManagementSupport`."""
    protocol_level: int = 1
    """iSCSIProtocolLevel of the session (RFC 7144 7.1.1)."""


@dataclass(frozen=True, slots=True)
class Call:
    """A command for a logical unit; ``nexus`` is there whenever ``unit`` is."""

    command: CommandForControl
    target: TargetView
    plane: DataPlane
    dispatch: Dispatch
    unit: LogicalUnit
    nexus: Nexus
    mode_changed: Callable[[LogicalUnit, Nexus], None]
    """To be called when MODE SELECT changed what other nexuses know."""

    def parse(self, layout: type[_C]) -> _C:
        """The CDB as ``layout``."""
        return layout.parse(self.command.cdb)

    def parameter_list(self, length: int) -> bytes | Collect:
        """``length`` bytes of Data-Out, or the answer that fetches them first.

        A transfer shorter than the CDB's list ends with PARAMETER LIST LENGTH ERROR: nothing may be guessed.
        """
        if length > self.command.expected_length:
            raise Refused(illegal_request(SenseCode.PARAMETER_LIST_LENGTH_ERROR))
        if len(self.command.data) >= length:
            return self.command.data[:length]
        return Collect(length)


Handler: TypeAlias = Callable[[Call], Answer | Awaitable[Answer]]
"""Answers one command at once, or as a coroutine when it needs the store."""


def good(data: bytes = b"", allocation: int | None = None) -> StatusAnswer:
    """GOOD with Data-In, cut to the allocation length."""
    return StatusAnswer(Status.GOOD, data=data if allocation is None else data[:allocation])


def check_condition(sense: Sense, *, descriptor: bool = False) -> StatusAnswer:
    """CHECK CONDITION with sense data in the format the control mode page asks for."""
    return StatusAnswer(Status.CHECK_CONDITION, sense=sense.encode(descriptor=descriptor))


def invalid_field(byte: int, bit: int | None = None) -> Refused:
    """INVALID FIELD IN CDB, pointing at it."""
    return Refused(illegal_request(SenseCode.INVALID_FIELD_IN_CDB, byte, bit))
