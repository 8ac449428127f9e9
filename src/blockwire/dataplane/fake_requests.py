"""The initiator's half of the fake plane, and its event stream: requests that a test answers, queues, control PDUs."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from blockwire.dataplane import api
from blockwire.dataplane.dispatch import failure_error
from blockwire.dataplane.fake_disk import FakeDisk, FakeRequest


@dataclass(frozen=True, slots=True)
class Call:
    """One call that reached the fake."""

    name: str
    arguments: tuple[Any, ...]


@dataclass
class _Flight:
    request: FakeRequest
    queue: api.QueueId
    buffer: Any


class FakeRequests:
    """What `FakePlane` does with requests; see there."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.sessions: dict[api.SessionId, api.SessionSpec] = {}
        self.sent: list[tuple[api.SessionId, int | None, bytes, bytes]] = []
        self.disks: dict[int, FakeDisk] = {}
        self.on_request: Callable[[FakeRequest], api.TaskDone | None] = self._ask_disk
        """Answers a request of the initiator's side; None leaves it in flight until `finish`."""
        self.on_pdu: Callable[[api.SessionId, bytes, bytes], tuple[bytes, bytes] | None] = answer_logout
        """Answers a `send_pdu` with header and data; None leaves it without an answer."""
        self.lost: set[api.SessionId] = set()
        self.closed = False
        self._ids = itertools.count(1)
        self._events: deque[api.Event] = deque()
        self._finished: dict[api.QueueId, deque[api.TaskDone]] = {}
        self._queues: dict[api.QueueId, api.SessionId] = {}
        self._flights: dict[api.Token, _Flight] = {}
        self._changed = threading.Condition()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    # ------------------------------------------------------------------ events
    def inject(self, *events: api.Event) -> None:
        """Puts events into the stream, as if the plane had seen them."""
        with self._changed:
            self._events.extend(events)
            os.eventfd_write(self._fd, 1)
            self._changed.notify_all()

    def finish(self, done: api.TaskDone) -> None:
        """Ends a request that was left in flight."""
        with self._changed:
            flight = self._flights.pop(done.token)
            self._deliver(flight.queue, self._placed(done, flight.buffer))

    @property
    def in_flight(self) -> list[FakeRequest]:
        """Requests without an end, oldest first."""
        return [flight.request for flight in self._flights.values()]

    def event_fd(self) -> int:
        """An eventfd."""
        return self._fd

    def drain(self, maximum: int = 256) -> list[api.Event]:
        """Oldest first."""
        with self._changed:
            taken = [self._events.popleft() for _ in range(min(maximum, len(self._events)))]
            if not self._events:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._fd)
            return taken

    # ------------------------------------------------------------------ initiator
    def open_queue(self, session: api.SessionId) -> api.QueueId:
        """A completion queue of its own."""
        self._known(session)
        queue = next(self._ids)
        self._finished[queue] = deque()
        self._queues[queue] = session
        return queue

    def _known(self, session: api.SessionId) -> None:
        """A session that is gone is unknown, as in the native plane."""
        if session not in self.sessions:
            raise failure_error(api.Failure("plane.unknown", f"there is no session {session}"))

    def close_queue(self, queue: api.QueueId) -> None:
        """What is in flight on it is forgotten."""
        self._finished.pop(queue, None)
        for token, flight in list(self._flights.items()):
            if flight.queue == queue:
                del self._flights[token]

    def _ask_disk(self, request: FakeRequest) -> api.TaskDone | None:
        disk = self.disks.get(request.lun)
        if disk is None:
            return FakeDisk.absent(request)
        return disk.answer(request)

    def _start(self, request: FakeRequest, buffer: Any, queue: api.QueueId) -> api.Token:
        if self.closed:
            raise RuntimeError("plane.closed")
        self._known(request.session)
        self._flights[request.token] = _Flight(request, queue, buffer)
        if request.session in self.lost:
            done: api.TaskDone | None = api.TaskDone(request.token, 0, code="session.lost")
        else:
            done = self.on_request(request)
        if done is not None:
            self.finish(done)
        return request.token

    @staticmethod
    def _placed(done: api.TaskDone, buffer: Any) -> api.TaskDone:
        if done.data is None or buffer is None:
            return done
        view = memoryview(buffer).cast("B")
        view[: len(done.data)] = done.data[: len(view)]
        return api.TaskDone(done.token, done.status, done.sense, done.residual, None, done.code)

    def _deliver(self, queue: api.QueueId, done: api.TaskDone) -> None:
        with self._changed:
            if queue == 0:
                self.inject(done)
            elif queue in self._finished:
                self._finished[queue].append(done)
            self._changed.notify_all()

    def submit(
        self,
        session: api.SessionId,
        lun: int,
        cdb: bytes,
        data_out: object = None,
        data_in: object = 0,
        *,
        attribute: int = 1,
        immediate: bool = False,
        cid: int | None = None,
        queue: api.QueueId = 0,
        borrow: bool = False,
    ) -> api.Token:
        """Any command, answered by `on_request`."""
        into = None if isinstance(data_in, int) else data_in
        wanted = data_in if isinstance(data_in, int) else memoryview(cast(Any, data_in)).nbytes
        out = bytes(cast(Any, data_out)) if data_out is not None else b""
        request = FakeRequest(next(self._ids), session, lun, bytes(cdb), None, 0, 0, 0, out, wanted)
        return self._start(request, into, queue)

    def submit_io(
        self, session: api.SessionId, lun: int, kind: api.IoKind, lba: int, blocks: int, block_size: int,
        buffer: object = None, *, fua: bool = False, queue: api.QueueId = 0, borrow: bool = False,
    ) -> api.Token:  # fmt: skip
        """A block request, answered by `on_request`."""
        reading = kind == api.IoKind.READ
        out = bytes(cast(Any, buffer)) if buffer is not None and not reading else b""
        request = FakeRequest(
            next(self._ids), session, lun, None, api.IoKind(kind), lba, blocks, block_size, out,
            blocks * block_size if reading else 0, fua,
        )  # fmt: skip
        return self._start(request, buffer if reading else None, queue)

    def _wait_for(self, queue: api.QueueId, token: api.Token, timeout: float) -> api.TaskDone:
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._finished[queue]), timeout or None):
                self._flights.pop(token, None)
                self._finished.pop(queue, None)
                return api.TaskDone(token, 0, code="task.timeout")
            done = self._finished.pop(queue).popleft()
        return done

    def execute(
        self,
        session: api.SessionId,
        lun: int,
        cdb: bytes,
        data_out: object = None,
        data_in: object = 0,
        *,
        attribute: int = 1,
        timeout: float = 0.0,
    ) -> api.TaskDone:
        """`submit` and wait."""
        queue = self.open_queue(session)
        token = self.submit(session, lun, cdb, data_out, data_in, attribute=attribute, queue=queue)
        return self._wait_for(queue, token, timeout)

    def execute_io(
        self, session: api.SessionId, lun: int, kind: api.IoKind, lba: int, blocks: int, block_size: int,
        buffer: object = None, *, fua: bool = False, timeout: float = 0.0,
    ) -> api.TaskDone:  # fmt: skip
        """`submit_io` and wait."""
        queue = self.open_queue(session)
        token = self.submit_io(session, lun, kind, lba, blocks, block_size, buffer, fua=fua, queue=queue)
        return self._wait_for(queue, token, timeout)

    def wait(self, queue: api.QueueId, minimum: int, timeout: float = -1.0) -> list[api.TaskDone]:
        """Ends early when nothing is in flight."""
        self._known(self._queues.get(queue, 0))
        finished = self._finished[queue]

        def enough() -> bool:
            flying = any(flight.queue == queue for flight in self._flights.values())
            return len(finished) >= minimum or not flying

        with self._changed:
            self._changed.wait_for(enough, None if timeout < 0 else timeout)
            done = list(finished)
            finished.clear()
        return done

    def cancel(self, token: api.Token) -> bool:
        """Ends it with `task.aborted` at once."""
        self.calls.append(Call("cancel", (token,)))
        if token not in self._flights:
            return False
        self.finish(api.TaskDone(token, 0, code="task.aborted"))
        return True

    def send_pdu(self, session: api.SessionId, cid: int | None, header: bytes, data: bytes = b"") -> api.Token:
        """Recorded in `sent`, answered by `on_pdu`."""
        token = next(self._ids)
        self.sent.append((session, cid, header, data))
        answer = self.on_pdu(session, header, data)
        if answer is not None:
            self.inject(api.ControlPdu(session, cid or 0, answer[0], answer[1], token=token))
        return token

    def load_table(self) -> object:
        """A name for `run_load` calls that belong together."""
        return object()

    def run_load(self, session: api.SessionId, spec: api.LoadSpec, table: object | None = None) -> api.LoadReport:
        """Runs `requests` requests (or a hundred) one after the other, each said to take 1 ms."""
        blocks = spec.transfer // spec.block_size
        count = spec.requests or 100
        reads = count * spec.read_percent // 100
        slots = max(1, spec.size // spec.transfer)
        failed = 0
        for number in range(count):
            lba = (number % slots) * blocks
            if number < reads:
                done = self.execute_io(session, spec.lun, api.IoKind.READ, lba, blocks, spec.block_size)
            else:
                pattern = bytes([number & 0xFF]) * spec.transfer
                done = self.execute_io(session, spec.lun, api.IoKind.WRITE, lba, blocks, spec.block_size, pattern)
            failed += bool(done.code or done.status)
        return api.LoadReport(
            reads, count - reads, count * spec.transfer, failed, 0, spec.seconds or count / 1000,
            ((1_000_000, count),), 1e6, 1_000_000, "" if not failed else "status",
        )  # fmt: skip


def answer_logout(session: api.SessionId, header: bytes, data: bytes) -> tuple[bytes, bytes] | None:
    """Answers a Logout Request with success (RFC 7143 11.14, 11.15) and a NOP-Out with a NOP-In; nothing else."""
    opcode = header[0] & 0x3F
    if opcode == 0x06:
        return bytes([0x26, 0x80, 0x00]) + bytes(45), b""
    if opcode == 0x00:
        return bytes([0x20, 0x80]) + bytes(46), data
    return None
