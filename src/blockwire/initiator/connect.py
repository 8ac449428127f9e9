"""One connection from a portal to the full feature phase: dial, drive the login machine, follow redirects."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockwire import errors
from blockwire.dataplane.api import ConnectionHandoff, Digest, Limits, Role, SessionSpec
from blockwire.initiator.options import Options
from blockwire.names import Portal, Url
from blockwire.negotiate.parameters import Parameters

if TYPE_CHECKING:
    from blockwire.net.runtime import Runtime, Transport

_log = logging.getLogger("blockwire.initiator")

MAX_REDIRECTS = 8
"""A chain of redirects that is longer is taken for a loop."""


@dataclass(slots=True)
class LoggedIn:
    """A connection in the full feature phase that still belongs to the control plane."""

    transport: Transport
    portal: Portal
    parameters: Parameters
    spec: SessionSpec
    cid: int
    exp_stat_sn: int
    over_read: bytes
    options: Options

    def handoff(self) -> ConnectionHandoff:
        """Gives the transport away: call it once."""
        timers, found = self.options.timers, self.parameters
        peer = self.transport.peer
        return ConnectionHandoff(
            transport=self.transport.detach(),
            cid=self.cid,
            max_recv_data_segment_length=found.initiator_max_recv_data_segment_length,
            max_send_data_segment_length=found.target_max_recv_data_segment_length,
            header_digest=Digest.CRC32C if found.header_digest == "CRC32C" else Digest.NONE,
            data_digest=Digest.CRC32C if found.data_digest == "CRC32C" else Digest.NONE,
            exp_stat_sn=self.exp_stat_sn,
            over_read=self.over_read,
            peer=peer,
            keep_alive_interval=timers.keep_alive_interval,
            keep_alive_timeout=timers.keep_alive_timeout,
        )

    def close(self) -> None:
        """Drops the connection; harmless after `handoff`."""
        self.transport.close()


def session_spec(
    parameters: Parameters, *, initiator_name: str, target_name: str, isid: bytes, tsih: int, portal_group_tag: int,
    cmd_sn: int, exp_cmd_sn: int, max_cmd_sn: int,
) -> SessionSpec:  # fmt: skip
    """The plane's form of what was negotiated."""
    return SessionSpec(
        role=Role.INITIATOR,
        initiator_name=initiator_name,
        target_name=target_name,
        isid=isid,
        tsih=tsih,
        target_portal_group_tag=portal_group_tag,
        initial_r2t=parameters.initial_r2t,
        immediate_data=parameters.immediate_data,
        max_burst_length=parameters.max_burst_length,
        first_burst_length=parameters.first_burst_length,
        max_outstanding_r2t=parameters.max_outstanding_r2t,
        data_pdu_in_order=parameters.data_pdu_in_order,
        data_sequence_in_order=parameters.data_sequence_in_order,
        error_recovery_level=parameters.error_recovery_level,
        max_connections=parameters.max_connections,
        iscsi_protocol_level=parameters.iscsi_protocol_level,
        fast_abort=parameters.task_reporting == "FastAbort",
        cmd_sn=cmd_sn,
        exp_cmd_sn=exp_cmd_sn,
        max_cmd_sn=max_cmd_sn,
    )


async def dial(runtime: Runtime, portal: Portal, timeout: float) -> Transport:  # noqa: ASYNC109 - part of the message
    """A connection; UnreachableError and its leaves name the portal and what was tried."""
    try:
        async with runtime.timeout(timeout):
            return await runtime.dial(portal)
    except TimeoutError as error:
        raise errors.TimedOutError(
            f"no answer from {portal}", evidence=f"nothing within {timeout:g} s",
            next="check address and port, and what filters packets between",
        ) from error  # fmt: skip
    except ConnectionRefusedError as error:
        raise errors.RefusedError(
            f"nothing listens at {portal}", evidence="connection refused", next="check that the target runs there"
        ) from error
    except OSError as error:
        text = error.strerror or str(error)
        raise errors.UnreachableError(
            f"cannot connect to {portal}", evidence=text, next="check the address, its name and the route to it"
        ) from error


async def log_in(
    runtime: Runtime, limits: Limits, url: Url, options: Options, *, initiator_name: str, isid: bytes
) -> LoggedIn:
    """Logs in to `url.target`, at the portal of `url` or where that sends us."""
    raise NotImplementedError
