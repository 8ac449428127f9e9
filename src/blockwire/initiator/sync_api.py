"""`blockwire.open`, `connect` and `discover`: the synchronous entrances, on the process's control thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from blockwire.initiator import api
from blockwire.initiator.blocking import Lun, Session
from blockwire.initiator.credentials import SecretText
from blockwire.initiator.initiator import Initiator
from blockwire.initiator.isids import kept_isids
from blockwire.initiator.options import Timers
from blockwire.names import Portal, Url
from blockwire.net import control_thread
from blockwire.trace import Dumps

if TYPE_CHECKING:
    from blockwire.initiator.discovery import Target

_default: dict[int, Initiator] = {}
"""By control thread: a child process of a fork gets its own."""
_lock = threading.Lock()


def _initiator(control: control_thread.ControlThread) -> Initiator:
    with _lock:
        found = _default.get(id(control))
        if found is None:

            async def make() -> Initiator:
                return Initiator(isids=kept_isids())

            found = control.run(make())
            _default.clear()
            _default[id(control)] = found
            control.at_end(found.close)
        return found


def trace_to(directory: str) -> None:
    """From now on the last PDUs of a session of this process go to `directory` when something is wrong with it."""
    dumps = Dumps(directory)
    _initiator(control_thread.shared()).traces = dumps


def open(
    url: str | Url,
    *,
    read_only: bool = False,
    keys: Mapping[str, str | int] | None = None,
    initiator_name: str | None = None,
    timeout: float | None = None,
    chap_user: str | None = None,
    chap_secret: SecretText | None = None,
    mutual_user: str | None = None,
    mutual_secret: SecretText | None = None,
    timers: Timers | None = None,
    quirks: Sequence[str] = (),
) -> Lun:
    """Logs in and opens a LUN: `open("iscsi://host/iqn…/0")`. The session ends with the LUN.

    `keys` are RFC 7143 keys to offer, `timeout` seconds for the login and for one command; `quirks` names departures of
    the target to go along with, at present `reassign-lun` and `reassign-answer`. Raises `blockwire.Error`:
    UnreachableError, LoginError, NothingFoundError, DeviceError, UsageError for a bad URL.
    """
    parsed = api.parse_url(url)
    how = api.options(
        parsed, keys, initiator_name, timeout, chap_user, chap_secret, mutual_user, mutual_secret, timers, quirks
    )
    control = control_thread.shared()
    return Lun(control.run(api.open_url(_initiator(control), parsed, how, read_only)), control)


def connect(
    url: str | Url,
    *,
    keys: Mapping[str, str | int] | None = None,
    initiator_name: str | None = None,
    timeout: float | None = None,
    chap_user: str | None = None,
    chap_secret: SecretText | None = None,
    mutual_user: str | None = None,
    mutual_secret: SecretText | None = None,
    timers: Timers | None = None,
    quirks: Sequence[str] = (),
) -> Session:
    """Logs in to a target: `connect("iscsi://host/iqn…")`. Raises as `open` does."""
    parsed = api.parse_url(url)
    how = api.options(
        parsed, keys, initiator_name, timeout, chap_user, chap_secret, mutual_user, mutual_secret, timers, quirks
    )
    control = control_thread.shared()
    return Session(control.run(_initiator(control).connect(parsed, how)), control, opened=True)


def discover(
    portal: str | Url | Portal,
    *,
    keys: Mapping[str, str | int] | None = None,
    initiator_name: str | None = None,
    timeout: float | None = None,
    chap_user: str | None = None,
    chap_secret: SecretText | None = None,
    mutual_user: str | None = None,
    mutual_secret: SecretText | None = None,
) -> list[Target]:
    """The targets of a portal (SendTargets), with their portals: `discover("host:3260")`. An empty list is no error."""
    from blockwire.initiator.discovery import discover as ask

    parsed = Url(portal) if isinstance(portal, Portal) else api.parse_url(portal)
    how = api.options(parsed, keys, initiator_name, timeout, chap_user, chap_secret, mutual_user, mutual_secret, None)
    control = control_thread.shared()
    return control.run(ask(_initiator(control), parsed, how))


def forget_after_fork() -> None:
    """The parent's initiator is of no use in a child process."""
    global _lock  # noqa: PLW0603 - it may have been held at the moment of the fork
    _lock = threading.Lock()
    _default.clear()


os.register_at_fork(after_in_child=forget_after_fork)
