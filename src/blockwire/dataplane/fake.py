"""A data plane in pure Python, for tests of the control plane: both roles at the level of events, no sockets read.

Target's side: `inject` puts events into the stream, what the control plane did is in `calls`, `replies`, `mappings`,
`gates`. Initiator's side: every request goes to `on_request`; by default that is a `FakeDisk` per logical unit
(`disks`), and a test may put a function of its own in its place.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from blockwire.dataplane import api
from blockwire.dataplane.fake_disk import FakeDisk, FakeRequest
from blockwire.dataplane.fake_requests import Call, FakeRequests, answer_logout

__all__ = ["Call", "FakeDisk", "FakePlane", "FakeRequest", "answer_logout"]

DEFAULT_LIMITS = api.Limits(
    max_recv_data_segment_length=262144,
    max_burst_length=1 << 20,
    first_burst_length=262144,
    max_outstanding_r2t=64,
    max_connections=1,
    error_recovery_level=0,
    command_window=128,
    max_transfer=1 << 20,
    digests=(api.Digest.NONE, api.Digest.CRC32C),
)


class FakePlane(FakeRequests):
    """Implements `api.DataPlane`; see the module."""

    def __init__(self, limits: api.Limits = DEFAULT_LIMITS) -> None:
        super().__init__()
        self.fake_limits = limits
        self.stores: dict[api.StoreId, bytearray] = {}
        self.store_specs: dict[api.StoreId, api.StoreSpec] = {}
        self.connections: dict[tuple[api.SessionId, int], api.ConnectionHandoff] = {}
        self.mappings: dict[tuple[api.SessionId, int], api.LunMapping] = {}
        self.gates: dict[tuple[api.SessionId, int], dict[api.CommandClass, api.Gate]] = {}
        self.replies: list[tuple[api.SessionId, api.TaskTag, api.Answer, api.Effects]] = []
        self.op_failures: dict[str, api.Failure] = {}
        """Name of a call -> the failure its next operation ends with."""
        self.abort_report = api.AbortReport(affected=(), found=True, complete=True)
        self.fake_numbers: api.SessionNumbers | None = None
        self.tasks: list[api.TaskView] = []
        """What `query` finds."""

    # ------------------------------------------------------------------ for tests
    def lose(self, session: api.SessionId, code: str = "closed-by-peer") -> None:
        """The connection of `session` is lost: its requests end with `session.lost`, then `ConnectionLost` is seen."""
        self.lost.add(session)
        with self._changed:
            for token, flight in list(self._flights.items()):
                if flight.request.session == session:
                    del self._flights[token]
                    self._deliver(flight.queue, api.TaskDone(token, 0, code="session.lost"))
        for key in [key for key in self.connections if key[0] == session]:
            del self.connections[key]
            self.inject(api.ConnectionLost(session, key[1], code))

    def _op(self, name: str, result: object, *arguments: Any) -> api.OpId:
        if self.closed:
            raise RuntimeError("plane.closed")
        op = next(self._ids)
        self.calls.append(Call(name, arguments))
        failure = self.op_failures.pop(name, None)
        self.inject(api.OpDone(op, None if failure else result, failure))
        return op

    def _fail(self, name: str, failure: api.Failure, *arguments: Any) -> api.OpId:
        self.op_failures[name] = failure
        return self._op(name, None, *arguments)

    # ------------------------------------------------------------------ events
    def limits(self) -> api.Limits:
        """The limits given at construction."""
        return self.fake_limits

    # ------------------------------------------------------------------ stores
    def open_store(self, spec: api.StoreSpec) -> api.OpId:
        """Every scheme is memory here; a missing size is a missing file."""
        if spec.size is None:
            failure = api.Failure("store.not-found", f"{spec.path}: no such file", errno.ENOENT)
            return self._fail("open_store", failure, spec)
        if "open_store" in self.op_failures:
            return self._op("open_store", None, spec)
        store = next(self._ids)
        self.stores[store] = bytearray(spec.size)
        self.store_specs[store] = spec
        return self._op("open_store", self._info(store), spec)

    def _info(self, store: api.StoreId) -> api.StoreInfo:
        spec = self.store_specs[store]
        return api.StoreInfo(
            store=store,
            size=len(self.stores[store]),
            physical_block=spec.block_size,
            optimal_io=65536,
            read_only=spec.read_only,
            can_punch=True,
            can_zero=True,
            can_flush=spec.scheme != "null",
            identity=f"{spec.scheme}:{spec.path}" if spec.path else f"{spec.scheme}:{store}",
        )

    def close_store(self, store: api.StoreId) -> api.OpId:
        """Forgets the store and its content."""
        self.stores.pop(store, None)
        return self._op("close_store", None, store)

    def store_op(
        self, store: api.StoreId, kind: api.StoreOp, offset: int = 0, length: int = 0, data: bytes = b"", to: int = 0
    ) -> api.OpId:
        """Done at once on a bytearray."""
        memory = self.stores.get(store)
        arguments = (store, kind, offset, length)
        if memory is None:
            return self._fail("store_op", api.Failure("store.closed", f"no store {store}"), *arguments)
        end = offset + (len(data) if kind is api.StoreOp.WRITE else length)
        if kind is not api.StoreOp.RESIZE and end > len(memory):
            return self._fail("store_op", api.Failure("store.out-of-range", f"byte {end} is past the end"), *arguments)
        result: object = None
        match kind:
            case api.StoreOp.GEOMETRY:
                result = self._info(store)
            case api.StoreOp.READ:
                result = bytes(memory[offset:end])
            case api.StoreOp.WRITE:
                memory[offset:end] = data
            case api.StoreOp.COPY:
                memory[to : to + length] = memory[offset:end]
            case api.StoreOp.ZERO | api.StoreOp.PUNCH:
                memory[offset:end] = bytes(length)
            case api.StoreOp.RESIZE:
                if length < len(memory):
                    del memory[length:]
                else:
                    memory.extend(bytes(length - len(memory)))
                self.inject(api.StoreChanged(store, length))
            case api.StoreOp.FLUSH:
                pass
        return self._op("store_op", result, *arguments)

    # ------------------------------------------------------------------ sessions
    def create_session(self, spec: api.SessionSpec) -> api.SessionId:
        """A number; nothing happens until `adopt`."""
        session = next(self._ids)
        self.sessions[session] = spec
        self.calls.append(Call("create_session", (spec,)))
        return session

    def close_session(self, session: api.SessionId) -> api.OpId:
        """Closes its transports too."""
        self.sessions.pop(session, None)
        for key in [key for key in self.connections if key[0] == session]:
            self._close_transport(self.connections.pop(key).transport)
        return self._op("close_session", None, session)

    @staticmethod
    def _close_transport(transport: api.TransportHandle) -> None:
        if transport.kind is api.TransportKind.TCP and transport.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(transport.descriptor)

    def adopt(self, session: api.SessionId, handoff: api.ConnectionHandoff) -> api.OpId:
        """Keeps the hand-off; nothing is read from the transport."""
        self.connections[session, handoff.cid] = handoff
        return self._op("adopt", None, session, handoff)

    def release(self, session: api.SessionId, cid: int, mode: api.ReleaseMode) -> api.OpId:
        """Gives the transport back (DETACH) or closes it."""
        handoff = self.connections.pop((session, cid), None)
        frozen = [task for task in self.tasks if (task.session, task.cid, task.frozen) == (session, cid, True)]
        if handoff is None and frozen and mode is not api.ReleaseMode.DETACH:
            if mode is api.ReleaseMode.TERMINATE:
                self.tasks = [task for task in self.tasks if task not in frozen]
            return self._op("release", api.ReleasedConnection(None, b"", 0, 0, len(frozen)), session, cid, mode)
        if handoff is None:
            return self._fail("release", api.Failure("connection.unknown", f"no connection {cid}"), session, cid, mode)
        transport: api.TransportHandle | None = handoff.transport
        if mode is not api.ReleaseMode.DETACH:
            self._close_transport(handoff.transport)
            transport = None
            self.inject(api.ConnectionClosed(session, cid))
        released = api.ReleasedConnection(transport, b"", handoff.stat_sn, handoff.exp_stat_sn, 0)
        return self._op("release", released, session, cid, mode)

    def exp_stat_sn(self, session: api.SessionId, cid: int) -> int:
        """That of the connection's beginning: the fake counts no statuses."""
        handoff = self.connections.get((session, cid))
        return handoff.exp_stat_sn if handoff is not None else 0

    def numbers(self, session: api.SessionId) -> api.SessionNumbers:
        """`fake_numbers`, or those of the session's start."""
        if self.fake_numbers is not None:
            return self.fake_numbers
        spec = self.sessions[session]
        return api.SessionNumbers(spec.cmd_sn, spec.exp_cmd_sn, spec.max_cmd_sn)

    def configure(self, session: api.SessionId, cid: int | None, changes: Mapping[str, float]) -> api.OpId:
        """Recorded only."""
        return self._op("configure", None, session, cid, dict(changes))

    # ------------------------------------------------------------------ target
    def map_lun(self, session: api.SessionId, lun: int, mapping: api.LunMapping) -> api.OpId:
        """Recorded in `mappings` and `gates`."""
        self.mappings[session, lun] = mapping
        self.gates[session, lun] = dict(mapping.gates)
        return self._op("map_lun", None, session, lun, mapping)

    def unmap_lun(self, session: api.SessionId, lun: int) -> api.OpId:
        """Forgotten."""
        self.mappings.pop((session, lun), None)
        return self._op("unmap_lun", None, session, lun)

    def set_gate(
        self, nexuses: Sequence[tuple[api.SessionId, int]], gates: Mapping[api.CommandClass, api.Gate]
    ) -> api.OpId:
        """Recorded in `gates`."""
        for nexus in nexuses:
            self.gates.setdefault(nexus, {}).update(gates)
        return self._op("set_gate", None, tuple(nexuses), dict(gates))

    def abort(self, scope: api.AbortScope, semantics: api.AbortSemantics = api.AbortSemantics.CLARIFIED) -> api.OpId:
        """Ends with `abort_report`."""
        return self._op("abort", self.abort_report, scope, semantics)

    def query(self, scope: api.AbortScope) -> api.OpId:
        """Ends with those of `tasks` that fit the scope."""
        kind = api.AbortKind
        fits: Callable[[Any], bool] = {
            kind.TASK: lambda task: task.initiator_task_tag == scope.initiator_task_tag,
            kind.TASK_SET: lambda task: task.lun == scope.lun and not task.control,
            kind.NEXUS: lambda task: not task.control,
            kind.LOGICAL_UNIT: lambda task: not task.control,
        }[scope.kind]
        of_unit = scope.kind is kind.LOGICAL_UNIT
        found = tuple(task for task in self.tasks if (of_unit or task.session == scope.session) and fits(task))
        return self._op("query", found, scope)

    def reassign(self, session: api.SessionId, from_cid: int, to_cid: int) -> api.OpId:
        """Moves `tasks`; the target is always willing."""
        mine = [task for task in self.tasks if (task.session, task.cid, task.frozen) == (session, from_cid, True)]
        for task in mine:
            self.tasks[self.tasks.index(task)] = replace(task, cid=to_cid, frozen=False)
        return self._op("reassign", len(mine), session, from_cid, to_cid)

    def reply(
        self, session: api.SessionId, tag: api.TaskTag, answer: api.Answer, effects: api.Effects = api.NO_EFFECTS
    ) -> None:
        """Recorded in `replies`."""
        self.replies.append((session, tag, answer, effects))

    def send_unsolicited(
        self, session: api.SessionId, cid: int, pdu: api.ResponsePdu, effects: api.Effects = api.NO_EFFECTS
    ) -> None:
        """Recorded in `sent`."""
        self.sent.append((session, cid, pdu.header, pdu.data))

    # ------------------------------------------------------------------ everything
    def statistics(self) -> dict[str, object]:
        """Counts of what is open."""
        return {
            "workers": {},
            "sessions": {session: {} for session in self.sessions},
            "connections": {f"{session}/{cid}": {} for session, cid in self.connections},
            "stores": {store: {} for store in self.stores},
        }

    def trace(self, session: api.SessionId | None = None) -> bytes:
        """Nothing was on a wire."""
        return b""

    def shutdown(self, deadline: float) -> None:
        """Later operations fail."""
        if not self.closed:
            self.closed = True
            for handoff in self.connections.values():
                self._close_transport(handoff.transport)
            os.close(self._fd)
