"""Runs the sans-IO login machine over one transport: bytes both ways, its deadline, its questions."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from blockwire.errors import Error, UnreachableError, from_os_error
from blockwire.login.result import Admission, LoginDone, LoginFailed, LoginResult
from blockwire.login.target import TargetLogin
from blockwire.net.runtime import Runtime, Transport

RECEIVE = 16384
"""Bytes asked for at once; a login PDU has 8 KiB of text at most."""


async def exchange(
    transport: Transport,
    machine: TargetLogin,
    runtime: Runtime,
    admit: Callable[[Admission], Awaitable[int]],
) -> LoginResult:
    """Drives ``machine`` until the login is over; its refusals are sent before their error is raised.

    ``admit`` makes the session and gives its TSIH; an Error it raises refuses the login with its status. The whole
    login, waiting for a peer that does not read included, ends by the machine's deadline.
    """
    while True:
        out = machine.poll_transmit()
        if out:
            await _send(transport, machine, runtime, out)
        event = machine.poll_event()
        if isinstance(event, Admission):
            try:
                tsih = await admit(event)
            except Error as error:
                machine.refuse(error)
            else:
                machine.admit(tsih)
            continue
        if isinstance(event, LoginDone):
            await _send(transport, machine, runtime, machine.poll_transmit())
            return event.result
        if isinstance(event, LoginFailed):
            with contextlib.suppress(Error):
                await _send(transport, machine, runtime, machine.poll_transmit())
            raise event.error
        await _receive(transport, machine, runtime)


def _left(machine: TargetLogin, runtime: Runtime) -> float | None:
    return None if machine.deadline is None else max(0.0, machine.deadline - runtime.now())


async def _send(transport: Transport, machine: TargetLogin, runtime: Runtime, data: bytes) -> None:
    if not data:
        return
    try:
        # A machine that is done has no deadline any more, but its last words must not wait for ever either.
        async with runtime.timeout(_left(machine, runtime) if machine.deadline is not None else machine.limits.seconds):
            await transport.send(data)
    except TimeoutError:
        machine.handle_timeout(runtime.now())
        raise UnreachableError(
            "the initiator does not read", code="login.timeout", evidence=f"{len(data)} bytes could not be sent"
        ) from None
    except OSError as error:
        raise from_os_error(error, "login") from error


async def _receive(transport: Transport, machine: TargetLogin, runtime: Runtime) -> None:
    try:
        async with runtime.timeout(_left(machine, runtime)):
            data = await transport.recv(RECEIVE)
    except TimeoutError:
        machine.handle_timeout(runtime.now())
        return
    except OSError as error:
        raise from_os_error(error, "login") from error
    if data:
        machine.handle_bytes(data, runtime.now())
    else:
        machine.handle_eof(runtime.now())
