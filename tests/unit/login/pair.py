"""Both ends of a login joined back to back, with a policy for tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from blockwire.auth import TargetAuthentication
from blockwire.errors import LoginError, login_error
from blockwire.login import (
    Admission,
    ExistingSession,
    Identification,
    InitiatorLogin,
    LoginDone,
    LoginFailed,
    LoginPlan,
    Reception,
    TargetLogin,
)
from blockwire.names import Isid
from blockwire.negotiate import Preferences

INITIATOR = "iqn.2024-01.com.example:host"
TARGET = "iqn.2024-01.com.example:disk"


def counter(start: int = 0) -> Any:
    """A random source that never repeats itself and is the same every run."""
    state = [start]

    def draw(count: int) -> bytes:
        state[0] += 1
        return (state[0].to_bytes(4, "big") * (count // 4 + 1))[:count]

    return draw


@dataclass
class Policy:
    """One target; everything can be changed."""

    preferences: Preferences = field(default_factory=lambda: Preferences.of("target"))
    authentication: TargetAuthentication = field(default_factory=lambda: TargetAuthentication(required=False))
    session: ExistingSession | None = None
    error: LoginError | None = None
    asked: list[Identification] = field(default_factory=list)

    def receive(self, request: Identification) -> Reception:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        if request.target_name not in ("", TARGET):
            raise login_error(0x0203)
        return Reception(request.target_name, 1, self.preferences, self.authentication, alias="Disk One")

    def existing_session(self, request: Identification, reception: Reception) -> ExistingSession | None:
        return self.session


def plan(**changes: Any) -> LoginPlan:
    values: dict[str, Any] = {"initiator_name": INITIATOR, "target_name": TARGET, "isid": Isid.from_random(0x123456, 7)}
    values.update(changes)
    return LoginPlan(**values)


@dataclass
class Ended:
    initiator: LoginDone | LoginFailed | None = None
    target: LoginDone | LoginFailed | None = None
    exchanged: int = 0
    admissions: list[Admission] = field(default_factory=list)


def run(initiator: InitiatorLogin, target: TargetLogin, sizes: Iterator[int] | None = None, tsih: int = 77) -> Ended:
    """Drive both until neither has anything to say; ``sizes`` gives the length of each fragment delivered."""
    ended = Ended()
    initiator.start(0.0)
    for _ in range(2000):
        moved = False
        for sender, receiver in ((initiator, target), (target, initiator)):
            data = sender.poll_transmit()
            while data:
                moved = True
                size = next(sizes, len(data)) if sizes is not None else len(data)
                piece, data = data[: max(size, 1)], data[max(size, 1) :]
                receiver.handle_bytes(piece, 0.0)
                ended.exchanged += len(piece)
        while (event := target.poll_event()) is not None:
            moved = True
            if isinstance(event, Admission):
                ended.admissions.append(event)
                target.admit(tsih)
            else:
                ended.target = event
        while (event := initiator.poll_event()) is not None:
            moved = True
            assert not isinstance(event, Admission)
            ended.initiator = event
        if not moved:
            return ended
    raise AssertionError("the login never ends")
