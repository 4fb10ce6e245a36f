"""A runtime for tests: in memory, with a clock that tests advance, and crashes on demand."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from agentkit.durable.execution import Execution, Limits, current_execution
from agentkit.durable.identity import current_scope, short_name
from agentkit.inference.models import Models
from agentkit.inference.places import Model
from agentkit.inmemory.inference import ScriptedInference
from agentkit.ports.records import EntryKind, RunQuery, RunStatus
from agentkit.runtime.handle import RunHandle
from agentkit.runtime.runtime import Runtime
from agentkit.runtime.settings import Settings
from agentkit.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from agentkit.agents.base import AnyAgent
    from agentkit.agents.tenants import TenantSource
    from agentkit.clock import Clock

O_co = TypeVar("O_co", covariant=True)

SETTLED_TURNS = 100  # of the event loop without a change: a wake passes the store, the queue, a claim and a replay, and a park takes 25
SLEEPING_TURNS = 300  # where a body sleeps, or has a time limit and works: to tell one from the other, wait longer
THREAD_TURN_S = 0.001  # under a time limit a body that waits for a thread looks like one that sleeps: give threads real time
DONE = (EntryKind.RESULT, EntryKind.ERROR, EntryKind.SIGNAL)


@dataclass(frozen=True, eq=False, slots=True)
class Nap:
    """A sleep in the body of a step."""

    execution: Execution
    path: str
    until: float


def _prefixes(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _on_threads() -> bool:
    return anyio.to_thread.current_default_thread_limiter().borrowed_tokens > 0


class RuntimeClock(FakeClock):
    """The clock of a `LocalRuntime`: time passes from timer to timer of the runs, and between them everything settles."""

    runtime: LocalRuntime

    def __init__(self) -> None:
        super().__init__()
        self.naps: set[Nap] = set()

    async def sleep(self, seconds: float) -> None:
        """Until the clock was moved on by `seconds`. A step that sleeps here moves no further by itself: nobody waits for it to settle."""
        ex, scope = current_execution.get(), current_scope.get()
        if ex is None or scope is None:
            return await super().sleep(seconds)
        nap = Nap(ex, scope.inside().path, self.monotonic() + seconds)
        self.naps.add(nap)
        try:
            await super().sleep(seconds)
        finally:
            self.naps.discard(nap)

    def sleeping(self, ex: Execution) -> int:
        """How many bodies of a run sleep, with those that wait for them. A time limit beside a body counts as its sleep, too."""
        return len({prefix for nap in self.naps if nap.execution is ex for prefix in _prefixes(nap.path)})

    async def advance(self, seconds: float) -> None:
        """Let time pass: each timer of a run that comes due in it fires in order, and what follows from it happens, before the next."""
        end = self.monotonic() + seconds
        await self.runtime.settle()
        while (due := await self.runtime.next_timer()) is not None and due < end:
            self.jump(max(0.0, due - self.monotonic()))
            await self.runtime.settle()
        self.jump(max(0.0, end - self.monotonic()))
        await self.runtime.settle()


class Scripted(Models):
    """The models of a test; those that it did not write down have no answers."""

    def __init__(self, models: Mapping[str, object], clock: Clock) -> None:
        super().__init__(models)
        for engine in self.engines():
            if isinstance(engine, ScriptedInference):
                engine.clock = clock

    def find(self, name: str) -> Model:
        """What a name stands for: one that the test did not give has an empty script."""
        return super().find(name) if name in self.names else Model(ScriptedInference(name=name))


class LocalHandle(RunHandle[O_co]):
    """A handle of a `LocalRuntime`: to wait for a result there also lets happen what follows from a crash."""

    runtime: LocalRuntime

    async def result(self, *, timeout_s: float | None = None) -> O_co:
        """As of any handle."""
        await self.runtime.recover(self.run_id)
        return await super().result(timeout_s=timeout_s)


class LocalRuntime(Runtime):
    """A `Runtime` that works its own queue and whose time is in the test's hands."""

    clock: RuntimeClock
    run_limits = Limits(park_after_s=0.0)

    def __init__(self, *, clock: RuntimeClock, **given: Any) -> None:
        self.clock = clock  # pyright: ignore[reportIncompatibleVariableOverride]  set once, before anything uses it
        clock.runtime = self
        super().__init__(**given)
        self._crashes: dict[str, Literal["begin", "end"]] = {}
        self.crashed = 0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.engine.on_step = self._on_step
        self.engine.make_handle = self._handle
        return self

    def _handle(self, run_id: str, agent: AnyAgent | None) -> LocalHandle[Any]:
        handle = LocalHandle[Any](self.engine, self.hub, run_id, agent)
        handle.runtime = self
        return handle

    async def recover(self, run_id: str) -> None:
        """Where a crash was asked for: let the run be taken over, and the time pass in which an effect of it may be under way still."""
        while self._crashes or self.crashed:
            await self.settle()
            (row,) = await self.store.get([run_id])
            due = await self.next_timer()
            if row is None or due is None or not row.waiting_for.startswith("effect:") or row.status != RunStatus.PARKED:
                return
            await self.clock.advance(due - self.clock.monotonic())

    async def settle(self) -> None:
        """Return when nothing moves any more: every run has ended, is parked, or waits for time or a message."""
        quiet, turns = 0, SETTLED_TURNS
        while quiet < turns:
            await (anyio.sleep(THREAD_TURN_S) if self.clock.naps and _on_threads() else anyio.lowlevel.checkpoint())
            quiet = 0 if self._moving() else quiet + 1
            turns = SLEEPING_TURNS if self.clock.naps else SETTLED_TURNS
            if quiet == turns - 1 and await self._swept_more():
                quiet = 0

    def _moving(self) -> bool:
        engine = self.engine
        if engine.taking or not engine.registered or (engine.locals and engine.free() > 0):
            return True
        executions = [activation.execution for activation, _ in engine.active.values()]
        return any(ex is None or ex.leaving is not None or self._works(ex) for ex in executions)

    def _works(self, ex: Execution) -> bool:
        busy = ex.waits.busy
        return not ex.waits.parkable and not 0 < busy <= self.clock.sleeping(ex)

    async def _swept_more(self) -> bool:
        """Recovery and the queue run by the clock, which stands still: look for them whether there is something to do."""
        await self.sweep()
        if self._moving():
            return True
        ready = await self.store.list(RunQuery(status=frozenset({RunStatus.READY})))
        depth = await self.tickets.depth()
        held = sum(1 for _, h in self.engine.active.values() if h.lease is not None)  # by runs that wait here for a near timer
        waiting = sum(d.ready + d.leased for d in depth.values()) > held
        later = sum(d.delayed for d in depth.values())  # tickets that were given back for a while
        served = sum(f"{row.kind}@{row.version}" in self.registry.kinds() for row in ready) > later
        if waiting or served:
            await anyio.sleep(0.001)
        return bool(waiting or served) and bool(self._worker) and self.engine.free() > 0  # with no slot free they wait for time to pass

    async def next_timer(self) -> float | None:
        """The clock's reading when the next timer of a run fires."""
        now = self.clock.monotonic()
        executions = [a.execution for a, _ in self.engine.active.values() if a.execution is not None]
        held = [due - ex.store_now() for ex in executions if (due := ex.waits.next_due()) is not None]
        swept = await self.store.sweep({}, max_crashes=self.settings.max_crashes, lost_after_s=1e12, limit=0)
        held += [nap.until - now for nap in self.clock.naps]
        parked = [] if swept.next_timer_s is None else [swept.next_timer_s]
        soonest = min([s for s in (*held, *parked) if s > 0], default=None)
        return None if soonest is None else now + soonest

    async def crash(self, *, at: str, before: bool = False) -> None:
        """Kill this worker (as kill -9 would) the next time step `at` (name or key) has ended its body but nothing of it is journalled.

        With `before` it dies when the body should begin. A new worker takes over at once.
        """
        self._crashes[at] = "begin" if before else "end"

    async def _on_step(self, run_id: str, key: str, point: Literal["begin", "end"]) -> None:
        for at in (key, short_name(key)):
            if self._crashes.get(at) == point:
                del self._crashes[at]
                self.crashed += 1
                await self.engine.crash()
                await anyio.sleep_forever()

    async def steps(self, run_id: str, /) -> list[str]:
        """The keys of the steps that have an outcome, in order."""
        return [e.key for e in await self.store.load(run_id, after=-1) if e.kind in DONE]


@asynccontextmanager
async def runtime(
    *,
    agents: Iterable[AnyAgent] = (),
    models: Mapping[str, object] | None = None,
    resources: Mapping[type[Any], object] | None = None,
    tenants: TenantSource | None = None,
    state: str = "memory://",
    worker: bool = True,
    settings: Settings | None = None,
) -> AsyncGenerator[LocalRuntime]:
    """A runtime for a test.

    Args:
        models: by the names that agents use; the clock of scripted ones becomes the runtime's. Under any other name a call fails by
            `ScriptExhausted`: what a test did not write down did not happen.
        tenants: as for `Runtime`.
        resources: what steps get with `ctx.get(Type)`.
        state: another store, for instance `f"sqlite:///{tmp_path}/test.db"`.
        worker: also work the queue.
    """

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[Mapping[type[Any], object]]:
        yield resources or {}

    clock = RuntimeClock()
    made = LocalRuntime(
        clock=clock,
        state=state,
        agents=agents,
        models=Scripted(models or {}, clock),
        lifespan=lifespan,
        tenants=tenants,
        worker=worker,
        settings=settings or Settings(grace_s=0.0),
    )
    async with made:
        yield made
