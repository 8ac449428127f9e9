"""`SteppedPair`: our initiator and our target in one process, each on its own stepped plane, under one virtual clock.

No thread, no socket, no waiting: the same run every time, at the speed of the processor. Faults are set on the links of
`pair.network`; a run that can never end raises `virtual_time.Deadlock`, which names every task and where it waits.

    with SteppedPair("ram:1M", target_keys={"MaxBurstLength": "512"}) as pair:
        pair.network.plan(Faults(cut_to_initiator=1500))
        async def body():
            async with await pair.open() as lun:
                await lun.pwrite(data, 0)
                assert await lun.pread(len(data), 0) == data
        pair.run(body())
        assert pair.stored(0, len(data)) == data
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self, TypeVar, cast

from blockwire.config.arguments import build
from blockwire.config.model import Configuration, Limits
from blockwire.dataplane import native
from blockwire.dataplane.api import DataPlane, StoreOp
from blockwire.dataplane.dispatch import Dispatch
from blockwire.initiator import api as initiator_api
from blockwire.initiator.initiator import Initiator
from blockwire.initiator.logical_unit import Lun
from blockwire.initiator.options import Options, Timers
from blockwire.initiator.session import Session
from blockwire.names import Portal, Url
from blockwire.target.events import TargetEvent
from blockwire.target.server import TargetServer
from blockwire.testing.memory_link import PairFactory, native_pair
from blockwire.testing.virtual_network import Link, Network, VirtualRuntime
from blockwire.testing.virtual_time import VirtualLoop

_T = TypeVar("_T")

PORTAL = "192.0.2.2:3260"
"""Where the target of a pair listens."""
TARGET_NAME = "iqn.2025-01.org.blockwire:pair"
INITIATOR_NAME = "iqn.2025-01.org.blockwire:pair-initiator"

QUICK = Timers(timeout=30.0, replacement_timeout=120.0)
"""The initiator's usual timers; under virtual time they cost nothing."""


class SteppedPlane(DataPlane, Protocol):
    """A plane without threads."""

    def step(self, now: float) -> bool:
        """Runs everything that can run at `now` (seconds); True when anything moved."""
        ...

    def next_deadline(self) -> float | None:
        """Virtual time of its next timer, seconds."""
        ...


class PlaneSource:
    """A plane as a source of a virtual loop: it is stepped, and its events are routed."""

    def __init__(self, name: str, plane: DataPlane, dispatch: Dispatch) -> None:
        self.name = name
        self.plane = plane
        self.dispatch = dispatch
        self.steps = 0

    def step(self, now: float) -> bool:
        """One step and one pump. A plane that cannot be stepped (the fake) has events only."""
        step = getattr(self.plane, "step", None)
        moved = bool(step(now)) if step is not None else False
        if moved:
            self.steps += 1
        return self.dispatch.pump() > 0 or moved

    def next_deadline(self) -> float | None:
        """The plane's own."""
        deadline = getattr(self.plane, "next_deadline", None)
        at: float | None = deadline() if deadline is not None else None
        return at

    def describe(self) -> str:
        """Who it is and what it counted."""
        at = self.next_deadline()
        return f"{self.name}'s plane, {'no timer' if at is None else f'next timer at {at:.6f} s'}"


def _native_plane() -> DataPlane:
    plane: Any = native.stepped_plane()
    return cast("DataPlane", plane)


class _Complaints(logging.Handler):
    """Collects what the package logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        self.lines.append(record.getMessage() + (f" ({cause!r})" if cause is not None else ""))


def configuration(
    stores: Sequence[str],
    luns: Sequence[str] = (),
    keys: Mapping[str, str] | None = None,
    allow: Sequence[str] = (),
    filters: Sequence[str] = (),
    limits: Limits | None = None,
) -> Configuration:
    """What the target of a pair serves; the words are those of `serve`."""
    value = build(
        stores, luns=luns, portals=(PORTAL,), target_name=TARGET_NAME, allow=allow, filters=filters,
        keys=[f"{name}={text}" for name, text in (keys or {}).items()],
    )  # fmt: skip
    return value.model_copy(update={"limits": limits}) if limits is not None else value


class SteppedPair:
    """See the module. Use it as a context manager; `run` may be called many times.

    `stores` and `luns` are the words of `serve`; `target_keys` and `keys` the RFC 7143 keys of either side; `timers`
    the initiator's. `planes` replaces both planes, initiator's first, and `make_pair` the connections (with the native
    plane both must be native); `tapped` puts a `Tap` into each link. At the end whatever either side logged as an error
    (a task that failed, a handler that raised) fails the test, unless `check` is turned off.
    """

    def __init__(
        self,
        *stores: str,
        luns: Sequence[str] = (),
        target_keys: Mapping[str, str] | None = None,
        keys: Mapping[str, str] | None = None,
        timers: Timers = QUICK,
        allow: Sequence[str] = (),
        filters: Sequence[str] = (),
        limits: Limits | None = None,
        planes: tuple[DataPlane, DataPlane] | None = None,
        make_pair: PairFactory = native_pair,
        tapped: bool = False,
        check: bool = True,
    ) -> None:
        self.configuration = configuration(stores or ("ram:1M",), luns, target_keys, allow, filters, limits)
        self.options = Options(keys=dict(keys or {}), initiator_name=INITIATOR_NAME, timers=timers)
        self.network = Network(make_pair, tapped)
        self.initiator_runtime = VirtualRuntime(self.network)
        self.target_runtime = VirtualRuntime(self.network)
        self.events: list[TargetEvent] = []
        """What the target told its owner, oldest first."""
        self.check = check
        self.loop = VirtualLoop()
        self._planes = planes
        self._closed = False
        self.loop.add_source(self.network)
        self._complaints = _Complaints()
        logging.getLogger("blockwire").addHandler(self._complaints)
        try:
            self.run(self._set_up())
        except BaseException:
            logging.getLogger("blockwire").removeHandler(self._complaints)
            self.loop.close()
            raise

    async def _set_up(self) -> None:
        if self._planes is None:
            self._planes = (_native_plane(), _native_plane())
        near, far = self.initiator_plane, self.target_plane = self._planes
        self.initiator = Initiator(near, self.initiator_runtime, INITIATOR_NAME)
        self.target_dispatch = Dispatch(far)
        self.target_dispatch.attach()
        self.loop.add_source(PlaneSource("initiator", near, self.initiator.dispatch))
        self.loop.add_source(PlaneSource("target", far, self.target_dispatch))
        self.target = TargetServer(
            self.configuration, far, self.target_dispatch, self.target_runtime, host_id="pair",
            observe=self.events.append,
        )  # fmt: skip
        await self.target.start()

    # ------------------------------------------------------------------ what tests use
    @property
    def url(self) -> Url:
        """The target, without a LUN."""
        return Url(Portal.parse(PORTAL), TARGET_NAME)

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self.loop.time()

    @property
    def links(self) -> list[Link]:
        """Every connection so far, in the order of dialling."""
        return self.network.links

    @property
    def link(self) -> Link:
        """The newest connection."""
        return self.network.links[-1]

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs `coroutine` to its end in the pair's world."""
        return self.loop.run(coroutine)

    async def connect(self, keys: Mapping[str, str] | None = None, timers: Timers | None = None) -> Session:
        """A session with the target."""
        return await self.initiator.connect(self.url, self._options(keys, timers))

    async def open(
        self, lun: int = 0, keys: Mapping[str, str] | None = None, timers: Timers | None = None, read_only: bool = False
    ) -> Lun:
        """A logical unit with a session of its own; use it in `async with`."""
        options = self._options(keys, timers)
        opened: Lun = await initiator_api.open_url(self.initiator, self.url.at(lun=lun), options, read_only)
        return opened

    def _options(self, keys: Mapping[str, str] | None, timers: Timers | None) -> Options:
        merged = {**self.options.keys, **(keys or {})}
        return replace(self.options, keys=merged, timers=timers or self.options.timers)

    def stored(self, offset: int, length: int, lun: int = 0) -> bytes:
        """What the target's store holds, read behind iSCSI's back."""
        data = self._store_op(lun, StoreOp.READ, offset, length)
        assert isinstance(data, bytes)
        return data

    def store(self, offset: int, data: bytes, lun: int = 0) -> None:
        """Puts `data` into the target's store, behind iSCSI's back."""
        self._store_op(lun, StoreOp.WRITE, offset, len(data), data)

    def _store_op(self, lun: int, kind: StoreOp, offset: int, length: int, data: bytes = b"") -> object:
        unit = self.target.devices[TARGET_NAME].units[lun]

        async def wait() -> object:
            done: object = await self.target_dispatch.op(
                self.target_plane.store_op(unit.store, kind, offset, length, data)
            )
            return done

        return self.run(wait())

    def counters(self) -> dict[str, object]:
        """Statistics of both planes, and what went over the links."""
        return {
            "initiator": self.initiator_plane.statistics(),
            "target": self.target_plane.statistics(),
            "links": [(link.sent(0), link.sent(1)) for link in self.network.links],
            "seconds": self.now,
        }

    def traces(self) -> dict[str, bytes]:
        """The rings of PDU headers of both ends, as pcapng files."""
        return {"initiator": self.initiator_plane.trace(), "target": self.target_plane.trace()}

    # ------------------------------------------------------------------ ending
    def close(self) -> None:
        """Ends both roles in order and within their bounds (virtual seconds); idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            self.run(self._tear_down())
        finally:
            for plane in (self.initiator_plane, self.target_plane):
                plane.shutdown(1.0)
            self.target_dispatch.close()
            self.loop.close()
            logging.getLogger("blockwire").removeHandler(self._complaints)
        if self.check and self._complaints.lines:
            raise AssertionError("logged as errors:\n  " + "\n  ".join(self._complaints.lines))

    @property
    def complaints(self) -> list[str]:
        """What either side logged as an error so far."""
        return self._complaints.lines

    async def _tear_down(self) -> None:
        self.network.restore()
        await self.initiator.close()
        await self.target.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            # What is wrong is being reported already.
            with contextlib.suppress(BaseException):
                self.close()
