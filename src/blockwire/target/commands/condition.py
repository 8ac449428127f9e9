"""Commands about the unit's condition: TEST UNIT READY, REQUEST SENSE, START STOP UNIT, PREVENT ALLOW, diagnostics."""

from __future__ import annotations

from blockwire.dataplane.api import Answer, StoreOp
from blockwire.scsi import cdb as cdbs
from blockwire.scsi.sense import Sense, SenseKey, unit_attention
from blockwire.target.commands.call import Call, good, invalid_field


def test_unit_ready(call: Call) -> Answer:
    """TEST UNIT READY: the store is open, so the unit is ready."""
    return good()


def request_sense(call: Call) -> Answer:
    """REQUEST SENSE: the pending unit attention as data, which clears it, else NO SENSE (SPC-4 6.39)."""
    cdb = call.parse(cdbs.RequestSense)
    code = call.nexus.take()
    sense = Sense(SenseKey.NO_SENSE) if code is None else unit_attention(code)
    return good(sense.encode(descriptor=cdb.descriptor), cdb.allocation_length)


def start_stop_unit(call: Call) -> Answer:
    """START STOP UNIT: this unit is always started; there is no medium to eject and no power condition to change.

    Stopping is refused: one initiator would take the disk from all others.
    """
    cdb = call.parse(cdbs.StartStopUnit)
    if cdb.power_condition:
        raise invalid_field(4, 7)
    if cdb.load_eject:
        raise invalid_field(4, 1)
    if not cdb.start:
        raise invalid_field(4, 0)
    return good()


def prevent_allow_medium_removal(call: Call) -> Answer:
    """PREVENT ALLOW MEDIUM REMOVAL: the medium cannot be removed, so both wishes hold."""
    cdb = call.parse(cdbs.PreventAllowMediumRemoval)
    if cdb.prevent > 1:
        raise invalid_field(4, 1)
    return good()


async def send_diagnostic(call: Call) -> Answer:
    """SEND DIAGNOSTIC: the default self-test asks the store for its geometry; nothing else is there (SPC-4 6.42)."""
    cdb = call.parse(cdbs.SendDiagnostic)
    if not cdb.self_test:
        raise invalid_field(1, 2)
    if cdb.self_test_code:
        raise invalid_field(1, 7)
    if cdb.parameter_list_length:
        raise invalid_field(3)
    await call.dispatch.op(call.plane.store_op(call.unit.store, StoreOp.GEOMETRY))
    return good()
