"""`open`, `connect` and `discover` for both faces: what the arguments mean is decided here, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from blockwire import errors
from blockwire.initiator.credentials import SecretText, credentials
from blockwire.initiator.options import QUIRKS, Options, Timers
from blockwire.names import Url, iscsi_name


def parse_url(url: str | Url) -> Url:
    """A URL as given; UsageError when it is none."""
    return url if isinstance(url, Url) else Url.parse(url)


def options(
    url: Url,
    keys: Mapping[str, str] | None,
    initiator_name: str | None,
    timeout: float | None,
    chap_user: str | None,
    chap_secret: SecretText | None,
    mutual_user: str | None,
    mutual_secret: SecretText | None,
    timers: Timers | None,
    quirks: Sequence[str] = (),
) -> Options:
    """What both faces' arguments mean; see `credentials` for where CHAP's come from."""
    timers = timers or Timers()
    if timeout is not None:
        if not timeout > 0:
            raise errors.UsageError(f"timeout: {timeout} is not a positive number of seconds", code="usage.timeout")
        timers = replace(timers, timeout=timeout)
    if unknown := [name for name in quirks if name not in QUIRKS]:
        raise errors.UsageError(
            f"no quirk is called {unknown[0]!r}", code="usage.quirk", next=f"there are {', '.join(QUIRKS)}"
        )
    return Options(
        keys={**dict(url.keys), **(keys or {})},
        initiator_name=iscsi_name(initiator_name) if initiator_name else "",
        credentials=credentials(url, chap_user, chap_secret, mutual_user, mutual_secret),
        timers=timers,
        quirks=tuple(quirks),
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
