"""The login of a further connection of a live session (RFC 7143 6.3.1, 6.3.3, 6.3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockwire import errors
from blockwire.auth import OutstandingChallenges
from blockwire.dataplane.api import Limits, SessionNumbers
from blockwire.initiator.connect import LoggedIn, check_portal_group, log_in_anywhere, preferences
from blockwire.login.initiator import LoginPlan
from blockwire.names import Isid
from blockwire.wire.constants import LoginStatus

if TYPE_CHECKING:
    from blockwire.net.runtime import Runtime


async def log_in_further(
    runtime: Runtime,
    limits: Limits,
    leading: LoggedIn,
    cid: int,
    numbers: SessionNumbers,
    *,
    challenges: OutstandingChallenges,
    reinstate: bool = False,
    exp_stat_sn: int = 0,
) -> LoggedIn:
    """Logs in one more connection of the session that `leading` began: same ISID and TSIH, its own CID.

    `numbers` are the live ones of the session (11.12.8). With `reinstate` the connection takes the place of that with
    this CID, which is logged out thereby (6.3.4), and `exp_stat_sn` tells what came there (11.12.9). LoginError with
    its status when the target does not want it.
    """
    spec, options = leading.spec, leading.options
    plan = LoginPlan(
        initiator_name=spec.initiator_name,
        isid=Isid.from_bytes(spec.isid),
        target_name=spec.target_name,
        preferences=preferences(limits, options),
        credentials=options.credentials,
        tsih=spec.tsih,
        cid=cid,
        session=leading.parameters,
        reinstate=reinstate,
        cmd_sn=numbers.cmd_sn,
        exp_stat_sn=exp_stat_sn,
    )
    transport, portal, result, _ = await log_in_anywhere(runtime, leading.portal, plan, options, challenges)
    try:
        check_portal_group(result, portal, options)
        tag, leads = result.portal_group_tag, leading.portal_group_tag
        if tag is not None and leads is not None and tag != leads:
            # 4.4.1: a session does not span portal groups, and its name is made of the tag.
            raise errors.LoginError(
                2, 8, f"{portal} belongs to another portal group than the session", code="login.portal-group",
                whose="peer", evidence=f"TargetPortalGroupTag={tag}, expected {leads}",
            )  # fmt: skip
        if result.authenticated_as != leading.account:
            # 9.2: authenticated and other connections do not belong into one session
            raise errors.login_error(
                LoginStatus.AUTHENTICATION_FAILURE, "the target authenticates connections of one session differently",
                whose="peer",
                evidence=f"CHAP_N={result.authenticated_as or 'none'}, {leading.account or 'none'} before",
            )  # fmt: skip
    except BaseException:
        transport.close()
        raise
    return LoggedIn(
        transport, portal, result.parameters, spec, result.cid, result.stat_sn, result.over_read, options, leads,
        account=leading.account,
    )  # fmt: skip
