"""One connection from a portal to the full feature phase: dial, drive the login machine, follow redirects."""

from __future__ import annotations

import contextlib
import logging
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blockwire import errors
from blockwire.auth import MD5_ONLY, OutstandingChallenges
from blockwire.dataplane.api import ConnectionHandoff, Digest, Limits, Role, SessionSpec
from blockwire.initiator.options import Options
from blockwire.login.initiator import InitiatorLogin, LoginPlan
from blockwire.login.result import LoginDone, LoginFailed, LoginLimits, LoginResult
from blockwire.names import Isid, Portal, Url, parse_target_address
from blockwire.negotiate.parameters import Parameters
from blockwire.negotiate.preferences import Preferences

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
    portal_group_tag: int | None = None
    """TargetPortalGroupTag of the login (13.9; 0 is a tag like any other); None when the target named none."""
    home: Portal | None = None
    """Where the next login begins; another than before when the target moved for good."""
    account: str = ""
    """The CHAP name that this side proved; empty: the target did not ask for it."""

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
    cmd_sn: int, exp_cmd_sn: int, max_cmd_sn: int, quirks: tuple[str, ...] = (),
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
        quirks=quirks,
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


def preferences(limits: Limits, options: Options) -> Preferences:
    """The keys to offer: the defaults, what the caller set, and never more than the plane can serve."""
    if Digest.CRC32C not in limits.digests:
        for name in ("HeaderDigest", "DataDigest"):
            if "CRC32C" in options.keys.get(name, ""):
                raise errors.ConfigurationError(f"{name}: this data plane has no CRC32C", code="configuration.key")
    return Preferences.of(
        "initiator",
        options.keys,
        {
            "MaxRecvDataSegmentLength": limits.max_recv_data_segment_length,
            "MaxBurstLength": limits.max_burst_length,
            "FirstBurstLength": limits.first_burst_length,
            "MaxOutstandingR2T": limits.max_outstanding_r2t,
            "MaxConnections": limits.max_connections,
            "ErrorRecoveryLevel": limits.error_recovery_level,
        },
    )


async def drive(runtime: Runtime, machine: InitiatorLogin, transport: Transport) -> LoginResult | LoginFailed:
    """Carries bytes between the login machine and the transport until the login has ended."""
    machine.start(runtime.now())
    while True:
        data = machine.poll_transmit()
        if data:
            # What the target said before it closed is worth more than the broken pipe: read on.
            with contextlib.suppress(OSError):
                await transport.send(data)
        event = machine.poll_event()
        if isinstance(event, LoginDone):
            return event.result
        if isinstance(event, LoginFailed):
            return event
        if event is not None:
            continue
        deadline = machine.deadline
        try:
            async with runtime.timeout(None if deadline is None else max(0.0, deadline - runtime.now())):
                received = await transport.recv(65536)
        except TimeoutError:
            machine.handle_timeout(max(runtime.now(), deadline or 0.0))
        except OSError:
            machine.handle_eof(runtime.now())
        else:
            if received:
                machine.handle_bytes(received, runtime.now())
            else:
                machine.handle_eof(runtime.now())


async def attempt(
    runtime: Runtime, portal: Portal, plan: LoginPlan, options: Options, challenges: OutstandingChallenges
) -> tuple[Transport, LoginResult | LoginFailed]:
    """One connection and one login on it; the transport is closed when the login failed."""
    seconds = options.timers.timeout
    transport = await dial(runtime, portal, seconds)
    machine = InitiatorLogin(plan, secrets.token_bytes, challenges, LoginLimits(seconds=seconds))
    try:
        outcome = await drive(runtime, machine, transport)
    except BaseException:
        machine.close()
        transport.close()
        raise
    if isinstance(outcome, LoginFailed):
        transport.close()
    return transport, outcome


async def log_in_anywhere(
    runtime: Runtime, portal: Portal, plan: LoginPlan, options: Options, challenges: OutstandingChallenges
) -> tuple[Transport, Portal, LoginResult, Portal]:
    """Logs in at `portal` or where redirects lead. Gives transport, portal, result, and where to begin next time.

    A target that moved for good is looked for at its new place from now on; one that moved for a while is not
    (RFC 7143 11.13.5).
    """
    home, seen = portal, {portal}
    for_good = True
    while True:
        transport, outcome = await attempt(runtime, portal, plan, options, challenges)
        if isinstance(outcome, LoginResult):
            return transport, portal, outcome, home
        error = outcome.error
        if outcome.retry_with_md5 and plan.algorithms != MD5_ONLY:
            _log.info("%s takes none of our CHAP algorithms; trying MD5 alone", portal)
            plan = replace(plan, algorithms=MD5_ONLY)
            continue
        if not isinstance(error, errors.RedirectError):
            if isinstance(error, errors.ProtocolError):
                error.exit_code = errors.EXIT_REFUSED  # this side refused; it failed at login all the same
            if isinstance(error, errors.AuthenticationError) and plan.credentials is None:
                error.next = "the target asks for CHAP: give a user and a secret"
            if isinstance(error, errors.ProtocolError) and outcome.pdus == 0:
                stranger = errors.ProtocolError(
                    f"what answers at {portal} is no iSCSI target", code="login.not-iscsi", evidence=error.message,
                    next="check address and port",
                )  # fmt: skip
                stranger.exit_code = errors.EXIT_UNREACHABLE
                raise stranger from error
            who = f"{plan.initiator_name} at {portal}" + (f" for {plan.target_name}" if plan.target_name else "")
            error.evidence = f"{error.evidence}, {who}" if error.evidence else who
            raise error
        following = redirect_portal(error, portal)
        if following in seen or len(seen) > MAX_REDIRECTS:
            raise errors.LoginError(
                error.status_class, error.status_detail, "the redirects of the target lead in a circle",
                code="login.redirect-loop", evidence=f"{' -> '.join(map(str, (*seen, following)))}",
                next="correct the target's redirection",
            ) from error  # fmt: skip
        _log.info("%s sends us to %s", portal, following)
        seen.add(following)
        for_good = for_good and error.permanent
        portal = following
        if for_good:
            home = portal


def redirect_portal(error: errors.RedirectError, portal: Portal) -> Portal:
    """Where a redirect leads: the first address that can be read."""
    for address in error.addresses:
        try:
            return parse_target_address(address)[0]
        except ValueError as fault:
            _log.warning("%s redirects to %r: %s", portal, address, fault)
    raise errors.LoginError(
        error.status_class, error.status_detail, f"{portal} redirects to no address that can be used",
        evidence=" ".join(error.addresses) or "no TargetAddress", next="correct the target's redirection",
    ) from error  # fmt: skip


def check_portal_group(result: LoginResult, portal: Portal, options: Options) -> None:
    """RFC 7143 6.3: the tag tells whether the login reached the portal group that was meant."""
    wanted, found = options.portal_group_tag, result.portal_group_tag
    if found is None:
        _log.warning("%s names no portal group (RFC 7143 6.3 asks it to)", portal)
    elif wanted is not None and wanted != found:
        raise errors.LoginError(
            2, 8, f"{portal} belongs to another portal group", code="login.portal-group", whose="peer",
            evidence=f"TargetPortalGroupTag={found}, expected {wanted}",
            next="discover the target again: its portals were changed",
        )  # fmt: skip


async def log_in(
    runtime: Runtime, limits: Limits, url: Url, options: Options, *, initiator_name: str, isid: bytes,
    challenges: OutstandingChallenges,
) -> LoggedIn:  # fmt: skip
    """Logs in to `url.target` (a new session, or a reinstatement of the one with this ISID).

    `challenges` are those of the whole initiator, so that one that comes back on another connection is seen (9.2.1).
    """
    plan = LoginPlan(
        initiator_name=initiator_name,
        isid=Isid.from_bytes(isid),
        target_name=url.target,
        preferences=preferences(limits, options),
        credentials=options.credentials,
    )
    transport, portal, result, home = await log_in_anywhere(runtime, url.portal, plan, options, challenges)
    try:
        check_portal_group(result, portal, options)
    except BaseException:
        transport.close()
        raise
    spec = session_spec(
        result.parameters, initiator_name=initiator_name, target_name=url.target, isid=isid, tsih=result.tsih,
        portal_group_tag=result.portal_group_tag or 0, cmd_sn=result.cmd_sn, exp_cmd_sn=result.cmd_sn,
        max_cmd_sn=result.max_cmd_sn, quirks=options.quirks,
    )  # fmt: skip
    return LoggedIn(
        transport, portal, result.parameters, spec, result.cid, result.stat_sn, result.over_read, options,
        result.portal_group_tag, home, result.authenticated_as,
    )  # fmt: skip
