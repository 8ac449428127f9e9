"""A session does not span portal groups (RFC 7143 4.4.1, 13.9)."""

from __future__ import annotations

from typing import Any

import pytest

from blockwire import errors
from blockwire.testing.memory_link import TARGET
from blockwire.wire.constants import Opcode
from tests.pair.recovery_exchange import one_round, recovery_pair


@pytest.mark.parametrize("leading", [0, 1])
def test_a_further_connection_in_another_portal_group_is_given_up(leading: int) -> None:
    with recovery_pair(2, 0, tapped=True) as pair:

        def elsewhere(link: Any) -> None:
            def intercept(pdu: Any) -> list[bytes]:
                if pdu.end != TARGET or pdu.opcode != Opcode.LOGIN_RESPONSE:
                    return [pdu.raw]
                tag = 7 if link.number else leading
                return [pdu.raw.replace(b"TargetPortalGroupTag=1", b"TargetPortalGroupTag=%d" % tag)]

            link.tap.intercept = intercept

        pair.network.on_link = elsewhere

        async def body() -> None:
            async with await pair.open() as lun:
                assert len(lun.session.cids) == 1
                with pytest.raises(errors.LoginError, match="another portal group") as caught:
                    await lun.session.add_connection()
                assert caught.value.evidence == f"TargetPortalGroupTag=7, expected {leading}"
                await one_round(lun, 0)
                assert lun.session.reopened == 0

        pair.run(body())
