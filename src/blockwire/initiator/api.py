"""`open`, `connect` and `discover` for both faces: what the arguments mean is decided here, once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from blockwire import errors
from blockwire.initiator.options import Options, Timers
from blockwire.names import Url


def parse_url(url: str | Url) -> Url:
    """A URL as given; UsageError when it is none."""
    return url if isinstance(url, Url) else Url.parse(url)


def options(
    url: Url,
    keys: Mapping[str, str] | None,
    initiator_name: str | None,
    timeout: float | None,
    chap_user: str | None,
    chap_secret: str | None,
    mutual_user: str | None,
    mutual_secret: str | None,
    timers: Timers | None,
) -> Options:
    """Arguments before the URL before the environment (`BLOCKWIRE_CHAP_SECRET`, libiscsi's `LIBISCSI_CHAP_*`)."""
    environment = os.environ.get
    timers = timers or Timers()
    if timeout is not None:
        if not timeout > 0:
            raise errors.UsageError(f"timeout: {timeout} is not a positive number of seconds", code="usage.timeout")
        from dataclasses import replace

        timers = replace(timers, timeout=timeout)
    user = chap_user or url.user or environment("LIBISCSI_CHAP_USERNAME", "")
    secret = chap_secret or url.secret
    if user and not secret:
        secret = environment("BLOCKWIRE_CHAP_SECRET", "") or environment("LIBISCSI_CHAP_PASSWORD", "")
    mutual = mutual_user or url.mutual_user or environment("LIBISCSI_CHAP_TARGET_USERNAME", "")
    other = mutual_secret or url.mutual_secret
    if mutual and not other:
        other = environment("BLOCKWIRE_CHAP_MUTUAL_SECRET", "") or environment("LIBISCSI_CHAP_TARGET_PASSWORD", "")
    if user and not secret:
        raise errors.ConfigurationError(
            f"there is no CHAP secret for user {user!r}", code="configuration.no-secret",
            next="set BLOCKWIRE_CHAP_SECRET or name a file with --chap-secret-file",
        )  # fmt: skip
    return Options(
        keys={**dict(url.keys), **(keys or {})},
        initiator_name=initiator_name or "",
        chap_user=user,
        chap_secret=secret,
        mutual_user=mutual,
        mutual_secret=other,
        timers=timers,
    )


async def open_url(initiator: Any, url: Url, how: Options, read_only: bool) -> Any:
    """A session and its LUN; the session ends with the LUN. A target with one LUN needs no number."""
    from blockwire.initiator.initiator import too_shallow

    session = await initiator.connect(url, how)
    try:
        number = session.url.lun
        if number is None:
            numbers = await session.lun_numbers()
            if not numbers:
                raise errors.NothingFoundError(f"{session.url.target} has no LUN", code="nothing.no-lun")
            if len(numbers) > 1:
                raise too_shallow(session.url, [str(session.url.at(lun=number)) for number in numbers], "LUN")
            number = numbers[0]
            session.url = session.url.at(lun=number)
        return await session.open_lun(number, read_only, owns_session=True)
    except BaseException:
        await session.close()
        raise
