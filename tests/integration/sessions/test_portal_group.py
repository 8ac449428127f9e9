"""TargetPortalGroupTag (RFC 7143 6.3, 13.9): what discovery said is what the login has to reach."""

from __future__ import annotations

from dataclasses import replace

import pytest

import blockwire
from blockwire import errors
from blockwire.config import arguments
from blockwire.initiator import api
from blockwire.initiator.initiator import Initiator
from blockwire.names import Url
from blockwire.net import control_thread
from tests import loopback


def test_another_portal_group_is_no_login() -> None:
    configuration = arguments.build(["ram:1M"], portals=[loopback.ANY]).model_copy(update={"portal_group_tag": 7})
    with blockwire.Target(configuration=configuration) as target:
        (found,) = blockwire.discover(target.portals[0])
        assert found.addresses[0].portal_group_tag == 7
        url = Url.parse(target.url)
        options = api.options(url, None, None, None, None, None, None, None, None)

        async def connect(tag: int) -> int:
            async with Initiator() as initiator:
                session = await initiator.connect(url, replace(options, portal_group_tag=tag))
                return len(await session.luns())

        control = control_thread.shared()
        assert control.run(connect(7)) == 1
        with pytest.raises(errors.LoginError) as caught:
            control.run(connect(1))
        assert caught.value.code == "login.portal-group"
