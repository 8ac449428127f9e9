"""The PDU that answers a request of the control plane: the response that was asked for, or why there is none."""

from __future__ import annotations

from typing import Any, TypeVar

from blockwire.errors import ProtocolError
from blockwire.wire.constants import OPCODE_MASK, Opcode
from blockwire.wire.pdu import Pdu, WireError
from blockwire.wire.reject import Reject

_P = TypeVar("_P", bound=Pdu)


def response(kind: type[_P], answer: Any, what: str) -> _P:
    """The answer (a `ControlPdu`) as `kind`; `what` names the request in errors.

    ProtocolError when the target rejected the request (RFC 7143 11.17), or sent something that is no such response.
    """
    header, data = bytes(answer.header), bytes(answer.data)
    try:
        if header[0] & OPCODE_MASK == Opcode.REJECT:
            reason = Reject.decode(header, b"", data).reason
            raise ProtocolError(
                f"the target rejected {what}", reason, code="protocol.rejected", evidence=f"Reject reason {reason:#04x}"
            )
        return kind.decode(header, b"", data)
    except WireError as error:
        raise ProtocolError(f"the answer to {what} is malformed", evidence=str(error)) from error
