"""`open`, `connect` and `discover` for both faces: what the arguments mean is decided here, once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from blockwire import errors
from blockwire.initiator.credentials import SecretText, credentials
from blockwire.initiator.options import QUIRKS, Options, Timers
from blockwire.names import Url, iscsi_name, parse_size


def parse_url(url: str | Url) -> Url:
    """A URL as given; UsageError when it is none."""
    if isinstance(url, Url):
        return url
    if not isinstance(url, str):
        raise TypeError(f"a URL is text, not {type(url).__name__}")
    return Url.parse(url)


def options(
    url: Url,
    keys: Mapping[str, str | int] | None,
    initiator_name: str | None,
    timeout: float | None,
    chap_user: str | None,
    chap_secret: SecretText | None,
    mutual_user: str | None,
    mutual_secret: SecretText | None,
    timers: Timers | None,
    quirks: Sequence[str] = (),
) -> Options:
    """What both faces' arguments mean; see `credentials` for where CHAP's come from. `keys` go over those of the URL,
    its keep-alive over `timers`; `quirks` of both count."""
    timers = timers or Timers()
    if timeout is not None:
        if not timeout > 0:
            raise errors.UsageError(f"timeout: {timeout} is not a positive number of seconds", code="usage.timeout")
        timers = replace(timers, timeout=timeout)
    asked = dict(url.options)
    named = (*asked.get("quirks", "").split(","), *quirks)
    return Options(
        keys={**dict(url.keys), **{name: str(value) for name, value in (keys or {}).items()}},
        initiator_name=iscsi_name(initiator_name) if initiator_name else "",
        credentials=credentials(url, chap_user, chap_secret, mutual_user, mutual_secret),
        timers=keep_alive(timers, asked),
        quirks=known_quirks(name for name in named if name),
        rate=rate(asked["rate"]) if "rate" in asked else 0.0,
    )


def known_quirks(names: Iterable[str]) -> tuple[str, ...]:
    """Each once; UsageError with the list when one is not known."""
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in QUIRKS:
            raise errors.UsageError(
                f"no quirk is called {name!r}", code="usage.quirk", next=f"there are {', '.join(QUIRKS)}"
            )
    return found


def rate(text: str) -> float:
    """Bytes per second as users write them (`100M`); 0 is no limit."""
    try:
        return float(parse_size(text))
    except errors.UsageError as error:
        raise errors.UsageError(
            f"not a rate: {text!r}", code="usage.rate", next="write bytes per second, such as 100M or 1000000"
        ) from error


def keep_alive(timers: Timers, asked: Mapping[str, str]) -> Timers:
    """`timers` with what a URL says about NOPs, seconds."""
    interval, timeout = timers.keep_alive_interval, timers.keep_alive_timeout
    if "keep_alive_interval" in asked:
        interval = _seconds("keep_alive_interval", asked["keep_alive_interval"], zero=True)
    if "keep_alive_timeout" in asked:
        timeout = _seconds("keep_alive_timeout", asked["keep_alive_timeout"], zero=False)
    return replace(timers, keep_alive_interval=interval, keep_alive_timeout=timeout)


def _seconds(name: str, text: str, *, zero: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or (not value and not zero):
        raise errors.UsageError(
            f"{name}: {text!r} is no number of seconds", code="usage.keep-alive",
            next=f"write {name}=5" + (", or 0 for never" if zero else ""),
        )  # fmt: skip
    return value


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
