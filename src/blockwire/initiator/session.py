"""A session with a target: logs in, lists and opens logical units, comes back after a loss, logs out.

ERL 0: when its connection is lost the session is opened again (a new TSIH, a new session of the plane), with pauses
that double. Block I/O waits in `ready` meanwhile, at most `Timers.replacement_timeout`, and is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from blockwire import errors
from blockwire.dataplane.api import TaskDone, TaskView
from blockwire.initiator import answers, inventory, retry_policy, task_management, text_exchange
from blockwire.initiator.async_events import AsyncEvents
from blockwire.initiator.connect import LoggedIn
from blockwire.initiator.connections import Connections
from blockwire.initiator.geometry import LunInfo
from blockwire.initiator.ladder import Ladder
from blockwire.initiator.logical_unit import Lun, lun_field
from blockwire.initiator.options import Options
from blockwire.initiator.retry_policy import Attempts, Verdict
from blockwire.names import Portal, Url
from blockwire.session import INITIATOR_SESSION, SessionState
from blockwire.trace.dumps import EVENTS
from blockwire.wire.async_message import AsyncMessage
from blockwire.wire.constants import LogoutReason, LogoutResult, Opcode, TaskFunction
from blockwire.wire.logout import LogoutRequest, LogoutResponse
from blockwire.wire.task import TaskManagementResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blockwire.initiator.initiator import Initiator
    from blockwire.negotiate.parameters import Parameters

_log = logging.getLogger("blockwire.initiator")

FATAL = (errors.AuthenticationError, errors.AuthorizationError, errors.ConfigurationError, errors.UsageError)
"""What makes opening a session again hopeless: another attempt would get the same answer, or lock an account."""


class State(enum.Enum):
    """Where a session is."""

    NEW = "new"
    OPEN = "open"
    REOPENING = "reopening"
    FAILED = "failed"
    CLOSED = "closed"


class Session:
    """One session with one target. Made by `Initiator.connect`; close it, or use it as a context manager."""

    def __init__(self, initiator: Initiator, url: Url, options: Options) -> None:
        self.initiator = initiator
        self.plane = initiator.plane
        self.dispatch = initiator.dispatch
        self.runtime = initiator.runtime
        self.url = url
        self.options = options
        self.timers = options.timers
        self.state = State.NEW
        self.phase = INITIATOR_SESSION.start
        """The state of 8.3.1; `state` tells in addition what is done about it."""
        self.id = 0
        """The plane's number of the current session; another one after each re-opening."""
        self._logged_in: LoggedIn | None = None
        self.ladder = Ladder(self)
        """What is done about requests that do not end."""
        self.observers: list[Callable[[AsyncMessage], None]] = []
        """Called with every asynchronous message of the target, before it is acted on."""
        self._async_events = AsyncEvents(self)
        self.connections = Connections(self)
        """Those there are, and the recovery of those that are lost."""
        self.isid = initiator.isids.take(self.initiator_name, url.target)
        """The same towards the same target after every restart."""
        self._wake: asyncio.Event = asyncio.Event()
        self._hurry: asyncio.Event = asyncio.Event()
        self._error: errors.Error | None = None
        self._lost_at = 0.0
        self.loss = ""
        """Why the connection was lost the last time."""
        self._time2wait = 0.0
        self.reopened = 0
        """How often the session was opened again."""

    # ------------------------------------------------------------------ what it is
    def _open_login(self) -> LoggedIn:
        if self._logged_in is None:
            raise errors.ClosedError("the session is not open")
        return self._logged_in

    @property
    def parameters(self) -> Parameters:
        """What was negotiated."""
        return self._open_login().parameters

    @property
    def keys(self) -> dict[str, str]:
        """The negotiated keys, RFC 7143 names and values."""
        return self.parameters.to_keys()

    @property
    def initiator_name(self) -> str:
        """The name it logs in under."""
        return self.options.initiator_name or self.initiator.name

    @property
    def cids(self) -> tuple[int, ...]:
        """Its live connections."""
        return self.connections.cids

    def is_on(self, number: int) -> bool:
        """Whether it is open on the plane's session `number`."""
        return self.state is State.OPEN and self.id == number

    @property
    def target_name(self) -> str:
        """iSCSI name of the target."""
        return self.url.target

    @property
    def portal(self) -> Portal:
        """The portal that is in use (after redirects)."""
        return self._open_login().portal

    def __repr__(self) -> str:
        return f"<Session {self.url} {self.state.value}>"

    async def __aenter__(self) -> Self:
        if self.closed:
            raise errors.ClosedError("the session was closed")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # ------------------------------------------------------------------ opening
    async def start(self) -> None:
        """Logs in for the first time; any error is the caller's, and nothing of the session is left then."""
        try:
            await self._establish()
        except BaseException:
            # Given up while further connections were opened: the session is there, and nobody has it.
            was, self.state = self.state, State.CLOSED
            self._hurry.set()
            if was is State.OPEN:
                self._forget(self.id)
            raise

    async def _establish(self) -> None:
        # 6.3.5: a session is reinstated from FAILED; the table has no N6 that would lead there from LOGGED_IN
        free = self.phase if self.phase is SessionState.FREE else INITIATOR_SESSION.step(self.phase, "N6")
        found = await self.initiator.log_in(
            self.runtime, self.plane.limits(), self.url, self.options,
            initiator_name=self.initiator_name, isid=bytes(self.isid),
        )  # fmt: skip
        session = 0
        try:
            session = self.plane.create_session(found.spec)
            self.dispatch.subscribe(session, self._event)
            # Known before the plane has it: it may be lost again before `adopt` comes back.
            self.id = session
            self.connections.begin(session, found)
            await self.connections.keep_rate()
            await self.dispatch.op(self.plane.adopt(session, found.handoff()))
            if self._is(State.CLOSED):  # `close` came meanwhile, and knew of no session yet
                raise errors.ClosedError("the session was closed")
        except BaseException:
            if session:
                self._forget(session)
            found.close()
            raise
        self._logged_in = found
        if found.home is not None and found.home != self.url.portal:
            self.url = replace(self.url, portal=found.home)
        self._time2wait = float(found.parameters.default_time2wait)
        self._error = None
        self.state = State.OPEN
        self.phase = INITIATOR_SESSION.step(free, "N1")
        if not self.connections.survives():
            self.lost(self.loss)
            return
        self.connections.resume()
        if self.connections.wanted > 1:
            await self.connections.fill()
            if not self.is_on(session):
                return
        self._wake.set()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.state is State.CLOSED

    def _is(self, state: State) -> bool:
        """A method, because the state changes during every await."""
        return self.state is state

    def _forget(self, session: int) -> None:
        """Drops a session of the plane without waiting for it."""
        self.dispatch.unsubscribe(session)
        with contextlib.suppress(Exception):
            self.plane.close_session(session)

    async def ready(self) -> None:
        """Returns when commands can be sent; raises when the session is closed, did not come back in time, or is one of
        another loop."""
        self.dispatch.check_loop()
        while self.state is not State.OPEN:
            if self.state is State.CLOSED:
                raise errors.ClosedError("the session was closed")
            if self.state is State.FAILED:
                raise self._failure()
            left = self._lost_at + self.timers.replacement_timeout - self.runtime.now()
            if left <= 0:
                raise self._failure()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with self.runtime.timeout(left):
                    await self._wake.wait()

    def _failure(self) -> errors.Error:
        cause = self._error
        text = f"the session with {self.url.target or self.url.portal} was lost and did not come back"
        if self.state is not State.FAILED:
            text += f" within {self.timers.replacement_timeout:g} s"
        error = errors.ConnectionLostError(
            text,
            evidence=str(cause) if cause is not None else "",
            next="check that the target runs and the network is up",
        )
        error.__cause__ = cause
        return error

    # ------------------------------------------------------------------ losing and coming back
    def lost(self, code: str, time2wait: float | None = None) -> None:
        """The connection is gone: starts the re-opening unless it runs already. `time2wait` replaces the negotiated
        DefaultTime2Wait, seconds."""
        if self.state is not State.OPEN:
            return
        if time2wait is not None:
            self._time2wait = time2wait
        _log.info("session with %s lost: %s", self.url.target, code)
        self.loss = code
        self.state = State.REOPENING
        self.phase = INITIATOR_SESSION.step(self.phase, "N5")
        self._error = errors.ConnectionLostError(f"the connection to {self.url.portal} was lost", evidence=code)
        self._lost_at = self.runtime.now()
        self._wake.clear()
        self._forget(self.id)
        self.runtime.spawn(self._reopen(), f"reopen {self.url.target}")

    def request_lost(self, code: str, number: int) -> None:
        """A request on the plane's session `number` ended with `code`: no answer will come. That is the session's end,
        unless only one of its connections is gone."""
        self.dispatch.pump()  # what the plane has to tell about its connections comes first
        if self.is_on(number) and not (code in retry_policy.CONNECTION_CODES and self.connections.survives()):
            self.lost(code)

    async def _reopen(self) -> None:
        backoff, attempt = self.timers.backoff, 0
        while self._is(State.REOPENING):
            # RFC 7143 13.15: not before Time2Wait has passed since the loss: the re-login is an implicit logout.
            pause = backoff.pause(attempt, self._time2wait if attempt == 0 else 0.0)
            attempt += 1
            with contextlib.suppress(TimeoutError):
                async with self.runtime.timeout(pause):
                    await self._hurry.wait()
            if not self._is(State.REOPENING):
                return
            try:
                if not await self._establish_unless_hurried():
                    attempt = 0  # that attempt was given up for one that begins now
                    continue
            except FATAL as error:
                self._error = error
                self.state = State.FAILED
                self._wake.set()
                return
            except (errors.Error, OSError) as error:
                self._error = error if isinstance(error, errors.Error) else errors.from_os_error(error, "login")
            else:
                self.reopened += 1
                _log.info("session with %s is back", self.url.target)
                return

    async def _establish_unless_hurried(self) -> bool:
        """One attempt; False when `retry_now` came while it hung."""
        self._hurry.clear()
        login = asyncio.ensure_future(self._establish())
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({login, hurry}, return_when=asyncio.FIRST_COMPLETED)
            if not login.done():
                login.cancel()
                await asyncio.wait({login})
            if login.cancelled():
                return False
            login.result()
            return True
        finally:
            hurry.cancel()
            login.cancel()

    def retry_now(self) -> None:
        """The target is said to be back: the next attempt is made at once, and I/O waits for it as after a new loss.
        Nothing happens to a session that is open or closed."""
        if self.state not in (State.REOPENING, State.FAILED):
            return
        self._lost_at = self.runtime.now()
        self._hurry.set()
        if self.state is State.FAILED:
            self.state = State.REOPENING
            self.runtime.spawn(self._reopen(), f"reopen {self.url.target}")

    def _event(self, event: Any) -> None:
        kind = type(event).__name__
        if kind in EVENTS and self.initiator.traces is not None:
            self.initiator.traces.write(self.plane, event.session, kind)
        if event.session != self.id and self.state is State.OPEN:
            return  # a straggler of an earlier session
        if kind == "ConnectionLost":
            code = f"{event.code} {event.evidence}".strip()
            if not self.connections.on_lost(event.cid, code):
                self.lost(code)
            self.loss = code  # also when a request told of the loss first
        elif kind == "SessionLost":
            self.loss = f"{event.code} {event.evidence}".strip()
            self.connections.wrecked()
            self.lost(self.loss)
        elif kind == "ConnectionClosed":
            if not self.connections.on_closed(event.cid) and not self.connections.on_lost(event.cid, "closed"):
                self.lost("closed")
        elif kind == "ProtocolViolation":
            _log.warning("%s broke the protocol: %s", self.url.target, event.what)
        elif kind == "ControlPdu" and event.header[0] & 0x3F == Opcode.ASYNC_MESSAGE:
            self._async_events.handle(event)
        elif kind == "ControlPdu" and event.header[0] & 0x3F == Opcode.REJECT:
            _log.warning("%s rejected a PDU: reason %02xh", self.url.target, event.header[2])

    # ------------------------------------------------------------------ commands
    async def finish(self, submit: Callable[[], int], field: int) -> TaskDone:
        """Submits a request to the LUN of `field` and waits for it. After `Timers.timeout` the recovery ladder ends it.
        Cancelling the await does so at once, and returns when the plane does not touch its buffer any more.

        A session that ended a moment ago refuses the request; that is told as a request that was lost.
        """
        number = self.id
        try:
            token = submit()
        except errors.Error as error:
            if error.code in retry_policy.LOST_CODES:
                return TaskDone(0, 0, code=error.code)
            raise
        future = self.dispatch.task(token)
        cancelled = False
        try:
            if await self._in_time(future):
                done = future.result()
                # Nobody aborted it: a reset ended it together with others.
                return TaskDone(token, 0, code=retry_policy.RESET) if done.code == "task.aborted" else done
        except asyncio.CancelledError:
            cancelled = True
        ending = asyncio.ensure_future(self.ladder.end(token, future, field, number))
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                cancelled = True
            except errors.Error:
                break
        if cancelled:
            ending.exception()
            raise asyncio.CancelledError
        return ending.result()

    async def _in_time(self, future: asyncio.Future[TaskDone]) -> bool:
        """Waits for a request as long as it may take; False when it did not end. While a lost connection is being
        recovered its time stands still: that ends by timers of its own. A request that is in flight whenever a
        connection is lost may be the cause: its time stands still `MAX_LOSSES` times only."""
        for _ in range(retry_policy.MAX_LOSSES):
            with contextlib.suppress(TimeoutError):
                async with self.runtime.timeout(self.timers.timeout):
                    await asyncio.shield(future)
            if future.done() or not self.connections.lost:
                return future.done()
            until = max(lost.deadline for lost in self.connections.lost.values())
            while self.connections.lost and not future.done() and self.runtime.now() < until:
                await self.runtime.sleep(self.timers.reopen_first)
        return future.done()

    async def ask(self, lun: int, command: bytes, length: int) -> bytes:
        """Data-In of a command that can be repeated; DeviceError with its sense when it fails."""
        attempts = Attempts(self.runtime.now())
        field = lun_field(lun)
        while True:
            await self.ready()
            number = self.id
            done = await self.finish(lambda: self.plane.submit(self.id, field, command, None, length), field)
            if not done.code and not done.status:
                return bytes(done.data or b"")
            verdict, pause = retry_policy.judge(done, attempts, self.runtime.now())
            if done.code and number == self.id and done.code in retry_policy.LOST_CODES:
                self.request_lost(done.code, number)
            if verdict is Verdict.REOPEN:
                continue
            if verdict is Verdict.FAIL:
                raise retry_policy.task_error(done, f"LUN {lun}, command {command[0]:02X}h", self.loss)
            if pause:
                await self.runtime.sleep(pause)

    async def lun_numbers(self) -> list[int]:
        """The LUNs that the target reports (REPORT LUNS)."""
        return await inventory.lun_numbers(self)

    async def luns(self) -> list[LunInfo]:
        """Every logical unit with size, block size and identity, by number."""
        return [await inventory.describe(self, number) for number in await self.lun_numbers()]

    async def lun(self, lun: int = 0, read_only: bool = False) -> Lun:
        """Opens one logical unit. NothingFoundError when there is none, DeviceError when it is no disk or not ready."""
        return await self.open_lun(lun, read_only, owns_session=False)

    async def open_lun(self, lun: int, read_only: bool, *, owns_session: bool) -> Lun:
        """`lun`, and whether the session ends with it."""
        return await inventory.open_lun(self, lun, read_only, owns_session=owns_session)

    # ------------------------------------------------------------------ closing
    async def log_out(
        self, reason: LogoutReason = LogoutReason.CLOSE_SESSION, cid: int = 0, *, on: int | None = None
    ) -> LogoutResponse:
        """A Logout Request and its answer (RFC 7143 11.14, 11.15): the whole session, one connection, or one connection
        for recovery. `cid` is reserved when the session is closed. It goes out on the connection `on`, None: on any.
        TimeoutError after `Timers.logout`, ProtocolError when the target does not take it."""
        request = LogoutRequest(reason=reason, initiator_task_tag=0, cid=cid)
        async with self.runtime.timeout(self.timers.logout):
            answer = await self.dispatch.answer(self.plane.send_pdu(self.id, on, request.encode()))
        response = answers.response(LogoutResponse, answer, "the logout")
        if response.response != LogoutResult.SUCCESS:
            _log.warning("%s answered the logout with %d", self.url.target, response.response)
        return response

    async def renegotiate(self, keys: Mapping[str, str] | None = None, cid: int | None = None) -> dict[str, str]:
        """Negotiates keys anew on one live connection, or on each of them (RFC 7143 6.4), MaxRecvDataSegmentLength
        above all; without any an empty Text Request goes out. Gives the keys in force (of the last one). What was
        declared for every connection is what later logins of this session offer too, on added connections and when it
        is opened again."""
        found = self._open_login()
        for each in self.cids if cid is None else (cid,):
            connection = self.connections.live.get(each)
            if connection is None:
                if cid is not None:
                    raise errors.UsageError(f"the session has no connection {cid}", code="usage.connections")
                continue
            found = connection.login
            found.parameters = await text_exchange.renegotiate(self, each, found.parameters, keys or {})
        if keys and (cid is None or self.cids == (cid,)):
            self.options = replace(self.options, keys={**self.options.keys, **keys})
            self._open_login().options = self.options  # those of further connections
        return found.parameters.to_keys()

    # ------------------------------------------------------------------ connections
    async def add_connection(self) -> int:
        """One more connection of the session; gives its CID. UsageError when MaxConnections allows no more, LoginError
        when the target refuses it."""
        await self.ready()
        return await self.connections.add()

    async def remove_connection(self, cid: int) -> None:
        """Logs one connection out; not the last. At ErrorRecoveryLevel 2 its tasks go on on the others."""
        await self.connections.remove(cid)

    async def set_rate(self, bytes_per_second: float, cid: int | None = None) -> None:
        """Limits what the session sends over all its connections, or what one connection sends, without a new login; 0
        lifts the limit. That of the session outlives its connections. What the target sends is limited there."""
        if not bytes_per_second >= 0:
            raise errors.UsageError(f"rate: {bytes_per_second} is no number of bytes per second", code="usage.rate")
        if cid is not None and cid not in self.cids:
            raise errors.UsageError(f"the session has no connection {cid}", code="usage.connections")
        await self.connections.set_rate(bytes_per_second, cid)

    # ------------------------------------------------------------------ task management
    async def task_management(
        self, function: TaskFunction, lun: int = 0, *, task: TaskView | None = None, cid: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - part of the message
    ) -> TaskManagementResponse:  # fmt: skip
        """One task management function and its response (RFC 7143 11.5, RFC 7144 6). `task` names the task of ABORT
        TASK and QUERY TASK (see `tasks`). Functions 9 to 12 need iSCSIProtocolLevel=2. TimedOutError after it."""
        return await task_management.request(self, function, lun_field(lun), task=task, cid=cid, seconds=timeout)

    async def tasks(self) -> tuple[TaskView, ...]:
        """The SCSI tasks that have not ended."""
        return await task_management.tasks(self)

    async def target_reset(self, cold: bool = False) -> None:
        """TARGET WARM RESET: the tasks of every initiator on every logical unit of the target end. A cold one ends
        every session besides, this one too."""
        function = TaskFunction.TARGET_COLD_RESET if cold else TaskFunction.TARGET_WARM_RESET
        await task_management.perform(self, function)

    async def close(self) -> None:
        """Logs out and closes; idempotent. A target that does not answer holds it up for `Timers.logout` at most."""
        if not self.closed:
            self.dispatch.check_loop()
        was, self.state = self.state, State.CLOSED
        if was is State.CLOSED:
            return
        if self.phase is not SessionState.FREE:
            self.phase = INITIATOR_SESSION.step(self.phase, "N3" if was is State.OPEN else "N6")
        self._wake.set()
        self._hurry.set()
        try:
            if was is State.OPEN:
                await self._end(self.id)
        finally:
            self.initiator.isids.release(self.initiator_name, self.url.target, self.isid)
            self.initiator.forget(self)

    async def _end(self, session: int) -> None:
        # From here on the loss of the connection is what was asked for.
        self.dispatch.subscribe(session, lambda event: None)
        try:
            with contextlib.suppress(errors.Error, OSError, TimeoutError):
                await self.log_out()
        except BaseException:
            self._forget(session)
            raise
        self.dispatch.unsubscribe(session)
        with contextlib.suppress(errors.Error, OSError, TimeoutError):
            async with self.runtime.timeout(self.timers.logout):
                await self.dispatch.op(self.plane.close_session(session))
